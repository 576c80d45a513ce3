"""The nearest code of each row from a tile of scores: a compiled loop that reads the tile once.

A matrix product leaves scores r . c for many rows and all K codes; finding each row's best, seeing whether it is
beyond doubt, and subtracting its centroid take NumPy five passes over arrays that have left the cache. Here it is one
walk along each row while that lies in the first-level cache.

Numba compiles the loops for the processor at hand when they are first used, and keeps the result on disk.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["pick_"]

# Sums and maxima may be taken in any order: the bound on their error holds for any. Not "ninf": scores may be -inf.
LOOSE = {"nnan", "nsz", "reassoc", "contract", "arcp"}
LOWEST = np.int32(-(2**31))
MAGNITUDE = np.int32(0x7FFFFFFF)
SIGN = np.int32(31)
ONE = 65536  # a candidate counts one in the upper 16 bits, its number in the lower ones


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _highest(row, offsets):
    """max_k row[k] + offsets[k] of a multiple of four codes.

    LLVM does not take the maximum of many floats in vectors, only of two and two; so the rest is done with whole
    numbers: flipping all bits of the negative ones but the sign makes the bits' order that of the values.
    """
    width = row.shape[0] // 4
    highest = LOWEST
    for k in range(width):
        a = row[k] + offsets[k]
        b = row[k + width] + offsets[k + width]
        c = row[k + 2 * width] + offsets[k + 2 * width]
        d = row[k + 3 * width] + offsets[k + 3 * width]
        a = a if a > b else b
        c = c if c > d else d
        a = a if a > c else c
        bits = np.float32(a).view(np.int32)
        highest = max(highest, bits ^ ((bits >> SIGN) & MAGNITUDE))
    return np.int32(highest ^ ((highest >> SIGN) & MAGNITUDE)).view(np.float32)


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _candidates(row, offsets, bound, numbers):
    """The sum of the numbers of all codes that reach the bound: 65536 + k if it is code k alone."""
    found = np.int32(0)
    for k in range(numbers.shape[0]):
        found = np.int32(found + (numbers[k] if row[k] + offsets[k] >= bound else np.int32(0)))
    return found


@numba.njit(nogil=True, cache=True)
def _exact_best(row, offsets, bound, residual, centroids, exact_offsets):
    """The best of the codes whose score reaches the bound, by float64 scores; the lowest of equal ones."""
    best, highest = 0, -np.inf
    for code in range(len(exact_offsets)):
        if row[code] + offsets[code] >= bound:
            score = exact_offsets[code]
            for dim in range(len(residual)):
                score += np.float64(residual[dim]) * np.float64(centroids[code, dim])
            if score > highest:
                best, highest = code, score
    return best


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def pick_(scores, offsets, exact_offsets, centroids, residual, slope, floor, numbers, codes):
    """Choose each row's code, and subtract its centroid from the residual in place.

    Parameters
    ----------
    scores : float32 [n, K']
        r . c, K' a multiple of 4 not below K; columns past K hold anything finite.
    offsets : float32 [K']
        What a code's score is besides, rounded; -inf past K.
    exact_offsets : float64 [K]
    centroids : float32 [K, d]
    residual : float32 [n, d], changed
    slope, floor : float32
        A score is wrong by `slope |r| + floor` at most.
    numbers : int32 [K'], 65536 + k
    codes : int32 [n], written

    Returns
    -------
    How many rows had to be decided in float64, and the squared norms of what is left, summed: float64.
    """
    n, dims = residual.shape
    bounds = np.empty(n, np.float32)
    for i in range(n):
        square = np.float32(0)
        for dim in range(dims):
            square += residual[i, dim] * residual[i, dim]
        doubt = np.float32(2) * (slope * np.sqrt(square) + floor)
        bounds[i] = _highest(scores[i], offsets) - doubt
        codes[i] = _candidates(scores[i], offsets, bounds[i], numbers)
    unsure, left = 0, 0.0  # a loop of its own: with a call in the one above, nothing there would stay in registers
    for i in range(n):
        code = codes[i] - ONE
        if code < 0 or code >= ONE:
            unsure += 1
            code = _exact_best(scores[i], offsets, bounds[i], residual[i], centroids, exact_offsets)
        codes[i] = code
        square = np.float32(0)
        for dim in range(dims):
            residual[i, dim] -= centroids[code, dim]
            square += residual[i, dim] * residual[i, dim]
        left += np.float64(square)
    return unsure, left


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def pick_and_sum(scores, offsets, points, numbers, codes, sums, counts):
    """Choose each row's code, and add the row to that code's sum: the two halves of a round of k-means.

    Not exact: of codes whose float32 scores are equal the lowest wins, and nothing is decided again.

    Parameters
    ----------
    scores, offsets, numbers, codes : as for `pick_`
    points : float32 [n, d]
    sums : float32 [K, d], added to
    counts : int64 [K], added to

    Returns
    -------
    The best scores, summed: float64.
    """
    n, dims = points.shape
    total = 0.0
    for i in range(n):
        best = _highest(scores[i], offsets)
        total += np.float64(best)
        codes[i] = _candidates(scores[i], offsets, best, numbers)
    for i in range(n):
        code = codes[i] - ONE
        if code < 0 or code >= ONE:
            code = 0
            for k in range(1, numbers.shape[0]):
                if scores[i, k] + offsets[k] > scores[i, code] + offsets[code]:
                    code = k
        codes[i] = code
        counts[code] += 1
        for dim in range(dims):
            sums[code, dim] += points[i, dim]
    return total
