"""Keep old codes that are nearly as near as the nearest ones.

If an item lies half-way between two centroids, the slightest change of either gives it another code. That gains
nothing, and a model that learned the old code loses it. So an item keeps its old code at a level, as long as it kept
all earlier ones, if the nearest code is nearer by no more than a share, the tolerance, of the level's mean squared
error:

    |r - c_old|^2  <=  |r - c_nearest|^2  +  tolerance * mean |r - c_nearest|^2

A tolerance of 0 gives the nearest codes; an infinite one keeps a code at any distance. N items, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.quantize.codebooks import Codebooks
from semid.quantize.residual import residual_codes
from semid.runtime.tables import RowTable

__all__ = ["NO_CODE", "keep_old_codes"]

NO_CODE = -1  # of an item that had no code
ROWS_AT_ONCE = 16_384
SAMPLED = 65_536  # rows for the mean errors, evenly spaced

Float64s = npt.NDArray[np.float64]


def keep_old_codes(
    latents: RowTable, codebooks: Codebooks, old_codes: npt.NDArray[np.integer], tolerance: Sequence[float]
) -> npt.NDArray[np.int32]:
    """Return greedy codes, int32 [N, L], or old ones where they are nearly as near.

    Parameters
    ----------
    latents : float [N, d]
        On the grid.
    codebooks : Codebooks
    old_codes : integer [N, L_old]
        `NO_CODE` where there was none. Codes and levels that the codebooks do not have are ignored.
    tolerance : L floats, 0 or more
        Per level, as a share of its mean squared error.
    """
    sample = latents[np.arange(0, len(latents), 1 + len(latents) // SAMPLED)].astype(np.float64)
    errors = _nearest_errors(sample, codebooks)
    allowed = [np.inf if share == np.inf else share * error for share, error in zip(tolerance, errors, strict=True)]
    codes = np.empty((len(latents), len(codebooks.levels)), np.int32)
    for start in range(0, len(latents), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        codes[rows] = _block(latents[rows].astype(np.float64), codebooks, old_codes[rows], allowed)
    return codes


def _block(
    latents: Float64s, codebooks: Codebooks, old_codes: npt.NDArray[np.integer], allowed: Sequence[float]
) -> npt.NDArray[np.int32]:
    residual, codes = latents, list[npt.NDArray[np.int32]]()
    stays = np.ones(len(latents), np.bool_)
    for level, centroids in enumerate(codebooks.levels):
        bias = codebooks.biases[level] if codebooks.biases else None
        nearest = residual_codes(residual, [centroids], biases=[bias])[:, 0]
        old = old_codes[:, level] if level < old_codes.shape[1] else np.full(len(latents), NO_CODE)
        stays &= (old != NO_CODE) & (old < len(centroids))
        rows = np.flatnonzero(stays)
        worse = _costs(residual[rows], centroids, old[rows], bias) - _costs(
            residual[rows], centroids, nearest[rows], bias
        )
        stays[rows] = worse <= allowed[level]
        codes.append(np.where(stays, old, nearest).astype(np.int32))
        residual = residual - centroids[codes[-1]]
    return np.stack(codes, axis=1)


def _costs(
    residual: Float64s, centroids: npt.NDArray[np.float32], codes: npt.NDArray[np.integer], bias: Float64s | None
) -> Float64s:
    """Return the cost of codes of a level: the squared distance minus twice the bias of a balanced assignment."""
    gap = residual - centroids[codes]
    costs = np.einsum("nd,nd->n", gap, gap)
    return costs if bias is None else costs - 2 * bias[codes]


def _nearest_errors(latents: Float64s, codebooks: Codebooks) -> list[float]:
    """Return the mean squared error after each level."""
    codes = codebooks.encode_latents(latents, backend="numpy")
    residual, errors = latents.copy(), []
    for level, centroids in enumerate(codebooks.levels):
        residual -= centroids[codes[:, level]]
        errors.append(float(np.einsum("nd,nd->", residual, residual)) / max(len(latents), 1))
    return errors
