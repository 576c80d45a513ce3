"""Tables of N rows of numbers that need not fit into memory.

A table is filled once, from its first row to its last, and then read by slices or by row numbers. While there is room
it is a NumPy array. After that it lies in an unnamed temporary file, which the system removes when the process ends,
however it ends. Rows of a file are copied out and its pages are released, so reading a file never fills memory: the
process stays as small as its blocks.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Literal, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["MappedRows", "NewTable", "RowTable", "Rows", "Tables", "mapped_rows"]

PIECE_BYTES = 1 << 24  # of a slice, copied before its pages are released
PIECE_ROWS = 64  # of single rows: the system maps up to some 500 KB around each

Rows = slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]


class RowTable(Protocol):
    """N rows of D numbers: a NumPy array, or rows in files. Indexing returns an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""

    @property
    def ndim(self) -> int:
        """2."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        """Return these rows: a slice, row numbers of any shape, or a mask."""


class MappedRows:
    """N rows of D numbers in a mapped file; indexing copies rows out.

    Parameters
    ----------
    array : [N, D]
        A view of the mapping.
    mapping : mmap.mmap
    """

    ndim = 2

    def __init__(self, array: np.ndarray, mapping: mmap.mmap) -> None:
        self._array, self._mapping = array, mapping
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        """Return a copy of these rows: a slice, row numbers of any shape, or a mask."""
        if isinstance(rows, slice):
            return self._slice(range(*rows.indices(len(self))))
        is_mask = rows.dtype == np.bool_
        numbers = np.flatnonzero(rows) if is_mask else rows.ravel()
        found = np.empty((len(numbers), self.shape[1]), self.dtype)
        for at in range(0, len(numbers), PIECE_ROWS):
            found[at : at + PIECE_ROWS] = self._array[numbers[at : at + PIECE_ROWS]]
            self._release()
        return found if is_mask else found.reshape(*rows.shape, self.shape[1])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _slice(self, wanted: range) -> np.ndarray:
        piece = max(1, PIECE_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        for at in range(0, len(wanted), piece):
            part = wanted[at : at + piece]
            stop = part.stop if part.stop >= 0 else None
            found[at : at + piece] = self._array[part.start : stop : part.step]
            self._release()
        return found

    def _release(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)


def mapped_rows(
    file: IO[bytes],
    shape: tuple[int, int],
    dtype: npt.DTypeLike,
    *,
    begin: int = 0,
    order: Literal["C", "F"] = "C",
) -> RowTable:
    """Return the rows that lie in an open file from byte `begin` on, without reading them.

    Parameters
    ----------
    file : binary file
        Open for reading; it may be closed afterwards.
    shape : (N, D)
        An empty array is returned where one of them is 0.
    dtype : dtype
        Of the numbers in the file.
    begin : int
        Byte of the first number.
    order : "C" or "F"
        Whether the rows or the columns lie end to end.
    """
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty range of a file cannot be mapped
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return MappedRows(np.ndarray(shape, dtype, mapping, begin, order=order), mapping)


class Tables:
    """Tables that share an amount of memory; what does not fit goes into temporary files.

    Parameters
    ----------
    room : int
        Bytes of memory.
    folder : Path, optional
        Where the files lie; by default the system's folder for temporary files, which may be in memory itself.

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
        """Return an empty table [n_rows, width]; OSError if its file cannot be made."""
        n_bytes = n_rows * width * np.dtype(dtype).itemsize
        if n_bytes <= self.room:
            self.room -= n_bytes
            return NewTable((n_rows, width), dtype, None)
        self.on_disk += n_bytes
        return NewTable((n_rows, width), dtype, self.file())

    def file(self) -> IO[bytes]:
        """Return an unnamed temporary file, which is closed with the tables; OSError if it cannot be made."""
        file = tempfile.TemporaryFile(dir=self.folder, prefix=".semid-table-")  # noqa: SIM115  closed with the others
        self._files.callback(file.close)
        return file

    def collect(self, blocks: Iterable[np.ndarray]) -> RowTable:
        """Return the rows of blocks [n, D], one after the other, as a float32 table [N, D].

        For sources that tell N at their end. Without blocks the table is empty, [0, 0].

        >>> Tables(room=100).collect(iter([np.zeros((2, 3)), np.ones((1, 3))])).shape
        (3, 3)
        """
        kept: list[npt.NDArray[np.float32]] = []
        file: IO[bytes] | None = None
        n_rows = width = taken = 0
        for block in blocks:
            rows = np.ascontiguousarray(block, np.float32)
            n_rows, width, taken = n_rows + len(rows), rows.shape[1], taken + rows.nbytes
            if file is None and taken > self.room:
                file = self.file()
                for earlier in kept:
                    file.write(earlier.data)
                kept.clear()
            if file is None:
                kept.append(rows)
            else:
                file.write(rows.data)
        if file is None:
            self.room -= taken
            return np.concatenate(kept) if kept else np.empty((0, 0), np.float32)
        self.on_disk += taken
        file.flush()
        return mapped_rows(file, (n_rows, width), np.float32)


class NewTable:
    """A table being filled: `append` blocks until it is full, then `finish`.

    Parameters
    ----------
    shape : (N, D)
    dtype : dtype
    file : binary file or None
        Where it lies; None for memory.
    """

    def __init__(self, shape: tuple[int, int], dtype: npt.DTypeLike, file: IO[bytes] | None) -> None:
        self.shape, self.dtype, self.file = shape, np.dtype(dtype), file
        self.filled = 0
        self._array = np.empty(shape if file is None else (0, 0), dtype)

    def append(self, block: np.ndarray) -> None:
        """Add the next rows, [n, D], of any number type."""
        if self.file is None:
            self._array[self.filled : self.filled + len(block)] = block
        else:
            self.file.write(np.ascontiguousarray(block, self.dtype).data)
        self.filled += len(block)

    def finish(self) -> RowTable:
        """Return the full table; ValueError if rows are missing."""
        if self.filled != self.shape[0]:
            raise ValueError(f"filled={self.filled} should be {self.shape[0]} rows")
        if self.file is None:
            return self._array
        self.file.flush()
        return mapped_rows(self.file, self.shape, self.dtype)
