"""Encoding on a CPU, semid beside faiss and vector-quantize-pytorch, as a Markdown table.

    python -m tests.benchmarks.encode [--rows N] [--dims 32,64,384,768] [--threads T] [--repeats R]

Latents from a hierarchical mixture, codebooks of 4 x 256 from faiss's trainer; the same for all, rounded to semid's
grid. Every system is fed at its best: faiss in blocks of several sizes, with and without its tables (LUT), and as one
call. Runs alternate, so that a busy machine is busy for all; the best of R counts.

    products     the four bare matrix products of a row with all codes, float32, blocks of 512: what a greedy encoder
                 in float32 cannot do without
    wrong        rows that differ from the float64 definition, a million of them

A second table has beam search: semid with 4 prefixes, faiss with 5, in blocks of 2,048 rows, and the mean squared
error of their codes relative to greedy ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from semid.quantize import residual_blocks as blocks
from semid.quantize.beam import beam_codes
from semid.quantize.grid import snap, snap_centroids
from semid.quantize.residual import residual_codes
from semid.runtime.threads import in_threads
from tests.benchmarks.common import machine, markdown, versions

LEVELS, SIZE = 4, 256
FAISS_BLOCKS = (2048, 8192, 20_000)
PEER_BLOCK = 4096
ROWS = blocks.ROWS["float32"]
TRAINED_ON = 20_000


def mixture(n_rows: int, dims: int, seed: int = 0) -> np.ndarray:
    """Rows of length sqrt(D) around leaves of a tree, of at most 24 intrinsic dimensions; float32 [N, D]."""
    rng = np.random.default_rng(seed)
    inner = min(dims, 24)
    basis = rng.standard_normal((inner, dims)).astype(np.float32)
    branches = rng.standard_normal((64, inner)) * 1.5
    leaves = branches[rng.integers(64, size=max(64, n_rows // 20))]
    leaves = leaves + rng.standard_normal(leaves.shape)
    weight = rng.pareto(2.0, len(leaves)) + 0.1
    rows = np.empty((n_rows, dims), np.float32)
    for start in range(0, n_rows, 65_536):
        part = rows[start : start + 65_536]
        leaf = leaves[rng.choice(len(leaves), len(part), p=weight / weight.sum())]
        part[:] = (leaf + 0.5 * rng.standard_normal(leaf.shape)).astype(np.float32) @ basis
        part /= np.linalg.norm(part, axis=1, keepdims=True) / np.sqrt(dims)
    return rows


def trained(rows: np.ndarray) -> list[np.ndarray]:
    """Codebooks on the grid, from faiss's trainer."""
    import faiss

    quantizer = faiss.ResidualQuantizer(rows.shape[1], LEVELS, 8)
    quantizer.max_beam_size = 1
    quantizer.train(rows)
    tables = faiss.vector_to_array(quantizer.codebooks).reshape(LEVELS, SIZE, -1)
    return [snap_centroids(table) for table in tables]


# ---- the systems; each returns codes [N, L]


