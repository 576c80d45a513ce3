"""Entropic transport to uniform codes, with the whole N x K matrix in float64, as the formula reads."""

from __future__ import annotations

import math

import torch


def squared_distances(residual, centroids):
    """Return squared distances, float64 [N, K]."""
    return (residual.double()[:, None] - centroids.double()).square().sum(2)


def unit(residual, centroids, epsilon):
    """Return the squared distance that one unit of potential is worth."""
    distances = squared_distances(residual, centroids)
    return float(epsilon * (distances.max() - distances.min()) / 2)


def plan(residual, centroids, potential, unit):
    """Return the plan softmax_k(potential_k - d_nk / unit), float64 [N, K]."""
    return torch.softmax(potential.double() - squared_distances(residual, centroids) / unit, dim=1)


def converged_potential(residual, centroids, unit, rounds):
    """Return the potential after `rounds` plain rounds, float64 [K]."""
    potential = torch.zeros(len(centroids), dtype=torch.float64)
    for _ in range(rounds):
        columns = plan(residual, centroids, potential, unit).sum(0)
        potential += math.log(len(residual) / len(centroids)) - columns.clamp_min(1e-300).log()
    return potential


def relaxed_potential(residual, centroids, epsilon, rounds):
    """Return the potential after rounds of over-relaxation by 1.6, as in training, float64 [K]."""
    worth = unit(residual, centroids, epsilon)
    potential = torch.zeros(len(centroids), dtype=torch.float64)
    for _ in range(rounds):
        columns = plan(residual, centroids, potential, worth).sum(0)
        potential += 1.6 * (math.log(len(residual) / len(centroids)) - columns.clamp_min(1e-30).log())
    return potential


def relaxed_codes(residual, centroids, epsilon, rounds):
    """Return the argmax of each row of the plan, int64 [B]."""
    potential = relaxed_potential(residual, centroids, epsilon, rounds)
    return (potential - squared_distances(residual, centroids) / unit(residual, centroids, epsilon)).argmax(1)


def relaxed_error(residual, centroids, epsilon, rounds):
    """Return the smallest, over the rounds, of the largest relative error of a column sum."""
    fair, worth, errors = len(residual) / len(centroids), unit(residual, centroids, epsilon), []
    scores = -squared_distances(residual, centroids) / worth
    potential = torch.zeros(len(centroids), dtype=torch.float64)
    for _ in range(rounds):
        columns = torch.softmax(potential + scores, dim=1).sum(0)
        errors.append(float((columns / fair - 1).abs().max()))
        potential += 1.6 * (math.log(fair) - columns.clamp_min(1e-30).log())
    return min(errors)
