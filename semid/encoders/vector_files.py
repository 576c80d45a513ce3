"""Open a file of vectors, of whichever format its first bytes say, or a folder of such files.

`.npy`, `.npz`, `.safetensors` and files of torch are mapped; tables and text are read once, in blocks, and kept in
memory or in a temporary file. Rows are read when they are needed. Not here: which item a row belongs to, and whether
its numbers are finite (`vectors.py`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from semid.data.array_files import ARRAY_READERS, read_arrays
from semid.data.stored_arrays import choose_array, find_ids
from semid.data.strings import joined
from semid.encoders.vector_rows import FileVectors, Wanted
from semid.errors import InputError
from semid.files.first_bytes import file_kind
from semid.files.sources import read_fault
from semid.runtime.tables import Rows, RowTable, Tables

__all__ = ["open_vectors"]

TABLES = (".parquet", ".arrow")
PACKING = re.compile(r"\.(gz|bz2|xz|zst|zip)$", re.IGNORECASE)
KINDS = {
    ".npy": ".npy", ".npz": ".npz", ".safetensors": ".safetensors", ".pt": ".pt", ".pth": ".pt",
    ".parquet": ".parquet", ".pq": ".parquet", ".arrow": ".arrow", ".feather": ".arrow", ".ipc": ".arrow",
    ".jsonl": ".json", ".ndjson": ".json", ".json": ".json", ".csv": ".csv", ".tsv": ".csv",
}  # fmt: skip
NAMES = {
    ".npy": "a .npy file", ".npz": "a .npz file", ".safetensors": "a .safetensors file", ".pt": "a file of torch.save",
    ".parquet": "a Parquet file", ".arrow": "an Arrow file", ".json": "JSON", ".csv": "text",
}  # fmt: skip


def open_vectors(path: Path, wanted: Wanted, tables: Tables) -> FileVectors:
    """Return the rows of a file, [rows of the file, D], of any type of integers or floats, and their ids.

    Parameters
    ----------
    path : Path
        A file, or a folder of files of one format, in the order of their names (`part-2` before `part-10`).
    wanted : Wanted
        Which array or column holds the vectors, and which the ids.
    tables : Tables
        Where vectors are kept that single rows cannot be read of: those of tables, text and compressed files.

    Raises
    ------
    InputError
        The file does not exist, is not of the format of its name, is damaged or cut short; shards do not fit together.
    DependencyError
        A file of torch without torch installed.
    """
    if path.is_dir() and path.suffix.lower() not in KINDS:
        found = _joined(path, [(shard, _open(shard, wanted, tables)) for shard in _shards(path)])
    else:
        found = _open(path, wanted, tables)
    if 0 in found.rows.shape:
        shape = found.rows.shape
        raise InputError(
            f"{path}: shape={shape} should be (items, dims), both at least 1. Save one row of numbers per item."
        )
    return found


def _suffix(path: Path) -> str:
    return Path(PACKING.sub("", path.name.lower())).suffix


def _open(path: Path, wanted: Wanted, tables: Tables) -> FileVectors:
    try:
        kind = _kind(path)
        if kind in ARRAY_READERS:
            return _from_arrays(path, kind, wanted, tables)
        if kind in TABLES:
            from semid.encoders.vector_tables import read_table

            return read_table(path, kind, wanted, tables)
        if kind == ".json":
            from semid.encoders.vector_json import read_json

            return read_json(path, wanted, tables)
        from semid.encoders.vector_text import read_text

        return read_text(path, wanted, tables)
    except OSError as error:
        raise InputError(f"{path}: {read_fault(error)}") from None


def _kind(path: Path) -> str:
    """Return the kind of a file: that of its name, which its first bytes must not contradict, else theirs."""
    said = KINDS.get(_suffix(path))
    if said not in (None, ".json", ".csv") and PACKING.search(path.name):
        raise InputError(f"{path}: {NAMES[said]} that is packed. Unpack it first.")
    found = file_kind(path)
    if said is None or said == found:
        return found
    if found == ".csv" and said != ".json":  # bytes that tell nothing: the reader of that kind says what is wrong
        return said
    if (found, said) == (".json", ".csv"):  # a first cell may begin with a bracket
        return said
    right = path.name.removesuffix(path.suffix) + (".jsonl" if found == ".json" else found)
    raise InputError(f"{path}: not {NAMES[said]} by its first bytes, but {NAMES[found]}. Name it {right}.")


def _from_arrays(path: Path, kind: str, wanted: Wanted, tables: Tables) -> FileVectors:
    arrays = read_arrays(path, kind, tables)
    if kind == ".npy" and (wanted.name or wanted.id_name):
        option = f"name={wanted.name!r} chooses" if wanted.name else f"id_column={wanted.id_name!r} names"
        raise InputError(f"{path}: {option} one of several arrays, and a .npy file holds one. Leave it out.")
    rows = choose_array(path, arrays, wanted.name).rows()
    found = find_ids(path, arrays, wanted.id_field, wanted.id_name) if wanted.with_ids and kind != ".npy" else None
    return FileVectors(rows) if found is None else FileVectors(rows, *found)


TEXTS = (".jsonl", ".csv", ".tsv")
SHARDS = (*(suffix for suffix, kind in KINDS.items() if kind not in (".json", ".csv")), *TEXTS)


# ---- folders ----------------------------------------------------------------------------------------------


def _shards(folder: Path) -> list[Path]:
    """Return the files of a folder, numbers in their names compared as numbers; all of one format."""

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", path.name)]

    paths = sorted((path for path in folder.iterdir() if _suffix(path) in SHARDS), key=natural)
    paths = [path for path in paths if _suffix(path) not in TEXTS] or paths  # text beside arrays tells about them
    kinds = sorted({_suffix(path) for path in paths})
    if len(kinds) != 1:
        found = " and ".join(kinds) or "no such file"
        raise InputError(
            f"{folder}: expected files of vectors, such as .npy, .safetensors or .parquet, all of one format; found "
            f"{found}."
        )
    return paths


def _joined(folder: Path, parts: list[tuple[Path, FileVectors]]) -> FileVectors:
    """Return shards as one table with their ids."""
    rows = _Shards.checked(folder, [part.rows for _, part in parts])
    places: dict[str, Path] = {}
    for path, part in parts:
        places.setdefault(part.ids_at, path)
    if len(places) > 1:
        found = "; ".join(f"{path.name}: {where or 'none'}" for where, path in places.items())
        raise InputError(f"{folder}: the files differ in their ids: {found}. Write them alike.")
    ids = [part.ids for _, part in parts if part.ids is not None]
    return FileVectors(rows, parts[0][1].ids_at, joined(ids)) if ids else FileVectors(rows)


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
