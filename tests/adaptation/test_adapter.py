"""Adapters: dense layers that start as the identity, learn communities, and keep the best step."""

from __future__ import annotations

import numpy as np
import pytest

from semid.adaptation.adapter import Batch, Dense, apply_layers, learn_adapter, principal_directions
from semid.adaptation.config import AdaptConfig
from semid.errors import ConfigError
from semid.runtime.arrays import unit_rows

GROUPS, EACH, D = 6, 20, 16
N = GROUPS * EACH
GROUP = np.repeat(np.arange(GROUPS), EACH)


def catalog(seed=0):
    """Unit vectors in which the group shows, under noise that is larger."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(GROUPS, D))
    return unit_rows((centers[GROUP] + 1.5 * rng.normal(size=(N, D))).astype(np.float32))


def batches(steps, size=24, seed=0):
    """Pairs of items of one group."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        left = rng.choice(N, size, replace=False)
        right = np.array([rng.choice(np.flatnonzero(GROUP[row] == GROUP)) for row in left])
        yield Batch(left, right, left, right)


def purity(vectors):
    """Share of the ten nearest neighbors that are of the item's group."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -2)
    nearest = np.argsort(-likeness, axis=1)[:, :10]
    return float((GROUP[nearest] == GROUP[:, None]).mean())


def learned(steps=60, judge=None, **choices):
    vectors = catalog()
    config = AdaptConfig(steps=steps, hidden=32, rate=3e-3, temperature=0.2, device="cpu", **choices)
    return vectors, learn_adapter(vectors, batches(steps), steps, config, catalog=vectors, judge=judge)


@pytest.mark.parametrize("shape", ["mlp", "linear"])
def test_an_adapter_starts_as_the_vectors_without_their_mean(shape):
    vectors = catalog() + np.float32(0.3)
    config = AdaptConfig(steps=1, rate=1e-12, adapter=shape, hidden=32, device="cpu")
    start = learn_adapter(vectors, batches(1), 1, config, catalog=vectors)
    expected = unit_rows(vectors - vectors.mean(axis=0))
    assert np.abs(apply_layers(start.layers, vectors) - expected).max() < 1e-5


@pytest.mark.parametrize("shape", ["mlp", "linear"])
def test_items_that_are_met_together_move_together(shape):
    vectors, found = learned(200, adapter=shape)
    assert purity(apply_layers(found.layers, vectors)) > purity(vectors) + 0.15


def test_the_layers_are_the_formula():
    vectors, found = learned(adapter="mlp")
    first, second = found.layers
    matrix, inner, outer = first.weight[:D], first.weight[2 * D :], second.weight[:, 2 * D :]
    moved = vectors @ matrix.T + first.bias[:D]
    expected = moved + np.maximum(vectors @ inner.T + first.bias[2 * D :], 0) @ outer.T + second.bias
    assert np.abs(outer).max() > 0.01 and np.abs(matrix - np.eye(D)).max() > 0.01
    assert np.allclose(first.bias[:D], -matrix @ vectors.mean(axis=0), atol=1e-5)  # the mean comes off first
    assert np.allclose(apply_layers(found.layers, vectors), unit_rows(expected), atol=1e-5)


def test_equal_seeds_give_equal_layers_and_others_do_not():
    def bits(seed):
        return b"".join(
            layer.weight.tobytes() + layer.bias.tobytes() for layer in learned(20, seed=seed, adapter="mlp")[1].layers
        )

    assert bits(3) == bits(3) != bits(4)


def test_fewer_dims_start_from_the_principal_directions():
    vectors = catalog()
    config = AdaptConfig(steps=1, rate=1e-12, dim=4, hidden=8, device="cpu")
    start = learn_adapter(vectors, batches(1), 1, config, catalog=vectors)
    expected = unit_rows((vectors - vectors.mean(axis=0)) @ principal_directions(vectors, 4).T)
    assert np.allclose(apply_layers(start.layers, vectors), expected, atol=1e-5)


def test_principal_directions_are_those_of_a_singular_value_decomposition():
    vectors = catalog()
    expected = np.linalg.svd(vectors - vectors.mean(axis=0))[2][:3]
    assert np.allclose(np.abs(principal_directions(vectors, 3)), np.abs(expected), atol=1e-4)


def test_more_dims_than_the_model_has_are_refused():
    with pytest.raises(ConfigError, match="dim=17 should be at most 16, the model's"):
        learned(1, dim=17)


def test_the_best_step_is_kept_and_the_start_where_nothing_is_better():
    scores = iter([0.1, 0.15, 0.2, 0.5, 0.4, 0.5, 0.3, 0.2])  # the first two are of the start, with and without mean
    _, found = learned(60, judge=lambda vectors: next(scores))
    assert found.step == 20  # the second of six times, and the first of two equal scores
    assert [step for step, _, _ in found.scores] == [0, 10, 20, 30, 40, 50, 60]
    falling = iter([0.8, 0.9, *[0.85] * 6])
    vectors, kept = learned(60, judge=lambda vectors: next(falling))
    assert (kept.step, kept.layers) == (0, [])
    assert apply_layers(kept.layers, vectors) is vectors


@pytest.mark.parametrize("loss", ["llmemb", "llmemb-detached"])
def test_the_published_loss_falls(loss):
    _, found = learned(60, loss=loss)
    assert found.scores[-1][1] < found.scores[0][1]


def test_a_loss_that_is_not_finite_ends_training_and_is_said(caplog):
    vectors = catalog()
    bad = vectors.copy()
    bad[:] = np.inf
    inputs = np.concatenate([vectors, bad])
    config = AdaptConfig(steps=12, hidden=8, device="cpu")

    def turning():
        for step, batch in enumerate(batches(12)):
            shift = N if step == 7 else 0
            yield Batch(batch.left + shift, batch.right + shift, batch.left_items, batch.right_items)

    found = learn_adapter(inputs, turning(), 12, config, catalog=vectors, judge=_rising())
    assert found.step == 6 and np.isfinite(found.layers[0].weight).all()
    assert "the loss is not finite at step 8; the best step before it is kept" in caplog.text


def _rising():
    scores = iter(range(100))
    return lambda vectors: float(next(scores))


def test_an_item_without_text_stays_zero():
    layers = [Dense(np.eye(2, dtype=np.float32), np.ones(2, np.float32))]
    assert apply_layers(layers, np.array([[0, 0], [3, 3]], np.float32))[0].tolist() == [0, 0]
