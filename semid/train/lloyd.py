"""One round of k-means over many points: nearest codes, and the sums and counts of the new means.

Blocks of points go through `quantize/nearest_numba.py` as in `quantize/residual_blocks.py`. Every part of a fixed
number of blocks has its own sums, which are added up in the order of the parts, so the result does not depend on the
number or the speed of the threads. Without Numba, NumPy and SciPy do the same; on a GPU, `gpu_pass`.
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

__all__ = ["Pass", "assign_and_sum", "gpu_pass", "lloyd_device"]


Floats = npt.NDArray[np.float32]

PARTS = 16  # each has its own sums, float64 [K, d]: their order affects only the last bits of float64
FEWEST_ROWS = 8192  # of a part
ROWS = blocks.ROWS["float32"]


class Pass(NamedTuple):
    """What a round leaves."""

    codes: npt.NDArray[np.int32]  # (N,)
    sums: npt.NDArray[np.float64]  # (K, d) - of the points of each code
    counts: npt.NDArray[np.int64]  # (K,)
    scores: float  # sum over the points of max_k x . c_k - |c_k|^2 / 2 - price_k

    def means(self) -> Floats:
        """Return the means, float32 [K, d]; zero for codes without points."""
        return (self.sums / np.maximum(self.counts, 1)[:, None]).astype(np.float32)


def assign_and_sum(
    points: Floats, centroids: Floats, prices: Floats | None = None, *, multiply: blocks.Multiply | None = None
) -> Pass:
    """Assign every point to its nearest centroid, and sum the points of each.

    Parameters
    ----------
    points : float32 [N, d]
    centroids : float32 [K, d]
    prices : float32 [K], optional
        Subtracted from the scores.
    multiply : callable, optional
        `residual_blocks.float32_product()`; pass it to decide once for many rounds.

    >>> points = np.float32([[0, 0], [0, 1], [5, 5]])
    >>> assign_and_sum(points, np.float32([[0, 0], [4, 4]])).means().tolist()
    [[0.0, 0.5], [5.0, 5.0]]
    """
    on_gpu = gpu_pass(points, centroids, prices)
    if on_gpu is not None:
        codes, sums, counts, scores = on_gpu
        return Pass(codes, all_sum(sums), all_sum(counts), all_sum(scores))
    n_codes = len(centroids)
    offsets = -0.5 * np.einsum("kd,kd->k", centroids, centroids)
    if prices is not None:
        offsets = offsets - prices
    step = max(FEWEST_ROWS, -(-len(points) // PARTS))
    parts = [slice(at, min(len(points), at + step)) for at in range(0, len(points), step)]
    codes = np.empty(len(points), np.int32)
    sums_of = np.zeros((len(parts), n_codes, points.shape[1]))
    counts_of = np.zeros((len(parts), n_codes), np.int64)
    scores_of = np.zeros(len(parts))
    run: _Compiled | _Plain
    if 1 < n_codes <= blocks.MOST_CODES and blocks.available():
        run = _Compiled(points, centroids, offsets, codes, multiply or blocks.float32_product())
    else:
        run = _Plain(points, centroids, offsets, codes)

    def work(part: slice) -> None:
        place = part.start // step
        scores_of[place] = run(part, sums_of[place], counts_of[place])

    alone = len(parts) == 1 or thread_count() == 1  # where `in_threads` leaves the products' threads as they are
    with single_threaded_products() if alone else nullcontext():
        in_threads(work, parts)
    sums, counts = all_sum(sums_of.sum(axis=0)), all_sum(counts_of.sum(axis=0))
    return Pass(codes, sums, counts, all_sum(float(scores_of.sum())))


class _Plain:
    """In NumPy: a product, argmax, and a sparse product for the sums."""

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
    """Compiled: a product, and one pass over the scores."""

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
# `lloyd_device(device)` around a whole search sends its passes there. The points are copied for each pass, which takes
# a fraction of the time that the scores take on a CPU. Scores are float32 up to rounding, as on a CPU, so a point
# half-way between two centroids may get the other one.


MOST_DIMS = 1024  # of the kernel

_device: ContextVar[str | None] = ContextVar("device of rounds of k-means", default=None)


@contextmanager
def lloyd_device(device: str) -> Iterator[None]:
    """Run the rounds of k-means in this block on a torch device, if Triton works there (`dispatch`).

    Raises RuntimeError if SEMID_BACKEND=triton and it does not work there.

    >>> with lloyd_device("cpu"):
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
    """Return the fields of a `Pass`, or None if the CPU does this pass. Arguments as for `assign_and_sum`."""
    device = _device.get()
    if device is None or points.shape[1] > MOST_DIMS or not len(points):
        return None
    import torch

    from semid.kernels.kmeans_update import kmeans_update

    there, means = torch.tensor(points, device=device), torch.tensor(centroids, device=device)
    found = kmeans_update(there, means, prices=None if prices is None else torch.tensor(prices, device=device))
    codes, sums, counts = (each.cpu().numpy() for each in (found.codes, found.sums, found.counts))
    wide = centroids.astype(np.float64)
    offsets = 0.5 * np.einsum("kd,kd->k", wide, wide) + (0 if prices is None else prices)
    return codes, sums, counts, float(np.einsum("kd,kd->", sums, wide) - counts @ offsets)
