"""Several processes that learn together, as torchrun starts them: who is who, and the sums that they share.

    torchrun --nproc-per-node 2 -m semid fit items.jsonl -o my-sid

Each process has its share of the rows, one after the other in the order of the ranks. What a learner needs of all
rows are sums, maxima and now and then a few rows: with them every process takes the same decisions and ends with the
same codebooks. The first process alone writes.

With one process every function here gives back what it was given, and torch is not even imported.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "all_max",
    "all_sum",
    "broadcast",
    "from_writer",
    "gather",
    "is_writer",
    "local_rank",
    "one_process_only",
    "place",
    "rank",
    "share",
    "sum_tensors",
    "world",
]

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
PATIENCE = timedelta(hours=6)  # the others wait while the first process does what only one can do

T = TypeVar("T")
_alone: ContextVar[bool] = ContextVar("alone", default=False)


def world() -> int:
    """How many processes learn together; 1 without torchrun."""
    if _alone.get() or not all(name in os.environ for name in VARIABLES):
        return 1
    return int(os.environ["WORLD_SIZE"])


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def local_rank() -> int:
    """Its number among those of this machine, which is also that of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if world() > 1 else 0


def is_writer() -> bool:
    """Is this the one process that writes and speaks?"""
    return rank() == 0


def share(n_rows: int) -> slice:
    """The rows of this process, of `n_rows` that are dealt out in order.

    >>> share(10)
    slice(0, 10, None)
    """
    ends = [number * n_rows // world() for number in (rank(), rank() + 1)]
    return slice(*ends)


def place(n_rows: int) -> tuple[int, int]:
    """(rows of the processes before this one, rows of all), where this one has `n_rows`.

    >>> place(10)
    (0, 10)
    """
    if world() == 1:
        return 0, n_rows
    counts = gather(np.array([n_rows], np.int64))
    return int(counts[: rank()].sum()), int(counts.sum())


def all_sum(values: T) -> T:
    """The sum over all processes of a number or an array of one shape; the same bits everywhere."""
    return values if world() == 1 else _reduced(values, "SUM")


def all_max(values: T) -> T:
    """The largest over all processes, number by number."""
    return values if world() == 1 else _reduced(values, "MAX")


def gather(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The rows [n, ...] of all processes, one after the other; n may differ."""
    if world() == 1:
        return rows
    torch, dist = _torch()
    counts = torch.zeros(world(), dtype=torch.int64)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    # Bytes, since not every type of NumPy is one of torch; and to the longest, since gloo gathers equal sizes only.
    own = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    width = int(np.prod(rows.shape[1:])) * rows.itemsize
    padded = np.zeros((int(counts.max()), width), np.uint8)
    padded[: len(rows)] = own
    parts = [torch.empty(padded.shape, dtype=torch.uint8) for _ in range(world())]
    dist.all_gather(parts, torch.from_numpy(padded))
    every = np.concatenate([part.numpy()[: int(n)] for part, n in zip(parts, counts, strict=True)])
    return every.reshape(-1).view(rows.dtype).reshape(-1, *rows.shape[1:])


def broadcast(values: T) -> T:
    """The first process's numbers, arrays, or any objects made of them; what the others gave is not looked at."""
    if world() == 1:
        return values
    _, dist = _torch()
    box = [values if is_writer() else None]
    dist.broadcast_object_list(box)
    return box[0]


def from_writer(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, for all. Inside, that process is alone: sums are its own.

    >>> from_writer(lambda: 3)
    3
    """
    if world() == 1:
        return make()
    made = None
    if is_writer():
        with _by_itself():
            made = make()
    return broadcast(made)


def sum_tensors(tensors: list[torch.Tensor]) -> None:
    """Add up tensors of one device and type over all processes, in place, with one message."""
    if world() == 1:
        return
    torch, dist = _torch()
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def one_process_only(what: str) -> None:
    """ConfigError if there are several processes."""
    if world() > 1:
        raise ConfigError(f"{what} learns in one process, and torchrun started {world()}. Run it without torchrun.")


@contextmanager
def _by_itself() -> Iterator[None]:
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def _reduced(values: Any, operation: str) -> Any:
    torch, dist = _torch()
    array = np.asarray(values)
    reduced = torch.from_numpy(np.array(array, order="C", ndmin=1))  # a copy: the caller's stays as it is
    dist.all_reduce(reduced, getattr(dist.ReduceOp, operation))
    result = reduced.numpy().reshape(array.shape)
    return result if isinstance(values, np.ndarray) else type(values)(result)


@lru_cache(maxsize=1)
def _torch() -> tuple[Any, Any]:
    """torch and torch.distributed, connected to the other processes."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return torch, dist
