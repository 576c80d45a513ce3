"""Balanced codes are the argmax of the converged transport plan, in float32, without NaN; LC-Rec's are LC-Rec's."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from semid.quantize import reference
from semid.quantize.grid import snap, snap_centroids
from semid.quantize.reference import balanced_codes
from semid.quantize.residual import residual_codes
from semid.train.sinkhorn import catalog_prices, lcrec_sinkhorn, lcrec_sinkhorn_torch


def squared_distances(points, centroids):
    return ((points[:, None].astype(np.float64) - centroids) ** 2).sum(2)


def centered(distances):
    low, high = distances.min(), distances.max()
    return (distances - (high + low) / 2) * 2 / (high - low)


def skewed(seed, n_items, n_codes, dims=4):
    """Points and centroids of which a few are near most points."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n_items, dims)) * [2, 1, 0.5, 0.25]
    return points, rng.normal(size=(n_codes, dims)) * [3, 1, 0.3, 0.3]


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_the_reference_plan_is_the_one_of_pot(epsilon):
    distances = centered(squared_distances(*skewed(0, 30, 7)))
    theirs = ot.sinkhorn(np.full(30, 1 / 30), np.full(7, 1 / 7), distances, epsilon, numItermax=10_000, stopThr=1e-14)
    np.testing.assert_allclose(reference.sinkhorn(distances, epsilon, 3000), theirs, atol=1e-9)


def test_lcrecs_plan_is_the_one_of_pot_once_it_has_converged():
    distances = squared_distances(*skewed(1, 30, 7))
    half_range = (distances.max() - distances.min()) / 2
    scaled = centered(distances) * half_range / (half_range + 1e-5)
    theirs = ot.sinkhorn(np.full(30, 1 / 30), np.full(7, 1 / 7), scaled, 0.1, numItermax=10_000, stopThr=1e-14)
    np.testing.assert_allclose(lcrec_sinkhorn(distances, 0.1, 3000) / 30, theirs, atol=1e-9)


