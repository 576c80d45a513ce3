"""Resolve a catalog's collisions: match inside every prefix that has one, place what does not fit under other prefixes.

Two items collide only if they share the first L − 1 codes, so a prefix without a collision is left alone. Ties go to
the earlier row.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.assign.distances import nearest_prefixes, spans
from semid.assign.keys import pack, rank_within, run_starts
from semid.assign.matching import match_buckets
from semid.assign.occupancy import CodeList, Occupancy
from semid.assign.overflow import place_overflow
from semid.assign.problem import Problem
from semid.runtime.progress import bar
from semid.runtime.tables import RowTable

__all__ = ["Resolution", "resolve"]

Ints = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

CONSIDERED = 4  # prefixes searched for the cost of leaving an overfull one; 2 and 8 do as well


@dataclass(frozen=True)
class Resolution:
    """Distinct codes, and figures for the certificate."""

    codes: npt.NDArray[np.int32]
    leaders: Ints  # [N] the first item with the identical latent and the same raw code; may be the item itself
    largest_bucket: int  # most items under one prefix
    overfull_buckets: int  # prefixes with more items than free last codes
    overflow_items: int  # items that had to leave such a prefix


@dataclass(frozen=True)
class _Buckets:
    """Prefixes and their members."""

    members: Ints  # [n] rows, bucket after bucket
    bounds: Ints  # [B + 1] bucket b is members[bounds[b]:bounds[b + 1]]
    room: Ints  # [B] free last codes
    rows: Ints  # [B] row of the bucket in the table of taken codes

    def where(self, chosen: npt.NDArray[np.bool_]) -> _Buckets:
        """Return the chosen buckets [B] alone."""
        counts = np.diff(self.bounds)
        members = self.members[np.repeat(chosen, counts)]
        bounds = np.concatenate(([0], np.cumsum(counts[chosen])))
        return _Buckets(members, bounds, self.room[chosen], self.rows[chosen])

    def select(self, kept: npt.NDArray[np.bool_]) -> _Buckets:
        """Return the same buckets with the kept members [n] alone, at least one in each."""
        bounds = np.concatenate(([0], np.cumsum(kept)))[self.bounds]
        return _Buckets(self.members[kept], bounds, self.room, self.rows)


def resolve(problem: Problem, wanted: npt.NDArray[np.int32]) -> Resolution:
    """Return distinct, unoccupied codes for all items, at the exact least cost inside each prefix.

    Parameters
    ----------
    problem : Problem
    wanted : int32 [N, L]
        The preferred ID of each item; the same for identical items.
    """
    sizes, occupied = problem.sizes, problem.occupied
    sources = [] if occupied is None else [occupied]
    keys = pack(wanted, sizes)
    order = np.argsort(keys, kind="stable")
    collides = _collisions(keys[order])
    if occupied is not None:
        collides |= occupied.contains(wanted[order])
    leaders = _leaders(problem.latents, keys, order[collides])
    bounds = run_starts(pack(wanted[order, :-1], sizes[:-1]))
    others = Occupancy(sources, sizes) if sources else None
    touched = _touched(wanted, order, bounds, collides, sizes[-1], others)
    taken = None if others is None else others.taken

    codes = wanted.copy()
    overfull = np.diff(touched.bounds) > touched.room
    fitting, crowded = touched.where(~overfull), touched.where(overfull)
    codes[fitting.members, -1] = _match(problem, wanted, fitting, taken)
    codes[crowded.members, -1] = -1
    stayers, outside = _candidates(problem, wanted, crowded, leaders)
    codes[stayers.members, -1] = _match(problem, wanted, stayers, taken, outside)

    unplaced = np.sort(crowded.members[codes[crowded.members, -1] < 0])
    if len(unplaced):
        placed = codes[codes[:, -1] >= 0]
        occupancy = Occupancy([CodeList(placed, sizes), *sources], sizes)
        with bar("place overflow", len(unplaced)) as advance:
            codes[unplaced] = place_overflow(
                problem.latents,
                unplaced,
                leaders[unplaced],
                pack(wanted[unplaced, :-1], sizes[:-1]),
                problem.codebooks,
                occupancy,
                advance=advance,
            )
    return Resolution(codes, leaders, int(np.diff(bounds).max(initial=0)), int(overfull.sum()), len(unplaced))


def _collisions(keys: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which of the sorted keys [N] occur twice."""
    same = keys[1:] == keys[:-1]
    collides = np.zeros(len(keys), np.bool_)
    collides[1:] = same
    collides[:-1] |= same
    return collides


