"""Rounds of k-means on a GPU: the pass of `lloyd_pass.assign_and_sum` by the kernel `semid.kernels.kmeans_update`.

Which passes go there is said once, around a whole search, by `rounds_on(device)`. The points are copied there for each
pass, which takes a fraction of the time that the scores take on a CPU. Scores are those of float32 to rounding, as on a
CPU, so a point between two centroids may fall to the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt

from semid.kernels.dispatch import uses_triton

__all__ = ["gpu_pass", "rounds_on"]

MOST_DIMS = 1024  # that the kernel takes

Floats = npt.NDArray[np.float32]

_device: ContextVar[str | None] = ContextVar("device of rounds of k-means", default=None)


@contextmanager
def rounds_on(device: str) -> Iterator[None]:
    """Rounds of k-means in this block go to a torch device, if `dispatch` says that Triton works there.

    RuntimeError if SEMID_BACKEND=triton, and it cannot.

    >>> with rounds_on("cpu"):
    ...     gpu_pass(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), None)
    """
    before = _device.set(device if uses_triton(device) else None)
    try:
        yield
    finally:
        _device.reset(before)


def gpu_pass(
    points: Floats, centroids: Floats, prices: Floats | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], npt.NDArray[np.int64], float] | None:
    """The fields of a `lloyd_pass.Pass`; None where this pass is the CPU's. Arguments as for `assign_and_sum`."""
    device = _device.get()
    if device is None or points.shape[1] > MOST_DIMS or not len(points):
        return None
    import torch

    from semid.kernels.kmeans_update import kmeans_update

    there = [None if each is None else torch.tensor(each, device=device) for each in (points, centroids, prices)]
    found = kmeans_update(there[0], there[1], prices=there[2])
    codes, sums, counts = (each.cpu().numpy() for each in (found.codes, found.sums, found.counts))
    wide = centroids.astype(np.float64)
    offsets = 0.5 * np.einsum("kd,kd->k", wide, wide) + (0 if prices is None else prices)
    return codes, sums, counts, float(np.einsum("kd,kd->", sums, wide) - counts @ offsets)
