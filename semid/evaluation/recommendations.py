"""How good recommendations are: Recall@K, NDCG@K, MRR, coverage and popularity, item by item.

    evaluate_recommendations([["b", "a"], ["c", "b"]], [["a"], ["c"]], k=(1, 2))["recall@1"].value    # 0.5

Full ranking: an item counts where the list has it, among all items, not among a sample of negatives. With D(p) =
1 / log2(1 + p) for place p, and the n relevant items of a case at places p_1 ... p_n (infinite if not in the list):

    recall@K   how many p_i <= K, divided by n
    ndcg@K     sum of D(p_i) over p_i <= K, divided by D(1) + ... + D(min(n, K))
    mrr        1 / the smallest p_i

An item whose ID g items share has g equally likely places (`ranked_lists.py`). Then these are expected values.

R test cases, E entries of their lists, P pairs of a case and a relevant item.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError
from semid.evaluation.hits import Hits
from semid.evaluation.intervals import Bootstrap, Estimate, estimate_means
from semid.evaluation.ranked_lists import RankedLists, rank_lists, read_lists
from semid.evaluation.strata import STRATA, assign_strata

__all__ = ["RecommendationQuality", "evaluate_recommendations"]

logger = logging.getLogger("semid")


@dataclass(frozen=True, eq=False)
class RecommendationQuality(Mapping[str, Estimate]):
    """The figures of a set of recommendations by name, such as "recall@10", "ndcg@10", "mrr", "head/recall@10"."""

    n_cases: int  # R, test cases with a relevant item
    n_users: int
    k: tuple[int, ...]
    figures: dict[str, Estimate]
    n_in_stratum: dict[str, int]  # pairs of a case and a relevant item, by the item's stratum; {} without popularity
    case_values: dict[str, npt.NDArray[np.float64]] = field(repr=False)  # recall, NDCG and MRR of each case, (R,) each
    case_users: npt.NDArray[np.int64] = field(repr=False)  # (R,)
    relevant: list[tuple[str, ...]] = field(repr=False)  # of each case, sorted

    def __getitem__(self, name: str) -> Estimate:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    def compared_with(self, other: RecommendationQuality, *, bootstrap: Bootstrap | None = None) -> dict[str, Estimate]:
        """Return this one's figures minus the other's, with paired intervals: both on the same drawn users.

        Parameters
        ----------
        other : RecommendationQuality
            Other recommendations for the same test cases.
        bootstrap : Bootstrap, optional
            Default: 1,000 resamples, 95 %, seed 0.

        Returns
        -------
        dict of str to Estimate
            The figures that both have for each case: recall, NDCG and MRR.

        Raises
        ------
        InputError
            The test cases differ.

        >>> ours = evaluate_recommendations([["a"], ["b"]], ["a", "b"], k=1)
        >>> theirs = evaluate_recommendations([["a"], ["a"]], ["a", "b"], k=1)
        >>> ours.compared_with(theirs)["recall@1"]
        Estimate(value=0.5, low=0.0, high=1.0)
        """
        if self.relevant != other.relevant or not np.array_equal(self.case_users, other.case_users):
            raise InputError(
                f"the two systems were tested on different cases ({self.n_cases:,} and {other.n_cases:,}). "
                "Test both on the same users and items."
            )
        mine, theirs = self.case_values, other.case_values
        return _estimated(
            {name: mine[name] - theirs[name] for name in mine if name in theirs}, self.case_users, bootstrap
        )

    def to_dict(self) -> dict[str, object]:
        """Return the figures as JSON data."""
        about = {"n_cases": self.n_cases, "n_users": self.n_users, "n_in_stratum": self.n_in_stratum}
        return about | {name: one.to_dict() for name, one in self.figures.items()}


def evaluate_recommendations(
    recommendations: object,
    relevant: Sequence[str | Collection[str]] | Mapping[str, str | Collection[str]],
    *,
    k: int | Sequence[int] = (1, 5, 10, 20),
    catalog: Collection[str] | Mapping[str, object] | None = None,
    popularity: Mapping[str, float] | None = None,
    users: Sequence[str] | None = None,
    bootstrap: Bootstrap | None = None,
) -> RecommendationQuality:
    """Measure recommendations against the items that users went on to choose.

    Parameters
    ----------
    recommendations : sequence of R lists, int [R, n, L], Generated, or mapping of user to list
        Each list best first: item ids; or, with a `catalog` of IDs, IDs as text or as sequences of tokens, codes or
        token ids. In an array, negative numbers are padding.
    relevant : sequence of R, or mapping of user
        The held-out item of each test case, or a collection of them. A case without any is left out; a user without
        recommendations is a case with none right.
    k : int or sequence of int
        Lengths of the lists to measure. Default: 1, 5, 10, 20.
    catalog : collection of str, or mapping of str to ID, optional
        All items, for coverage; with their IDs if `recommendations` holds IDs. Items that share an ID share its places.
    popularity : mapping of str to number, optional
        Training interactions of each item, for popularity figures and strata.
    users : sequence of R str, optional
        The user of each test case, where users have several. Default: each case is a user's only one.
    bootstrap : Bootstrap, optional
        How to compute confidence intervals. Default: 1,000 resamples of the users, 95 %, seed 0.

    Returns
    -------
    RecommendationQuality
        A mapping of figures: "recall@K", "ndcg@K" for each k, and "mrr", of the whole list. With `catalog`
        "coverage@K", the share of the items that are in the first K places of some list. With `popularity`
        "popularity@K", the mean popularity of recommended items divided by that of the relevant ones (1: no bias), and
        recall, NDCG and MRR for relevant items that are head, mid, tail or cold: "tail/recall@K".

    Raises
    ------
    ConfigError
        A k below 1.
    InputError
        Lists and cases do not fit together, no case has a relevant item, or no recommendation is in the catalog.

    >>> found = evaluate_recommendations([["a", "b"], ["b", "c"]], ["b", "b"], k=(1, 2), catalog="abcd")
    >>> found["recall@1"].value, found["recall@2"].value, found["mrr"].value, found["coverage@1"].value
    (0.5, 1.0, 0.75, 0.5)
    """
    ks = _check_lengths(k)
    lists, of_ids, wanted, names = _cases(recommendations, relevant, users, catalog)
    ranked = rank_lists(lists, catalog, of_ids=of_ids)
    _tell_what_is_wrong(ranked)
    number = dict[str, int]()
    case_users = np.array([number.setdefault(name, len(number)) for name in names], np.int64)
    hits = Hits.find(ranked, wanted)
    values = hits.figures(ks)
    figures = _estimated(values, case_users, bootstrap)
    if catalog is not None:
        figures |= {f"coverage@{length}": Estimate(_coverage(ranked, length)) for length in ks}
    in_stratum = dict[str, int]()
    if popularity is not None:
        asked = [item for items in wanted for item in items]
        figures |= {f"popularity@{length}": Estimate(_bias(ranked, length, popularity, asked)) for length in ks}
        strata = assign_strata(asked, popularity)
        for stratum in STRATA:
            part = hits.where(np.array([strata[item] == stratum for item in asked]))
            in_stratum[stratum] = len(part.cases)
            found = _estimated(part.figures(ks), case_users, bootstrap)
            figures |= {f"{stratum}/{name}": one for name, one in found.items()}
    return RecommendationQuality(len(wanted), len(number), ks, figures, in_stratum, values, case_users, wanted)


def _estimated(
    values: Mapping[str, npt.NDArray[np.float64]], users: npt.NDArray[np.int64], bootstrap: Bootstrap | None
) -> dict[str, Estimate]:
    """Return the mean and interval of each figure over the cases that have it."""
    table = np.stack(list(values.values()), axis=1)
    kept = ~np.isnan(table[:, 0])
    _, users = np.unique(users[kept], return_inverse=True)
    return dict(zip(values, estimate_means(table[kept], users, bootstrap), strict=True))


def _check_lengths(k: int | Sequence[int]) -> tuple[int, ...]:
    ks = (k,) if isinstance(k, int) else tuple(k)
    if not ks or min(ks) < 1:
        raise ConfigError(f"k={k} should be one or more numbers >= 1, such as 5,10.")
    return tuple(sorted(set(ks)))


def _cases(
    recommendations: Any, relevant: Any, users: Sequence[str] | None, catalog: object
) -> tuple[list[Sequence[Any]], bool, list[tuple[str, ...]], list[Any]]:
    """Return the lists, whether they hold IDs, the relevant items and the users of the test cases that have any."""
    by_user = isinstance(relevant, Mapping)
    if by_user != isinstance(recommendations, Mapping):
        raise InputError("recommendations and relevant should both be sequences, or both be mappings of users.")
    if by_user:
        users = sorted(relevant)
        missing = sum(user not in recommendations for user in users)
        if users and missing == len(users):
            raise InputError("recommendations: they have none of the test's users. Are the user ids the same?")
        if missing:
            logger.warning("%d of %d users have no recommendations: nothing is right for them", missing, len(users))
        recommendations = [recommendations.get(user, ()) for user in users]
        relevant = [relevant[user] for user in users]
    lists, of_ids = read_lists(recommendations, catalog)
    names = range(len(relevant)) if users is None else users
    for name, given in (("recommendations", lists), ("users", names)):
        if len(given) != len(relevant):
            raise InputError(f"{name}: {len(given):,} for {len(relevant):,} test cases; expected one for each.")
    wanted = [(one,) if isinstance(one, str) else tuple(sorted(set(one))) for one in relevant]
    kept = [row for row, items in enumerate(wanted) if items]
    if not kept:
        raise InputError("relevant: no test case has a relevant item.")
    if len(kept) < len(wanted):
        logger.warning(
            "%d of %d test cases have no relevant item and are left out", len(wanted) - len(kept), len(wanted)
        )
    return [lists[row] for row in kept], of_ids, [wanted[row] for row in kept], [names[row] for row in kept]


def _tell_what_is_wrong(ranked: RankedLists) -> None:
    if ranked.n_unknown:
        logger.warning("recommendations outside the catalog: %s, each counted as wrong", f"{ranked.n_unknown:,}")
    if ranked.n_repeated:
        logger.warning("recommendations that repeat one of their list: %s, not counted again", f"{ranked.n_repeated:,}")


def _coverage(ranked: RankedLists, k: int) -> float:
    """Return the expected share of the catalog's items that are in the first k places of some list."""
    counted = (ranked.groups >= 0) & (ranked.groups < ranked.n_catalog)
    groups = ranked.groups[counted]
    with np.errstate(divide="ignore"):  # log 0: certainly in the list
        missed = np.log1p(-ranked.places_within(k)[counted] / ranked.sizes[counted])
    never = np.exp(np.bincount(groups, missed, ranked.n_catalog))
    sizes = ranked.group_sizes[: ranked.n_catalog]
    return float(sizes @ (1 - never) / sizes.sum())


def _bias(ranked: RankedLists, k: int, popularity: Mapping[str, float], relevant: Sequence[str]) -> float:
    """Return the mean popularity of recommended items, first within each list, divided by that of the relevant ones."""
    sums = np.zeros(len(ranked.group_sizes))
    for item_id, group in ranked.group_of.items():
        sums[group] += popularity.get(item_id, 0)
    items = np.flatnonzero(ranked.groups >= 0)
    groups, rows, places = ranked.groups[items], ranked.rows()[items], ranked.places_within(k)[items]
    total = np.bincount(rows, places * sums[groups] / ranked.group_sizes[groups], len(ranked))
    counts = np.bincount(rows, places, len(ranked))
    expected = sum(popularity.get(item_id, 0) for item_id in relevant) / len(relevant)
    if not expected or not counts.any():
        return math.nan
    return float((total[counts > 0] / counts[counts > 0]).mean() / expected)
