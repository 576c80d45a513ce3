"""Vectors that the user brings, checked before use: which row belongs to which item, and that all numbers are finite.

`read_vectors` checks the header, the number of rows and every value, a block at a time. Its result reads rows when they
are needed, so files may be larger than memory. Rows with ids are found by id, in any order: a file may have a column
or array of ids, and beside `vectors.npy`, or a folder `vectors` of many files, there may be `vectors.ids.txt` with one
item id a line. The order of the rows counts only where there are no ids.

Not here: file formats (`vector_files.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings, joined
from semid.encoders.vector_files import open_vectors
from semid.encoders.vector_rows import BLOCK_BYTES, FileVectors, Wanted
from semid.errors import SHOWN_PROBLEMS, InputError
from semid.runtime.tables import RowTable, Tables

__all__ = ["VectorFile", "read_vectors"]

logger = logging.getLogger("semid")

READ_ROOM = 1 << 28  # bytes of vectors from tables and text that are kept in memory


class VectorFile:
    """N vectors of D dims in a file; rows are read when they are needed, as float32.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    array : floats or integers [rows of the file, D]
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

    @property
    def by_id(self) -> bool:
        """Whether the vectors were found by the ids of their items, not by the order of the rows."""
        return self._places is not None

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
    id_field: str = "id",
    id_column: str | None = None,
) -> VectorFile:
    """Open a file of vectors, or a folder of such files, and check all of it.

    Parameters
    ----------
    path : path
        `.npy`, `.npz`, `.safetensors`, a tensor or dict that torch saved, `.parquet`, `.arrow`, `.feather`, JSON, CSV
        or word2vec's text; or a folder of files of one format, in the order of their names. Floats and integers of any
        size become float32. `FILE#NAME` chooses one of several arrays, as `name` does.
    ids : sequence of N strings, optional
        The items in the order of their source. Row i belongs to `ids[i]`, unless `<stem>.ids.txt` beside the file, or
        the file itself, names the item of each row. Then rows are found by id, and those of other items are left out
        and counted in a warning.
    name : str, optional
        The array, column or field that holds the vectors, where there are several.
    source : str
        Name of the file that the ids come from, for messages.
    tables : Tables, optional
        Where vectors from tables, text and compressed files are kept while in use.
    id_field : str
        Name of the ids in the catalog. The array, column or field of this name holds the ids, else `id` or `item_id`,
        else the only one of strings (or, in tables, of integers).
    id_column : str, optional
        The array, column or field that holds the ids, instead.

    Returns
    -------
    VectorFile
        Row i is the vector of `ids[i]`.

    Raises
    ------
    InputError
        The file does not exist, is not of the format of its name, is damaged or cut short; is not 2-D, empty, or not
        numbers; has another number of rows than ids; has ids, and one twice or not all of `ids`; has no column
        `id_column`, or several columns that may hold ids; holds NaN, infinity or numbers beyond float32 (the first ten
        items are named); or shards do not fit together.
    """
    path, name = _split_name(Path(path), name)
    beside = path.with_suffix(".ids.txt")
    is_listed = ids is not None and id_column is None and beside.exists()
    wanted = Wanted(name, id_field, id_column, with_ids=ids is not None and not is_listed)
    found = open_vectors(path, wanted, tables or Tables(READ_ROOM))
    places = None if ids is None else _places(path, ids, found, source, beside if is_listed else None)
    vectors = VectorFile(path, found.rows, places)
    _check_finite(vectors, ids)
    return vectors


def _split_name(path: Path, name: str | None) -> tuple[Path, str | None]:
    """Take the name of an array off `FILE#NAME`, unless a file has that name."""
    file, mark, chosen = str(path).partition("#")
    if name is None and mark and chosen and not path.exists():
        return Path(file), chosen
    return path, name


# ---- checking ---------------------------------------------------------------------------------------------


def _places(
    path: Path, ids: Sequence[str], found: FileVectors, source: str, listed: Path | None
) -> npt.NDArray[np.int64] | None:
    """Return the row of the file of each id, int64 [N]; None for the same order."""
    n_rows = len(found.rows)
    if listed is not None:
        return _rows_by_id(str(listed), _listed(listed, path, n_rows), ids, source, at=":{}", advice="Add them.")
    if found.ids is not None:
        where = found.ids_at
        if len(found.ids) != n_rows:
            raise InputError(f"{path}: {where} holds {len(found.ids)} ids for {n_rows} rows. Expected one each.")
        advice = f"Add them. If {where} does not hold item ids, leave it out: without ids the order of the rows counts."
        return _rows_by_id(f"{path}: {where}", found.ids, ids, source, at=", row {}", advice=advice)
    if n_rows != len(ids):
        raise InputError(
            f"{path} has {n_rows} rows, {source} has {len(ids)} items. Give one row per item, in the "
            f"same order, or write the id of each row to {path.with_suffix('.ids.txt').name}."
        )
    return None


def _listed(beside: Path, path: Path, n_rows: int) -> PackedStrings:
    """Return the ids that are listed in a file, one a line."""
    try:
        named = beside.read_text("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{beside}: byte {error.start} is not UTF-8. Save it as UTF-8.") from None
    if len(named) != n_rows:
        raise InputError(f"{beside} has {len(named)} lines, {path} has {n_rows} rows. Expected one each.")
    return PackedStrings.pack(named)


def _rows_by_id(
    where: str, named: PackedStrings, ids: Sequence[str], source: str, *, at: str, advice: str
) -> npt.NDArray[np.int64]:
    """Return the row of `named` that each of `ids` has, int64 [N]; every one must be there, and none twice."""
    wanted = ids if isinstance(ids, PackedStrings) else PackedStrings.pack(ids)
    both = joined([named, wanted])  # sorted together: a dict of all ids would take more memory than the arrays
    again, firsts = both.repeats()
    inside = again < len(named)
    if inside.any():
        row, first = int(again[inside][0]), int(firsts[inside][0])
        kind = at.strip(":, {}") or "line"
        raise InputError(f"{where}{at.format(row + 1)}: {named[row]!r} is on {kind} {first + 1} already.")
    places = np.full(len(wanted), -1, np.int64)
    found = firsts < len(named)
    places[again[found] - len(named)] = firsts[found]
    missing = np.flatnonzero(places < 0)
    if len(missing):
        shown = ", ".join(repr(wanted[int(row)]) for row in missing[:SHOWN_PROBLEMS])
        more = ", ..." if len(missing) > SHOWN_PROBLEMS else ""
        raise InputError(f"{where}: no row for {len(missing)} items of {source}: {shown}{more}. {advice}")
    extra = len(named) - len(np.unique(places))
    if extra:
        logger.warning("%s: left out %s vectors of items that %s does not have", where, f"{extra:,}", source)
    return places


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
    with np.errstate(over="ignore"):  # too large for float32 becomes infinity, which the check names
        return np.array(array, np.float32)
