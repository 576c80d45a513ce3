"""Exact matching inside buckets: members of one prefix receive distinct last codes at least total cost.

Each bucket is a rectangular linear assignment problem of its own (Crouse 2016, as SciPy implements it). The
many buckets of two or three members are solved together by enumeration. A bucket with more members than free
codes keeps exactly as many members as it has free codes, those whose staying costs least in total.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.assign.distances import CHUNK_VALUES, residuals, scores_of
from semid.quantize.beam import code_scores
from semid.runtime.tables import RowTable
from semid.runtime.threads import in_threads

__all__ = ["match_buckets", "solve_buckets"]

Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TINY = 3  # buckets up to this many members are enumerated: n^n candidates each
NO_CODE = -1


def solve_buckets(costs: Float64s, bounds: Ints) -> Ints:
    """Return the cheapest distinct columns for the rows of every bucket; −1 for rows that get none.

    Parameters
    ----------
    costs : float64 [n, K]
        Cost of each code for each member; inf marks a code that is taken, alike in all rows of a bucket.
    bounds : int64 [B + 1]
        Bucket b is the rows bounds[b] to bounds[b + 1].

    >>> solve_buckets(np.array([[0.0, 3.0, 9.0], [1.0, 2.0, 9.0], [0.0, 1.0, 2.0]]), np.array([0, 2, 3])).tolist()
    [0, 1, 0]
    """
    chosen = np.full(len(costs), NO_CODE, np.int64)
    counts = np.diff(bounds)
    free = np.isfinite(costs[bounds[:-1]]).sum(axis=1)
    for n in range(1, TINY + 1):
        rows = bounds[:-1][(counts == n) & (free >= n)][:, None] + np.arange(n)
        if len(rows):
            chosen[rows] = _solve_tiny(costs[rows])
    for bucket in np.flatnonzero((counts > TINY) | (free < counts)):
        rows = slice(bounds[bucket], bounds[bucket + 1])
        chosen[rows] = _solve_one(costs[rows])
    return chosen


def _solve_tiny(costs: Float64s) -> Ints:
    """Solve all buckets of n members that fit, together: costs [B, n, K] → codes [B, n].

    Each member needs no more than its n cheapest codes: the other n − 1 members cannot take them all.
    """
    n = costs.shape[1]
    left = costs.copy()
    codes = np.empty((*costs.shape[:2], n), np.int64)
    for rank in range(n):
        codes[:, :, rank] = left.argmin(axis=2)
        np.put_along_axis(left, codes[:, :, rank, None], np.inf, axis=2)
    prices = np.take_along_axis(costs, codes, axis=2)

    ranks = np.array(list(itertools.product(range(n), repeat=n)))  # [n^n, n]: which choice each member gets
    members = np.arange(n)
    offers = codes[:, members, ranks]  # [B, n^n, n]
    totals = prices[:, members, ranks].sum(axis=2)
    for one, other in itertools.combinations(range(n), 2):
        totals[offers[:, :, one] == offers[:, :, other]] = np.inf
    best: npt.NDArray[np.int64] = offers[np.arange(len(offers)), totals.argmin(axis=1)]
    return best


def _solve_one(costs: Float64s) -> Ints:
    """Solve one bucket of any size: costs [n, K] → codes [n], −1 for members that must leave."""
    from scipy.optimize import linear_sum_assignment

    chosen = np.full(len(costs), NO_CODE, np.int64)
    free = np.flatnonzero(np.isfinite(costs[0]))
    members, columns = linear_sum_assignment(costs if len(free) == costs.shape[1] else costs[:, free])
    chosen[members] = free[columns]
    return chosen


def match_buckets(
    latents: RowTable,
    items: Ints,
    prefixes: npt.NDArray[np.integer],
    codebooks: Sequence[Float64s],
    bounds: Ints,
    *,
    taken: npt.NDArray[np.bool_] | None = None,
    taken_rows: Ints | None = None,
    outside: Float64s | None = None,
) -> Ints:
    """Match members to last codes by squared error, for any number of buckets, in bounded memory and in threads.

    Parameters
    ----------
    latents : float [N, D]
    items : int64 [n]
        Rows of the members, bucket after bucket.
    prefixes : integer [n, L − 1]
        The prefix that each member applies to; the same for a whole bucket.
    codebooks : L arrays, float64 [K_l, D]
    bounds : int64 [B + 1]
        Bucket b is the rows bounds[b] to bounds[b + 1].
    taken, taken_rows : bool [T, K], int64 [B]
        Codes that are not free in bucket b: taken[taken_rows[b]]. By default all are free.
    outside : float64 [n]
        Score of the ID that each member would get elsewhere. It is subtracted from its costs, so that an overfull
        bucket keeps the members that would lose most by leaving. Makes no difference in other buckets.

    Returns
    -------
    int64 [n]
        Last codes, distinct inside each bucket; −1 for members that must leave.
    """
    chosen = np.empty(len(items), np.int64)
    last = codebooks[-1]

    def work(part: slice) -> None:
        rows = slice(bounds[part.start], bounds[part.stop])
        vectors = latents[items[rows]]
        costs = code_scores(residuals(vectors, prefixes[rows], codebooks), last)
        if outside is not None:
            costs += (scores_of(vectors, prefixes[rows], codebooks) - outside[rows])[:, None]
        if taken is not None and taken_rows is not None:
            in_use = taken[taken_rows[part]]
            costs[np.repeat(in_use, np.diff(bounds[part.start : part.stop + 1]), axis=0)] = np.inf
        chosen[rows] = solve_buckets(costs, bounds[part.start : part.stop + 1] - rows.start)

    in_threads(work, _parts(bounds, max(1, CHUNK_VALUES // len(last))))
    return chosen


def _parts(bounds: Ints, target: int) -> list[slice]:
    """Return slices of whole buckets of about `target` members each."""
    n_buckets = len(bounds) - 1
    cuts = np.searchsorted(bounds, np.arange(0, bounds[-1], target), side="left")
    cuts = np.unique(np.append(cuts, n_buckets))
    return [slice(start, stop) for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]
