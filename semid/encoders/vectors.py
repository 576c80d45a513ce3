"""Vectors that the user brings, checked before use: which row belongs to which item, and that all numbers are finite.

`read_vectors` checks the header, the number of rows and every value, a block at a time. Its result reads rows when they
are needed, so files may be larger than memory. Beside `vectors.npy`, or a folder `vectors` of many files, there may be
`vectors.ids.txt` with one item id a line: then rows are found by id, in any order.

Not here: file formats (`vector_files.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.encoders.vector_files import open_vectors
from semid.errors import SHOWN_PROBLEMS, InputError
from semid.runtime.tables import RowTable, Tables

__all__ = ["VectorFile", "read_vectors"]

BLOCK_BYTES = 1 << 25  # float32 bytes in memory at a time
PARQUET_ROOM = 1 << 28  # bytes of a Parquet file's vectors that are kept in memory


class VectorFile:
    """N vectors of D dims in a file; rows are read when they are needed, as float32.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    array : float16, float32, float64 or (bfloat16 as) uint16 [rows of the file, D]
        An array, or rows of a mapped file.
    places : int64 [N], optional
        Row i of the vectors is row `places[i]` of the file.

    >>> vectors = VectorFile(Path("v.npy"), np.eye(3, dtype=np.float16))
    >>> vectors.shape, vectors.rows([2, 0]).tolist()
    ((3, 3), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """

    def __init__(self, path: Path, array: RowTable, places: npt.NDArray[np.int64] | None = None) -> None:
        self.path = path
        self._array = array
        self._places = places

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self), self._array.shape[1]

    def __len__(self) -> int:
        return len(self._array) if self._places is None else len(self._places)

    def rows(self, order: Sequence[int] | npt.NDArray[np.integer] | slice | None = None) -> npt.NDArray[np.float32]:
        """Return a copy of the rows of `order` (all by default) in that order, float32 [len(order), D]."""
        if order is None:
            order = slice(None)
        if not isinstance(order, slice):
            order = np.asarray(order, np.int64)
        if self._places is not None:
            order = self._places[order]
        return _as_float32(self._array[order])

    def chunks(self, order: Sequence[int] | npt.NDArray[np.integer] | None = None) -> Iterator[npt.NDArray[np.float32]]:
        """Yield `rows(order)` in blocks of at most 32 MB, at least one row each."""
        n_rows = len(self) if order is None else len(order)
        step = max(1, BLOCK_BYTES // (4 * self._array.shape[1]))
        for start in range(0, n_rows, step):
            piece = slice(start, start + step)
            yield self.rows(piece if order is None else order[piece])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self.rows().astype(dtype or np.float32, copy=False)


def read_vectors(
    path: str | Path,
    *,
    ids: Sequence[str] | None = None,
    name: str | None = None,
    source: str = "the catalog",
    tables: Tables | None = None,
) -> VectorFile:
    """Open a file of vectors, or a folder of such files, and check all of it.

    Parameters
    ----------
    path : path
        `.npy`; `.safetensors` with one 2-D tensor, or several and `name`; `.parquet` with one column of lists of
        floats, or several and `name`; or a folder of files of one of these formats, in the order of their names.
    ids : sequence of N strings, optional
        The items in the order of their source. Row i belongs to `ids[i]`, unless `<stem>.ids.txt` beside the file names
        the item of each row; then the file may hold other items too.
    name : str, optional
        The tensor in a `.safetensors` file, or the column of a `.parquet` file.
    source : str
        Name of the file that the ids come from, for messages.
    tables : Tables, optional
        Where vectors from Parquet are kept while in use.

    Returns
    -------
    VectorFile
        Row i is the vector of `ids[i]`.

    Raises
    ------
    InputError
        The file does not exist, is not of the format of its name, is damaged or cut short; is not 2-D, empty, or not
        floats; has another number of rows than ids; holds NaN, infinity or numbers beyond float32 (the first ten items
        are named); or shards do not fit together.
    DependencyError
        Parquet without pyarrow installed.
    """
    path = Path(path)
    array = open_vectors(path, name, tables or Tables(PARQUET_ROOM))
    places = None if ids is None else _places(path, ids, array.shape[0], source)
    vectors = VectorFile(path, array, places)
    _check_finite(vectors, ids)
    return vectors


# ---- checking ---------------------------------------------------------------------------------------------


def _places(path: Path, ids: Sequence[str], n_rows: int, source: str) -> npt.NDArray[np.int64] | None:
    """Return the row of the file of each id, int64 [N]; None for the same order."""
    beside = path.with_suffix(".ids.txt")
    if not beside.exists():
        if n_rows != len(ids):
            raise InputError(
                f"{path} has {n_rows} rows, {source} has {len(ids)} items. Give one row per item, in the "
                f"same order, or write the id of each row to {beside.name}."
            )
        return None
    try:
        named = beside.read_text("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{beside}: byte {error.start} is not UTF-8. Save it as UTF-8.") from None
    if len(named) != n_rows:
        raise InputError(f"{beside} has {len(named)} lines, {path} has {n_rows} rows. Expected one each.")
    place: dict[str, int] = {}
    for line, item_id in enumerate(named):
        if place.setdefault(item_id, line) != line:
            raise InputError(f"{beside}:{line + 1}: {item_id!r} is on line {place[item_id] + 1} already.")
    missing = [item_id for item_id in ids if item_id not in place]
    if missing:
        shown = ", ".join(map(repr, missing[:SHOWN_PROBLEMS]))
        raise InputError(f"{beside}: no row for {len(missing)} items of {source}: {shown}. Add them.")
    return np.array([place[item_id] for item_id in ids], np.int64)


def _check_finite(vectors: VectorFile, ids: Sequence[str] | None) -> None:
    bad: list[int] = []
    total = start = 0
    for chunk in vectors.chunks():
        rows = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        total += len(rows)
        bad += (start + rows[: SHOWN_PROBLEMS - len(bad)]).tolist()
        start += len(chunk)
    if total:
        who = [f"row {i}" if ids is None else f"{ids[i]!r} (row {i})" for i in bad]
        more = f" and {total - len(who)} more" if total > len(who) else ""
        raise InputError(
            f"{vectors.path}: {total} rows hold NaN, infinity or numbers beyond float32: {', '.join(who)}"
            f"{more}. Repair those vectors, or leave these items out."
        )


def _as_float32(array: np.ndarray) -> npt.NDArray[np.float32]:
    if array.dtype == np.uint16:  # bfloat16: the upper half of a float32
        return (np.asarray(array, np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # too large for float32 becomes infinity, which the check names
        return np.array(array, np.float32)
