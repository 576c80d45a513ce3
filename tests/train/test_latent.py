"""The starting encoder: PCA as scikit-learn has it, and a step towards neighbors that holds for unseen items."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from semid.train.latent import nearest_neighbors, neighbor_map, principal_map
from semid.train.residual_kmeans import starting_encoder


def spread_out(seed, n_items, dims):
    """Vectors far from the origin with a falling spectrum."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(dims, dims)))
    return (rng.normal(size=(n_items, dims)) * 0.8 ** np.arange(dims) @ turn + 2).astype(np.float32)


@pytest.mark.parametrize(("n_items", "dims"), [(500, 12), (15, 12), (8, 12)])
def test_the_principal_map_is_scikit_learns_pca(n_items, dims):
    vectors = spread_out(0, n_items, dims)
    pca = PCA(5, svd_solver="full").fit(vectors.astype(np.float64))
    found = principal_map(vectors, 5)
    signs = np.sign((found.directions * pca.components_.T).sum(0))
    np.testing.assert_allclose(found.directions * signs, pca.components_.T, atol=1e-5)
    np.testing.assert_allclose(found(vectors) * signs, pca.transform(vectors), atol=1e-4)
    assert (found.gain == 1).all()


def test_a_very_wide_input_is_reduced_by_the_same_directions():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(60, 4)) * [8, 4, 2, 1] @ rng.normal(size=(4, 1100))).astype(np.float32)
    found = principal_map(vectors, 4, seed=3)
    left = vectors - vectors.mean(0) - found(vectors) @ found.directions.T
    assert (left**2).sum() < 1e-6 * (vectors**2).sum()
    np.testing.assert_array_equal(found.directions, principal_map(vectors, 4, seed=3).directions)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_the_gain_evens_out_the_spread(whiten):
    vectors = spread_out(1, 2000, 8)
    found = principal_map(vectors, 8, whiten=whiten)
    spread = found(vectors).std(0)
    np.testing.assert_allclose(spread * found.gain, spread[0] ** whiten * spread ** (1 - whiten), rtol=1e-3)


def test_directions_that_hold_nothing_are_dropped():
    vectors = np.zeros((100, 6), np.float32)
    vectors[:, :2] = np.random.default_rng(0).normal(size=(100, 2))
    found = principal_map(vectors, 6, whiten=1.0)
    assert found.directions.shape == (6, 2) and np.isfinite(found.gain).all()


@settings(max_examples=30)
@given(n_items=st.integers(1, 6), width=st.integers(1, 6), dim=st.integers(1, 8), same=st.booleans())
def test_any_shape_gives_finite_orthonormal_directions(n_items, width, dim, same):
    vectors = np.random.default_rng(n_items).normal(size=(n_items, width)).astype(np.float32)
    if same:
        vectors[:] = vectors[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = principal_map(vectors, dim, whiten=0.5)
    kept = found.directions.shape[1]
    assert found.directions.shape[0] == width and 1 <= kept <= min(dim, width)
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(kept), atol=1e-9)
    assert np.isfinite(found(vectors)).all() and np.isfinite(found.gain).all()


@given(st.integers(0, 2**32), st.integers(6, 40), st.integers(1, 5))
@settings(max_examples=30)
def test_nearest_neighbors_are_the_nearest_by_brute_force(seed, n_items, count):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (n_items, 3)).astype(np.float32)  # whole numbers: distances without rounding
    found = nearest_neighbors(vectors, np.arange(len(vectors)), count)
    distances = ((vectors[:, None] - vectors) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    assert found.shape == (n_items, count)
    assert (found != np.arange(n_items)[:, None]).all()
    assert all(len(set(row)) == count for row in found.tolist())
    chosen = np.sort(np.take_along_axis(distances, found, 1), axis=1)
    np.testing.assert_array_equal(chosen, np.sort(distances, axis=1)[:, :count])


def test_many_identical_rows_never_name_themselves():
    vectors = np.ones((50, 4), np.float32)
    found = nearest_neighbors(vectors, np.arange(len(vectors)), 10)
    assert (found != np.arange(50)[:, None]).all()


def all_neighbors(vectors):
    rows = np.arange(len(vectors))
    return rows, nearest_neighbors(vectors, rows, 10)


def noisy_products(seed, n_items, dims=16, n_products=80):
    """Items that are one of a few products plus noise of the encoder."""
    rng = np.random.default_rng(seed)
    products = np.random.default_rng(99).normal(size=(n_products, dims))
    return (products[rng.integers(0, n_products, n_items)] + 0.35 * rng.normal(size=(n_items, dims))).astype(np.float32)


def test_the_learned_step_brings_unseen_items_nearer_to_their_neighbors():
    seen, unseen = noisy_products(0, 2000), noisy_products(1, 500)
    step = neighbor_map(seen, *all_neighbors(seen), pull=3.0, units=256)
    together = np.concatenate([unseen, seen])
    means = together[nearest_neighbors(together, np.arange(len(unseen)), 10)].mean(1)
    before = ((unseen - means) ** 2).sum()
    after = ((unseen + step(unseen) - means) ** 2).sum()
    assert after < 0.6 * before


def test_the_step_predicts_most_of_its_target():
    latents = noisy_products(2, 1500)
    rows, neighbors = all_neighbors(latents)
    for pull in (0.5, 2.0):
        target = (latents + pull * latents[neighbors].mean(1)) / (1 + pull) - latents
        left = target - neighbor_map(latents, rows, neighbors, pull=pull, units=256)(latents)
        assert (left**2).sum() < 0.5 * (target**2).sum()


def test_the_starting_network_is_the_two_steps_in_one():
    vectors = noisy_products(3, 400) + 5
    settings_ = {"whiten": 0.5, "landmarks": 32, "seed": 0}
    principal = principal_map(vectors, 6, whiten=0.5)
    latents = principal(vectors)
    step = neighbor_map(latents, *all_neighbors(vectors), pull=1.0, units=32)
    pulled = starting_encoder(vectors, 6, pull=1.0, **settings_)
    np.testing.assert_allclose(pulled(vectors), (latents + step(latents)) * principal.gain, atol=1e-3)
    plain = starting_encoder(vectors, 6, pull=0.0, **settings_)
    np.testing.assert_allclose(plain(vectors), latents * principal.gain, atol=1e-3)
    assert plain.mlp == ()


def test_too_few_items_for_neighbors_start_from_pca_alone():
    network = starting_encoder(noisy_products(4, 40), 4, whiten=0.5, pull=1.0, landmarks=8, seed=0)
    assert network.mlp == ()
