"""How JSON records are laid out: one object a line, an array, indented objects, or one object with a member per record.

Told from the first lines alone; `formats_json.py` reads what is found here.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any, Literal

from semid.files.delimiters import KNOWN
from semid.files.sources import SourceFault

__all__ = ["JsonKind", "json_kind", "python_literal"]

JsonKind = Literal["jsonl", "json array", "json objects", "json map", "python"]
MEMBERS = 100  # of an object, that are looked at
KEY = re.compile(r'\s*,?\s*("(?:[^"\\]|\\.)*")\s*:\s*')
TOKENS = re.compile(r"\s*(<[^<>\s]+>\s*)+")  # of an index file
PYTHON = "each line is a Python literal, not JSON, and is read as such"


def json_kind(text: str, whole: bool) -> tuple[JsonKind, tuple[str, ...]]:
    """Return the layout of a text that begins with a bracket, and what to say about it.

    Parameters
    ----------
    text : str
        The first lines, without blanks before them.
    whole : bool
        Whether this is the whole file.

    >>> json_kind('{"id": 1}\\n{"id": 2}\\n', True)[0], json_kind('{\\n "7": {"title": "x"}\\n}', True)[0]
    ('jsonl', 'json map')
    """
    line, end, rest = text.partition("\n")
    value, fault = _parsed(line.strip())
    more = bool(rest.strip()) or not whole
    if text[0] == "[":
        return ("jsonl" if value is not None and end and more else "json array"), ()
    if isinstance(value, dict) and more:
        return "jsonl", ()
    if not isinstance(value, dict) and isinstance(python_literal(line.strip()), dict):
        return "python", (PYTHON,)
    goes_on = fault is not None and bool(end) and _goes_on(text, line, fault)
    if isinstance(value, dict) or goes_on or (fault is not None and not end):
        if _is_map(text):
            return "json map", ()
        return "json objects" if goes_on else "jsonl", ()
    return "jsonl", ()


def _parsed(line: str) -> tuple[Any, json.JSONDecodeError | None]:
    try:
        return json.loads(line), None
    except json.JSONDecodeError as error:
        return None, error
    except (RecursionError, ValueError):
        return None, None


def python_literal(line: str) -> object:
    """Return the value that a line spells in Python, such as {u'id': 7}; None if it is none.

    >>> python_literal("{u'id': 7, 'title': \\"Ann's Lamp\\"}")
    {'id': 7, 'title': "Ann's Lamp"}
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes
            return ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _goes_on(text: str, line: str, fault: json.JSONDecodeError) -> bool:
    """Return whether an object goes on in the next line, rather than the first line being broken."""
    if fault.pos < len(line.rstrip()):
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        behind = text[len(line) :]
        next_line = len(line) + len(behind) - len(behind.lstrip())
        return error.pos != next_line
    except (RecursionError, ValueError):
        return True
    return True


def _is_map(text: str) -> bool:
    """Return whether the first object holds the records as its members; otherwise it is a record."""
    members, begun = _members(text)
    values = list(members.values())
    if not values:
        return begun in ("{", "[")
    known = all(map(KNOWN.search, members))
    if not known and all(map(_is_tokens, values)):
        raise SourceFault("is an index file (tokens by item), and holds no records. `semid import` reads it.")
    dicts = [value for value in values if isinstance(value, dict)]
    lists = [value for value in values if isinstance(value, list)]
    numbered = len(dicts) > 1 and all(list(value) == [str(n) for n in range(len(value))] for value in dicts)
    even = len(lists) > 1 and len({len(value) for value in lists}) == 1 < len(lists[0])
    if (numbered and len(dicts) == len(values)) or (known and even and len(lists) == len(values)):
        raise SourceFault("is a table by columns. Write it by rows, e.g. to_json(orient='records', lines=True).")
    if len(lists) == len(values) == 1 and lists[0] and all(isinstance(one, dict) for one in lists[0]):
        return False  # {"data": [{...}, {...}]}
    return not known and len(values) in (len(dicts), len(lists))


def _is_tokens(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(token, str) and TOKENS.fullmatch(token) for token in value)
    return isinstance(value, str) and TOKENS.fullmatch(value) is not None


def _members(text: str) -> tuple[dict[str, object], str]:
    """Return the first members of an object that end within `text`, and how the next value begins."""
    decoder, members, at = json.JSONDecoder(), dict[str, object](), 1
    while len(members) < MEMBERS and (key := KEY.match(text, at)):
        try:
            value, at = decoder.raw_decode(text, key.end())
            members[json.loads(key[1])] = value
        except (ValueError, RecursionError):
            return members, text[key.end() : key.end() + 1]
    return members, ""
