"""Histories in cells: lists of items that a cell spells, and rows that hold an item and the history before it."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import warnings
from typing import Any

import numpy as np

__all__ = ["LongestHistories", "codes_in_cell", "list_in_cell"]

SEPARATOR = re.compile(r"""[,;|{}<>"']""")  # in words, of a list in a form of its own
DIGIT = re.compile(r"\d")
JOINED = re.compile(r"""['"]\s*['"]""")


def list_in_cell(value: object) -> list[Any] | None:
    """Return a list of items, or one that a cell spells as JSON, Python or words do; None for anything else.

    >>> [list_in_cell(cell) for cell in ("[7, 8]", "['a', 'b']", "7 8", "", "7,8", "['a' 'b']", 7)]
    [[7, 8], ['a', 'b'], ['7', '8'], [], None, None, None]
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


def codes_in_cell(text: str) -> list[Any] | None:
    """Return a list that a cell spells, as `list_in_cell` does, but of words only if each has a digit.

    A cell of a column called items may be the title of one item.

    >>> codes_in_cell("[7, 8]"), codes_in_cell("N7 N8"), codes_in_cell("Red Lamp 7"), codes_in_cell("")
    ([7, 8], ['N7', 'N8'], None, [])
    """
    found = list_in_cell(text)
    spelt = text.lstrip()[:1] in ("[", "(")
    return found if spelt or found is None or all(map(DIGIT.search, found)) else None


class LongestHistories:
    """The longest history of each user, from rows that hold an item and the history before it."""

    def __init__(self) -> None:
        self.longest: dict[str, list[str]] = {}
        self.width: dict[str, int] = {}  # items of the row that was added last
        self.rows = 0

    def add(self, user: str, met: list[str]) -> bool:
        """Add a row, the item last. False if it neither is part of the user's history nor continues it.

        Rows may hold the whole history so far, in any order, or its last items, oldest row first.

        >>> targets = LongestHistories()
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
