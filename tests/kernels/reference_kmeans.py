"""One step of k-means in float64, as the formula reads."""

from __future__ import annotations

import torch


def scores(points, centroids, prices=None):
    """Return scores x . c - |c|^2 / 2 - price, float64 [N, K]."""
    points, centroids = points.double(), centroids.double()
    found = points @ centroids.T - centroids.square().sum(1) / 2
    return found if prices is None else found - prices.double()


def nearly_best(points, centroids, codes, prices=None):
    """Return where a code's score is within the stated error of the best one, bool [N]."""
    found = scores(points, centroids, prices)
    lost = found.amax(1) - found.gather(1, codes.long()[:, None])[:, 0]
    reach = points.double().norm(dim=1) * centroids.double().norm(dim=1).max()
    largest = found.abs().amax(1)
    return lost <= 2 * (points.shape[1] + 8) * 2.0**-22 * reach + 2.0**-22 * largest


def update(points, centroids, codes):
    """Return sums float64 [K, D], counts int64 [K] and the objective, given the codes."""
    points, codes = points.double(), codes.long()
    onehot = torch.nn.functional.one_hot(codes, len(centroids)).double()
    objective = (points - centroids.double()[codes]).square().sum()
    return onehot.T @ points, onehot.sum(0).long(), objective
