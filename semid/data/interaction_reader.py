"""Read interactions: histories (`{"user": ..., "items": [...]}`) and logs (`user,item,time` rows), in one pass.

Which fields hold the users, items and times is found by `interaction_fields`. Ratings and other fields are ignored.
Times and held-out counts are kept where the source has them.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import re
import warnings
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.interaction_fields import (
    USUAL,
    Choice,
    Fields,
    Role,
    find_fields,
    is_history,
    may_be_a_field,
    plain_name,
    spoken,
)
from semid.data.interactions import Interactions
from semid.data.problems import Problems, name_list, quote
from semid.data.records import iter_records
from semid.data.values import as_microseconds, as_number, id_fault, id_string
from semid.errors import SHOWN_PROBLEMS
from semid.runtime.progress import track

__all__ = ["read_interactions"]

logger = logging.getLogger("semid")

SEPARATOR = re.compile(r"""[,;|{}<>"']""")  # in words, of a list in a form of its own
JOINED = re.compile(r"""['"]\s*['"]""")
ROLES: tuple[Role, ...] = ("user", "item", "time")
HELD_OUT = ("n_valid", "n_test")  # spelled exactly so
NO_TIME = f"no time, which a split by time needs, in a field such as {', '.join(USUAL['time'])}."


def read_interactions(
    source: object,
    *,
    user_field: str | None = None,
    item_field: str | None = None,
    time_field: str | None = None,
) -> Interactions:
    """Read histories, or a log of single interactions.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream, iterable of dicts, or Interactions
        Formats as in `iter_records`. A record is either a user's whole history, its item field a list with the oldest
        first and each user once, or one interaction. A log is ordered per user by time, equal times as they stand in
        the source; without a time field, as it stands in the source. A history may have a list of times, which do not
        fall, and the counts `n_valid` and `n_test` of items held out at its end. Interactions are returned as they are.
    user_field, item_field, time_field : str, optional
        Names of the fields. By default the usual names are found, such as user, user_id, reviewerID; items, item_id,
        asin, movieId; time, timestamp, date, created_at; one log line says which were taken. An empty `time_field`
        means the order of the source. Times are numbers, in any unit, or ISO dates (UTC unless they say otherwise).

    Rows with a column such as `history_item_id` beside the item are read as one history per user: the longest, with the
    row's item at its end. Naming `item_field` reads such rows as single interactions.

    Returns
    -------
    Interactions
        Users and items sorted. Missing or wrong times of histories and held-out counts are no error until a split
        needs them.

    Raises
    ------
    InputError
        The source cannot be read, or some of it is wrong: a missing user or item, two columns that could be it, a user
        with two histories, a time of a log that is none. Lists the first ten problems with their lines.
    DependencyError
        Parquet, when pyarrow is not installed.

    >>> log = read_interactions([{"user": 1, "item": "b", "time": 9}, {"user": 1, "item": "a", "time": 2}])
    >>> log.users, log.history(0), log.times.tolist()
    (['1'], ['a', 'b'], [2.0, 9.0])
    """
    if isinstance(source, Interactions):
        return source
    problems = Problems.of(source)
    reader = _Reader(problems, (user_field, item_field, time_field))
    records = iter_records(source, keep=reader.wants, problems=problems)
    for line, record in track(records, f"reading {problems.name}", unit="record"):
        reader.add(line, record)
    return reader.interactions()


