"""One step of k-means in float64, as the formula reads."""

from __future__ import annotations

import torch


def scores(points, centroids, prices=None):
    """float64 [N, K]: x . c - |c|^2 / 2 - price"""
    points, centroids = points.double(), centroids.double()
    found = points @ centroids.T - centroids.square().sum(1) / 2
    return found if prices is None else found - prices.double()


def nearly_best(points, centroids, codes, prices=None):
    """True where a code's score is within the stated error of the best one."""
    found = scores(points, centroids, prices)
    lost = found.amax(1) - found.gather(1, codes.long()[:, None])[:, 0]
    reach = points.double().norm(dim=1) * centroids.double().norm(dim=1).max()
    largest = found.abs().amax(1)
    return lost <= 2 * (points.shape[1] + 8) * 2.0**-22 * reach + 2.0**-22 * largest


def update(points, centroids, codes):
    """sums float64 [K, D], counts int64 [K] and the objective, given the codes."""
    points, codes = points.double(), codes.long()
    onehot = torch.nn.functional.one_hot(codes, len(centroids)).double()
    objective = (points - centroids.double()[codes]).square().sum()
    return onehot.T @ points, onehot.sum(0).long(), objective
