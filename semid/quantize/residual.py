"""Greedy residual assignment: the definition of a code, and a fast path that never disagrees with it.

For level l = 0 .. L-1, with r_0 = z:

    c_l     = argmin_k |r_l - C_l[k]|^2  = argmax_k  r_l . C_l[k] - |C_l[k]|^2 / 2     (lowest k on ties)
    r_{l+1} = r_l - C_l[c_l]

Latents and centroids lie on the grids of `grid.py`, so float64 scores are exact and the codes are *defined*:
no thread count, batch size or library can change them. The fast paths (`residual_blocks.py`, compiled and in
threads; here the same in NumPy alone) score in fewer bits; a row whose two best scores lie within twice the rounding
bound is scored again in float64. The bound is the standard one for a dot product of d terms, |error| <= gamma_{d+3}
|r| |c| (`grid.float32_error`), which holds for any order of the additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from semid.quantize import residual_blocks as blocks
from semid.quantize.grid import LATENT_LIMIT, float32_error

__all__ = ["CHUNK", "nearest", "residual_codes", "score_error", "stays_on_float32"]

CHUNK = 1024  # rows whose [CHUNK, K] float32 scores stay in a core's second-level cache at K = 256
FLOAT32_RANGE = 16.0  # below it, a multiple of 2^-20 is exact in float32


def stays_on_float32(levels: Sequence[npt.NDArray[np.float32]], longest: float = LATENT_LIMIT) -> bool:
    """Return whether every residual stays in the range in which float32 holds the 2^-20 grid exactly.

    `longest` is the largest absolute value in the latents.
    """
    reach = sum(np.abs(centroids).max(axis=0, initial=0.0).astype(np.float64) for centroids in levels)
    return longest + float(np.max(reach, initial=0.0)) < FLOAT32_RANGE


def score_error(residual_norms: npt.NDArray[np.float64], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the largest error of one float32 score `r . c - |c|^2 / 2`, per row: float64 [N]."""
    longest = float(np.sqrt(np.max(np.einsum("kd,kd->k", centroids, centroids), initial=0.0)))
    return float32_error(centroids.shape[1] + 3) * (residual_norms * longest + longest * longest)


def nearest(
    residual: npt.NDArray[np.floating], centroids: npt.NDArray[np.float32], bias: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """Return the exact nearest centroid of each row, int64 [N].

    Parameters
    ----------
    residual : float32 [N, d]
        On the grid, held exactly by float32.
    centroids : float32 [K, d]
        On the grid.
    bias : float64 [K], optional
        Added to the scores.
    """
    half = 0.5 * np.einsum("kd,kd->k", centroids, centroids, dtype=np.float64)
    offset = -half if bias is None else bias - half
    scores = residual @ centroids.T
    scores += offset.astype(np.float32)
    best = scores.argmax(axis=1)
    rows = np.arange(len(best))
    top = scores[rows, best]
    scores[rows, best] = -np.inf
    gap = top - scores.max(axis=1)
    norms = np.sqrt(np.einsum("nd,nd->n", residual, residual, dtype=np.float64))
    error = score_error(norms, centroids)
    if bias is not None:
        error = error + np.max(np.abs(bias), initial=0.0) * 2.0**-22
    unsure = np.flatnonzero(gap <= 2 * error)
    if len(unsure):
        exact = residual[unsure].astype(np.float64) @ centroids.T.astype(np.float64) + offset
        best[unsure] = exact.argmax(axis=1)
    return best


def residual_codes(
    latents: npt.NDArray[np.float64],
    levels: Sequence[npt.NDArray[np.float32]],
    *,
    biases: Sequence[npt.NDArray[np.float64] | None] | None = None,
    advance: Callable[[int], object] | None = None,
) -> npt.NDArray[np.int32]:
    """Return the codes of latents on the grid, int32 [N, L], equal to the float64 definition on every row.

    Parameters
    ----------
    latents : float64 [N, d]
        Multiples of 2^-20 (`grid.snap`).
    levels : L arrays float32 [K_l, d]
        From `grid.snap_centroids`.
    biases : per level float64 [K_l] or None, optional
        Added to the scores: the prices of a balanced assignment.
    advance : callable, optional
        Called with the number of rows done.
    """
    codes = np.empty((len(latents), len(levels)), np.int32)
    biases = biases or [None] * len(levels)
    fast = stays_on_float32(levels) or stays_on_float32(levels, float(np.abs(latents).max(initial=0.0)))
    if fast and blocks.worth_it(len(latents)) and all(1 < len(centroids) <= blocks.MOST_CODES for centroids in levels):
        product = blocks.fastest_product(len(latents), levels[0].shape[1], max(map(len, levels)))
        laid_out = [blocks.make_level(*level, product) for level in zip(levels, biases, strict=True)]
        blocks.assign_rows(latents, laid_out, product, codes, advance=advance)
        return codes
    kind: type[np.floating] = np.float32 if fast else np.float64
    for start in range(0, len(latents), CHUNK):
        residual = np.array(latents[start : start + CHUNK], kind, order="C")
        for level, (centroids, bias) in enumerate(zip(levels, biases, strict=True)):
            if fast and len(centroids) > 1:
                chosen = nearest(residual, centroids, bias)
            else:
                chosen = _nearest_float64(residual, centroids, bias)
            codes[start : start + CHUNK, level] = chosen
            residual -= centroids[chosen]
        if advance is not None:
            advance(len(residual))
    return codes


def _nearest_float64(
    residual: npt.NDArray[np.floating], centroids: npt.NDArray[np.float32], bias: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.int64]:
    half = 0.5 * np.einsum("kd,kd->k", centroids, centroids, dtype=np.float64)
    scores = residual.astype(np.float64) @ centroids.T.astype(np.float64) - half
    return (scores if bias is None else scores + bias).argmax(axis=1)
