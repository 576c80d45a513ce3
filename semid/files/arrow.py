"""Arrow: Parquet files, data sets and Arrow streams, read as (row number, dict) pairs.

Only columns that can be an id or text are read, and those that the caller asks for by name. Other columns (vectors,
images, dates) never become Python objects.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from semid.files.problems import Problems, is_dataset

__all__ = [
    "Drain",
    "Keep",
    "Record",
    "chosen_columns",
    "column_values",
    "from_arrow",
    "from_parquet",
    "from_table",
    "unread_columns",
]


Record = tuple[int, dict[str, Any]]  # number in the source, from 1, and fields
Keep = Callable[[str], bool]  # whether a column of a name is read even if it cannot be text

ARROW_ROWS = 4096  # rows converted to Python objects at once


def from_parquet(file: Any, problems: Problems, keep: Keep) -> Iterator[Record]:
    """Yield the records of a Parquet file, a path or a file that can be read in any order.

    `keep` names the columns to read besides those that can be text.
    """
    import pyarrow
    import pyarrow.parquet

    problems.style = "row"
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            names = [column.name for column in chosen_columns(opened.schema_arrow, keep)]
            problems.unread.update(unread_columns(opened.schema_arrow, names))
            yield from _from_tables(opened.iter_batches(ARROW_ROWS, columns=names), problems, keep)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: names of columns
        problems.add(None, f"not a readable Parquet file: {str(error).rstrip('.')}.")


def from_arrow(file: Any, problems: Problems, keep: Keep) -> Iterator[Record]:
    """Yield the records of an Arrow or Feather file, or of an Arrow stream in a file, as `datasets` saves them."""
    import pyarrow
    import pyarrow.ipc

    problems.style = "row"
    try:
        with pyarrow.OSFile(file) if isinstance(file, str) else pyarrow.PythonFile(file, "r") as source:
            if source.read(6) == b"ARROW1":
                opened = pyarrow.ipc.open_file(source)
                batches = map(opened.get_batch, range(opened.num_record_batches))
            else:
                source.seek(0)
                batches = iter(pyarrow.ipc.open_stream(source))
            yield from _from_tables(map(_validated, batches), problems, keep)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        problems.add(None, f"not a readable Arrow file: {str(error).rstrip('.')}.")


def _validated(batch: Any) -> Any:
    """Return a batch of a file. ArrowInvalid if it points outside of its own data, which Arrow reads as it is."""
    batch.validate(full=True)
    return batch


def from_table(source: Any, problems: Problems, keep: Keep) -> Iterator[Record]:
    """Yield the records of a `datasets.Dataset` or of anything with `__arrow_c_stream__`."""
    if is_dataset(source):
        # The Arrow format honors index mappings and never decodes images or sounds.
        yield from _from_tables(source.with_format("arrow").iter(batch_size=ARROW_ROWS), problems, keep)
        return
    import pyarrow

    try:
        yield from _from_tables(pyarrow.RecordBatchReader.from_stream(source), problems, keep)
    except pyarrow.ArrowException as error:
        problems.add(None, f"not readable as Arrow data: {str(error).rstrip('.')}.")


def _from_tables(tables: Iterable[Any], problems: Problems, keep: Keep) -> Iterator[Record]:
    """Yield the records of Arrow tables or record batches with one schema."""
    line = 1
    for table in tables:
        if line == 1:
            problems.check_columns(None, table.schema.names)
        names = list(dict.fromkeys(column.name for column in chosen_columns(table.schema, keep)))
        if line == 1:
            problems.unread.update(unread_columns(table.schema, names))
        places = [table.schema.names.index(name) for name in names]
        for start in range(0, table.num_rows, ARROW_ROWS):
            part = table.slice(start, ARROW_ROWS)
            columns = [column_values(part.column(place), problems, line) for place in places]
            for i in range(part.num_rows):
                record = {name: column[i] for name, column in zip(names, columns, strict=True)}
                problems.raw = record
                yield line + i, record
            line += part.num_rows


def chosen_columns(schema: Any, keep: Keep) -> list[Any]:
    """Return the columns of an Arrow schema that are read: those that can be text, and those that `keep` asks for."""
    """Return the columns of a schema that are read: those that `keep` names or that can be an id or text."""
    return [column for column in schema if keep(column.name) or _is_plain(column.type)]


def unread_columns(schema: Any, names: Collection[str]) -> dict[str, str]:
    """Return the columns of an Arrow schema that are not among those read, and what they hold."""
    import pyarrow.types as types

    def held(kind: Any) -> str:
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if lists and (types.is_integer(kind.value_type) or types.is_floating(kind.value_type)):
            return "vectors"
        return "dates" if types.is_temporal(kind) else "no text"

    return {column.name: held(column.type) for column in schema if column.name not in names}


def _is_plain(kind: Any) -> bool:
    """Return whether an Arrow type can be an id or text: strings, numbers, lists of strings, objects of such fields."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if (types.is_primitive(kind) and not types.is_temporal(kind)) or types.is_decimal(kind):
        return True
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return all(_is_plain(kind.field(place).type) for place in range(kind.num_fields))
    strings = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(is_kind(kind) for is_kind in strings)


def column_values(column: Any, problems: Problems, line: int) -> list[Any]:
    """Return an Arrow column as Python values: dates as ISO strings, bad UTF-8 noted and replaced by None."""
    import pyarrow

    if pyarrow.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pyarrow.timestamp(column.type.unit))  # the same instant, in UTC
    if pyarrow.types.is_temporal(column.type) and not pyarrow.types.is_interval(column.type):
        column = column.cast(pyarrow.string())
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:  # Arrow does not check strings when it reads them
        return [_value(cell, problems, line + i) for i, cell in enumerate(column)]


def _value(cell: Any, problems: Problems, line: int) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        problems.add(line, f"not UTF-8: byte 0x{error.object[error.start]:02x}. Write the file as UTF-8.")
        return None


class Drain(io.RawIOBase):
    """A file to write to, whose content is taken away piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.position = 0

    def writable(self) -> bool:
        """Return True: it is written to, never read."""
        return True

    def write(self, piece: Any) -> int:
        """Keep a piece until `take`; return its length in bytes."""
        self.pieces.append(bytes(piece))
        self.position += len(self.pieces[-1])
        return len(self.pieces[-1])

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.position

    def take(self) -> bytes:
        """Return what was written since the last call."""
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)
