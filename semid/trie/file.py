"""A trie in a file: one safetensors file, memory-mapped when read, checked so that a walk may trust it.

Reading goes over the arrays once, about 8 ms for a million items. The checksum finds damage; the structure is
checked besides, so that no file, whoever wrote it, leads a walk or a kernel out of the arrays.

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
IDS = "ids"  # uint8 [16], of a trie that knows item ids; older files have none
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
    """Write the file, whole or not at all."""
    base = -1 if trie["base"] is None else trie["base"]
    header = np.array([FORMAT, trie["n_rows"], base, *trie["sizes"], *trie["level_starts"]], np.int64)
    arrays = {"header": header, **{name: trie[name] for name in ARRAYS}}
    if trie["ids"] is not None:
        arrays[IDS] = np.frombuffer(bytes.fromhex(trie["ids"]), np.uint8)
    arrays["checksum"] = np.array([_checksum(arrays)], np.uint32)
    with drafting(path.parent) as draft:
        draft.publish(draft.write(tensor_blocks({f"trie.{name}": array for name, array in arrays.items()})), path.name)


def read_trie(path: Path) -> TrieFields:
    """Map the file; ArtifactError if there is none, or it is damaged, foreign or from a newer semid."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file. Write it with Trie.from_tokenizer(ids, tokenizer).save(...).")
    file = TensorFile(path)
    missing = [name for name in NAMES if name not in file]
    if missing:
        raise ArtifactError(f"{path}: has no array {missing[0]}, so it is not a semid trie. {AGAIN}")
    arrays = {name: file[f"trie.{name}"] for name in ("header", *ARRAYS, IDS) if f"trie.{name}" in file}
    if file["trie.checksum"].tolist() != [_checksum(arrays)]:
        raise ArtifactError(f"{path}: its checksum is wrong: damaged. {AGAIN}")
    trie = _fields(path, **arrays)
    if problem := _problem(trie):
        raise ArtifactError(f"{path}: {problem}: not what this semid writes. {AGAIN}")
    return trie


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    value = 0
    for name in ("header", *ARRAYS, *({IDS} & arrays.keys())):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]), value)
    return value


def _fields(path: Path, header: np.ndarray, **arrays: np.ndarray) -> TrieFields:
    """From the header: format, rows, base, sizes [L], level starts [L + 2]."""
    if header.dtype != np.int64 or header.ndim != 1 or len(header) < 7 or len(header) % 2 == 0:
        raise ArtifactError(f"{path}: header is {header.dtype}{list(header.shape)}: not a semid trie. {AGAIN}")
    ids = arrays.pop(IDS, None)
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
        **arrays,
    }


def _problem(trie: TrieFields) -> str | None:
    """What is wrong with the arrays, if anything."""
    sizes, starts, codes, ptr, rows = (trie[name] for name in ("sizes", "level_starts", "codes", "ptr", "rows"))
    if not all(1 <= size <= MAX_SIZE for size in sizes):
        return f"sizes={list(sizes)} should be from 1 to {MAX_SIZE}"
    if starts[:2] != (0, 1) or any(a >= b for a, b in zip(starts, starts[1:], strict=False)):
        return f"level starts {list(starts)} should rise from 0, 1"
    kinds = {
        "codes": (codes, np.uint8 if max(sizes) <= 256 else np.uint16, starts[-1]),
        "ptr": (ptr, np.int32, starts[-2] + 1),
        "rows": (rows, np.int32, starts[-1] - starts[-2]),
    }
    for name, (array, dtype, length) in kinds.items():
        if array.dtype != dtype or array.shape != (length,):
            return f"{name} is {array.dtype}{list(array.shape)}, expected {np.dtype(dtype)}[{length}]"
    # Every node has children, and those of a level's first node are the first of the next level.
    if tuple(ptr[list(starts[:-1])].tolist()) != starts[1:] or (ptr[1:] <= ptr[:-1]).any():
        return "ptr should rise, each level's into the next level"
    if any(codes[a:b].max() >= size for a, b, size in zip(starts[1:], starts[2:], sizes, strict=False)):
        return f"codes should be below sizes={list(sizes)}"
    if trie["ids"] is not None and len(trie["ids"]) != 32:
        return f"ids is a digest of {len(trie['ids']) // 2} bytes, expected 16"
    if rows.min() < 0 or rows.max() >= trie["n_rows"]:
        return f"rows {rows.min()}..{rows.max()} should be inside 0..{trie['n_rows'] - 1}"
    return None
