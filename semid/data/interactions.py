"""Interactions: what each user met, oldest first, as one compressed sparse row table.

Reads histories (`{"user": ..., "items": [...]}`) and logs (`user,item,time` rows) into the same form. Ratings
and any other field are ignored; whether an item is in the catalog is asked later, by `map_to`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.problems import Problems, name_list, quote
from semid.data.records import iter_records, with_progress
from semid.data.values import as_microseconds, as_number, id_fault, id_string
from semid.errors import ConfigError, InputError

__all__ = ["Histories", "Interactions", "check_twice", "read_interactions", "times_of"]


# Spellings are compared without case and underscores, so userId and User_ID are userid.
USER_FIELDS = ("user", "userid", "uid")
ITEM_FIELDS = ("items", "item", "itemid", "asin", "iid", "sku", "id")  # id last: it may number the rows
TIME_FIELDS = ("time", "timestamp", "ts")


@dataclass(frozen=True, eq=False)
class Histories:
    """Interactions in the rows of one catalog.

    Parameters
    ----------
    offsets : int64 [U + 1]
        User u met `rows[offsets[u]:offsets[u + 1]]`, oldest first.
    rows : int64 [n]
        Rows of the catalog; -1 where it does not hold the item.
    n_unknown : int
        How many of `rows` are -1.
    """

    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    n_unknown: int


@dataclass(frozen=True, eq=False)
class Interactions:
    """U users and what they met, oldest first; n interactions in all.

    Parameters
    ----------
    users : U strings
        Sorted, unique.
    item_ids : strings
        Every item met, sorted, unique.
    offsets : int64 [U + 1]
        User u met `items[offsets[u]:offsets[u + 1]]`.
    items : int32 [n]
        Positions in `item_ids`.
    source : str
        What messages call these interactions.

    >>> log = read_interactions([{"user": "u", "items": ["b", "a", "b"]}])
    >>> log.history(0), log.item_ids, log.items.tolist()
    (['b', 'a', 'b'], ['a', 'b'], [1, 0, 1])
    """

    users: list[str]
    item_ids: list[str]
    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    source: str = "interactions"

    def __len__(self) -> int:
        return len(self.users)

    def history(self, user: int) -> list[str]:
        """The item ids that the user at position `user` met, oldest first."""
        return [self.item_ids[i] for i in self.items[self.offsets[user] : self.offsets[user + 1]]]

    def map_to(self, item_ids: Sequence[str]) -> Histories:
        """The same histories as rows of `item_ids`, a catalog's ids; -1 for items it does not hold."""
        place = {item_id: row for row, item_id in enumerate(item_ids)}
        table = np.array([place.get(item_id, -1) for item_id in self.item_ids], np.int64)
        rows = table[self.items]
        return Histories(self.offsets, rows, int(np.count_nonzero(rows < 0)))


def read_interactions(
    source: object,
    *,
    user_field: str | None = None,
    item_field: str | None = None,
    time_field: str | None = None,
    progress: bool = False,
) -> Interactions:
    """Read histories, or a log of single interactions.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream, iterable of dicts, or Interactions
        Formats as in `semid.data.records.iter_records`. A record is either a user's whole history, its item field
        a list with the oldest first and each user once, or one interaction. A log is ordered per user by
        time, equal times as they stand in the source; without a time field, as it stands in the source.
    user_field, item_field, time_field : str, optional
        Names of the fields. Found by default: user, user_id, uid; items, item, item_id, asin, iid, sku, id;
        time, timestamp, ts; in any case, with or without underscores. Times are numbers or ISO dates (UTC
        unless they say otherwise).
    progress : bool
        Count the records on standard error.

    Raises
    ------
    InputError
        The source cannot be read, or some of it is wrong: a missing user or item, a user with two
        histories, a time that is none. Lists the first ten problems with their lines.
    DependencyError
        Parquet, when pyarrow is not installed.

    >>> log = read_interactions([{"user": 1, "item": "b", "time": 9}, {"user": 1, "item": "a", "time": 2}])
    >>> log.users, log.history(0)
    (['1'], ['a', 'b'])
    """
    if isinstance(source, Interactions):
        return source
    problems = Problems.of(source)
    reader = _Reader(problems, [user_field, item_field, time_field])
    records = iter_records(source, keep=reader.wants, problems=problems)
    for line, record in with_progress(records, problems.name, shown=progress):
        reader.add(line, record)
    return reader.interactions()


