"""Records: a file, standard input, a data set or any iterable, read as (line number, dict) pairs.

Opens, unzips, decodes and parses JSONL and CSV; `arrow.py` reads tables. `items.py` and `interactions.py` decide what
a record means. Records stream through, none is kept. Mistakes go into `Problems`, and reading goes on as long as later
lines can be read.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from semid.data.arrow import Record, from_parquet, from_table
from semid.data.problems import Problems, is_table, quote
from semid.data.reading import AS_FOUND, Reading, reading_of
from semid.errors import InputError

__all__ = ["GZIP_MAGIC", "iter_records"]

SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
GZIP_MAGIC = b"\x1f\x8b"  # the first two bytes of a gzip file
CSV_FIELD_LIMIT = 2**31 - 1  # the csv module's own limit is 128 KiB; C long is 32 bits on Windows


def iter_records(
    source: object,
    *,
    keep: Callable[[str], bool] | None = None,
    problems: Problems | None = None,
    reading: Reading = AS_FOUND,
) -> Iterator[Record]:
    """Yield (line number, dict) for each record of `source`, in order; numbers count from 1.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream or iterable of dicts
        The suffix of a file gives its format, after dropping `.gz`: .jsonl .ndjson .json (one object per line),
        .csv, .tsv, .parquet .pq. For any other suffix the first character that is not blank decides: `{` or `[`
        means JSONL, `PAR1` Parquet, otherwise a tab in the first line means TSV, a comma CSV. Gzip is detected from
        the first two bytes. "-" is standard input, JSONL, gzipped or not. An Arrow stream is anything with
        `__arrow_c_stream__` (polars, pandas, pyarrow tables).
    keep : callable, optional
        Returns for a name whether to read an Arrow column of that name even if it cannot be text (vectors, binary,
        structs, dates). By default such columns are not read. Dates are returned as ISO strings, in UTC.
    problems : Problems, optional
        Collects mistakes; the caller must call `finish`. Without it, this generator raises at its end.
    reading : Reading, optional
        Delimiter, columns and encoding of a file, and whether bad rows are skipped.

    Raises
    ------
    InputError
        Without `problems`: every unreadable line, listed together.
    DependencyError
        Parquet, when pyarrow is not installed.

    >>> list(iter_records([{"id": "a"}, {"id": "b"}]))
    [(1, {'id': 'a'}), (2, {'id': 'b'})]
    """
    reading = reading_of(source, reading)
    collected = Problems.of(source, reading) if problems is None else problems
    keep = keep or (lambda name: False)
    if isinstance(source, str | os.PathLike):
        yield from _from_path(os.fsdecode(source), collected, keep)
    elif is_table(source):
        yield from from_table(source, collected, keep)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes | bytearray):
        yield from _from_iterable(source, collected)
    else:
        hint = ""
        if isinstance(source, Mapping) and source:  # a DatasetDict
            hint = f" Pass one of its values, e.g. source[{quote(min(map(str, source)))}]."
        kind = type(source).__name__
        raise InputError(f"source={kind}: expected a path, a datasets.Dataset or an iterable of dicts.{hint}")
    if problems is None:
        collected.finish()


def _from_iterable(source: Iterable[object], problems: Problems) -> Iterator[Record]:
    for line, record in enumerate(source, 1):
        if isinstance(record, dict):
            yield line, record
        elif isinstance(record, Mapping):
            yield line, dict(record)
        else:
            problems.add(line, f"expected a dict, got {type(record).__name__}.")


# ---- files ----------------------------------------------------------------------------------------------


def _from_path(path: str, problems: Problems, keep: Callable[[str], bool]) -> Iterator[Record]:
    """Open, unzip and detect the format. Every failure to read becomes a problem."""
    try:
        with _opened(path) as stream:
            kind = "jsonl" if path == "-" else _format(path, stream)
            if kind == "jsonl":
                yield from _from_jsonl(stream, problems)
            elif kind in ("csv", "tsv"):
                yield from _from_csv(stream, problems, "," if kind == "csv" else "\t")
            elif kind == "parquet":
                yield from from_parquet(path, problems, keep)
            else:
                problems.add(None, "cannot tell the format. Name it .jsonl, .csv, .tsv or .parquet.")
    except FileNotFoundError:
        problems.add(None, "no such file. Check the path.")
    except IsADirectoryError:
        problems.add(None, "is a folder; expected a file.")
    except (OSError, EOFError, zlib.error) as error:
        problems.add(None, _read_fault(error))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Yield the unzipped bytes of `path` as a buffered stream. Standard input is left open."""
    with contextlib.ExitStack() as stack:
        if path == "-":
            raw = sys.stdin.buffer
            if not hasattr(raw, "peek"):  # a stand-in, as click's test runner puts there
                raw = io.BufferedReader(raw)
                stack.callback(raw.detach)
        else:
            raw = stack.enter_context(_open_file(path))
        if raw.peek(2)[:2] == GZIP_MAGIC:
            # GzipFile finds its lines in Python, the BufferedReader around it in C.
            raw = stack.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20))
        yield raw


