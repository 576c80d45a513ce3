"""k-means, joint refinement and least squares, beside scikit-learn, NumPy and the readable reference."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from semid.quantize import reference
from semid.quantize.grid import snap, snap_centroids
from semid.quantize.residual import residual_codes
from semid.train.kmeans import (
    EVENING_COST,
    even_out,
    improve_levels,
    joint_refinement,
    kmeans,
    least_squares_tables,
    lloyd,
    usage_counts,
)


def nearest(points, centroids):
    distances = ((points[:, None].astype(np.float64) - centroids) ** 2).sum(2)
    return distances.argmin(1), distances.min(1)


def clouds(seed, n_items=600, dims=6, n_clouds=20):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_clouds, dims)) * 3
    return (centers[rng.integers(0, n_clouds, n_items)] + rng.normal(size=(n_items, dims))).astype(np.float32)


def test_lloyd_equals_the_readable_reference():
    points = clouds(0, 150)
    start = points[:5]
    expected = reference.lloyd(points, start, 6)
    assert len(np.unique(nearest(points, expected)[0])) == 5  # or a code fell empty, where the two differ
    np.testing.assert_allclose(lloyd(points, start.copy(), 6), expected, atol=1e-5)


def test_lloyd_revives_a_code_that_falls_empty():
    points = clouds(1)
    start = np.concatenate([points[:7], np.full((1, 6), 1e3, np.float32)])
    codes, _ = nearest(points, lloyd(points, start, 10))
    assert len(np.unique(codes)) == 8


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_no_worse_than_scikit_learns(seed):
    points = np.random.default_rng(seed).normal(size=(3000, 16)).astype(np.float32)
    theirs = KMeans(64, n_init=1, random_state=seed).fit(points).inertia_
    ours = nearest(points, kmeans(points, 64, seed=seed))[1].sum()
    assert ours < 1.01 * theirs


def test_residuals_with_one_loud_hub_are_no_harder():
    points = np.random.default_rng(0).standard_t(3, size=(3000, 16)).astype(np.float32)
    theirs = KMeans(64, n_init=1, random_state=0).fit(points).inertia_
    assert nearest(points, kmeans(points, 64))[1].sum() < 1.02 * theirs


@pytest.mark.parametrize("shape", ["normal", "heavy tails", "duplicates"])
def test_every_code_is_used_where_there_are_enough_distinct_points(shape):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(1500, 8)) if shape != "heavy tails" else rng.standard_t(2, size=(1500, 8))
    if shape == "duplicates":
        points[:1000] = points[0]
    points = points.astype(np.float32)
    codes, _ = nearest(points, kmeans(points, 64))
    assert (np.bincount(codes, minlength=64) > 0).all()


@pytest.mark.parametrize("balance", [0.01, 0.05, 0.5, 50.0])
def test_evening_out_never_costs_more_than_it_says_and_never_makes_use_less_even(balance):
    points = np.random.default_rng(0).standard_t(3, size=(4000, 8)).astype(np.float32)
    before = kmeans(points, 32)
    after = even_out(points, before, balance)

    def entropy_and_error(centroids):
        codes, distances = nearest(points, centroids)
        shares = np.bincount(codes, minlength=32) / len(points)
        shares = shares[shares > 0]
        return -(shares * np.log(shares)).sum(), distances.mean()

    entropy, error = zip(*map(entropy_and_error, (before, after)), strict=True)
    assert entropy[1] >= entropy[0] - 1e-6
    assert error[1] <= error[0] * (1 + EVENING_COST) * (1 + 1e-5)
    if balance == 0.05:
        assert entropy[1] > entropy[0] + 0.02


@settings(max_examples=40)
@given(
    n_items=st.integers(1, 12),
    dims=st.integers(1, 4),
    n_codes=st.integers(1, 16),
    distinct=st.integers(1, 12),
)
def test_any_size_gives_finite_centroids_and_few_points_are_met_exactly(n_items, dims, n_codes, distinct):
    rng = np.random.default_rng(n_items)
    points = rng.normal(size=(distinct, dims))[rng.integers(0, distinct, n_items)].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        centroids = kmeans(points, n_codes)
    assert centroids.shape == (n_codes, dims) and centroids.dtype == np.float32
    assert np.isfinite(centroids).all()
    if len(np.unique(points, axis=0)) <= n_codes:
        codes, distances = nearest(points, centroids)
        assert (distances == 0).all()
        assert len(np.unique(codes)) == len(np.unique(points, axis=0))


@pytest.mark.parametrize(("dims", "worse"), [(1, 1.3), (2, 1.15), (4, 1.1)])
def test_few_dimensions_cost_little_against_scikit_learns_best_of_ten(dims, worse):
    points = np.random.default_rng(0).normal(size=(400, dims)).astype(np.float32)
    theirs = KMeans(8, n_init=10, random_state=0).fit(points).inertia_
    assert nearest(points, kmeans(points, 8))[1].sum() < worse * theirs


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    points = clouds(2)
    assert kmeans(points, 16, seed=3).tobytes() == kmeans(points, 16, seed=3).tobytes()
    assert kmeans(points, 16, seed=3).tobytes() != kmeans(points, 16, seed=4).tobytes()


def test_the_points_are_left_alone():
    points = clouds(3)
    kept = points.copy()
    even_out(points, kmeans(points, 16), 0.01)
    np.testing.assert_array_equal(points, kept)


def test_usage_counts_unused_codes_too():
    counts = usage_counts(np.array([[0, 2], [0, 1], [2, 1]]), [3, 4])
    assert [count.tolist() for count in counts] == [[2, 0, 1], [0, 2, 1, 0]]


def onehot(codes, sizes):
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    ones = np.zeros((len(codes), sum(sizes)))
    np.put_along_axis(ones, codes + offsets, 1, axis=1)
    return ones


@pytest.mark.parametrize("ridge", [1e-3, 10.0])
def test_the_tables_are_numpys_least_squares(ridge):
    rng = np.random.default_rng(0)
    sizes = [4, 7, 3]
    codes = np.stack([rng.integers(0, size, 200) for size in sizes], 1)
    targets = rng.normal(size=(200, 5))
    stacked = np.concatenate([onehot(codes, sizes), np.sqrt(ridge) * np.eye(14)])
    expected, *_ = np.linalg.lstsq(stacked, np.concatenate([targets, np.zeros((14, 5))]))
    got = least_squares_tables(codes, targets, sizes, ridge=ridge)
    assert [table.shape for table in got] == [(4, 5), (7, 5), (3, 5)]
    np.testing.assert_allclose(np.concatenate(got), expected, atol=2e-5)


def test_unused_codes_get_zero_tables():
    codes = np.array([[0, 1], [2, 1], [2, 0]])
    tables = least_squares_tables(codes, np.ones((3, 2)), [4, 2], ridge=1e-3)
    assert (tables[0][[1, 3]] == 0).all() and (tables[0][[0, 2]] != 0).all()


def learned(seed, n_items=800, dims=6, sizes=(12, 12, 12)):
    latents = snap(np.random.default_rng(seed).normal(size=(n_items, dims)))
    residual, levels = latents.astype(np.float32), []
    for size in sizes:
        levels.append(snap_centroids(kmeans(residual, size)))
        residual = residual - levels[-1][residual_codes(residual, levels[-1:])[:, 0]]
    return latents, levels


def error_of(latents, levels):
    codes = residual_codes(latents, levels)
    return ((latents - sum(level[codes[:, i]] for i, level in enumerate(levels))) ** 2).mean()


@pytest.mark.parametrize("seed", range(3))
def test_joint_refinement_lowers_the_error_of_levels_learned_one_by_one(seed):
    latents, levels = learned(seed)
    kept = latents.copy()
    refined = joint_refinement(latents, levels, 5)
    assert error_of(latents, refined) < 0.995 * error_of(latents, levels)
    np.testing.assert_array_equal(latents, kept)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 4))
def test_joint_refinement_never_raises_the_error(seed, n_items, rounds):
    rng = np.random.default_rng(seed)
    latents = snap(rng.normal(size=(n_items, 3)))
    levels = [snap_centroids(rng.normal(size=(5, 3))) for _ in range(3)]
    assert error_of(latents, joint_refinement(latents, levels, rounds)) <= error_of(latents, levels)


def test_no_rounds_of_refinement_change_nothing():
    latents, levels = learned(0, 100)
    assert joint_refinement(latents, levels, 0) is levels


def test_improved_levels_lie_on_the_grid_and_are_used_more_evenly():
    latents, levels = learned(3, 3000, sizes=(16, 16, 16))
    kept = [level.copy() for level in levels]
    refined = improve_levels(latents, levels, refine=3, balance=0.0)
    even = improve_levels(latents, levels, refine=3, balance=0.05)

    def unevenness(some):
        return sum(counts.std() for counts in usage_counts(residual_codes(latents, some), [16] * 3))

    assert unevenness(even) < unevenness(refined)
    assert error_of(latents, refined) < error_of(latents, levels)
    assert error_of(latents, even) < 1.05 * error_of(latents, refined)
    for level, before, after in zip(levels, kept, even, strict=True):
        np.testing.assert_array_equal(level, before)
        np.testing.assert_array_equal(snap_centroids(after), after)


def test_levels_asked_for_no_improvement_stay_as_they_are():
    latents, levels = learned(0, 200)
    for before, after in zip(levels, improve_levels(latents, levels, refine=0, balance=0.0), strict=True):
        np.testing.assert_array_equal(before, after)
