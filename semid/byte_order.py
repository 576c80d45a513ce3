"""Rows in the order of their bytes, whatever they are: strings end to end, or vectors.

Eight bytes are compared at a time, as one number, and only rows that tied so far are looked at again. Most rows are
told apart by their first words, so a table larger than memory is read about once. Nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["WORD", "byte_order"]

WORD = 8  # bytes compared at once

Ints = npt.NDArray[np.int64]


def byte_order(
    lengths: Ints, words: Callable[[Ints, int], npt.NDArray[np.uint64]]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Rows in ascending order of their bytes, int64 [N], and which equal the row before them there, bool [N].

    Equal rows keep their order, and a row that begins another comes before it.

    Parameters
    ----------
    lengths : int64 [N]
        Bytes of each row.
    words : callable
        `words(rows, place)`: bytes `place` to `place + 8` of these rows as big-endian numbers, uint64 [len(rows)],
        with zeros past the end of a row.
    """
    order = np.arange(len(lengths))
    repeats = np.zeros(len(order), np.bool_)
    tied = order.copy()  # places in `order` that are not settled yet, group after group
    group = np.zeros(len(order), np.int64)
    place = 0
    while len(tied):
        rows = order[tied]
        word, length = words(rows, place), np.minimum(lengths[rows] - place, WORD + 1)  # + 1: or does it go on?
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
