"""Where the relevant items stand in lists of recommendations, and what that is worth.

R cases, P pairs of a case and a relevant item. An item in the list has the places first ... first + size - 1, each with
probability 1 / size. Sums over places are differences of running sums, so no list is walked through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.evaluation.ranked_lists import RankedLists

__all__ = ["Hits"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Hits:
    """The pairs of R cases and their relevant items. Made by `find`."""

    n_cases: int
    cases: npt.NDArray[np.int64]  # (P,) - ascending
    first: npt.NDArray[np.int64]  # (P,) - 0 for an item that is not in the list
    sizes: npt.NDArray[np.int64]  # (P,)

    @classmethod
    def find(cls, ranked: RankedLists, relevant: Sequence[Sequence[str]]) -> Hits:
        """Look every relevant item up in the list of its case.

        >>> from semid.evaluation.ranked_lists import rank_lists
        >>> Hits.find(rank_lists([["a", "b"], ["c"]]), [["b", "x"], ["c"]]).first.tolist()
        [2, 0, 1]
        """
        cases = np.repeat(np.arange(len(relevant)), np.fromiter(map(len, relevant), np.int64))
        groups = np.fromiter((ranked.group_of.get(one, -1) for items in relevant for one in items), np.int64)
        stride = len(ranked.group_sizes) + 1
        keys = ranked.rows() * stride + ranked.groups + 1  # + 1: no entry's key is that of another row
        entries = np.flatnonzero(ranked.groups >= 0)
        entries = entries[np.argsort(keys[entries], kind="stable")]
        sought = cases * stride + groups + 1
        place = np.searchsorted(keys[entries], sought)
        found = np.zeros(len(sought), np.bool_)
        inside = place < len(entries)
        found[inside] = (keys[entries[place[inside]]] == sought[inside]) & (groups[inside] >= 0)
        first, sizes = np.zeros(len(sought), np.int64), np.ones(len(sought), np.int64)
        first[found], sizes[found] = ranked.first[entries[place[found]]], ranked.sizes[entries[place[found]]]
        return cls(len(relevant), cases, first, sizes)

    def where(self, kept: npt.NDArray[np.bool_]) -> Hits:
        """Return some of the pairs, of the same cases."""
        return Hits(self.n_cases, self.cases[kept], self.first[kept], self.sizes[kept])

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the relevant items of each case: int64 [R]."""
        return np.bincount(self.cases, minlength=self.n_cases)

    def figures(self, ks: Sequence[int]) -> dict[str, Floats]:
        """Return recall@k, ndcg@k and mrr of each case: float64 [R] each, NaN for cases without a pair."""
        counts = self.counts()
        found = {}
        with np.errstate(invalid="ignore"):
            for k in ks:
                found[f"recall@{k}"] = self._sums(np.ones(k)) / counts
            for k in ks:
                gains = 1 / np.log2(1 + np.arange(1, k + 1))
                ideal = np.concatenate([[0], np.cumsum(gains)])
                found[f"ndcg@{k}"] = self._sums(gains) / ideal[np.minimum(counts, k)]
            found["mrr"] = np.where(counts > 0, self._reciprocals(), np.nan)
        return found

    def _sums(self, worth: Floats) -> Floats:
        """Return for each case the expected worth of its items, `worth` being that of the first places."""
        total = np.concatenate([[0], np.cumsum(worth)])
        there = self.first > 0
        first, sizes = self.first[there], self.sizes[there]
        gained = total[np.minimum(first + sizes - 1, len(worth))] - total[np.minimum(first - 1, len(worth))]
        return np.bincount(self.cases[there], gained / sizes, self.n_cases).astype(np.float64)

    def _reciprocals(self) -> Floats:
        """Return for each case the expected 1 / place of the first relevant item."""
        result = np.zeros(self.n_cases)
        there = np.flatnonzero(self.first > 0)
        order = there[np.lexsort((self.first[there], self.cases[there]))]
        cases, starts, ties = np.unique(
            np.stack([self.cases[order], self.first[order]], axis=1), axis=0, return_index=True, return_counts=True
        )
        best = np.unique(cases[:, 0], return_index=True)[1]  # each case's smallest place
        for row in best[ties[best] > 1].tolist():
            group = order[starts[row]]
            result[self.cases[group]] = _first_of(int(self.first[group]), int(self.sizes[group]), int(ties[row]))
        single = order[starts[best[ties[best] == 1]]]
        first, sizes = self.first[single], self.sizes[single]
        harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, max((first + sizes).max(initial=1), 2)))])
        mean = (harmonic[first + sizes - 1] - harmonic[first - 1]) / sizes
        result[self.cases[single]] = np.where(sizes == 1, 1 / first, mean)
        return result


def _first_of(first: int, size: int, count: int) -> float:
    """Return the expected 1 / place of the first of `count` items that are anywhere among `size` places.

    >>> _first_of(1, 2, 2), _first_of(1, 3, 2) == (1 * 2 + 1 / 2) / 3
    (1.0, True)
    """
    ways = [math.comb(size - 1 - after, count - 1) for after in range(size)]
    return sum(way / (first + after) for after, way in enumerate(ways)) / sum(ways)
