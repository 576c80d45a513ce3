"""One item, one ID, for more items than one would sort at once: first code by first code.

Two items collide only if they share all codes but the last, so what happens under one first code is nothing to the
others, and each can be settled alone: the keys of a 256th of the catalogue are in memory, and no more. One thing
differs from settling all at once (`unique`): who has to leave an overfull prefix stays under its first code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.assign.keys import code_dtype
from semid.assign.unique import Assignment, Certificate, assign_unique
from semid.tables import RowTable

__all__ = ["MANY_ITEMS", "assign_in_parts"]

MANY_ITEMS = 10_000_000  # from here on; `assign_unique` takes about 200 bytes an item


def assign_in_parts(
    latents: RowTable,
    codes: npt.NDArray[np.integer],
    codebooks: Sequence[npt.NDArray[np.floating]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Assignment:
    """What `assign_unique` does, in the memory of the largest part; first codes never change.

    A first code with more items than IDs under it cannot be settled alone: then all are, at once.

    Parameters
    ----------
    latents : float [N, D]
        Rows are asked for as they are needed.
    codes : integer [N, L]
        Raw codes.
    codebooks : L arrays, float [K_l, D]
    progress : callable, optional
        Told (items done, N) after each first code.

    Raises
    ------
    CapacityError, InputError
        As `assign_unique`.

    >>> codebooks = [np.array([[0.0], [10.0]]), np.array([[-1.0], [0.0], [1.0]])]
    >>> latents = np.array([[0.1], [0.2], [10.0]])
    >>> assign_in_parts(latents, np.array([[0, 1], [0, 1], [1, 1]]), codebooks).codes.tolist()
    [[0, 1], [0, 2], [1, 1]]
    """
    sizes = [len(codebook) for codebook in codebooks]
    first = codes[:, 0]
    in_range = len(codes) and first.min() >= 0 and first.max() < sizes[0]
    counts = np.bincount(first, minlength=sizes[0]) if in_range else np.zeros(1, np.int64)
    if not in_range or counts.max() > math.prod(sizes[1:]):
        return assign_unique(latents, codes, codebooks)
    stored = np.empty(codes.shape, code_dtype(sizes))
    certificates, done = [], 0
    for code in np.flatnonzero(counts).tolist():
        rows = np.flatnonzero(first == code)
        part = codes[rows]
        part[:, 0] = 0
        found = assign_unique(_Rows(latents, rows), part, [codebooks[0][code : code + 1], *codebooks[1:]])
        stored[rows] = found.codes
        stored[rows, 0] = code
        certificates.append(found.certificate)
        done += len(rows)
        if progress is not None:
            progress(done, len(codes))
    return Assignment(stored, _together(certificates))


@dataclass(frozen=True)
class _Rows:
    """Some rows of a table, as a table."""

    table: RowTable
    rows: npt.NDArray[np.int64]
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.table.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.table.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> np.ndarray:
        return self.table[self.rows[rows]]


def _together(parts: Sequence[Certificate]) -> Certificate:
    n_items = sum(part.n_items for part in parts)

    def mean(name: str) -> float:
        return math.fsum(getattr(part, name) * part.n_items for part in parts) / n_items

    added = ("n_items", "n_unique", "raw_collisions", "identical", "moved_items", "moved_prefix")
    return Certificate(
        **{name: sum(getattr(part, name) for part in parts) for name in (*added, "overfull_buckets", "overflow_items")},
        largest_bucket=max(part.largest_bucket for part in parts),
        distortion_before=mean("distortion_before"),
        distortion_after=mean("distortion_after"),
    )
