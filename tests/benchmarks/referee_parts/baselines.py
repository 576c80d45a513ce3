"""Recommenders without IDs, on the same split.

popularity     the most frequent items of the training part
co-occurrence  what came next most often after the last item, see `semid/evaluation/baselines.py`
item-kNN       cosine similarity of items over users, with shrinkage, summed over the history
EASE           a linear autoencoder in closed form (Steck, "Embarrassingly Shallow Autoencoders", WWW 2019)

The last two have one number each, chosen on the validation part. Memory: three float32 matrices [N, N].
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from semid.evaluation.baselines import recommend_next, recommend_popular
from tests.benchmarks.referee_parts.recommender import RETURNED, measure
from tests.benchmarks.referee_parts.split import Cases, SplitLog

Matrix = npt.NDArray[np.floating]
BASELINES: dict[str, tuple[float, ...]] = {  # with the numbers to choose from: users added to norms, ridge
    "popularity": (),
    "co-occurrence": (),
    "item-kNN": (0.0, 10.0, 100.0, 1000.0),
    "EASE": (10.0, 100.0, 500.0, 2000.0, 10000.0),
}
CHUNK = 1024  # histories scored at once


def recommend_baseline(name: str, log: SplitLog) -> tuple[list[list[str]], float | None]:
    """Return a list for each test case, and the number that was chosen on the validation part."""
    if name in ("popularity", "co-occurrence"):
        named = [[log.item_ids[row] for row in rows.tolist()] for rows in log.training]
        popularity = Counter(item for items in named for item in items)
        if name == "popularity":
            return [recommend_popular(popularity, RETURNED)] * len(log.test.users), None
        last = [log.item_ids[int(rows[-1])] for rows in log.test.histories]
        return recommend_next((pair for items in named for pair in pairwise(items)), last, popularity, RETURNED), None
    make = item_knn if name == "item-kNN" else ease
    shared, found = cooccurrence(log), dict[float, float]()
    for number in BASELINES[name]:
        lists = recommend_similar(make(shared, number), log.validation, log.item_ids)
        found[number] = measure(lists, log.validation, log.item_ids)["ndcg@10"].value
    best = max(found, key=found.__getitem__)
    return recommend_similar(make(shared, best), log.test, log.item_ids), best


def cooccurrence(log: SplitLog) -> Matrix:
    """Return how many users met both items, [N, N]; how many met one on the diagonal."""
    shared = np.zeros((len(log.item_ids),) * 2, np.float32)
    for rows in map(np.unique, log.training):
        shared[np.ix_(rows, rows)] += 1
    return shared


def item_knn(shared: Matrix, shrinkage: float) -> Matrix:
    """Return the similarity of every two items; 0 to itself."""
    norms = np.sqrt(np.diag(shared))
    weights = shared / (np.outer(norms, norms) + np.float32(shrinkage + 1e-9))
    np.fill_diagonal(weights, 0)
    return weights


def ease(shared: Matrix, ridge: float) -> Matrix:
    """Return the weights that predict each item from the others: -P / diag(P), P the inverse of `shared` + ridge."""
    inverse = np.linalg.inv(shared + np.float32(ridge) * np.eye(len(shared), dtype=np.float32))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def recommend_similar(weights: Matrix, cases: Cases, item_ids: list[str]) -> list[list[str]]:
    """Return the items with the highest sums of weights over each history; equal ones by id."""
    lists = list[list[str]]()
    for start in range(0, len(cases.users), CHUNK):
        scores = np.stack([weights[np.unique(rows)].sum(axis=0) for rows in cases.histories[start : start + CHUNK]])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :RETURNED]
        lists += [[item_ids[row] for row in rows] for rows in best.tolist()]
    return lists
