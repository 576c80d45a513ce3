"""Columns of the tables that engines pass to a batch function: dicts, Arrow tables or batches, pandas data frames.

Hugging Face datasets pass dicts of columns; Ray Data and Spark pass Arrow tables or data frames. A column is returned
as Python values or as a matrix. New columns are added to a new table of the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.errors import InputError
from semid.files.arrow import column_values
from semid.files.problems import Problems, name_list, quote

__all__ = ["as_arrow", "column_names", "matrix", "row_count", "values", "with_columns"]

KINDS = "a dict of columns, a pyarrow Table or RecordBatch, or a pandas DataFrame"


def column_names(table: Any) -> list[str]:
    """Return the names of the columns. InputError if `table` is none."""
    if isinstance(table, Mapping):
        return list(table)
    if _is_arrow(table):
        return list(table.schema.names)
    if hasattr(table, "columns") and hasattr(table, "assign"):
        return list(table.columns)
    raise InputError(f"batch: {type(table).__name__}, expected {KINDS}.")


def row_count(table: Any) -> int:
    """Return the number of rows; 0 for a dict without columns."""
    names = column_names(table)
    if isinstance(table, Mapping):
        return len(table[names[0]]) if names else 0
    return table.num_rows if _is_arrow(table) else len(table)


def values(table: Any, name: str) -> list[Any]:
    """Return a column as Python values. InputError, with the existing names, if there is no such column.

    >>> values({"id": np.array(["a", "b"])}, "id")
    ['a', 'b']
    """
    column = _column(table, name)
    if _is_arrow(table):
        problems = Problems("batch", "row")
        found = column_values(column, problems, 1)
        problems.raise_if_any()
        return found
    return column.tolist() if hasattr(column, "tolist") else list(column)


def matrix(table: Any, name: str) -> npt.NDArray[np.floating]:
    """Return a column of vectors as one array [n, D]. InputError if a vector is missing or has another width.

    >>> matrix({"v": [[1.0, 2.0], [3.0, 4.0]]}, "v").shape
    (2, 2)
    """
    column = _column(table, name)
    if _is_arrow(table):
        column = _flat(column) if _is_even(column) else column.to_pylist()
    if isinstance(column, np.ndarray) and column.ndim == 2:
        return column
    try:
        rows = [np.asarray(row, np.float32) for row in column]
        if any(row.ndim != 1 for row in rows):
            raise ValueError("not a list of numbers")
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    except (TypeError, ValueError):
        raise InputError(f"column {quote(name)}: expected one list of numbers a row, all of one length.") from None


def with_columns(table: Any, added: Mapping[str, Any]) -> Any:
    """Return a table of the same kind with more columns: arrays [n] or int32 [n, L], or lists of strings.

    InputError if the table has a column of that name already.

    >>> with_columns({"id": ["a"]}, {"tokens": ["<s_a_1>"]})
    {'id': ['a'], 'tokens': ['<s_a_1>']}
    """
    taken = [name for name in added if name in column_names(table)]
    if taken:
        raise InputError(f"the batch has a column {quote(taken[0])} already. Rename it, or leave it out.")
    if isinstance(table, Mapping):
        return {**table, **added}
    if not _is_arrow(table):
        return table.assign(**{name: list(column) for name, column in added.items()})
    for name, column in added.items():
        table = table.append_column(name, as_arrow(column))
    return table


def as_arrow(column: Any) -> Any:
    """Return a new column as an Arrow array; int32 [n, L] becomes lists of int32."""
    import pyarrow

    if not isinstance(column, np.ndarray):
        return pyarrow.array(column, pyarrow.string())
    if column.ndim == 1:
        return pyarrow.array(column)
    width = column.shape[1]
    ends = np.arange(0, width * (len(column) + 1), width, dtype=np.int32)
    return pyarrow.ListArray.from_arrays(ends, np.ascontiguousarray(column).reshape(-1))


def _column(table: Any, name: str) -> Any:
    names = column_names(table)
    if name not in names:
        raise InputError(f"the batch has no column {quote(name)}. It has: {name_list(names)}.")
    return table.column(name) if _is_arrow(table) else table[name]


def _is_arrow(table: Any) -> bool:
    return hasattr(table, "schema") and hasattr(table, "append_column")


def _is_even(column: Any) -> bool:
    """Return whether an Arrow column holds lists of floats of one length, without nulls."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    kind = column.type
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    if column.null_count or not types.is_floating(kind.value_type) or compute.list_flatten(column).null_count:
        return False
    return len(compute.unique(compute.list_value_length(column))) == 1


def _flat(column: Any) -> npt.NDArray[np.floating]:
    import pyarrow.compute as compute

    return np.asarray(compute.list_flatten(column)).reshape(len(column), -1)
