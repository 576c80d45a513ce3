"""Every figure against a value worked out by hand, a plain reference in Python, or both."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data import Histories
from semid.errors import InputError
from semid.evaluation import (
    Distortion,
    advise,
    evaluate,
    find_neighbors,
    number_prefixes,
    percent,
    sequence_lift,
)
from semid.tokenizer import SemanticIDTokenizer

# Six items: two share an ID, three share the prefix (0, 1).
CODES = np.array([[0, 1, 0], [0, 1, 2], [0, 1, 2], [0, 0, 3], [2, 0, 0], [2, 3, 1]])


def histories(*rows: list[int]) -> Histories:
    offsets = np.cumsum([0, *map(len, rows)])
    flat = np.array([row for history in rows for row in history], np.int64)
    return Histories(offsets, flat, int((flat < 0).sum()))


@st.composite
def code_sets(draw, shortest=1):
    n_items, n_levels = draw(st.integers(shortest, 12)), draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 2), min_size=n_levels, max_size=n_levels)
    return np.array(draw(st.lists(row, min_size=n_items, max_size=n_items)))


# --- collisions, levels, fan-out ----------------------------------------------------------------


def test_figures_of_a_small_set_are_those_worked_out_by_hand():
    quality = evaluate(CODES, sizes=[4, 4, 4])
    assert quality.n_items == 6
    assert quality.n_unique_ids == 5
    assert quality.collision_rate == 1 / 6
    assert (quality.items_in_conflict, quality.largest_group) == (2, 2)
    assert quality.prefix_fanout == [4, 3]
    assert quality.max_prefix_fanout == 3
    assert [level.size for level in quality.levels] == [4, 4, 4]
    assert [level.used for level in quality.levels] == [2, 3, 4]
    assert quality.levels[0].largest_share == 4 / 6
    # entropy of (4/6, 2/6)
    assert quality.levels[0].perplexity == pytest.approx((6 / 4) ** (4 / 6) * 3 ** (2 / 6))


def test_even_codes_have_the_perplexity_of_their_number():
    codes = np.array([[first, second] for first in range(5) for second in range(7)])
    quality = evaluate(codes)
    assert [level.perplexity for level in quality.levels] == pytest.approx([5, 7])
    assert quality.collision_rate == 0
    assert quality.items_in_conflict == 0


def test_sizes_default_to_the_highest_code_seen_and_say_so():
    quality = evaluate(CODES)
    assert [level.size for level in quality.levels] == [3, 4, 4]
    assert quality.sizes_observed
    assert not evaluate(CODES, sizes=[3, 4, 4]).sizes_observed


def test_one_level_has_all_items_under_the_empty_prefix():
    quality = evaluate(np.array([[0], [1], [2]]), vectors=np.eye(3), histories=histories([0, 1, 2]))
    assert (quality.max_prefix_fanout, quality.prefix_fanout) == (3, [])
    assert (quality.neighbor_recall, quality.sequence_lift) == ([], [])


def test_ids_of_different_lengths_are_told_apart_and_shares_count_those_that_go_on():
    quality = evaluate(np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, 1, 2], [-1, -1, -1]]))
    assert quality.n_unique_ids == 5
    assert [level.used for level in quality.levels] == [1, 1, 2]
    assert [level.largest_share for level in quality.levels] == [1.0, 1.0, 0.5]


def test_raw_codes_give_the_rate_before_and_the_items_moved():
    quality = evaluate(np.array([[0, 0], [0, 1], [1, 0]]), raw_codes=np.array([[0, 0], [0, 0], [1, 0]]))
    assert quality.raw_collision_rate == 1 / 3
    assert quality.moved_items == 1


def test_identical_texts_and_vectors_set_a_floor():
    vectors = np.array([[0.0, 1], [-0.0, 1], [2, 2]], np.float32)
    quality = evaluate(np.array([[0, 0], [0, 1], [0, 2]]), texts=["a", "a", "a"], vectors=vectors)
    assert quality.identical_text_floor == 2 / 3
    assert quality.identical_vector_floor == 1 / 3  # 0.0 and -0.0 are equal


@given(code_sets())
def test_prefix_figures_equal_those_of_counting_tuples(codes):
    quality = evaluate(codes)
    rows = [tuple(row) for row in codes.tolist()]
    ids = Counter(rows)
    assert quality.n_unique_ids == len(ids)
    assert quality.items_in_conflict == sum(count for count in ids.values() if count > 1)
    assert quality.largest_group == max(ids.values())
    assert quality.prefix_fanout == [
        max(Counter(row[:length] for row in rows).values()) for length in range(1, codes.shape[1])
    ]


@given(code_sets())
def test_prefix_numbers_rise_with_the_prefix(codes):
    for length, numbers in enumerate(number_prefixes(codes), 1):
        prefixes = [tuple(row[:length]) for row in codes.tolist()]
        ranks = {prefix: rank for rank, prefix in enumerate(sorted(set(prefixes)))}
        assert numbers.tolist() == [ranks[prefix] for prefix in prefixes]


# --- sequence lift ------------------------------------------------------------------------------


def test_lift_of_two_histories_is_the_one_worked_out_by_hand():
    # Popularity: item 0 twice, 1 once, 2 once; 0 and 1 share a first code. Pairs: (0, 1), (0, 2).
    # Chance that two different items are 0 and 1: 2 * (2/4 * 1/4) / (1 - 4/16 - 1/16 - 1/16) = 0.4.
    quality = evaluate(np.array([[0, 0], [0, 1], [1, 0]]), histories=histories([0, 1], [0, 2]))
    assert quality.sequence_lift == pytest.approx([0.5 / 0.4])
    assert quality.sequence_pairs == 2


def test_pairs_do_not_cross_users_and_skip_repeats_and_unknown_items():
    codes = np.array([[0, 0], [0, 1], [1, 0]])
    quality = evaluate(codes, histories=histories([], [0, 0, 1], [], [2, -1, 0], [-1], []))
    assert quality.sequence_pairs == 1  # (0, 1): not (0, 0), nor (1, 2) across users, nor (2, 0) over a gap


def test_lift_is_none_where_no_two_items_share_the_prefix_or_there_is_no_pair():
    codes = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]])
    assert evaluate(codes, histories=histories([0, 1, 2])).sequence_lift[1] is None
    assert evaluate(codes, histories=histories([0], [1])).sequence_lift == [None, None]
    assert evaluate(codes, histories=histories()).sequence_lift == [None, None]


@given(code_sets(shortest=2), st.data())
def test_lift_equals_that_over_all_ordered_pairs_of_items(codes, data):
    n_items = len(codes)
    item = st.integers(-1, n_items - 1)
    logs = data.draw(st.lists(st.lists(item, max_size=6), max_size=5))
    flat = histories(*logs)
    lifts, n_pairs = sequence_lift(number_prefixes(codes), flat.offsets, flat.rows)

    pairs = [(a, b) for log in logs for a, b in pairwise(log) if a != b and a >= 0 and b >= 0]
    seen = Counter(item for log in logs for item in log if item >= 0)
    drawn = {(a, b): seen[a] * seen[b] for a in seen for b in seen if a != b}
    assert n_pairs == len(pairs)
    for length, lift in enumerate(lifts, 1):
        agree = [[tuple(x) == tuple(y) for y in codes[:, :length]] for x in codes[:, :length]]
        chance = sum(weight for (a, b), weight in drawn.items() if agree[a][b])
        if not pairs or chance == 0:
            assert lift is None
            continue
        share = sum(agree[a][b] for a, b in pairs) / len(pairs)
        assert lift == pytest.approx(share / (chance / sum(drawn.values())))


def test_lift_is_one_for_histories_that_draw_every_pair_once():
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]])
    every_pair = [[a, b] for a in range(5) for b in range(5) if a != b]
    assert evaluate(codes, histories=histories(*every_pair)).sequence_lift == pytest.approx([1.0])


# --- neighbor recall ---------------------------------------------------------------------------


def recall_by_hand(vectors: np.ndarray, codes: np.ndarray, k: int, length: int) -> float:
    """Over all orders of items at equal distance, the mean share of the first k that agree."""
    total = 0.0
    for query in range(len(vectors)):
        others = [row for row in range(len(vectors)) if row != query]
        distances = {row: float(((vectors[row] - vectors[query]) ** 2).sum()) for row in others}
        left = k
        for distance in sorted(set(distances.values())):
            tied = [row for row in others if distances[row] == distance]
            agree = sum(bool((codes[row, :length] == codes[query, :length]).all()) for row in tied)
            taken = min(left, len(tied))
            total += taken * agree / len(tied)
            left -= taken
    return total / (len(vectors) * k)


@settings(deadline=None)
@given(code_sets(shortest=2), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_recall_equals_that_of_sorting_all_distances(codes, k, seed):
    rng = np.random.default_rng(seed)
    # No two distances between different vectors are equal, but some vectors are.
    vectors = rng.standard_normal((len(codes), 3))[rng.integers(0, len(codes), len(codes))]
    k = min(k, len(codes) - 1)
    recall = find_neighbors(vectors, k=k).recall(number_prefixes(codes))
    lengths = range(1, codes.shape[1] + 1)
    assert recall == pytest.approx([recall_by_hand(vectors, codes, k, length) for length in lengths])


def test_recall_of_well_separated_pairs():
    vectors = np.array([[0.0], [1], [10], [11]])
    near = find_neighbors(vectors, k=1)
    assert near.recall(np.array([[0, 0, 1, 1]])) == [1.0]
    assert near.recall(np.array([[0, 1, 0, 1]])) == [0.0]


def test_recall_asks_for_the_neighbors_there_are():
    quality = evaluate(np.array([[0, 0], [0, 1], [1, 0]]), vectors=np.array([[0.0], [1], [2]]))
    assert quality.neighbor_recall == [pytest.approx(1 / 3)]  # 2 of the 6 ordered pairs
    assert quality.neighbor_queries == 3
    assert evaluate(np.array([[0, 0]]), vectors=np.array([[1.0]])).neighbor_recall == []


def test_all_vectors_identical_gives_the_share_of_a_random_neighbor():
    codes = np.repeat([[0, 0], [1, 0]], [30, 10], axis=0)
    recall = evaluate(codes, vectors=np.ones((40, 4), np.float16)).neighbor_recall
    assert recall == [pytest.approx((30 * 29 + 10 * 9) / (40 * 39))]


def test_neighbors_over_several_blocks_equal_those_in_one(monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    whole = find_neighbors(vectors)
    monkeypatch.setattr("semid.evaluation.neighbors.BLOCK", 37)
    assert np.array_equal(find_neighbors(vectors).nearest, whole.nearest)


@pytest.mark.parametrize("queries", [None, 50])
def test_figures_do_not_depend_on_the_order_of_the_items(queries):
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, (400, 3))
    vectors = rng.standard_normal((400, 6)).astype(np.float32)[rng.integers(0, 300, 400)]
    order = rng.permutation(400)
    one = evaluate(codes, vectors=find_neighbors(vectors, queries=queries))
    other = evaluate(codes[order], vectors=find_neighbors(vectors[order], queries=queries))
    assert one == other


@pytest.mark.parametrize("offset, scale", [(1e4, 1.0), (0.0, 1e30), (0.0, 1e-30)])
def test_neighbors_survive_far_away_huge_and_tiny_vectors(offset, scale):
    grid = np.random.default_rng(2).permutation(500).astype(np.float64)[:, None]
    near = find_neighbors(grid * scale + offset, k=2)
    place = np.empty(500, int)
    place[near.groups] = grid[:, 0]
    gaps = np.abs(place[near.nearest] - place[np.sort(near.groups)[near.positions]][:, None])
    assert gaps.max() == 2  # at the two ends
    assert (gaps == 1).sum() == 998


def test_a_sample_of_queries_comes_close_to_all_of_them():
    rng = np.random.default_rng(3)
    centers = rng.standard_normal((20, 8)) * 4
    label = rng.integers(0, 20, 3000)
    vectors = (centers[label] + rng.standard_normal((3000, 8))).astype(np.float32)
    codes = np.stack([label % 7, np.arange(3000)], axis=1)
    prefixes = number_prefixes(codes)[:1]
    sampled = find_neighbors(vectors, queries=1000)
    assert len(sampled.positions) == 1000
    assert sampled.recall(prefixes) == pytest.approx(find_neighbors(vectors).recall(prefixes), abs=0.02)


# --- the object, the words, the errors -----------------------------------------------------------


def test_json_names_are_those_documented():
    quality = evaluate(
        CODES,
        raw_codes=CODES,
        texts="abcdef",
        vectors=np.eye(6),
        histories=histories([0, 1, 2]),
        distortion=Distortion(raw=1.0, final=1.5, relative_to_variance=0.5),
    )
    read = json.loads(json.dumps(quality.to_dict(), allow_nan=False))
    assert list(read) == [
        "n_items", "n_unique_ids", "collision_rate", "items_in_conflict", "largest_group",
        "raw_collision_rate", "moved_items", "identical_text_floor", "identical_vector_floor",
        "distortion", "levels", "sizes_observed", "max_prefix_fanout", "prefix_fanout",
        "neighbor_recall", "neighbor_queries", "sequence_lift", "sequence_pairs",
    ]  # fmt: skip
    assert list(read["distortion"]) == ["raw", "final", "relative_to_variance"]
    assert list(read["levels"][0]) == ["size", "used", "perplexity", "largest_share"]


def test_lines_show_what_was_measured_and_nothing_else():
    bare = "\n".join(evaluate(CODES).summary())
    assert "6 items, 5 distinct IDs: collision rate 16.7 %, 2 items in conflict, largest group 2" in bare
    assert "level 1: 2 of 3 codes used, perplexity 1.9, largest share 66.7 %" in bare
    assert "most items per prefix, by prefix length 1, 2: 4, 3" in bare
    assert len(bare.splitlines()) == 5
    full = evaluate(CODES, vectors=np.eye(6), histories=histories([0, 1, 4]), texts=["same"] * 6, raw_codes=CODES)
    text = "\n".join(full.summary())
    assert "(6 queries)" in text
    assert "times chance (2 pairs)" in text
    assert "unavoidable collisions: 83.3 % (identical texts)" in text
    assert "before assignment: collision rate 16.7 %; 0 items moved" in text


def test_distortion_is_measured_against_the_variance():
    vectors = np.random.default_rng(0).standard_normal((40_000, 3))
    measured = Distortion.of(vectors, final=vectors + 1, raw=vectors)
    assert measured.raw == 0
    assert measured.final == pytest.approx(3)
    assert measured.relative_to_variance == pytest.approx(3 / vectors.var(axis=0).sum())
    assert Distortion.of(np.ones((2, 1)), final=np.ones((2, 1))).relative_to_variance is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"codes": np.zeros((3, 2))}, "codes is float64"),
        ({"codes": np.zeros((0, 2), int)}, "expected integers of shape"),
        ({"codes": np.array([[-2, 0]])}, "codes holds -2"),
        ({"codes": np.array([[-1, 0]])}, "only after the end"),
        ({"codes": CODES, "sizes": [3, 4]}, "expected 3 numbers"),
        ({"codes": CODES, "sizes": [3, 4, 3]}, "codes holds 3 at level 2; expected less than its size, 3"),
        ({"codes": CODES, "raw_codes": CODES[:, :2]}, "raw_codes has shape"),
        ({"codes": CODES, "texts": ["a"]}, "texts has 1 entries; expected 6"),
        ({"codes": CODES, "vectors": np.zeros((2, 2))}, "vectors has 2 rows; expected 6"),
        ({"codes": CODES, "vectors": np.zeros((6, 2), int)}, "vectors is int64"),
        ({"codes": CODES, "vectors": np.full((6, 2), np.nan)}, r"vectors\[0\] holds NaN"),
        ({"codes": CODES, "histories": histories([0, 6])}, r"rows holds 0\.\.6; expected rows of"),
        ({"codes": CODES, "histories": Histories(np.array([0]), np.array([1]), 0)}, "does not cut rows"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate(arguments.pop("codes"), **arguments)


def test_percent_keeps_small_shares_readable():
    assert [percent(share) for share in (0, 0.00011, 0.0999, 0.1, 1)] == [
        "0 %", "0.011 %", "10 %", "10.0 %", "100.0 %",
    ]  # fmt: skip


def test_evaluating_codes_alone_imports_numpy_only():
    script = (
        "import sys, numpy; from semid.evaluation.metrics import evaluate; from semid.evaluation import advise\n"
        "advise(evaluate(numpy.array([[0, 1], [1, 0]])))\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'faiss'}; print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# --- advice --------------------------------------------------------------------------------------


def spread(n_items: int, *sizes: int) -> np.ndarray:
    """Distinct codes, each level used nearly evenly: the digits of the multiples of a prime."""
    numbers = (np.arange(n_items) * 7919) % math.prod(sizes)
    return np.stack(np.unravel_index(numbers, sizes), axis=1)


def test_a_healthy_set_gets_no_advice():
    codes = spread(2000, 64, 64, 64)
    texts = [str(row) for row in range(2000)]
    assert advise(evaluate(codes, sizes=[64] * 3, raw_codes=codes, texts=texts)) == []


def crowd(n_items: int, codes: np.ndarray) -> np.ndarray:
    """The set with the prefix of its first item taken by `n_items` items, distinct in their last codes."""
    others = codes[(codes[:, :-1] != codes[0, :-1]).any(axis=1)]
    crowded = np.repeat(codes[:1], n_items, axis=0)
    crowded[:, -1] = np.arange(n_items)
    return np.concatenate([crowded, others])


def only(sentences: list[str]) -> str:
    assert len(sentences) == 1, sentences
    return sentences[0]


def test_collisions_are_named_with_the_room_there_is():
    codes = spread(2000, 64, 64, 64)
    codes[1] = codes[0]
    said = only(advise(evaluate(codes, sizes=[64] * 3)))
    assert said.startswith("Repeated IDs: 1 of 2,000 items (0.05 %), 2 items in conflict")
    assert "of 64 at most): `semid fit` assigns them." in said


def test_a_mega_cluster_is_named_with_its_level():
    codes = spread(2000, 64, 64, 64)
    codes[:500, 1] = 5
    said = only(advise(evaluate(np.unique(codes, axis=0), sizes=[64] * 3)))
    assert said.startswith("Mega-cluster: one code of level 2 holds 2")
    assert "--method rqvae" in said


def test_dead_levels_are_counted_off():
    codes = np.concatenate([spread(2000, 64, 64, 64), np.zeros((2000, 2), int)], axis=1)
    said = only([line for line in advise(evaluate(codes, sizes=[64] * 5)) if "Dead" in line])
    assert "perplexity 1.0 of 64 codes at level 4 (also level 5)" in said
    assert "--levels 3:" in said


def test_a_level_that_uses_few_of_its_codes_is_called_uneven():
    codes = spread(2000, 16, 64, 64)
    said = only(advise(evaluate(codes, sizes=[64] * 3)))
    assert "perplexity 16.0 of 64 codes at level 1" in said
    assert "--codebook-size 16,64,64" in said


@pytest.mark.parametrize(
    "codes, sizes, message",
    [
        (spread(2000, 64, 64), [64, 64], "2,000 items take 48.8 % of the 4,096 possible IDs"),
        (crowd(60, spread(2000, 64, 64, 64)), [64] * 3, "The fullest prefix holds 60 items"),
        (spread(100, 64, 64, 64), [64] * 3, "The first level has 64 codes for 100 items, 1.6 each"),
        (spread(100, 16, 64, 64, 64), [16, 64, 64, 64], "codes already tell all 100 items apart"),
    ],
)
def test_too_few_and_too_many_codes_are_named_with_the_sizes(codes, sizes, message):
    assert any(message in line for line in advise(evaluate(codes, sizes=sizes)))


def test_room_is_not_judged_where_sizes_were_only_observed():
    codes = spread(2000, 64, 64)
    assert advise(evaluate(codes)) == []


def test_many_collisions_before_assignment_are_blamed_on_texts_or_on_codes():
    codes = spread(2000, 64, 64, 64)
    raw = codes.copy()
    raw[:400] = raw[400:800]
    different = [str(row) for row in range(2000)]
    assert "the rest the codes are too few" in only(
        advise(evaluate(codes, sizes=[64] * 3, raw_codes=raw, texts=different))
    )
    same = ["", *different[400:], *different[400:799]]
    assert "have the same text as another" in only(advise(evaluate(codes, sizes=[64] * 3, raw_codes=raw, texts=same)))


def test_ids_without_meaning_are_named():
    rng = np.random.default_rng(0)
    codes = spread(2000, 64, 64, 64)
    logs = histories(*rng.integers(0, 2000, (500, 5)).tolist())
    vectors = rng.standard_normal((2000, 4)).astype(np.float32)
    said = advise(evaluate(codes, sizes=[64] * 3, histories=logs, vectors=vectors))
    assert len(said) == 2
    assert "as often as by chance" in said[0]
    assert "of an item's ten nearest vectors share its first code" in said[1]


# What made the IDs already is not advised again.

ITEMS = [{"id": f"i{number}", "title": f"thing {number} of {number % 7}"} for number in range(40)]


@pytest.fixture(scope="module")
def made():
    """Artifacts by how they were made."""
    small = {"levels": 3, "codebook_size": 4}
    by_rqvae = SemanticIDTokenizer.fit(ITEMS, method="rqvae", dim=4, epochs=1, **small)
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    return {
        "elsewhere": None,
        "rqkmeans": SemanticIDTokenizer.fit(ITEMS, method="rqkmeans", **small),
        "rqvae": by_rqvae,
        "vectors": SemanticIDTokenizer.fit(ITEMS, embeddings=vectors, method="rqkmeans", dim=6, **small),
        "fused": replace(by_rqvae, provenance={"signals": {"collaborative_fusion": 0.5}}),
    }


@pytest.mark.parametrize(
    ("how", "cure"),
    [
        ("elsewhere", "Fit with --method rqvae, or in fewer dimensions with a smaller --dim."),
        ("rqkmeans", "Fit with --method rqvae, or in fewer dimensions with a smaller --dim."),
        ("rqvae", "Fit in fewer dimensions with a smaller --dim, now 4."),
    ],
)
def test_a_mega_cluster_of_rqvae_is_not_sent_to_rqvae(made, how, cure):
    codes = spread(2000, 64, 64, 64)
    codes[:500, 1] = 5
    said = only(advise(evaluate(np.unique(codes, axis=0), sizes=[64] * 3), made[how]))
    assert said.startswith("Mega-cluster") and said.endswith(f" {cure}")


@pytest.mark.parametrize(
    ("how", "cure"),
    [
        ("elsewhere", "Fit with --method rqvae, or set --codebook-size 16,64,64."),
        ("rqkmeans", "Fit with --method rqvae, or set --codebook-size 16,64,64."),
        ("rqvae", "Set --codebook-size 16,64,64."),
    ],
)
def test_uneven_codes_of_rqvae_are_not_sent_to_rqvae(made, how, cure):
    said = only(advise(evaluate(spread(2000, 16, 64, 64), sizes=[64] * 3), made[how]))
    assert said.startswith("Uneven codes") and said.endswith(f" {cure}")


def test_ids_from_ready_vectors_are_not_sent_to_an_encoder(made):
    codes = spread(2000, 64, 64, 64)
    vectors = np.repeat(np.random.default_rng(0).normal(size=(200, 4)), 10, axis=0).astype(np.float32)
    same = evaluate(codes, sizes=[64] * 3, vectors=vectors, texts=["same"] * 2000)

    def of(how):
        return [line for line in advise(same, made[how]) if "differ only by chance" in line]

    assert only(of("rqvae")).endswith("have the same text as another: their IDs differ only by chance. Give the "
                                      "encoder more fields with --text.")  # fmt: skip
    assert only(of("vectors")).endswith("have the same vector as another: their IDs differ only by chance. Give other "
                                        "vectors with --embeddings.")  # fmt: skip
    other = evaluate(codes, sizes=[64] * 3, vectors=vectors)
    said = [line for line in advise(other, made["rqvae"]) if "by chance" in line]
    assert only(said).endswith("Use another --encoder, or give it more fields with --text.")


@pytest.mark.parametrize(
    ("how", "cure"),
    [
        ("elsewhere", "Use another --encoder, other --text fields, or --collaborative-fusion."),
        ("rqvae", "Use another --encoder, other --text fields, or --collaborative-fusion."),
        ("fused", "Use another --encoder, other --text fields, or a larger --collaborative-fusion, now 0.5."),
        ("vectors", "Give other vectors with --embeddings, or --collaborative-fusion."),
    ],
)
def test_fused_ids_are_not_sent_to_fusion(made, how, cure):
    logs = histories(*np.random.default_rng(0).integers(0, 2000, (500, 5)).tolist())
    said = only(advise(evaluate(spread(2000, 64, 64, 64), sizes=[64] * 3, histories=logs), made[how]))
    assert "as often as by chance" in said and said.endswith(f" {cure}")


@pytest.mark.parametrize(
    ("how", "cure"),
    [
        ("elsewhere", "Raise --dim, or lower the first --codebook-size."),
        ("rqvae", "Raise --dim, or lower the first --codebook-size."),
        ("vectors", "Lower the first --codebook-size."),  # their latents have as many dims as the vectors
    ],
)
def test_dims_are_not_raised_above_those_of_the_vectors(made, how, cure):
    vectors = np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float32)
    said = only(advise(evaluate(spread(2000, 64, 64, 64), sizes=[64] * 3, vectors=vectors), made[how]))
    assert "ten nearest vectors" in said and said.endswith(f" {cure}")


def test_doctor_and_fit_advise_by_how_the_ids_were_made(semid, tmp_path):
    (tmp_path / "shop.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    done = semid("fit", "shop.jsonl", "-o", "sid", "--levels", "2", "--codebook-size", "32", "--epochs", "1", "--json")
    judged = semid("doctor", "sid", "--json")
    for told in (done, judged):
        assert told.code == 0, told.err
        advice = json.loads(told.out)["advice"]
        assert advice and not any("--method rqvae" in sentence for sentence in advice)


@given(code_sets(), st.booleans())
def test_advice_never_fails_on_small_odd_sets(codes, told):
    quality = evaluate(codes, sizes=[3] * codes.shape[1] if told else None, vectors=codes.astype(np.float32))
    assert all(line.endswith(".") for line in advise(quality))
    assert len(quality.summary()) >= 2 + codes.shape[1]
