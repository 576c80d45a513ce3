"""Find the nearest code of each row in a tile of scores: compiled loops that read the tile once.

A matrix product gives the scores c . r of all K codes (down) and many rows (across). Finding each row's best, checking
that it is certain, and subtracting its centroid take NumPy five passes over arrays that no longer fit the cache. Here
the tile is read once. A code's scores of neighboring rows are adjacent, so rows are the lanes of the vector units: each
lane keeps its own best two scores, and nothing is gathered across a vector.

Numba compiles the loops at first use and caches the result on disk.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import intrinsic, overload

__all__ = ["pick_", "pick_and_sum", "subtract_"]

# Sums and maxima may be taken in any order: the bound on their error holds for any. Not "ninf": scores may be -inf.
LOOSE = {"nnan", "nsz", "reassoc", "contract", "arcp"}
HALF_A_STEP = np.int32(0x8000)  # of a bfloat16, in the bits of a float32
UPPER = np.int32(16)  # a bfloat16 is the upper half of a float32


@intrinsic
def _wide_vectors(typing_context):
    """Let LLVM use the processor's widest vectors in the calling function, which saves a fifth of the time here.

    For many processors it prefers half that width, since the widest vectors lower the clock; but the products around
    these loops use them anyway. llvmlite has no name for this attribute, and LLVM ignores it where it has no meaning.
    It would be lost if the function were inlined.
    """

    def generate(context, builder, signature, arguments):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return numba.types.void(), generate


def _widened(score):
    """Return a score as float32; an integer holds the bits of a bfloat16."""


@overload(_widened)
def _widened_of_type(score):
    if isinstance(score, numba.types.Integer):
        return lambda score: np.int32(np.int32(score) << UPPER).view(np.float32)
    return lambda score: score


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _best_two(tile, offsets, first, second, codes):
    """Find each row's best score, its code (the lowest of equal ones), and its second best score.

    Four codes at a time, so that the state of a row is read and written a quarter as often.
    """
    _wide_vectors()
    n = len(first)
    for i in range(n):
        first[i] = second[i] = -np.inf
        codes[i] = 0
    for k in range(0, len(offsets), 4):
        tile_0, tile_1, tile_2, tile_3 = tile[k], tile[k + 1], tile[k + 2], tile[k + 3]
        offset_0, offset_1, offset_2, offset_3 = offsets[k], offsets[k + 1], offsets[k + 2], offsets[k + 3]
        code_0, code_1, code_2, code_3 = np.int32(k), np.int32(k + 1), np.int32(k + 2), np.int32(k + 3)
        for i in range(n):
            best, next_best, code = first[i], second[i], codes[i]
            best, next_best, code = _better(best, next_best, code, _widened(tile_0[i]) + offset_0, code_0)
            best, next_best, code = _better(best, next_best, code, _widened(tile_1[i]) + offset_1, code_1)
            best, next_best, code = _better(best, next_best, code, _widened(tile_2[i]) + offset_2, code_2)
            best, next_best, code = _better(best, next_best, code, _widened(tile_3[i]) + offset_3, code_3)
            first[i], second[i], codes[i] = best, next_best, code


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _better(best, next_best, code, score, its_code):
    lower = score if score < best else best
    code = its_code if score > best else code
    return score if score > best else best, lower if lower > next_best else next_best, code


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _best_of_groups(groups, size, first, second, codes):
    """Combine the best of groups of `size` codes into the best of all codes."""
    group_first, group_second, group_codes = groups
    first[:], second[:], codes[:] = group_first[0], group_second[0], group_codes[0]
    for group in range(1, len(group_first)):
        its_first, its_second, its_codes = group_first[group], group_second[group], group_codes[group]
        start = np.int32(group * size)
        for i in range(len(first)):
            next_best = its_second[i] if its_second[i] > second[i] else second[i]
            first[i], second[i], codes[i] = _better(first[i], next_best, codes[i], its_first[i], start + its_codes[i])


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _exact_score(residual, centroid, exact_offset):
    score = exact_offset
    for dim in range(len(residual)):
        score += np.float64(residual[dim]) * np.float64(centroid[dim])
    return score


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _exact_best(i, groups, size, tile, offsets, bound, residual, centroids, exact_offsets):
    """Return the best of the codes whose score of row i reaches the bound, by float64 scores; the lowest on ties.

    A row's scores are far apart in memory, so only groups in which two codes reach the bound are read again.
    """
    group_first, group_second, group_codes = groups
    best, highest = 0, -np.inf
    for group in range(len(group_first)):
        if group_first[group, i] < bound:
            continue
        start = stop = group * size + group_codes[group, i]
        if group_second[group, i] >= bound:
            start = group * size
            stop = min(start + size, len(exact_offsets)) - 1
        for code in range(start, stop + 1):
            if start == stop or _widened(tile[code, i]) + offsets[code] >= bound:
                score = _exact_score(residual[i], centroids[code], exact_offsets[code])
                if score > highest:
                    best, highest = code, score
    return best


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def subtract_(residual, centroids, codes, squares, halves, errors):
    """Subtract each row's centroid, measure the residual, and round it to bfloat16 if `halves` is given.

    Parameters
    ----------
    residual : float32 [n, d], changed in place
    centroids : float32 [K, d]
    codes : int32 [n]
    squares : float32 [n], written
        The squared norm of each row.
    halves : int16 [n, d], written, or None
        The bits of the rows in bfloat16.
    errors : float32 [n], written if there are halves
        The squared norm of the rounding error.

    Returns
    -------
    The squared norms, summed: float64.
    """
    n, dims = residual.shape
    total = 0.0
    for i in range(n):
        row, centroid = residual[i], centroids[codes[i]]
        square = error = np.float32(0)
        if halves is None:
            for dim in range(dims):
                left = row[dim] - centroid[dim]
                row[dim] = left
                square += left * left
        else:
            half = halves[i]
            for dim in range(dims):
                left = row[dim] - centroid[dim]
                row[dim] = left
                square += left * left
                rounded = np.int32(np.float32(left).view(np.int32) + HALF_A_STEP) >> UPPER
                half[dim] = rounded
                lost = left - np.int32(rounded << UPPER).view(np.float32)
                error += lost * lost
            errors[i] = error
        squares[i] = square
        total += np.float64(square)
    return total


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def pick_(
    tile, offsets, exact_offsets, centroids, bound, residual, squares, halves, errors, groups, first, second, codes
):  # fmt: skip
    """Choose each row's code, and subtract its centroid from the residual in place.

    Parameters
    ----------
    tile : float32 [K', n], or int16: the bits of bfloat16
        c . r; K' is a multiple of 4, at least K; rows past K hold any finite number.
    offsets : float32 [K']
        The rest of each code's score, rounded; -inf past K.
    exact_offsets : float64 [K]
    centroids : float32 [K, d]
    bound : three float32, as `residual_blocks.Level.bound`
    residual, squares, halves, errors : as for `subtract_`
        Of this level on entry, of the next level on return.
    groups : float32 [G, n], float32 [G, n] and int32 [G, n], overwritten
        The best of each of G groups of codes; more than one group where many rows are uncertain.
    first, second : float32 [n], overwritten
    codes : int32 [n], written

    Returns
    -------
    The number of rows decided in float64, and the sum of the squared norms of the residuals, float64.
    """
    slope, error_slope, floor = bound
    group_first, group_second, group_codes = groups
    n, size = len(residual), 4 * -(-len(offsets) // (4 * len(group_first)))
    for group in range(len(group_first)):
        its = slice(group * size, (group + 1) * size)
        _best_two(tile[its], offsets[its], group_first[group], group_second[group], group_codes[group])
    _best_of_groups(groups, size, first, second, codes)
    for i in range(n):
        first[i] -= np.float32(2) * (slope * np.sqrt(squares[i]) + error_slope * np.sqrt(errors[i]) + floor)
    unsure = 0
    for i in range(n):
        if second[i] >= first[i]:
            unsure += 1
            codes[i] = _exact_best(i, groups, size, tile, offsets, first[i], residual, centroids, exact_offsets)
    return unsure, subtract_(residual, centroids, codes, squares, halves, errors)


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def pick_and_sum(tile, offsets, points, first, second, codes, sums, counts):
    """Choose each row's code and add the row to that code's sum: a round of k-means.

    Not exact: of codes with equal float32 scores the lowest wins, and nothing is decided in float64.

    Parameters
    ----------
    tile, offsets, first, second, codes : as for `pick_`
    points : float32 [n, d]
    sums : float64 [K, d], added to
    counts : int64 [K], added to

    Returns
    -------
    The sum of the best scores, float64.
    """
    n, dims = points.shape
    _best_two(tile, offsets, first, second, codes)
    total = 0.0
    for i in range(n):
        code = codes[i]
        total += np.float64(first[i])
        counts[code] += 1
        for dim in range(dims):
            sums[code, dim] += points[i, dim]
    return total
