"""Delimiters and headers: what separates the cells of a text file, and whether its first line names the columns.

Everything is found from the first lines. A delimiter fits if it cuts them into equally many cells, quoted cells
respected; a header is a line of names. What is unsure is refused or said, never guessed silently.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CANDIDATES",
    "SHOWN_AS",
    "Split",
    "best_split",
    "cells_of",
    "decimal_columns",
    "is_header",
    "is_sure_header",
]

CANDIDATES = ("\t", "::", ",", ";", "|", " ")  # of equally good ones the first is taken
SHOWN_AS = {"\t": "tabs", ",": "commas", " ": "blanks", ";": "semicolons", "|": '"|"', "::": '"::"'}
SAMPLE = 200  # rows that are looked at
LONGEST_NAME = 80  # characters, of a column or a number
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?%?")
DECIMAL_COMMA = re.compile(r"[-+]?(\d+|\d{1,3}(\.\d{3})+),\d+")
WHOLE = re.compile(r"[-+]?\d+")
DATA = re.compile(
    r"https?://|\d{4}[-/.]\d\d?[-/.]\d|\d\d?[-/.]\d\d?[-/.]\d{4}|<\w+_\d+>|.*\s.*[!?]$|[\[{(]", re.IGNORECASE
)
NAME = re.compile(r"[^\W\d][\w \-./:()#&$%]*")
IDENTIFIER = re.compile(r"(\w+_)?(id|asin|isbn|sku)|[a-z]+I[Dd]", re.ASCII)
KNOWN = re.compile(
    r"(^|[_\W])(ids?|title|name|user|item|asin|isbn|sku|uid|time|timestamp|date|rating|score|text|description|brand|"
    r"categor\w+|genres?|tags?|price|year|author|label|url|type|history\w*|items|movie|book|product|content|summary)$",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Split:
    """A delimiter, and the first rows as it cuts them."""

    delimiter: str
    rows: list[list[str]]
    fitting: float  # share of the rows that are as wide as the first one

    @property
    def width(self) -> int:
        """The number of cells in the first row."""
        return len(self.rows[0]) if self.rows else 0


def cells_of(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line without quoted cells.

    >>> cells_of("1::Red Lamp::Drama", "::"), cells_of(" 1  2 3", " ")
    (['1', 'Red Lamp', 'Drama'], ['1', '2', '3'])
    """
    return line.split() if delimiter == " " else line.split(delimiter)


def best_split(text: str, preferred: str | None, delimiter: str | None = None) -> Split:
    """Return the delimiter that fits the first lines best, or how the given one cuts them.

    Parameters
    ----------
    text : str
        The first lines, whole ones.
    preferred : str or None
        What the name of the file promises. It is taken where it cuts the first line, unless another one fits better.
    delimiter : str, optional
        What the caller says.

    >>> best_split("id;title\\n1;Lamp, red\\n2;Lamp, blue, small\\n", ",").delimiter
    ';'
    """
    if delimiter is not None:
        return _split(text, delimiter)
    splits = [split for one in CANDIDATES if (split := _split(text, one)).width > 1]
    if not splits:
        return _split(text, preferred or ",")
    if any(split.delimiter != " " and split.fitting >= 0.5 for split in splits):  # blanks are in any text
        splits = [split for split in splits if split.delimiter != " "]
    if preferred:
        splits.sort(key=lambda split: split.delimiter != preferred)  # stable
    best = max(splits, key=lambda split: split.fitting)
    expected = next((split for split in splits if split.delimiter == preferred), None)
    return best if expected is None or best.fitting >= 0.9 > expected.fitting else expected


def _split(text: str, delimiter: str) -> Split:
    rows = _rows(text, delimiter)
    width = len(rows[0]) if rows else 0
    return Split(delimiter, rows, sum(len(row) == width for row in rows) / max(len(rows), 1))


def _rows(text: str, delimiter: str) -> list[list[str]]:
    lines = [line.rstrip("\r") for line in text.split("\n")]
    rows: list[list[str]] = []
    if '"' in text and len(delimiter) == 1 and delimiter != " ":
        try:
            for row in csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True):
                rows.append(row)
                if len(rows) > SAMPLE:
                    break
        except csv.Error:  # a stray quote, or a quoted cell that goes on behind the first lines
            if len(rows) < 2:
                rows = []
    rows = rows or [cells_of(line, delimiter) for line in lines[:SAMPLE] if line.strip()]
    return [row for row in rows if row]


# ---- headers


def is_header(row: Sequence[str]) -> bool:
    """Return whether a row may be the names of columns: none of its cells looks like data.

    >>> is_header(["id", "title"]), is_header(["1", "Red Lamp"]), is_header(["", "id"]), is_header(["x", "2020-01-01"])
    (True, False, True, False)
    >>> is_header(["item_id", "2019", "2020"]), is_header(["Red Lamp", "2019", "2020"])
    (True, False)
    """
    filled = [cell.strip() for cell in row if cell.strip()]
    if any(len(cell) > LONGEST_NAME for cell in filled):  # first: searching long cells for data takes quadratic time
        return False
    if not any(map(IDENTIFIER.fullmatch, filled)) and any(map(NUMBER.fullmatch, filled)):
        return False  # beside an id, columns may be called 2019, 2020
    return bool(filled) and not any(map(DATA.match, filled))


def is_sure_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row differs so much from the others that it must be names.

    >>> is_sure_header([["sku", "what"], ["a", "b"]]), is_sure_header([["Ann", "Bo"], ["Cy", "Di"]])
    (True, False)
    """
    head, *others = rows
    if any(KNOWN.search(CAMEL.sub("_", cell.strip())) for cell in head):
        return True
    names = all(NAME.fullmatch(cell.strip()) for cell in head if cell.strip())
    for place, cell in enumerate(head):
        column = [row[place].strip() for row in others if len(row) > place and row[place].strip()]
        if names and cell.strip() and column and all(map(_is_number, column)):
            return True
    return False


def _is_number(cell: str) -> bool:
    return len(cell) <= LONGEST_NAME and NUMBER.fullmatch(cell) is not None


def decimal_columns(rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Return the places of columns of numbers with decimal commas.

    >>> decimal_columns([["1", "3,99", "a"], ["2", "4", "1,5"]])
    (1,)
    """
    found = []
    for place in range(max(map(len, rows), default=0)):
        column = [row[place].strip() for row in rows if len(row) > place and row[place].strip()]
        kinds = Counter(
            "comma" if DECIMAL_COMMA.fullmatch(value) else "whole" if WHOLE.fullmatch(value) else "other"
            for value in column
        )
        if kinds["comma"] and not kinds["other"]:
            found.append(place)
    return tuple(found)
