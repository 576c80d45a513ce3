"""Cells: lists and objects that were written into a string, as JSON, as Python or as NumPy prints them.

CSV files have them (`[{"id": 28, "name": "Drama"}]`, `['Ann', 'Bo Li']`), and so have tables that were made from CSV.
Whether the strings of a field are read this way is decided for the whole field; see `items.py`.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["DEPTH", "looks_like_cell", "parse_cell"]


DEPTH = 32  # lists in lists; a deeper cell stays a string, and no path goes deeper
SEPARATORS = re.compile(r"[\s,]*")
COLON = re.compile(r"\s*:\s*")
STRING = re.compile(r"[bru]{0,2}(['\"])", re.IGNORECASE)
WORD = re.compile(r"[\w.+-]+")
WORDS = {"none": None, "null": None, "nan": None, "nat": None, "true": True, "false": False}
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": " ", "b": " ", "f": " ", "v": " ", "0": " ", "\n": ""}
# A quote ends a string only where a list or an object may go on after it: not in 'Ann O'Hara'. NumPy puts no comma
# between two strings. In well-formed text the first quote without a backslash is always such a one.
GOES_ON = r"""\s*(?:[\]})\:]|\Z|,\s*(?:[\]})(\[{'"\d-]|[bru]{1,2}['"]|none|null|nan|true|false))|\s+['"]"""
ENDS = {quote: re.compile(rf"\\.|{quote}(?={GOES_ON})", re.DOTALL | re.IGNORECASE) for quote in "'\""}


def looks_like_cell(text: str) -> bool:
    """Return whether a string may be a list or an object: whether it has its brackets.

    >>> looks_like_cell('["red", "blue"]'), looks_like_cell("[red] lamp")
    (True, False)
    """
    return text.startswith(("[", "{")) and text.rstrip().endswith(("]", "}"))


def parse_cell(text: str) -> list[Any] | dict[str, Any] | None:
    """Return the list or object that a string spells, in JSON, Python or NumPy's manner; None if it spells none.

    Quotes inside a string need no backslash, as long as no comma or bracket follows them.

    >>> parse_cell("['Ann O'Hara', 'Bo Li']"), parse_cell("[{'id': 28, 'name': u'Drama'}]"), parse_cell("['a' 'b']")
    (["Ann O'Hara", 'Bo Li'], [{'id': 28, 'name': 'Drama'}], ['a', 'b'])
    >>> parse_cell("[red]"), parse_cell("['red'")
    (None, None)
    """
    if not looks_like_cell(text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return found if isinstance(found, list | dict) else None
    try:
        value, end = _value(text, 0, 0)
    except ValueError:
        return None
    return value if isinstance(value, list | dict) and not text[end:].strip() else None


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Return the value that starts at a place, and the place after it. ValueError if none does."""
    if depth > DEPTH:
        raise ValueError
    first = text[at : at + 1]
    if first in ("[", "("):
        return _list(text, at + 1, depth, "]" if first == "[" else ")")
    if first == "{":
        return _object(text, at + 1, depth)
    if opened := STRING.match(text, at):
        return _string(text, opened)
    word = WORD.match(text, at)
    if word is None:
        raise ValueError
    name = word[0].lower()
    return (WORDS[name] if name in WORDS else _number(name)), word.end()


def _number(word: str) -> int | float:
    try:
        return int(word)
    except ValueError:
        return float(word)  # ValueError for "red": such a list is no list


def _list(text: str, at: int, depth: int, bracket: str) -> tuple[list[Any], int]:
    values: list[Any] = []
    while True:
        at = _after_separators(text, at)
        if text.startswith(bracket, at):
            return values, at + 1
        value, at = _value(text, at, depth + 1)
        values.append(value)


def _object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    fields: dict[str, Any] = {}
    while True:
        at = _after_separators(text, at)
        if text.startswith("}", at):
            return fields, at + 1
        name, at = _value(text, at, depth + 1)
        colon = COLON.match(text, at)
        if colon is None or isinstance(name, list | dict):
            raise ValueError
        fields[str(name)], at = _value(text, colon.end(), depth + 1)


def _after_separators(text: str, at: int) -> int:
    found = SEPARATORS.match(text, at)
    return found.end() if found else at


def _string(text: str, opened: re.Match[str]) -> tuple[str, int]:
    for found in ENDS[opened[1]].finditer(text, opened.end()):
        if found[0] == opened[1]:
            inside = text[opened.end() : found.start()]
            return (ESCAPE.sub(_unescaped, inside) if "\\" in inside else inside), found.end()
    raise ValueError


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    if code is None:
        return LETTERS.get(found[4], found[4])
    number = int(code, 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
