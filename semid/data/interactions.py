"""Interactions: the items that each user interacted with, oldest first, as one compressed sparse row table.

With times and held-out counts where the source has them. Which items are in the catalog is asked later, by `map_to`.
Not here: reading (`interaction_reader.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from semid.errors import InputError
from semid.files.problems import Problems

__all__ = ["Histories", "Interactions"]


@dataclass(frozen=True, eq=False)
class Histories:
    """Interactions as rows of one catalog.

    Parameters
    ----------
    offsets : int64 [U + 1]
        The history of user u is `rows[offsets[u]:offsets[u + 1]]`, oldest first.
    rows : int64 [n]
        Rows of the catalog; -1 for items that it does not hold.
    n_unknown : int
        How many of `rows` are -1.
    """

    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    n_unknown: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"Histories({len(self)} users, {len(self.rows)} events, {self.n_unknown} unknown)"


@dataclass(frozen=True, eq=False)
class Interactions:
    """The histories of U users, n interactions in all. Iterating gives pairs of a user and their item ids.

    Parameters
    ----------
    users : list of U str
        Sorted, unique.
    item_ids : list of str
        Every item of the interactions; sorted, unique.
    offsets : int64 [U + 1]
        The history of user u is `items[offsets[u]:offsets[u + 1]]`, oldest first.
    items : int32 [n]
        Positions in `item_ids`.
    source : str
        Name of the interactions in messages.
    times : float64 [n], optional
        Time of each interaction: numbers as the source has them, dates in microseconds since 1970. None if the source
        lacks some.
    held_out : int64 [U, 2], optional
        How many of each user's last items are held out for validation and for the test (`n_valid`, `n_test`). None if
        the source does not say so for every user.

    >>> from semid.data import read_interactions
    >>> log = read_interactions([{"user": "u", "items": ["b", "a", "b"], "times": [1, 2, 5]}])
    >>> log
    Interactions(1 users, 2 items, 3 events)
    >>> list(log), log.item_ids, log.items.tolist(), log.times.tolist()
    ([('u', ['b', 'a', 'b'])], ['a', 'b'], [1, 0, 1], [1.0, 2.0, 5.0])
    """

    users: list[str]
    item_ids: list[str]
    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    source: str = "interactions"
    times: npt.NDArray[np.float64] | None = None
    held_out: npt.NDArray[np.int64] | None = None
    faults: Mapping[str, Problems] = field(default_factory=dict)  # why "times" or "held_out" is None

    def __len__(self) -> int:
        return len(self.users)

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return ((user, self.history(number)) for number, user in enumerate(self.users))

    def __repr__(self) -> str:
        return f"Interactions({len(self)} users, {len(self.item_ids)} items, {len(self.items)} events)"

    def history(self, user: int) -> list[str]:
        """Return the item ids of the user at position `user`, oldest first."""
        return [self.item_ids[i] for i in self.items[self.offsets[user] : self.offsets[user + 1]]]

    def map_to(self, item_ids: Sequence[str]) -> Histories:
        """Return the histories as rows of `item_ids`, a catalog's ids; -1 for items that it does not hold."""
        place = {item_id: row for row, item_id in enumerate(item_ids)}
        table = np.array([place.get(item_id, -1) for item_id in self.item_ids], np.int64)
        rows = table[self.items]
        return Histories(self.offsets, rows, int(np.count_nonzero(rows < 0)))

    def places(self) -> npt.NDArray[np.int64]:
        """Return the place of each interaction in its user's history, from 0: int64 [n]."""
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def where(self, kept: npt.NDArray[np.bool_]) -> Interactions:
        """Return the interactions where `kept`, bool [n], is true; all users and items stay, some without any.

        Held-out counts are about whole histories, so the result has none.
        """
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            self,
            offsets=before[self.offsets],
            items=self.items[kept],
            times=None if self.times is None else self.times[kept],
            held_out=None,
        )

    def require_times(self) -> npt.NDArray[np.float64]:
        """Return `times`. InputError lists the records that lack them."""
        if self.times is None:
            raise self._fault("times", "no times. Read them from a source that has them.")
        return self.times

    def require_held_out(self) -> npt.NDArray[np.int64]:
        """Return `held_out`. InputError lists the records that lack it."""
        if self.held_out is None:
            raise self._fault("held_out", "no n_valid and n_test. Read them from a source that has them.")
        return self.held_out

    def _fault(self, name: str, otherwise: str) -> InputError:
        if name in self.faults and self.faults[name].total:
            return self.faults[name].error()
        return InputError(f"{self.source}: {otherwise}")
