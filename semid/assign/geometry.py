"""Distances between latent vectors and IDs: errors, scores, and the beam search over prefixes.

An ID stands for the sum of its code vectors. Whatever is decided is decided by *scores*, an ID's squared
error less ‖z‖²: sums of products r·c and c·c alone. All arithmetic is float64, so for latents and codebooks
on the quantizer's grids every score is exact, hence the same on any machine, number of threads and batch.
Off the grids the results are right to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from semid.threads import in_threads

__all__ = [
    "beam_search",
    "code_scores",
    "nearest_prefixes",
    "residuals",
    "scores_of",
    "smallest",
    "spans",
    "squared_errors",
]

Floats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

CHUNK_VALUES = 1 << 21  # float64 values in one temporary: 16 MB


def spans(n: int, width: int) -> Iterator[slice]:
    """Slices that cover `n` rows of `width` values each, one temporary's worth at a time."""
    step = max(1, CHUNK_VALUES // max(1, width))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


def residuals(latents: Floats, codes: Ints, codebooks: Sequence[Float64s]) -> Float64s:
    """What the levels that `codes` [n, any] covers leave of `latents` [n, D]: float64 [n, D]."""
    left = latents.astype(np.float64)
    for level in range(codes.shape[1]):
        left -= codebooks[level][codes[:, level]]
    return left


def scores_of(latents: Floats, codes: Ints, codebooks: Sequence[Float64s]) -> Float64s:
    """Scores of the (partial) IDs `codes` [n, any] for `latents` [n, D]: ‖z − Σc‖² − ‖z‖², float64 [n].

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


def code_scores(left: Float64s, codebook: Float64s) -> Float64s:
    """What each code [K, D] adds to the score of a prefix that leaves `left` [..., D]: float64 [..., K].

    That is ‖c‖² − 2 r·c.

    >>> code_scores(np.array([[3.0, 4.0]]), np.array([[0.0, 0.0], [3.0, 0.0]])).tolist()
    [[0.0, -9.0]]
    """
    scores = left.reshape(-1, left.shape[-1]) @ (-2.0 * codebook).T
    scores += np.einsum("kd,kd->k", codebook, codebook)
    return scores.reshape(*left.shape[:-1], len(codebook))


def squared_errors(latents: Floats, codes: Ints, codebooks: Sequence[Float64s]) -> Float64s:
    """Each item's squared distance to its own ID: float64 [N]."""
    errors = np.empty(len(latents))

    def measure(part: slice) -> None:
        left = residuals(latents[part], codes[part], codebooks)
        np.einsum("nd,nd->n", left, left, out=errors[part])

    in_threads(measure, list(spans(len(latents), latents.shape[1])))
    return errors


def smallest(scores: Float64s, count: int) -> npt.NDArray[np.int64]:
    """Columns of the `count` lowest scores of each row, ascending; of equal scores the first: [n, count].

    A partition's own choice among equals differs between processors; this one does not.

    >>> smallest(np.array([[4.0, 1.0, 1.0, 0.0, 1.0]]), 3).tolist()
    [[1, 2, 3]]
    """
    n, width = scores.shape
    if count >= width:
        return np.broadcast_to(np.arange(width), (n, width))
    bound = np.partition(scores, count - 1, axis=1)[:, count - 1 : count]
    chosen = scores <= bound
    tied = np.flatnonzero(chosen.sum(axis=1) > count)
    if len(tied):
        equal = scores[tied] == bound[tied]
        wanted = count - (scores[tied] < bound[tied]).sum(axis=1, keepdims=True)
        chosen[tied] &= ~equal | (np.cumsum(equal, axis=1) <= wanted)
    return (np.flatnonzero(chosen) % width).reshape(n, count)


def beam_search(
    latents: Floats, codebooks: Sequence[Float64s], width: int
) -> tuple[npt.NDArray[np.int32], Float64s, Float64s]:
    """The best `width` code sequences kept at each level, for one chunk of latents.

    Returns codes int32 [n, B, L] in lexicographic order, their scores float64 [n, B], and what they leave of
    the latents, float64 [n, B, D]. B is `width`, or ∏K where that is less: then every sequence is there.
    """
    left = latents.astype(np.float64)[:, None, :]
    scores = np.zeros((len(left), 1))
    codes = np.zeros((len(left), 1, 0), np.int32)
    for codebook in codebooks:
        extended = code_scores(left, codebook)
        extended += scores[..., None]
        extended = extended.reshape(len(left), -1)
        kept = smallest(extended, width)
        scores = np.take_along_axis(extended, kept, axis=1)
        parents, chosen = np.divmod(kept, len(codebook))
        left = np.take_along_axis(left, parents[..., None], axis=1) - codebook[chosen]
        codes = np.take_along_axis(codes, parents[..., None], axis=1)
        codes = np.concatenate((codes, chosen[..., None].astype(np.int32)), axis=2)
    return codes, scores, left


def nearest_prefixes(
    latents: Floats, codebooks: Sequence[Float64s], width: int, *, complete: bool = True
) -> tuple[npt.NDArray[np.int32], Float64s]:
    """Up to `width` prefixes of each latent, nearest first by the best full ID under each.

    Returns prefixes int32 [n, P, L − 1] and the scores of those IDs, float64 [n, P]; equal scores in
    lexicographic order. P is `width`, or the number of all prefixes where that is less. Not `complete`: by
    the score of the prefix itself, which saves a search through K codes under each.
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
