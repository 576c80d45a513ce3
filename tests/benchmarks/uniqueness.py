"""Time, memory and distortion of giving every item its own ID, as a Markdown table.

    python -m tests.benchmarks.uniqueness [--quick] [--optimal]
    python -m tests.benchmarks.uniqueness --simulate 1000000,5000000,20000000

The catalog is a hierarchical Gaussian mixture: N/20 leaves of uneven size in 24 intrinsic dimensions, as
32-d latents of length one, with exact duplicates sown in. Codebooks are residual k-means of a sample. Every
method runs in a process of its own on the same files; making the input is not timed.

`--simulate` is for catalogs larger than one would learn from here: codes are drawn, not learned, with prefixes as
uneven as those of the mixture, and a latent is its codes' centroids and noise, made when it is asked for. So time and
memory are those of the assignment alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

DIMS = 32
INTRINSIC_DIMS = 24
SIZE = 256
LEAF_ITEMS = 20
SAMPLE = 100_000

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One catalog."""

    name: str
    n_items: int
    levels: int
    duplicates: float = 0.05  # share of items that copy another one
    copies_of_one: int = 0  # items identical to item 0
    methods: tuple[str, ...] = ("exact",)


FULL = (
    Case("10k", 10_000, 4, methods=("exact", "lc-rec", "global")),
    Case("100k", 100_000, 4, methods=("exact", "lc-rec", "global")),
    Case("100k", 100_000, 3, methods=("exact", "lc-rec", "global")),
    Case("1M", 1_000_000, 4),
    Case("1M", 1_000_000, 3),
    Case("1M, 100k identical", 1_000_000, 4, copies_of_one=100_000),
)
QUICK = (
    Case("10k", 10_000, 4, methods=("exact", "lc-rec", "global", "optimal")),
    Case("10k", 10_000, 3, methods=("exact", "lc-rec", "global", "optimal")),
    Case("100k", 100_000, 4),
)


