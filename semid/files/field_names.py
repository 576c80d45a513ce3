"""Names of columns: what they usually mean in interactions. This module only looks at names.

Names are compared without case, spaces, underscores and dashes, so userId and User_ID are userid.
"""

from __future__ import annotations

import re
from typing import Literal

__all__ = [
    "ALSO",
    "HISTORIES",
    "MOMENT",
    "NO_ITEM",
    "NO_TIME_OF_IT",
    "NUMBER",
    "TIME_LISTS",
    "USUAL",
    "Role",
    "ends_with",
    "is_history",
    "may_be_a_field",
    "may_be_an_id",
    "plain_name",
    "words_of",
]

Role = Literal["user", "item", "time"]

# ---- The usual names. Plain ones need no word; any other choice is said in one line.

USUAL: dict[Role, tuple[str, ...]] = {
    "user": ("user", "userid", "uid"),
    "item": ("items", "item", "itemid", "iid"),
    "time": ("time", "timestamp", "ts"),
}

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


def is_history(name: str) -> bool:
    """Return whether a column holds lists of items by its name, such as history_item_id."""
    plain = plain_name(name)
    return plain in HISTORIES or plain == "items" or (plain.endswith("ids") and len(words_of(name)) > 1)


def may_be_a_field(name: str) -> bool:
    """Return whether a column may be the user, the item, a time or a history, by its name."""
    plain, words = plain_name(name), words_of(name)
    known = any(plain in (*USUAL[role], *ALSO[role]) for role in USUAL)
    return known or plain in (*HISTORIES, *TIME_LISTS, "id") or bool(words and words[-1] in (*NUMBER, *MOMENT))


def may_be_an_id(name: str) -> bool:
    """Return whether a column may be the user or the item, by its name.

    >>> may_be_an_id("movieId"), may_be_an_id("timestamp"), may_be_an_id("price")
    (True, False, False)
    """
    plain = plain_name(name)
    moment = plain in (*USUAL["time"], *ALSO["time"]) or ends_with(name, MOMENT)
    return may_be_a_field(name) and plain not in TIME_LISTS and not moment


def plain_name(name: object) -> str:
    """Return a name without case, spaces, underscores and dashes.

    >>> plain_name("User_ID"), plain_name("unix-review time"), plain_name("item_id:token")
    ('userid', 'unixreviewtime', 'itemid')
    """
    return re.sub(r"[\s_\-]+", "", TYPED.sub("", str(name)).casefold())


def ends_with(name: str, words: tuple[str, ...]) -> bool:
    """Return whether the last of several words of a name is one of `words`."""
    found = words_of(name)
    return len(found) > 1 and found[-1] in words


def words_of(name: str) -> list[str]:
    """Return the words of a name: at blanks, signs, and where small letters end.

    >>> words_of("last_seenAt"), words_of("UserID"), words_of("paid")
    (['last', 'seen', 'at'], ['user', 'id'], ['paid'])
    """
    return [word.casefold() for word in WORD.findall(TYPED.sub("", name))]
