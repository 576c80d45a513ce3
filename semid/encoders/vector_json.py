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
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.strings import StringPacker
from semid.encoders.vector_rows import FileVectors, Wanted, in_blocks, pick_ids, pick_vectors
from semid.errors import InputError
from semid.files.encodings import not_utf8
from semid.files.first_bytes import open_unpacked
from semid.files.formats_json import JsonScanner
from semid.files.problems import name_list, quote
from semid.runtime.tables import Tables

__all__ = ["read_json"]

EXPECTED = 'expected lines {"id": "...", "embedding": [0.1, ...]}, or one object {"item id": [0.1, ...], ...}'
BLANKS = " \t\r\n"
ARRAY = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*[\[{\]]")  # of objects or rows, not of numbers
Value = tuple[str, str | None, Any]  # place, key if the values have keys, value


def read_json(path: Path, wanted: Wanted, tables: Tables) -> FileVectors:
    """Read the vectors of a JSON file, and their ids."""
    ids = StringPacker()
    with open_unpacked(path) as file:
        keyed = _is_keyed(file.head, file.whole)
        values = _parsed(path, JsonScanner(file.stream), keyed=keyed, is_array=bool(ARRAY.match(file.head)))
        first = next(values, None)
        if first is None:
            raise InputError(f"{path}: no vectors; {EXPECTED}.")
        fields = None if keyed or isinstance(first[2], list) else _fields(path, first[2], wanted)
        table = tables.collect(in_blocks(path, _rows(path, itertools.chain([first], values), fields, ids)))
    if keyed:
        return FileVectors(table, "its keys", ids.finish()) if wanted.with_ids else FileVectors(table)
    id_name = fields and fields[1]
    return FileVectors(table, f"field {id_name!r}", ids.finish()) if id_name else FileVectors(table)


def _is_keyed(head: bytes, whole: bool) -> bool:
    """Return whether a file with these first bytes is one object whose values are vectors."""
    text = head.decode("utf-8", "replace")
    start = len(text) - len(text.lstrip(BLANKS))
    if text[start : start + 1] != "{":
        return False
    try:
        first, end = json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        return not whole  # so long an object holds vectors by id
    except RecursionError:
        return False
    return not text[end:].strip(BLANKS) and bool(first) and all(isinstance(value, list) for value in first.values())


def _parsed(path: Path, scanner: JsonScanner, *, keyed: bool, is_array: bool) -> Iterator[Value]:
    """Yield the values with their lines, and their keys if they have any; InputError for broken JSON."""
    try:
        yield from _entries(scanner) if keyed else _values(scanner, is_array)
    except json.JSONDecodeError as error:
        line = scanner.line + scanner.text.count("\n", scanner.at, error.pos)
        raise InputError(f"{path}:{line}: broken JSON: {error.msg}; {EXPECTED}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{scanner.line}: {not_utf8(error)}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise InputError(f"{path}:{scanner.line}: cannot be read as JSON ({error}); {EXPECTED}.") from None


def _entries(scanner: JsonScanner) -> Iterator[Value]:
    """Yield the entries of one object."""
    scanner.next_sign()
    scanner.skip()
    while True:
        scanner.next_sign()
        place, key = f":{scanner.line}", scanner.value()
        _step_over(scanner, ":" if isinstance(key, str) else "")
        scanner.next_sign()
        yield place, key, scanner.value()
        if scanner.next_sign() == "}":
            break
        _step_over(scanner, ",")
    _check_end(scanner)


def _values(scanner: JsonScanner, is_array: bool) -> Iterator[Value]:
    """Yield the values of an array of objects or of rows, or those that follow each other."""
    if not is_array:
        while scanner.next_sign():
            yield f":{scanner.line}", None, scanner.value()
        return
    scanner.next_sign()
    scanner.skip()
    while scanner.next_sign() != "]":
        yield f":{scanner.line}", None, scanner.value()
        if scanner.next_sign() != "]":
            _step_over(scanner, ",")
    _check_end(scanner)


def _step_over(scanner: JsonScanner, sign: str) -> None:
    if not sign or scanner.next_sign() != sign:
        raise json.JSONDecodeError(f"expected {sign or 'a name'}", scanner.text, scanner.at)
    scanner.skip()


def _check_end(scanner: JsonScanner) -> None:
    scanner.skip()
    if scanner.next_sign():
        raise json.JSONDecodeError("more after the end", scanner.text, scanner.at)


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
