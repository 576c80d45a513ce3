"""When each interaction was, for a split by time: a second look at a source that `read_interactions` has read.

That one keeps the order of interactions and lets the times go. Here they are read again and put into the same order:
a user's interactions are in the order of their times, so those times sorted are theirs. A history may carry a list of
times beside its list of items; they must not fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError
from semid.interactions import ITEM_FIELDS, TIME_FIELDS, USER_FIELDS, Interactions
from semid.problems import Problems
from semid.records import iter_records
from semid.text import id_string
from semid.times import as_microseconds, as_number

__all__ = ["check_twice", "times_of"]

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


def _plain(name: object) -> str:
    return str(name).casefold().replace("_", "")


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
