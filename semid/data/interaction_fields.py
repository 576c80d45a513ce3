"""Fields of interactions: which column is the user, the item, the time, or the history before the item.

Where several columns could be meant, none is taken: `interactions.py` refuses the source and lists them. This module
only looks at names (`files/field_names.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from semid.files.field_names import (
    ALSO,
    HISTORIES,
    MOMENT,
    NO_ITEM,
    NO_TIME_OF_IT,
    NUMBER,
    TIME_LISTS,
    USUAL,
    Role,
    ends_with,
    plain_name,
    words_of,
)
from semid.files.problems import name_list

__all__ = ["Choice", "Fields", "find_fields", "spoken"]

UNSAID = ("user", "items", "item", "time", "timestamp")  # plain names need no word; any other choice is said


@dataclass(frozen=True)
class Choice:
    """The column of a role, or the columns of which none could be chosen.

    Parameters
    ----------
    name : str, optional
        The column.
    level : {0, 1, 2}
        How much there is to say: 0 nothing (a plain name, or the caller named it), 1 a usual name, 2 another name.
    among : tuple of str
        The columns that were equally good, in the order of the source.
    """

    name: str | None = None
    level: int = 0
    among: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fields:
    """The columns of a record. `history` holds the items before `item`; `time_list` the times of a whole history."""

    user: Choice
    item: Choice
    time: Choice
    history: str | None
    time_list: str | None


@lru_cache(256)
def find_fields(keys: tuple[object, ...], named: tuple[str | None, str | None, str | None]) -> Fields:
    """Return the fields of a record with these keys.

    Parameters
    ----------
    keys : tuple
        Names of the columns.
    named : tuple of three str or None
        What the caller calls the user, item and time column; None: detect it. An empty name of the time means that
        the order of the source counts.

    >>> found = find_fields(("id", "user_id", "product_id", "rating", "date"), (None, None, None))
    >>> found.user.name, found.item.name, found.time.name
    ('user_id', 'product_id', 'date')
    """
    names = tuple(key for key in keys if isinstance(key, str))
    user_name, item_name, time_name = named
    user = _named(names, user_name) if user_name is not None else _known("user", names) or _by_suffix("user", names)
    rest = tuple(name for name in names if name != user.name)
    history = None
    if item_name is not None:
        item = _named(names, item_name)
    else:
        lists = _spelt(rest, HISTORIES)
        single = tuple(name for name in rest if name not in lists)
        item = _known("item", single) or _by_suffix("item", single)
        if item.name is None and not item.among and lists:
            item = Choice(lists[0], 1)
        elif lists and plain_name(item.name) != "items":
            history = lists[0]
    rest = tuple(name for name in rest if name != item.name)
    if time_name is not None:
        time, time_list = _named(names, time_name), time_name if time_name in names else None
    else:
        time = _known("time", rest) or _by_suffix("time", rest)
        time_list = next(iter(_spelt(names, TIME_LISTS)), None)
    return Fields(user, item, time, history, time_list)


def _named(names: tuple[str, ...], name: str) -> Choice:
    return Choice(name if name in names else None)


def _spelt(names: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    """Return the columns with well-known names, in the order of `known`."""
    spelt = {plain_name(name): name for name in sorted(names, reverse=True)}
    found = [plain for plain in known if plain in spelt]
    return [spelt[plain] for plain in found if f"{plain}id" not in found]  # beside item_id, item is a title


def _known(role: Role, names: tuple[str, ...]) -> Choice | None:
    usual = _spelt(names, USUAL[role])
    if usual:
        level = 2 if len(usual) > 1 else 0 if plain_name(usual[0]) in UNSAID else 1
        return Choice(usual[0], level)
    also = _spelt(names, ALSO[role])
    if not also:
        return None
    if len(also) == 1 or role == "time" or {plain_name(name) for name in also} == {"asin", "parentasin"}:
        return Choice(also[0], 2)
    return Choice(among=tuple(sorted(also, key=names.index)))


def _by_suffix(role: Role, names: tuple[str, ...]) -> Choice:
    """Choose the only column whose last word fits the role."""
    if role == "item":
        numbers = [name for name in names if ends_with(name, NUMBER)]
        fitting = [name for name in numbers if NO_ITEM.isdisjoint(words_of(name))]
        rows = [name for name in names if plain_name(name) == "id"]
        if rows and not numbers:
            return Choice(rows[0], 2)
        if rows and not fitting:  # the row, or the item?
            return Choice(among=tuple(name for name in names if name in numbers or name in rows))
    elif role == "time":
        fitting = [name for name in names if ends_with(name, MOMENT) and NO_TIME_OF_IT.isdisjoint(words_of(name))]
    else:
        fitting = [name for name in names if words_of(name)[-2:] == ["user", "id"] or ends_with(name, ("user",))]
        fitting = fitting or [name for name in names if plain_name(name) in ("sessionid", "session")]
    return Choice(fitting[0], 2) if len(fitting) == 1 else Choice(among=tuple(fitting))


def spoken(source: str, chosen: dict[str, list[str]]) -> str:
    """Return the line that says which columns were taken.

    >>> spoken("log.csv", {"user": ["userId"], "item": ["movieId"], "time": ["date"]})
    'log.csv: user from userId, item from movieId, time from date; change with --user-field, --item-field, --time-field'
    """
    parts = [f"{role} from {' or '.join(name_list([name]) for name in names[:3])}" for role, names in chosen.items()]
    options = ", ".join(f"--{role}-field" for role in chosen)
    return f"{source}: {', '.join(parts)}; change with {options}"