def _leaders(latents: RowTable, keys: npt.NDArray[Any], rows: Ints) -> Ints:
    """Return the first item with the same key and the identical latent, for every item: int64 [N].

    Only `rows`, in order of (key, row), can have such a duplicate: equal latents have equal codes.
    """
    hashes = np.empty(len(rows), np.uint64)
    factors = np.cumprod(np.full(latents.shape[1], 0x9E3779B97F4A7C15, np.uint64))
    for part in spans(len(rows), latents.shape[1]):
        # adding zero turns -0.0 into 0.0; folding brings float64's high bits to where products keep them
        bits = (latents[rows[part]].astype(np.float64) + 0.0).view(np.uint64)
        hashes[part] = ((bits ^ (bits >> np.uint64(32))) * factors).sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    rows = rows[order]
    alike = np.zeros(len(rows), np.bool_)
    alike[1:] = (np.diff(hashes[order]) == 0) & (keys[rows[1:]] == keys[rows[:-1]])
    second = np.flatnonzero(alike)
    for part in spans(len(second), latents.shape[1]):
        here = second[part]
        alike[here] = (latents[rows[here]] == latents[rows[here - 1]]).all(axis=1)
    leaders = np.arange(len(keys))
    first = np.maximum.accumulate(np.where(alike, 0, np.arange(len(rows))))
    leaders[rows] = rows[first]
    return leaders


def _touched(
    wanted: npt.NDArray[np.int32],
    order: Ints,
    bounds: Ints,
    collides: npt.NDArray[np.bool_],
    n_codes: int,
    others: Occupancy | None,
) -> _Buckets:
    """Return the buckets that have a collision."""
    none = np.zeros(len(bounds) - 1, np.int64)
    hit = np.logical_or.reduceat(collides, bounds[:-1]) if len(order) else none.astype(np.bool_)
    touched = _Buckets(order, bounds, none + n_codes, none).where(hit)
    if others is None:
        return touched
    rows = others.rows(wanted[touched.members[touched.bounds[:-1]], :-1])
    return dataclasses.replace(touched, room=others.free[rows], rows=others.slots(rows))


def _match(
    problem: Problem,
    wanted: npt.NDArray[np.int32],
    buckets: _Buckets,
    taken: npt.NDArray[np.bool_] | None,
    outside: Float64s | None = None,
) -> Ints:
    """Return the members' last codes under their preferred prefix, −1 for members that must leave it."""
    return match_buckets(
        problem.latents,
        buckets.members,
        wanted[buckets.members, :-1],
        problem.codebooks,
        buckets.bounds,
        taken=taken,
        taken_rows=buckets.rows,
        outside=outside,
    )


def _candidates(
    problem: Problem, wanted: npt.NDArray[np.int32], crowded: _Buckets, leaders: Ints
) -> tuple[_Buckets, Float64s]:
    """Return the members of overfull buckets that may stay, and the score that each would have elsewhere.

    Of identical items no more than K can stay, so the others need no row in the cost matrix: a hundred thousand copies
    of one item are a problem of K rows.
    """
    crowded = crowded.where(crowded.room > 0)
    room = np.repeat(crowded.room, np.diff(crowded.bounds))
    may_stay = crowded.select(rank_within(leaders[crowded.members]) < room)
    distinct, vector = np.unique(leaders[may_stay.members], return_inverse=True)
    prefixes, scores = nearest_prefixes(problem.latents[distinct], problem.codebooks, CONSIDERED)
    if scores.shape[1] == 1:  # one prefix in all: no item can leave it
        return may_stay, scores[vector, 0]
    stays = (prefixes[:, 0] == wanted[distinct, :-1]).all(axis=1)
    return may_stay, np.where(stays, scores[:, 1], scores[:, 0])[vector]
