"""The example of the item head: its figures by hand, a split that keeps parts apart, and training that pays."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "examples" / "item_head.py"), run_name="example")
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


@pytest.mark.slow
def test_training_beats_popularity():
    split = Split.at_random(made_up(200, 400))
    popular = np.tile(split.matrix(split.train).sum(0), (200, 1))
    ranker = Ranker(split)
    ranker.learn(10)
    head = figures(ranker.scores(split.known), split.known, split.test)
    base = figures(popular, split.known, split.test)
    assert head[0] > 1.1 * base[0] and head[1] > 1.1 * base[1]
