"""One round of k-means over many points: nearest codes, and the sums and counts that the new means are made of.

Blocks of points go through `semid/quantize/nearest_numba.py` as in `semid/quantize/residual_blocks.py`; every part of a
fixed number of blocks has sums of its own, which are added up in the order of the parts. So the result depends neither
on the number of threads nor on which of them was faster. Without Numba the same in NumPy and SciPy; on a GPU
`gpu_pass`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semid.kernels.dispatch import uses_triton
from semid.quantize import residual_blocks as blocks
from semid.runtime.distributed import all_sum
from semid.runtime.threads import in_threads, single_threaded_products, thread_count

__all__ = ["Pass", "assign_and_sum", "gpu_pass", "rounds_on"]


Floats = npt.NDArray[np.float32]

PARTS = 16  # each has its own sums, float64 [K, d]: their order tells in the last bits of float64 only
FEWEST_ROWS = 8192  # of a part
ROWS = blocks.ROWS["float32"]


class Pass(NamedTuple):
    """What a round leaves."""

    codes: npt.NDArray[np.int32]  # (N,)
    sums: npt.NDArray[np.float64]  # (K, d) - of the points of each code
    counts: npt.NDArray[np.int64]  # (K,)
    scores: float  # sum over the points of max_k x . c_k - |c_k|^2 / 2 - price_k

    def means(self) -> Floats:
        """float32 [K, d]; zero for codes without points."""
        return (self.sums / np.maximum(self.counts, 1)[:, None]).astype(np.float32)


def assign_and_sum(
    points: Floats, centroids: Floats, prices: Floats | None = None, *, multiply: blocks.Multiply | None = None
) -> Pass:
    """One round.

    Parameters
    ----------
    points : float32 [N, d]
    centroids : float32 [K, d]
    prices : float32 [K], subtracted from the scores.
    multiply : `residual_blocks.float32_product()`; a caller of many rounds finds it out once.

    >>> points = np.float32([[0, 0], [0, 1], [5, 5]])
    >>> assign_and_sum(points, np.float32([[0, 0], [4, 4]])).means().tolist()
    [[0.0, 0.5], [5.0, 5.0]]
    """
    on_gpu = gpu_pass(points, centroids, prices)
    if on_gpu is not None:
        codes, *totals = on_gpu
        return Pass(codes, *map(all_sum, totals))
    n_codes = len(centroids)
    offsets = -0.5 * np.einsum("kd,kd->k", centroids, centroids)
    if prices is not None:
        offsets = offsets - prices
    step = max(FEWEST_ROWS, -(-len(points) // PARTS))
    parts = [slice(at, min(len(points), at + step)) for at in range(0, len(points), step)]
    codes = np.empty(len(points), np.int32)
    sums = np.zeros((len(parts), n_codes, points.shape[1]))
    counts = np.zeros((len(parts), n_codes), np.int64)
    scores = np.zeros(len(parts))
    run: _Compiled | _Plain
    if 1 < n_codes <= blocks.MOST_CODES and blocks.available():
        run = _Compiled(points, centroids, offsets, codes, multiply or blocks.float32_product())
    else:
        run = _Plain(points, centroids, offsets, codes)

    def work(part: slice) -> None:
        place = part.start // step
        scores[place] = run(part, sums[place], counts[place])

    alone = len(parts) == 1 or thread_count() == 1  # where `in_threads` leaves the products' threads as they are
    with single_threaded_products() if alone else nullcontext():
        in_threads(work, parts)
    return Pass(codes, all_sum(sums.sum(axis=0)), all_sum(counts.sum(axis=0)), all_sum(float(scores.sum())))


class _Plain:
    """NumPy: a product, argmax, and a sparse product for the sums."""

    def __init__(self, points: Floats, centroids: Floats, offsets: Floats, codes: npt.NDArray[np.int32]) -> None:
        self.points, self.centroids, self.offsets, self.codes = points, centroids, offsets, codes

    def __call__(self, part: slice, sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> float:
        from scipy.sparse import csr_matrix

        total = 0.0
        for at in range(part.start, part.stop, ROWS):
            rows = slice(at, min(part.stop, at + ROWS))
            scores = self.points[rows] @ self.centroids.T + self.offsets
            self.codes[rows] = scores.argmax(axis=1)
            total += float(scores.max(axis=1).sum(dtype=np.float64))
        chosen = self.codes[part]
        ends = np.arange(len(chosen) + 1)
        onehot = csr_matrix((np.ones(len(chosen)), chosen, ends), (len(chosen), len(counts)))
        sums += onehot.T @ self.points[part]
        counts += np.bincount(chosen, minlength=len(counts))
        return total


class _Compiled:
    """A product, and one walk through the scores."""

    def __init__(
        self,
        points: Floats,
        centroids: Floats,
        offsets: Floats,
        codes: npt.NDArray[np.int32],
        multiply: blocks.Multiply,
    ) -> None:
        self.points, self.codes, self.multiply = points, codes, multiply
        self.centroids, self.offsets = blocks.padded_codes(centroids, offsets)

    def __call__(self, part: slice, sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> float:
        from semid.quantize.nearest_numba import pick_and_sum

        buffer = np.empty(len(self.offsets) * ROWS, np.float32)
        first, second = np.empty((2, ROWS), np.float32)
        total = 0.0
        for at in range(part.start, part.stop, ROWS):
            rows = slice(at, min(part.stop, at + ROWS))
            points = np.ascontiguousarray(self.points[rows])
            n = len(points)
            tile = buffer[: len(self.offsets) * n].reshape(-1, n)
            self.multiply(self.centroids, points.T, tile)
            total += pick_and_sum(tile, self.offsets, points, first[:n], second[:n], self.codes[rows], sums, counts)
        return total


# ---- Rounds of k-means on a GPU: the pass of `assign_and_sum` by the kernel `semid.kernels.kmeans_update`.
# Which passes go there is said once, around a whole search, by `rounds_on(device)`. The points are copied there for
# each pass, which takes a fraction of the time that the scores take on a CPU. Scores are those of float32 to rounding,
# as on a CPU, so a point between two centroids may fall to the other one.


MOST_DIMS = 1024  # that the kernel takes


_device: ContextVar[str | None] = ContextVar("device of rounds of k-means", default=None)


@contextmanager
def rounds_on(device: str) -> Iterator[None]:
    """Rounds of k-means in this block go to a torch device, if `dispatch` says that Triton works there.

    RuntimeError if SEMID_BACKEND=triton, and it cannot.

    >>> with rounds_on("cpu"):
    ...     gpu_pass(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), None)
    """
    before = _device.set(device if uses_triton(device) else None)
    try:
        yield
    finally:
        _device.reset(before)


def gpu_pass(
    points: Floats, centroids: Floats, prices: Floats | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], npt.NDArray[np.int64], float] | None:
    """The fields of a `Pass`; None where this pass is the CPU's. Arguments as for `assign_and_sum`."""
    device = _device.get()
    if device is None or points.shape[1] > MOST_DIMS or not len(points):
        return None
    import torch

    from semid.kernels.kmeans_update import kmeans_update

    there = [None if each is None else torch.tensor(each, device=device) for each in (points, centroids, prices)]
    found = kmeans_update(there[0], there[1], prices=there[2])
    codes, sums, counts = (each.cpu().numpy() for each in (found.codes, found.sums, found.counts))
    wide = centroids.astype(np.float64)
    offsets = 0.5 * np.einsum("kd,kd->k", wide, wide) + (0 if prices is None else prices)
    return codes, sums, counts, float(np.einsum("kd,kd->", sums, wide) - counts @ offsets)
