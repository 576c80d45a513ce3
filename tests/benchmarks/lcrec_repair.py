"""LC-Rec's repair loop, for comparison: up to twenty rounds of Sinkhorn inside each group of equal codes.

Zheng et al., "Adapting Large Language Models by Integrating Collaborative Semantics for Recommendation",
2024, `index/generate_indices.py` and `index/models/{vq,layers}.py`. It may leave collisions: identical items
always get the same code, a group does not see which codes are taken, and a group that is small against K is
pushed onto codes that are far from everybody. Use `assign_unique` for IDs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.assign.distances import CHUNK_VALUES, residuals
from semid.assign.keys import pack, run_starts
from semid.quantize.beam import code_scores
from semid.train.sinkhorn import lcrec_sinkhorn

__all__ = ["lcrec_repair", "lcrec_sinkhorn"]


def lcrec_repair(
    latents: npt.NDArray[np.floating],
    codes: npt.NDArray[np.integer],
    codebooks: Sequence[npt.NDArray[np.floating]],
    *,
    rounds: int = 20,
    epsilon: float = 0.003,
    iterations: int = 50,
) -> npt.NDArray[np.int32]:
    """Run LC-Rec's loop: while codes collide, at most `rounds` times, encode each group of equal codes alone.

    Only the last code can change. Groups of one size are solved side by side, which is faster than the
    original and gives what it gives.

    Parameters
    ----------
    latents : float [N, D]
    codes : integer [N, L]
        Raw codes.
    codebooks : L arrays, float [K_l, D]
    rounds, epsilon, iterations
        LC-Rec's own values by default.

    Returns
    -------
    int32 [N, L]
        Codes that may still collide.

    >>> codebooks = [np.zeros((1, 1)), np.array([[0.0], [1.0], [5.0]])]
    >>> lcrec_repair(np.array([[0.1], [0.2]]), np.array([[0, 0], [0, 0]]), codebooks).tolist()
    [[0, 0], [0, 2]]
    >>> lcrec_repair(np.array([[0.1], [0.1]]), np.array([[0, 0], [0, 0]]), codebooks)[:, 1].tolist()
    [0, 0]
    """
    books = [codebook.astype(np.float64) for codebook in codebooks]
    sizes = [len(codebook) for codebook in books]
    codes = codes.astype(np.int32)
    for _ in range(rounds):
        keys = pack(codes, sizes)
        order = np.argsort(keys, kind="stable")
        bounds = run_starts(keys[order])
        counts = np.diff(bounds)
        if (counts == 1).all():
            break
        for count in np.unique(counts[counts > 1]).tolist():
            groups = order[bounds[:-1][counts == count][:, None] + np.arange(count)]  # [G, B]
            step = max(1, CHUNK_VALUES // (count * sizes[-1]))
            for start in range(0, len(groups), step):
                items = groups[start : start + step]
                flat = items.ravel()
                left = residuals(latents[flat], codes[flat, :-1], books[:-1]).reshape(*items.shape, -1)
                distances = code_scores(left, books[-1]) + (left**2).sum(axis=-1, keepdims=True)
                plan = lcrec_sinkhorn(distances, epsilon, iterations)
                codes[items, -1] = plan.argmax(axis=-1)
    return codes
