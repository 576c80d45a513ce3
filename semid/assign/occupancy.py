"""Which IDs are in use: for any prefix, how many of its last codes are free, and which.

Computed only for the prefixes that are asked about. The IDs in use are a list (`CodeList`) or in a ledger of millions
(`semid/ledger/ledger.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from semid.assign.keys import pack

__all__ = ["CodeList", "InUse", "Occupancy"]

Ints = npt.NDArray[np.int64]


class InUse(Protocol):
    """A set of IDs that may not be assigned."""

    def __len__(self) -> int:
        """Return the number of IDs."""

    def contains(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return which of the IDs [n, L] are in it, bool [n]."""

    def last_codes(self, prefixes: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
        """Return the number of its IDs under each prefix [n, L − 1], int64 [n], and their last codes, end to end."""


class CodeList:
    """IDs in use as a sorted list.

    Parameters
    ----------
    codes : integer [M, L]
        In any order.
    sizes : L ints
        K of each level.

    >>> counts, last = CodeList(np.array([[0, 1], [1, 0], [1, 2]]), [2, 3]).last_codes(np.array([[1], [0]]))
    >>> counts.tolist(), last.tolist()
    ([2, 1], [0, 2, 1])
    """

    def __init__(self, codes: npt.NDArray[np.integer], sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._keys, first = np.unique(pack(codes, sizes), return_index=True)
        self._prefixes, self._last_codes = pack(codes[first, :-1], sizes[:-1]), codes[first, -1].astype(np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def contains(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return which of the IDs [n, L] are in it, bool [n]."""
        return np.isin(pack(codes, self._sizes), self._keys)

    def last_codes(self, prefixes: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
        """Return the number of IDs under each prefix [n, L - 1], int64 [n], and their last codes, end to end."""
        wanted = pack(prefixes, self._sizes[:-1])
        first = np.searchsorted(self._prefixes, wanted, side="left")
        count = np.searchsorted(self._prefixes, wanted, side="right") - first
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return count, self._last_codes[np.repeat(first, count) + within]


class Occupancy:
    """A growing set of IDs, looked at prefix by prefix.

    Parameters
    ----------
    sources : sequence of InUse
        The IDs in use; each is in one source.
    sizes : L ints
        K of each level.

    Attributes
    ----------
    free : int64 [T]
        Number of free last codes; a row for each prefix asked about.
    taken : bool [S, K]
        Which last codes are not free, for the prefixes that `slots` was asked about. Asking may replace this array.

    >>> occupancy = Occupancy([CodeList(np.array([[0, 1], [1, 0], [1, 2]]), [2, 3])], [2, 3])
    >>> rows = occupancy.rows(np.array([[1], [0]]))
    >>> slots = occupancy.slots(rows)
    >>> occupancy.free[rows].tolist(), occupancy.taken[slots].tolist()
    ([1, 2], [[True, False, True], [False, True, False]])
    """

    def __init__(self, sources: Sequence[InUse], sizes: Sequence[int]) -> None:
        self._sources, self._sizes, self._n_codes = sources, sizes[:-1], sizes[-1]
        self._known = pack(np.zeros((0, len(self._sizes)), np.int64), self._sizes)  # ascending keys
        self._row_of_known = np.zeros(0, np.int64)
        self._last_codes = np.zeros(0, np.int64)  # in use under the rows when they were first asked about
        self._first, self._count = np.zeros((2, len(sources), 0), np.int64)  # [sources, T] where a row's are
        self._slot_of_row = np.zeros(0, np.int64)  # [T] -1: not in `taken` yet
        self._n_slots = 0
        self.taken = np.zeros((0, self._n_codes), np.bool_)
        self.free = np.zeros(0, np.int64)

    def rows(self, prefixes: npt.NDArray[np.integer]) -> Ints:
        """Return the row of `free` of each prefix [n, L − 1]: int64 [n]."""
        distinct, first, inverse = np.unique(pack(prefixes, self._sizes), return_index=True, return_inverse=True)
        place = np.searchsorted(self._known, distinct)
        new = np.ones(len(distinct), np.bool_)
        inside = place < len(self._known)
        new[inside] = self._known[place[inside]] != distinct[inside]
        if new.any():
            self._add(distinct[new], prefixes[first[new]], place[new])
            place = np.searchsorted(self._known, distinct)
        return self._row_of_known[place][inverse]

    def _add(self, keys: npt.NDArray[Any], prefixes: npt.NDArray[np.integer], places: Ints) -> None:
        rows = len(self.free) + np.arange(len(keys))
        self._known = np.insert(self._known, places, keys)
        self._row_of_known = np.insert(self._row_of_known, places, rows)
        found = [source.last_codes(prefixes) for source in self._sources]
        counts = np.array([count for count, _ in found]).reshape(len(found), len(rows))
        ends = len(self._last_codes) + np.cumsum(counts).reshape(counts.shape)
        self._first = np.concatenate((self._first, ends - counts), axis=1)
        self._count = np.concatenate((self._count, counts), axis=1)
        self._last_codes = np.concatenate([self._last_codes, *(codes for _, codes in found)])
        self._slot_of_row = np.append(self._slot_of_row, np.full(len(rows), -1))
        self.free = np.append(self.free, self._n_codes - counts.sum(axis=0))

    def slots(self, rows: Ints) -> Ints:
        """Return the row of `taken` of each row of `free`, which may not repeat: int64 [n]."""
        new = rows[self._slot_of_row[rows] < 0]
        self._slot_of_row[new] = self._n_slots + np.arange(len(new))
        self._n_slots += len(new)
        if self._n_slots > len(self.taken):
            table = np.zeros((2 * self._n_slots, self._n_codes), np.bool_)
            table[: len(self.taken)] = self.taken
            self.taken = table
        for first, count in zip(self._first[:, new], self._count[:, new], strict=True):
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            codes = self._last_codes[np.repeat(first, count) + within]
            self.taken[np.repeat(self._slot_of_row[new], count), codes] = True
        return self._slot_of_row[rows]

    def take(self, rows: Ints, last_codes: Ints) -> None:
        """Mark free codes as taken. No pair (row, code) may repeat, and `slots` must know all rows."""
        self.taken[self._slot_of_row[rows], last_codes] = True
        np.subtract.at(self.free, rows, 1)