def _open_file(path: str) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except ValueError as error:  # a null byte, or characters that the file system cannot hold
        raise FileNotFoundError(path) from error


def _format(path: str, stream: Any) -> str | None:
    known = SUFFIXES.get(os.path.splitext(path.lower().removesuffix(".gz"))[1])
    if known:
        return known
    head = stream.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head or head[:1] in b"{[":
        return "jsonl"
    if head[:4] == b"PAR1":
        return "parquet"
    first_line = head.split(b"\n", 1)[0]
    return "tsv" if b"\t" in first_line else "csv" if b"," in first_line else None


def _read_fault(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the gzip data end too early: the file is cut short. Copy it again."
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"the gzip data are damaged ({error}). Copy it again."
    return f"cannot be read: {getattr(error, 'strerror', None) or error}."


def _lines(stream: Iterable[bytes], problems: Problems) -> Iterator[tuple[int, bytes]]:
    """Yield lines numbered from 1, without a byte order mark. A stream that breaks is a problem of its line."""
    line = 0
    try:
        for line, raw in enumerate(stream, 1):
            yield line, raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
    except (OSError, EOFError, zlib.error) as error:
        problems.add(line + 1, _read_fault(error))


def _utf8_fault(error: UnicodeDecodeError) -> str:
    return (
        f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1} of the line. "
        "Convert the file, e.g. iconv -f LATIN1 -t UTF-8."
    )


def _from_jsonl(stream: Iterable[bytes], problems: Problems) -> Iterator[Record]:
    started = False
    for line, raw in _lines(stream, problems):
        if not raw or raw.isspace():
            continue
        fault = None if started else _layout_fault(raw.strip())
        if fault:
            problems.add(line, fault)
            return  # every further line would be a problem of the same cause
        started = True
        try:
            record = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            problems.add(line, _utf8_fault(error))
        except json.JSONDecodeError as error:
            problems.add(line, f"broken JSON at column {error.colno}: {error.msg}. Write one object per line.")
        except RecursionError:
            problems.add(line, "the JSON is nested too deeply. Flatten it.")
        except ValueError as error:  # an integer of more than 4300 digits
            problems.add(line, f"broken JSON: {error}.")
        else:
            if isinstance(record, dict):
                yield line, record
            else:
                kind = {list: "a list", str: "a string", type(None): "null"}.get(type(record), "a bare value")
                problems.add(line, f"expected an object {{...}}, got {kind}.")


def _layout_fault(first_line: bytes) -> str | None:
    """Return what is wrong with JSON that does not have one object per line, from the first line; None if nothing."""
    if first_line.startswith(b"["):
        return "the file is one JSON array; expected one object per line. Convert it: jq -c '.[]' FILE"
    if first_line == b"{":
        return "the file is indented JSON; expected one object per line. Convert it: jq -c . FILE"
    return None


def _from_csv(stream: Iterable[bytes], problems: Problems, delimiter: str) -> Iterator[Record]:
    """Yield rows as dicts with the names of the first row. A quoted cell may span lines; the first one counts."""
    csv.field_size_limit(max(csv.field_size_limit(), CSV_FIELD_LIMIT))
    reader = csv.reader(_decoded(_lines(stream, problems), problems), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            problems.add(line, f"broken CSV: {error}. Quote the cell, and double the quotes inside it.")
            if header is None:
                return
            continue
        if row is None:
            return
        if not row:  # a blank line
            continue
        if header is None:
            header = [name.strip() for name in row]
            problems.check_columns(line, header)
        elif len(row) != len(header):
            problems.add(
                line,
                f"{len(row)} columns, but the header has {len(header)}. Quote cells that hold "
                f"{'commas' if delimiter == ',' else 'tabs'}, quotes or line breaks.",
            )
        else:
            record = dict(zip(header, row, strict=True))
            record.pop("", None)  # an unnamed column is the row number that pandas wrote
            yield line, record


def _decoded(lines: Iterable[tuple[int, bytes]], problems: Problems) -> Iterator[str]:
    """Decode lines for the csv reader. A bad line is noted and passed on, so that line numbers stay right."""
    for line, raw in lines:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.add(line, _utf8_fault(error))
            text = raw.decode("utf-8", "replace")
        yield text
