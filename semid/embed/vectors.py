"""Vectors that the user brings: `.npy` and `.safetensors`, mapped into memory and checked before use.

`read_vectors` looks at the header, the number of rows and every value, a block at a time; what it returns
reads rows when asked for them, so a file larger than memory will do. Beside `vectors.npy` there may be
`vectors.ids.txt`, one item id a line: then rows are found by id, whatever their order in the file.

Not here: making vectors, choosing encoders. Pickled arrays are refused without being unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from semid.errors import SHOWN_PROBLEMS, InputError

__all__ = ["VectorFile", "read_vectors"]

BLOCK_BYTES = 1 << 25  # float32 bytes in memory at once
FLOATS = "float16, float32, float64 or bfloat16"
SAFETENSORS_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}


class VectorFile:
    """N vectors of D dims in a file; rows are read when asked for, as float32.

    Parameters
    ----------
    path : Path
        Where they are, for messages.
    array : float16, float32, float64 or (bfloat16 as) uint16 [rows of the file, D]
        Usually mapped into memory.
    places : int64 [N], optional
        Row i of the vectors is row `places[i]` of the file.

    >>> vectors = VectorFile(Path("v.npy"), np.eye(3, dtype=np.float16))
    >>> vectors.shape, vectors.rows([2, 0]).tolist()
    ((3, 3), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """

    def __init__(self, path: Path, array: np.ndarray, places: npt.NDArray[np.int64] | None = None) -> None:
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
        """The rows of `order` (all of them by default) in that order, float32 [len(order), D], as a copy."""
        if order is None:
            order = slice(None)
        if not isinstance(order, slice):
            order = np.asarray(order, np.int64)
        if self._places is not None:
            order = self._places[order]
        return _as_float32(self._array[order])

    def chunks(self, order: Sequence[int] | npt.NDArray[np.integer] | None = None) -> Iterator[npt.NDArray[np.float32]]:
        """`rows(order)` in pieces of at most 32 MB (at least one row each)."""
        n_rows = len(self) if order is None else len(order)
        step = max(1, BLOCK_BYTES // (4 * self._array.shape[1]))
        for start in range(0, n_rows, step):
            piece = slice(start, start + step)
            yield self.rows(piece if order is None else order[piece])

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        return self.rows().astype(dtype or np.float32, copy=False)


def read_vectors(
    path: str | Path,
    *,
    ids: Sequence[str] | None = None,
    name: str | None = None,
    source: str = "the catalogue",
) -> VectorFile:
    """Open a file of vectors and check all of it.

    Parameters
    ----------
    path : path
        `.npy`, or `.safetensors` with one 2-D tensor, or several and `name`.
    ids : sequence of N strings, optional
        The items in the order of their source. Row i belongs to `ids[i]`, unless `<stem>.ids.txt` beside the
        file says which row is whose; then the file may hold other items too.
    name : str, optional
        The tensor in a `.safetensors` file.
    source : str
        What messages call the file that the ids come from.

    Returns
    -------
    VectorFile
        Row i is the vector of `ids[i]`.

    Raises
    ------
    InputError
        No such file, not the format its name says, damaged or cut short; not 2-D, empty, not floats; another
        number of rows than ids; NaN, infinity, or a number beyond float32, with the first ten items.
    """
    path = Path(path)
    array = _open(path, name)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(
            f"{path}: shape={array.shape} should be (items, dims), both at least 1. Save one row of numbers per item."
        )
    places = None if ids is None else _places(path, ids, array.shape[0], source)
    vectors = VectorFile(path, array, places)
    _check_finite(vectors, ids)
    return vectors


# ---- opening ----------------------------------------------------------------------------------------------


def _open(path: Path, name: str | None) -> np.ndarray:
    openers = {".npy": _open_npy, ".safetensors": _open_safetensors}
    opener = openers.get(path.suffix.lower())
    if opener is None:
        raise InputError(f"{path}: vectors are read from .npy and .safetensors. Use numpy.save.")
    if name is not None and opener is _open_npy:
        raise InputError(f"{path}: name={name!r} chooses a tensor in a .safetensors file. Leave it out.")
    try:
        return opener(path, name)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _open_npy(path: Path, name: None) -> np.ndarray:
    with open(path, "rb") as file:
        start = file.read(6)
        if start != b"\x93NUMPY":
            raise InputError(f"{path}: not a .npy file: it starts with {start!r}. Write it with numpy.save.")
        file.seek(0)
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"version {version} of the format")
            shape, fortran, dtype = read_header(file)
            if min(shape, default=0) < 0:
                raise ValueError(f"shape {shape}")
        except (ValueError, SyntaxError, TokenError) as error:
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


def _open_safetensors(path: Path, name: str | None) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        try:
            with safe_open(path, "np") as checked:  # checks the header against the size of the file
                name = _tensor_name(path, list(checked.keys()), name)
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


def _map(path: Path, begin: int, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty range of a file cannot be mapped
    return np.memmap(path, dtype, "r", begin, shape, order)


def _check_dtype(where: Path | str, dtype: str, is_float: bool) -> None:
    if not is_float:
        raise InputError(f"{where}: dtype={dtype} should be {FLOATS}. Save it with .astype('float32').")


def _check_size(path: Path, have: int, expected: int) -> None:
    if have < expected:
        raise InputError(f"{path}: cut short: {have} bytes of numbers, the header says {expected}. Copy it again.")


# ---- checking ---------------------------------------------------------------------------------------------


def _places(path: Path, ids: Sequence[str], n_rows: int, source: str) -> npt.NDArray[np.int64] | None:
    """Which row of the file each id has; None for the same order."""
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