class _Reader:
    """Turns records into flat arrays: one user, one item and one time per interaction."""

    def __init__(self, problems: Problems, names: tuple[str | None, str | None, str | None]) -> None:
        self.problems = problems
        self.names = names  # of the user, item and time field; None: detect it
        self.keys: tuple[str, ...] | None = None  # the fields of the last record ...
        self.fields = Fields(Choice(), Choice(), Choice(), None, None)  # ... what they are ...
        self.counted = False  # ... whether there is a held-out count ...
        self.is_list = False  # ... whether the items are a list, by the name of their field ...
        self.refused = False  # ... whether it was said that there is no user or item among them ...
        self.is_new = False  # ... and whether they are still to be noted
        self.columns: dict[str, None] = {}  # of the records that were kept, for a message
        self.taken: dict[Role, list[str]] = {}  # columns of each role, in order of appearance ...
        self.level = 0  # ... and how much there is to say about them, as in `Choice`
        self.targets = _Targets()  # rows with a history before the item
        self.users: dict[str, int] = {}  # user -> number, in order of appearance; items alike
        self.items: dict[str, int] = {}
        self.user_lines = array("q")  # where each user came first
        self.user_of = array("i")
        self.item_of = array("i")
        self.times: array[int] | array[float] = array("q")  # "d" from the first time that is not a whole number
        self.held_out = array("q")  # n_valid and n_test of each user
        self.first: dict[str, int] = {}  # kind of record or time -> line of the first one
        self.dated: bool | None = None  # whether the times of histories are dates; None: none seen
        self.no_times, self.no_counts = Problems(problems.name), Problems(problems.name)

    def wants(self, name: str) -> bool:
        """Return whether a field may be the user, the items, the times or a held-out count."""
        return name in (*self.names, *HELD_OUT) or may_be_a_field(name)

    def add(self, line: int, record: dict[str, Any]) -> None:
        keys = tuple(record)
        if keys != self.keys:
            self.keys, self.fields, self.refused = keys, find_fields(keys, self.names), False
            self.counted, self.is_new = not record.keys().isdisjoint(HELD_OUT), True
            self.is_list = self.fields.item.name is not None and is_history(self.fields.item.name)
        user_field, item_field = self.fields.user.name, self.fields.item.name
        if user_field is None or item_field is None:
            self._missing(line, record, "user" if user_field is None else "item")
            return
        user = id_string(record[user_field])
        if user is None:
            self.problems.add(line, f"{user_field} {id_fault(record[user_field])}")
            return
        met = record[item_field]
        if self.is_list and isinstance(met, str) and (plain_name(item_field) != "items" or met.lstrip()[:1] == "["):
            met = _cell(met)
        if isinstance(met, list | tuple | np.ndarray):
            self._take("user", self.fields.user)
            self._take("item", self.fields.item)
            self._add_history(line, user, item_field, met, record)
        elif self.is_list:
            self.problems.add(line, f"{item_field} is not a list. Write a list of item ids, oldest first.")
        elif self.fields.history is not None:
            self._add_target(line, user, item_field, self.fields.history, record)
        else:
            self._add_single(line, user, item_field, record)

    def _take(self, role: Role, choice: Choice) -> None:
        """Note the column of a role, for the line that says which were taken."""
        names = self.taken.setdefault(role, [])
        if choice.name is not None and choice.name not in names:
            names.append(choice.name)
            self.level = max(self.level, choice.level)

    def _missing(self, line: int, record: dict[str, Any], role: Role) -> None:
        """Note that there is no user or item; once for records with the same fields that follow each other."""
        if self.refused:
            return
        self.refused = True
        name, among = self.names[ROLES.index(role)], getattr(self.fields, role).among
        what = f"missing field {quote(name)}" if name else f"no {role} field, such as {', '.join(USUAL[role])}"
        if among:
            what = f"the {role} could be in {name_list(among)}"
        have = f"have: {name_list(record)}" if record else "the record is empty"
        self.problems.add(line, f"{what} ({have}). Name it with {_option(role)}.")

    def _add_history(
        self, line: int, user: str, item_field: str, met: Sequence[object] | np.ndarray, record: dict[str, Any]
    ) -> None:
        self.first.setdefault("a whole history", line)
        known = len(self.users)
        number = self._number(user, line, record)
        if number < known:
            first = self.problems.first_at(self.user_lines[number])
            self.problems.add(line, f"user {quote(user)} again (first at {first}). Join the histories.")
            return
        for position, item in enumerate(met):
            item_id = id_string(item)
            if item_id is None:
                self.problems.add(line, f"{item_field}[{position}] {id_fault(item)}")
                return
            self._append(number, item_id)
        self._add_time_list(line, record, len(met))

    def _add_time_list(self, line: int, record: dict[str, Any], count: int) -> None:
        """Keep the times of a history, or note why it has none, which matters to a split by time alone."""
        given = None if self.fields.time_list is None else record[self.fields.time_list]
        moments, dated = _moments(given, count)
        if moments is None:
            self._note(self.no_times, line, NO_TIME)
        elif any(later < earlier for earlier, later in zip(moments, moments[1:], strict=False)):
            self._note(self.no_times, line, "the times of the history fall. Write items and times oldest first.")
        elif moments and self.dated not in (None, dated):
            self._note(self.no_times, line, "numbers as times in some histories, dates in others. Write all alike.")
        else:
            self.dated = dated if moments else self.dated
            for moment in moments:
                self._append_time(moment)

    def _add_single(self, line: int, user: str, item_field: str, record: dict[str, Any]) -> None:
        self.first.setdefault("a single interaction", line)
        time_field = self.fields.time.name
        item_id = id_string(record[item_field])
        if item_id is None:
            self.problems.add(line, f"{item_field} {id_fault(record[item_field])}")
        elif time_field is None and self.names[2]:
            what = f"missing field {quote(self.names[2])} (have: {name_list(record)})"
            self.problems.add(line, f"{what}, named as {_option('time')}.")
        elif self.fields.time.among:
            if not self.refused:
                which = name_list(self.fields.time.among)
                self.problems.add(line, f"the time could be in {which}. Name it with {_option('time')}.")
            self.refused = True
        elif time_field is None:
            self.first.setdefault("no time", line)
            self._note(self.no_times, line, NO_TIME)
            self._keep_single(line, user, item_id, record)
        elif self._add_time(line, time_field, record[time_field]):
            self._keep_single(line, user, item_id, record)

    def _keep_single(self, line: int, user: str, item_id: str, record: dict[str, Any]) -> None:
        self._append(self._number(user, line, record), item_id)
        if self.is_new and len(self.columns) < 100:
            self.is_new = False
            self.columns.update(dict.fromkeys(record))
            for role in ROLES:
                self._take(role, getattr(self.fields, role))

    def _add_target(self, line: int, user: str, item_field: str, history_field: str, record: dict[str, Any]) -> None:
        """Keep a row with the history before its item."""
        self.first.setdefault("a history before the item", line)
        before = _cell(record[history_field])
        if before is None:
            self.problems.add(line, f"{history_field} is not a list. Write a list of item ids, oldest first.")
            return
        met = [*before, record[item_field]]
        item_ids = [id_string(item) for item in met]
        for position, (item, item_id) in enumerate(zip(met, item_ids, strict=True)):
            if item_id is None:
                where = item_field if position == len(before) else f"{history_field}[{position}]"
                self.problems.add(line, f"{where} {id_fault(item)}")
                return
        self._number(user, line, record)
        self._take("user", self.fields.user)
        self._take("item", Choice(f"{history_field} and {item_field}", 2))
        self._note(self.no_times, line, NO_TIME)
        if not self.targets.add(user, [item_id for item_id in item_ids if item_id is not None]):
            first = self.problems.first_at(self.user_lines[self.users[user]])
            self.problems.add(
                line,
                f"{history_field} does not continue the other rows of user {quote(user)} (first at {first}). Sort the "
                f"rows of a user oldest first, or read each row as one interaction with {_option('item')}.",
            )

    def _add_time(self, line: int, time_field: str, value: object) -> bool:
        moment, kind = as_number(value), "a number as time"
        if moment is None:
            moment, kind = as_microseconds(value), "a date as time"
        if moment is None:
            shown = quote(value) if isinstance(value, str) else _shown(value)
            fix = "" if self.names[2] else f" Name another field with {_option('time')}."
            self.problems.add(line, f"{time_field} {shown} is no time; expected a number or an ISO date.{fix}")
            return False
        self.first.setdefault(kind, line)
        self._append_time(moment)
        return True

    def _append_time(self, moment: float) -> None:
        try:
            self.times.append(moment)  # type: ignore[arg-type]  # a whole number suits both kinds of array
        except (TypeError, OverflowError):  # a fraction, or beyond int64
            self.times = array("d", self.times)
            self.times.append(moment)

    def _number(self, user: str, line: int, record: dict[str, Any]) -> int:
        """Return the user's number, and keep their held-out counts."""
        number = self.users.setdefault(user, len(self.users))
        is_new = number == len(self.user_lines)
        if is_new:
            self.user_lines.append(line)
        if is_new or self.counted:
            self._keep_counts(number, line, [record.get(name) for name in HELD_OUT])
        return number

    def _keep_counts(self, user: int, line: int, counts: list[Any]) -> None:
        shown = ", ".join(f"{name}={count!r:.40}" for name, count in zip(HELD_OUT, counts, strict=True))
        if not all(type(count) is int and count >= 0 for count in counts):
            self._note(self.no_counts, line, f"{shown}: expected two whole numbers, of items held out at the end.")
        elif self.no_counts.total:
            return  # the places in held_out are no longer those of the users
        elif 2 * user == len(self.held_out):
            self.held_out.extend(counts)
        elif counts != self.held_out[2 * user : 2 * user + 2].tolist():
            self._note(self.no_counts, line, f"{shown}: an earlier record of the user has other counts.")

    def _note(self, faults: Problems, line: int, message: str) -> None:
        faults.style = self.problems.style
        faults.add(line, message)

    def _append(self, user: int, item_id: str) -> None:
        self.user_of.append(user)
        self.item_of.append(self.items.setdefault(item_id, len(self.items)))

    def interactions(self) -> Interactions:
        """Return the finished table, or raise the error that lists everything wrong with the source."""
        self._refuse_mixtures()
        if not self.users and not self.problems.total:
            self.problems.add(None, "no interactions. Expected a history or an interaction per record.")
        self.problems.finish()
        for user, item_ids in self.targets.longest.items():
            for item_id in item_ids:
                self._append(self.users[user], item_id)
        self._say()
        users, user_rank = _ranked(self.users)
        item_ids, item_rank = _ranked(self.items)
        user_of = user_rank[np.array(self.user_of, np.int64)]
        item_of = item_rank[np.array(self.item_of, np.int64)]
        times = None if self.no_times.total else np.array(self.times)
        keys = (user_of,) if times is None else (times, user_of)
        order = np.lexsort(keys)  # by user, then time; stable, so equal times stay as they stood
        offsets = np.zeros(len(users) + 1, np.int64)
        np.cumsum(np.bincount(user_of, minlength=len(users)), out=offsets[1:])
        return Interactions(
            users,
            item_ids,
            offsets,
            item_of[order].astype(np.int32),
            self.problems.name,
            None if times is None else times[order].astype(np.float64),
            self._counts(users, user_rank, offsets),
            {"times": self.no_times, "held_out": self.no_counts},
        )

    def _say(self) -> None:
        """Log which columns were taken, and that there is no time, where that is not plain."""
        name = self.problems.name
        if self.level:
            chosen: dict[str, list[str]] = {role: names for role, names in self.taken.items() if names}
            logger.log(logging.WARNING if self.level > 1 else logging.INFO, "%s", spoken(name, chosen))
        if self.targets.rows:
            logger.warning(
                "%s: read each user's longest history, its item at the end (users: %d, interactions: %d, rows: %d).",
                name, len(self.targets.longest), len(self.item_of), self.targets.rows,
            )  # fmt: skip
        elif "no time" in self.first and self.names[2] is None:
            columns = name_list(self.columns)
            logger.warning(
                "%s: no time column (columns: %s); using the order of the lines. Name it with %s.",
                name, columns, _option("time"),
            )  # fmt: skip

    def _counts(
        self, users: list[str], rank: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
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
        timed = "a number as time" if "a number as time" in self.first else "a date as time"
        pairs = [("a whole history", "a single interaction"), ("a number as time", "a date as time")]
        pairs += [("a history before the item", other) for other in ("a whole history", "a single interaction")]
        for one, other in [*pairs, (timed, "no time")]:
            if one in self.first and other in self.first:
                early, late = sorted((one, other), key=self.first.__getitem__)
                place = self.problems.first_at(self.first[early])
                self.problems.add(self.first[late], f"{late} here, {early} at {place}. Write all alike.")


def _moments(given: object, count: int) -> tuple[list[int | float] | None, bool]:
    """Return a list of `count` times, all numbers or all dates, and whether they are dates; None for anything else."""
    if not isinstance(given, list | tuple | np.ndarray) or len(given) != count:
        return None, False
    numbers = [moment for moment in map(as_number, given) if moment is not None]
    if len(numbers) == count:
        return numbers, False
    dates: list[int | float] = [moment for moment in map(as_microseconds, given) if moment is not None]
    return (dates, True) if len(dates) == count else (None, True)


def _option(role: Role) -> str:
    """Return what names a field: the parameter, and the option of the commands."""
    return f"{role}_field (--{role}-field)"


def _cell(value: object) -> list[Any] | None:
    """Return a list of items, or one that a cell spells as JSON, Python or words do; None for anything else.

    >>> _cell("[7, 8]"), _cell("['a', 'b']"), _cell("7 8"), _cell(""), _cell("7,8"), _cell("['a' 'b']"), _cell(7)
    ([7, 8], ['a', 'b'], ['7', '8'], [], None, None, None)
    """
    if value is None or isinstance(value, list | tuple | np.ndarray):
        return [] if value is None else list(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text[:1] not in ("[", "("):
        return None if SEPARATOR.search(text) else text.split()
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, list) else None
    if JOINED.search(text):  # NumPy wrote it, and Python would join the strings
        return None
    with (
        contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of odd escapes
        found = ast.literal_eval(text)
        return list(found) if isinstance(found, list | tuple) else None
    return None


class _Targets:
    """The longest history of each user, from rows that hold an item and the history before it."""

    def __init__(self) -> None:
        self.longest: dict[str, list[str]] = {}
        self.width: dict[str, int] = {}  # items of the row that was added last
        self.rows = 0

    def add(self, user: str, met: list[str]) -> bool:
        """Add a row, the item last. False if it neither is part of the user's history nor continues it.

        Rows may hold the whole history so far, in any order, or its last items, oldest row first.

        >>> targets = _Targets()
        >>> [targets.add("u", row.split()) for row in ("a b", "a b c", "a", "b c d", "c d e", "x y")]
        [True, True, True, True, True, False]
        >>> targets.longest
        {'u': ['a', 'b', 'c', 'd', 'e']}
        """
        self.rows += 1
        known = self.longest.setdefault(user, [])
        if known[: len(met)] == met or known[-len(met) :] == met:
            return True
        if met[: len(known)] == known:
            known[:] = met
        elif len(met) == self.width[user] and len(met) > 1 and known[1 - len(met) :] == met[:-1]:
            known.append(met[-1])
        else:
            return False
        self.width[user] = len(met)
        return True


def _shown(value: object) -> str:
    """Describe a value that is no string, for a message."""
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    return f"of type {type(value).__name__}"


def _ranked(numbers: dict[str, int]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the strings sorted, and for each number the position that its string has now."""
    names = sorted(numbers)
    rank = np.empty(len(names), np.int64)
    rank[[numbers[name] for name in names]] = np.arange(len(names))
    return names, rank
