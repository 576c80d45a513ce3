"""The baselines, and the table of several recommenders on the same test cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.evaluation import Bootstrap
from semid.evaluation.baselines import recommend_next, recommend_popular
from semid.evaluation.scores import System, TestSet

PAIRS = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), max_size=12)
COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), min_size=1)


@given(PAIRS, COUNTS, st.sampled_from("abcdx"), st.integers(1, 7))
def test_cooccurrence_recommends_followers_then_the_popular(pairs, counts, last, n):
    (found,) = recommend_next(pairs, [last], counts, n)
    followers = [after for before, after in pairs if before == last]
    every = set(followers) | counts.keys()
    # Followers before others; among them the more frequent, then the more popular, then by id.
    best = sorted(every, key=lambda item: (-followers.count(item), -counts.get(item, 0), item))
    assert found == best[:n]


@given(COUNTS, st.integers(1, 7))
def test_popularity_recommends_the_largest_counts(counts, n):
    found = recommend_popular(counts, n)
    assert len(found) == len(set(found)) == min(n, len(counts))
    assert all(counts[one] >= counts[other] for one in found for other in counts if other not in found)


def test_the_table_has_a_column_for_each_recommender():
    test = TestSet(
        relevant=[["b"], ["c"], ["a"], ["b"]],
        users=["u1", "u2", "u3", "u4"],
        last_items=["a", "b", "b", "a"],
        popularity={"a": 3, "b": 2, "c": 1},
        pairs=[("a", "b"), ("b", "a"), ("b", "a")],
        catalog="abc",
    )
    lists = {"mine": [["b"], ["c"], ["a"], ["c"]], "theirs": [["b"], ["a"], ["a"], ["c"]]}
    scores = test.score(
        {name: System(one, "abc") for name, one in lists.items()}, k=[1, 2], bootstrap=Bootstrap(resamples=0)
    )
    assert [one["recall@1"].value for one in scores.systems.values()] == [0.75, 0.5, 0.75, 0.25]
    assert list(scores.systems) == ["mine", "theirs", "co-occurrence", "popularity"]
    assert {name: one["recall@1"].value for name, one in scores.differences.items()} == {
        "theirs": 0.25, "co-occurrence": 0.0, "popularity": 0.5,
    }  # fmt: skip
    lines = scores.summary()
    assert lines[0] == "4 test cases of 4 users; held-out items: head 1, mid 0, tail 3, cold 0"
    assert lines[1].split() == [
        "mine", "95", "%", "interval", "theirs", "difference", "95", "%", "interval", "co-occurrence", "popularity",
    ]  # fmt: skip
    assert lines[2].split() == ["recall@1", "0.7500", "0.5000", "+0.2500", "0.7500", "0.2500"]
    assert [line.split()[0] for line in lines[2:]] == [
        "recall@1", "recall@2", "ndcg@1", "ndcg@2", "mrr", "coverage@1", "coverage@2", "popularity@1", "popularity@2",
        "head/recall@2", "head/ndcg@2", "tail/recall@2", "tail/ndcg@2",
    ]  # fmt: skip
    data = scores.to_dict()
    assert data["systems"]["mine"]["recall@1"] == {"value": 0.75, "low": None, "high": None}
    assert data["differences"]["theirs"]["mrr"]["value"] == pytest.approx(0.25)


def test_without_training_data_there_are_no_baselines():
    test = TestSet([["b"]], ["u"], ["a"], {}, [], "ab")
    scores = test.score({"mine": System([["b", "a"]], "ab")}, k=[1])
    assert list(scores.systems) == ["mine"]
    assert scores.summary()[0] == "1 test case of 1 user"
