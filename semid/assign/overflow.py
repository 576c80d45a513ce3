"""Homes for members of overfull prefixes: the nearest prefix that still has a free code.

Everyone without a code applies to the nearest open prefix on a list of its own; each prefix matches its
applicants to its free codes exactly; whoever loses finds that prefix full and applies to the next. Lists that
run out are searched again, wider, among the prefixes still open: at last among all prefixes, so there is a
home for everyone as long as there are at least as many IDs as items.

Copies of one vector share a list, and each starts further down it than the copy before; else they would all
fight for one code a round. Where the homeless are so crowded that most find their lists used up, all that
come from one prefix are treated as copies of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.assign.distances import nearest_prefixes, spans
from semid.assign.keys import rank_within, run_starts
from semid.assign.matching import contest
from semid.assign.occupancy import Occupancy

__all__ = ["spill"]

Ints = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

FIRST_WIDTH = 8  # prefixes on the first lists; 4 and 16 give the same distortion within 0.01 %
WIDENING = 4
LIST_LENGTH = 64  # open prefixes kept on a list, unless copies need more
SPREAD = 2  # the j-th copy looks past 2j free codes: others want some of them
PATIENCE = 4  # a search that finds homes for fewer than a quarter is too narrow
THRIFT = 2**31  # scores computed for one search by single vectors before they share lists


@dataclass(frozen=True)
class _Lists:
    """Open prefixes in order of preference, the lists of V vectors end to end, E entries in all."""

    starts: Ints  # [V] first entry of each vector's list
    ends: Ints  # [V] one past its last
    prefixes: npt.NDArray[np.int32]  # [E, L - 1]
    rows: Ints  # [E] row of the prefix in the occupancy
    scores: Float64s  # [E] score of the prefix, in a first search that of the best ID under it


def spill(
    latents: npt.NDArray[np.floating],
    items: Ints,
    leaders: Ints,
    homes: npt.NDArray,
    codebooks: Sequence[Float64s],
    occupancy: Occupancy,
    *,
    placed: Callable[[int], None] | None = None,
) -> npt.NDArray[np.int32]:
    """Give every homeless item a free ID under the nearest prefix that has room.

    Parameters
    ----------
    latents : float [N, D]
    items : int64 [H]
        Rows of the homeless, in canonical order.
    leaders : int64 [H]
        Equal for identical vectors and for no others.
    homes : [H]
        Equal for items that had to leave the same prefix.
    codebooks : L arrays, float64 [K_l, D]
    occupancy : Occupancy
        All IDs in use; those given out here are added to it.
    placed : callable, optional
        Told after each round how many items found a home in it.

    Returns
    -------
    int32 [H, L]
        Distinct codes, none of which was taken.
    """
    task = _Spill(latents, items, codebooks, occupancy)
    homeless = np.arange(len(items))
    width, crowded = FIRST_WIDTH, False
    while len(homeless):
        _, first, copied = np.unique((homes if crowded else leaders)[homeless], return_index=True, return_inverse=True)
        lists = task.preferences(homeless[first], np.bincount(copied), width, thrifty=not crowded)
        left = task.settle(homeless, copied, lists, placed)
        found = len(homeless) - len(left)
        assert found or not crowded, "more items than free IDs"
        crowded = crowded or found * PATIENCE < len(homeless)
        homeless = left
        width *= WIDENING
    return task.codes


class _Spill:
    """One call of `spill`. The homeless are numbers below H."""

    def __init__(
        self,
        latents: npt.NDArray[np.floating],
        items: Ints,
        codebooks: Sequence[Float64s],
        occupancy: Occupancy,
    ) -> None:
        self.latents, self.items, self.codebooks, self.occupancy = latents, items, codebooks, occupancy
        self.codes = np.full((len(items), len(codebooks)), -1, np.int32)
        self.n_prefixes = math.prod(len(codebook) for codebook in codebooks[:-1])
        self.widest = max(map(len, codebooks))

    def preferences(self, originals: Ints, copies: Ints, width: int, *, thrifty: bool) -> _Lists:
        """A list for each of the V originals, searched wider until it has room for all `copies` [V].

        Where `thrifty`, originals whose search would cost too much get an empty list.
        """
        starts, ends = np.zeros((2, len(originals)), np.int64)
        pieces: list[tuple[npt.NDArray[np.int32], Ints, Float64s]] = []
        pending, end = np.arange(len(originals)), 0
        while len(pending):
            if thrifty and pieces and len(pending) * width * self.widest > THRIFT:
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
        """The lists, end to end; how long each is; and which found the `wanted` room or all there is."""
        vectors = self.latents[self.items[originals]]
        prefixes, scores = nearest_prefixes(vectors, self.codebooks, width, complete=width == FIRST_WIDTH)
        rows = self.occupancy.rows(prefixes.reshape(-1, prefixes.shape[2])).reshape(scores.shape)
        free = self.occupancy.free[rows]
        reach = np.cumsum(free, axis=1)
        enough = (reach[:, -1] >= wanted) | (width >= self.n_prefixes)
        needed = (np.cumsum(free > 0, axis=1) <= LIST_LENGTH) | (reach - free < wanted[:, None])
        kept = enough[:, None] & needed & (free > 0)
        return (prefixes[kept], rows[kept], scores[kept]), kept.sum(axis=1), enough

    def settle(self, homeless: Ints, copied: Ints, lists: _Lists, placed: Callable[[int], None] | None) -> Ints:
        """Rounds of applications until every list has run out; who is left. `copied` [H] says whose list."""
        while len(homeless):
            entry = self._applications(copied, lists)
            applying = np.flatnonzero(entry >= 0)
            if not len(applying):
                break
            applicants, entry = homeless[applying], entry[applying]
            outside = lists.scores[np.minimum(entry + 1, lists.ends[copied[applying]] - 1)]
            last = self._round(applicants, entry, outside, lists)
            won = last >= 0
            self.codes[applicants[won], :-1] = lists.prefixes[entry[won]]
            self.codes[applicants[won], -1] = last[won]
            if placed is not None:
                placed(int(won.sum()))
            stay = np.ones(len(homeless), np.bool_)
            stay[applying[won]] = False
            homeless, copied = homeless[stay], copied[stay]
        return homeless

    def _applications(self, copied: Ints, lists: _Lists) -> Ints:
        """The list entry that each of the homeless applies to, −1 where its list has run out: int64 [H].

        The first copy applies to the first prefix with room, the j-th to the prefix where the free codes from
        the head of the list add up to more than 2j.
        """
        reach = np.concatenate(([0], np.cumsum(self.occupancy.free[lists.rows])))
        wanted = reach[lists.starts][copied] + SPREAD * rank_within(copied)
        entry = np.searchsorted(reach[1:], wanted, side="right")
        return np.where(entry < lists.ends[copied], entry, -1)

    def _round(self, applicants: Ints, entry: Ints, outside: Float64s, lists: _Lists) -> Ints:
        """Every prefix matches its applicants to its free codes: their last codes, −1 for the losers.

        A prefix turns someone away only when it has no code left, so a loser never applies to it again.
        """
        order = np.argsort(lists.rows[entry], kind="stable")
        rows = lists.rows[entry][order]
        bounds = run_starts(rows)
        slots = self.occupancy.slots(rows[bounds[:-1]])
        found = contest(
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