def mixture(case: Case, seed: int = 0) -> Float32s:
    """Latents float32 [N, 32] of length one, on a grid of 2^-20."""
    rng = np.random.default_rng(seed)
    n_leaves = max(1, case.n_items // LEAF_ITEMS)
    n_roots = max(1, n_leaves // 100)
    roots = rng.normal(size=(n_roots, INTRINSIC_DIMS))
    popularity = rng.gamma(0.3, size=n_roots)
    root = rng.choice(n_roots, size=n_leaves, p=popularity / popularity.sum())
    leaves = roots[root] + 0.4 * rng.normal(size=(n_leaves, INTRINSIC_DIMS))
    weights = rng.gamma(0.7, size=n_leaves)
    leaf = rng.choice(n_leaves, size=case.n_items, p=weights / weights.sum())
    points = leaves[leaf] + 0.2 * rng.normal(size=(case.n_items, INTRINSIC_DIMS))
    latents = points @ (rng.normal(size=(INTRINSIC_DIMS, DIMS)) / np.sqrt(INTRINSIC_DIMS))
    latents += 0.02 * rng.normal(size=latents.shape)
    copies = rng.choice(case.n_items, size=int(case.duplicates * case.n_items), replace=False)
    latents[copies] = latents[rng.integers(case.n_items, size=len(copies))]
    latents[: case.copies_of_one] = latents[0]
    latents /= np.linalg.norm(latents, axis=1, keepdims=True)
    latents = latents[rng.permutation(case.n_items)]
    return (np.round(latents * 2**20) / 2**20).astype(np.float32)


def learn(latents: Float32s, levels: int, seed: int = 0) -> list[Float32s]:
    """Residual k-means codebooks float32 [256, 32] of a sample, on a grid of 2^-14."""
    import faiss

    rng = np.random.default_rng(seed)
    residual = latents[rng.choice(len(latents), size=min(SAMPLE, len(latents)), replace=False)]
    codebooks = []
    for _ in range(levels):
        kmeans = faiss.Kmeans(DIMS, SIZE, niter=15, seed=seed, max_points_per_centroid=SAMPLE)
        kmeans.train(residual)
        codebooks.append((np.round(kmeans.centroids * 2**14) / 2**14).astype(np.float32))
        residual = residual - codebooks[-1][kmeans.index.search(residual, 1)[1][:, 0]]
    return codebooks


def greedy(latents: Float32s, codebooks: list[Float32s]) -> npt.NDArray[np.int32]:
    """Raw codes int32 [N, L]."""
    codes = np.empty((len(latents), len(codebooks)), np.int32)
    for start in range(0, len(latents), 8192):
        residual = latents[start : start + 8192].astype(np.float64)
        for level, codebook in enumerate(codebooks):
            book = codebook.astype(np.float64)
            scores = (book**2).sum(axis=1) - 2 * residual @ book.T
            codes[start : start + 8192, level] = chosen = scores.argmin(axis=1)
            residual -= book[chosen]
    return codes


def prepare(case: Case, folder: Path) -> None:
    """Write the case's latents, codebooks and raw codes."""
    latents = mixture(case)
    codebooks = learn(latents, case.levels)
    np.save(folder / "latents.npy", latents)
    np.save(folder / "codebooks.npy", np.stack(codebooks))
    np.save(folder / "codes.npy", greedy(latents, codebooks))


def measure(method: str, folder: Path) -> dict[str, float]:
    """Run one method on the written case: seconds by the clock and of CPU, gigabytes, collisions, distortions."""
    import resource

    from semid.assign.distances import squared_errors
    from semid.assign.global_search import assign_global
    from semid.assign.keys import pack
    from semid.assign.unique import assign_unique
    from tests.benchmarks.lcrec_repair import lcrec_repair
    from tests.benchmarks.optimal_ids import assign_optimal

    latents, raw = np.load(folder / "latents.npy"), np.load(folder / "codes.npy")
    codebooks = list(np.load(folder / "codebooks.npy").astype(np.float64))
    methods = {
        "exact": lambda: assign_unique(latents, raw, codebooks).codes,
        "lc-rec": lambda: lcrec_repair(latents, raw, codebooks),
        "global": lambda: assign_global(latents, raw, codebooks).codes,
        "optimal": lambda: assign_optimal(latents, raw, codebooks).codes,
    }
    import scipy.optimize
    import scipy.sparse.csgraph  # noqa: F401  imported here so that it is not timed

    start, cpu = time.perf_counter(), time.process_time()
    codes = methods[method]()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sizes = [SIZE] * raw.shape[1]

    def collisions(codes):
        return len(codes) - len(np.unique(pack(codes, sizes)))

    return {
        "seconds": seconds,
        "cpu": cpu,
        "gigabytes": gigabytes,
        "raw": collisions(raw),
        "left": collisions(codes),
        "moved": float((codes != raw).any(axis=1).mean()),
        "prefix": float((codes[:, :-1] != raw[:, :-1]).any(axis=1).mean()),
        "before": float(squared_errors(latents, raw, codebooks).mean()),
        "after": float(squared_errors(latents, codes, codebooks).mean()),
    }


@dataclass(frozen=True)
class Simulated:
    """Latents float32 [N, D] that are made when asked for: centroids of the codes, and noise told by the row's number.

    Of every 20 rows one is an exact copy of an earlier one.
    """

    codes: npt.NDArray[np.integer]
    codebooks: list[npt.NDArray[np.float64]]
    noise: float = 0.05
    ndim = 2
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes), DIMS

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> Float32s:
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        numbers = original(rows)[..., None].astype(np.uint64) * np.uint64(DIMS) + np.arange(DIMS, dtype=np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
            numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
        latents = self.noise * ((numbers >> np.uint64(40)) / 2.0**23 - 1)
        for level, codebook in enumerate(self.codebooks):
            latents += codebook[self.codes[original(rows), level]]
        return (np.round(latents * 2**20) / 2**20).astype(np.float32)


def original(rows: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The row that each one copies, itself for most."""
    return np.where(rows % 20 == 19, rows - 7, rows)


def drawn_codes(n_items: int, seed: int = 0) -> npt.NDArray[np.uint16]:
    """Codes uint16 [N, 4]: leaves of uneven size that agree on two codes and mostly on the third, as in `mixture`."""
    rng = np.random.default_rng(seed)
    n_leaves = max(1, n_items // LEAF_ITEMS)
    roots = rng.integers(SIZE, size=max(1, n_leaves // 100))
    popularity = rng.gamma(0.3, size=len(roots))
    root = rng.choice(len(roots), size=n_leaves, p=popularity / popularity.sum())
    leaf_codes = np.stack([roots[root], rng.integers(SIZE, size=n_leaves), rng.integers(SIZE, size=n_leaves)], axis=1)
    bounds = np.cumsum(rng.gamma(0.7, size=n_leaves))
    codes = np.empty((n_items, 4), np.uint16)
    for start in range(0, n_items, SAMPLE):
        part = slice(start, min(n_items, start + SAMPLE))
        n = part.stop - part.start
        leaf = np.searchsorted(bounds, rng.random(n) * bounds[-1])
        codes[part, :3] = leaf_codes[leaf]
        strays = rng.random(n) < 0.3
        codes[part, 2][strays] = rng.integers(SIZE, size=int(strays.sum()))
        codes[part, 3] = np.minimum(SIZE - 1, rng.gamma(1.0, SIZE / 6, size=n))
    return codes[original(np.arange(n_items))]


def simulate(n_items: int, in_parts: bool) -> dict[str, float]:
    """Assign a simulated catalog: seconds, CPU seconds, gigabytes before and at the peak, collisions, moved."""
    import resource

    import scipy.optimize
    import scipy.sparse.csgraph  # noqa: F401  imported here so that it is not timed

    from semid.assign.unique import assign_by_first_code, assign_unique

    codes = drawn_codes(n_items)
    rng = np.random.default_rng(1)
    codebooks = [np.round(rng.normal(size=(SIZE, DIMS)) * 0.3 / 2**level * 2**14) / 2**14 for level in range(4)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start, cpu = time.perf_counter(), time.process_time()
    assign = assign_by_first_code if in_parts else assign_unique
    certificate = assign(Simulated(codes, codebooks), codes, codebooks).certificate
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "before": before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "raw": certificate.raw_collisions,
        "moved": certificate.moved_items / n_items,
        "largest": certificate.largest_bucket,
        "overflow": certificate.overflow_items,
    }


def alone(function, *arguments):
    """Call in a fresh process, so that memory peaks do not mix."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def show_simulated(sizes: list[int], *, in_parts: bool) -> None:
    from semid.assign.unique import MANY_ITEMS

    columns = "items, settled, collisions, time (s), CPU (s), before (GB), peak (GB), moved, largest prefix, spilt"
    print(f"| {columns.replace(', ', ' | ')} |\n|{'---|' * 10}")
    for n_items in sizes:
        parted = in_parts or n_items >= MANY_ITEMS
        row = alone(simulate, n_items, parted)
        print(
            f"| {n_items:,} | {'in parts' if parted else 'at once'} | {row['raw']:,} | {row['seconds']:.1f} "
            f"| {row['cpu']:.1f} | {row['before']:.2f} | {row['peak']:.2f} | {row['moved']:.1%} "
            f"| {row['largest']:,} | {row['overflow']:,} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small catalogs alone, under a minute")
    parser.add_argument("--optimal", action="store_true", help="add the global optimum at 100k: minutes")
    parser.add_argument("--case", type=int, action="append", help="this case alone, counted from 0")
    parser.add_argument("--simulate", help="sizes of drawn catalogs instead: 1000000,20000000")
    parser.add_argument("--parts", action="store_true", help="by first codes, as fit does from 10 million on")
    arguments = parser.parse_args()
    if arguments.simulate:
        show_simulated([int(n) for n in arguments.simulate.split(",")], in_parts=arguments.parts)
        return
    cases = QUICK if arguments.quick else FULL
    print("| case | collisions | method | time, s | CPU, s | peak, GB | left | moved | prefix moved | distortion |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in [cases[i] for i in arguments.case] if arguments.case else cases:
        extra = ("optimal",) if arguments.optimal and case.n_items == 100_000 else ()
        with tempfile.TemporaryDirectory() as name:
            alone(prepare, case, Path(name))
            for method in case.methods + extra:
                row = alone(measure, method, Path(name))
                print(
                    f"| {case.name}, {case.levels}x{SIZE} | {row['raw']:,} | {method} "
                    f"| {row['seconds']:.2f} | {row['cpu']:.2f} | {row['gigabytes']:.2f} "
                    f"| {row['left']:,} | {row['moved']:.1%} | {row['prefix']:.1%} "
                    f"| {row['after'] / row['before'] - 1:+.2%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