@pytest.mark.parametrize("epsilon", [0.003, 0.05])
@pytest.mark.parametrize("shape", [(2, 5), (7, 4), (5, 5), (1, 3)])
def test_lcrecs_plan_equals_the_literal_formula(shape, epsilon):
    distances = np.random.default_rng(0).random(shape) * 3
    expected = reference.lcrec_sinkhorn(distances.tolist(), epsilon, 50)
    np.testing.assert_allclose(lcrec_sinkhorn(distances, epsilon, 50), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("epsilon", [0.003, 0.05])
@pytest.mark.parametrize("shape", [(2, 5), (200, 16), (1, 3)])
def test_torch_gives_lcrecs_plan_too(shape, epsilon):
    distances = np.random.default_rng(1).random(shape) * 3
    got = lcrec_sinkhorn_torch(torch.from_numpy(distances), epsilon, 50).numpy()
    np.testing.assert_allclose(got, lcrec_sinkhorn(distances, epsilon, 50), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("epsilon", [0.02, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_balanced_codes_are_the_argmax_of_the_converged_plan(seed, epsilon):
    distances = squared_distances(*skewed(seed, 200, 16))
    expected = reference.sinkhorn(centered(distances), epsilon, 2000)
    assert (expected.argmax(1) != distances.argmin(1)).any()
    best = np.sort(expected, axis=1)
    clear = best[:, -1] > 1.001 * best[:, -2]
    assert clear.mean() > 0.95
    got = balanced_codes(torch.from_numpy(distances), epsilon=epsilon, rounds=1000).numpy()
    np.testing.assert_array_equal(got[clear], expected.argmax(1)[clear])


def residuals(seed, batch, n_codes):
    """What a level leaves, and codes that fit it: the usual case in training."""
    rng = np.random.default_rng(seed)
    points = rng.standard_t(5, size=(batch, 16))
    return squared_distances(points, points[rng.choice(batch, n_codes, replace=False)] * 0.7)


def test_the_default_rounds_come_close_to_the_converged_plan():
    distances = residuals(0, 1024, 64)
    expected = reference.sinkhorn(centered(distances), 0.003, 500).argmax(1)
    got = balanced_codes(torch.from_numpy(distances).float()).numpy()
    assert (got == expected).mean() > 0.95
    balanced, plain = (np.bincount(codes, minlength=64) for codes in (got, distances.argmin(1)))
    assert balanced.std() < 0.25 * plain.std()


@pytest.fixture
def finite_plans(monkeypatch):
    """Every row softmax taken in a test is checked to be finite; yields the list of their dtypes."""
    plain, seen = torch.softmax, []

    def checked(values, dim):
        plan = plain(values, dim=dim)
        assert torch.isfinite(plan).all()
        seen.append(plan.dtype)
        return plan

    monkeypatch.setattr(torch, "softmax", checked)
    return seen


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_float32_at_small_epsilon_gives_the_codes_of_float64(finite_plans, scale):
    distances = torch.from_numpy(residuals(1, 512, 32) * scale)
    agreeing = (balanced_codes(distances.float()) == balanced_codes(distances)).double().mean()
    assert {torch.float32, torch.float64} == set(finite_plans)
    assert agreeing > 0.97
    if scale == 1:  # where the scaling form has left the range of float32
        with np.errstate(over="ignore"):
            naive = np.exp(-centered(distances.numpy()).astype(np.float32) / np.float32(0.003))
        assert not np.isfinite(naive).all()


@pytest.mark.parametrize(
    "distances",
    [
        np.zeros((8, 4)),
        np.full((8, 4), 1e30),
        np.diag(np.full(6, 1e6)),
        np.random.default_rng(0).random((64, 16)) * np.logspace(-8, 8, 16),
        np.concatenate([np.zeros((64, 1)), np.full((64, 3), 1e4)], 1),
        np.ones((3, 1)),
    ],
    ids=["zero", "huge", "diagonal", "all scales", "one near code", "one code"],
)
@pytest.mark.parametrize("epsilon", [0.003, 1e-4])
def test_no_batch_makes_a_plan_in_float32_that_is_not_finite(finite_plans, distances, epsilon):
    codes = balanced_codes(torch.tensor(distances, dtype=torch.float32), epsilon=epsilon)
    assert finite_plans and codes.min() >= 0 and codes.max() < distances.shape[1]


def test_a_far_diagonal_is_avoided():
    codes = balanced_codes(torch.diag(torch.full((6,), 1e6)))
    assert (codes != torch.arange(6)).all()


def column_sums(points, centroids, bias, epsilon):
    """Sums of the plan's columns under given prices, from the formula."""
    distances = squared_distances(points, centroids)
    unit = epsilon * (distances.max() - distances.min()) / 2
    logits = (2 * bias - distances) / unit
    plan = np.exp(logits - logits.max(1, keepdims=True))
    return (plan / plan.sum(1, keepdims=True)).sum(0)


@pytest.mark.parametrize("seed", range(3))
def test_catalog_prices_balance_the_columns_to_the_stated_error(seed):
    points, centroids = skewed(seed, 5000, 12)
    centroids = snap_centroids(centroids / 2)
    bias, error = catalog_prices(points, centroids, epsilon=0.02, rounds=500)
    assert error < 0.01
    measured = np.abs(column_sums(points, centroids, bias, 0.02) * 12 / 5000 - 1).max()
    np.testing.assert_allclose(measured, error, rtol=0.01, atol=1e-5)


def test_the_stated_error_says_when_the_rounds_were_too_few():
    points, centroids = skewed(0, 2000, 12)
    _, error = catalog_prices(points, snap_centroids(centroids / 2), epsilon=0.003, rounds=1)
    assert error > 0.5


def test_prices_lie_on_their_grid_and_average_to_nothing():
    points, centroids = skewed(4, 2000, 12)
    bias, _ = catalog_prices(points, snap_centroids(centroids / 2))
    assert bias.dtype == np.float64
    np.testing.assert_array_equal(bias * 2.0**26, np.rint(bias * 2.0**26))
    assert abs(bias.mean()) < 2.0**-26


def test_plain_argmax_under_prices_is_nearly_uniform_and_depends_on_the_item_alone():
    points, centroids = skewed(5, 6000, 16)
    latents, levels = snap(points), [snap_centroids(centroids / 2)]
    plain = np.bincount(residual_codes(latents, levels)[:, 0], minlength=16)
    bias, _ = catalog_prices(latents, levels[0], rounds=300)
    codes = residual_codes(latents, levels, biases=[bias])
    fair = 6000 / 16
    balanced = np.bincount(codes[:, 0], minlength=16)
    assert np.abs(balanced - fair).max() < 0.15 * fair
    assert np.abs(plain - fair).max() > 0.5 * fair
    alone = [residual_codes(latents[row : row + 1], levels, biases=[bias])[0] for row in range(0, 6000, 500)]
    np.testing.assert_array_equal(alone, codes[::500])


def test_one_code_needs_no_price():
    bias, error = catalog_prices(np.ones((5, 2)), np.zeros((1, 2), np.float32))
    assert bias.tolist() == [0.0] and error < 1e-9
