"""Distances between latent vectors and IDs: errors, scores, and the nearest prefixes.

Every decision compares *scores*, which are exact on the quantizer's grids (`quantize/beam.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from semid.quantize.beam import beam_search, code_scores
from semid.runtime.tables import RowTable
from semid.runtime.threads import in_threads

__all__ = ["nearest_prefixes", "residuals", "scores_of", "spans", "squared_errors"]

Floats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

CHUNK_VALUES = 1 << 21  # float64 values in one temporary: 16 MB


def spans(n: int, width: int) -> Iterator[slice]:
    """Return slices that cover `n` rows of `width` values each, 16 MB of float64 at a time."""
    step = max(1, CHUNK_VALUES // max(1, width))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


def residuals(latents: Floats, codes: Ints, codebooks: Sequence[Float64s]) -> Float64s:
    """Return the residuals of `latents` [n, D] after the levels that `codes` [n, any] covers: float64 [n, D]."""
    left = latents.astype(np.float64)
    for level in range(codes.shape[1]):
        left -= codebooks[level][codes[:, level]]
    return left


def scores_of(latents: Floats, codes: Ints, codebooks: Sequence[Float64s]) -> Float64s:
    """Return the scores of (partial) IDs `codes` [n, any] for `latents` [n, D]: ‖z − Σc‖² − ‖z‖², float64 [n].

    >>> scores_of(np.array([[3.0, 4.0]]), np.array([[0]]), [np.array([[3.0, 0.0]])]).tolist()
    [-9.0]
    """
    left = latents.astype(np.float64)
    scores = np.zeros(len(left))
    for level in range(codes.shape[1]):
        chosen = codebooks[level][codes[:, level]]
        scores += np.einsum("nd,nd->n", chosen, chosen)
        scores -= 2.0 * np.einsum("nd,nd->n", left, chosen)
        left -= chosen
    return scores


def squared_errors(latents: RowTable, codes: Ints, codebooks: Sequence[Float64s]) -> Float64s:
    """Return each item's squared distance to its own ID: float64 [N]."""
    errors = np.empty(len(latents))

    def measure(part: slice) -> None:
        left = residuals(latents[part], codes[part], codebooks)
        np.einsum("nd,nd->n", left, left, out=errors[part])

    in_threads(measure, list(spans(len(latents), latents.shape[1])))
    return errors


def nearest_prefixes(
    latents: RowTable, codebooks: Sequence[Float64s], width: int, *, complete: bool = True
) -> tuple[npt.NDArray[np.int32], Float64s]:
    """Return up to `width` prefixes of each latent, nearest first by the best full ID under each.

    Parameters
    ----------
    latents : float [n, D]
    codebooks : L arrays, float64 [K_l, D]
    width : int
        P; the number of all prefixes if that is less.
    complete : bool
        False orders by the score of the prefix itself, which saves a search through K codes under each.

    Returns
    -------
    prefixes int32 [n, P, L − 1] and scores float64 [n, P]
        Equal scores in lexicographic order.
    """
    *upper, last = codebooks
    width = min(width, math.prod(len(codebook) for codebook in upper))
    prefixes = np.empty((len(latents), width, len(upper)), np.int32)
    scores = np.empty((len(latents), width))

    def search(part: slice) -> None:
        codes, partial, left = beam_search(latents[part], upper, width)
        best = partial + code_scores(left, last).min(axis=2) if complete else partial
        order = np.argsort(best, axis=1, kind="stable")
        scores[part] = np.take_along_axis(best, order, axis=1)
        prefixes[part] = np.take_along_axis(codes, order[..., None], axis=1)

    in_threads(search, list(spans(len(latents), width * max(map(len, codebooks)))))
    return prefixes, scores
