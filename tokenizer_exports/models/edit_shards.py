"""Edit safetensors files as streams: some tensors get more rows, all other bytes stay as they are.

A shard is read through its header. Bytes are copied in blocks and never decoded, so any dtype will do; only the new
rows are encoded. The order of tensors and the header's metadata are kept.

Not here: which tensors are edited (`on_disk.py`). V rows, H dims.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from semid.encoders.checkpoint import BYTES, PLAIN, Shard, _as_matrix
from semid.errors import ArtifactError

__all__ = ["Edit", "write_edited"]


COPY = 1 << 23  # bytes at once


@dataclass(frozen=True)
class Edit:
    """New rows of a tensor [V, H]; a bias [V] counts as [V, 1]. Old rows after `start + len(rows)` stay."""

    start: int  # the row that `rows` begin at
    rows: npt.NDArray[np.float32]  # (n, H)
    n_rows: int  # of the tensor afterwards
    padding: npt.NDArray[np.float32]  # (H,) - fills what is left up to n_rows


def write_edited(shard: Shard, edits: dict[str, Edit], target: BinaryIO) -> int:
    """Write a shard with the edits applied, and return how many bytes its tensors grew by."""
    order = sorted(shard.entries, key=lambda name: shard.entries[name]["data_offsets"])
    header: dict[str, object] = {} if shard.metadata is None else {"__metadata__": shard.metadata}
    end = 0
    for name in order:
        entry = shard.entries[name]
        start, shape = end, list(entry["shape"])
        if name in edits:
            grown = edits[name].n_rows
            axis = -1 if len(shape) < 2 or shape[0] == 1 else 0
            end += math.prod(shape) // shape[axis] * grown * BYTES[entry["dtype"]]
            shape[axis] = grown
        else:
            end += entry["data_offsets"][1] - entry["data_offsets"][0]
        header[name] = {"dtype": entry["dtype"], "shape": shape, "data_offsets": [start, end]}
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)
    target.write(len(written).to_bytes(8, "little") + written)
    with open(shard.path, "rb") as source:
        for name in order:
            first, last = shard.entries[name]["data_offsets"]
            if name in edits:
                _write_edited_tensor(shard, name, edits[name], source, target)
            else:
                copy_bytes(source, target, shard.start + first, last - first)
    return end - max((entry["data_offsets"][1] for entry in shard.entries.values()), default=0)


def _write_edited_tensor(shard: Shard, name: str, edit: Edit, source: BinaryIO, target: BinaryIO) -> None:
    entry = shard.entries[name]
    n_old, width = _as_matrix(tuple(entry["shape"]))
    row_bytes = width * BYTES[entry["dtype"]]
    at = shard.start + entry["data_offsets"][0]
    end = edit.start + len(edit.rows)
    copy_bytes(source, target, at, edit.start * row_bytes)
    target.write(_encoded(edit.rows, entry["dtype"]))
    if n_old > end:
        copy_bytes(source, target, at + end * row_bytes, (n_old - end) * row_bytes)
    padding = _encoded(edit.padding.reshape(1, -1), entry["dtype"])
    target.write(padding * (edit.n_rows - max(n_old, end)))


def _encoded(rows: npt.NDArray[np.float32], dtype: str) -> bytes:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(rows)).to(getattr(torch, PLAIN[dtype]))
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if rows.size else b""


def copy_bytes(source: BinaryIO, target: BinaryIO, start: int, n_bytes: int) -> None:
    """Copy `n_bytes` from `start` of one file to the end of another, in blocks."""
    source.seek(start)
    while n_bytes:
        block = source.read(min(n_bytes, COPY))
        if not block:
            raise ArtifactError(f"{source.name}: is truncated. Download the model again.")
        target.write(block)
        n_bytes -= len(block)
