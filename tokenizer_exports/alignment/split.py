"""The split: which interactions are for training, and what a prompt of each part may know.

Every history is cut twice. What comes before the first cut is for training, what lies between is to be predicted in
validation, what comes after the second in the test.

    leave-one-out   the last item is for the test, the last but one for validation; fewer than three, all for training
    time            one moment for all users: the share `cuts` of all interactions were before it
    own             as the histories say: `n_valid` and `n_test`, how many of the last items are for either

Nothing of a later part stands in an earlier one, as an item of this user's history, as an answer or as an option: where
somebody met an item before which is held out for them later, that earlier time is left out of the earlier parts too.

U users, n interactions with items that have a live ID; rows are rows of the table of items.
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
    """What one part of the split may know of a user: `rows`, oldest first, of which those from `first` on are asked."""

    rows: list[int]
    first: int

    def places(self) -> range:
        """Places in `rows` to predict from what stands before them; never the first of all."""
        return range(max(self.first, 1), len(self.rows))


@dataclass(frozen=True, eq=False)
class SplitHistories:
    """Histories in rows of the catalog, with their cuts; made by `split_histories`."""

    users: list[str]  # U, sorted
    offsets: npt.NDArray[np.int64]  # (U + 1)
    rows: npt.NDArray[np.int64]  # (n,)
    cuts: npt.NDArray[np.int64]  # (U, 2) - where training and where validation end, counted from the user's first
    n_unknown: int  # interactions left out, since their item has no live ID

    def all_rows(self, user: int) -> list[int]:
        """Everything that a user met, held out or not."""
        return self.rows[self.offsets[user] : self.offsets[user + 1]].tolist()

    def seen(self, user: int, split: str) -> Seen:
        """What a part may know of a user."""
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
        """The part where an item of a user's history is asked, and its place in what that part has seen.

        The latest such part, where the item comes several times; None if the user never met it.
        """
        for split in reversed(SPLITS):
            seen = self.seen(user, split)
            for place in range(len(seen.rows) - 1, seen.first - 1, -1):
                if seen.rows[place] == row:
                    return split, place
        return None

    def n_places(self, split: str) -> int:
        """How many places a part asks for, over all users."""
        return sum(len(self.seen(user, split).places()) for user in self)

    def repeats(self) -> int:
        """How many interactions are in no part, because their item is held out later."""
        missing = int(self.cuts[:, 1].sum())
        for user in self:
            valid = self.seen(user, "validation")
            missing -= len(self.seen(user, "train").rows) + len(valid.rows) - valid.first
        return missing

    def train_rows(self) -> npt.NDArray[np.int64]:
        """The rows of all interactions before the first cut; one as often as it was met."""
        place = np.arange(len(self.rows)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        return self.rows[place < np.repeat(self.cuts[:, 0], np.diff(self.offsets))]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.users)))


def live_rows(log: Interactions, ledger: Ledger) -> npt.NDArray[np.int64]:
    """int64: the row of each of `log.items`; -1 where the item has no ID, or a retired one."""
    row_of = ledger.find_rows(log.item_ids)
    row_of[(row_of >= 0) & (ledger.retired_generations(row_of) > 0)] = -1
    return row_of[log.items]


def split_histories(log: Interactions, ledger: Ledger, ends: npt.NDArray[np.int64]) -> SplitHistories:
    """Cut histories where `leave_one_out`, `cut_by_time` or another says: int64 [U, 2], counted in all interactions.

    Those with items without a live ID are left out after the cut: it is the same for every artifact. InputError if no
    item of the interactions has one.
    """
    rows = live_rows(log, ledger)
    known = rows >= 0
    if not known.any():
        raise InputError(f"{log.source}: none of its items has a live ID in the artifact. Are the ids the same?")
    before = np.concatenate(([0], np.cumsum(known)))
    offsets = before[log.offsets]
    cuts = before[log.offsets[:-1, None] + ends] - offsets[:-1, None]
    return SplitHistories(log.users, offsets, rows[known], cuts, int((~known).sum()))
