"""Arrays in files: `.npy`, `.npz`, `.safetensors`, and tensors that torch saved (`.pt`, `.pth`).

`read_arrays` reads the headers and says which arrays there are. Numbers stay in the file, which is mapped; compressed
ones are unpacked into a temporary file. Every header is checked against the size of its file. Pickled objects are
refused without being unpickled. Not here: what an array means (`stored_arrays.py`, `semid/encoders/vectors.py`).
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from semid.data.stored_arrays import BFloat16Rows, StoredArray
from semid.errors import InputError
from semid.runtime.tables import Tables, mapped_rows

__all__ = ["ARRAY_READERS", "read_arrays"]

SAFETENSORS_DTYPES = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "U8": "<u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip
MAX_DEFLATE = 1032  # times: deflate cannot pack tighter
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, ValueError, RuntimeError)


def read_arrays(path: Path, kind: str, tables: Tables) -> list[StoredArray]:
    """Return the arrays of a file of a kind: a key of `ARRAY_READERS`.

    Raises
    ------
    InputError
        The file is damaged, cut short, or holds pickled objects.
    OSError
        The file cannot be opened.
    """
    return ARRAY_READERS[kind](path, tables)


# ---- .npy and .npz ----------------------------------------------------------------------------------------


def _npy(path: Path, tables: Tables) -> list[StoredArray]:
    with open(path, "rb") as file:
        start = file.read(6)
        if start != b"\x93NUMPY":
            raise InputError(f"{path}: not a .npy file: it starts with {start!r}. Write it with numpy.save.")
        file.seek(0)
        shape, fortran, dtype = _npy_header(path, file)
        begin, size = file.tell(), file.seek(0, 2)
    _check_size(path, size - begin, shape, dtype)
    return [_npy_array(path, "", "", shape, dtype, fortran=fortran, begin=begin, opened=lambda: open(path, "rb"))]


def _npy_header(where: Path | str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read a .npy header: the shape, whether columns lie end to end, and the type of the numbers."""
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
    except (ValueError, SyntaxError, TypeError, TokenError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: damaged header: {error}. Write it again with numpy.save.") from None
    if dtype.hasobject:
        raise InputError(
            f"{where}: holds pickled Python objects, which are never loaded. Save numbers: "
            "numpy.save(path, numpy.stack(vectors).astype('float32')); ids: numpy.array(ids).astype(str)."
        )
    return shape, fortran, dtype


def _check_size(where: Path | str, have: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if have < expected:
        raise InputError(f"{where}: cut short: {have} bytes of numbers, the header says {expected}. Copy it again.")


def _npy_array(
    where: Path | str,
    label: str,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    fortran: bool,
    begin: int,
    opened: Callable[[], IO[bytes]],
) -> StoredArray:
    def rows() -> Any:
        with opened() as file:
            if len(shape) == 2:
                return mapped_rows(file, (shape[0], shape[1]), dtype, begin=begin, order="F" if fortran else "C")
            file.seek(begin)
            n_numbers = int(np.prod(shape, dtype=object))
            data = file.read(n_numbers * dtype.itemsize)
            return np.frombuffer(data, dtype, n_numbers) if data else np.empty(n_numbers, dtype)

    return StoredArray(label, name, shape, dtype.name, dtype, rows)


def _npz(path: Path, tables: Tables) -> list[StoredArray]:
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            size = file.seek(0, 2)
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            found = [_npz_array(path, archive, file, size, member, tables) for member in members]
    except InputError:
        raise
    except (*BROKEN_ZIP, OSError) as error:  # the last: a place outside of the file
        raise InputError(f"{path}: damaged, or not a .npz file ({error}). Write it again with numpy.savez.") from None
    if not found:
        raise InputError(f"{path}: a .zip file without arrays. Write it with numpy.savez.")
    return found


def _npz_array(
    path: Path, archive: zipfile.ZipFile, file: IO[bytes], size: int, member: zipfile.ZipInfo, tables: Tables
) -> StoredArray:
    name = member.filename.removesuffix(".npy")
    label = f"array {name!r}"
    where = f"{path}: {label}"
    is_plain = member.compress_type == zipfile.ZIP_STORED
    if member.flag_bits & 1 or not (is_plain or member.compress_type == zipfile.ZIP_DEFLATED):
        raise InputError(f"{where}: encrypted, or packed as numpy does not. Write it again with numpy.savez.")
    if member.file_size > MAX_DEFLATE * member.compress_size + 4096 or member.compress_size > size:
        raise InputError(f"{where}: damaged: the archive lies about its size. Write it again with numpy.savez.")
    with archive.open(member) as stream:
        shape, fortran, dtype = _npy_header(where, stream)
        begin = stream.tell()
    _check_size(where, member.file_size - begin, shape, dtype)
    if is_plain:  # the numbers lie in the archive as they are
        file.seek(member.header_offset + 26)
        begin += member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        _check_size(where, size - begin, shape, dtype)

    def opened() -> IO[bytes]:
        return open(path, "rb") if is_plain else _unpacked(path, member.filename, tables)

    return _npy_array(where, label, name, shape, dtype, fortran=fortran, begin=begin, opened=opened)


def _unpacked(path: Path, name: str, tables: Tables) -> IO[bytes]:
    """Return a temporary file with the bytes of a member of a .zip file; their checksum is compared on the way."""
    target = tables.file()
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as stream:
            shutil.copyfileobj(stream, target, 1 << 20)
    except (*BROKEN_ZIP, KeyError) as error:
        raise InputError(f"{path}: damaged ({error}). Write it again with numpy.savez.") from None
    target.flush()
    return target


# ---- safetensors ------------------------------------------------------------------------------------------


def _safetensors(path: Path, tables: Tables) -> list[StoredArray]:
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        try:
            with safe_open(path, "np") as checked:  # checks the header against the size of the file
                names = list(checked.keys())
        except SafetensorError as error:
            raise InputError(
                f"{path}: damaged, cut short, or not a safetensors file ({error}). Write it again."
            ) from None
        entries = json.loads(file.read(header_bytes))
    return [_tensor(path, name, entries[name], 8 + header_bytes) for name in names]


def _tensor(path: Path, name: str, entry: dict[str, Any], data: int) -> StoredArray:
    kind, shape = entry["dtype"], tuple(entry["shape"])
    stored = np.dtype(SAFETENSORS_DTYPES.get(kind, np.void))
    begin = data + entry["data_offsets"][0]

    def rows() -> Any:
        with open(path, "rb") as file:
            if len(shape) == 2:
                table = mapped_rows(file, (shape[0], shape[1]), stored, begin=begin)
                return BFloat16Rows(table) if kind == "BF16" else table
            file.seek(begin)
            n_numbers = int(np.prod(shape, dtype=object))
            return np.frombuffer(file.read(n_numbers * stored.itemsize), stored)

    dtype = np.dtype(np.float32) if kind == "BF16" else stored
    return StoredArray(f"tensor {name!r}", name, shape, kind, dtype, rows)


# ---- torch ------------------------------------------------------------------------------------------------


def _torch(path: Path, tables: Tables) -> list[StoredArray]:
    from semid.data.torch_files import read_torch

    return read_torch(path)


ARRAY_READERS: dict[str, Callable[[Path, Tables], list[StoredArray]]] = {
    ".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".pt": _torch,
}  # fmt: skip
