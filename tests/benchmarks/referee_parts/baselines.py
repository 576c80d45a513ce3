"""Recommenders without a model of language or IDs, on the same split.

popularity     the most frequent items of the training part
co-occurrence  what came next most often after the last item, see `semid/evaluation/baselines.py`
item-kNN       cosine similarity of items over users, shrunk, summed over the history
EASE           a linear autoencoder in closed form (Steck, "Embarrassingly Shallow Autoencoders", WWW 2019)

The last two have one number each that is chosen on the validation part. Memory: three float32 matrices [N, N].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from semid.evaluation.baselines import recommend_next, recommend_popular
from tests.benchmarks.referee_parts.recommender import RETURNED, measure
from tests.benchmarks.referee_parts.split import Cases, Rows, SplitLog

SHRINKAGE = (0.0, 10.0, 100.0)  # users added to the norms of item-kNN
RIDGE = (10.0, 100.0, 500.0, 2000.0)  # of EASE
Matrix = npt.NDArray[np.float32]
CHUNK = 1024  # histories scored at once

__all__ = ["BASELINES", "recommend_baseline"]


def recommend_baseline(name: str, log: SplitLog) -> tuple[list[list[str]], str]:
    """Return a list for each test case, and the number that was chosen on the validation part."""
    if name in ("popularity", "co-occurrence"):
        return _without_numbers(name, log), ""
    make, numbers = BASELINES[name]
    shared, best = cooccurrence(log), (-1.0, 0.0)
    for number in numbers:
        found = measure(_ranked(make(shared, number), log.validation, log.item_ids), log.validation, log.item_ids)
        best = max(best, (found["ndcg@10"].value, number))
    return _ranked(make(shared, best[1]), log.test, log.item_ids), f"{best[1]:g}"


def _without_numbers(name: str, log: SplitLog) -> list[list[str]]:
    named = [[log.item_ids[row] for row in rows.tolist()] for rows in log.training]
    popularity = dict[str, float]()
    for items in named:
        for item in items:
            popularity[item] = popularity.get(item, 0) + 1
    if name == "popularity":
        return [recommend_popular(popularity, RETURNED)] * len(log.test.users)
    last = [log.item_ids[int(rows[-1])] for rows in log.test.histories]
    return recommend_next((pair for items in named for pair in pairwise(items)), last, popularity, RETURNED)


def cooccurrence(log: SplitLog) -> Matrix:
    """Return how many users met both items, [N, N]; how many met one on the diagonal."""
    shared = np.zeros((len(log.item_ids),) * 2, np.float32)
    for rows in map(np.unique, log.training):
        shared[np.ix_(rows, rows)] += 1
    return shared


def item_knn(shared: Matrix, shrinkage: float) -> Matrix:
    """Return the similarity of every two items; 0 to itself."""
    norms = np.sqrt(np.diag(shared))
    weights = shared / (np.outer(norms, norms) + np.float32(shrinkage) + np.float32(1e-9))
    np.fill_diagonal(weights, 0)
    return weights


def ease(shared: Matrix, ridge: float) -> Matrix:
    """Return the weights that predict each item from the others: -P / diag(P), P the inverse of `shared` + ridge."""
    inverse = np.linalg.inv(shared + np.float32(ridge) * np.eye(len(shared), dtype=np.float32))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def _ranked(weights: Matrix, cases: Cases, item_ids: list[str]) -> list[list[str]]:
    """Return the items with the highest sums of weights over each history; equal ones by id."""
    return [[item_ids[row] for row in rows.tolist()] for rows in _best_rows(weights, cases)]


def _best_rows(weights: Matrix, cases: Cases) -> Iterator[Rows]:
    for start in range(0, len(cases.users), CHUNK):
        histories = cases.histories[start : start + CHUNK]
        scores = np.stack([weights[np.unique(rows)].sum(axis=0) for rows in histories])
        yield from np.argsort(-scores, axis=1, kind="stable")[:, :RETURNED]


Makers = dict[str, tuple[Callable[[Matrix, float], Matrix], tuple[float, ...]]]
BASELINES: Makers = {
    "popularity": (item_knn, ()),
    "co-occurrence": (item_knn, ()),
    "item-kNN": (item_knn, SHRINKAGE),
    "EASE": (ease, RIDGE),
}
