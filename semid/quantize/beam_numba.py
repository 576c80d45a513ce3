"""The compiled loops of `beam.py`: one row's beam search by additions and selections, all in the first-level cache.

Layout, compilation and rounding are treated as in `nearest_numba.py`.
"""

from __future__ import annotations

import numba
import numpy as np

from semid.quantize.nearest_numba import LOOSE

__all__ = ["search"]

GROUP = 64
LOWEST = np.int32(-(2**31))
MAGNITUDE = np.int32(0x7FFFFFFF)
SIGN = np.int32(31)


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _extend(scores, offsets, products, beams, beam_scores, n_beams, level, start, stop, extended):
    """Write the scores of all extensions of all beams into extended [n_beams * (stop - start)].

    By slices: an index that is a sum might be negative, and checking for that prevents vectorization.
    """
    size = stop - start
    own, fixed = scores[start:stop], offsets[start:stop]
    for beam in range(n_beams):
        target = extended[beam * size : (beam + 1) * size]
        base = beam_scores[beam]
        for k in range(size):
            target[k] = base + own[k] + fixed[k]
        for earlier in range(level):
            product = products[beams[beam, earlier], start:stop]
            for k in range(size):
                target[k] -= product[k]


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _largest(values, start):
    """Return the largest of GROUP values.

    LLVM does not vectorize the maximum of many floats, so integers are compared: flipping all bits of negative values
    but the sign makes the order of the bits that of the values.
    """
    highest = LOWEST
    group = values[start : start + GROUP]
    for k in range(GROUP):
        bits = np.float32(group[k]).view(np.int32)
        highest = max(highest, bits ^ ((bits >> SIGN) & MAGNITUDE))
    return np.int32(highest ^ ((highest >> SIGN) & MAGNITUDE)).view(np.float32)


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _take_best(extended, count, n_groups, largest, keep, places, taken):
    """Find the places of the `keep` largest of extended[:count], lowest on ties, and overwrite them with -inf."""
    for group in range(n_groups):
        largest[group] = _largest(extended, group * GROUP)
    for number in range(keep):
        best = 0
        for group in range(1, n_groups):
            if largest[group] > largest[best]:
                best = group
        place = best * GROUP
        while extended[place] != largest[best]:
            place += 1
        places[number] = place
        taken[number] = extended[place]
        extended[place] = -np.inf
        largest[best] = _largest(extended, best * GROUP)


@numba.njit(nogil=True, cache=True)
def _exact_score(row, centroids, exact_offsets, beams, beam, level, code):
    """Return the float64 score of a beam's prefix with one more code; every term and the sum are exact on the grids."""
    score = exact_offsets[code]
    for dim in range(len(row)):
        left = np.float64(row[dim])
        for earlier in range(level):
            left -= np.float64(centroids[beams[beam, earlier], dim])
        score += left * np.float64(centroids[code, dim])
    for earlier in range(level):
        chosen = beams[beam, earlier]
        score += exact_offsets[chosen]
        for dim in range(len(row)):
            left = np.float64(row[dim])
            for before in range(earlier):
                left -= np.float64(centroids[beams[beam, before], dim])
            score += left * np.float64(centroids[chosen, dim])
    return score


@numba.njit(nogil=True, cache=True)
def _decide(
    row, centroids, exact_offsets, beams, level, start, size, extended, count, bound, certain, keep, places, taken,
    doubtful, exact,
):  # fmt: skip
    """Choose again among the extensions from `bound` to `certain`, by float64 scores; the lowest place on ties.

    An extension above `certain` leads everything that was left out, so it stays; one below `bound` cannot get in.
    """
    for number in range(keep):
        extended[places[number]] = taken[number]
    n_certain, n_doubtful = 0, 0
    for place in range(count):
        if extended[place] > certain:
            places[n_certain] = place
            n_certain += 1
        elif extended[place] >= bound:
            doubtful[n_doubtful] = place
            code = start + place % size
            exact[n_doubtful] = _exact_score(row, centroids, exact_offsets, beams, place // size, level, code)
            n_doubtful += 1
    for number in range(n_certain, keep):
        best = -1
        for other in range(n_doubtful):
            if doubtful[other] >= 0 and (best < 0 or exact[other] > exact[best]):
                best = other
        places[number] = doubtful[best]
        doubtful[best] = -1
    for number in range(keep):
        taken[number] = extended[places[number]]


@numba.njit(nogil=True, cache=True)
def _sort(places, taken, count):
    """Sort by place, so that prefixes are in lexicographic order: they are few and nearly sorted."""
    for number in range(1, count):
        place, score, at = places[number], taken[number], number
        while at and places[at - 1] > place:
            places[at], taken[at] = places[at - 1], taken[at - 1]
            at -= 1
        places[at], taken[at] = place, score


@numba.njit(nogil=True, cache=True)
def search(
    rows, scores, offsets, exact_offsets, centroids, products, starts, sizes, slope, floor, width, codes
):  # fmt: skip
    """Write the codes int32 [n, L] of rows float32 [n, d], given scores = rows . centroids^T, float32 [n, P].

    The other arguments are the fields of `beam.Tables`.
    """
    n_levels = len(starts) - 1
    widest = 0
    for level in range(n_levels):
        widest = max(widest, starts[level + 1] - starts[level])
    extended = np.empty(width * widest, np.float32)
    largest = np.empty(width * widest // GROUP, np.float32)
    doubtful, exact = np.empty(width * widest, np.int64), np.empty(width * widest, np.float64)
    beams, grown = np.zeros((width, n_levels), np.int64), np.zeros((width, n_levels), np.int64)
    beam_scores, taken = np.zeros(width, np.float32), np.zeros(width, np.float32)
    places = np.zeros(width, np.int64)
    for i in range(len(rows)):
        square = np.float32(0)
        for dim in range(rows.shape[1]):
            square += rows[i, dim] * rows[i, dim]
        doubt = np.float32(2.0002) * (slope * np.sqrt(square) + floor)
        n_beams = 1
        beam_scores[0] = 0
        for level in range(n_levels):
            start, stop = starts[level], starts[level + 1]
            size = stop - start
            count = n_beams * size
            _extend(scores[i], offsets, products, beams, beam_scores, n_beams, level, start, stop, extended)
            keep = 1 if level == n_levels - 1 else min(width, n_beams * sizes[level])
            n_groups = count // GROUP
            _take_best(extended, count, n_groups, largest, keep, places, taken)
            following = -np.inf
            for group in range(n_groups):
                following = max(following, largest[group])
            bound = taken[keep - 1] - doubt
            if following >= bound:
                _decide(
                    rows[i], centroids, exact_offsets, beams, level, start, size, extended, count, bound,
                    following + doubt, keep, places, taken, doubtful, exact,
                )  # fmt: skip
            _sort(places, taken, keep)
            for number in range(keep):
                beam = places[number] // size
                for earlier in range(level):
                    grown[number, earlier] = beams[beam, earlier]
                grown[number, level] = start + places[number] % size
                beam_scores[number] = taken[number]
            beams, grown = grown, beams
            n_beams = keep
        for level in range(n_levels):
            codes[i, level] = beams[0, level] - starts[level]
