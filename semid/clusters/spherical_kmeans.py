"""Spherical k-means, with or without a cap on the members of a cluster.

Points and centroids have unit length; the nearest centroid is the one with the largest cosine.

Balanced: prices on crowded centroids (entropic transport, `semid/train/sinkhorn.py`) even out their use while the
centroids follow their members. Then members of a cluster that is still above the cap move to their next best centroid,
the lowest scores first, until no cluster is above it (deferred acceptance, Gale and Shapley 1962). The result is
stable: no point prefers a cluster where it scores higher than one of the members.

N points, K clusters, D dims. The scores of all pairs are in memory: N x K floats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.runtime.arrays import divided_by_length
from semid.train.sinkhorn import catalog_prices

__all__ = ["assign_capped", "balanced_clusters", "nearest_centroids", "spherical_kmeans"]

Floats = npt.NDArray[np.float32]

ROUNDS = 30  # of k-means
BALANCED_ROUNDS = 10
EPSILON = 0.01  # of the transport: with 0.003, clusters exceeded the cap by more before the last step
POINTS_PER_CENTROID = 1000  # at most, in k-means


def spherical_kmeans(points: Floats, n_clusters: int, *, seed: int = 0) -> Floats:
    """Return centroids of unit length, float32 [K, D].

    Parameters
    ----------
    points : float32 [N, D]
        Vectors of unit length.
    n_clusters : int
        K.
    seed : int
        Of the first centroids.

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
        raise ConfigError(f"clusters={n_clusters}, but there are {len(points)} vectors: use at most {len(points)}.")
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
    return divided_by_length(np.asarray(search.centroids))


def nearest_centroids(points: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """Return the centroid with the largest cosine, int64 [N]; the first of equal ones."""
    return (points @ centroids.T).argmax(axis=1)


def balanced_clusters(points: Floats, centroids: Floats, most: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return centroids [K, D] moved towards even use, and the cluster of each point, int64 [N].

    Parameters
    ----------
    points : float32 [N, D]
        Vectors of unit length.
    centroids : float32 [K, D]
        Where to start, such as `spherical_kmeans`.
    most : int
        Members of a cluster at most.

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
        prices = catalog_prices(points, centroids, epsilon=EPSILON)[0].astype(np.float32)
        labels = (points @ centroids.T + prices).argmax(axis=1)
        centroids = _means(points, labels, centroids)
    prices = catalog_prices(points, centroids, epsilon=EPSILON)[0].astype(np.float32)
    labels = assign_capped(points @ centroids.T + prices, most)
    return _means(points, labels, centroids), labels


def assign_capped(scores: npt.NDArray[np.floating], most: int) -> npt.NDArray[np.int64]:
    """Return a column for each row of scores [N, K], none taken more than `most` times: int64 [N].

    Every row proposes to its best column; a column keeps its best rows and rejects the others, which propose to their
    next best. Of equal scores the lower column and the earlier row win.

    >>> assign_capped(np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 0.0]]), 2).tolist()
    [0, 0, 1]
    """
    n_rows, n_columns = scores.shape
    labels = scores.argmax(axis=1)
    ranking: npt.NDArray[np.integer] = np.zeros((n_rows, 0), np.int32)
    n_proposed = np.ones(n_rows, np.int64)  # columns that each row has proposed to
    while True:
        given = scores[np.arange(n_rows), labels]
        order = np.lexsort((-given, labels))
        starts = np.searchsorted(labels[order], np.arange(n_columns))
        rejected = order[np.arange(n_rows) - starts[labels[order]] >= most]
        if not len(rejected):
            return labels
        if not ranking.shape[1]:
            ranking = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
        labels[rejected] = ranking[rejected, n_proposed[rejected]]
        n_proposed[rejected] += 1


def _means(points: Floats, labels: npt.NDArray[np.int64], before: Floats) -> Floats:
    """Return the mean direction of each cluster's members; a cluster without one keeps its centroid."""
    order = np.argsort(labels, kind="stable")
    sums = np.zeros(before.shape, np.float64)
    filled, starts = np.unique(labels[order], return_index=True)
    sums[filled] = np.add.reduceat(points[order].astype(np.float64), starts, axis=0)
    means = divided_by_length(sums)
    return np.where(np.abs(sums).max(axis=1, keepdims=True) > 1e-6, means, before).astype(np.float32)
