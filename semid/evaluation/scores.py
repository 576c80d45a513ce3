"""The scores of several recommenders on the same test cases, as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semid.evaluation.baselines import recommend_next, recommend_popular
from semid.evaluation.intervals import Bootstrap, Estimate
from semid.evaluation.recommendations import RecommendationQuality, evaluate_recommendations
from semid.runtime.checks import plural

__all__ = ["Scores", "System", "TestSet"]

STRATUM_K = 10  # strata are shown at this length, or the nearest below
BASELINES = ("co-occurrence", "popularity")


@dataclass(frozen=True, eq=False)
class Scores:
    """The scored recommendations, those they are compared with, and the baselines."""

    systems: dict[str, RecommendationQuality]  # the scored ones first
    differences: dict[str, dict[str, Estimate]]  # other system -> figure -> scored ones minus it, paired

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "systems": {name: one.to_dict() for name, one in self.systems.items()},
            "differences": {
                name: {figure: one.to_dict() for figure, one in found.items()}
                for name, found in self.differences.items()
            },
        }

    def summary(self) -> list[str]:
        """Return a table for people: a line for each figure, a column for each recommender."""
        name, first = next(iter(self.systems.items()))
        others = {other: one for other, one in self.systems.items() if other != name}
        compared = [other for other in others if other not in BASELINES]
        rows = [["", name, "95 % interval"]]
        for other in others:
            rows[0] += [other, "difference", "95 % interval"] if other in compared else [other]
        for figure, one in first.items():
            if not _is_shown(figure, first.k) or math.isnan(one.value):
                continue
            row = [figure, f"{one.value:.4f}", _interval(one)]
            for other, quality in others.items():
                row.append(f"{quality[figure].value:.4f}" if figure in quality else "")
                if other in compared:
                    gained = self.differences[other].get(figure)
                    row += ["", ""] if gained is None else [f"{gained.value:+.4f}", _interval(gained, "+")]
            rows.append(row)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            _size(first),
            *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        ]


@dataclass(frozen=True, eq=False)
class System:
    """What one recommender gave."""

    lists: Sequence[Sequence[object]]  # R lists, best first
    catalog: Collection[str] | Mapping[str, object]  # all items; item id -> ID if the lists hold IDs


@dataclass(frozen=True, eq=False)
class TestSet:
    """Test cases, and the training data that popularity and the baselines are counted from."""

    __test__ = False  # not a class of pytest

    relevant: Sequence[Sequence[str]]  # R collections of held-out items
    users: list[str]  # (R,)
    last_items: list[str]  # (R,) - the item before the held-out ones; "" for none
    popularity: Mapping[str, float]  # training interactions of each item
    pairs: list[tuple[str, str]]  # an item and the one after it, in training
    catalog: Collection[str]  # item ids

    def score(self, systems: Mapping[str, System], *, k: Sequence[int], bootstrap: Bootstrap | None = None) -> Scores:
        """Score recommendations, and the baselines beside them.

        Parameters
        ----------
        systems : mapping of name to System
            The scored recommendations first.
        k : sequence of int
            Lengths of the lists to measure.
        bootstrap : Bootstrap, optional
            How to compute intervals.
        """
        n = max(k)
        popular = recommend_popular(self.popularity, n)
        following = recommend_next(self.pairs, self.last_items, self.popularity, n)
        beside = dict(zip(BASELINES, (following, [popular] * len(self.relevant)), strict=True))
        given = dict(systems)
        if self.popularity:
            given |= {name: System(lists, self.catalog) for name, lists in beside.items()}
        found = {
            name: evaluate_recommendations(
                one.lists,
                self.relevant,
                k=k,
                catalog=one.catalog,
                popularity=self.popularity or None,
                users=self.users,
                bootstrap=bootstrap,
            )
            for name, one in given.items()
        }
        first = next(iter(found.values()))
        others = list(found.items())[1:]
        return Scores(found, {name: first.compared_with(one, bootstrap=bootstrap) for name, one in others})


def _size(quality: RecommendationQuality) -> str:
    parts = ", ".join(f"{name} {count:,}" for name, count in quality.n_in_stratum.items())
    size = f"{plural(quality.n_cases, 'test case')} of {plural(quality.n_users, 'user')}"
    return f"{size}; held-out items: {parts}" if parts else size


def _is_shown(figure: str, ks: Sequence[int]) -> bool:
    """Return whether the table has a figure: those of strata at one length only."""
    stratum, _, name = figure.rpartition("/")
    length = max((k for k in ks if k <= STRATUM_K), default=min(ks))
    return not stratum or name in (f"recall@{length}", f"ndcg@{length}")


def _interval(one: Estimate, sign: str = "") -> str:
    return "" if one.low is None or one.high is None else f"{one.low:{sign}.4f} to {one.high:{sign}.4f}"
