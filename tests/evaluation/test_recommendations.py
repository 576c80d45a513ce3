"""Figures of recommendations: against the plain way, an outside library's values, and by hand."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import semid
from semid.errors import ConfigError, InputError
from semid.evaluation import Bootstrap, evaluate_recommendations
from semid.evaluation.intervals import estimate_means
from semid.evaluation.strata import assign_strata
from semid.tokenizer_exports import Generated
from tests.helpers import plain_ranking as plain

NO_INTERVALS = Bootstrap(resamples=0)


def values(found, *names):
    return [found[name].value for name in names]


# ---- the figures


def test_figures_by_hand():
    lists = [["a", "b", "c"], ["d", "a"], []]
    found = evaluate_recommendations(lists, [["c"], ["a", "b"], "e"], k=(1, 2, 3))
    assert values(found, "recall@1", "recall@2", "recall@3") == pytest.approx([0, 0.5 / 3, 1.5 / 3])
    second = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert values(found, "ndcg@2", "ndcg@3") == pytest.approx([second / 3, (0.5 + second) / 3])
    assert found["mrr"].value == pytest.approx((1 / 3 + 1 / 2) / 3)
    assert (found.n_cases, found.n_users, found.k) == (3, 3, (1, 2, 3))


def outside() -> tuple[list[list[str]], list[list[str]]]:
    draws = np.random.default_rng(7)
    lists = [[f"i{item}" for item in draws.permutation(30)[: 5 + row % 16]] for row in range(40)]
    relevant = [[f"i{item}" for item in draws.permutation(30)[: 1 + row % 4]] for row in range(40)]
    return lists, relevant


# recall, ndcg_cut and recip_rank of `outside()` as pytrec_eval-terrier 0.5.11 (trec_eval) computes them
OUTSIDE = {
    "recall@1": 0.075,
    "recall@5": 0.16249999999999998,
    "recall@10": 0.3125,
    "recall@20": 0.3458333333333333,
    "ndcg@1": 0.2,
    "ndcg@5": 0.155100623201249,
    "ndcg@10": 0.22034147818797112,
    "ndcg@20": 0.23390482128683926,
    "mrr": 0.28823502886002883,
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_outside_library_has_the_same_values(name):
    found = evaluate_recommendations(*outside(), k=(1, 5, 10, 20), bootstrap=NO_INTERVALS)
    assert found[name].value == pytest.approx(OUTSIDE[name], abs=1e-9)


ITEMS = "abcdefg"
TABLES = st.lists(st.integers(0, 3), min_size=7, max_size=7).filter(lambda codes: max(map(codes.count, codes)) <= 3)
CASES = st.lists(
    st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sets(st.sampled_from(ITEMS), min_size=1, max_size=3)),
    min_size=1,
    max_size=3,
)


@given(TABLES, CASES, st.integers(1, 6))
def test_colliding_sets_are_what_all_their_orders_are_on_average(codes, cases, k):
    catalog = {item: f"<a_{code}>" for item, code in zip(ITEMS, codes, strict=True)}
    lists = [[f"<a_{code}>" for code in entries] for entries, _ in cases]
    relevant = [wanted for _, wanted in cases]
    counts = {"a": 5, "b": 2, "c": 1, "d": 1, "e": 3, "f": 9}
    if not any(entry in catalog.values() for entries in lists for entry in entries):
        return
    found = evaluate_recommendations(lists, relevant, k=k, catalog=catalog, popularity=counts, bootstrap=NO_INTERVALS)
    assert values(found, f"recall@{k}", f"ndcg@{k}", "mrr") == pytest.approx(
        plain.mean_figures(lists, relevant, catalog, k)
    )
    assert found[f"coverage@{k}"].value == pytest.approx(plain.coverage(lists, catalog, k))
    if any(counts.get(item) for wanted in relevant for item in wanted):
        ratio = plain.popularity_ratio(lists, relevant, catalog, counts, k)
        assert found[f"popularity@{k}"].value == pytest.approx(ratio, nan_ok=True)


def test_a_colliding_id_is_not_credited_for_every_item_it_could_be():
    catalog = {"a": "x", "b": "x", "c": "x", "d": "x", "e": "y"}
    found = evaluate_recommendations([["x", "y"], ["x", "y"]], ["a", "e"], k=(1, 4, 5), catalog=catalog)
    assert values(found, "recall@1", "recall@4", "recall@5") == [0.125, 0.5, 1.0]
    assert found["mrr"].value == pytest.approx(((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4 + 1 / 5) / 2)


# ---- what recommendations may be


def generated(item_ids, token_ids):
    """What `generate_items` returns, from an artifact or from codes."""
    tokens = torch.tensor(token_ids)
    none = torch.zeros(tokens.shape[:2])
    return Generated(item_ids, none.long(), none, tokens, tokens, "tree")


TOKEN_IDS = {"a": (10, 20), "b": (11, 20), "c": (11, 21)}
ARRAY = np.array([[[11, 20], [10, 20]], [[11, 21], [-1, -1]]])
SAME = {
    "items": ([["b", "a"], ["c"]], None),
    "texts": ([["<1><2>", "<0><2>"], ["<1><3>"]], {"a": "<0><2>", "b": "<1><2>", "c": ["<1>", "<3>"]}),
    "tokens": ([[["<1>", "<2>"], ["<0>", "<2>"]], [["<1>", "<3>"]]], {"a": "<0><2>", "b": "<1><2>", "c": "<1><3>"}),
    "token ids": (ARRAY, TOKEN_IDS),
    "codes in lists": ([[(11, 20), [10, 20]], [(11, 21)]], {item: list(one) for item, one in TOKEN_IDS.items()}),
    "generated": (generated([["b", "a"], ["c"]], ARRAY), TOKEN_IDS),
    "generated from codes": (generated(None, ARRAY), TOKEN_IDS),
}


@pytest.mark.parametrize("kind", SAME)
def test_items_ids_tokens_and_token_ids_are_the_same_recommendations(kind):
    given_lists, catalog = SAME[kind]
    found = semid.evaluate_recommendations(given_lists, ["a", "c"], k=(1, 2), catalog=catalog)
    assert values(found, "recall@1", "recall@2", "mrr") == [0.5, 1.0, 0.75]


def test_mappings_are_matched_by_user(caplog):
    found = evaluate_recommendations({"u2": ["b"], "u1": ["a"], "u9": ["a"]}, {"u1": "a", "u2": "c", "u3": "a"}, k=1)
    assert found["recall@1"].value == pytest.approx(1 / 3)
    assert caplog.messages == ["1 of 3 users have no recommendations: nothing is right for them"]


def test_unknown_and_repeated_entries_take_a_place_and_are_told(caplog):
    found = evaluate_recommendations([["x", "a", "a", "b"]], ["b"], k=(3, 4), catalog="ab")
    assert values(found, "recall@3", "recall@4", "mrr") == [0, 1, 0.25]
    assert caplog.messages == [
        "recommendations outside the catalog: 1, each counted as wrong",
        "recommendations that repeat one of their list: 1, not counted again",
    ]


def test_cases_without_a_relevant_item_are_left_out(caplog):
    found = evaluate_recommendations([["a"], ["b"]], [[], ["b"]], k=1)
    assert (found["recall@1"].value, found.n_cases) == (1, 1)
    assert caplog.messages == ["1 of 2 test cases have no relevant item and are left out"]


WRONG = {
    "both be sequences, or both be mappings": ({"u": ["a"]}, ["a"], {}),
    "got a set; expected a sequence": ({"a"}, ["a"], {}),
    "entry 1 is a str; expected a list": ([["a"], "b"], ["a", "b"], {}),
    "1 for 2 test cases": ([["a"]], ["a", "b"], {}),
    "these are token ids. Say what they mean": (ARRAY, ["a", "b"], {}),
    r"should be integers \[R, n, L\]": (ARRAY[0], ["a", "b"], {"catalog": TOKEN_IDS}),
    "no entry is in the catalog, such as 'a'": ([["a"]], ["a"], {"catalog": "xyz"}),
    "no test case has a relevant item": ([["a"]], [[]], {}),
    "none of the test's users": ({"v": ["a"]}, {"u": "a"}, {}),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_fit_is_refused(words):
    lists, relevant, more = WRONG[words]
    with pytest.raises(InputError, match=words):
        evaluate_recommendations(lists, relevant, **more)


def test_lengths_and_intervals_are_checked():
    for k in (0, (), (5, -1)):
        with pytest.raises(ConfigError, match="should be one or more numbers >= 1"):
            evaluate_recommendations([["a"]], ["a"], k=k)
    with pytest.raises(ConfigError, match="resamples=-1"):
        Bootstrap(resamples=-1)
    with pytest.raises(ConfigError, match="confidence=95"):
        Bootstrap(confidence=95)


# ---- strata


def test_strata_split_the_relevant_items(caplog):
    counts = {"a": 60, "b": 20, "c": 10, "d": 5, "e": 5}
    lists = [["a"], ["a"], ["c"], ["x", "e"], ["a"]]
    found = evaluate_recommendations(lists, ["a", "b", "c", "x", ["a", "e"]], k=1, popularity=counts)
    assert found.n_in_stratum == {"head": 2, "mid": 1, "tail": 2, "cold": 1}
    assert values(found, "head/recall@1", "mid/recall@1", "tail/recall@1", "cold/recall@1") == [1, 0, 0.5, 1]
    without = evaluate_recommendations(lists[:1], ["a"], k=1, popularity=counts)
    assert math.isnan(without["cold/recall@1"].value) and without.to_dict()["cold/recall@1"]["value"] is None


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 9)))
def test_strata_follow_popularity_whatever_the_order(counts):
    found = assign_strata(counts, counts)
    assert found == assign_strata(sorted(counts), dict(sorted(counts.items())))
    rank = {"cold": 0, "tail": 1, "mid": 2, "head": 3}
    ranks = [rank[found[item]] for item in sorted(counts, key=lambda item: counts[item])]
    assert ranks == sorted(ranks)
    assert all((found[item] == "cold") == (count == 0) for item, count in counts.items())
    total = sum(counts.values())
    for stratum, better in (("head", 1), ("tail", -1)):
        for item in (one for one in found if found[one] == stratum):
            beyond = sum(count for count in counts.values() if better * (count - counts[item]) > 0)
            assert beyond < 0.2 * total


# ---- intervals


def test_intervals_are_quantiles_of_means_over_drawn_users():
    draws = np.random.default_rng(3)
    table, users = draws.random((30, 2)), np.repeat(np.arange(10), 3)
    how = Bootstrap(resamples=200, confidence=0.9, seed=5)
    again, means = np.random.default_rng(5), []
    for _ in range(200):
        drawn = again.integers(10, size=10)
        means.append(np.concatenate([table[users == user] for user in drawn]).mean(axis=0))
    low, high = np.quantile(means, [0.05, 0.95], axis=0)
    for column, found in enumerate(estimate_means(table, users, how)):
        assert found.value == pytest.approx(table[:, column].mean())
        assert (found.low, found.high) == (pytest.approx(low[column]), pytest.approx(high[column]))


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says():
    draws, held = np.random.default_rng(0), 0
    for _ in range(200):
        (found,) = estimate_means((draws.random((80, 1)) < 0.3).astype(float), np.arange(80), Bootstrap(300))
        held += found.low <= 0.3 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_a_paired_interval_is_narrower_than_two_of_their_own():
    draws = np.random.default_rng(1)
    relevant = [f"i{draws.integers(9)}" for _ in range(300)]
    worse = [[item if draws.random() < 0.5 else "none"] for item in relevant]
    better = [one if draws.random() < 0.9 else [item] for one, item in zip(worse, relevant, strict=True)]
    ours, theirs = (evaluate_recommendations(lists, relevant, k=1) for lists in (better, worse))
    gained = ours.compared_with(theirs)["recall@1"]
    assert gained.value == pytest.approx(ours["recall@1"].value - theirs["recall@1"].value)
    assert 0 < gained.low < gained.value < gained.high
    assert gained.high - gained.low < (ours["recall@1"].high - ours["recall@1"].low) / 2
    same = ours.compared_with(ours)["mrr"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(InputError, match="different cases"):
        ours.compared_with(evaluate_recommendations(better[:9], relevant[:9], k=1))


def test_users_with_many_cases_widen_the_interval():
    relevant = ["a"] * 40 + ["b"] * 40
    lists = [["a"]] * 80
    one = evaluate_recommendations(lists, relevant, k=1)["recall@1"]
    four = evaluate_recommendations(lists, relevant, k=1, users=[f"u{row // 20}" for row in range(80)])["recall@1"]
    assert one.value == four.value == 0.5
    assert four.high - four.low > 2 * (one.high - one.low)


def test_the_same_seed_gives_the_same_figures(caplog):
    lists, relevant = outside()
    first, again = (evaluate_recommendations(lists, relevant).to_dict() for _ in range(2))
    assert first == again
    with caplog.at_level(logging.WARNING):
        other = evaluate_recommendations(lists, relevant, bootstrap=Bootstrap(seed=1)).to_dict()
    assert other != first and not caplog.messages
