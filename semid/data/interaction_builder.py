"""The builder of interactions: users, items and times as flat arrays, which `interactions` sorts into one table.

`interaction_records` fills it record by record, `interaction_columns` column by column. What is said, refused and
sorted at the end is here, so that it is the same for both.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.history_cells import LongestHistories
from semid.data.interaction_fields import Choice, spoken
from semid.data.interactions import Interactions
from semid.data.paths import roots
from semid.data.short_dates import ShortDates
from semid.errors import SHOWN_PROBLEMS
from semid.files.field_names import USUAL, Role, may_be_a_field
from semid.files.problems import Problems, name_list, quote

__all__ = ["HELD_OUT", "NO_TIME", "ROLES", "InteractionBuilder", "counts_fault", "interaction_order", "option_of"]

logger = logging.getLogger("semid")

ROLES: tuple[Role, ...] = ("user", "item", "time")
HELD_OUT = ("n_valid", "n_test")  # spelled exactly so
NO_TIME = f"no time, which a split by time needs, in a field such as {', '.join(USUAL['time'])}."


class InteractionBuilder:
    """Flat arrays of one user, one item and one time per interaction, and what was noted while reading."""

    def __init__(self, problems: Problems, names: tuple[str | None, str | None, str | None]) -> None:
        self.problems = problems
        self.names = names  # of the user, item and time field; None: detect it
        self.columns: dict[str, None] = {}  # of the records that were kept, for a message
        self.taken: dict[Role, list[str]] = {}  # columns of each role, in order of appearance ...
        self.level = 0  # ... and how much there is to say about them, as in `Choice`
        self.targets = LongestHistories()  # rows with a history before the item
        self.users: dict[str, int] = {}  # user -> number; items alike
        self.items: dict[str, int] = {}
        self.user_of = array("i")
        self.item_of = array("i")
        self.times: array[int] | array[float] = array("q")  # "d" from the first time that is not a whole number
        self.said: list[str] = []  # what was decided at the end
        self.short_dates = ShortDates()  # times whose order of day and month is known at the end
        self.held_out = array("q")  # n_valid and n_test of each user
        self.n_repeated = 0  # histories of a user who had one already, of which one is kept ...
        self.begins: dict[int, int] = {}  # ... and of a user, where the kept one begins if it is not the first
        self.first: dict[str, int] = {}  # kind of record or time -> line of the first one
        self.no_times, self.no_counts = Problems(problems.name), Problems(problems.name)

    def wants(self, name: str) -> bool:
        """Return whether a field may be the user, the items, the times or a held-out count."""
        heads = (head for path in self.names if path for head in roots(path))
        return name in (*self.names, *HELD_OUT) or may_be_a_field(name) or name in heads

    def take(self, role: Role, choice: Choice) -> None:
        """Note the column of a role, for the line that says which were taken."""
        names = self.taken.setdefault(role, [])
        if choice.name is not None and choice.name not in names:
            names.append(choice.name)
            self.level = max(self.level, choice.level)

    def note(self, faults: Problems, line: int, message: str) -> None:
        """Note a fault that matters to a split alone."""
        faults.style = self.problems.style
        faults.add(line, message)

    def append(self, user: int, item_id: str) -> None:
        """Add an interaction of the user with this number."""
        self.user_of.append(user)
        self.item_of.append(self.items.setdefault(item_id, len(self.items)))

    def interactions(self) -> Interactions:
        """Return the finished table, or raise the error that lists everything wrong with the source."""
        self._refuse_mixtures()
        if self.short_dates.month_first:
            self._order_dates()
        if not self.users and not self.problems.total:
            self.problems.add(None, "no interactions. Expected a history or an interaction per record.")
        self.problems.finish()
        for user, item_ids in self.targets.longest.items():
            for item_id in item_ids:
                self.append(self.users[user], item_id)
        self._say()
        users, user_rank = _ranked(self.users)
        item_ids, item_rank = _ranked(self.items)
        user_of, item_of = np.asarray(self.user_of), np.asarray(self.item_of)
        times = None if self.no_times.total else np.asarray(self.times)
        if self.begins:
            begins = np.zeros(len(users), np.int64)
            begins[list(self.begins)] = list(self.begins.values())
            kept = np.arange(len(user_of)) >= begins[user_of]
            user_of, item_of, times = user_of[kept], item_of[kept], None if times is None else times[kept]
        user_of = user_rank[user_of]
        order = interaction_order(user_of, times)
        offsets = np.zeros(len(users) + 1, np.int64)
        np.cumsum(np.bincount(user_of, minlength=len(users)), out=offsets[1:])
        return Interactions(
            users,
            item_ids,
            offsets,
            item_rank[item_of[order]],
            self.problems.name,
            None if times is None else times[order].astype(np.float64, copy=False),
            self._counts(users, user_rank, offsets),
            {"times": self.no_times, "held_out": self.no_counts},
        )

    def _order_dates(self) -> None:
        """Take dates such as 12/1/2010 with the month or the day first, as all of them tell."""
        self.times, said = self.short_dates.chosen(self.problems, " or ".join(self.taken.get("time", [])))
        self.said.append(said)

    def _say(self) -> None:
        """Log which columns were taken, and that there is no time, where that is not plain."""
        name = self.problems.name
        if self.level:
            chosen: dict[str, list[str]] = {role: names for role, names in self.taken.items() if names}
            logger.log(logging.WARNING if self.level > 1 else logging.INFO, "%s", spoken(name, chosen))
        if self.n_repeated:
            which = self.problems.reading.duplicates
            have = "1 history repeats" if self.n_repeated == 1 else f"{self.n_repeated:,} histories repeat"
            logger.warning("%s: %s a user; kept the %s of each (--duplicates)", name, have, which)
        for said in self.said:
            logger.warning("%s: %s", name, said)
        if self.targets.rows:
            logger.warning(
                "%s: read each user's longest history, its item at the end (users: %d, interactions: %d, rows: %d).",
                name, len(self.targets.longest), len(self.item_of), self.targets.rows,
            )  # fmt: skip
        elif "no time" in self.first and self.names[2] is None:
            columns = name_list([*self.columns, *self.problems.unread])  # a date of an odd name among them
            logger.warning(
                "%s: no time column (columns: %s); using the order of the lines. Name it with %s.",
                name, columns, option_of("time"),
            )  # fmt: skip

    def _counts(
        self, users: list[str], rank: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64] | None:
        """Return the held-out counts of the sorted users; None if some are missing or exceed a history."""
        if self.no_counts.total:
            return None
        counts = np.empty((len(users), 2), np.int64)
        counts[rank] = np.array(self.held_out, np.int64).reshape(-1, 2)
        lengths = np.diff(offsets)
        for user in np.flatnonzero(counts.sum(axis=1) > lengths)[:SHOWN_PROBLEMS].tolist():
            has = f"user {quote(users[user])} has {lengths[user]} items and holds out {counts[user].sum()}"
            self.no_counts.add(None, f"{has}. Correct n_valid and n_test.")
        return None if self.no_counts.total else counts

    def _refuse_mixtures(self) -> None:
        kinds = ("a number as time", "a date as time", "a date with the year last")
        timed = next((kind for kind in kinds if kind in self.first), kinds[0])
        pairs = [("a whole history", "a single interaction"), *combinations(kinds, 2)]
        pairs += [("a history before the item", other) for other in ("a whole history", "a single interaction")]
        for one, other in [*pairs, (timed, "no time")]:
            if one in self.first and other in self.first:
                early, late = sorted((one, other), key=self.first.__getitem__)
                place = self.problems.first_at(self.first[early])
                message = f"{late} here, {early} at {place}. Write all alike."
                self.problems.refuse(self.first[late] - self.problems.offset, message)  # skipping it would not help


def counts_fault(counts: Sequence[object]) -> str:
    """Return why these are no held-out counts."""
    shown = ", ".join(f"{name}={count!r:.40}" for name, count in zip(HELD_OUT, counts, strict=True))
    return f"{shown}: expected two whole numbers, of items held out at the end."


def option_of(role: Role) -> str:
    """Return the option that names a field; the parameter has the same name."""
    return f"--{role}-field"


def interaction_order(user_of: npt.NDArray[np.int32], times: npt.NDArray[Any] | None) -> npt.NDArray[np.int64]:
    """Return the order by user, then time; equal times stay as they stood.

    >>> [interaction_order(np.array([1, 0, 0]), times).tolist() for times in (np.array([5, 9, 7]), None)]
    [[2, 1, 0], [1, 2, 0]]
    """
    if times is None or not len(times):
        return np.argsort(user_of, kind="stable")
    if times.dtype.kind == "i":
        first = int(times.min())
        bits = (int(times.max()) - first).bit_length()
        if bits + int(user_of.max()).bit_length() < 64:  # both fit into one number, which sorts faster
            keys = user_of.astype(np.int64)
            keys <<= bits
            keys += times
            keys -= first
            return np.argsort(keys, kind="stable")
    return np.lexsort((times, user_of))


def _ranked(numbers: dict[str, int]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the strings sorted, and for each number the position that its string has now."""
    names = sorted(numbers)
    rank = np.empty(len(names), np.int32)
    rank[[numbers[name] for name in names]] = np.arange(len(names))
    return names, rank
