"""The starting encoder: principal directions, and a closed-form step towards each item's neighbors.

`principal_map` is PCA with part of the spread evened out: direction i is divided by sigma_i ** whiten. Residual
quantization then spends its later levels on more than the two or three directions of largest variance.

`neighbor_map` is one hidden layer, solved rather than trained. Near-duplicates of one product differ by the encoder's
noise. Averaging an item with its nearest neighbors removes it, so that similar items share codes. But a new item has no
neighbors yet, and a code must depend on the item alone. So a layer of M landmark units learns, by ridge regression, to
predict the step from an item to its neighbors' mean. On held-out items it predicts well over half of that step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["NeighborMap", "PrincipalMap", "landmark_map", "nearest_neighbors", "neighbor_map", "principal_map"]

LANDMARK_ROUNDS = 5
ACTIVE_SHARE = 0.05  # share of items that activate a landmark; 0.02 to 0.2 measured equal
RIDGE = 1e-3  # relative to the features' mean square; 1e-4 and 1e-2 measured equal
FULL_SVD_DIM = 1024

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PrincipalMap:
    """x -> (x - mean) @ directions: directions [D, d] orthonormal. `gain` [d] evens out the spread afterwards."""

    mean: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]

    def __call__(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Map vectors [N, D] to [N, d]."""
        return ((vectors - self.mean) @ self.directions).astype(np.float32)


@dataclass(frozen=True)
class NeighborMap:
    """z -> relu(z @ inner + inner_bias) @ outer + z @ linear + bias; of `neighbor_map`, the step to add to z.

    inner [d, M], inner_bias [M], outer [M, e], linear [d, e], bias [e]; all float32. A step has e = d.
    """

    inner: Floats
    inner_bias: Floats
    outer: Floats
    linear: Floats
    bias: Floats

    def __call__(self, latents: Floats) -> Floats:
        """Map latents [N, d] to [N, e]."""
        hidden = np.maximum(latents @ self.inner + self.inner_bias, 0)
        return hidden @ self.outer + latents @ self.linear + self.bias


def principal_map(vectors: Floats, dim: int, *, whiten: float = 0.0, seed: int = 0) -> PrincipalMap:
    """Fit PCA to `dim` directions (fewer if the vectors have fewer), with gain sigma ** -whiten for each.

    Gains are relative to the first direction, so `whiten=0` is plain PCA; `whiten=1` gives unit spread everywhere.
    """
    from sklearn.decomposition import PCA

    n_items, width = vectors.shape
    dim = max(1, min(dim, width, n_items - 1))
    mean = vectors.mean(axis=0, dtype=np.float64)
    if n_items == 1 or not np.any(vectors != vectors[0]):
        return PrincipalMap(mean, np.eye(width, dim), np.ones(dim))
    solver = "full" if width <= FULL_SVD_DIM and n_items < 2 * width else "covariance_eigh"
    if width > FULL_SVD_DIM:
        solver = "randomized"
    pca = PCA(dim, svd_solver=solver, random_state=seed).fit(np.asarray(vectors, np.float64))
    sigma = np.sqrt(np.maximum(pca.explained_variance_, 0))
    kept = max(1, int((sigma > 1e-6 * sigma[0]).sum()))
    sigma = sigma[:kept]
    gain = (sigma[0] / sigma) ** whiten
    return PrincipalMap(pca.mean_, np.ascontiguousarray(pca.components_[:kept].T), gain)


def nearest_neighbors(vectors: Floats, rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return the `count` nearest other vectors of some rows, by squared distance, exact: int64 [len(rows), count].

    N must be above `count`.
    """
    import faiss

    vectors = np.ascontiguousarray(vectors, np.float32)
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    _, found = index.search(vectors[rows], count + 1)
    own = found == rows[:, None]
    own[~own.any(axis=1), -1] = True  # many duplicates may crowd a row out of its own list
    return found[~own].reshape(len(rows), count)


def neighbor_map(
    latents: Floats,
    rows: npt.NDArray[np.int64],
    neighbors: npt.NDArray[np.int64],
    *,
    pull: float,
    units: int,
    seed: int = 0,
) -> NeighborMap:
    """Learn the step from a latent towards the mean of its neighbors, by ridge regression.

    Parameters
    ----------
    latents : float32 [N, d]
    rows : int64 [n]
        The rows to learn from.
    neighbors : int64 [n, k]
        Rows of the neighbors of each.
    pull : float
        Weight of the neighbors' mean, where the item has weight 1. The target is
        `(z + pull * mean of neighbors) / (1 + pull) - z`.
    units : int
        M, landmarks; at most n / 4.
    """
    learned_from = latents[rows]
    target = (latents[neighbors].mean(axis=1) - learned_from) * (pull / (1 + pull))
    return landmark_map(learned_from, target, units=units, seed=seed)


def landmark_map(inputs: Floats, targets: Floats, *, units: int, seed: int = 0) -> NeighborMap:
    """Fit a layer of landmarks that maps inputs [n, d] to targets [n, e], by ridge regression.

    `units` is M, at most n / 4. The inputs should be centered.

    >>> inputs = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    >>> answer = landmark_map(inputs, np.abs(inputs), units=64)
    >>> bool(np.square(answer(inputs) - np.abs(inputs)).mean() < 0.5 * np.abs(inputs).var())
    True
    """
    from semid.train.kmeans import lloyd

    units = max(1, min(units, len(inputs) // 4))
    rng = np.random.default_rng(seed)
    landmarks = inputs[np.sort(rng.choice(len(inputs), units, replace=False))]
    landmarks = lloyd(inputs, landmarks, LANDMARK_ROUNDS, rng=rng)
    inner = landmarks / np.maximum(np.linalg.norm(landmarks, axis=1, keepdims=True), 1e-12)
    shown = inputs[:: max(1, len(inputs) // 4096)] @ inner.T
    threshold = np.quantile(shown, 1 - ACTIVE_SHARE, axis=0).astype(np.float32)
    hidden = np.maximum(inputs @ inner.T - threshold, 0)
    features = np.concatenate([hidden, inputs, np.ones((len(inputs), 1), np.float32)], axis=1)
    normal = (features.T @ features).astype(np.float64)
    normal[np.diag_indices_from(normal)] += RIDGE * np.trace(normal) / len(normal)
    weights = np.linalg.solve(normal, (features.T @ targets).astype(np.float64)).astype(np.float32)
    return NeighborMap(np.ascontiguousarray(inner.T), -threshold, weights[:units], weights[units:-1], weights[-1])
