"""Open files of vectors: `.npy` and `.safetensors` are mapped, `.parquet` is read once, folders of any of them.

Rows are read when they are needed. `stored_ids` reads the ids that a file holds beside its vectors. A header is checked
against the size of its file. Pickled arrays are refused without being unpickled. Not here: which item a row belongs to,
and whether its numbers are finite (`vectors.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np

from semid.data.strings import PackedStrings, StringPacker
from semid.errors import DependencyError, InputError
from semid.runtime.tables import Rows, RowTable, Tables, mapped_rows

__all__ = ["open_vectors", "stored_ids"]

FLOATS = "float16, float32, float64 or bfloat16"
SAFETENSORS_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
PARQUET_ROWS = 8192  # converted at a time
ID_NAMES = ("id", "item_id")  # of columns of ids, after the name that the catalog gives them
ID_TENSORS = ("ids", "item_ids", *ID_NAMES)
ID_DTYPES = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")
INDEX = "__index_level_0__"  # of a pandas table without a name for its index


def open_vectors(path: Path, name: str | None, tables: Tables) -> RowTable:
    """Return the rows of a file, [rows of the file, D], float16, float32, float64 or (bfloat16 as) uint16.

    Parameters
    ----------
    path : Path
        A file, or a folder of files of one format, in the order of their names (`part-2` before `part-10`).
    name : str, optional
        The tensor of a `.safetensors` file, or the column of a `.parquet` file.
    tables : Tables
        Where the vectors of Parquet are kept: its pages are compressed, so single rows cannot be read from the file.

    Raises
    ------
    InputError
        The file does not exist, is not of the format of its name, is damaged or cut short; shards do not fit together.
    DependencyError
        Parquet without pyarrow installed.
    """
    if path.is_dir() and path.suffix.lower() not in OPENERS:
        return _Shards.checked(path, [_open(shard, name, tables) for shard in _shards(path)])
    return _open(path, name, tables)


def _open(path: Path, name: str | None, tables: Tables) -> RowTable:
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise InputError(
            f"{path}: vectors are read from .npy and .safetensors, .parquet and folders of these. Use numpy.save."
        )
    if name is not None and opener is _open_npy:
        raise InputError(f"{path}: name={name!r} chooses a tensor in a .safetensors file. Leave it out.")
    try:
        return opener(path, name, tables)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _open_npy(path: Path, name: str | None, tables: Tables) -> RowTable:
    with open(path, "rb") as file:
        start = file.read(6)
        if start != b"\x93NUMPY":
            raise InputError(f"{path}: not a .npy file: it starts with {start!r}. Write it with numpy.save.")
        file.seek(0)
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ValueError(f"version {version} of the format")
            if min(shape, default=0) < 0:
                raise ValueError(f"shape {shape}")
        except (ValueError, SyntaxError, TypeError, TokenError) as error:
            raise InputError(f"{path}: damaged header: {error}. Write it again with numpy.save.") from None
        begin, size = file.tell(), file.seek(0, 2)
    if dtype.hasobject:
        raise InputError(
            f"{path}: holds pickled Python objects, which are never loaded. Save numbers: "
            "numpy.save(path, numpy.stack(vectors).astype('float32'))."
        )
    _check_dtype(path, dtype.name, dtype.kind == "f" and dtype.itemsize in (2, 4, 8))
    _check_size(path, size - begin, int(np.prod(shape, dtype=object)) * dtype.itemsize)
    return _map(path, begin, dtype, shape, "F" if fortran else "C")


def _open_safetensors(path: Path, name: str | None, tables: Tables) -> RowTable:
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        try:
            with safe_open(path, "np") as checked:  # checks the header against the size of the file
                ranks = {key: len(checked.get_slice(key).get_shape()) for key in checked.keys()}  # noqa: SIM118
                kept = [key for key, rank in ranks.items() if rank != 1 or key not in ID_TENSORS]
                name = _tensor_name(path, kept or list(ranks), name)
        except SafetensorError as error:
            raise InputError(
                f"{path}: damaged, cut short, or not a safetensors file ({error}). Write it again."
            ) from None
        entry = json.loads(file.read(header_bytes))[name]
    kind = entry["dtype"]
    _check_dtype(f"{path}: tensor {name!r}", kind, kind in SAFETENSORS_DTYPES)
    begin = 8 + header_bytes + entry["data_offsets"][0]
    return _map(path, begin, np.dtype(SAFETENSORS_DTYPES[kind]), tuple(entry["shape"]), "C")


def _tensor_name(path: Path, names: list[str], wanted: str | None) -> str:
    have = ", ".join(sorted(names)) or "none"
    if wanted is not None and wanted not in names:
        raise InputError(f"{path}: no tensor {wanted!r}. Tensors there: {have}.")
    if wanted is None and len(names) != 1:
        raise InputError(f"{path}: {len(names)} tensors; expected one. Choose one with name=: {have}.")
    return wanted if wanted is not None else names[0]


def _map(path: Path, begin: int, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> RowTable:
    n_rows, width = _checked_shape(path, shape)
    with open(path, "rb") as file:
        return mapped_rows(file, (n_rows, width), dtype, begin=begin, order=order)


def _checked_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2 or 0 in shape:
        raise _wrong_shape(path, shape)
    return shape[0], shape[1]


def _wrong_shape(path: Path, shape: tuple[int, ...]) -> InputError:
    return InputError(
        f"{path}: shape={shape} should be (items, dims), both at least 1. Save one row of numbers per item."
    )


def _check_dtype(where: Path | str, dtype: str, is_float: bool) -> None:
    if not is_float:
        raise InputError(f"{where}: dtype={dtype} should be {FLOATS}. Save it with .astype('float32').")


def _check_size(path: Path, have: int, expected: int) -> None:
    if have < expected:
        raise InputError(f"{path}: cut short: {have} bytes of numbers, the header says {expected}. Copy it again.")


# ---- Parquet ----------------------------------------------------------------------------------------------


def _open_parquet(path: Path, name: str | None, tables: Tables) -> RowTable:
    with _parquet(path) as file:
        name = _column_name(path, file.schema_arrow, name)
        return _kept(path, name, file, tables)


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file; pyarrow's errors become InputErrors."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError.missing("reading Parquet", "pyarrow", "parquet") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).rstrip('.')}.") from None


def _column_name(path: Path, schema: Any, wanted: str | None) -> str:
    import pyarrow.types as types

    def is_vector(kind: Any) -> bool:
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return is_list and types.is_floating(kind.value_type)

    names = [field.name for field in schema if is_vector(field.type)]
    have = ", ".join(sorted(names)) or "none"
    if wanted is not None and wanted not in names:
        raise InputError(f"{path}: no column {wanted!r} of lists of floats. Such columns there: {have}.")
    if wanted is None and len(names) != 1:
        raise InputError(f"{path}: {len(names)} columns of lists of floats; expected one. Choose with name=: {have}.")
    return wanted if wanted is not None else names[0]


def _kept(path: Path, name: str, file: Any, tables: Tables) -> RowTable:
    """Copy the column into a table, block by block; every row must have a vector, all of one length."""
    import pyarrow.compute

    n_rows, width, table = file.metadata.num_rows, 0, None
    for batch in file.iter_batches(PARQUET_ROWS, columns=[name]):
        column = batch.column(0)
        lengths = pyarrow.compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        if table is None:
            width = int(lengths[0])
            table = tables.new(*_checked_shape(path, (n_rows, width)))
        wrong = np.flatnonzero(lengths != width)
        if len(wrong):
            row = table.filled + int(wrong[0])
            raise InputError(
                f"{path}, row {row + 1}: column {name!r} holds {lengths[wrong[0]]} numbers, expected {width} as in "
                "row 1. Give every row a vector of one length."
            )
        values = column.flatten().to_numpy(zero_copy_only=False)  # a null among the numbers becomes NaN
        table.append(np.asarray(values).reshape(len(column), width))
    if table is None:
        raise _wrong_shape(path, (n_rows, width))
    return table.finish()


def _id_column(path: Path, schema: Any, id_field: str, wanted: str | None) -> str | None:
    """Return the column that holds the ids, None where no column can; InputError where it is unclear which does."""
    import pyarrow.types as types

    def plain(kind: Any) -> Any:
        return kind.value_type if types.is_dictionary(kind) else kind

    kinds = {field.name: plain(field.type) for field in schema}
    repeated = len(kinds) != len(schema.names)
    if wanted is not None and wanted not in kinds:
        raise InputError(f"{path}: no column {wanted!r}. Columns there: {', '.join(sorted(kinds))}.")
    fit = [name for name, kind in kinds.items() if _is_string(kind) or types.is_integer(kind)]
    others = [name for name in fit if name != INDEX or not types.is_integer(kinds[name])]  # old row numbers, mostly
    fit = others or fit
    named = [name for name in ID_NAMES if name in kinds]
    if wanted is None:
        wanted = id_field if id_field in kinds else named[0] if len(named) == 1 else None
    if wanted is None and len(fit) == 1:
        wanted = fit[0]
    if wanted is None and fit:
        raise InputError(
            f"{path}: several columns may hold the item ids: {', '.join(sorted(fit))}. Rename that column to "
            f"{id_field!r}, or leave these columns out to use the order of the rows."
        )
    if wanted is not None and (wanted not in fit or (repeated and schema.names.count(wanted) > 1)):
        what = "is there twice" if wanted in fit else f"holds values of type {kinds[wanted]}"
        raise InputError(f"{path}: column {wanted!r} {what}; expected one column of item ids, strings or integers.")
    return wanted


def _is_string(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _read_ids(path: Path, name: str, file: Any, ids: StringPacker) -> None:
    start = 0
    for batch in file.iter_batches(PARQUET_ROWS, columns=[name]):
        for row, value in enumerate(batch.column(0).to_pylist(), start + 1):
            if value is None:
                raise InputError(f"{path}, row {row}: column {name!r} is empty. Give every vector the id of its item.")
            ids.append(str(value))
        start += len(batch)


def stored_ids(path: Path, id_field: str, wanted: str | None) -> tuple[str, PackedStrings] | None:
    """Return where a file, or a folder of files, holds the ids of its rows, and these; None where it holds none.

    Parquet holds them in the column `wanted`, else in the one named `id_field`, else `id` or `item_id`, else in the
    only column of strings or integers. A `.safetensors` file holds them in a tensor of integers of such a name.

    Raises
    ------
    InputError
        No such column, several that it may be, one that holds something else, or a row without an id.
    """
    is_folder = path.is_dir() and path.suffix.lower() not in OPENERS
    paths = _shards(path) if is_folder else [path]
    opener = OPENERS.get(paths[0].suffix.lower())
    if opener is _open_npy:
        if wanted is not None:
            raise InputError(f"{path}: id_column={wanted!r} names a column of a .parquet file. Leave it out.")
        return None
    read = _parquet_ids if opener is _open_parquet else _safetensors_ids
    names: dict[str | None, Path] = {}
    ids = StringPacker()
    for shard in paths:
        names.setdefault(read(shard, id_field, wanted, ids), shard)
    if len(names) > 1:
        found = "; ".join(f"{shard.name}: {name or 'none'}" for name, shard in names.items())
        raise InputError(f"{path}: the files differ in their ids: {found}. Write them alike.")
    (name,) = names
    kind = "column" if opener is _open_parquet else "tensor"
    return None if name is None else (f"{kind} {name!r}", ids.finish())


def _parquet_ids(path: Path, id_field: str, wanted: str | None, ids: StringPacker) -> str | None:
    """Add the ids of a file, and return the name of their column; None where it has none."""
    with _parquet(path) as file:
        name = _id_column(path, file.schema_arrow, id_field, wanted)
        if name is not None:
            _read_ids(path, name, file, ids)
    return name


def _safetensors_ids(path: Path, id_field: str, wanted: str | None, ids: StringPacker) -> str | None:
    """Add the ids of a file, and return the name of their tensor; None where it has none."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        names = [name for name in (id_field, *ID_TENSORS) if len(shapes.get(name, ())) == 1]
        if wanted is not None and len(shapes.get(wanted, ())) != 1:
            have = ", ".join(sorted(shapes))
            raise InputError(f"{path}: no tensor {wanted!r} with one id per row. Tensors there: {have}.")
        name = wanted or (names[0] if names else None)
        if name is None:
            return None
        if file.get_slice(name).get_dtype() not in ID_DTYPES:
            raise InputError(f"{path}: tensor {name!r} should hold the item ids as integers.")
        for number in file.get_tensor(name).tolist():
            ids.append(str(number))
    return name


