"""Pairs to learn from: items that users met near each other, and batches of pairs without a repeated item.

Only what it is given is read: give training interactions. N items, P pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Histories

__all__ = ["Pairs", "first_uses", "pairs_of_histories"]

WINDOW = 3  # two items of a history are a pair up to this distance, as in the walks of `encoders/collaborative.py`
TRIES = 8  # times as many pairs are drawn as a batch takes, for those that repeat an item

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of different items that one user met near each other, each as often as it was met.

    Parameters
    ----------
    left, right : int64 [P]
        Rows of the catalog.
    met : int64 [N]
        In how many pairs each item is: its popularity.
    """

    left: Ints
    right: Ints
    met: Ints

    def __len__(self) -> int:
        return len(self.left)

    @property
    def sha256(self) -> str:
        """Checksum of the pairs."""
        return hashlib.sha256(np.stack([self.left, self.right]).astype("<i8").tobytes()).hexdigest()

    def batches(self, size: int, steps: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
        """Yield the two sides of `steps` batches, int64 [n] each, n at most `size`; no item is in a batch twice.

        A pair is drawn with a weight of 1 / sqrt(met * met) of its items, so popular items do not fill the batches.
        A batch is smaller where the catalog does not hold `size` pairs without a common item.

        >>> pairs = pairs_of_histories(Histories(np.array([0, 2, 4]), np.array([0, 1, 2, 3]), 0), 4)
        >>> [sorted([*left.tolist(), *right.tolist()]) for left, right in pairs.batches(2, 1, seed=0)]
        [[0, 1, 2, 3]]
        """
        weights = 1 / np.sqrt(self.met[self.left].astype(np.float64) * self.met[self.right])
        bounds = np.cumsum(weights)
        rng = np.random.default_rng([seed, 1])
        for _ in range(steps):
            drawn = np.searchsorted(bounds, rng.random(TRIES * size) * bounds[-1], side="right")
            drawn = drawn[first_uses(self.left[drawn], self.right[drawn], size)]
            swapped = rng.random(len(drawn)) < 0.5
            left, right = self.left[drawn], self.right[drawn]
            yield np.where(swapped, right, left), np.where(swapped, left, right)


def pairs_of_histories(histories: Histories, n_items: int, *, window: int = WINDOW) -> Pairs:
    """Return the pairs of items at most `window` steps apart in one history, the earlier item left.

    Parameters
    ----------
    histories : Histories
        Training interactions as rows of the catalog; unknown items (-1) are in no pair.
    n_items : int
        N.
    window : int
        Steps.

    >>> pairs = pairs_of_histories(Histories(np.array([0, 3]), np.array([2, -1, 0]), 1), 3)
    >>> pairs.left.tolist(), pairs.right.tolist(), pairs.met.tolist()
    ([2], [0], [1, 0, 1])
    """
    rows, user = histories.rows, np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    sides = []
    for apart in range(1, window + 1):
        before, after = rows[:-apart], rows[apart:]
        kept = (user[:-apart] == user[apart:]) & (before >= 0) & (after >= 0) & (before != after)
        sides.append((before[kept], after[kept]))
    left, right = (np.concatenate(side).astype(np.int64) for side in zip(*sides, strict=True))
    return Pairs(left, right, np.bincount(left, minlength=n_items) + np.bincount(right, minlength=n_items))


def first_uses(left: Ints, right: Ints, most: int) -> Ints:
    """Return places of at most `most` pairs, taken in order, that share no item with one taken before.

    >>> first_uses(np.array([0, 1, 3]), np.array([1, 2, 2]), 5).tolist()
    [0, 2]
    """
    used: set[int] = set()
    places = []
    for place, (one, other) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        if one not in used and other not in used:
            used.update((one, other))
            places.append(place)
            if len(places) == most:
                break
    return np.array(places, np.int64)
