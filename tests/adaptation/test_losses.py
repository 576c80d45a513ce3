"""The losses against their formulas, written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semid.adaptation.losses import FIRST_TAU, infonce, soft_target_loss

N, D = 7, 5


@pytest.fixture
def sides():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)), rng.normal(size=(N, D))


def log_softmax(row):
    return row - np.log(np.exp(row).sum())


def plain_infonce(left, right, left_items, right_items, temperature):
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
    total = 0.0
    for i in range(N):
        for one, others, own, theirs in (
            (left[i], right, left_items, right_items),
            (right[i], left, right_items, left_items),
        ):
            logits = others @ one / temperature
            kept = [
                j for j in range(N) if j == i or (theirs[j] != theirs[i] and theirs[j] != own[i] and own[j] != own[i])
            ]
            total += np.log(np.exp(logits[kept]).sum()) - logits[i]
    return total / (2 * N)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_infonce_is_the_mean_of_both_directions_without_the_same_item(sides, temperature):
    left_items, right_items = np.array([0, 1, 2, 3, 4, 0, 5]), np.array([6, 0, 7, 8, 6, 9, 10])
    expected = plain_infonce(*sides, left_items, right_items, temperature)
    tensors = [torch.tensor(array) for array in (*sides, left_items, right_items)]
    assert float(infonce(*tensors, temperature)) == pytest.approx(expected, rel=1e-9)
    distinct = plain_infonce(*sides, np.arange(N), np.arange(N) + N, temperature)
    assert distinct != pytest.approx(expected, rel=1e-3)


def test_two_views_of_an_item_are_a_pair_and_not_masked(sides):
    items = torch.arange(N)
    both = [torch.tensor(side) for side in sides]
    assert float(infonce(*both, items, items, 0.5)) == pytest.approx(float(infonce(*both, items, items + N, 0.5)))


def plain_soft_targets(left, right, tau, detached):
    logits, likeness = left @ right.T / tau, (left @ left.T + right @ right.T) / 2 * tau
    targets = np.exp([log_softmax(row) for row in likeness])
    others = np.exp([log_softmax(row) for row in likeness.T]) if detached else targets.T
    forward = [-(targets[i] * log_softmax(logits[i])).sum() for i in range(N)]
    backward = [-(others[i] * log_softmax(logits[:, i])).sum() for i in range(N)]
    return (np.mean(forward) + np.mean(backward)) / 2


@pytest.mark.parametrize("detached", [False, True])
def test_soft_targets_are_as_published_and_the_corrected_ones_sum_to_one(sides, detached):
    tensors = [torch.tensor(side) for side in sides]
    loss = soft_target_loss(*tensors, torch.tensor(FIRST_TAU, dtype=torch.float64), detached=detached)
    assert float(loss) == pytest.approx(plain_soft_targets(*sides, FIRST_TAU, detached), rel=1e-9)


def numeric_gradient(loss, left, step=1e-6):
    found = np.zeros_like(left)
    for place in np.ndindex(left.shape):
        up, down = left.copy(), left.copy()
        up[place] += step
        down[place] -= step
        found[place] = (loss(up) - loss(down)) / (2 * step)
    return found


def test_the_gradient_flows_through_published_targets_and_not_through_corrected_ones(sides):
    left, right = sides
    gradients = {}
    for detached in (False, True):
        given = torch.tensor(left, requires_grad=True)
        soft_target_loss(given, torch.tensor(right), torch.tensor(1.0), detached=detached).backward()
        gradients[detached] = given.grad.numpy()
    whole = numeric_gradient(lambda moved: plain_soft_targets(moved, right, 1.0, detached=False), left)
    assert np.allclose(gradients[False], whole, atol=1e-6)
    whole = numeric_gradient(lambda moved: plain_soft_targets(moved, right, 1.0, detached=True), left)
    assert not np.allclose(gradients[True], whole, atol=1e-2)


def test_tau_is_learned(sides):
    tau = torch.tensor(FIRST_TAU, requires_grad=True)
    soft_target_loss(*(torch.tensor(side, dtype=torch.float32) for side in sides), tau).backward()
    assert tau.grad is not None and abs(float(tau.grad)) > 0
