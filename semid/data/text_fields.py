"""Text fields: which fields of a catalog are text, from their names and from the kinds of their values.

Everything here is a function of names and clean values, so that it does not matter who read them, and in which order.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from semid.data.strings import PackedStrings
from semid.data.values import is_wordy

__all__ = [
    "NUMBERS", "WELL_KNOWN", "Tally", "kind_of_text", "name_rank",
    "other_items", "count_filled", "why_not_text",
]  # fmt: skip


# Names of text fields in common catalogs, the most informative first; other fields follow by name.
WELL_KNOWN = (
    "title", "name", "headline", "brand", "author", "authors", "artist", "artists", "store",
    "categories", "category", "subcategory", "genres", "genre", "features", "description", "desc", "abstract",
    "summary", "overview", "caption", "text", "tags", "tag", "keywords", "keyword",
)  # fmt: skip
NOT_OF_ITEMS = frozenset(
    ["column", "customer", "field", "file", "host", "image", "img", "login", "member", "path", "photo", "reviewer",
     "screen", "url", "user"]
)  # fmt: skip
LISTS_OF_ITEMS = frozenset(
    ["also_bought", "also_buy", "also_view", "also_viewed", "bought_together", "buy_after_viewing",
     "buys_after_viewing", "recommendations", "recommended", "related", "related_items", "related_products",
     "similar", "similar_books", "similar_item", "similar_items", "similar_products", "viewed_together"]
)  # fmt: skip
CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
BETWEEN_WORDS = re.compile(r"[\s_.:-]+")


@lru_cache(maxsize=4096)
def name_rank(name: str) -> tuple[int, bool] | None:
    """Return the place of a name among the well-known ones, and whether only its last word is one; None if it is none.

    >>> name_rank("title"), name_rank("movie_title"), name_rank("bookTitle"), name_rank("user_name"), name_rank("x")
    ((0, False), (0, True), (0, True), None, None)
    """
    words = _words(name)
    if name.casefold() in WELL_KNOWN:
        return WELL_KNOWN.index(name.casefold()), False
    if not words or words[-1] not in WELL_KNOWN or not NOT_OF_ITEMS.isdisjoint(words):
        return None
    return WELL_KNOWN.index(words[-1]), True


def _words(name: str) -> list[str]:
    return BETWEEN_WORDS.split(CAMEL_CASE.sub("_", name).casefold())


# ---- Kinds of values. A field that is not text is left out for the kind that most of its values have.


WORDS, NUMBERS, DATES, LINKS, FLAGS, SIGNS = "words", "numbers", "dates", "links", "yes/no", "signs"
IDENTIFIERS, CONSTANT, EMPTY, RANKS, MARKUP = "identifiers", "constant", "empty", "ranks", "markup"
OTHER_ITEMS = "ids of other items"

NO_VALUE = frozenset({"", "n/a", "na", "nan", "none", "null", "\\n", "-", "unknown"})  # casefolded
LINK = ("http://", "https://")
DATE = re.compile(r"(\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})(?!\d).*")
MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
DATE_WITH_MONTH = re.compile(  # 01-Jan-1995, 1 January 1995, Nov 21, 2019, Wed Mar 22 11:37:04 -0700 2017
    rf"(\d\d?[-/. ]+{MONTH}|([a-z]{{3}},? )?{MONTH}[-/. ]+\d\d?)[-/., ]+([\d:]+ [+-]\d{{4}} )?\d{{4}}", re.IGNORECASE
)
DIGIT = re.compile(r"\d")
CODE = re.compile(r"(?=.*[0-9])[!-~]{1,64}")  # one ASCII token with a digit
RANK = re.compile(r">?#[\d,.]+\s?in\b|>?[\d,.]+\s?in[\sA-Z].*\((See [Tt]op|$)")  # #3,000 in Toys (See Top 100)
PUNCTUATION = re.compile(r"[^A-Za-z0-9]+")
FEW = 8  # with fewer values, neither a constant nor identifiers can be told from words


@lru_cache(maxsize=4096)  # brands and categories come again and again
def kind_of_text(value: str) -> str:
    """Return the kind of a clean value that is not "".

    >>> [kind_of_text(value) for value in ("red kohl", "9.99", "N/A", "B004756YJA", "red-nail-polish-15", "15 ml")]
    ['words', 'numbers', 'empty', 'identifiers', 'words', 'words']
    >>> [kind_of_text(value) for value in ("01-Jan-1995", "Nov 21, 2019", "May 4, 1970: a play")]
    ['dates', 'dates', 'words']
    >>> [kind_of_text(value) for value in ("3,99 €", "12 %", "#3,000 in Toys (See Top 100 in Toys)")]
    ['numbers', 'numbers', 'ranks']
    """
    if value.startswith(LINK):
        return LINKS
    if value.casefold() in NO_VALUE:
        return EMPTY
    if not is_wordy(value):
        if not DIGIT.search(value):
            return FLAGS if value[0].isalpha() else SIGNS
        return DATES if DATE.fullmatch(value) else NUMBERS
    if RANK.match(value):
        return RANKS
    if value[-1].isdigit() and DATE_WITH_MONTH.fullmatch(value):
        return DATES
    if CODE.fullmatch(value) and sum(len(p) > 2 and p.isalpha() for p in PUNCTUATION.split(value)) < 2:
        return IDENTIFIERS
    return WORDS


@dataclass
class Tally:
    """The kinds of the values of one field."""

    kinds: Counter[str] = field(default_factory=Counter)  # of the values, without "" and phrases
    n_phrases: int = 0  # values of several words
    n_markup: int = 0  # values of which nothing is left without their markup
    first: str = ""
    same: bool = True  # whether all values are `first`

    def add(self, value: str) -> None:
        """Count a clean value."""
        if not value:
            return
        if self.same:
            self.first = self.first or value
            self.same = value == self.first
        if " " in value and value[0].isalpha() and not value.startswith(LINK) and not value[-1].isdigit():
            # titles, descriptions: the fast path
            self.n_phrases += 1
        else:
            self.kinds[kind_of_text(value)] += 1

    @property
    def n_filled(self) -> int:
        """Number of values that say something."""
        return self.n_phrases + self.kinds.total() - self.kinds[EMPTY]

    @property
    def n_words(self) -> int:
        """Number of values with words, identifiers among them."""
        return self.n_phrases + self.kinds[WORDS] + self.kinds[IDENTIFIERS]


def why_not_text(name: str, tally: Tally, values: PackedStrings, ids: PackedStrings) -> str | None:
    """Return why a field is not text; None if it is.

    Parameters
    ----------
    name : str
        Name of the field.
    tally : Tally
        The kinds of its values.
    values : PackedStrings [N]
        The clean values.
    ids : PackedStrings [N]
        The ids of the items.
    """
    filled, codes = tally.n_filled, tally.kinds[IDENTIFIERS]
    if not filled:
        return MARKUP if tally.n_markup else EMPTY
    known = name_rank(name)
    if known and tally.kinds[LINKS] == filled:
        return LINKS
    constant = tally.same and filled == len(ids) >= FEW
    if known:
        return CONSTANT if constant and known[1] else None
    tokens = codes + tally.kinds[NUMBERS]  # the codes of a column may be digits alone, but not all of them
    if codes and filled >= FEW and 10 * tokens >= 9 * filled and 100 * _n_distinct(values) >= 95 * filled:
        return other_items(name, values, ids) or IDENTIFIERS
    if 2 * tally.n_words <= filled:
        kinds = {kind: count for kind, count in tally.kinds.items() if kind not in (WORDS, IDENTIFIERS, EMPTY)}
        reason = max(sorted(kinds), key=kinds.__getitem__)
        return (other_items(name, values, ids) if reason == NUMBERS and _names_lists(name) else None) or reason
    return other_items(name, values, ids) or (CONSTANT if constant else None)


def count_filled(values: PackedStrings) -> int:
    """Return the number of values that say something: neither "" nor a word for nothing such as "N/A"."""
    lengths = np.diff(values.offsets)
    short = np.flatnonzero((lengths > 0) & (lengths <= max(map(len, NO_VALUE))))
    return int((lengths > 0).sum()) - sum(values[int(row)].casefold() in NO_VALUE for row in short)


def _n_distinct(values: PackedStrings) -> int:
    """Return the number of different values that say something."""
    first = np.ones(len(values), np.bool_)
    first[values.repeats()[0]] = False
    return count_filled(values.take(np.flatnonzero(first)))


# ---- Lists of other items, such as `also_buy`. They are told from a sample of the values, evenly spread over the
# items in the order of their ids, so that neither a set of all ids nor the order of the rows is needed.


SAMPLE_ROWS, SAMPLE_PIECES = 128, 8  # values looked at, and pieces of each
BETWEEN_PIECES = re.compile(r"\s*[,;|]\s*")


def other_items(name: str, values: PackedStrings, ids: PackedStrings) -> str | None:
    """Return why a field is no text if it holds the ids of other items, or lists of identifiers; None if not.

    It does if most of its values are ids of the catalog, or if its name says so (`also_buy`, `bought_together`, ...)
    and its values are single tokens with a digit or ids. Lists of identifiers are lists of such tokens, most of them
    different.

    >>> ids = PackedStrings.pack(["B1", "B2", "B3"])
    >>> other_items("next", PackedStrings.pack(["B2, B3", "B3, B1", "B2"]), ids)
    'ids of other items'
    >>> other_items("color", PackedStrings.pack(["red, blue", "red", "blue"]), ids)
    """
    filled = ids.order[np.diff(values.offsets)[ids.order] > 0]
    rows = filled[np.linspace(0, len(filled) - 1, min(len(filled), SAMPLE_ROWS)).astype(np.int64)]
    lists = [[piece for piece in _pieces(values[row])[:SAMPLE_PIECES] if piece != ids[row]] for row in rows.tolist()]
    pieces = [piece for found in lists for piece in found]
    if not pieces:
        return None
    distinct = set(pieces)
    in_catalog = {piece for piece in distinct if _has(ids, piece)}
    n_known = sum(piece in in_catalog for piece in pieces)
    if len(distinct) >= 3 and 2 * n_known > len(pieces):
        return OTHER_ITEMS
    n_codes = sum(piece in in_catalog or CODE.fullmatch(piece) is not None for piece in pieces)
    if 10 * n_codes < 9 * len(pieces):
        return None
    if _names_lists(name):
        return OTHER_ITEMS
    n_identifiers = sum(kind_of_text(piece) == IDENTIFIERS for piece in pieces)
    are_lists = 2 * sum(len(found) > 1 for found in lists) > len(lists)
    if are_lists and len(pieces) >= FEW and 10 * n_identifiers >= 9 * len(pieces) and 2 * len(distinct) > len(pieces):
        return IDENTIFIERS
    return None


def _names_lists(name: str) -> bool:
    return "_".join(_words(name)) in LISTS_OF_ITEMS


def _pieces(value: str) -> Sequence[str]:
    """Return the parts of a value: between commas, semicolons or bars; between blanks where all parts are codes."""
    parts = [part for part in BETWEEN_PIECES.split(value) if part]
    if len(parts) == 1 and " " in value and all(map(CODE.fullmatch, value.split())):
        return value.split()
    return parts


def _has(ids: PackedStrings, name: str) -> bool:
    wanted, order = name.encode(), ids.order
    at = bisect_left(range(len(order)), wanted, key=lambda i: _bytes(ids, int(order[i])))
    return at < len(order) and _bytes(ids, int(order[at])) == wanted


def _bytes(strings: PackedStrings, row: int) -> bytes:
    return strings.data[strings.offsets[row] : strings.offsets[row + 1]].tobytes()