class _Reader:
    """Turns records into flat arrays: one user, one item and one time per interaction."""

    def __init__(self, problems: Problems, names: Sequence[str | None]) -> None:
        self.problems = problems
        self.names = names  # of the user, item and time field; None: find it
        self.keys: tuple[str, ...] = ()  # the fields of the last record ...
        self.fields: list[str | None] = [None, None, None]  # ... and which are user, item and time
        self.users: dict[str, int] = {}  # user -> number, in order of appearance; items alike
        self.items: dict[str, int] = {}
        self.user_lines = array("q")  # where each user came first
        self.user_of = array("i")
        self.item_of = array("i")
        self.times = array("q")  # "d" from the first time that is not a whole number
        self.first: dict[str, int] = {}  # kind of record or time -> line of the first one

    def wants(self, name: str) -> bool:
        """Whether a field may be the user, the items or the time."""
        return name in self.names or _plain(name) in (*USER_FIELDS, *ITEM_FIELDS, *TIME_FIELDS)

    def add(self, line: int, record: dict[str, Any]) -> None:
        keys = tuple(record)
        if keys != self.keys:
            choices = zip(self.names, (USER_FIELDS, ITEM_FIELDS, TIME_FIELDS), strict=True)
            self.keys, self.fields = keys, [_find(record, name, known) for name, known in choices]
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
            self._add_history(line, user, item_field, met)
        elif _plain(item_field) == "items":
            self.problems.add(line, f"{item_field} is not a list. Write a list of item ids, oldest first.")
        else:
            self._add_single(line, user, record)

    def _missing(self, line: int, record: dict[str, Any], role: str) -> None:
        name = self.names[0 if role == "user" else 1]
        known = ", ".join(USER_FIELDS if role == "user" else ITEM_FIELDS)
        what = f"missing field {quote(name)}" if name else f"no {role} field, such as {known}"
        have = f"have: {name_list(record)}" if record else "the record is empty"
        self.problems.add(line, f"{what} ({have}). Name it with {role}_field.")

    def _add_history(self, line: int, user: str, item_field: str, met: Iterable[object]) -> None:
        self.first.setdefault("a whole history", line)
        known = len(self.users)
        number = self._number(user, line)
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

    def _add_single(self, line: int, user: str, record: dict[str, Any]) -> None:
        self.first.setdefault("a single interaction", line)
        _, item_field, time_field = self.fields
        item_id = id_string(record[item_field])
        if item_id is None:
            self.problems.add(line, f"{item_field} {id_fault(record[item_field])}")
        elif time_field is None and self.names[2] is not None:
            what = f"missing field {quote(self.names[2])} (have: {name_list(record)})"
            self.problems.add(line, f"{what}, named as time_field.")
        elif time_field is None:
            self.first.setdefault("no time", line)
            self._append(self._number(user, line), item_id)
        elif self._add_time(line, time_field, record[time_field]):
            self._append(self._number(user, line), item_id)

    def _add_time(self, line: int, time_field: str, value: object) -> bool:
        moment, kind = as_number(value), "a number as time"
        if moment is None:
            moment, kind = as_microseconds(value), "a date as time"
        if moment is None:
            shown = quote(value) if isinstance(value, str) else _shown(value)
            self.problems.add(line, f"{time_field} {shown} is no time; expected a number or an ISO date.")
            return False
        self.first.setdefault(kind, line)
        try:
            self.times.append(moment)
        except (TypeError, OverflowError):  # a fraction, or beyond int64
            self.times = array("d", self.times)
            self.times.append(moment)
        return True

    def _number(self, user: str, line: int) -> int:
        if user not in self.users:
            self.user_lines.append(line)
        return self.users.setdefault(user, len(self.users))

    def _append(self, user: int, item_id: str) -> None:
        self.user_of.append(user)
        self.item_of.append(self.items.setdefault(item_id, len(self.items)))

    def interactions(self) -> Interactions:
        """The finished table, or the error that lists everything wrong with the source."""
        self._refuse_mixtures()
        if not self.users and not self.problems.total:
            self.problems.add(None, "no interactions. Expected a history or an interaction a record.")
        self.problems.raise_if_any()
        users, user_rank = _ranked(self.users)
        item_ids, item_rank = _ranked(self.items)
        user_of = user_rank[np.array(self.user_of, np.int64)]
        item_of = item_rank[np.array(self.item_of, np.int64)]
        keys = (np.array(self.times), user_of) if self.times else (user_of,)
        order = np.lexsort(keys)  # by user, then time; stable, so equal times stay as they stood
        offsets = np.zeros(len(users) + 1, np.int64)
        np.cumsum(np.bincount(user_of, minlength=len(users)), out=offsets[1:])
        return Interactions(users, item_ids, offsets, item_of[order].astype(np.int32), self.problems.name)

    def _refuse_mixtures(self) -> None:
        timed = "a number as time" if "a number as time" in self.first else "a date as time"
        pairs = [("a whole history", "a single interaction"), ("a number as time", "a date as time")]
        for one, other in [*pairs, (timed, "no time")]:
            if one in self.first and other in self.first:
                early, late = sorted((one, other), key=self.first.__getitem__)
                place = self.problems.first_at(self.first[early])
                self.problems.add(self.first[late], f"{late} here, {early} at {place}. Write all alike.")


