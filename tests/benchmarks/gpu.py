"""Quantization on a GPU, semid beside others, as Markdown tables; a few minutes on one card.

    python -m tests.benchmarks.gpu [--rows 100000000] [--write docs/benchmarks.md]

    residual_assign    codes of all levels, exact
    fp32, compiled     level by level in torch: product, argmax, gather, subtract, under torch.compile; float32 products
    TF32, compiled     the same with TF32 products: a share of the codes is wrong
    rectokens          quantize_fwd and quantize_fwd_mm, level by level (pip install rectokens==0.2.2)

Share of the limit: the time that the two float16 products of a score take at the rate of a large float16 product on
this card, or, if that is more, reading x and writing codes at the rate of copying memory. Wrong codes are counted on
the first million rows, against float64. `--write` puts the tables into a page, between its `gpu` marks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from semid.quantize.grid import snap_centroids
from tests.benchmarks.common import markdown, versions

BEGIN, END = "<!-- gpu: written by tests/benchmarks/gpu.py -->", "<!-- /gpu -->"
CASES = [(32, (256,) * 4), (64, (256,) * 4), (128, (256,) * 4), (64, (8192,) * 3)]
JUDGED = 1_000_000
REPEATS = 5
BATCH = 1024


def best(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Milliseconds of the fastest run, by the device's own clock; two runs before them are not counted."""
    for _ in range(2):
        run()
    least = float("inf")
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        least = min(least, start.elapsed_time(stop))
    return least


def limits() -> tuple[float, float]:
    """FLOP a millisecond of a large float16 product, and bytes a millisecond of a copy."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    source = torch.ones(1 << 28, device="cuda")
    return 2.0 * 8192**3 / best(lambda: left @ right), 2.0 * source.nbytes / best(source.clone)


def random_levels(dims: int, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [torch.tensor(snap_centroids(rng.standard_normal((size, dims)) / 2**level), device="cuda")
            for level, size in enumerate(sizes)]  # fmt: skip


def random_rows(count: int, dims: int) -> torch.Tensor:
    """Multiples of 2^-20, as semid's latents are."""
    generator = torch.Generator("cuda").manual_seed(0)
    rows = torch.empty(count, dims, device="cuda")
    for part in rows.split(1 << 22):
        part.normal_(generator=generator).mul_(2.0**20).round_().mul_(2.0**-20).clamp_(-8, 8)
    return rows


# ---- the systems: rows and levels -> codes [N, L]


def level_by_level(rows: torch.Tensor, levels: list[torch.Tensor], halves: list[torch.Tensor]) -> torch.Tensor:
    codes = []
    for centroids, half in zip(levels, halves, strict=True):
        code = (rows @ centroids.T - half).argmax(dim=1)
        rows = rows - centroids[code]
        codes.append(code.int())
    return torch.stack(codes, dim=1)


