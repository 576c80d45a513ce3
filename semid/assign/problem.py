"""The checked input of an assignment, in canonical order.

Ties are broken by row, so the rows are put into the order of the caller's keys first; after that the result
is a function of the items alone. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.assign.capacity import check_capacity
from semid.assign.distances import spans
from semid.assign.occupancy import CodeList, InUse
from semid.errors import InputError

__all__ = ["Problem"]

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Problem:
    """N items that each need an ID, and the IDs there are."""

    latents: Floats  # [N, D]
    codes: npt.NDArray[np.int32]  # [N, L]
    codebooks: list[npt.NDArray[np.float64]]  # L x [K_l, D]
    occupied: InUse | None  # never empty
    order: npt.NDArray[np.int64] | None  # [N] the caller's row of each canonical row; None: the same

    @property
    def sizes(self) -> list[int]:
        """K of each level."""
        return [len(codebook) for codebook in self.codebooks]

    @classmethod
    def checked(
        cls,
        latents: Floats,
        codes: Ints,
        codebooks: Sequence[Floats],
        *,
        order: Ints | None,
        occupied: Ints | InUse | None,
    ) -> Problem:
        """Raise InputError or CapacityError for what `assign_unique` cannot take."""
        n, depth = len(latents), len(codebooks)
        if latents.ndim != 2 or depth == 0:
            raise InputError(f"latents.ndim={latents.ndim}, levels={depth}: should be 2 and at least 1.")
        for level, codebook in enumerate(codebooks):
            if codebook.ndim != 2 or codebook.shape[1] != latents.shape[1] or not len(codebook):
                found = list(codebook.shape)
                wanted = f"[K, {latents.shape[1]}] with K >= 1"
                raise InputError(f"codebooks[{level}] is {found}; should be {wanted}.")
            _check_finite(codebook, f"codebooks[{level}]")
        sizes = [len(codebook) for codebook in codebooks]
        codes = _checked_codes(codes, "codes", sizes)
        if isinstance(occupied, np.ndarray):
            occupied = CodeList(_checked_codes(occupied, "occupied", sizes), sizes)
        if len(codes) != n:
            raise InputError(f"len(codes)={len(codes)} should be {n}, one row for each latent.")
        _check_finite(latents, "latents")
        n_occupied = 0 if occupied is None else len(occupied)
        check_capacity(n, sizes, occupied=n_occupied)
        rows = _canonical(order, n)
        if rows is not None:
            latents, codes = latents[rows], codes[rows]
        exact = [codebook.astype(np.float64) for codebook in codebooks]
        return cls(latents, codes, exact, occupied if n_occupied else None, rows)


def _checked_codes(codes: Ints, name: str, sizes: Sequence[int]) -> npt.NDArray[np.int32]:
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or not np.issubdtype(codes.dtype, np.integer):
        found = f"{codes.dtype} {list(codes.shape)}"
        raise InputError(f"{name} is {found}; should be integers [N, {len(sizes)}].")
    for level, size in enumerate(sizes):
        column = codes[:, level]
        if len(column) and (column.min() < 0 or column.max() >= size):
            row = int(np.flatnonzero((column < 0) | (column >= size))[0])
            raise InputError(f"{name}[{row}, {level}]={column[row]} should be between 0 and {size - 1}.")
    return codes.astype(np.int32)


def _check_finite(values: Floats, name: str) -> None:
    for part in spans(len(values), values.shape[1]):
        bad = ~np.isfinite(values[part]).all(axis=1)
        if bad.any():
            row = part.start + int(bad.argmax())
            raise InputError(f"{name}[{row}] should be finite, but holds NaN or inf.")


def _canonical(order: Ints | None, n: int) -> npt.NDArray[np.int64] | None:
    """Rows in ascending order of their keys, or None where they are so already."""
    if order is None:
        return None
    if order.shape != (n,):
        raise InputError(f"order.shape={order.shape} should be ({n},), one key for each latent.")
    rows = np.argsort(order, kind="stable")
    keys = order[rows]
    if (keys[1:] == keys[:-1]).any():
        key = keys[1:][keys[1:] == keys[:-1]][0]
        raise InputError(f"order holds {key} more than once; keys should be distinct.")
    return None if (rows == np.arange(n)).all() else rows
