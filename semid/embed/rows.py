"""Rows: what every encoder does with the rows of its vectors, whatever they are made of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["batch_starts", "unit_rows"]


def batch_starts(n_rows: int, size: int, *, progress: bool) -> Iterable[int]:
    """Where each batch of `size` rows begins; with a bar on standard error where `progress`.

    >>> list(batch_starts(5, 2, progress=False))
    [0, 2, 4]
    """
    starts = range(0, n_rows, size)
    if not progress:
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc="embed", unit="batch", leave=False)


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The rows scaled to unit length, float32 [N, D]; a row of zeros stays as it is.

    >>> unit_rows(np.array([[3, 4], [0, 0]], np.float32)).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    squares = np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True)
    scale = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    return (vectors * scale).astype(np.float32)
