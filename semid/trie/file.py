"""Write a trie to one safetensors file and read it back, memory-mapped and checked.

Reading passes over the arrays once, about 8 ms for a million items. A checksum finds damage. The structure is checked
too, so that no file, whoever wrote it, can lead a walk or a kernel outside the arrays.

Not here: what the arrays mean (`trie.py`). N items, L levels.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from semid.artifact.atomic import drafting
from semid.artifact.tensors import TensorFile, tensor_blocks
from semid.errors import ArtifactError
from semid.tokens.vocabulary import MAX_SIZE

__all__ = ["TrieFields", "read_trie", "write_trie"]

FORMAT = 1
ARRAYS = ("codes", "ptr", "rows")
IDS = "ids"  # uint8 [16], digest of the item ids; only in files of a trie that knows them
NAMES = [f"trie.{name}" for name in ("header", "checksum", *ARRAYS)]
AGAIN = "Write it again with Trie.save."


class TrieFields(TypedDict):
    """The fields of a `semid.trie.trie.Trie` that a file keeps."""

    sizes: tuple[int, ...]
    level_starts: tuple[int, ...]
    codes: npt.NDArray[np.unsignedinteger]
    ptr: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    n_rows: int
    base: int | None
    ids: str | None


def write_trie(path: Path, trie: TrieFields) -> None:
    """Write the file atomically: a reader sees the old file or the new one."""
    base = -1 if trie["base"] is None else trie["base"]
    header = np.array([FORMAT, trie["n_rows"], base, *trie["sizes"], *trie["level_starts"]], np.int64)
    arrays: dict[str, np.ndarray] = {"header": header, "codes": trie["codes"], "ptr": trie["ptr"], "rows": trie["rows"]}
    if trie["ids"] is not None:
        arrays[IDS] = np.frombuffer(bytes.fromhex(trie["ids"]), np.uint8)
    arrays["checksum"] = np.array([_checksum(arrays)], np.uint32)
    with drafting(path.parent) as draft:
        draft.publish(draft.write(tensor_blocks({f"trie.{name}": array for name, array in arrays.items()})), path.name)


def read_trie(path: Path) -> TrieFields:
    """Map the file into memory and check it.

    Raises
    ------
    ArtifactError
        The file is missing, damaged, not a semid trie, or written by a newer semid.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file. Write it with Trie.from_tokenizer(ids, tokenizer).save(...).")
    file = TensorFile(path)
    missing = [name for name in NAMES if name not in file]
    if missing:
        raise ArtifactError(f"{path}: array {missing[0]} is missing, so this is not a semid trie. {AGAIN}")
    arrays = {name: file[f"trie.{name}"] for name in ("header", *ARRAYS, IDS) if f"trie.{name}" in file}
    if file["trie.checksum"].tolist() != [_checksum(arrays)]:
        raise ArtifactError(f"{path}: damaged: the checksum does not match. {AGAIN}")
    trie = _fields(path, arrays)
    if problem := _problem(trie):
        raise ArtifactError(f"{path}: {problem}. {AGAIN}")
    return trie


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    value = 0
    for name in ("header", *ARRAYS, *({IDS} & arrays.keys())):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]).data, value)
    return value


def _fields(path: Path, arrays: dict[str, np.ndarray]) -> TrieFields:
    """Split the header, int64 [2 L + 5], into format, rows, base, sizes [L] and level starts [L + 2]."""
    header, ids = arrays["header"], arrays.get(IDS)
    if header.dtype != np.int64 or header.ndim != 1 or len(header) < 7 or len(header) % 2 == 0:
        raise ArtifactError(f"{path}: header is {header.dtype}{list(header.shape)}: not a semid trie. {AGAIN}")
    version, n_rows, base, *shape = header.tolist()
    if version != FORMAT:
        raise ArtifactError(f"{path}: format={version}, this semid reads {FORMAT}. Upgrade semid, or write it again.")
    n_levels = len(shape) // 2 - 1
    return {
        "sizes": tuple(shape[:n_levels]),
        "level_starts": tuple(shape[n_levels:]),
        "n_rows": n_rows,
        "base": None if base < 0 else base,
        "ids": None if ids is None else ids.tobytes().hex(),
        "codes": arrays["codes"],
        "ptr": arrays["ptr"],
        "rows": arrays["rows"],
    }


def _problem(trie: TrieFields) -> str | None:
    """Return what is wrong with the arrays; None if nothing is."""
    sizes, starts = trie["sizes"], trie["level_starts"]
    codes, ptr, rows = trie["codes"], trie["ptr"], trie["rows"]
    if not all(1 <= size <= MAX_SIZE for size in sizes):
        return f"sizes={list(sizes)} should be from 1 to {MAX_SIZE}"
    if starts[:2] != (0, 1) or any(a >= b for a, b in zip(starts, starts[1:], strict=False)):
        return f"level_starts={list(starts)} should be ascending and begin with 0, 1"
    kinds: dict[str, tuple[np.ndarray, type[np.integer], int]] = {
        "codes": (codes, np.uint8 if max(sizes) <= 256 else np.uint16, starts[-1]),
        "ptr": (ptr, np.int32, starts[-2] + 1),
        "rows": (rows, np.int32, starts[-1] - starts[-2]),
    }
    for name, (array, dtype, length) in kinds.items():
        if array.dtype != dtype or array.shape != (length,):
            return f"{name} is {array.dtype}{list(array.shape)}, expected {np.dtype(dtype)}[{length}]"
    # Every inner node has children, and a level's first node points to the first node of the next level.
    if tuple(ptr[list(starts[:-1])].tolist()) != starts[1:] or (ptr[1:] <= ptr[:-1]).any():
        return "ptr should be ascending, from each level into the next"
    if any(codes[a:b].max() >= size for a, b, size in zip(starts[1:], starts[2:], sizes, strict=False)):
        return f"codes should be below sizes={list(sizes)}"
    if trie["ids"] is not None and len(trie["ids"]) != 32:
        return f"ids is a digest of {len(trie['ids']) // 2} bytes, expected 16"
    if rows.min() < 0 or rows.max() >= trie["n_rows"]:
        return f"rows {rows.min()}..{rows.max()} should be inside 0..{trie['n_rows'] - 1}"
    return None
