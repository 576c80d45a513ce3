"""Tables: N rows of numbers that need not fit into memory.

A table is filled once, from its first row to its last, and then read by slices or by row numbers. While there is
room it is a NumPy array; after that it lies in a file without a name, which the system removes with the process,
however that ends. Rows of a file are copied out, and its pages handed back, so that reading a file never fills
memory with it: the process stays as small as its blocks.
"""

from __future__ import annotations

import mmap
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

__all__ = ["MappedRows", "NewTable", "RowTable", "Tables", "mapped_rows"]

PIECE_BYTES = 1 << 24  # of a slice, copied before its pages are handed back
PIECE_ROWS = 64  # of single rows: the system maps up to some 500 KB around each


class MappedRows:
    """N rows of D numbers in a mapped file; indexing copies rows out.

    Parameters
    ----------
    array : [N, D], a view of the mapping
    mapping : mmap.mmap
    """

    ndim = 2

    def __init__(self, array: np.ndarray, mapping: mmap.mmap) -> None:
        self._array, self._mapping = array, mapping
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | npt.NDArray) -> np.ndarray:
        """A copy of these rows: a slice, row numbers of any shape, or a mask."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            wanted, piece = range(start, stop, step), max(1, PIECE_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        else:
            rows = np.asarray(rows)
            shape = rows.shape if rows.dtype != np.bool_ else None
            wanted, piece = (rows.ravel() if shape is not None else np.flatnonzero(rows)), PIECE_ROWS
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        for at in range(0, len(wanted), piece):
            part = wanted[at : at + piece]
            if isinstance(part, range):
                part = slice(part.start, part.stop if part.stop >= 0 else None, part.step)
            found[at : at + piece] = self._array[part]
            self._forget()
        return found if isinstance(rows, slice) or shape is None else found.reshape(*shape, self.shape[1])

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _forget(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)


RowTable = np.ndarray | MappedRows


def mapped_rows(
    file: IO[bytes], shape: tuple[int, int], dtype: npt.DTypeLike, *, begin: int = 0, order: str = "C"
) -> RowTable:
    """The rows that lie in an open file from byte `begin` on, without reading them; an empty array for no numbers."""
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty range of a file cannot be mapped
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return MappedRows(np.ndarray(shape, dtype, mapping, begin, order=order), mapping)


class Tables:
    """Tables that share a room of so many bytes in memory; what does not fit goes into files in a folder.

    Parameters
    ----------
    room : int
        Bytes.
    folder : Path, optional
        By default the system's folder for temporary files, which may lie in memory itself.

    >>> with Tables(room=0) as tables:
    ...     table = tables.new(3, 2)
    ...     table.append(np.eye(3, 2, dtype=np.float32))
    ...     table.finish()[np.array([2, 1])].tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, room: int, folder: Path | None = None) -> None:
        self.room = room
        self.folder = folder
        self.on_disk = 0  # bytes
        self._files = ExitStack()

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *failure: object) -> None:
        self._files.close()

    def new(self, n_rows: int, width: int, dtype: npt.DTypeLike = np.float32) -> NewTable:
        """An empty table; OSError where the disk refuses."""
        n_bytes = n_rows * width * np.dtype(dtype).itemsize
        if n_bytes <= self.room:
            self.room -= n_bytes
            return NewTable((n_rows, width), dtype, None)
        self.on_disk += n_bytes
        file = tempfile.TemporaryFile(dir=self.folder, prefix=".semid-table-")  # noqa: SIM115  closed with the others
        self._files.callback(file.close)
        return NewTable((n_rows, width), dtype, file)


class NewTable:
    """A table on its way: `append` blocks until it is full, then `finish`."""

    def __init__(self, shape: tuple[int, int], dtype: npt.DTypeLike, file: IO[bytes] | None) -> None:
        self.shape, self.dtype, self.file = shape, np.dtype(dtype), file
        self.filled = 0
        self._array = np.empty(shape, dtype) if file is None else None

    def append(self, block: np.ndarray) -> None:
        """The next rows, [n, D], of any number type."""
        if self._array is not None:
            self._array[self.filled : self.filled + len(block)] = block
        else:
            self.file.write(np.ascontiguousarray(block, self.dtype).data)
        self.filled += len(block)

    def finish(self) -> RowTable:
        """All rows."""
        if self.filled != self.shape[0]:
            raise ValueError(f"filled={self.filled} should be {self.shape[0]} rows")
        if self._array is not None:
            return self._array
        self.file.flush()
        return mapped_rows(self.file, self.shape, self.dtype)