def with_semid(levels: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: residual_codes(rows, levels)


def with_faiss(
    levels: list[np.ndarray], block: int | None, *, tables: bool, beam: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    import faiss

    quantizer = faiss.ResidualQuantizer(levels[0].shape[1], LEVELS, 8)
    quantizer.max_beam_size = beam
    faiss.copy_array_to_vector(np.concatenate(levels).ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    if tables:
        quantizer.use_beam_LUT = 1
        quantizer.compute_codebook_tables()

    def encode(rows: np.ndarray) -> np.ndarray:
        step = block or len(rows)
        return np.concatenate([quantizer.compute_codes(rows[at : at + step]) for at in range(0, len(rows), step)])

    return encode


def with_vector_quantize(levels: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    from vector_quantize_pytorch import ResidualVQ

    model = ResidualVQ(dim=levels[0].shape[1], num_quantizers=LEVELS, codebook_size=SIZE).eval()
    for layer, centroids in zip(model.layers, levels, strict=True):
        layer._codebook.embed.data.copy_(torch.from_numpy(centroids)[None])
        layer._codebook.initted.data.fill_(True)

    @torch.no_grad()
    def encode(rows: np.ndarray) -> np.ndarray:
        parts = (torch.from_numpy(rows[at : at + PEER_BLOCK])[None] for at in range(0, len(rows), PEER_BLOCK))
        return torch.cat([model(part)[1][0] for part in parts]).numpy()

    return encode


def bare_products(levels: list[np.ndarray], threads: int) -> Callable[[np.ndarray], None]:
    transposed = [torch.from_numpy(level).t() for level in levels]

    def multiply(rows: np.ndarray) -> None:
        tensor = torch.from_numpy(rows)

        def work(part: slice) -> None:
            out = torch.empty(ROWS, SIZE)
            for at in range(part.start, part.stop, ROWS):
                block = tensor[at : at + ROWS]
                for level in transposed:
                    torch.mm(block, level, out=out[: len(block)])

        step = ROWS * blocks.PART
        in_threads(work, [slice(at, min(len(rows), at + step)) for at in range(0, len(rows), step)], most=threads)

    return multiply


# ---- comparing


def wrong_per_million(codes: np.ndarray, latents: np.ndarray, levels: list[np.ndarray]) -> float:
    """Against the definition, in float64, level by level."""
    wrong = 0
    for at in range(0, len(latents), 8192):
        residual = latents[at : at + 8192].astype(np.float64)
        found = np.empty((len(residual), LEVELS), np.int64)
        for number, level in enumerate(levels):
            wide = level.astype(np.float64)
            found[:, number] = (residual @ wide.T - 0.5 * np.square(wide).sum(axis=1)).argmax(axis=1)
            residual -= wide[found[:, number]]
        wrong += int((found != codes[at : at + 8192]).any(axis=1).sum())
    return 1e6 * wrong / len(latents)


def mean_error(codes: np.ndarray, latents: np.ndarray, levels: list[np.ndarray]) -> float:
    total = 0.0
    for at in range(0, len(latents), 65_536):
        part = codes[at : at + 65_536]
        quantized = sum(level[part[:, number]].astype(np.float64) for number, level in enumerate(levels))
        total += float(np.square(latents[at : at + 65_536] - quantized).sum())
    return total / len(latents)


def best_times(systems: dict[str, Callable], rows: np.ndarray, repeats: int) -> dict[str, float]:
    times = dict.fromkeys(systems, float("inf"))
    for _ in range(repeats):
        for name, run in systems.items():
            start = time.perf_counter()
            run(rows)
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def measure_beams(dims: int, n_rows: int, repeats: int) -> list[str]:
    latents = snap(mixture(n_rows, dims)).astype(np.float32)
    levels = trained(latents[:TRAINED_ON])
    systems = {
        "semid": lambda rows: beam_codes(rows, levels, 4),
        "faiss": with_faiss(levels, 2048, tables=False, beam=5),
        "faiss LUT": with_faiss(levels, 2048, tables=True, beam=5),
    }
    for run in systems.values():
        run(latents[:4096])
    rate = {name: n_rows / seconds / 1000 for name, seconds in best_times(systems, latents, repeats).items()}
    greedy = mean_error(residual_codes(latents, levels), latents, levels)
    errors = [mean_error(systems[name](latents), latents, levels) / greedy - 1 for name in ("semid", "faiss LUT")]
    theirs = max(rate["faiss"], rate["faiss LUT"])
    return [
        str(dims), f"{n_rows:,}", f"{rate['semid']:,.0f}", f"{theirs:,.0f}", f"{rate['semid'] / theirs:.1f}×",
        f"{errors[0]:+.1%}", f"{errors[1]:+.1%}",
    ]  # fmt: skip


def measure(dims: int, n_rows: int, threads: int, repeats: int) -> list[str]:
    latents = snap(mixture(n_rows, dims)).astype(np.float32)
    levels = trained(latents[:TRAINED_ON])
    systems: dict[str, Callable] = {"semid": with_semid(levels), "products": bare_products(levels, threads)}
    for tables in (False, True):
        for block in (None, *FAISS_BLOCKS):
            systems[f"faiss {'LUT ' * tables}{block or 'one call'}"] = with_faiss(levels, block, tables=tables)
    if find_spec("vector_quantize_pytorch"):
        systems["vqp"] = with_vector_quantize(levels)
    for run in systems.values():
        run(latents[:4096])
    times = best_times(systems, latents, repeats)
    codes = systems["semid"](latents)
    theirs = systems["faiss one call"](latents)
    rate = {name: n_rows / seconds / 1000 for name, seconds in times.items()}
    faiss_best = max((name for name in rate if name.startswith("faiss")), key=rate.__getitem__)
    once = max(rate["faiss one call"], rate["faiss LUT one call"])
    return [
        str(dims), f"{n_rows:,}", f"{rate['semid']:,.0f}", f"{rate['semid'] / rate['products']:.0%}",
        f"{rate[faiss_best]:,.0f} ({faiss_best.removeprefix('faiss ')})", f"{rate['semid'] / rate[faiss_best]:.1f}×",
        f"{rate['semid'] / once:.1f}×",
        f"{rate['semid'] / rate['vqp']:.1f}×" if "vqp" in rate else "absent",
        f"{wrong_per_million(codes, latents, levels):.0f}", f"{wrong_per_million(theirs, latents, levels):.0f}",
        blocks.fastest_product(n_rows, dims, SIZE),
    ]  # fmt: skip


def main() -> None:
    import faiss

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", default="32,64,384,768")
    parser.add_argument("--threads", type=int, default=2, help="set OMP_NUM_THREADS to the same")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    packages = versions("numpy", "torch", "faiss-cpu", "vector-quantize-pytorch", "numba")
    print(f"{machine(arguments.threads)}; {packages}\n")
    print("Thousand rows a second, 4 x 256.\n")
    columns = [
        "d", "rows", "**semid**", "of the bare products", "faiss beam 1 at its best", "ratio", "to its one call",
        f"to vector-quantize-pytorch, blocks of {PEER_BLOCK}", "semid wrong, ppm", "faiss wrong, ppm", "product",
    ]  # fmt: skip
    lines = [
        measure(int(dims), arguments.rows, arguments.threads, arguments.repeats) for dims in arguments.dims.split(",")
    ]
    print(markdown(columns, lines))
    print("\nBeam search, thousand rows a second.\n")
    columns = [
        "d",
        "rows",
        "**semid**, 4 beams",
        "faiss, 5 beams, at its best",
        "ratio",
        "semid's error",
        "faiss's error",
    ]
    rows = min(arguments.rows, 100_000)
    print(markdown(columns, [measure_beams(int(dims), rows, 2) for dims in arguments.dims.split(",")]))


if __name__ == "__main__":
    main()
