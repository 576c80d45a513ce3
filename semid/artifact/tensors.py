"""Arrays in one safetensors file: written as one stream, read as memory-mapped views without a copy.

The file is 8 bytes with the header's length, the header (JSON: name -> dtype, shape, place), then the bytes
of the arrays, end to end, little-endian. Any safetensors library can read it; safetensors' own NumPy reader copies each
array, this one does not. Equal arrays give equal bytes.

Not here: what the arrays mean, checksums (`store.py`), bfloat16 and float8, which NumPy does not have.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.errors import ArtifactError, InputError

__all__ = ["TensorFile", "TensorFiles", "plain", "tensor_blocks"]

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
BLOCK = 1 << 24  # bytes per block when writing
LONGEST_HEADER = 100_000_000  # the format's own limit


def plain(name: str, array: npt.ArrayLike) -> np.ndarray:
    """Return the array C-contiguous and little-endian; InputError if the format lacks its dtype."""
    array = np.asarray(array)
    if array.dtype.newbyteorder("<") not in NAMES:
        known = ", ".join(dtype.name for dtype in NAMES)
        raise InputError(f"array {name}: dtype={array.dtype} should be one of {known}. Use astype.")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def tensor_blocks(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file in blocks of at most 16 MB, apart from the header.

    Arrays are sorted by width of dtype, widest first, then by name; so each is aligned, as the format requires.

    >>> file = b"".join(tensor_blocks({"codes": np.array([[65, 66]], np.uint16)}))
    >>> file[8:]
    b'{"codes":{"dtype":"U16","shape":[1,2],"data_offsets":[0,4]}}    A\\x00B\\x00'
    """
    ready = {name: plain(name, array) for name, array in arrays.items()}
    order = sorted(ready, key=lambda name: (-ready[name].itemsize, name))
    header, end = {}, 0
    for name in order:
        start, end = end, end + ready[name].nbytes
        kind = NAMES[ready[name].dtype]
        header[name] = {"dtype": kind, "shape": list(ready[name].shape), "data_offsets": [start, end]}
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)
    yield len(written).to_bytes(8, "little") + written
    for name in order:
        flat = ready[name].reshape(-1).view(np.uint8)
        for start in range(0, len(flat), BLOCK):
            yield flat[start : start + BLOCK].data


class TensorFile(Mapping[str, np.ndarray]):
    """The arrays of a safetensors file by name: read-only views into the mapped file, made on access.

    Opening reads the header and checks it against the size of the file; the arrays are not read.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ArtifactError
        The file is not a safetensors file, is damaged, or is cut short; the message names it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, 2)
                if size < 8:
                    raise self._damaged(f"size={size} is too short for a header")
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ArtifactError):
            raise
        except OSError as error:
            raise ArtifactError(f"{self.path}: cannot be read: {error.strerror}. Check its permissions.") from None
        self.n_bytes = size
        self._places = self._header(size)

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, start = self._places[name]
        return np.ndarray(shape, dtype, buffer=self._bytes, offset=start)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def kind(self, name: str) -> tuple[str, list[int]]:
        """Return (dtype name, shape) from the header, without touching the data."""
        dtype, shape, _ = self._places[name]
        return dtype.name, list(shape)

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: {what}: not a safetensors file, or damaged. Restore it from a copy.")

    def _header(self, size: int) -> dict[str, tuple[np.dtype, tuple[int, ...], int]]:
        length = int.from_bytes(self._bytes[:8], "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise self._damaged(f"header length={length} does not fit into size={size}")
        try:
            header = json.loads(self._bytes[8 : 8 + length].decode())
        except (ValueError, RecursionError):
            raise self._damaged("the header is not JSON") from None
        if not isinstance(header, dict):
            raise self._damaged("the header is not a JSON object")
        header.pop("__metadata__", None)
        places = {name: self._place(name, entry, 8 + length) for name, entry in header.items()}
        end = 8 + length
        for name in sorted(places, key=lambda name: (places[name][2], _n_bytes(places[name]))):
            if places[name][2] != end:
                raise self._damaged(f"array {name} starts at byte {places[name][2]}, expected {end}")
            end += _n_bytes(places[name])
        if end != size:
            raise self._damaged(f"size={size} should be {end} bytes by its header")
        return places

    def _place(self, name: str, entry: object, base: int) -> tuple[np.dtype, tuple[int, ...], int]:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._damaged(f"array {name} should have dtype, shape and data_offsets")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in DTYPES:
            raise self._damaged(f"array {name}: dtype={kind!r} is not among {', '.join(DTYPES)}")
        if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2 or len(shape) > 32:
            raise self._damaged(f"array {name}: shape={shape} data_offsets={offsets} should be whole numbers")
        if offsets[1] - offsets[0] != math.prod(shape) * DTYPES[kind].itemsize:
            raise self._damaged(f"array {name}: shape={shape} of {kind} does not fill data_offsets={offsets}")
        return DTYPES[kind], tuple(shape), base + offsets[0]


class TensorFiles(Mapping[str, np.ndarray]):
    """The arrays of several files as one mapping.

    Raises
    ------
    ArtifactError
        Two files hold an array of the same name.
    """

    def __init__(self, files: Mapping[str, TensorFile]) -> None:
        self._files: dict[str, TensorFile] = {}
        for file in files.values():
            for name in file:
                if name in self._files:
                    raise ArtifactError(f"{file.path}: array {name} is in {self._files[name].path} too. Restore both.")
                self._files[name] = file

    def __getitem__(self, name: str) -> np.ndarray:
        return self._files[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def kind(self, name: str) -> tuple[str, list[int]]:
        """Return (dtype name, shape) from the header, without touching the data."""
        return self._files[name].kind(name)

    def homes(self) -> dict[str, str]:
        """Return the file name of each array."""
        return {name: file.path.name for name, file in self._files.items()}


def _n_bytes(place: tuple[np.dtype, tuple[int, ...], int]) -> int:
    return math.prod(place[1]) * place[0].itemsize


def _whole_numbers(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)
