"""Pairs of items met near each other, and batches of them that repeat no item."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semid.adaptation.pairs import pairs_of_histories
from semid.data import Histories

SOME = st.lists(st.lists(st.integers(-1, 9), max_size=8), min_size=1, max_size=12)


def packed(lists):
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    rows = np.array([row for one in lists for row in one], np.int64)
    return Histories(offsets, rows, int((rows < 0).sum()))


@given(SOME, st.integers(1, 4))
def test_pairs_are_those_of_a_plain_loop(lists, window):
    pairs = pairs_of_histories(packed(lists), 10, window=window)
    expected = sorted(
        (one[i], one[j])
        for one in lists
        for i in range(len(one))
        for j in range(i + 1, min(i + window, len(one) - 1) + 1)
        if one[i] >= 0 and one[j] >= 0 and one[i] != one[j]
    )
    assert sorted(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == expected
    assert pairs.met.tolist() == [sum(row in pair for pair in expected) for row in range(10)]


@given(SOME, st.integers(2, 6), st.integers(0, 3))
def test_no_item_is_in_a_batch_twice_and_every_pair_was_met(lists, size, seed):
    pairs = pairs_of_histories(packed(lists), 10)
    if not len(pairs):
        return
    known = {frozenset(pair) for pair in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)}
    batches = list(pairs.batches(size, 3, seed))
    assert len(batches) == 3
    for left, right in batches:
        assert 1 <= len(left) <= size
        assert len({*left.tolist(), *right.tolist()}) == 2 * len(left)
        assert {frozenset(pair) for pair in zip(left.tolist(), right.tolist(), strict=True)} <= known


def test_equal_seeds_give_equal_batches_and_others_do_not():
    pairs = pairs_of_histories(packed([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] * 3), 10)

    def drawn(seed):
        return [(left.tolist(), right.tolist()) for left, right in pairs.batches(4, 5, seed)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_popular_items_do_not_fill_the_batches():
    """Pair (0, 1) was met 900 times, pair (2, 3) once: weights 1/900 each against 1 make both equally likely."""
    pairs = pairs_of_histories(packed([[0, 1]] * 900 + [[2, 3]]), 4)
    first = [int(min(left[0], right[0])) for left, right in pairs.batches(1, 2000, seed=0)]
    share = first.count(2) / len(first)
    assert 0.45 < share < 0.55


def test_the_checksum_is_of_the_pairs():
    one, same, other = (pairs_of_histories(packed(lists), 4) for lists in ([[0, 1]], [[0, 1]], [[1, 0]]))
    assert one.sha256 == same.sha256 != other.sha256
