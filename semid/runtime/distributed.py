"""Several processes that learn together, as torchrun starts them: ranks, and the sums that they share.

    torchrun --nproc-per-node 2 -m semid fit items.jsonl -o my-sid

Each process has a share of the rows, in the order of the ranks. A learner needs sums and maxima over all rows, and now
and then a few rows; with them every process makes the same decisions and ends with the same codebooks. Only the first
process writes.

With one process every function returns its argument, and torch is not imported.
"""

from __future__ import annotations

import atexit
import os
import sys
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
    "end_together",
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
MAX_WAIT = timedelta(hours=6)  # the other processes wait while the first does what only one can do

T = TypeVar("T")
_alone: ContextVar[bool] = ContextVar("alone", default=False)


def world() -> int:
    """Return the number of processes that learn together; 1 without torchrun."""
    if _alone.get() or not all(name in os.environ for name in VARIABLES):
        return 1
    return int(os.environ["WORLD_SIZE"])


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def local_rank() -> int:
    """Return the number of this process on its machine, which is also the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if world() > 1 else 0


def is_writer() -> bool:
    """Return whether this is the process that writes files and prints: the first one."""
    return rank() == 0


def share(n_rows: int) -> slice:
    """Return the rows of this process, where `n_rows` are shared out in order.

    >>> share(10)
    slice(0, 10, None)
    """
    ends = [number * n_rows // world() for number in (rank(), rank() + 1)]
    return slice(*ends)


def place(n_rows: int) -> tuple[int, int]:
    """Return (rows of the processes before this one, rows of all processes), where this one has `n_rows`.

    >>> place(10)
    (0, 10)
    """
    if world() == 1:
        return 0, n_rows
    counts = gather(np.array([n_rows], np.int64))
    return int(counts[: rank()].sum()), int(counts.sum())


def all_sum(values: T) -> T:
    """Return the sum over all processes of a number, or of arrays of equal shape; the same bits everywhere."""
    return values if world() == 1 else _reduced(values, "SUM")


def all_max(values: T) -> T:
    """Return the maximum over all processes, element by element."""
    return values if world() == 1 else _reduced(values, "MAX")


def gather(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the rows [n, ...] of all processes, one after the other; n may differ."""
    if world() == 1:
        return rows
    torch, dist = _torch()
    counts = torch.zeros(world(), dtype=torch.int64)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    # As bytes, since torch lacks some types of NumPy; padded to the longest, since gloo gathers equal sizes only.
    own = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    width = int(np.prod(rows.shape[1:])) * rows.itemsize
    padded = np.zeros((int(counts.max()), width), np.uint8)
    padded[: len(rows)] = own
    parts = [torch.empty(padded.shape, dtype=torch.uint8) for _ in range(world())]
    dist.all_gather(parts, torch.from_numpy(padded))
    every = np.concatenate([part.numpy()[: int(n)] for part, n in zip(parts, counts, strict=True)])
    return every.reshape(-1).view(rows.dtype).reshape(-1, *rows.shape[1:])


def broadcast(values: T) -> T:
    """Return the first process's value: numbers, arrays, or objects made of them. The others' values are ignored."""
    if world() == 1:
        return values
    if not is_writer():
        received: T = _receive()
        return received
    _, dist = _torch()
    dist.broadcast_object_list([values])
    return values


def _receive() -> Any:
    """Return what the first process broadcasts."""
    _, dist = _torch()
    box = [None]
    dist.broadcast_object_list(box)
    return box[0]


def from_writer(make: Callable[[], T]) -> T:
    """Call `make` in the first process and return its result in all. Inside, that process counts as the only one.

    >>> from_writer(lambda: 3)
    3
    """
    if world() == 1:
        return make()
    if not is_writer():
        received: T = _receive()
        return received
    with _by_itself():
        made = make()
    return broadcast(made)


def sum_tensors(tensors: list[torch.Tensor]) -> None:
    """Sum tensors of one device and type over all processes, in place, with one message."""
    if world() == 1:
        return
    torch, dist = _torch()
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def one_process_only(what: str) -> None:
    """Raise ConfigError if several processes learn together."""
    if world() > 1:
        raise ConfigError(f"{what} learns in one process, and torchrun started {world()}. Run it without torchrun.")


def end_together() -> None:
    """Wait until all processes have done their work, then end this one at once. One process alone just goes on.

    Torch's threads now and then abort a process whose interpreter is ending (pytorch/pytorch#190489), and torchrun then
    stops the others, perhaps while the first still writes. So nobody ends before everybody is done, and no interpreter
    is taken apart. To be called after success only: a process that failed leaves the others waiting for torchrun.
    """
    if world() == 1 or not _torch.cache_info().currsize:
        return
    _, dist = _torch()
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


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
    """Return torch and torch.distributed, connected to the other processes."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=MAX_WAIT)
        atexit.register(dist.destroy_process_group)
    return torch, dist
