"""Arrays that a file holds, by name: which one is meant, and which one holds the ids of its rows.

Not here: the formats (`array_files.py`, `torch_files.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semid.data.strings import PackedStrings, StringPacker
from semid.errors import InputError
from semid.files.problems import name_list
from semid.runtime.tables import Rows, RowTable

__all__ = ["ID_NAMES", "BFloat16Rows", "StoredArray", "as_ids", "choose_array", "find_ids"]

ID_NAMES = ("ids", "item_ids", "id", "item_id")  # of arrays of ids, after the name that the catalog gives them
ID_BLOCK = 1 << 16  # ids converted at a time


@dataclass(frozen=True)
class StoredArray:
    """An array of a file: what its header says, and how to open it."""

    label: str  # for messages: "tensor 'v'", or "" for the only array of a file
    name: str
    shape: tuple[int, ...]
    kind: str  # its type, as the file names it
    dtype: np.dtype  # of the numbers that `rows` gives; of strings: kind "U" or "S"
    open: Callable[[], Any]  # rows [N, D] if it has two axes, else an array or list

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers."""
        return self.dtype.kind in "iu"

    @property
    def is_number(self) -> bool:
        """Whether it holds integers or floats that NumPy and float32 know."""
        return self.dtype.kind in "iu" or (self.dtype.kind == "f" and self.dtype.itemsize in (2, 4, 8))

    def rows(self) -> RowTable:
        """Return the rows [N, D] of an array of two axes, without reading them."""
        found: RowTable = self.open()
        return found


class BFloat16Rows:
    """Rows of bfloat16 numbers, stored as uint16; indexing returns float32.

    >>> BFloat16Rows(np.array([[0x3F80, 0xC000]], np.uint16))[slice(0, 1)].tolist()
    [[1.0, -2.0]]
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, halves: RowTable) -> None:
        self.halves = halves
        self.shape = halves.shape

    def __len__(self) -> int:
        return len(self.halves)

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        """Return these rows as float32: bfloat16 is the upper half of a float32."""
        return (np.asarray(self.halves[rows], np.uint32) << 16).view(np.float32)


def choose_array(path: Path, arrays: Sequence[StoredArray], name: str | None, *, is_code: bool = False) -> StoredArray:
    """Return the array named `name`, else the only one of two axes.

    Parameters
    ----------
    path : Path
        For messages.
    arrays : sequence of StoredArray
    name : str, optional
    is_code : bool
        Whether integers are wanted; else floats and integers are.

    Raises
    ------
    InputError
        No such array, several, one of another shape or of another type.
    """
    what, plural = ("array", "arrays") if path.suffix.lower() == ".npz" else ("tensor", "tensors")
    have = name_list(sorted(one.name for one in arrays))
    if name is not None:
        named = [one for one in arrays if one.name == name]
        if not named or not name:
            raise InputError(f"{path}: no {what} {name!r}. {plural.capitalize()} there: {have}.")
        return _checked(path, named[0], is_code=is_code)
    wanted = [one for one in arrays if len(one.shape) == 2] or [one for one in arrays if one.name not in ID_NAMES]
    wanted = wanted or list(arrays)
    if len(wanted) != 1:
        names = name_list(sorted(one.name for one in wanted))
        example = f"{path.name}#{min((one.name for one in wanted), default='NAME')}"
        raise InputError(
            f"{path}: {len(wanted)} {plural}; expected one. Choose one by its name after #, as in {example}: {names}."
        )
    return _checked(path, wanted[0], is_code=is_code)


def _checked(path: Path, one: StoredArray, *, is_code: bool) -> StoredArray:
    where = f"{path}: {one.label}" if one.label else str(path)
    if not (one.is_integer if is_code else one.is_number):
        expected = "integers" if is_code else "float16, float32, float64, bfloat16 or integers"
        cast = "int32" if is_code else "float32"
        raise InputError(f"{where}: dtype={one.kind} should be {expected}. Save it with .astype('{cast}').")
    if len(one.shape) != 2 or 0 in one.shape:
        axes, row = ("(items, levels)", "codes") if is_code else ("(items, dims)", "numbers")
        raise InputError(
            f"{where}: shape={one.shape} should be {axes}, both at least 1. Save one row of {row} per item."
        )
    return one


def find_ids(
    path: Path, arrays: Iterable[StoredArray], id_field: str, wanted: str | None
) -> tuple[str, PackedStrings] | None:
    """Return where a file holds the ids of its rows, such as "array 'ids'", and these; None where it holds none.

    The array is `wanted`, else the one named `id_field`, `ids`, `item_ids`, `id` or `item_id`, else the only one of
    strings. It has one axis.

    Raises
    ------
    InputError
        No such array, several that it may be, or one that holds neither strings nor integers.
    """
    flat = {one.name: one for one in arrays if len(one.shape) == 1}
    if wanted is not None and wanted not in flat:
        have = name_list(sorted(flat))
        raise InputError(f"{path}: nothing named {wanted!r} with one id per row. Of one axis there: {have}.")
    names = [name for name in (id_field, *ID_NAMES) if name in flat]
    strings = [name for name, one in flat.items() if one.dtype.kind in "US"]
    if wanted is None and not names and len(strings) > 1:
        raise InputError(
            f"{path}: several arrays may hold the item ids: {name_list(sorted(strings))}. Name that one {id_field!r}."
        )
    name = wanted or next(iter(names or strings), None)
    if name is None:
        return None
    one = flat[name]
    if not one.is_integer and one.dtype.kind not in "US":
        raise InputError(f"{path}: {one.label} should hold the item ids as strings or integers; it holds {one.kind}.")
    return one.label, as_ids(f"{path}: {one.label}", one.open())


def as_ids(where: str, values: Any) -> PackedStrings:
    """Return an array or list of strings, bytes or integers as strings; InputError for bytes that are not UTF-8."""
    ids = StringPacker()
    for start in range(0, len(values), ID_BLOCK):
        block = values[start : start + ID_BLOCK]
        for row, value in enumerate(block if isinstance(block, list) else block.tolist(), start + 1):
            try:
                ids.append(value.decode("utf-8") if isinstance(value, bytes) else str(value))
            except UnicodeError:
                raise InputError(f"{where}, row {row}: the id is not valid Unicode. Save ids as str.") from None
    return ids.finish()
