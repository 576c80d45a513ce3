"""Small functions on arrays: sort rows by their bytes, sample rows, scale rows to unit length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["WORD", "byte_order", "divided_by_length", "sample_rows", "unit_rows"]


WORD = 8  # bytes compared at a time

Ints = npt.NDArray[np.int64]


def byte_order(
    lengths: Ints, words: Callable[[Ints, int], npt.NDArray[np.uint64]]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Sort rows by their bytes, whatever they hold: strings or vectors.

    Eight bytes are compared at a time, as one number, and only rows still tied are read again. Most rows differ in
    their first words, so a table larger than memory is read about once. Nothing is copied.

    Parameters
    ----------
    lengths : int64 [N]
        Bytes of each row.
    words : callable
        `words(rows, place)` returns bytes `place` to `place + 8` of these rows as big-endian numbers, uint64
        [len(rows)], with zeros past the end of a row.

    Returns
    -------
    order : int64 [N]
        Row numbers, ascending by bytes. Equal rows keep their order, and a prefix comes before the longer row.
    repeats : bool [N]
        Whether the row at this place equals the one before it.
    """
    order = np.arange(len(lengths))
    repeats = np.zeros(len(order), np.bool_)
    tied = order.copy()  # places in `order` that are not sorted yet, group after group
    group = np.zeros(len(order), np.int64)
    place = 0
    while len(tied):
        rows = order[tied]
        word, length = words(rows, place), np.minimum(lengths[rows] - place, WORD + 1)  # + 1: the row goes on
        by = np.lexsort((length, word, group))
        rows, word, length = rows[by], word[by], length[by]
        order[tied] = rows
        begins = np.ones(len(rows), np.bool_)
        begins[1:] = (group[1:] != group[:-1]) | (word[1:] != word[:-1]) | (length[1:] != length[:-1])
        group = np.cumsum(begins) - 1
        place += WORD
        ended = lengths[rows] <= place
        repeats[tied] = ended & ~begins
        open_still = ~ended & (np.bincount(group)[group] > 1)
        tied, group = tied[open_still], group[open_still]
    return order, repeats


def sample_rows(n_rows: int, most: int, seed: int) -> npt.NDArray[np.int64] | None:
    """Draw `most` of the row numbers 0..n_rows-1 by a seed, ascending, int64 [most]; None if there are no more.

    >>> sample_rows(4, 4, seed=0), len(sample_rows(10, 4, seed=0))
    (None, 4)
    """
    if n_rows <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(n_rows, most, replace=False))


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale rows to unit length, float32 [N, D]; a row of zeros stays as it is.

    >>> unit_rows(np.array([[3, 4], [0, 0]], np.float32)).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    squares = np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True)
    scale = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    scaled: npt.NDArray[np.float32] = (vectors * scale).astype(np.float32)
    return scaled


def divided_by_length(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Divide rows by their length, float32 [N, D]; a row of zeros stays as it is.

    `unit_rows` multiplies by the reciprocal, which may differ in the last bit. Learned artifacts depend on either.

    >>> divided_by_length(np.array([[3, 4], [0, 0]], np.float32)).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
