"""What an index file says of each item, as written: a list of tokens or of codes, or a string of them.

    {"B1": ["<a_1>", "<b_2>"]}            JSON: LC-Rec, LETTER, MiniOneRec, MIMIGenRec
    {"B1": "<a_1> <b_2>"}, {"B1": [1, 2]}
    {"1,2": "B1"}                         FlashRec: the other way round
    {"id": "B1", "codes": [1, 2]}         JSON lines, CSV, RecBole, Parquet, MiniOneRec's info.txt
    id,c0,c1                              a column per level
    [N, L] integers                       .npy, .npz, .pt and .safetensors, ids in the file or beside it

Not here: what the tokens of a level have in common (`index_files.py`).
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semid.data.array_files import ARRAY_READERS, read_arrays
from semid.data.cells import parse_cell
from semid.data.stored_arrays import choose_array, find_ids
from semid.data.values import id_fault, id_string
from semid.errors import InputError
from semid.files.first_bytes import file_kind, open_unpacked
from semid.files.problems import Problems, name_list, quote
from semid.files.reading import Reading
from semid.files.records import iter_records
from semid.runtime.tables import Tables

__all__ = ["SHAPE", "read_entries"]

logger = logging.getLogger("semid")

SHAPE = '{"item id": ["<a_12>", "<b_7>", ...], ...}'
ID_NAMES = ("item_id", "id", "item", "asin", "parent_asin", "user_id", "user")
ID_LIST_NAMES = ("tokens", "semantic_id", "semantic_ids", "sid", "sids", "codes", "index", "indices")
FLASHREC = re.compile(r"\d+(,\d+)+")
MAX_LEVELS = 256  # more columns than this are items, not levels
UNPACK_ROOM = 1 << 28  # bytes of arrays that are unpacked in memory
LINES = "Extra data"  # what the json module says of a second value


def read_entries(path: Path, ids: Sequence[str] | None, id_field: str, reading: Reading) -> tuple[list[str], list[Any]]:
    """Return the item ids of a file in its order, and what it says of each: a list or a string.

    Parameters
    ----------
    path : Path
    ids : sequence of str, optional
        The items of a catalog in its order, for arrays without ids. By default these are named by their row numbers.
    id_field : str
        Name of the ids in records; by default `item_id`, `id` and similar names are known.
    reading : Reading
        Of records.

    Raises
    ------
    InputError
        The file is broken, empty or of another kind, or has an item twice.
    """
    kind = file_kind(path)
    if kind in ARRAY_READERS:
        return _from_arrays(path, kind, ids, id_field)
    if kind == ".json":
        content = _json(path, reading)
        if isinstance(content, dict) and not _is_record(content):
            return _from_object(content)
        if isinstance(content, list) and content and all(isinstance(row, list) for row in content):
            return _named(path, len(content), ids), content
        if content is not None and not isinstance(content, dict) and not _are_records(content):
            found = "no items" if content == [] else f"a JSON {type(content).__name__}"
            raise InputError(f"{path}: {found}; expected {SHAPE}.")
        if isinstance(content, dict):
            return _from_records(path, [content], id_field, reading)
    return _from_records(path, path, id_field, reading)


# ---- JSON -------------------------------------------------------------------------------------------------


def _json(path: Path, reading: Reading) -> Any:
    """Return the only value of a file; None if it has several, one per line."""

    def without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entries = dict(pairs)
        if len(entries) < len(pairs) and reading.duplicates == "error":
            counts = Counter(key for key, _ in pairs)
            repeated = [key for key, count in counts.items() for _ in range(count - 1)]
            problems = [f"{path}: item {key!r} appears twice; expected one ID per item" for key in repeated]
            raise InputError.listing(problems)
        return entries if reading.duplicates != "first" else dict(reversed(pairs))

    with open_unpacked(path) as file:
        data = file.stream.read()
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=without_repeats)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 ({error.reason}). Convert it with: iconv -t utf-8") from None
    except json.JSONDecodeError as error:
        if error.msg == LINES:
            return None
        raise InputError(
            f"{path}:{error.lineno}: broken JSON, column {error.colno}: {error.msg}. Expected {SHAPE}."
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise InputError(f"{path}: cannot be read as JSON ({error}). Expected {SHAPE}.") from None
    if content in ({}, []):
        raise InputError(f"{path}: no items; expected {SHAPE}.")
    return content


def _from_object(content: dict[str, Any]) -> tuple[list[str], list[Any]]:
    if all(map(FLASHREC.fullmatch, content)) and all(isinstance(item, (str, int)) for item in content.values()):
        return [str(item) for item in content.values()], [list(map(int, key.split(","))) for key in content]
    return list(content), list(content.values())


def _is_record(content: dict[str, Any]) -> bool:
    return any(name in content for name in ID_NAMES) and any(name in content for name in ID_LIST_NAMES)


def _are_records(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(record, dict) for record in content)


# ---- records ----------------------------------------------------------------------------------------------


def _from_records(path: Path, source: object, id_field: str, reading: Reading) -> tuple[list[str], list[Any]]:
    problems = Problems.of(path, reading)
    found: dict[str, Any] = {}
    columns: tuple[str, list[str]] | None = None
    for line, record in iter_records(
        source, keep=lambda name: True, problems=problems, reading=reading, key_field="id"
    ):
        columns = columns or _columns(path, record, id_field)
        id_name, levels = columns
        missing = [name for name in (id_name, *levels) if name not in record]
        item_id = None if missing else id_string(record[id_name])
        if missing:
            problems.add(line, f"missing field {quote(missing[0])} (have: {name_list(record)}).")
        elif item_id is None:
            problems.add(line, f"{id_name} {id_fault(record[id_name])}")
        elif item_id in found and reading.duplicates == "error":
            problems.add(line, f"item {quote(item_id)} appears twice; expected one ID per item.")
        elif item_id not in found or reading.duplicates == "last":
            found[item_id] = _value([record[name] for name in levels])
    problems.finish()
    if not found:
        raise InputError(f"{path}: no items; expected {SHAPE}.")
    return list(found), list(found.values())


def _columns(path: Path, record: dict[str, Any], id_field: str) -> tuple[str, list[str]]:
    """Return the field of the ids, and that of the tokens or codes, or one per level."""
    names = list(record)
    id_name = next((name for name in (id_field, *ID_NAMES) if name in record), names[0] if names else "")
    rest = [name for name in names if name != id_name]
    whole = [name for name in ID_LIST_NAMES if name in rest]
    if whole:
        return id_name, whole[:1]
    if rest and all(_is_part(record[name]) for name in rest) or len(rest) == 1:
        return id_name, rest
    raise InputError(
        f"{path}: fields {name_list(names)}: expected an item id, and tokens or codes: a field of one of the names "
        f"{name_list(ID_LIST_NAMES)}, or one field per level."
    )


def _is_part(value: Any) -> bool:
    """Return whether a value can be one level of an ID: a code, or a token such as <a_1>."""
    if isinstance(value, int) and not isinstance(value, bool):
        return True
    return isinstance(value, str) and bool(re.fullmatch(r"\d+|<[^<>]*>", value.strip()))


def _value(parts: list[Any]) -> Any:
    """Return the cells of a record as the lists and codes that they spell."""
    if len(parts) == 1:
        value = parts[0]
        if isinstance(value, str) and value.startswith("["):
            return parse_cell(value) or value
        if isinstance(value, str):
            return value
        parts = value if isinstance(value, list) else parts
    if all(isinstance(part, str) and re.fullmatch(r"\s*\d{1,10}\s*", part) for part in parts):
        return [int(part) for part in parts]  # cells of CSV and RecBole are strings
    return [part.strip() if isinstance(part, str) else part for part in parts]


# ---- arrays -----------------------------------------------------------------------------------------------


def _from_arrays(path: Path, kind: str, ids: Sequence[str] | None, id_field: str) -> tuple[list[str], list[Any]]:
    with Tables(UNPACK_ROOM) as tables:
        arrays = read_arrays(path, kind, tables)
        chosen = choose_array(path, arrays, None, is_code=True)
        n_items, n_levels = chosen.shape
        if n_levels > MAX_LEVELS:
            raise InputError(
                f"{path}: shape={chosen.shape} should be (items, levels), at most {MAX_LEVELS} levels. Save the "
                "transpose of the array."
            )
        stored = None if kind == ".npy" else find_ids(path, arrays, id_field, None)
        if stored is not None and len(stored[1]) != n_items:
            raise InputError(f"{path}: {stored[0]} holds {len(stored[1])} ids for {n_items} rows. Expected one each.")
        names = _named(path, n_items, ids) if stored is None else list(stored[1])
        if len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise InputError(f"{path}: item {twice!r} appears twice; expected one ID per item")
        return names, chosen.rows()[slice(0, n_items)].tolist()


def _named(path: Path, n_rows: int, ids: Sequence[str] | None) -> list[str]:
    """Return the ids of rows: those listed beside the file, else those of the catalog, else their numbers."""
    beside = path.with_suffix(".ids.txt")
    if beside.exists():
        with open_unpacked(beside) as file:
            listed = file.stream.read().decode("utf-8", "replace").removesuffix("\n").replace("\r\n", "\n").split("\n")
        if len(listed) != n_rows:
            raise InputError(f"{beside} has {len(listed)} lines, {path} has {n_rows} rows. Expected one each.")
        return listed
    if ids is not None:
        if len(ids) != n_rows:
            raise InputError(
                f"{path} has {n_rows} rows, the catalog has {len(ids)} items. Give one row per item, in the same "
                f"order, or write the id of each row to {beside.name}."
            )
        return list(ids)
    logger.warning(
        "%s: holds no item ids: the items are named by their row numbers, 0 to %d. Write the id of each row to %s to "
        "name them otherwise",
        path, n_rows - 1, beside.name,
    )  # fmt: skip
    return [str(row) for row in range(n_rows)]
