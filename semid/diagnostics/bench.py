"""`semid bench`: this machine's limits, and the share of them that each operation reaches.

Two limits are measured first: the rate of matrix products, and the rate of memory copies. The share of an operation is
the time that its unavoidable multiplications (or bytes) take at the limit's rate, divided by the time it took. 100 % is
out of reach, since comparisons, subtractions and sums are not counted; bfloat16 candidates can exceed the float32
limit. All data are random, so the figures describe the machine and not a catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from semid.quantize.grid import snap, snap_centroids
from semid.quantize.residual_blocks import best_time
from semid.runtime.threads import in_threads, thread_count

if TYPE_CHECKING:
    import torch

__all__ = ["Measured", "measure"]

SIZES = (256,) * 4
WIDTHS = (32, 64, 384)
BEAM = 4
GPU_ROWS = 10_000_000
COPIED = 1 << 28  # bytes: more than any cache
MATRIX = 2048


@dataclass(frozen=True)
class Measured:
    """One measurement, a line of the report."""

    name: str
    value: float
    unit: str
    share: float | None = None  # of the limit; None for the limits themselves
    limit: str | None = None  # name of the measurement that `share` refers to

    def to_dict(self) -> dict[str, str | float | None]:
        """Return the fields as JSON data."""
        return asdict(self)


def measure(device: str = "cpu", *, rows: int = 100_000, repeats: int = 3) -> Iterator[Measured]:
    """Measure the limits, then the operations, and yield each result when it is there.

    Parameters
    ----------
    device : str
        "cpu", or the name of a GPU in torch.
    rows : int
        Items of each operation on the CPU.
    repeats : int
        Runs of each operation; the fastest counts.
    """
    yield from _on_gpu(device, repeats) if device != "cpu" else _on_cpu(rows, repeats)


# ---- CPU


def _on_cpu(rows: int, repeats: int) -> Iterator[Measured]:
    import torch

    from semid.quantize.beam import beam_codes
    from semid.quantize.residual import residual_codes
    from semid.train.lloyd import assign_and_sum

    single = f"float32 products, {thread_count()} threads"
    peak = _product_rate(torch.float32, "cpu", repeats)
    yield Measured(single, peak / 1e9, "GFLOP/s")
    yield Measured(
        f"bfloat16 products, {thread_count()} threads", _product_rate(torch.bfloat16, "cpu", repeats) / 1e9, "GFLOP/s"
    )
    yield Measured("copying memory", _copy_rate(repeats) / 1e9, "GB/s")
    rng = np.random.default_rng(0)
    for width in WIDTHS:
        latents = snap(rng.standard_normal((rows, width), np.float32))
        points = latents.astype(np.float32)
        levels = [snap_centroids(rng.standard_normal((size, width)) / 2**level) for level, size in enumerate(SIZES)]
        work = 2.0 * width * sum(SIZES)
        for name, run in (
            ("encode", lambda: residual_codes(latents, levels)),  # noqa: B023 (called before the next width)
            (f"encode, beam {BEAM}", lambda: beam_codes(latents, levels, BEAM)),  # noqa: B023
        ):
            rate = rows / _best(run, repeats)
            yield Measured(f"{name}, d={width}, 4x256", rate / 1e3, "thousand items/s", rate * work / peak, single)
        rate = rows / _best(lambda: assign_and_sum(points, levels[0]), repeats)  # noqa: B023
        share = rate * 2 * width * SIZES[0] / peak
        yield Measured(f"k-means iteration, d={width}, K=256", rate / 1e3, "thousand items/s", share, single)


def _product_rate(dtype: torch.dtype, device: str, repeats: int, size: int = MATRIX) -> float:
    """Return the FLOP/s of a large matrix product."""
    import torch

    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2.0 * size**3 / _best(lambda: left @ right, repeats, device)


def _copy_rate(repeats: int) -> float:
    """Return the bytes read and written per second by all threads."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    step = COPIED // (8 * thread_count())

    def copy(part: slice) -> None:
        target[part] = source[part]

    parts = [slice(at, at + step) for at in range(0, COPIED, step)]
    return 2.0 * COPIED / _best(lambda: in_threads(copy, parts), repeats)


# ---- GPU


def _on_gpu(device: str, repeats: int) -> Iterator[Measured]:
    import torch

    from semid.kernels.packed_codebooks import prepare
    from semid.kernels.residual_assign import residual_assign

    tensor, memory = "float16 products", "copying memory"
    peak = _product_rate(torch.float16, device, repeats, 4 * MATRIX)
    yield Measured(tensor, peak / 1e12, "TFLOP/s")
    source = torch.ones(COPIED, dtype=torch.float32, device=device)
    bandwidth = 2.0 * source.nbytes / _best(source.clone, repeats, device)
    yield Measured(memory, bandwidth / 1e9, "GB/s")
    for width in WIDTHS[:2] + (128,):
        generator = torch.Generator(device).manual_seed(0)
        latents = torch.randn(GPU_ROWS, width, device=device, generator=generator)
        rng = np.random.default_rng(0)
        levels = [torch.tensor(snap_centroids(rng.standard_normal((size, width)) / 2**level), device=device)
                  for level, size in enumerate(SIZES)]  # fmt: skip
        prepared = prepare(levels)
        rate = GPU_ROWS / _best(lambda: residual_assign(latents, prepared), repeats, device)  # noqa: B023
        seconds = {
            tensor: 2 * 2.0 * width * sum(SIZES) / peak,  # two products a score
            memory: 4.0 * (width + len(SIZES)) / bandwidth,
        }
        limit = max(seconds, key=seconds.__getitem__)
        yield Measured(f"encode, d={width}, 4x256", rate / 1e6, "million items/s", rate * seconds[limit], limit)


def _best(run: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    """Return `best_time`, with the device synchronized."""

    def once() -> None:
        run()
        if device != "cpu":
            import torch

            torch.cuda.synchronize(device)

    return best_time(once, repeats)
