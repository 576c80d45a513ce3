"""Which IDs are in use: for any prefix, how many of its last codes are free, and which.

Answers are worked out for the prefixes that are asked about, from one sorted list of all IDs in use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.assign.keys import pack

__all__ = ["Occupancy"]

Ints = npt.NDArray[np.int64]


class Occupancy:
    """A set of IDs that grows, looked at prefix by prefix.

    Parameters
    ----------
    codes : integer [M, L]
        Every ID in use, once.
    sizes : L ints
        K of each level.

    Attributes
    ----------
    free : int64 [T]
        How many last codes are free, a row for each prefix asked about.
    taken : bool [S, K]
        Which are not, for the prefixes that `slots` was asked about; asking may replace this array.

    >>> occupancy = Occupancy(np.array([[0, 1], [1, 0], [1, 2]]), [2, 3])
    >>> rows = occupancy.rows(np.array([[1], [0]]))
    >>> slots = occupancy.slots(rows)
    >>> occupancy.free[rows].tolist(), occupancy.taken[slots].tolist()
    ([1, 2], [[True, False, True], [False, True, False]])
    """

    def __init__(self, codes: npt.NDArray[np.integer], sizes: Sequence[int]) -> None:
        self._sizes, self._n_codes = sizes[:-1], sizes[-1]
        prefixes = pack(codes[:, :-1], self._sizes)
        order = np.argsort(prefixes, kind="stable")
        self._prefixes, self._last_codes = prefixes[order], codes[order, -1]
        self._known, self._row_of_known = prefixes[:0], np.zeros(0, np.int64)  # ascending keys, their rows
        self._first, self._count = np.zeros((2, 0), np.int64)  # [T] where a row's IDs lie in the sorted list
        self._slot_of_row = np.zeros(0, np.int64)  # [T] -1: not in `taken` yet
        self._n_slots = 0
        self.taken = np.zeros((0, self._n_codes), np.bool_)
        self.free = np.zeros(0, np.int64)

    def rows(self, prefixes: npt.NDArray[np.integer]) -> Ints:
        """The row of `free` that belongs to each prefix [n, L − 1]: int64 [n]."""
        distinct, inverse = np.unique(pack(prefixes, self._sizes), return_inverse=True)
        place = np.searchsorted(self._known, distinct)
        new = np.ones(len(distinct), np.bool_)
        inside = place < len(self._known)
        new[inside] = self._known[place[inside]] != distinct[inside]
        if new.any():
            self._add(distinct[new], place[new])
            place = np.searchsorted(self._known, distinct)
        return self._row_of_known[place][inverse]

    def _add(self, prefixes: npt.NDArray, places: Ints) -> None:
        rows = len(self.free) + np.arange(len(prefixes))
        self._known = np.insert(self._known, places, prefixes)
        self._row_of_known = np.insert(self._row_of_known, places, rows)
        first = np.searchsorted(self._prefixes, prefixes, side="left")
        count = np.searchsorted(self._prefixes, prefixes, side="right") - first
        self._first, self._count = np.append(self._first, first), np.append(self._count, count)
        self._slot_of_row = np.append(self._slot_of_row, np.full(len(rows), -1))
        self.free = np.append(self.free, self._n_codes - count)

    def slots(self, rows: Ints) -> Ints:
        """The row of `taken` that belongs to each row of `free`, each asked once: int64 [n]."""
        new = rows[self._slot_of_row[rows] < 0]
        self._slot_of_row[new] = self._n_slots + np.arange(len(new))
        self._n_slots += len(new)
        if self._n_slots > len(self.taken):
            table = np.zeros((2 * self._n_slots, self._n_codes), np.bool_)
            table[: len(self.taken)] = self.taken
            self.taken = table
        count = self._count[new]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        codes = self._last_codes[np.repeat(self._first[new], count) + within]
        self.taken[np.repeat(self._slot_of_row[new], count), codes] = True
        return self._slot_of_row[rows]

    def take(self, rows: Ints, last_codes: Ints) -> None:
        """Use up free codes, each pair (prefix, code) new; `slots` was asked about all of the rows."""
        self.taken[self._slot_of_row[rows], last_codes] = True
        np.subtract.at(self.free, rows, 1)