def _plain(name: object) -> str:
    return str(name).casefold().replace("_", "")


def _find(record: dict[str, Any], name: str | None, known: tuple[str, ...]) -> str | None:
    """The field called `name`, or the first of the well-known ones that the record has."""
    if name is not None:
        return name if name in record else None
    spelt = {_plain(key): key for key in sorted(filter(_is_string, record), reverse=True)}
    return next((spelt[plain] for plain in known if plain in spelt), None)


def _shown(value: object) -> str:
    """A value that is no string, for a message."""
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    return f"of type {type(value).__name__}"


def _is_string(key: object) -> bool:
    return isinstance(key, str)


def _ranked(numbers: dict[str, int]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The strings sorted, and for each number the position that its string has now."""
    names = sorted(numbers)
    rank = np.empty(len(names), np.int64)
    rank[[numbers[name] for name in names]] = np.arange(len(names))
    return names, rank


# ---- When each interaction was, for a split by time: a second look at a source that `read_interactions` has read.
# That one keeps the order of interactions and lets the times go. Here they are read again and put into the same order:
# a user's interactions are in the order of their times, so those times sorted are theirs. A history may carry a list of
# times beside its list of items; they must not fall.


TIMES = (*TIME_FIELDS, "times", "timestamps")


def times_of(source: object, log: Interactions) -> npt.NDArray[np.float64]:
    """float64 [n]: the time of each of `log.items`; numbers as they are, dates in microseconds.

    Parameters
    ----------
    source
        What `log` was read from, which can be read twice: see `check_twice`.

    Raises
    ------
    InputError
        Interactions without a time; a history whose times fall, or are not as many as its items.
    """
    number = {user: place for place, user in enumerate(log.users)}
    problems = Problems.of(source)
    users, times = [], []
    for line, record in iter_records(source, keep=_wanted, problems=problems):
        user, found = _record_times(record)
        if found is None:
            problems.add(line, f"no time, which a split by time needs, in a field such as {', '.join(TIMES[:3])}.")
            continue
        if any(later < earlier for earlier, later in zip(found, found[1:], strict=False)):
            problems.add(line, "the times of the history fall. Write items and times oldest first.")
        users += [number.get(user, -1)] * len(found)
        times += found
    problems.raise_if_any()
    if len(times) != len(log.items) or min(users, default=0) < 0:
        raise InputError(f"{log.source}: has {len(times)} times for {len(log.items)} interactions; expected one each.")
    order = np.lexsort((np.array(times, np.float64), np.array(users)))
    return np.array(times, np.float64)[order]


def check_twice(source: object, split: str) -> None:
    """ConfigError for interactions that cannot be read again, for what the split needs to know beside items."""
    if isinstance(source, Interactions | Iterator) or source == "-":
        raise ConfigError(
            f"split={split!r} reads the interactions twice. Give a file or a list of records, not Interactions, "
            "standard input or an iterator."
        )


def _wanted(name: str) -> bool:
    return _plain(name) in (*USER_FIELDS, *ITEM_FIELDS, *TIMES)


def _record_times(record: dict[str, Any]) -> tuple[str | None, list[float] | None]:
    """The user of a record, and its times; None where it has none, or not one for each item."""
    plain = {_plain(name): record[name] for name in sorted(record, key=str, reverse=True)}
    user, items, given = (_first(plain, names) for names in (USER_FIELDS, ITEM_FIELDS, TIMES))
    whole = isinstance(items, list | tuple | np.ndarray)
    listed = isinstance(given, list | tuple | np.ndarray)
    if whole != listed or (whole and len(given) != len(items)):
        return None, None
    moments = [_moment(value) for value in (given if listed else [given])]
    return id_string(user), None if None in moments else moments


def _first(plain: dict[str, Any], names: Iterable[str]) -> object:
    return next((plain[name] for name in names if name in plain), None)


def _moment(value: object) -> float | None:
    number = as_number(value)
    return number if number is not None else as_microseconds(value)
