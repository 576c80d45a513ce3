"""Place overflowing items under the nearest prefix with free codes.

Every unplaced item applies to the nearest open prefix on a list of its own; each prefix matches its applicants to its
free codes exactly; an item that gets none finds that prefix full and applies to the next. Lists that run out are
searched again, wider, among the prefixes still open, at last among all. So every item is placed as long as there are
at least as many IDs as items.

Copies of one vector share a list, and each starts further down it than the copy before; else all of them would apply
for one code a round. Where most lists run out, all items from one prefix are treated as copies of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.assign.distances import nearest_prefixes, spans
from semid.assign.keys import rank_within, run_starts
from semid.assign.matching import match_buckets
from semid.assign.occupancy import Occupancy
from semid.runtime.tables import RowTable

__all__ = ["place_overflow"]

Ints = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

FIRST_WIDTH = 8  # prefixes on the first lists; 4 and 16 give the same distortion within 0.01 %
WIDENING = 4
LIST_LENGTH = 64  # open prefixes kept on a list, unless copies need more
SPREAD = 2  # the j-th copy starts 2j free codes down the list: other items want some of them
MIN_PROGRESS = 4  # a search that places fewer than a quarter of the items is too narrow
MAX_SCORES = 2**31  # computed in one search by single vectors; beyond that they share lists


@dataclass(frozen=True)
class _Lists:
    """Open prefixes in order of preference, the lists of V vectors end to end, E entries in all."""

    starts: Ints  # [V] first entry of each vector's list
    ends: Ints  # [V] one past its last
    prefixes: npt.NDArray[np.int32]  # [E, L - 1]
    rows: Ints  # [E] row of the prefix in the occupancy
    scores: Float64s  # [E] score of the prefix, in a first search that of the best ID under it


def place_overflow(
    latents: RowTable,
    items: Ints,
    leaders: Ints,
    homes: npt.NDArray[Any],
    codebooks: Sequence[Float64s],
    occupancy: Occupancy,
    *,
    advance: Callable[[int], object] | None = None,
) -> npt.NDArray[np.int32]:
    """Give every unplaced item a free ID under the nearest prefix that has one.

    Parameters
    ----------
    latents : float [N, D]
    items : int64 [H]
        Rows of the unplaced items, ascending.
    leaders : int64 [H]
        Equal for identical vectors and for no others.
    homes : [H]
        Equal for items that had to leave the same prefix.
    codebooks : L arrays, float64 [K_l, D]
    occupancy : Occupancy
        All IDs in use; those assigned here are added to it.
    advance : callable, optional
        Called after each round with the number of items placed in it.

    Returns
    -------
    int32 [H, L]
        Distinct codes, none of which was taken.
    """
    task = _Placement(latents, items, codebooks, occupancy)
    unplaced = np.arange(len(items))
    width, crowded = FIRST_WIDTH, False
    while len(unplaced):
        _, first, copied = np.unique((homes if crowded else leaders)[unplaced], return_index=True, return_inverse=True)
        lists = task.preferences(unplaced[first], np.bincount(copied), width, capped=not crowded)
        left = task.settle(unplaced, copied, lists, advance)
        found = len(unplaced) - len(left)
        assert found or not crowded, "more items than free IDs"
        crowded = crowded or found * MIN_PROGRESS < len(unplaced)
        unplaced = left
        width *= WIDENING
    return task.codes


class _Placement:
    """One call of `place_overflow`. Unplaced items are numbers below H."""

    def __init__(
        self,
        latents: RowTable,
        items: Ints,
        codebooks: Sequence[Float64s],
        occupancy: Occupancy,
    ) -> None:
        self.latents, self.items, self.codebooks, self.occupancy = latents, items, codebooks, occupancy
        self.codes = np.full((len(items), len(codebooks)), -1, np.int32)
        self.n_prefixes = math.prod(len(codebook) for codebook in codebooks[:-1])
        self.widest = max(map(len, codebooks))

    def preferences(self, originals: Ints, copies: Ints, width: int, *, capped: bool) -> _Lists:
        """Return a list for each of the V originals, searched wider until it has room for all `copies` [V].

        If `capped`, originals whose search would compute more than MAX_SCORES scores get an empty list.
        """
        starts, ends = np.zeros((2, len(originals)), np.int64)
        pieces: list[tuple[npt.NDArray[np.int32], Ints, Float64s]] = []
        pending, end = np.arange(len(originals)), 0
        while len(pending):
            if capped and pieces and len(pending) * width * self.widest > MAX_SCORES:
                break
            short = []
            for part in spans(len(pending), width * len(self.codebooks)):
                who = pending[part]
                piece, counts, enough = self._search(originals[who], SPREAD * copies[who], width)
                pieces.append(piece)
                ends[who] = end + np.cumsum(counts)
                starts[who] = ends[who] - counts
                end += len(piece[0])
                short.append(who[~enough])
            pending = np.concatenate(short)
            width *= WIDENING
        prefixes, rows, scores = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return _Lists(starts, ends, prefixes, rows, scores)

    def _search(
        self, originals: Ints, wanted: Ints, width: int
    ) -> tuple[tuple[npt.NDArray[np.int32], Ints, Float64s], Ints, npt.NDArray[np.bool_]]:
        """Return the lists end to end, the length of each, and which found the `wanted` room or all there is."""
        vectors = self.latents[self.items[originals]]
        prefixes, scores = nearest_prefixes(vectors, self.codebooks, width, complete=width == FIRST_WIDTH)
        rows = self.occupancy.rows(prefixes.reshape(-1, prefixes.shape[2])).reshape(scores.shape)
        free = self.occupancy.free[rows]
        reach = np.cumsum(free, axis=1)
        enough = (reach[:, -1] >= wanted) | (width >= self.n_prefixes)
        needed = (np.cumsum(free > 0, axis=1) <= LIST_LENGTH) | (reach - free < wanted[:, None])
        kept = enough[:, None] & needed & (free > 0)
        return (prefixes[kept], rows[kept], scores[kept]), kept.sum(axis=1), enough

    def settle(self, unplaced: Ints, copied: Ints, lists: _Lists, advance: Callable[[int], object] | None) -> Ints:
        """Run rounds of applications until every list has run out; return the items left. `copied` [H]: which list."""
        while len(unplaced):
            entry = self._applications(copied, lists)
            applying = np.flatnonzero(entry >= 0)
            if not len(applying):
                break
            applicants, entry = unplaced[applying], entry[applying]
            outside = lists.scores[np.minimum(entry + 1, lists.ends[copied[applying]] - 1)]
            last = self._round(applicants, entry, outside, lists)
            won = last >= 0
            self.codes[applicants[won], :-1] = lists.prefixes[entry[won]]
            self.codes[applicants[won], -1] = last[won]
            if advance is not None:
                advance(int(won.sum()))
            stay = np.ones(len(unplaced), np.bool_)
            stay[applying[won]] = False
            unplaced, copied = unplaced[stay], copied[stay]
        return unplaced

    def _applications(self, copied: Ints, lists: _Lists) -> Ints:
        """Return the list entry that each unplaced item applies to, −1 where its list has run out: int64 [H].

        The first copy applies to the first prefix with room, the j-th to the prefix where the free codes from
        the head of the list add up to more than 2j.
        """
        reach = np.concatenate(([0], np.cumsum(self.occupancy.free[lists.rows])))
        wanted = reach[lists.starts][copied] + SPREAD * rank_within(copied)
        entry = np.searchsorted(reach[1:], wanted, side="right")
        return np.where(entry < lists.ends[copied], entry, -1)

    def _round(self, applicants: Ints, entry: Ints, outside: Float64s, lists: _Lists) -> Ints:
        """Match the applicants of every prefix to its free codes: their last codes, −1 for items that get none.

        A prefix rejects an item only when it has no code left, so a rejected item never applies to it again.
        """
        order = np.argsort(lists.rows[entry], kind="stable")
        rows = lists.rows[entry][order]
        bounds = run_starts(rows)
        slots = self.occupancy.slots(rows[bounds[:-1]])
        found = match_buckets(
            self.latents,
            self.items[applicants[order]],
            lists.prefixes[entry[order]],
            self.codebooks,
            bounds,
            taken=self.occupancy.taken,
            taken_rows=slots,
            outside=outside[order],
        )
        self.occupancy.take(rows[found >= 0], found[found >= 0])
        last = np.empty(len(order), np.int64)
        last[order] = found
        return last
