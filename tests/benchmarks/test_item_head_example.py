"""The example of the item head: its figures by hand, a split that keeps parts apart, and training that pays."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import twin_tables

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / "item_head.py"), run_name="example")
Ranker, Split, figures, made_up = (EXAMPLE[name] for name in ("Ranker", "Split", "figures", "made_up"))


def test_figures_by_hand():
    scores = np.array([[9, 8, 7, 6, 5.0], [1, 2, 3, 4, 5.0], [1, 1, 1, 1, 1.0]])
    seen = [np.array([0]), np.array([4, 3]), np.array([], int)]
    wanted = [np.array([2, 4]), np.array([2]), np.array([], int)]  # the third has nothing to find and does not count
    recall, ndcg = figures(scores, seen, wanted)
    gain = 1 / np.log2(np.arange(2, 6))
    assert recall == 1.0
    assert ndcg == pytest.approx(((gain[1] + gain[3]) / (gain[0] + gain[1]) + 1) / 2)


def test_the_split_keeps_parts_apart():
    log = made_up(30, 200)
    split = Split.at_random(log)
    for user, parts in enumerate(zip(split.train, split.valid, split.test, strict=True)):
        met = log.items[log.offsets[user] : log.offsets[user + 1]]
        assert sorted(np.concatenate(parts)) == sorted(met) and len(parts[2]) == round(len(met) * 0.2)
    assert split.matrix(split.known).sum() == sum(map(len, split.train)) + sum(map(len, split.valid))


def test_users_have_rows_that_are_learned():
    split = Split.at_random(made_up(40, 200))
    ranker = Ranker(split, users=True)
    assert len(ranker.entities.users) == 40 and len(ranker.entities.items) == split.n_items
    embedding = ranker.model.get_input_embeddings().weight
    before = embedding.detach().clone()
    ranker.learn(1)
    own, items = ranker.entities.users, ranker.entities.items
    for block in (own, items):
        assert (embedding.detach() - before)[block.start : block.stop].abs().sum(1).min() > 0
    assert ranker.scores(split.known).shape == (40, split.n_items)


def test_texts_reach_the_ranking_through_the_price_alone(monkeypatch):
    """At price 0 it is the ranker itself, number for number; above it the tables come closer."""
    monkeypatch.setattr(twin_tables, "TURNS", 4)
    split = Split.at_random(made_up(40, 200))
    texts = [f"film {item % 7} of year {item % 11}" for item in range(split.n_items)]
    plain = Ranker(split, users=True)
    plain.learn(2)
    apart, scores = [], []
    for price in (0.0, 30.0):
        ranker = twin_tables.Twins(split, texts, price=price)
        ranker.learn(2)
        scores.append(ranker.scores(split.known))
        apart.append((ranker.head.rows.rows() - ranker.content.rows.rows()).square().sum(1).mean().item())
    assert np.array_equal(scores[0], plain.scores(split.known))
    assert not np.allclose(scores[1], scores[0]) and apart[1] < 0.8 * apart[0]


@pytest.mark.slow
def test_training_beats_popularity():
    split = Split.at_random(made_up(200, 400))
    popular = np.tile(split.matrix(split.train).sum(0), (200, 1))
    ranker = Ranker(split)
    ranker.learn(10)
    head = figures(ranker.scores(split.known), split.known, split.test)
    base = figures(popular, split.known, split.test)
    assert head[0] > 1.1 * base[0] and head[1] > 1.1 * base[1]
