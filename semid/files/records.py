"""Records: a file, a folder of files, standard input, a data set or any iterable, read as (line number, dict) pairs.

Opening and unpacking are `sources.py`, finding out how records are written `layout.py`, reading them
`formats_json.py`, `formats_text.py` and `arrow.py`. `items.py` and `interactions.py` decide what a record means.
Records stream through, none is kept. Mistakes go into `Problems`; reading goes on as long as later rows can be read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from semid.errors import InputError
from semid.files.arrow import Keep, Record, from_arrow, from_parquet, from_table
from semid.files.folders import files_of
from semid.files.formats_json import from_array, from_jsonl, from_map, from_objects, from_python
from semid.files.formats_text import from_netflix, from_rows, from_sequences
from semid.files.hub_sets import HUB, load_from_hub
from semid.files.layout import layout_of
from semid.files.problems import Problems, is_table, quote
from semid.files.reading import AS_FOUND, Reading, reading_of
from semid.files.sources import GZIP_MAGIC, Opened, copied, opened, read_fault

__all__ = ["GZIP_MAGIC", "iter_records"]

logger = logging.getLogger("semid")


def iter_records(
    source: object,
    *,
    keep: Keep | None = None,
    problems: Problems | None = None,
    reading: Reading = AS_FOUND,
    key_field: str | None = None,
) -> Iterator[Record]:
    """Yield (line number, dict) for each record of `source`, in order; numbers count from 1.

    Parameters
    ----------
    source : path, "-", "hf://owner/name", datasets.Dataset, Arrow stream or iterable of dicts
        A file's format is found from its content: JSON lines, a JSON array or one object with a member per record,
        Python literals, CSV and other separated text with or without a header, RecBole and MovieLens files, Parquet,
        Arrow, Feather. It may be packed (gzip, bzip2, xz, zstd, zip of one file). A folder is read as one data set if
        it holds files of one format, or was written by `datasets`. "-" is standard input. An Arrow stream is anything
        with `__arrow_c_stream__` (polars, pandas, pyarrow tables). What was not as the file's name promises is logged.
    keep : callable, optional
        Returns for a name whether to read an Arrow column of that name even if it cannot be text (vectors, binary,
        dates). By default such columns are not read. Dates are returned as ISO strings, in UTC.
    problems : Problems, optional
        Collects mistakes; the caller must call `finish`. Without it, this generator raises at its end.
    reading : Reading, optional
        Delimiter, columns and encoding of a file, and whether bad rows are skipped.
    key_field : str, optional
        The field that the keys of one JSON object become, `{"7": {"title": "Lamp"}}`. Without it they are users, and
        lists are their items: `{"7": [1, 2]}`.

    Raises
    ------
    InputError
        Without `problems`: every unreadable row, listed together.
    DependencyError
        An address hf://, when `datasets` is not installed.

    >>> list(iter_records([{"id": "a"}, {"id": "b"}]))
    [(1, {'id': 'a'}), (2, {'id': 'b'})]
    """
    reading = reading_of(source, reading)
    collected = Problems.of(source, reading) if problems is None else problems
    for line, record in _records(source, keep or (lambda name: False), collected, reading, key_field):
        collected.n_rows += 1
        yield line, record
    if problems is None:
        collected.finish()


def _records(
    source: object, keep: Keep, problems: Problems, reading: Reading, key_field: str | None
) -> Iterator[Record]:
    if isinstance(source, str | os.PathLike):
        return _from_path(os.fsdecode(source), keep, problems, reading, key_field)
    if is_table(source):
        return from_table(source, problems, keep)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes | bytearray):
        return _from_iterable(source, problems)
    hint = ""
    if isinstance(source, Mapping) and source:  # a DatasetDict
        hint = f" Pass one of its values, e.g. source[{quote(min(map(str, source)))}]."
    kind = type(source).__name__
    raise InputError(f"source={kind}: expected a path, a datasets.Dataset or an iterable of dicts.{hint}")


def _from_iterable(source: Iterable[object], problems: Problems) -> Iterator[Record]:
    for line, record in enumerate(source, 1):
        if isinstance(record, Mapping):
            problems.raw = record
            yield line, record if isinstance(record, dict) else dict(record)
        else:
            problems.reject(line, f"expected a dict, got {type(record).__name__}.", record)


# ---- files


def _from_path(path: str, keep: Keep, problems: Problems, reading: Reading, key_field: str | None) -> Iterator[Record]:
    """Read a file, a folder or an address. Whatever cannot be read becomes a problem."""
    try:
        if path.startswith(HUB):
            yield from from_table(load_from_hub(path), problems, keep)
        elif os.path.isdir(path):
            for file in files_of(path):
                problems.next_file(file)
                for line, record in _from_file(file, keep, problems, reading, key_field):
                    problems.last_line = line + problems.offset
                    yield problems.last_line, record
        else:
            yield from _from_file(path, keep, problems, reading, key_field)
    except (OSError, UnicodeError) as error:
        problems.add(None, read_fault(error))


def _from_file(path: str, keep: Keep, problems: Problems, reading: Reading, key_field: str | None) -> Iterator[Record]:
    with opened(path, reading) as file:
        layout = layout_of(file, path, reading)
        for said in layout.said:
            logger.warning("%s: %s", problems.name, said)
        if layout.kind in ("parquet", "arrow"):
            read = from_parquet if layout.kind == "parquet" else from_arrow
            with _random_access(file, path) as table:
                yield from read(table, problems, keep)
        elif layout.kind == "rows":
            yield from from_rows(file, layout, problems)
        elif layout.kind == "json map":
            name = key_field or "user"
            logger.warning("%s: one JSON object; its keys are read as the field %s", problems.name, quote(name))
            yield from from_map(file, problems, key_field)
        elif layout.kind == "json objects" or (layout.kind == "jsonl" and b"\n" not in file.head.strip()):
            yield from _perhaps_one(READERS[layout.kind](file, problems), problems, key_field)
        else:
            yield from READERS[layout.kind](file, problems)


def _perhaps_one(records: Iterator[Record], problems: Problems, key_field: str | None) -> Iterator[Record]:
    """Yield the records. If there is one, which is none but holds a list of them, say how to take them out."""
    count, record = 0, dict[str, Any]()
    for line, record in records:
        count += 1
        yield line, record
    lists = [name for name, value in record.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if count == 1 and lists and (problems.total or (key_field is not None and key_field not in record)):
        where = lists[0] if lists[0].isidentifier() else f"[{json.dumps(lists[0])}]"
        what = f"the file is one object. If {quote(lists[0])} holds the records, take them out"
        problems.add(None, f"{what}: jq -c '.{where}[]' {problems.name} > records.jsonl")


READERS = {
    "jsonl": from_jsonl, "json array": from_array, "json objects": from_objects, "python": from_python,
    "sequences": from_sequences, "netflix": from_netflix,
}  # fmt: skip


def _random_access(file: Opened, path: str) -> Any:
    """Return the path of a table, or a copy of one that is packed or comes from standard input; a context manager."""
    if file.compression is None and path != "-" and os.path.isfile(path):
        return contextlib.nullcontext(path)
    return copied(file.stream)
