"""Interactions: the items that each user interacted with, oldest first, as one compressed sparse row table.

Reads histories (`{"user": ..., "items": [...]}`) and logs (`user,item,time` rows) into the same form, with times and
held-out counts where the source has them. A source is read once. Ratings and other fields are ignored; which items
are in the catalog is asked later, by `map_to`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.problems import Problems, name_list, quote
from semid.data.records import iter_records
from semid.data.values import as_microseconds, as_number, id_fault, id_string
from semid.errors import SHOWN_PROBLEMS, InputError
from semid.runtime.progress import track

__all__ = ["Histories", "Interactions", "read_interactions"]


# Spellings are compared without case and underscores, so userId and User_ID are userid.
USER_FIELDS = ("user", "userid", "uid")
ITEM_FIELDS = ("items", "item", "itemid", "asin", "iid", "sku", "id")  # id last: it may number the rows
TIME_FIELDS = ("time", "timestamp", "ts")
TIME_LISTS = (*TIME_FIELDS, "times", "timestamps")  # beside the list of items in a history
HELD_OUT = ("n_valid", "n_test")  # spelled exactly so
NO_TIME = f"no time, which a split by time needs, in a field such as {', '.join(TIME_FIELDS)}."


@dataclass(frozen=True, eq=False)
class Histories:
    """Interactions as rows of one catalog.

    Parameters
    ----------
    offsets : int64 [U + 1]
        The history of user u is `rows[offsets[u]:offsets[u + 1]]`, oldest first.
    rows : int64 [n]
        Rows of the catalog; -1 for items that it does not hold.
    n_unknown : int
        How many of `rows` are -1.
    """

    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    n_unknown: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"Histories({len(self)} users, {len(self.rows)} events, {self.n_unknown} unknown)"


@dataclass(frozen=True, eq=False)
class Interactions:
    """The histories of U users, n interactions in all. Iterating gives pairs of a user and their item ids.

    Parameters
    ----------
    users : list of U str
        Sorted, unique.
    item_ids : list of str
        Every item of the interactions; sorted, unique.
    offsets : int64 [U + 1]
        The history of user u is `items[offsets[u]:offsets[u + 1]]`, oldest first.
    items : int32 [n]
        Positions in `item_ids`.
    source : str
        Name of the interactions in messages.
    times : float64 [n], optional
        Time of each interaction: numbers as the source has them, dates in microseconds since 1970. None if the source
        lacks some.
    held_out : int64 [U, 2], optional
        How many of each user's last items are held out for validation and for the test (`n_valid`, `n_test`). None if
        the source does not say so for every user.

    >>> log = read_interactions([{"user": "u", "items": ["b", "a", "b"], "times": [1, 2, 5]}])
    >>> log
    Interactions(1 users, 2 items, 3 events)
    >>> list(log), log.item_ids, log.items.tolist(), log.times.tolist()
    ([('u', ['b', 'a', 'b'])], ['a', 'b'], [1, 0, 1], [1.0, 2.0, 5.0])
    """

    users: list[str]
    item_ids: list[str]
    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    source: str = "interactions"
    times: npt.NDArray[np.float64] | None = None
    held_out: npt.NDArray[np.int64] | None = None
    faults: Mapping[str, Problems] = field(default_factory=dict)  # why "times" or "held_out" is None

    def __len__(self) -> int:
        return len(self.users)

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return ((user, self.history(number)) for number, user in enumerate(self.users))

    def __repr__(self) -> str:
        return f"Interactions({len(self)} users, {len(self.item_ids)} items, {len(self.items)} events)"

    def history(self, user: int) -> list[str]:
        """Return the item ids of the user at position `user`, oldest first."""
        return [self.item_ids[i] for i in self.items[self.offsets[user] : self.offsets[user + 1]]]

    def map_to(self, item_ids: Sequence[str]) -> Histories:
        """Return the histories as rows of `item_ids`, a catalog's ids; -1 for items that it does not hold."""
        place = {item_id: row for row, item_id in enumerate(item_ids)}
        table = np.array([place.get(item_id, -1) for item_id in self.item_ids], np.int64)
        rows = table[self.items]
        return Histories(self.offsets, rows, int(np.count_nonzero(rows < 0)))

    def places(self) -> npt.NDArray[np.int64]:
        """Return the place of each interaction in its user's history, from 0: int64 [n]."""
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def where(self, kept: npt.NDArray[np.bool_]) -> Interactions:
        """Return the interactions where `kept`, bool [n], is true; all users and items stay, some without any.

        Held-out counts are about whole histories, so the result has none.
        """
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            self,
            offsets=before[self.offsets],
            items=self.items[kept],
            times=None if self.times is None else self.times[kept],
            held_out=None,
        )

    def require_times(self) -> npt.NDArray[np.float64]:
        """Return `times`. InputError lists the records that lack them."""
        if self.times is None:
            raise self._fault("times", "no times. Read them from a source that has them.")
        return self.times

    def require_held_out(self) -> npt.NDArray[np.int64]:
        """Return `held_out`. InputError lists the records that lack it."""
        if self.held_out is None:
            raise self._fault("held_out", "no n_valid and n_test. Read them from a source that has them.")
        return self.held_out

    def _fault(self, name: str, otherwise: str) -> InputError:
        if name in self.faults and self.faults[name].total:
            return InputError.listing(self.faults[name].shown, self.faults[name].total)
        return InputError(f"{self.source}: {otherwise}")


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
        Names of the fields. Detected by default: user, user_id, uid; items, item, item_id, asin, iid, sku, id; time,
        timestamp, ts, and for lists times, timestamps; in any case, with or without underscores. Times are numbers or
        ISO dates (UTC unless they say otherwise).

    Returns
    -------
    Interactions
        Users and items sorted. Missing or wrong times of histories and held-out counts are no error until a split
        needs them.

    Raises
    ------
    InputError
        The source cannot be read, or some of it is wrong: a missing user or item, a user with two histories, a time
        of a log that is none. Lists the first ten problems with their lines.
    DependencyError
        Parquet, when pyarrow is not installed.

    >>> log = read_interactions([{"user": 1, "item": "b", "time": 9}, {"user": 1, "item": "a", "time": 2}])
    >>> log.users, log.history(0), log.times.tolist()
    (['1'], ['a', 'b'], [2.0, 9.0])
    """
    if isinstance(source, Interactions):
        return source
    problems = Problems.of(source)
    reader = _Reader(problems, [user_field, item_field, time_field])
    records = iter_records(source, keep=reader.wants, problems=problems)
    for line, record in track(records, f"reading {problems.name}", unit="record"):
        reader.add(line, record)
    return reader.interactions()


class _Reader:
    """Turns records into flat arrays: one user, one item and one time per interaction."""

    def __init__(self, problems: Problems, names: Sequence[str | None]) -> None:
        self.problems = problems
        self.names = names  # of the user, item and time field; None: detect it
        self.keys: tuple[str, ...] = ()  # the fields of the last record ...
        self.fields: list[str | None] = [None, None, None]  # ... which of them are user, item and time ...
        self.time_list: str | None = None  # ... which holds the times of a history ...
        self.counted = False  # ... and whether there is a held-out count
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
        return name in (*self.names, *HELD_OUT) or _plain(name) in (*USER_FIELDS, *ITEM_FIELDS, *TIME_LISTS)

    def add(self, line: int, record: dict[str, Any]) -> None:
        keys = tuple(record)
        if keys != self.keys:
            choices = zip(self.names, (USER_FIELDS, ITEM_FIELDS, TIME_FIELDS), strict=True)
            self.keys, self.fields = keys, [_find(record, name, known) for name, known in choices]
            self.time_list = _find(record, self.names[2], TIME_LISTS)
            self.counted = not record.keys().isdisjoint(HELD_OUT)
        user_field, item_field, _ = self.fields
        if user_field is None or item_field is None:
            self._missing(line, record, "user" if user_field is None else "item")
            return
        user = id_string(record[user_field])
        if user is None:
            self.problems.add(line, f"{user_field} {id_fault(record[user_field])}")
            return
        met = record[item_field]
        if isinstance(met, list | tuple | np.ndarray):
            self._add_history(line, user, item_field, met, record)
        elif _plain(item_field) == "items":
            self.problems.add(line, f"{item_field} is not a list. Write a list of item ids, oldest first.")
        else:
            self._add_single(line, user, item_field, record)

    def _missing(self, line: int, record: dict[str, Any], role: str) -> None:
        name = self.names[0 if role == "user" else 1]
        known = ", ".join(USER_FIELDS if role == "user" else ITEM_FIELDS)
        what = f"missing field {quote(name)}" if name else f"no {role} field, such as {known}"
        have = f"have: {name_list(record)}" if record else "the record is empty"
        self.problems.add(line, f"{what} ({have}). Name it with {role}_field.")

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
        given = None if self.time_list is None else record[self.time_list]
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
        time_field = self.fields[2]
        item_id = id_string(record[item_field])
        if item_id is None:
            self.problems.add(line, f"{item_field} {id_fault(record[item_field])}")
        elif time_field is None and self.names[2] is not None:
            what = f"missing field {quote(self.names[2])} (have: {name_list(record)})"
            self.problems.add(line, f"{what}, named as time_field.")
        elif time_field is None:
            self.first.setdefault("no time", line)
            self._note(self.no_times, line, NO_TIME)
            self._append(self._number(user, line, record), item_id)
        elif self._add_time(line, time_field, record[time_field]):
            self._append(self._number(user, line, record), item_id)

    def _add_time(self, line: int, time_field: str, value: object) -> bool:
        moment, kind = as_number(value), "a number as time"
        if moment is None:
            moment, kind = as_microseconds(value), "a date as time"
        if moment is None:
            shown = quote(value) if isinstance(value, str) else _shown(value)
            self.problems.add(line, f"{time_field} {shown} is no time; expected a number or an ISO date.")
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
        """Note a fault; past the first ones only their number counts, so that a log of many rows costs little."""
        if faults.total < SHOWN_PROBLEMS:
            faults.style = self.problems.style
            faults.add(line, message)
        else:
            faults.total += 1

    def _append(self, user: int, item_id: str) -> None:
        self.user_of.append(user)
        self.item_of.append(self.items.setdefault(item_id, len(self.items)))

    def interactions(self) -> Interactions:
        """Return the finished table, or raise the error that lists everything wrong with the source."""
        self._refuse_mixtures()
        if not self.users and not self.problems.total:
            self.problems.add(None, "no interactions. Expected a history or an interaction per record.")
        self.problems.raise_if_any()
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


def _plain(name: object) -> str:
    return str(name).casefold().replace("_", "")


def _find(record: dict[str, Any], name: str | None, known: tuple[str, ...]) -> str | None:
    """Return the field called `name`, or the first of the well-known ones that the record has."""
    if name is not None:
        return name if name in record else None
    spelt = {_plain(key): key for key in sorted(filter(_is_string, record), reverse=True)}
    return next((spelt[plain] for plain in known if plain in spelt), None)


def _shown(value: object) -> str:
    """Describe a value that is no string, for a message."""
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    return f"of type {type(value).__name__}"


def _is_string(key: object) -> bool:
    return isinstance(key, str)


def _ranked(numbers: dict[str, int]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the strings sorted, and for each number the position that its string has now."""
    names = sorted(numbers)
    rank = np.empty(len(names), np.int64)
    rank[[numbers[name] for name in names]] = np.arange(len(names))
    return names, rank
