"""Fields of interactions: which column is the user, the item, the time, or the history before the item.

Names are compared without case, spaces, underscores and dashes, so userId and User_ID are userid. Where several columns
could be meant, none is taken: `interactions.py` refuses the source and lists them. This module only looks at names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from semid.data.problems import name_list

__all__ = [
    "TIME_LISTS",
    "USUAL",
    "Choice",
    "Fields",
    "Role",
    "find_fields",
    "is_history",
    "may_be_a_field",
    "may_be_an_id",
    "plain_name",
    "spoken",
]

Role = Literal["user", "item", "time"]

# ---- The usual names. Plain ones need no word; any other choice is said in one line.

USUAL: dict[Role, tuple[str, ...]] = {
    "user": ("user", "userid", "uid"),
    "item": ("items", "item", "itemid", "iid"),
    "time": ("time", "timestamp", "ts"),
}
UNSAID = ("user", "items", "item", "time", "timestamp")

# Of these, one may be there. Two different ones are ambiguous, except for times, where the first is the finest.
ALSO: dict[Role, tuple[str, ...]] = {
    "user": (
        "visitorid", "reviewerid", "customerid", "customer", "reviewer", "visitor", "memberid", "accountid",
        "userindex", "useridx", "username", "profileid", "buyerid", "viewerid", "readerid", "listenerid", "userlogin",
    ),
    "item": (
        "parentasin", "asin", "sku", "movieid", "movie", "productid", "product", "articleid", "article", "bookid",
        "book", "isbn", "trackid", "songid", "song", "gameid", "appid", "businessid", "recipeid", "newsid", "videoid",
        "showid", "listingid", "hotelid", "courseid", "jobid", "poiid", "venueid", "gmapid", "beerid", "animeid",
        "postid", "artistid", "albumid", "offerid", "itemindex", "itemidx", "stockcode",
    ),
    "time": (
        "timestampms", "timestamps", "timems", "tsms", "eventtimestamp", "eventtime", "interactiontimestamp",
        "interactiontime", "ratingtimestamp", "ratingtime", "unixreviewtime", "unixtime", "unixtimestamp", "reviewtime",
        "visittime", "datetime", "createdat", "purchasedat", "date", "eventdate", "reviewdate", "purchasedate",
        "orderdate", "tdat", "invoicedate", "dateadded", "dt",
    ),
}  # fmt: skip
HISTORIES = (
    "historyitemid", "historyitemids", "historyitems", "itemhistory", "histitemid", "histitemids", "itemidlist",
    "history", "hist", "itemsequence",
)  # fmt: skip
TIME_LISTS = (*USUAL["time"], "times", "timestamps", "dates")  # beside the list of items in a history

# ---- Other names, by their last word. The words before it may say that something else is meant.

NUMBER = ("id", "ids")
MOMENT = ("time", "timestamp", "date", "datetime", "at", "ts", "dt")
OTHER_IDS = """
    user session review rating event order transaction basket invoice category class type brand group store shop seller
    vendor merchant row line record index query request device city region country location campaign genre tag comment
    interaction click impression search page cart department reviewer customer visitor member account profile parent
"""
OTHER_MOMENTS = """
    release released birth born publish published publication launch launched expiry expiration expires end ended stop
    signup registration registered register join joined update updated modified deleted delivery delivered shipping
    shipped watch watching play played playing dwell read reading listen listening run running total elapsed response
    cook cooking prep preparation duration spent stay half air aired manufacture production due first last average mean
    max min screen wait process session user item account product
"""
NO_ITEM = frozenset(OTHER_IDS.split())  # review_id is no item
NO_TIME_OF_IT = frozenset(OTHER_MOMENTS.split())  # release_date is no time of an interaction, watch_time a duration
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
TYPED = re.compile(r":(token|token_seq|float|float_seq)$")  # the header of a RecBole file


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


def is_history(name: str) -> bool:
    """Return whether a column holds lists of items by its name, such as history_item_id."""
    plain = plain_name(name)
    return plain in HISTORIES or plain == "items" or (plain.endswith("ids") and len(_words(name)) > 1)


def may_be_a_field(name: str) -> bool:
    """Return whether a column may be the user, the item, a time or a history, by its name."""
    plain, words = plain_name(name), _words(name)
    known = any(plain in (*USUAL[role], *ALSO[role]) for role in USUAL)
    return known or plain in (*HISTORIES, *TIME_LISTS, "id") or bool(words and words[-1] in (*NUMBER, *MOMENT))


def may_be_an_id(name: str) -> bool:
    """Return whether a column may be the user or the item, by its name.

    >>> may_be_an_id("movieId"), may_be_an_id("timestamp"), may_be_an_id("price")
    (True, False, False)
    """
    plain = plain_name(name)
    moment = plain in (*USUAL["time"], *ALSO["time"]) or _ends(name, MOMENT)
    return may_be_a_field(name) and plain not in TIME_LISTS and not moment


def plain_name(name: object) -> str:
    """Return a name without case, spaces, underscores and dashes.

    >>> plain_name("User_ID"), plain_name("unix-review time"), plain_name("item_id:token")
    ('userid', 'unixreviewtime', 'itemid')
    """
    return re.sub(r"[\s_\-]+", "", TYPED.sub("", str(name)).casefold())


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
        numbers = [name for name in names if _ends(name, NUMBER)]
        fitting = [name for name in numbers if NO_ITEM.isdisjoint(_words(name))]
        rows = [name for name in names if plain_name(name) == "id"]
        if rows and not numbers:
            return Choice(rows[0], 2)
        if rows and not fitting:  # the row, or the item?
            return Choice(among=tuple(name for name in names if name in numbers or name in rows))
    elif role == "time":
        fitting = [name for name in names if _ends(name, MOMENT) and NO_TIME_OF_IT.isdisjoint(_words(name))]
    else:
        fitting = [name for name in names if _words(name)[-2:] == ["user", "id"] or _ends(name, ("user",))]
        fitting = fitting or [name for name in names if plain_name(name) in ("sessionid", "session")]
    return Choice(fitting[0], 2) if len(fitting) == 1 else Choice(among=tuple(fitting))


def _ends(name: str, words: tuple[str, ...]) -> bool:
    """Return whether the last of several words of a name is one of `words`."""
    found = _words(name)
    return len(found) > 1 and found[-1] in words


def _words(name: str) -> list[str]:
    """Return the words of a name: at blanks, signs, and where small letters end.

    >>> _words("last_seenAt"), _words("UserID"), _words("paid")
    (['last', 'seen', 'at'], ['user', 'id'], ['paid'])
    """
    return [word.casefold() for word in WORD.findall(TYPED.sub("", name))]


def spoken(source: str, chosen: dict[str, list[str]]) -> str:
    """Return the line that says which columns were taken.

    >>> spoken("log.csv", {"user": ["userId"], "item": ["movieId"], "time": ["date"]})
    'log.csv: user from userId, item from movieId, time from date; change with --user-field, --item-field, --time-field'
    """
    parts = [f"{role} from {' or '.join(name_list([name]) for name in names[:3])}" for role, names in chosen.items()]
    options = ", ".join(f"--{role}-field" for role in chosen)
    return f"{source}: {', '.join(parts)}; change with {options}"
