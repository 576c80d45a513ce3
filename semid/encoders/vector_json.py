"""Vectors in JSON, packed or not, read a value at a time, so that large files take little memory.

{"id": "B1", "embedding": [0.1, 0.2]}      one object per line, or an array of such objects
{"B1": [0.1, 0.2], "B2": [0.3, 0.4]}       one object, the item ids are its keys
[[0.1, 0.2], [0.3, 0.4]]                   an array of rows, or one row per line, without ids
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from semid.data.problems import name_list, quote
from semid.data.strings import StringPacker
from semid.encoders.vector_rows import FileVectors, Wanted, in_blocks, pick_ids, pick_vectors
from semid.encoders.vector_text import open_text
from semid.errors import InputError
from semid.runtime.tables import Tables

__all__ = ["read_json"]

CHUNK = 1 << 20  # characters read at a time
MAX_VALUE = 1 << 26  # characters of one value
MAX_RECORD = 1 << 23  # characters of the first record; an object that is longer holds vectors by id
EXPECTED = 'expected lines {"id": "...", "embedding": [0.1, ...]}, or one object {"item id": [0.1, ...], ...}'
BLANKS = " \t\r\n"
ARRAY = re.compile(r"\[[ \t\r\n]*[\[{\]]")  # of objects or rows, not of numbers
Value = tuple[str, str | None, Any]  # place, key if the values have keys, value


class _Scanner:
    """Reads JSON values one after the other from a stream."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self.path, self.stream, self.decoder = path, stream, json.JSONDecoder()
        self.text, self.at, self.ended = "", 0, False
        self.line, self.counted = 1, 0  # the line of character `counted`

    def more(self) -> bool:
        """Read on, as much again as is still unread; return whether there was more."""
        piece = "" if self.ended else self.stream.read(max(CHUNK, len(self.text) - self.at))
        self.ended = self.ended or not piece
        self.count_lines()
        self.text, self.at, self.counted = self.text[self.at :] + piece, 0, 0
        return bool(piece)

    def count_lines(self) -> int:
        """Return the line of this place."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def peek(self) -> str:
        """Return the next character that is not blank; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in BLANKS:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, character: str) -> bool:
        """Step over the next character if it is this one."""
        found = self.peek() == character
        self.at += found
        return found

    def value(self, limit: int = MAX_VALUE) -> Any:
        """Return the next value; InputError if it is broken, or longer than `limit` characters."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                further = error.pos - self.at
                if len(self.text) - self.at < limit and self.more():
                    continue
                raise self.fault(f"broken JSON: {error.msg}", self.at + further) from None
            except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
                raise self.fault(f"cannot be read as JSON ({error})", self.at) from None
            if end == len(self.text) and isinstance(value, (int, float)) and self.more():
                continue  # the number may go on
            self.at = end
            return value

    def fault(self, what: str, at: int | None = None) -> InputError:
        """Return an error at this place."""
        line = self.count_lines() + (0 if at is None else self.text.count("\n", self.at, at))
        return InputError(f"{self.path}:{line}: {what}; {EXPECTED}.")

    def place(self) -> str:
        """Return the line of the next value, for messages."""
        self.peek()
        return f":{self.count_lines()}"


def read_json(path: Path, wanted: Wanted, tables: Tables) -> FileVectors:
    """Read the vectors of a JSON file, and their ids."""
    with open_text(path, in_lines=False) as stream:
        keyed = _is_keyed(_Scanner(path, stream))
    ids = StringPacker()
    with open_text(path, in_lines=False) as stream:
        scanner = _Scanner(path, stream)
        values = _entries(scanner) if keyed else _values(scanner)
        first = next(values, None)
        if first is None:
            raise InputError(f"{path}: no vectors; {EXPECTED}.")
        fields = None if keyed or isinstance(first[2], list) else _fields(path, first[2], wanted)
        rows = _rows(path, itertools.chain([first], values), fields, ids)
        table = tables.collect(in_blocks(path, rows))
    if keyed:
        return FileVectors(table, "its keys", ids.finish()) if wanted.with_ids else FileVectors(table)
    id_name = fields and fields[1]
    return FileVectors(table, f"field {id_name!r}", ids.finish()) if id_name else FileVectors(table)


def _is_keyed(scanner: _Scanner) -> bool:
    """Return whether a file is one object whose values are vectors."""
    if scanner.peek() != "{":
        return False
    while len(scanner.text) < MAX_RECORD and scanner.more():
        pass
    try:
        first, end = scanner.decoder.raw_decode(scanner.text, scanner.at)
    except ValueError:
        return len(scanner.text) >= MAX_RECORD
    except RecursionError:
        return False
    scanner.at = end
    return not scanner.peek() and bool(first) and all(isinstance(value, list) for value in first.values())


def _entries(scanner: _Scanner) -> Iterator[Value]:
    """Yield the entries of one object."""
    scanner.take("{")
    while True:
        place = scanner.place()
        key = scanner.value()
        if not isinstance(key, str) or not scanner.take(":"):
            raise scanner.fault("broken JSON")
        yield place, key, scanner.value()
        if scanner.take("}"):
            break
        if not scanner.take(","):
            raise scanner.fault("broken JSON: expected a comma or }")
    if scanner.peek():
        raise scanner.fault("more after the end of the object")


def _values(scanner: _Scanner) -> Iterator[Value]:
    """Yield the values of an array of objects or of rows, or those that follow each other."""
    while scanner.peek() and len(scanner.text) < CHUNK and scanner.more():
        pass  # so much is enough to see what an array holds
    if scanner.peek() == "[" and ARRAY.match(scanner.text, scanner.at):
        scanner.take("[")
        while not scanner.take("]"):
            yield scanner.place(), None, scanner.value()
            if scanner.peek() != "]" and not scanner.take(","):
                raise scanner.fault("broken JSON: expected a comma or ]")
        if scanner.peek():
            raise scanner.fault("more after the end of the array")
        return
    while scanner.peek():
        yield scanner.place(), None, scanner.value()


def _fields(path: Path, record: object, wanted: Wanted) -> tuple[str, str | None]:
    """Return the fields of the vectors and of the ids, as the first record has them."""
    if not isinstance(record, dict):
        raise InputError(f"{path}: a JSON {type(record).__name__}; {EXPECTED}.")
    lists = [name for name, value in record.items() if isinstance(value, list) and _are_numbers(value)]
    kinds = {name: type(value).__name__ for name, value in record.items() if name not in lists}
    fit = [name for name, kind in kinds.items() if kind in ("str", "int")]
    return pick_vectors(path, lists, wanted, what="field"), pick_ids(path, fit, kinds, wanted, what="field")


def _are_numbers(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int, float}


def _rows(
    path: Path, values: Iterator[Value], fields: tuple[str, str | None] | None, ids: StringPacker
) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """Yield the place and the numbers of each value, and add its id to `ids`."""
    for place, key, value in values:
        vector = value
        if fields is not None:
            if not isinstance(value, dict) or fields[0] not in value:
                have = f" (have: {name_list(value)})" if isinstance(value, dict) else ""
                raise InputError(f"{path}{place}: missing field {quote(fields[0])}{have}; {EXPECTED}.")
            vector = value[fields[0]]
            if fields[1] is not None:
                key = _id(path, place, fields[1], value.get(fields[1]))
        if key is not None:
            ids.append(_encodable(path, place, key))
        place = place if key is None else f"{place}: item {quote(key)}"
        yield place, _vector(path, place, vector)


def _id(path: Path, place: str, name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(
            f"{path}{place}: field {quote(name)} is {json.dumps(value)[:40]}; expected the id of the item."
        )
    return str(value)


def _encodable(path: Path, place: str, key: str) -> str:
    if not key.isascii() and any("\ud800" <= character <= "\udfff" for character in key):
        raise InputError(f"{path}{place}: an id holds half of a surrogate pair; expected valid Unicode.")
    return key


def _vector(path: Path, place: str, value: object) -> npt.NDArray[np.float64]:
    if not isinstance(value, list) or not _are_numbers(value):
        wrong = value if not isinstance(value, list) else next(one for one in value if type(one) not in (int, float))
        shown = json.dumps(wrong)
        raise InputError(
            f"{path}{place}: {shown if len(shown) <= 40 else shown[:37] + '...'} where a list of numbers is expected."
        )
    try:
        return np.array(value, np.float64)
    except OverflowError:
        return np.full(len(value), np.inf)  # refused as beyond float32
