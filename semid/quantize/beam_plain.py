"""Beam search over code sequences in float64 NumPy: readable, any number of results, any machine.

An ID stands for the sum of its code vectors. Its *score* is its squared error less ‖z‖², less twice its codes' biases:
sums of products r·c and c·c alone. So for latents and codebooks on the quantizer's grids every score is exact, hence
the same on any machine, number of threads and batch. Off the grids the results are right to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["beam_search", "code_scores", "smallest"]

Floats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]


def code_scores(left: Float64s, codebook: Float64s, bias: Float64s | None = None) -> Float64s:
    """What each code [K, D] adds to the score of a prefix that leaves `left` [..., D]: float64 [..., K].

    That is ‖c‖² − 2 r·c − 2 bias.

    >>> code_scores(np.array([[3.0, 4.0]]), np.array([[0.0, 0.0], [3.0, 0.0]])).tolist()
    [[0.0, -9.0]]
    """
    scores = left.reshape(-1, left.shape[-1]) @ (-2.0 * codebook).T
    scores += np.einsum("kd,kd->k", codebook, codebook)
    if bias is not None:
        scores -= 2.0 * bias
    return scores.reshape(*left.shape[:-1], len(codebook))


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
    latents: Floats,
    codebooks: Sequence[Float64s],
    width: int,
    *,
    biases: Sequence[Float64s | None] | None = None,
) -> tuple[npt.NDArray[np.int32], Float64s, Float64s]:
    """The best `width` code sequences kept at each level, for one chunk of latents.

    Returns codes int32 [n, B, L] in lexicographic order, their scores float64 [n, B], and what they leave of
    the latents, float64 [n, B, D]. B is `width`, or ∏K where that is less: then every sequence is there.
    """
    left = latents.astype(np.float64)[:, None, :]
    scores = np.zeros((len(left), 1))
    codes = np.zeros((len(left), 1, 0), np.int32)
    for codebook, bias in zip(codebooks, biases or [None] * len(codebooks), strict=True):
        extended = code_scores(left, codebook, bias)
        extended += scores[..., None]
        extended = extended.reshape(len(left), -1)
        kept = smallest(extended, width)
        scores = np.take_along_axis(extended, kept, axis=1)
        parents, chosen = np.divmod(kept, len(codebook))
        left = np.take_along_axis(left, parents[..., None], axis=1) - codebook[chosen]
        codes = np.take_along_axis(codes, parents[..., None], axis=1)
        codes = np.concatenate((codes, chosen[..., None].astype(np.int32)), axis=2)
    return codes, scores, left
