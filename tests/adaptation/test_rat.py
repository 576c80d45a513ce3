"""RAT: a causal recommender whose padding changes nothing, its loss by the formula, and vectors that learn with it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from semid.adaptation.adapter import apply_layers
from semid.adaptation.config import AdaptConfig
from semid.adaptation.losses import soft_target_loss
from semid.adaptation.rat import _Stage, train_rat
from semid.adaptation.report import NextItems
from semid.adaptation.sasrec import LONGEST, SASRec, Sequences
from semid.data.interactions import Histories
from semid.errors import ConfigError

N, USERS = 40, 200
CONFIG = AdaptConfig(rat=True, steps=60, batch_size=64, dim=16, device="cpu", seed=0)


def histories(lengths, seed=0):
    """Users who go from an item to the next number, from a random one on."""
    starts = np.random.default_rng(seed).integers(N, size=len(lengths))
    rows = [(start + np.arange(length)) % N for start, length in zip(starts, lengths, strict=True)]
    return Histories(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(rows).astype(np.int64), 0)


def behavior(n_users=USERS):
    """What is learned from, and the item after it of each user."""
    learned = histories([4 + user % 5 for user in range(n_users)])
    last = learned.rows[learned.offsets[1:] - 1]
    met = np.bincount(learned.rows, minlength=N)
    asked = NextItems(learned, np.arange(n_users), (last + 1) % N, met)
    return SimpleNamespace(learned=learned, judges=asked, reported=asked)


def vectors():
    return np.random.default_rng(1).normal(size=(N, 24)).astype(np.float32)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SASRec(16).eval()


def test_a_position_sees_no_later_one_and_padding_changes_nothing(model):
    given = torch.randn(3, 9, 16)
    changed = given.clone()
    changed[:, 5:] = 7.0
    with torch.no_grad():
        states, others, short = model(given), model(changed), model(given[:, :5])
    torch.testing.assert_close(states[:, :5], others[:, :5], rtol=0, atol=1e-6)
    torch.testing.assert_close(states[:, :5], short, rtol=0, atol=1e-6)
    assert (states[:, 5:] - others[:, 5:]).abs().max() > 0.1


def test_the_model_equals_a_plain_one(model):
    """One user, position by position, with attention written out."""
    given = torch.randn(6, 16)
    states = given * 4.0 + model.places[:6]
    for block in model.blocks:
        queries = block.before(states)
        weights, shifts = block.attention.in_proj_weight.chunk(3), block.attention.in_proj_bias.chunk(3)
        asks, keys, values = (
            rows @ weight.T + shift
            for rows, weight, shift in zip((queries, states, states), weights, shifts, strict=True)
        )
        seen = [(asks[t] @ keys[: t + 1].T / 16**0.5).softmax(0) @ values[: t + 1] for t in range(6)]
        mixed = block.after(queries + block.attention.out_proj(torch.stack(seen)))
        states = mixed + block.inner(mixed)
    expected = model.norm(states)
    with torch.no_grad():
        torch.testing.assert_close(model(given[None])[0], expected, rtol=1e-4, atol=1e-5)


def test_batches_hold_each_user_once_an_epoch_their_last_items_and_items_they_never_met():
    given = histories([1, 2, 5, 0, LONGEST + 30, 3])
    sequences = Sequences(given, N + 400)  # so that even the longest history leaves items to draw
    assert sequences.users.tolist() == [1, 2, 4, 5]
    batches = sequences.batches(3, seed=2)
    first, second = next(batches), next(batches)
    lengths = sorted(np.concatenate([batch.filled.sum(axis=1) for batch in (first, second)]).tolist())
    assert lengths == [1, 2, 4, LONGEST]
    for batch in (first, second):
        assert (batch.wanted == (batch.items + 1) % N)[batch.filled].all()
        for items, wanted, others, filled in zip(batch.items, batch.wanted, batch.others, batch.filled, strict=True):
            assert not set(others[filled]) & (set(items[filled]) | set(wanted[filled]))
    again = next(Sequences(given, N + 400).batches(3, seed=2))
    assert np.array_equal(first.others, again.others) and np.array_equal(first.items, again.items)


def test_unknown_items_are_left_out_of_sequences():
    sequences = Sequences(Histories(np.array([0, 4]), np.array([-1, 3, -1, 5]), 2), N)
    batch = next(sequences.batches(1, seed=0))
    assert batch.items.tolist() == [[3]] and batch.wanted.tolist() == [[5]] and not {3, 5} & set(batch.others[0])


def test_the_loss_is_cross_entropy_and_a_hundredth_of_the_contrastive_loss():
    known = behavior()
    sequences = Sequences(known.learned, N)
    torch.manual_seed(0)
    collaborative = torch.randn(N, 16)
    stage = _Stage(torch.nn.Embedding(N, 16), sequences, known, CONFIG, "cpu", collaborative)
    stage.both.eval()  # no dropout
    batch = next(sequences.batches(7, seed=0))
    table, right, wrong, met = stage.table.weight, [], [], []
    for items, wanted, others, filled in zip(batch.items, batch.wanted, batch.others, batch.filled, strict=True):
        states = stage.model(table[torch.from_numpy(items[filled])][None])[0]
        right += [(states * table[torch.from_numpy(wanted[filled])]).sum(1)]
        wrong += [(states * table[torch.from_numpy(others[filled])]).sum(1)]
        met += wanted[filled].tolist()
    logits = torch.cat([*right, *wrong])
    labels = torch.cat([torch.ones(len(met)), torch.zeros(len(met))])
    expected = 2 * torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    expected += 0.01 * soft_target_loss(table[met], collaborative[met], torch.tensor(2.0))
    torch.testing.assert_close(stage.loss(batch), expected, rtol=1e-4, atol=1e-4)


def test_figures_rank_the_whole_catalog_by_the_state_after_the_last_item():
    known = behavior(30)
    stage = _Stage(torch.nn.Embedding(N, 16), Sequences(known.learned, N), known, CONFIG, "cpu")
    stage.both.eval()
    table, hits = stage.table.weight.detach(), 0
    for user, target in zip(known.judges.users, known.judges.targets, strict=True):
        rows = known.learned.rows[known.learned.offsets[user] : known.learned.offsets[user + 1]]
        with torch.no_grad():
            scores = stage.model(table[torch.from_numpy(rows)][None])[0, -1] @ table.T
        scores[torch.from_numpy(rows)] = -torch.inf
        hits += int((scores > scores[target]).sum() < 10)
    assert 0 < hits < 30 and stage.figures(known.judges).recall["all"] == pytest.approx(hits / 30)


def test_the_adapted_table_learns_to_recommend_and_leaves_as_two_layers():
    known = behavior()
    learned = train_rat(vectors(), known, CONFIG)
    by_chance = 10 / N
    assert {name: found.recall["all"] > 2 * by_chance for name, found in learned.others.items()} == {
        "SASRec, ID table": True,
        "SASRec, adapted": True,
    }
    best = max(score for _, _, score in learned.scores)
    assert [step for step, _, score in learned.scores if score == best][0] == learned.step
    assert learned.others["SASRec, adapted"].recall["all"] == pytest.approx(best)  # the judges are the report's here
    assert [layer.weight.shape for layer in learned.layers] == [(16, 24), (16, 16)]
    assert not any(layer.relu for layer in learned.layers)
    adapted = apply_layers(learned.layers, vectors())
    np.testing.assert_allclose(np.linalg.norm(adapted, axis=1), 1, atol=1e-5)


def test_equal_seeds_give_equal_layers_and_nothing_of_the_process_changes():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    few = AdaptConfig(rat=True, steps=6, batch_size=16, dim=8, device="cpu", seed=3)
    runs = [train_rat(vectors(), behavior(), few).layers for _ in range(2)]
    assert torch.equal(torch.rand(1), expected)
    for one, other in zip(*runs, strict=True):
        assert np.array_equal(one.weight, other.weight) and np.array_equal(one.bias, other.bias)


def test_the_last_step_is_kept_where_nothing_judges():
    known = behavior()
    empty = NextItems(known.learned, np.zeros(0, np.int64), np.zeros(0, np.int64), known.judges.met)
    few = AdaptConfig(rat=True, steps=6, batch_size=16, dim=8, device="cpu")
    learned = train_rat(vectors(), SimpleNamespace(learned=known.learned, judges=empty, reported=empty), few)
    assert learned.step == 6 and learned.others == {}


def test_users_with_one_item_each_teach_nothing():
    known = behavior()
    known.learned = histories([1] * 5)
    with pytest.raises(ConfigError, match="no user has two training interactions"):
        train_rat(vectors(), known, CONFIG)