OPENERS = {".npy": _open_npy, ".safetensors": _open_safetensors, ".parquet": _open_parquet, ".pq": _open_parquet}


# ---- folders ----------------------------------------------------------------------------------------------


def _shards(folder: Path) -> list[Path]:
    """Return the files of a folder, numbers in their names compared as numbers; all of one format."""

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", path.name)]

    paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in OPENERS), key=natural)
    kinds = sorted({path.suffix.lower() for path in paths})
    if len(kinds) != 1:
        found = " and ".join(kinds) or "no such file"
        raise InputError(f"{folder}: expected files .npy, .safetensors or .parquet, all of one format; found {found}.")
    return paths


class _Shards:
    """Rows of several tables that follow each other."""

    ndim = 2

    def __init__(self, parts: list[RowTable]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self.starts[-1]), parts[0].shape[1])
        self.dtype = parts[0].dtype

    @classmethod
    def checked(cls, folder: Path, parts: list[RowTable]) -> _Shards:
        """Return the shards as one table; InputError if they differ in width or type."""
        kinds = sorted({f"{part.dtype.name} of {part.shape[1]} dims" for part in parts})
        if len(kinds) > 1:
            raise InputError(f"{folder}: the files differ: {'; '.join(kinds)}. Write them alike.")
        return cls(parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        found = np.empty((len(numbers), self.shape[1]), self.dtype)
        part = np.searchsorted(self.starts, numbers, side="right") - 1
        for number in np.unique(part).tolist():
            here = np.flatnonzero(part == number)
            inside = numbers[here] - self.starts[number]
            follow = len(inside) == inside[-1] - inside[0] + 1 and bool((np.diff(inside) == 1).all())
            found[here] = self.parts[number][slice(inside[0], inside[-1] + 1) if follow else inside]
        return found
