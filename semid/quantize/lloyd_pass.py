"""One round of k-means over many points: nearest codes, and the sums and counts that the new means are made of.

Blocks of points go through `pick.py` as in `blocks.py`; every part of a fixed number of blocks has sums of its own,
which are added up in the order of the parts. So the result depends neither on the number of threads nor on which of
them was faster. Without Numba the same in NumPy and SciPy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semid.quantize import blocks
from semid.threads import in_threads, single_threaded_products

__all__ = ["Pass", "assign_and_sum"]

Floats = npt.NDArray[np.float32]

PARTS = 16  # each has its own sums, float32 [K, d]
FEWEST_ROWS = 8192  # of a part


class Pass(NamedTuple):
    """What a round leaves."""

    codes: npt.NDArray[np.int32]  # (N,)
    sums: npt.NDArray[np.float64]  # (K, d) - of the points of each code
    counts: npt.NDArray[np.int64]  # (K,)
    scores: float  # sum over the points of max_k x . c_k - |c_k|^2 / 2 - price_k

    def means(self) -> Floats:
        """float32 [K, d]; zero for codes without points."""
        return (self.sums / np.maximum(self.counts, 1)[:, None]).astype(np.float32)


def assign_and_sum(points: Floats, centroids: Floats, prices: Floats | None = None) -> Pass:
    """points float32 [N, d], centroids float32 [K, d], prices float32 [K] subtracted from the scores.

    >>> points = np.float32([[0, 0], [0, 1], [5, 5]])
    >>> assign_and_sum(points, np.float32([[0, 0], [4, 4]])).means().tolist()
    [[0.0, 0.5], [5.0, 5.0]]
    """
    n_codes = len(centroids)
    offsets = -0.5 * np.einsum("kd,kd->k", centroids, centroids)
    if prices is not None:
        offsets = offsets - prices
    step = max(FEWEST_ROWS, -(-len(points) // PARTS))
    parts = [slice(at, min(len(points), at + step)) for at in range(0, len(points), step)]
    codes = np.empty(len(points), np.int32)
    sums = np.zeros((len(parts), n_codes, points.shape[1]), np.float32)
    counts = np.zeros((len(parts), n_codes), np.int64)
    scores = np.zeros(len(parts))
    compiled = 1 < n_codes <= blocks.MOST_CODES and blocks.available()
    run = _Compiled(points, centroids, offsets, codes) if compiled else _Plain(points, centroids, offsets, codes)

    def work(part: slice) -> None:
        place = part.start // step
        scores[place] = run(part, sums[place], counts[place])

    with single_threaded_products():
        in_threads(work, parts)
    return Pass(codes, sums.sum(axis=0, dtype=np.float64), counts.sum(axis=0), float(scores.sum()))


class _Plain:
    """NumPy: a product, argmax, and a sparse product for the sums."""

    def __init__(self, points: Floats, centroids: Floats, offsets: Floats, codes: npt.NDArray[np.int32]) -> None:
        self.points, self.centroids, self.offsets, self.codes = points, centroids, offsets, codes

    def __call__(self, part: slice, sums: Floats, counts: npt.NDArray[np.int64]) -> float:
        from scipy.sparse import csr_matrix

        total = 0.0
        for at in range(part.start, part.stop, blocks.ROWS):
            rows = slice(at, min(part.stop, at + blocks.ROWS))
            scores = self.points[rows] @ self.centroids.T + self.offsets
            self.codes[rows] = scores.argmax(axis=1)
            total += float(scores.max(axis=1).sum(dtype=np.float64))
        chosen = self.codes[part]
        ends = np.arange(len(chosen) + 1)
        onehot = csr_matrix((np.ones(len(chosen), np.float32), chosen, ends), (len(chosen), len(counts)))
        sums += onehot.T @ self.points[part]
        counts += np.bincount(chosen, minlength=len(counts))
        return total


class _Compiled:
    """A product, and one walk along the scores."""

    def __init__(self, points: Floats, centroids: Floats, offsets: Floats, codes: npt.NDArray[np.int32]) -> None:
        width = -(-len(centroids) // 4) * 4
        padded = np.zeros((width, centroids.shape[1]), np.float32)
        padded[: len(centroids)] = centroids
        self.transposed, self.points, self.codes = np.ascontiguousarray(padded.T), points, codes
        self.offsets = np.full(width, -np.inf, np.float32)
        self.offsets[: len(centroids)] = offsets
        self.numbers = np.arange(width, dtype=np.int32) + np.int32(65536)
        self.multiply = blocks.float32_product()

    def __call__(self, part: slice, sums: Floats, counts: npt.NDArray[np.int64]) -> float:
        from semid.quantize.pick import pick_and_sum

        buffer = np.empty((blocks.ROWS, len(self.offsets)), np.float32)
        total = 0.0
        for at in range(part.start, part.stop, blocks.ROWS):
            rows = slice(at, min(part.stop, at + blocks.ROWS))
            points = np.ascontiguousarray(self.points[rows])
            scores = buffer[: len(points)]
            self.multiply(points, self.transposed, scores)
            total += pick_and_sum(scores, self.offsets, points, self.numbers, self.codes[rows], sums, counts)
        return total