def in_torch(rows: torch.Tensor, levels: list[torch.Tensor], *, tf32: bool) -> Callable[[], torch.Tensor]:
    """In parts, or the scores of 100 million rows would not fit."""
    compiled = torch.compile(level_by_level, dynamic=False)
    halves = [centroids.square().sum(dim=1) / 2 for centroids in levels]
    part = max(1, (1 << 31) // (4 * max(map(len, levels))))

    def run() -> torch.Tensor:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            return torch.cat([compiled(some, levels, halves) for some in rows.split(part)])
        finally:
            torch.set_float32_matmul_precision("highest")

    return run


def with_semid(rows: torch.Tensor, levels: list[torch.Tensor]) -> Callable[[], torch.Tensor]:
    from semid.kernels.packed_codebooks import prepare
    from semid.kernels.residual_assign import residual_assign

    prepared = prepare(levels)
    return lambda: residual_assign(rows, prepared).codes


def with_rectokens(rows: torch.Tensor, levels: list[torch.Tensor], name: str) -> Callable[[], torch.Tensor] | None:
    """None where it is not installed."""
    try:
        from rectokens.kernels import nn_quantize
    except ImportError:
        return None
    quantize = getattr(nn_quantize, name)

    def run() -> torch.Tensor:
        codes, left = [], rows
        for centroids in levels:
            found = quantize(left, centroids)
            codes.append(found[0] if isinstance(found, tuple) else found)
            left = left - centroids[codes[-1]]
        return torch.stack(codes, dim=1)

    return run


# ---- tables


def wrong(codes: torch.Tensor, rows: torch.Tensor, levels: list[torch.Tensor]) -> float:
    """Rows that differ from float64, a million of them."""
    count, failed = min(len(rows), JUDGED), 0
    for start in range(0, count, 1 << 15):
        some = slice(start, min(count, start + (1 << 15)))
        left, right = rows[some].double(), torch.ones(some.stop - some.start, dtype=torch.bool, device="cuda")
        for level, centroids in enumerate(levels):
            wide = centroids.double()
            code = (left @ wide.T - wide.square().sum(dim=1) / 2).argmax(dim=1)
            right &= codes[some, level] == code
            left = left - wide[code]
        failed += int((~right).sum())
    return 1e6 * failed / count


def assignment(n_rows: int) -> list[list[str]]:
    flops, bytes_ = limits()
    lines = []
    for dims, sizes in CASES:
        free = torch.cuda.mem_get_info()[0]
        count = min(n_rows, int(0.6 * free / (4 * dims + 8 * len(sizes))))
        rows, levels = random_rows(count, dims), random_levels(dims, sizes)
        bound = max(4.0 * count * dims * sum(sizes) / flops, 4.0 * count * (dims + len(sizes)) / bytes_)
        systems = {
            "**semid** residual_assign": with_semid(rows, levels),
            "TF32, compiled": in_torch(rows, levels, tf32=True),
            "fp32, compiled": in_torch(rows, levels, tf32=False),
            "rectokens quantize_fwd": with_rectokens(rows, levels, "quantize_fwd"),
            "rectokens quantize_fwd_mm": with_rectokens(rows, levels, "quantize_fwd_mm"),
        }
        ours = None
        for name, run in systems.items():
            if run is None:
                lines.append([f"{len(sizes)}x{sizes[0]}, d={dims}", f"{count:,}", name, *["absent"] * 4])
                continue
            took = best(run, REPEATS if ours is None else 2)
            ours = ours or took
            lines.append([
                f"{len(sizes)}x{sizes[0]}, d={dims}", f"{count:,}", name, f"{took:.1f}", f"{took / ours:.1f}×",
                f"{bound / took:.0%}", f"{wrong(run(), rows, levels):.0f}",
            ])  # fmt: skip
        del rows
        torch.cuda.empty_cache()
    return lines


def other_kernels() -> list[list[str]]:
    from semid.kernels.kmeans_update import kmeans_update, kmeans_update_torch
    from semid.kernels.residual_train import residual_quantize
    from semid.kernels.sinkhorn import sinkhorn_step

    lines = []
    points, centroids = random_rows(10_000_000, 64), random_levels(64, (256,))[0]
    mine, theirs = (
        best(lambda: kmeans_update(points, centroids)),
        best(lambda: kmeans_update_torch(points, centroids), 2),
    )
    lines.append(["a round of k-means, 10M x 64, K = 256", f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.1f}×"])
    potential = torch.zeros(256, device="cuda")
    some = points[:1_000_000, :32].contiguous()
    narrow = random_levels(32, (256,))[0]
    pair = [
        best(lambda kind=kind: sinkhorn_step(some, narrow, potential, 0.05, backend=kind))
        for kind in ("triton", "torch")
    ]
    lines.append(
        ["a pass of Sinkhorn, 1M x 256, d = 32", *(f"{each:.2f}" for each in pair), f"{pair[1] / pair[0]:.1f}×"]
    )
    batch = torch.randn(BATCH, 32, device="cuda", requires_grad=True)
    levels = [level.requires_grad_() for level in random_levels(32, (256,) * 4)]

    def step(backward: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            backward().backward()
            batch.grad = None
            for level in levels:
                level.grad = None

        return run

    def fused() -> torch.Tensor:
        found = residual_quantize(batch, levels)
        return found.total.square().sum() + found.codebook.sum() + 0.25 * found.commitment.sum()

    def plain() -> torch.Tensor:
        left, total, loss = batch, torch.zeros_like(batch), batch.new_zeros(())
        for centroids in levels:
            code = (left.detach() @ centroids.detach().T - centroids.detach().square().sum(dim=1) / 2).argmax(dim=1)
            chosen = centroids[code]
            loss = loss + (chosen - left.detach()).square().sum(1).mean()
            loss = loss + 0.25 * (chosen.detach() - left).square().sum(1).mean()
            total, left = total + chosen, left - chosen.detach()
        return total.square().sum() + loss

    pair = [best(step(fused), 20), best(step(plain), 20)]
    lines.append(
        ["quantizer of a training step, B = 1,024", *(f"{each:.3f}" for each in pair), f"{pair[1] / pair[0]:.1f}×"]
    )
    return lines


def page(n_rows: int) -> str:
    began = time.perf_counter()
    first = markdown(
        ["codes", "rows", "way", "ms", "time to semid's", "of the limit", "wrong, ppm"], assignment(n_rows)
    )
    second = markdown(["kernel", "semid, ms", "plain torch, ms", "ratio"], other_kernels())
    device = f"{torch.cuda.get_device_name()}; {versions('torch', 'triton', 'rectokens')}; {time.strftime('%Y-%m-%d')}"
    return f"{device}; {time.perf_counter() - began:.0f} s\n\n{first}\n\n{second}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--write", type=Path, help="a page with the marks")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA or ROCm device.")
    text = page(arguments.rows)
    print(text)
    if arguments.write:
        before, _, rest = arguments.write.read_text("utf-8").partition(BEGIN)
        _, mark, after = rest.partition(END)
        if not mark:
            raise SystemExit(f"{arguments.write}: no marks {BEGIN} ... {END} there.")
        arguments.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
