"""Clusters on the sphere: spherical k-means, and the same with no cluster above a bound.

Vectors of unit length and centroids of unit length; the nearest centroid is the one with the largest cosine.

Balanced: prices on crowded centroids (entropic transport, `semid/train/sinkhorn.py`) make their use even while the
centroids follow their members; what is still too much for a centroid then moves on, the least attached first, to the
next best one, until no centroid holds more than the bound (deferred acceptance, Gale and Shapley 1962). Nobody would
rather be with a centroid whose members are all less attached to it.

N points, K clusters, D dims. The scores of all pairs are in memory: N x K floats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.runtime.arrays import divided_by_length
from semid.train.sinkhorn import catalog_prices

__all__ = ["balanced_clusters", "capped", "nearest_centroids", "spherical_kmeans"]

Floats = npt.NDArray[np.float32]

ROUNDS = 30  # of k-means
BALANCED_ROUNDS = 10
SOFTNESS = 0.01  # epsilon of the transport: with 0.003 the bound was passed by more before the last step
POINTS_PER_CENTROID = 1000  # that k-means sees at most


def spherical_kmeans(points: Floats, n_clusters: int, *, seed: int = 0) -> Floats:
    """Centroids of unit length, float32 [K, D], of points of unit length [N, D].

    Raises
    ------
    ConfigError
        More clusters than points.

    >>> spherical_kmeans(np.float32([[1, 0], [1, 0], [0, 1]]), 2).round(3).tolist() in (
    ...     [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    True
    """
    import faiss

    if not 1 <= n_clusters <= len(points):
        raise ConfigError(f"clusters={n_clusters}, but there are {len(points)} vectors: use {len(points)} at most.")
    search = faiss.Kmeans(
        points.shape[1],
        n_clusters,
        niter=ROUNDS,
        spherical=True,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=POINTS_PER_CENTROID,
    )
    search.train(np.ascontiguousarray(points))
    return divided_by_length(search.centroids)


def nearest_centroids(points: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """int64 [N]: the centroid with the largest cosine, the first of equal ones."""
    return (points @ centroids.T).argmax(axis=1)


def balanced_clusters(points: Floats, centroids: Floats, most: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Centroids moved so that their use is even, and the cluster of each point, none with more than `most` members.

    Raises
    ------
    ConfigError
        `most` times K is less than N.

    >>> points = divided_by_length(np.float32([[1, 0], [1, 0.1], [1, 0.5], [0, 1]]))
    >>> balanced_clusters(points, np.float32([[1, 0], [0, 1]]), 2)[1].tolist()
    [0, 0, 1, 1]
    """
    if most * len(centroids) < len(points):
        least = -(-len(points) // len(centroids))
        raise ConfigError(f"most={most} should be at least {least}: {len(points)} points, {len(centroids)} clusters.")
    for _ in range(BALANCED_ROUNDS):
        prices = catalog_prices(points, centroids, epsilon=SOFTNESS)[0].astype(np.float32)
        labels = (points @ centroids.T + prices).argmax(axis=1)
        centroids = _means(points, labels, centroids)
    prices = catalog_prices(points, centroids, epsilon=SOFTNESS)[0].astype(np.float32)
    labels = capped(points @ centroids.T + prices, most)
    return _means(points, labels, centroids), labels


def capped(scores: npt.NDArray[np.floating], most: int) -> npt.NDArray[np.int64]:
    """A column for each row, none taken more than `most` times: int64 [N].

    Every row applies to its best column; a column keeps its best applicants and turns the others away, who apply to
    their next best. Of equal scores the lower column and the earlier row win.

    >>> capped(np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 0.0]]), 2).tolist()
    [0, 0, 1]
    """
    n_rows, n_columns = scores.shape
    labels = scores.argmax(axis=1)
    ranking: npt.NDArray[np.integer] = np.zeros((n_rows, 0), np.int32)
    applied = np.ones(n_rows, np.int64)  # columns that each row has applied to
    while True:
        given = scores[np.arange(n_rows), labels]
        order = np.lexsort((-given, labels))
        starts = np.searchsorted(labels[order], np.arange(n_columns))
        away = order[np.arange(n_rows) - starts[labels[order]] >= most]
        if not len(away):
            return labels
        if not ranking.shape[1]:
            ranking = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
        labels[away] = ranking[away, applied[away]]
        applied[away] += 1


def _means(points: Floats, labels: npt.NDArray[np.int64], before: Floats) -> Floats:
    """The members' mean direction; a cluster without any, or whose members cancel out, stays where it was."""
    order = np.argsort(labels, kind="stable")
    sums = np.zeros(before.shape, np.float64)
    filled, starts = np.unique(labels[order], return_index=True)
    sums[filled] = np.add.reduceat(points[order].astype(np.float64), starts, axis=0)
    means = divided_by_length(sums)
    return np.where(np.abs(sums).max(axis=1, keepdims=True) > 1e-6, means, before).astype(np.float32)
