"""Codes by beam search: keep the P best prefixes at each level, and return the best whole ID.

With z the latent, the score of a prefix (k_1, ..., k_m) is

    sum_l  z . C_l[k_l] - |C_l[k_l]|^2 / 2 + bias_l[k_l]   -   sum_{l < m}  C_l[k_l] . C_m[k_m]

half of |z|^2 less its squared error. So one product z . C of a row with all codes of all levels, and tables of the
products of centroids with each other, give every score by additions (the tables of faiss's additive quantizers).
Among prefixes of equal score the lexicographically smallest is kept, as in `reference.beam_codes`, which defines it.

All in float32; a selection whose last place is closer to the next candidate than twice the rounding bound is decided by
float64 scores, exact on the grids of `grid.py`. With S = sum_l max_k |C_l[k]| and B the sum of the largest biases,
the absolute values in the products z . C add up to |z| S at most, and each is rounded fewer than d + 2 L + 6 times;
those in the tables and offsets add up to S^2 + B, and are rounded once and in 2 L + 5 additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.quantize import residual_blocks as blocks
from semid.quantize.grid import float32_error
from semid.runtime.threads import in_threads

__all__ = ["MOST_TABLE_CODES", "beam_codes", "beam_search", "code_scores", "smallest"]


ROWS = 128  # whose scores for the codes of all levels fit into the second-level cache
PART = 32
GROUP = 64  # codes whose largest score is kept apart
MOST_TABLE_CODES = 8192  # of all levels: the tables are float32 [P, P]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tables:
    """Levels one behind the other, each padded to a multiple of GROUP; P padded codes in all."""

    centroids: Floats  # (P, d)
    offsets: Floats  # (P,), -|c|^2 / 2 + bias; -inf where padded
    exact_offsets: npt.NDArray[np.float64]  # (P,)
    products: Floats  # (P, P), C . C^T
    starts: npt.NDArray[np.int64]  # (L + 1,)
    sizes: npt.NDArray[np.int64]  # (L,), not padded
    slope: np.float32  # the error of a score is at most slope |z| + floor
    floor: np.float32

    @classmethod
    def of(cls, levels: Sequence[Floats], biases: Sequence[npt.NDArray[np.float64] | None]) -> Tables:
        starts = np.cumsum([0] + [-(-len(level) // GROUP) * GROUP for level in levels])
        dims = levels[0].shape[1]
        centroids = np.zeros((starts[-1], dims), np.float32)
        exact = np.full(starts[-1], -np.inf)
        reach, dearest = 0.0, 0.0
        for start, level, bias in zip(starts[:-1], levels, biases, strict=True):
            rows = slice(start, start + len(level))
            squares = np.einsum("kd,kd->k", level, level, dtype=np.float64)
            centroids[rows] = level
            exact[rows] = -0.5 * squares if bias is None else bias - 0.5 * squares
            reach += float(np.sqrt(squares.max()))
            dearest += 0.0 if bias is None else float(np.abs(bias).max())
        additions, up = 2 * len(levels) + 6, 1 + 2.0**-20
        products, sums = float32_error(dims + additions) * up, float32_error(additions) * up
        wide = centroids.astype(np.float64)
        return cls(
            centroids, exact.astype(np.float32), exact, (wide @ wide.T).astype(np.float32), starts,
            np.array([len(level) for level in levels]),
            np.float32(products * reach), np.float32(sums * (reach * reach + dearest)),
        )  # fmt: skip


def beam_codes(
    latents: npt.NDArray[np.float64],
    levels: Sequence[Floats],
    width: int,
    *,
    biases: Sequence[npt.NDArray[np.float64] | None] | None = None,
    threads: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> npt.NDArray[np.int32]:
    """Return the codes of latents by beam search, int32 [N, L], the same on any machine and number of threads.

    Parameters
    ----------
    latents : float64 [N, d]
        On the grid: multiples of 2^-20.
    levels : L arrays float32 [K_l, d]
        From `grid.snap_centroids`.
    width : int
        P, prefixes kept at each level. 1 gives the greedy codes.
    biases : per level float64 [K_l] or None, optional
        Added to the scores.
    threads : int, optional
        Cap on the threads; all cores by default.
    advance : callable, optional
        Called with the number of rows done.

    >>> levels = [np.float32([[0, 0], [4, 0]]), np.float32([[0, 0], [0, 3]])]
    >>> beam_codes(np.array([[3.0, 3.0], [0.0, 0.0]]), levels, 2).tolist()
    [[1, 1], [0, 0]]
    """
    biases = list(biases or [None] * len(levels))
    codes = np.empty((len(latents), len(levels)), np.int32)
    tables = None
    if blocks.available() and sum(map(len, levels)) <= MOST_TABLE_CODES:
        tables = Tables.of(levels, biases)
    multiply = blocks.float32_product()
    n_blocks = -(-len(latents) // ROWS)

    def work(part: slice) -> None:
        for block in range(part.start, part.stop):
            rows = slice(block * ROWS, min(len(latents), (block + 1) * ROWS))
            if tables is None:
                codes[rows] = _plain(latents[rows], levels, biases, width)
            else:
                _compiled(latents[rows], tables, width, multiply, codes[rows])
            if advance is not None:
                advance(rows.stop - rows.start)

    in_threads(work, [slice(at, min(n_blocks, at + PART)) for at in range(0, n_blocks, PART)], most=threads)
    return codes


def _compiled(
    latents: npt.NDArray[np.float64],
    tables: Tables,
    width: int,
    multiply: Callable[[Floats, Floats, Floats], object],
    codes: npt.NDArray[np.int32],
) -> None:
    from semid.quantize.beam_numba import search

    rows = np.ascontiguousarray(latents, np.float32)
    scores = np.empty((len(rows), len(tables.offsets)), np.float32)
    multiply(rows, tables.centroids.T, scores)
    search(
        rows, scores, tables.offsets, tables.exact_offsets, tables.centroids, tables.products, tables.starts,
        tables.sizes, tables.slope, tables.floor, width, codes,
    )  # fmt: skip


def _plain(
    latents: npt.NDArray[np.float64],
    levels: Sequence[Floats],
    biases: Sequence[npt.NDArray[np.float64] | None],
    width: int,
) -> npt.NDArray[np.int32]:
    """Search in float64 NumPy; sequences are in lexicographic order, so the first of equal ones is the smallest."""
    codes, scores, _ = beam_search(latents, [level.astype(np.float64) for level in levels], width, biases=biases)
    return codes[np.arange(len(codes)), scores.argmin(axis=1)]


# ---- Beam search over code sequences in float64 NumPy: readable, any number of results, any machine.
# An ID stands for the sum of its code vectors. Its *score* is its squared error minus ‖z‖² and minus twice its codes'
# biases: sums of products r·c and c·c. So for latents and codebooks on the quantizer's grids every score is exact, the
# same on any machine, number of threads and batch. Off the grids results are correct up to rounding.


AnyFloats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]


def code_scores(left: Float64s, codebook: Float64s, bias: Float64s | None = None) -> Float64s:
    """Return what each code [K, D] adds to the score of a prefix with residual `left` [..., D]: float64 [..., K].

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
    """Return the columns of the `count` lowest scores of each row, ascending; of equal scores the first: [n, count].

    NumPy's own partition chooses among equal scores differently on different processors; this does not.

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
    latents: AnyFloats,
    codebooks: Sequence[Float64s],
    width: int,
    *,
    biases: Sequence[Float64s | None] | None = None,
) -> tuple[npt.NDArray[np.int32], Float64s, Float64s]:
    """Search one chunk of latents, keeping the best `width` code sequences at each level.

    Returns
    -------
    codes int32 [n, B, L], scores float64 [n, B], residuals float64 [n, B, D]
        In lexicographic order of the codes. B is `width`, or ∏K if that is less: then all sequences are returned.
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
