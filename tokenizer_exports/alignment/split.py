"""The training, validation and test parts of each history, and what a prompt of each part may show.

Every history is cut twice. Items before the first cut are training data. Items between the cuts are predicted in
validation, items after the second in the test.

    leave-one-out   the last item is the test, the one before is validation; fewer than three items are all training
    time            the same two moments for all users: the shares `cuts` of all interactions come before them
    own             by the `n_valid` and `n_test` of each history

No held-out item of a user leaks into an earlier part, as part of a history, as an answer or as an option. If the user
met the item before, that earlier interaction is left out of the earlier parts too.

U users, n interactions with items that have a live ID. Rows are rows of the artifact's table of items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Interactions
from semid.errors import InputError
from semid.ledger.ledger import Ledger
from semid.tokenizer_exports.alignment.config import SPLITS

__all__ = ["Seen", "SplitHistories", "live_rows", "split_histories"]


@dataclass(frozen=True)
class Seen:
    """The items of one user that a part of the split may show, oldest first; those from place `first` on are asked."""

    rows: list[int]
    first: int

    def places(self) -> range:
        """Return the places in `rows` to predict from the items before them; never place 0."""
        return range(max(self.first, 1), len(self.rows))


@dataclass(frozen=True, eq=False)
class SplitHistories:
    """Histories as rows of the artifact, with their cuts. Made by `split_histories`."""

    users: list[str]  # U, sorted
    offsets: npt.NDArray[np.int64]  # (U + 1)
    rows: npt.NDArray[np.int64]  # (n,)
    cuts: npt.NDArray[np.int64]  # (U, 2) - where training and validation end, counted from the user's first item
    n_unknown: int  # interactions left out because their item has no live ID

    def all_rows(self, user: int) -> list[int]:
        """Return the rows of all items of a user, held out or not."""
        return self.rows[self.offsets[user] : self.offsets[user + 1]].tolist()

    def seen(self, user: int, split: str) -> Seen:
        """Return the items of a user that a part may show."""
        rows, (train_end, valid_end) = self.all_rows(user), self.cuts[user].tolist()
        starts = (0, train_end, valid_end)
        ends = (train_end, valid_end, len(rows))
        part = SPLITS.index(split)
        held_out = set(rows[ends[part] :])
        if held_out.isdisjoint(rows[: ends[part]]):
            return Seen(rows[: ends[part]], starts[part])
        kept = [place for place in range(ends[part]) if rows[place] not in held_out]
        return Seen([rows[place] for place in kept], sum(place < starts[part] for place in kept))

    def part_of(self, user: int, row: int) -> tuple[str, int] | None:
        """Return the part that asks for an item of a user's history, and its place in `seen(user, part).rows`.

        The latest such part, if the item comes several times. None if the user never met it.
        """
        for split in reversed(SPLITS):
            seen = self.seen(user, split)
            for place in range(len(seen.rows) - 1, seen.first - 1, -1):
                if seen.rows[place] == row:
                    return split, place
        return None

    def n_places(self, split: str) -> int:
        """Return how many places a part asks for, over all users."""
        return sum(len(self.seen(user, split).places()) for user in self)

    def repeats(self) -> int:
        """Return how many interactions are in no part, because their item is held out later."""
        missing = int(self.cuts[:, 1].sum())
        for user in self:
            valid = self.seen(user, "validation")
            missing -= len(self.seen(user, "train").rows) + len(valid.rows) - valid.first
        return missing

    def train_rows(self) -> npt.NDArray[np.int64]:
        """Return the row of each interaction before the first cut: int64."""
        place = np.arange(len(self.rows)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        return self.rows[place < np.repeat(self.cuts[:, 0], np.diff(self.offsets))]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.users)))


def live_rows(log: Interactions, ledger: Ledger) -> npt.NDArray[np.int64]:
    """Return the row of each interaction's item, int64 [n]; -1 if the item has no live ID."""
    row_of = ledger.find_rows(log.item_ids)
    row_of[(row_of >= 0) & (ledger.retired_generations(row_of) > 0)] = -1
    return row_of[log.items]


def split_histories(log: Interactions, ledger: Ledger, ends: npt.NDArray[np.int64]) -> SplitHistories:
    """Cut histories, then leave out items without a live ID: so the cut is the same for every artifact.

    Parameters
    ----------
    log : Interactions
        All histories.
    ledger : Ledger
        The artifact's table of items.
    ends : int64 [U, 2]
        Where training and validation end in each history, as `leave_one_out`, `own_split` or `cut_by_time` return it.

    Raises
    ------
    InputError
        No item of the interactions has a live ID.
    """
    rows = live_rows(log, ledger)
    known = rows >= 0
    if not known.any():
        raise InputError(f"{log.source}: none of its items has a live ID in the artifact. Are the ids the same?")
    before = np.concatenate(([0], np.cumsum(known)))
    offsets = before[log.offsets]
    cuts = before[log.offsets[:-1, None] + ends] - offsets[:-1, None]
    return SplitHistories(log.users, offsets, rows[known], cuts, int((~known).sum()))
