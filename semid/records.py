"""Records: a file, standard input, a data set or any iterable, read as (line number, dict) pairs.

The floor that `catalog` and `interactions` stand on. It opens, unzips, decodes and parses; what a record
*means* (ids, text, histories) is not its business. Nothing is kept: records stream through.

A problem does not stop the reading while later lines can still be read. It is collected with its place, so
that one error can list the first ten and count the rest.
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
from dataclasses import dataclass, field
from typing import Any, Literal

from semid.errors import SHOWN_PROBLEMS, DependencyError, InputError

__all__ = ["Problems", "iter_records", "name_list", "quote", "with_progress"]

Record = tuple[int, dict[str, Any]]

SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
GZIP_MAGIC = b"\x1f\x8b"
CSV_FIELD_LIMIT = 2**31 - 1  # the csv module's own limit is 128 KiB; C long is 32 bits on Windows
ARROW_ROWS = 4096  # rows turned into Python objects at once


@dataclass
class Problems:
    """What is wrong with one source: the first ten messages and the number of all.

    Parameters
    ----------
    name : str
        The source as the user knows it; the first word of every message.
    style : {"line", "row", "index"}
        How a place is written: `items.jsonl:7`, `items.parquet, row 7` or `items[6]`.

    >>> problems = Problems("items.jsonl")
    >>> problems.add(7, "id is null.")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
    semid.errors.InputError: items.jsonl:7: id is null.
    """

    name: str
    style: Literal["line", "row", "index"] = "line"
    total: int = 0
    shown: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, source: object) -> Problems:
        """An empty collection under the name that `source` goes by."""
        if isinstance(source, str | os.PathLike):
            path = os.fsdecode(source)
            return cls("<stdin>" if path == "-" else path)
        return cls("dataset" if _is_arrow(source) or _is_dataset(source) else "items", "index")

    def where(self, line: int) -> str:
        """The place of record number `line`, counted from 1, as a message begins with it."""
        places = {"line": f":{line}", "row": f", row {line}", "index": f"[{line - 1}]"}
        return self.name + places[self.style]

    def first_at(self, line: int) -> str:
        """The same place inside a message that has named the source already."""
        return self.where(line) if self.style == "index" else f"{self.style} {line}"

    def add(self, line: int | None, message: str) -> None:
        """Note one problem, at a place or (`line=None`) with the source as a whole."""
        self.total += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(f"{self.name if line is None else self.where(line)}: {message}")

    def raise_if_any(self) -> None:
        """Raise one InputError that lists all of them, or do nothing."""
        if self.total:
            raise InputError.listing(self.shown, self.total)


def iter_records(
    source: object, *, keep: Callable[[str], bool] | None = None, problems: Problems | None = None
) -> Iterator[Record]:
    """Yield (line number, dict) for each record of `source`, in order; numbers count from 1.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream or iterable of dicts
        A file's format goes by its suffix, after dropping `.gz`: .jsonl .ndjson .json (one object a line),
        .csv, .tsv, .parquet .pq. Any other suffix goes by the first character that is not blank: `{` or `[`
        means JSONL, `PAR1` Parquet, otherwise a tab in the first line means TSV, a comma CSV. Whether it is
        gzipped is seen from its first two bytes, whatever its name. "-" is standard input, JSONL, gzipped
        or not. An Arrow stream is anything with `__arrow_c_stream__` (polars, pandas, pyarrow tables).
    keep : callable, optional
        Says for a name whether to read an Arrow column of that name even where it cannot be text (vectors,
        binary, structs, dates). By default those are left unread. Dates come as ISO strings, in UTC.
    problems : Problems, optional
        Where to put what is wrong; the caller must raise. Without it, this generator raises at its end.

    Raises
    ------
    InputError
        Without `problems`: every unreadable line, listed together.
    DependencyError
        Parquet, when pyarrow is not installed.

    >>> list(iter_records([{"id": "a"}, {"id": "b"}]))
    [(1, {'id': 'a'}), (2, {'id': 'b'})]
    """
    collected = Problems.of(source) if problems is None else problems
    keep = keep or (lambda name: False)
    if isinstance(source, str | os.PathLike):
        yield from _from_path(os.fsdecode(source), collected, keep)
    elif _is_dataset(source):
        # Arrow format: index mappings are honoured, and images or sounds are never decoded.
        yield from _from_tables(source.with_format("arrow").iter(batch_size=ARROW_ROWS), collected, keep)
    elif _is_arrow(source):
        yield from _from_arrow(source, collected, keep)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes | bytearray):
        yield from _from_iterable(source, collected)
    else:
        hint = ""
        if isinstance(source, Mapping) and source:  # a DatasetDict
            hint = f" Pass one of its values, e.g. source[{quote(min(map(str, source)))}]."
        kind = type(source).__name__
        raise InputError(f"source={kind}: expected a path, a datasets.Dataset or an iterable of dicts.{hint}")
    if problems is None:
        collected.raise_if_any()


def _is_dataset(source: object) -> bool:
    return hasattr(source, "with_format") and hasattr(source, "iter")


def _is_arrow(source: object) -> bool:
    return hasattr(source, "__arrow_c_stream__")


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
    """Open, unzip and choose the format. Every failure to read becomes a problem."""
    try:
        with _opened(path) as stream:
            kind = "jsonl" if path == "-" else _format(path, stream)
            if kind == "jsonl":
                yield from _from_jsonl(stream, problems)
            elif kind in ("csv", "tsv"):
                yield from _from_csv(stream, problems, "," if kind == "csv" else "\t")
            elif kind == "parquet":
                yield from _from_parquet(path, problems, keep)
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
    """The bytes of `path` after gunzip, as a buffered stream. Standard input is left open."""
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
    """Number the lines from 1, without a byte order mark. A stream that breaks is a problem of its line."""
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
            problems.add(line, f"broken JSON at column {error.colno}: {error.msg}. Write one object a line.")
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
    """JSON, but not one object a line: known from the first line."""
    if first_line.startswith(b"["):
        return "the file is one JSON array; expected one object a line. Convert it: jq -c '.[]' FILE"
    if first_line == b"{":
        return "the file is indented JSON; expected one object a line. Convert it: jq -c . FILE"
    return None


def _from_csv(stream: Iterable[bytes], problems: Problems, delimiter: str) -> Iterator[Record]:
    """Rows under the names of the first row. A quoted cell may span lines; a row is named by its first."""
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
            _check_names(header, problems, line)
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
    """Text for the csv reader; a bad line is noted and passed on, so that the rows stay in step."""
    for line, raw in lines:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.add(line, _utf8_fault(error))
            text = raw.decode("utf-8", "replace")
        yield text


def _check_names(names: Iterable[str], problems: Problems, line: int | None) -> None:
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            problems.add(line, f"two columns are named {quote(name)}. Rename one.")
        seen.add(name)


# ---- Arrow ----------------------------------------------------------------------------------------------


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError.missing(what, "pyarrow", "parquet") from error
    return pyarrow


def _from_parquet(path: str, problems: Problems, keep: Callable[[str], bool]) -> Iterator[Record]:
    pyarrow = _pyarrow("reading Parquet")
    problems.style = "row"
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [column.name for column in _chosen(file.schema_arrow, keep)]
            yield from _from_tables(file.iter_batches(ARROW_ROWS, columns=names), problems, keep)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: names of columns
        problems.add(None, f"not a readable Parquet file: {str(error).rstrip('.')}.")


def _from_arrow(source: object, problems: Problems, keep: Callable[[str], bool]) -> Iterator[Record]:
    pyarrow = _pyarrow("reading Arrow data")
    try:
        yield from _from_tables(pyarrow.RecordBatchReader.from_stream(source), problems, keep)
    except pyarrow.ArrowException as error:
        problems.add(None, f"not readable as Arrow data: {str(error).rstrip('.')}.")


def _from_tables(tables: Iterable[Any], problems: Problems, keep: Callable[[str], bool]) -> Iterator[Record]:
    """Records of Arrow tables or record batches that share one schema."""
    line = 1
    for table in tables:
        if line == 1:
            _check_names(table.schema.names, problems, None)
        names = list(dict.fromkeys(column.name for column in _chosen(table.schema, keep)))
        places = [table.schema.names.index(name) for name in names]
        for start in range(0, table.num_rows, ARROW_ROWS):
            part = table.slice(start, ARROW_ROWS)
            columns = [_values(part.column(place), problems, line) for place in places]
            for i in range(part.num_rows):
                yield line + i, {name: column[i] for name, column in zip(names, columns, strict=True)}
            line += part.num_rows


def _chosen(schema: Any, keep: Callable[[str], bool]) -> list[Any]:
    return [column for column in schema if keep(column.name) or _is_plain(column.type)]


def _is_plain(kind: Any) -> bool:
    """Whether an Arrow type can be an id or text: strings, numbers, lists of strings at any depth."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if (types.is_primitive(kind) and not types.is_temporal(kind)) or types.is_decimal(kind):
        return True
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    strings = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(is_kind(kind) for is_kind in strings)


