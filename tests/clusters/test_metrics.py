"""DS and MS against the plain reading of META ID's code, pair by pair, and what the corrected forms promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import softmax

from semid.clusters.metrics import (
    adjusted_cosines,
    centered,
    diversity,
    interaction_matrix,
    memorization,
    published_diversity,
    published_memorization,
)
from semid.data.interaction_reader import read_interactions
from semid.errors import InputError


def random_ratings(n: int = 30, m: int = 20, seed: int = 0) -> csr_array:
    """Stars of m raters for n items, a third of them given."""
    draw = np.random.default_rng(seed)
    return csr_array(draw.integers(1, 6, (n, m)) * (draw.random((n, m)) < 1 / 3).astype(float))


def random_vectors(n: int = 30, dim: int = 6, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim))


def pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(n, 1)


def divergences(vectors: np.ndarray) -> np.ndarray:
    """Of every pair, written out."""
    shares = softmax(vectors, axis=1)
    p, q = (shares[side] for side in pairs(len(vectors)))
    return ((p * np.log(p / q)).sum(1) + (q * np.log(q / p)).sum(1)) / 2


# ---- as published


def test_published_diversity_is_the_mean_divergence_of_a_sample():
    vectors = random_vectors()
    exact = divergences(vectors).mean()
    assert published_diversity(vectors, n_pairs=200_000) == pytest.approx(exact, rel=0.02)
    assert published_diversity(vectors, seed=1) == published_diversity(vectors, seed=1)
    assert published_diversity(vectors, seed=1) != published_diversity(vectors, seed=2)
    small = vectors / 100
    assert published_diversity(small * 10) == pytest.approx(100 * published_diversity(small), rel=0.01)  # its fault


def test_published_memorization_is_one_less_the_mean_squared_error_over_all_pairs():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    vectors, deviations = random_vectors(), centered(random_ratings()).toarray()
    reduced = PCA(n_components=0.95).fit_transform(StandardScaler().fit_transform(vectors))
    units = reduced / np.linalg.norm(reduced, axis=1, keepdims=True)
    one, other = pairs(len(vectors))
    sums, lengths = deviations.sum(1), np.sqrt((deviations**2).sum(1))
    truth = sums[one] * sums[other] / (lengths[one] * lengths[other])
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    wanted = 1 - ((truth - (units @ units.T)[one, other]) ** 2).mean()
    assert published_memorization(vectors, csr_array(deviations)) == pytest.approx(wanted, abs=1e-10)


def test_ratings_that_are_all_alike_have_no_published_memorization():
    alike = csr_array((random_ratings().toarray() > 0).astype(float))
    with pytest.raises(InputError, match="alike"):
        published_memorization(random_vectors(), centered(alike))


def test_a_users_deviations_from_the_own_mean_sum_to_nothing():
    """Why the published score of users compares cosines to rounding noise."""
    with pytest.raises(InputError, match="alike"):
        published_memorization(random_vectors(), centered(random_ratings(), by="entity"))


# ---- corrected


def test_diversity_is_the_mean_over_all_pairs_and_knows_no_scale():
    vectors = random_vectors()
    scaled = vectors / np.sqrt((vectors**2).mean(axis=1, keepdims=True))
    assert diversity(vectors) == pytest.approx(divergences(scaled).mean())
    assert diversity(vectors * np.linspace(1, 9, 30)[:, None]) == pytest.approx(diversity(vectors))
    assert diversity(np.concatenate([vectors, vectors])) < diversity(vectors)


@pytest.mark.parametrize("by", ["rater", "entity"])
def test_centring_takes_the_mean_of_what_was_rated(by):
    ratings = random_ratings().toarray()
    given = np.where(ratings > 0, ratings, np.nan)
    wanted = given - np.nanmean(given, axis=0 if by == "rater" else 1, keepdims=True)
    assert np.allclose(centered(csr_array(ratings), by=by).toarray(), np.nan_to_num(wanted))


def test_memorization_is_the_correlation_over_all_pairs():
    vectors, deviations = random_vectors(), centered(random_ratings())
    dense = deviations.toarray()
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    truth = adjusted_cosines(deviations)
    one, other = pairs(len(vectors))
    expected = ((dense / lengths) @ (dense / lengths).T)[one, other]
    assert np.allclose(truth.toarray()[one, other], expected)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = np.corrcoef((units @ units.T)[one, other], expected)[0, 1]
    assert memorization(vectors, truth) == pytest.approx(wanted)
    assert memorization(vectors * 7, truth * 3) == pytest.approx(wanted)


def test_no_common_rater_no_likeness_and_perfect_memory_is_one():
    truth = adjusted_cosines(csr_array(np.eye(4)))
    assert truth.nnz == 0 and memorization(random_vectors(4), truth) is None
    ratings = csr_array(np.repeat(np.eye(3), 2, axis=0))
    assert memorization(ratings.toarray(), adjusted_cosines(ratings)) == pytest.approx(1)
    with pytest.raises(InputError, match="shape"):
        memorization(random_vectors(5), truth)


def test_meetings_as_ratings():
    log = read_interactions([{"user": "u", "items": ["a", "b", "a"]}, {"user": "v", "items": ["b"]}])
    assert interaction_matrix(log).toarray().tolist() == [[1, 0], [1, 1]]
    assert interaction_matrix(log, of="users").toarray().tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((1, 2)), np.full((2, 2), np.nan)])
def test_vectors_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="finite numbers"):
        diversity(wrong)
