"""Rounds of residual k-means by `kmeans_update`, under the interpreter: those of the CPU to float32 rounding."""

from __future__ import annotations

import numpy as np
import pytest

from semid.kernels import kmeans_update as kernel
from semid.kernels import kmeans_update_triton
from semid.kernels.dispatch import VARIABLE
from semid.train.kmeans import lloyd
from semid.train.lloyd import assign_and_sum, lloyd_device
from semid.train.residual_kmeans import ResidualKMeans


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Collect an entry for each call of the kernel."""
    made: list[int] = []
    original = kernel.kmeans_update
    monkeypatch.setattr(kernel, "kmeans_update", lambda *args, **more: made.append(1) or original(*args, **more))
    return made


def clusters(n: int, dims: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (4 * rng.normal(size=(8, dims))[rng.integers(8, size=n)] + rng.normal(size=(n, dims))).astype(np.float32)


@pytest.mark.parametrize("dims", [6, 70])  # the kernel in one pass, and by segments
@pytest.mark.parametrize("priced", [False, True])
def test_a_pass_is_that_of_the_cpu(monkeypatch, calls, dims, priced):
    monkeypatch.setattr(kmeans_update_triton, "SPLITS", 2)
    points, centroids = clusters(150, dims), clusters(12, dims, seed=1)
    prices = np.linspace(0, 3, 12, dtype=np.float32) if priced else None
    expected = assign_and_sum(points, centroids, prices)
    with lloyd_device("cpu"):
        found = assign_and_sum(points, centroids, prices)
    assert len(calls) == 1
    for mine, theirs in zip(found, expected, strict=True):
        assert np.asarray(mine).dtype == np.asarray(theirs).dtype
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found.means(), expected.means(), rtol=1e-5, atol=1e-5)


def test_rounds_end_at_the_centroids_of_the_cpu(calls):
    points, start = clusters(200, 5), clusters(8, 5, seed=2)
    expected = lloyd(points, start, 5)
    with lloyd_device("cpu"):
        found = lloyd(points, start, 5)
    assert calls
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_learner_learns_levels_as_good(calls):
    points = clusters(60, 3)
    settings = {"levels": 2, "codebook_size": 4, "dim": 3}
    on_cpu = ResidualKMeans(**settings).fit(points).codebooks_
    assert not calls
    with lloyd_device("cpu"):
        on_gpu = ResidualKMeans(**settings).fit(points).codebooks_
    assert calls
    errors = [np.square(points - books.reconstruct(books.encode(points))).sum() for books in (on_cpu, on_gpu)]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


def test_nothing_goes_to_the_kernel_where_it_was_not_asked_for(monkeypatch, calls):
    points, centroids = clusters(30, 3), clusters(4, 3, seed=1)
    assign_and_sum(points, centroids)
    monkeypatch.setenv(VARIABLE, "torch")
    with lloyd_device("cpu"):
        assign_and_sum(points, centroids)
    assert not calls