def _values(column: Any, problems: Problems, line: int) -> list[Any]:
    """The column as Python values; dates as ISO strings, bad UTF-8 noted and replaced by None."""
    import pyarrow

    if pyarrow.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pyarrow.timestamp(column.type.unit))  # the same instant, in UTC
    if pyarrow.types.is_temporal(column.type) and not pyarrow.types.is_interval(column.type):
        column = column.cast(pyarrow.string())
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # Arrow does not check strings when it reads them
        return [_value(cell, problems, line + i) for i, cell in enumerate(column)]


def _value(cell: Any, problems: Problems, line: int) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        problems.add(line, f"not UTF-8: byte 0x{error.object[error.start]:02x}. Write the file as UTF-8.")
        return None


# ---- shared by the rooms above --------------------------------------------------------------------------


def quote(text: object) -> str:
    """`text` in double quotes on one printable line, at most about 80 characters.

    >>> quote("B01"), quote("two\\nlines")
    ('"B01"', '"two\\\\nlines"')
    """
    text = str(text)
    text = text if len(text) <= 80 else text[:77] + "..."
    return f'"{text}"' if text.isprintable() and '"' not in text else json.dumps(text)


def name_list(names: Iterable[object]) -> str:
    """Field names for a message, the first twenty.

    >>> name_list(["title", "brand"])
    'title, brand'
    """
    shown = [name if name.isprintable() else quote(name) for name in map(str, names)]
    return ", ".join(shown[:20]) + (f", and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"


def with_progress(records: Iterable[Record], name: str, *, shown: bool) -> Iterable[Record]:
    """The same records, counted on standard error where `shown`."""
    if not shown:
        return records
    from tqdm import tqdm

    return tqdm(records, desc=f"reading {name}", unit=" records", unit_scale=True, leave=False)
