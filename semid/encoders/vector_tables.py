"""Vectors in Parquet, Arrow and Feather files: a column of lists of numbers, or one column of numbers per dim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.strings import StringPacker
from semid.encoders.vector_rows import INDEX, FileVectors, Wanted, pick_ids, pick_vectors
from semid.errors import InputError
from semid.runtime.tables import Tables

__all__ = ["read_table"]

TABLE_ROWS = 8192  # converted at a time


class _Table:
    """An open file: its schema, and its rows in batches."""

    def __init__(self, path: Path, file: Any, kind: str) -> None:
        self.path, self.file, self.is_parquet = path, file, kind == ".parquet"
        self.schema = file.schema_arrow if self.is_parquet else file.schema

    def batches(self, names: list[str]) -> Iterator[Any]:
        """Yield record batches of at most 8192 rows with these columns."""
        if self.is_parquet:
            yield from self.file.iter_batches(TABLE_ROWS, columns=names)
            return
        is_file = hasattr(self.file, "num_record_batches")
        parts = map(self.file.get_batch, range(self.file.num_record_batches)) if is_file else iter(self.file)
        for part in parts:
            chosen = part.select(names)
            chosen.validate(full=True)  # a damaged file may say that its values lie outside of it
            for start in range(0, chosen.num_rows, TABLE_ROWS):
                yield chosen.slice(start, TABLE_ROWS)


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[_Table]:
    """Open a file; pyarrow's errors become InputErrors."""
    import pyarrow
    import pyarrow.parquet

    name = "Parquet" if kind == ".parquet" else "Arrow"
    try:
        if kind == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                yield _Table(path, file, kind)
            return
        with pyarrow.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            yield _Table(path, pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source), kind)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path}: not a readable {name} file: {reason}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a readable {name} file: a name or id is not UTF-8 ({error.reason}).") from None


def read_table(path: Path, kind: str, wanted: Wanted, tables: Tables) -> FileVectors:
    """Read the vectors of a file, and its ids; every row must have a vector, all of one length.

    Without a column of lists, all columns of floats together are the vectors.
    """
    with _opened(path, kind) as table:
        names = _vector_columns(path, table.schema, wanted)
        id_name = _id_column(path, table.schema, wanted, names)
        ids = StringPacker()
        chosen = names if id_name is None else [*names, id_name]
        rows = tables.collect(_blocks(table, names, chosen, id_name, ids))
    if id_name is None:
        return FileVectors(rows)
    return FileVectors(rows, f"column {id_name!r}", ids.finish())


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _storage(kind: Any) -> Any:
    """Return the type that an extension type, such as a tensor of one shape, is stored as."""
    return getattr(kind, "storage_type", kind)


def _vector_columns(path: Path, schema: Any, wanted: Wanted) -> list[str]:
    """Return the column of lists that holds the vectors, or the columns of their dims."""
    import pyarrow.types as types

    kinds = {field.name: _storage(field.type) for field in schema}
    lists = [name for name, kind in kinds.items() if _is_list(kind) and types.is_floating(kind.value_type)]
    lists = lists or [name for name, kind in kinds.items() if _is_list(kind) and types.is_integer(kind.value_type)]
    if not lists and wanted.name is None:
        ids = {wanted.id_field, wanted.id_name, "id", "item_id", *INDEX}
        dims = [name for name, kind in kinds.items() if types.is_floating(kind) and name not in ids]
        if len(dims) > 1:
            return dims
    return [pick_vectors(path, lists, wanted)]


def _id_column(path: Path, schema: Any, wanted: Wanted, vectors: list[str]) -> str | None:
    import pyarrow.types as types

    def plain(kind: Any) -> Any:
        return kind.value_type if types.is_dictionary(kind) else kind

    kinds = {field.name: plain(field.type) for field in schema}
    fit = [n for n, kind in kinds.items() if (_is_string(kind) or types.is_integer(kind)) and n not in vectors]
    name = pick_ids(path, fit, {name: str(kind) for name, kind in kinds.items()}, wanted)
    if name is not None and schema.names.count(name) > 1:
        raise InputError(
            f"{path}: column {name!r} is there twice; expected one column of item ids, strings or integers."
        )
    return name


def _is_string(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _blocks(
    table: _Table, names: list[str], chosen: list[str], id_name: str | None, ids: StringPacker
) -> Iterator[npt.NDArray[Any]]:
    """Yield the vectors as blocks [n, D], and add their ids to `ids`."""
    width: int | None = len(names) if len(names) > 1 else None
    start = 0
    for batch in table.batches(chosen):
        if not batch.num_rows:
            continue
        columns = [batch.column(place) for place in range(len(chosen))]
        if id_name is not None:
            _add_ids(table.path, id_name, columns.pop(), start, ids)
        if len(names) > 1:
            yield np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
        else:
            width, block = _list_block(table.path, names[0], columns[0], start, width)
            yield block
        start += batch.num_rows


def _list_block(path: Path, name: str, column: Any, start: int, width: int | None) -> tuple[int, npt.NDArray[Any]]:
    """Return the width of the vectors, that of the first if not known yet, and these rows."""
    import pyarrow
    import pyarrow.compute

    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    lengths = pyarrow.compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if width is None else width
    wrong = np.flatnonzero(lengths != width)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path}, row {start + row + 1}: column {name!r} holds {lengths[row]} numbers, expected {width} as in "
            "row 1. Give every row a vector of one length."
        )
    values = column.flatten().to_numpy(zero_copy_only=False)  # a null among the numbers becomes NaN
    return width, np.asarray(values).reshape(len(column), width)


def _add_ids(path: Path, name: str, column: Any, start: int, ids: StringPacker) -> None:
    for row, value in enumerate(column.to_pylist(), start + 1):
        if value is None:
            raise InputError(f"{path}, row {row}: column {name!r} is empty. Give every vector the id of its item.")
        ids.append(str(value))
