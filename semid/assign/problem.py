"""The checked input of an assignment. Ties are broken by row number, so callers sort their items first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.assign.capacity import check_capacity
from semid.assign.distances import spans
from semid.assign.occupancy import CodeList, InUse
from semid.errors import InputError
from semid.runtime.tables import RowTable

__all__ = ["Problem"]

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Problem:
    """N items that each need an ID, and the IDs there are."""

    latents: RowTable  # float [N, D]
    codes: npt.NDArray[np.int32]  # [N, L]
    codebooks: list[npt.NDArray[np.float64]]  # L x [K_l, D]
    occupied: InUse | None  # never empty

    @property
    def sizes(self) -> list[int]:
        """K of each level."""
        return [len(codebook) for codebook in self.codebooks]

    @classmethod
    def checked(
        cls,
        latents: RowTable,
        codes: Ints,
        codebooks: Sequence[Floats],
        *,
        occupied: Ints | InUse | None,
    ) -> Problem:
        """Check the arguments of `assign_unique`; InputError or CapacityError if they do not fit."""
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
        exact = [codebook.astype(np.float64) for codebook in codebooks]
        return cls(latents, codes, exact, occupied if n_occupied else None)


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


def _check_finite(values: RowTable, name: str) -> None:
    for part in spans(len(values), values.shape[1]):
        bad = ~np.isfinite(values[part]).all(axis=1)
        if bad.any():
            row = part.start + int(bad.argmax())
            raise InputError(f"{name}[{row}] should be finite, but holds NaN or inf.")
