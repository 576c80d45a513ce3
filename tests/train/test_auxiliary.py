"""The losses that align codes: against plain loops, with gradients where they are due, and off by default."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import ConfigError
from semid.train import RQVAE, CoOccurrenceTarget, TextEmbeddingTarget
from semid.train.auxiliary_losses import CoOccurrenceLoss, Step, TextEmbeddingLoss, centroid_pull, info_nce, losses_of

histories_ = st.lists(st.lists(st.integers(-1, 6), max_size=6), min_size=1, max_size=6)


def pairs_of(target: CoOccurrenceTarget) -> list[tuple[int, int]]:
    return sorted((item, int(near)) for item in range(len(target)) for near in
                  target.rows[target.offsets[item] : target.offsets[item + 1]])  # fmt: skip


def target_of(histories: list[list[int]], n_items: int = 7, window: int = 2, **choices: float) -> CoOccurrenceTarget:
    offsets = np.cumsum([0, *map(len, histories)])
    rows = np.array([item for history in histories for item in history], np.int64)
    return CoOccurrenceTarget.of_histories(offsets, rows, n_items, window=window, weight=1.0, **choices)


# ---- what was met near what


@given(histories_)
def test_pairs_are_those_inside_the_window_of_one_history(histories):
    wanted = [
        pair
        for history in histories
        for place, item in enumerate(history)
        for other in history[place + 1 : place + 3]
        if item >= 0 <= other and item != other
        for pair in ((item, other), (other, item))
    ]
    assert pairs_of(target_of(histories)) == sorted(wanted)


@given(histories_, st.sets(st.integers(0, 6), min_size=1))
def test_some_of_the_items_keep_the_pairs_among_them(histories, kept):
    kept = sorted(kept)
    whole = target_of(histories)
    wanted = sorted((kept.index(a), kept.index(b)) for a, b in pairs_of(whole) if a in kept and b in kept)
    assert pairs_of(whole.take(np.array(kept))) == wanted


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_above_zero(bad):
    with pytest.raises(ConfigError, match="weight=.* above 0"):
        TextEmbeddingTarget(np.zeros((3, 2), np.float32), bad)


# ---- the losses


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**16), st.booleans())
def test_info_nce_is_its_formula(n_rows, seed, with_same):
    draw = np.random.default_rng(seed)
    ours, theirs = draw.normal(size=(2, n_rows, 3))
    same = draw.random((n_rows, n_rows)) < 0.3 if with_same else np.zeros((n_rows, n_rows), bool)
    cosines = (ours / np.linalg.norm(ours, axis=1)[:, None]) @ (theirs / np.linalg.norm(theirs, axis=1)[:, None]).T
    total = 0.0
    for i in range(n_rows):
        negatives = [np.exp(cosines[i, j] / 0.2) for j in range(n_rows) if j == i or not same[i, j]]
        total -= np.log(np.exp(cosines[i, i] / 0.2) / sum(negatives))
    found = info_nce(torch.from_numpy(ours), torch.from_numpy(theirs), 0.2, torch.from_numpy(same))
    assert float(found) == pytest.approx(total / n_rows, abs=1e-9)


def test_the_pull_is_towards_usage_weighted_means():
    draw = np.random.default_rng(0)
    levels = [draw.normal(size=(4, 3)).astype(np.float32) for _ in range(2)]
    targets = draw.normal(size=(9, 5)).astype(np.float32)
    codes = draw.integers(0, 3, size=(9, 2))  # code 3 of either level is never used
    projection = torch.nn.Linear(3, 5)
    weight, bias = projection.weight.detach().numpy(), projection.bias.detach().numpy()
    wanted = 0.0
    for level, centroids in enumerate(levels):
        for code in range(4):
            under = targets[codes[:, level] == code]
            if len(under):
                wanted += len(under) / 9 * np.square(centroids[code] @ weight.T + bias - under.mean(0)).sum() / 2
    found = centroid_pull([torch.tensor(c) for c in levels], torch.tensor(codes), torch.tensor(targets), projection)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-5)


def step(seed: int = 0, n_rows: int = 40) -> Step:
    torch.manual_seed(seed)
    encoder = torch.nn.Linear(6, 3)
    levels = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    rows, batch = torch.randn(n_rows, 6), torch.randperm(n_rows)[:16]
    latents = encoder(rows[batch])
    return Step(encoder, levels, rows, batch, latents, latents + torch.randn(16, 3))


def test_both_losses_reach_the_encoder_and_only_the_pull_the_centroids():
    ring = np.arange(40)
    met = CoOccurrenceTarget(np.arange(41), (ring + 1) % 40, 1.0)
    spoken = TextEmbeddingTarget(np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32), 1.0)
    for target, moves_centroids in ((met, False), (spoken, True)):
        here = step()
        [loss] = losses_of([target], here.encoder(here.rows).detach(), 0)
        loss(here).backward()
        assert here.encoder.weight.grad.abs().max() > 0
        assert all((level.grad is not None) == moves_centroids for level in here.levels)


def test_a_batch_that_met_nothing_adds_nothing():
    here = step()
    loss = CoOccurrenceLoss(CoOccurrenceTarget(np.zeros(41, np.int64), np.zeros(0, np.int64), 1.0), "cpu", 0)(here)
    loss.backward()
    assert float(loss.detach()) == 0 and not here.encoder.weight.grad.any()


def test_partners_are_drawn_from_those_that_were_met():
    """All rows but 0 and 1 are NaN: a partner from elsewhere would show."""
    here = step()
    here.rows[2:] = torch.nan
    here = here._replace(batch=torch.arange(2), latents=here.latents[:2], quantized=here.quantized[:2])
    met = CoOccurrenceTarget(np.array([0, 1, 2, *[2] * 38]), np.array([1, 0]), 1.0)
    assert torch.isfinite(CoOccurrenceLoss(met, "cpu", 0)(here))


def test_the_projection_starts_where_least_squares_is():
    start = torch.randn(200, 3)
    spoken = TextEmbeddingTarget((start @ torch.randn(3, 7) + 5).numpy(), 1.0)
    loss = TextEmbeddingLoss(spoken, start)
    left = loss.projection(start) - loss.targets
    assert left.square().sum(1).mean() < 1e-3 * loss.targets.square().sum(1).mean()


# ---- inside training


def world(n_items: int = 400, seed: int = 0) -> tuple[np.ndarray, CoOccurrenceTarget, np.ndarray]:
    """Vectors that say softly which group an item is of, and loudly other things; histories inside the groups."""
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 4, n_items)
    vectors = np.concatenate([0.5 * np.eye(4)[groups], draw.normal(size=(n_items, 4))], axis=1)
    near = np.array([draw.choice(np.flatnonzero(groups == groups[item])) for item in range(n_items)])
    return vectors.astype(np.float32), CoOccurrenceTarget(np.arange(n_items + 1), near, 1.0), groups


def small(epochs: int = 3, **choices: object) -> RQVAE:
    return RQVAE(levels=2, codebook_size=8, dim=8, landmarks=32, hidden=16, batch_size=64, device="cpu",
                 anchor=0.0, whiten=0.0, epochs=epochs, **{"lr": 5e-3, **choices})  # fmt: skip


def agreement(codes: np.ndarray, groups: np.ndarray) -> float:
    """How much oftener items of a group share their first code than all do."""
    same = codes[:, None, 0] == codes[None, :, 0]
    return same[groups[:, None] == groups].mean() / same.mean()


def test_items_met_together_come_to_share_codes():
    vectors, met, groups = world()
    met = CoOccurrenceTarget(met.offsets, met.rows, 3.0)
    plain, drawn = (small(30, lr=1e-2).fit(vectors, targets=targets).transform(vectors) for targets in ((), [met]))
    assert agreement(drawn, groups) > agreement(plain, groups) + 0.3


def test_no_targets_change_no_bit_and_training_with_targets_repeats():
    vectors, met, _ = world()
    codes = [small().fit(vectors, targets=targets).transform(vectors) for targets in ((), [], [met], [met])]
    assert np.array_equal(codes[0], small().fit_transform(vectors))
    assert np.array_equal(codes[0], codes[1]) and np.array_equal(codes[2], codes[3])
    assert not np.array_equal(codes[0], codes[2])


def test_targets_follow_a_sample_of_the_items():
    vectors, met, _ = world()
    spoken = TextEmbeddingTarget(vectors, 1.0)
    learner = small(sample=300).fit(vectors, targets=[met, spoken])
    assert learner.training_.kept_epoch == learner.training_.epochs > 0


def test_a_target_of_another_length_is_refused():
    vectors, met, _ = world()
    with pytest.raises(ConfigError, match="CoOccurrenceTarget has 400 entries; expected 300"):
        small().fit(vectors[:300], targets=[met])


def test_too_few_items_to_train_say_so(caplog):
    vectors, met, _ = world()
    small().fit(vectors[:100], targets=[met.take(np.arange(100))])
    assert "auxiliary targets have no effect without training" in caplog.text
