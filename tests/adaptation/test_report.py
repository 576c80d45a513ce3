"""Next items: ranks as a plain loop gives them, kinds of items, whitening."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semid.adaptation.report import NextItems, neighbors_kept, whitened
from semid.data import Histories

N = 12


def packed(lists):
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    rows = np.array([row for one in lists for row in one], np.int64)
    return Histories(offsets, rows, int((rows < 0).sum()))


@given(
    st.lists(
        st.tuples(st.lists(st.integers(-1, N - 1), max_size=6), st.lists(st.integers(-1, N - 1), max_size=2)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 5),
)
def test_ranks_are_those_of_a_plain_loop(users, seed):
    vectors = 6 * np.random.default_rng(seed).integers(-2, 3, (N, 3)).astype(np.float32)  # means and ties are exact
    before, after = [one for one, _ in users], [other for _, other in users]
    found = NextItems.of(packed(before), packed(after), np.ones(N, np.int64), most=100, seed=0)
    expected = []
    for seen, coming in zip(before, after, strict=True):
        known = [row for row in seen if row >= 0]
        if not known or not coming or coming[0] < 0 or coming[0] in known:
            continue
        scores = vectors @ np.mean([vectors[row] for row in known[-3:]], axis=0, dtype=np.float32)
        others = sorted(set(range(N)) - set(known), key=lambda row: (-scores[row], row))
        expected.append(others.index(coming[0]))
    assert found.ranks(vectors).tolist() == expected


def test_recall_and_ndcg_of_known_ranks():
    """Item 0 is liked; the nearest items not met are 1, 2, ...: next item 1 has rank 0, next item 2 rank 1."""
    angles = np.arange(N) * 0.1
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    met = np.array([9, 8, 0, *[1] * (N - 3)])
    found = NextItems.of(packed([[0]] * 3), packed([[1], [2], [11]]), met, most=9, seed=0)
    assert found.ranks(vectors).tolist() == [0, 1, 10]
    scores = found.scores(vectors)
    assert scores.n == {"all": 3, "head": 1, "tail": 1, "cold": 1}
    assert scores.recall == {"all": 2 / 3, "head": 1.0, "tail": 0.0, "cold": 1.0}
    assert np.isclose(scores.ndcg["all"], (1 + 1 / np.log2(3)) / 3) and scores.ndcg["tail"] == 0


def test_users_are_a_seeded_sample():
    histories, after = packed([[0]] * 9), packed([[row] for row in range(1, 10)])
    samples = [NextItems.of(histories, after, np.ones(N, np.int64), most=4, seed=seed).users for seed in (0, 0, 1)]
    assert len(samples[0]) == 4 and (samples[0] == samples[1]).all() and (samples[0] != samples[2]).any()


def test_whitened_vectors_vary_alike_in_all_directions():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(4000, 3)) * [9, 1, 0.1] + 5).astype(np.float32)
    vectors[7] = 0
    found = whitened(vectors)
    assert np.allclose(np.linalg.norm(np.delete(found, 7, 0), axis=1), 1, atol=1e-5) and not found[7].any()
    spread = found.T @ found / len(found)
    assert np.allclose(spread, np.eye(3) / 3, atol=0.02)


def test_directions_without_variance_become_zero_not_noise():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)).astype(np.float32) @ np.array([[1, 0, 2], [0, 1, 1]], np.float32)
    found = whitened(plane)
    assert np.isfinite(found).all() and np.linalg.matrix_rank(found, tol=1e-3) == 2


def test_neighbors_kept_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(40, 5)).astype(np.float32) for _ in range(2)]
    tables = [table / np.linalg.norm(table, axis=1, keepdims=True) for table in tables]
    shared = 0
    for row in range(40):
        one, other = (set(sorted(set(range(40)) - {row}, key=lambda j: -float(t[row] @ t[j]))[:10]) for t in tables)
        shared += len(one & other)
    assert neighbors_kept(*tables) == shared / 400 < 0.6
    assert neighbors_kept(tables[0], tables[0]) == 1.0
