"""The first values of new rows: inside the old stats, with the geometry of the codebook or of the texts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_array
from scipy.spatial.distance import cdist, pdist

from semid.artifact import kinds
from semid.data.strings import PackedStrings
from semid.encoders.checkpoint import block_bounds
from semid.errors import ConfigError
from semid.tokenizer_exports.models.init_rows import RowStats, check_choices, init_rows, row_stats
from semid.tokenizer_exports.models.row_report import report_rows
from semid.tokenizer_exports.models.text_shares import TextShares, text_token_shares
from semid.tokens import Vocabulary


def stats_of(width: int, seed: int = 0) -> RowStats:
    """As real embeddings are: a mean well away from zero, dims of different spread."""
    draw = np.random.default_rng(seed)
    std = draw.uniform(0.05, 0.2, width)
    mean = draw.normal(0, 0.05, width)
    return RowStats(mean, std, float(np.sqrt((mean**2).sum() + (std**2).sum())))


def level_of(n_codes: int, dim: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n_codes, dim))


def rows_of_levels(rows: np.ndarray, vocabulary: Vocabulary) -> list[np.ndarray]:
    return [rows[a:b].astype(float) for a, b in zip(vocabulary.offsets, vocabulary.offsets[1:], strict=False)]


# ---- the old stats


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5))
def test_the_stats_is_that_of_the_known_rows_alone(n_rows, width, seed):
    draw = np.random.default_rng(seed)
    matrix = draw.normal(2, 1, (n_rows, width)).astype(np.float32)
    known = draw.random(n_rows) < 0.7
    known[0] = True
    matrix[~known] = 1e6
    stats = row_stats(lambda: ((a, matrix[a : a + 7]) for a in range(0, n_rows, 7)), known)
    real = matrix[known].astype(float)
    np.testing.assert_allclose(stats.mean, real.mean(0), atol=1e-9)
    np.testing.assert_allclose(stats.std, real.std(0), atol=1e-6)
    np.testing.assert_allclose(stats.norm, np.linalg.norm(real, axis=1).mean())
    np.testing.assert_allclose(stats.radius**2, ((real - real.mean(0)) ** 2).sum(1).mean(), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (10, 3), (5000, 1000), (3, 4_000_000)])
def test_blocks_cover_every_row_once_and_hold_about_two_million_numbers(shape):
    bounds = list(block_bounds(*shape))
    assert [row for a, b in bounds for row in range(a, b)] == list(range(shape[0]))
    assert max((b - a) * shape[1] for a, b in bounds) <= max(1 << 21, shape[1])


# ---- codebook


@given(
    sizes=st.lists(st.integers(2, 12), min_size=1, max_size=4),
    dim=st.integers(1, 20),
    width=st.sampled_from([16, 64, 97]),
    seed=st.integers(0, 3),
)
def test_distances_inside_a_level_are_those_of_the_codebook_times_one_number(sizes, dim, width, seed):
    levels = [level_of(k, dim, seed + i, scale=0.1**i) for i, k in enumerate(sizes)]
    vocabulary = Vocabulary(sizes)
    rows = init_rows(vocabulary, levels, stats_of(width), init="codebook", seed=seed)
    for centroids, own in zip(levels, rows_of_levels(rows, vocabulary), strict=True):
        if min(len(centroids) - 1, dim) > width - 2:
            continue
        ratio = pdist(own) / pdist(centroids)
        assert ratio.max() / ratio.min() < 1 + 1e-3


def test_more_dims_than_the_model_has_lose_only_the_smallest_axes():
    draw = np.random.default_rng(0)
    centroids = draw.normal(size=(60, 50)) * np.where(np.arange(50) < 8, 1.0, 1e-4)
    rows = init_rows(Vocabulary([60], begin="", end=""), [centroids], stats_of(12), init="codebook", seed=0)
    ratio = pdist(rows.astype(float)) / pdist(centroids)
    assert ratio.max() / ratio.min() < 1.01


@pytest.mark.parametrize("init", ["codebook", "default"])
def test_new_rows_have_the_spread_and_the_norm_of_old_ones_at_every_level(init):
    stats, sizes = stats_of(256), [200, 200, 200]
    levels = [level_of(k, 32, i, scale=0.05**i) for i, k in enumerate(sizes)]
    vocabulary = Vocabulary(sizes)
    rows = init_rows(vocabulary, levels, stats, init=init, seed=1)
    assert rows.dtype == np.float32 and rows.shape == (602, 256)
    for own in rows_of_levels(rows, vocabulary):
        distance = np.sqrt(((own - stats.mean) ** 2).sum(1).mean())
        np.testing.assert_allclose(distance, stats.radius, rtol=0.03)
        norm = np.sqrt((own**2).sum(1).mean())
        np.testing.assert_allclose(norm, np.sqrt(stats.radius**2 + (stats.mean**2).sum()), rtol=0.03)


@pytest.mark.parametrize("width", [40, 256])
def test_levels_with_equal_centroids_still_lie_apart(width):
    same = level_of(30, 10, 0)
    vocabulary = Vocabulary([30] * 4)
    stats = stats_of(width)
    rows = init_rows(vocabulary, [same] * 4, stats, init="codebook", seed=0)
    own = rows_of_levels(rows, vocabulary)
    for one in range(4):
        for other in range(one):
            assert cdist(own[one], own[other]).min() > 0.2 * stats.radius


@pytest.mark.parametrize("width", [64, 8])
def test_levels_of_one_code_and_of_equal_centroids_get_distinct_rows(width):
    levels = [np.ones((1, 3)), np.ones((5, 3)), np.zeros((4, 0))]
    vocabulary = Vocabulary([1, 5, 4])
    rows = init_rows(vocabulary, levels, stats_of(width), init="codebook", seed=0)
    assert np.isfinite(rows).all()
    assert pdist(rows).min() > 0.01


def test_the_same_seed_gives_the_same_rows_and_another_gives_others():
    levels, stats, vocabulary = [level_of(20, 6, 0)], stats_of(32), Vocabulary([20])
    for init in ("codebook", "default"):
        one, same, other = (init_rows(vocabulary, levels, stats, init=init, seed=seed) for seed in (3, 3, 4))
        assert (one == same).all()
        assert not np.allclose(one, other)


def test_markers_start_near_the_mean_but_not_equal():
    stats, vocabulary = stats_of(64), Vocabulary([9, 9])
    rows = init_rows(vocabulary, [level_of(9, 4, i) for i in (0, 1)], stats, init="codebook", seed=0)
    begin, end = rows[-2:].astype(float)
    assert np.linalg.norm(begin - stats.mean) < 0.2 * stats.radius
    assert 0.02 * stats.radius < np.linalg.norm(begin - end) < 0.3 * stats.radius


# ---- text


def toy_texts(n_codes: int, n_old: int, has_items: np.ndarray, seed: int = 0) -> TextShares:
    """Half of every text is the same frequent word, as in real catalogs."""
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(n_old - 1, 0.2), n_codes) * 0.5
    shares = np.concatenate([np.full((n_codes, 1), 0.5), shares], 1) * has_items[:, None]
    return TextShares(csc_array(shares), has_items.astype(np.int64) * 3)


def old_rows(n_old: int, stats: RowStats) -> np.ndarray:
    draw = np.random.default_rng(9)
    return (stats.mean + stats.std * draw.normal(size=(n_old, len(stats.mean)))).astype(np.float32)


def test_text_rows_keep_the_geometry_of_text_means_without_their_common_part():
    stats, vocabulary = stats_of(48), Vocabulary([40])
    matrix = old_rows(100, stats)
    texts = toy_texts(40, 100, np.ones(40, bool))
    rows = init_rows(
        vocabulary, [level_of(40, 5, 0)], stats, init="text", seed=0, texts=texts,
        blocks=lambda: ((a, matrix[a : a + 11]) for a in range(0, 100, 11)),
    )[:40].astype(float)  # fmt: skip
    means = texts.shares.toarray() @ matrix.astype(float)
    ratio = pdist(rows) / pdist(means)
    assert ratio.max() / ratio.min() < 1 + 1e-4
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert np.mean(unit @ unit.T) > 0.8, "the means themselves are almost equal"
    centered = rows - stats.mean
    np.testing.assert_allclose(np.sqrt((centered**2).sum(1).mean()), stats.radius, rtol=1e-4)


def test_codes_without_items_keep_their_codebook_row():
    stats, vocabulary = stats_of(48), Vocabulary([20, 20])
    matrix, has = old_rows(50, stats), np.arange(40) % 3 > 0
    has[20:] = False  # nobody at the second level
    levels = [level_of(20, 5, 0), level_of(20, 5, 1)]
    texts = toy_texts(40, 50, has)
    plain = init_rows(vocabulary, levels, stats, init="codebook", seed=0)
    text = init_rows(vocabulary, levels, stats, init="text", seed=0, texts=texts, blocks=lambda: [(0, matrix)])
    assert (text[:40][~has] == plain[:40][~has]).all()
    assert not np.isclose(text[:40][has], plain[:40][has]).all(1).any()


def test_mix_lies_between_codebook_and_text():
    stats, vocabulary = stats_of(96), Vocabulary([30])
    matrix, levels = old_rows(50, stats), [level_of(30, 5, 0)]
    texts = toy_texts(30, 50, np.ones(30, bool))
    rows = {
        init: init_rows(
            vocabulary, levels, stats, init=init, seed=0, texts=texts, blocks=lambda: [(0, matrix)]
        )[:30] - stats.mean
        for init in ("codebook", "text", "text+codebook")
    }  # fmt: skip

    def alike(one, other):
        return float((rows[one] * rows[other]).sum() / np.linalg.norm(rows[one]) / np.linalg.norm(rows[other]))

    assert alike("text+codebook", "codebook") > alike("codebook", "text") + 0.2
    assert alike("text+codebook", "text") > alike("codebook", "text") + 0.2


class Words:
    """A tokenizer of numbers: "3 1" -> [3, 1]."""

    def __call__(self, texts, **_):
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def test_each_live_item_counts_once_and_each_of_its_first_tokens_equally():
    codes = np.array([[0, 1], [0, 0], [1, 1], [1, 0], [0, 1]], np.uint16)
    strings = PackedStrings.pack(["1 8 1 2", "3 4", "", "4 4", "5 " * 400 + "6"])
    ledger = SimpleNamespace(live=np.array([True, True, True, False, True]), codes=codes, texts=strings)
    texts = text_token_shares(ledger, Vocabulary([2, 3]), Words(), np.arange(6) != 4)
    assert texts.n_items.tolist() == [3, 0, 1, 2, 0], "the empty text and the retired item do not count"
    shares = texts.shares.toarray()
    np.testing.assert_allclose(shares[0], np.array([0, 2 / 3, 1 / 3, 1, 0, 1]) / 3)
    np.testing.assert_allclose(shares[3], np.array([0, 2 / 3, 1 / 3, 0, 0, 1]) / 2)
    np.testing.assert_allclose(shares.sum(1), texts.n_items > 0)


def test_of_many_texts_some_are_read_from_all_over(monkeypatch):
    monkeypatch.setattr("semid.tokenizer_exports.models.text_shares.MAX_TEXTS", 10)
    codes = np.repeat(np.arange(5), 20)[:, None].astype(np.uint16)
    strings = PackedStrings.pack([str(code) for code in codes[:, 0].tolist()])
    ledger = SimpleNamespace(live=np.ones(100, bool), codes=codes, texts=strings)
    texts = text_token_shares(ledger, Vocabulary([5]), Words(), np.ones(9, bool))
    assert texts.n_items.tolist() == [2] * 5
    np.testing.assert_allclose(texts.shares.toarray(), np.eye(5, 9))


def test_texts_are_read_alike_in_batches_of_any_size(monkeypatch):
    draw = np.random.default_rng(0)
    ledger = SimpleNamespace(
        live=np.ones(50, bool),
        codes=draw.integers(0, 4, (50, 2)).astype(np.uint16),
        texts=PackedStrings.pack(" ".join(map(str, draw.integers(0, 9, 5))) for _ in range(50)),
    )
    choices = ledger, Vocabulary([4, 4]), Words(), np.ones(9, bool)
    whole = text_token_shares(*choices).shares.toarray()
    monkeypatch.setattr("semid.tokenizer_exports.models.text_shares.TEXT_BATCH", 7)
    monkeypatch.setattr("semid.tokenizer_exports.models.text_shares.PENDING_SHARES", 60)
    np.testing.assert_allclose(text_token_shares(*choices).shares.toarray(), whole, atol=1e-12)


@pytest.mark.parametrize("init", ["text", "text+codebook"])
def test_a_level_of_one_code_starts_at_its_axis_whatever_its_items_say(init):
    stats, vocabulary, matrix = stats_of(32), Vocabulary([1, 3], begin="", end=""), old_rows(20, stats_of(32))
    texts = toy_texts(4, 20, np.ones(4, bool))
    rows = init_rows(
        vocabulary, [np.ones((1, 2)), np.eye(3)], stats, init=init, seed=0, texts=texts, blocks=lambda: [(0, matrix)]
    )
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows[0] - stats.mean), stats.radius, rtol=1e-5)


# ---- choices and report


def source_of(texts: list[str] | None, learned: bool) -> SimpleNamespace:
    """What `extend` reads of semantic IDs, with or without texts and codebooks."""
    vectors = [np.eye(2)] if learned else None
    return SimpleNamespace(kind=kinds.IDS, ledger=SimpleNamespace(texts=texts), level_vectors=vectors)


@pytest.mark.parametrize(
    "init, pad_to, texts, learned, message",
    [
        ("random", 64, None, True, r"init='random' should be one of auto, text, codebook, text\+codebook, default"),
        ("codebook", 0, None, True, "pad_to=0 should"),
        ("codebook", True, None, True, "pad_to=True"),
        ("text", 64, None, True, "saved without"),
        ("text+codebook", 1, None, True, "Use init='codebook'"),
        ("codebook", 1, [], False, "were imported without any. Use init='text'"),
        ("text+codebook", 1, None, False, "Use init='default'"),
    ],
)
def test_impossible_choices_are_named(init, pad_to, texts, learned, message):
    with pytest.raises(ConfigError, match=message):
        check_choices(init, pad_to, source_of(texts, learned))


@pytest.mark.parametrize(
    "texts, learned, chosen",
    [(["a"], True, "text"), (["a"], False, "text"), (None, True, "codebook"), (None, False, "default")],
)
def test_auto_is_the_best_start_that_there_is(texts, learned, chosen):
    assert check_choices("auto", 1, source_of(texts, learned)) == chosen


def test_the_report_names_the_nearest_known_word_and_measures_likeness():
    matrix = np.eye(6, dtype=np.float32)
    known = np.array([True, True, True, True, True, False])
    rows = np.float32([[5, 1, 0, 0, 0, 0], [0, 0, 3, 0, 0, 9], [0, 1, 1, 0, 0, 0]])
    vocabulary = Vocabulary([2, 1], begin="", end="")
    stats = row_stats(lambda: [(0, matrix)], known)
    report = report_rows(
        "input", rows, stats, vocabulary, lambda: [(0, matrix[:2]), (2, matrix[2:])], known,
        lambda found: [f"w{i}" for i in found],
    )  # fmt: skip
    first, second = report.levels
    assert [(token, word) for token, word, _ in first.examples] == [("<s_a_0>", "w0"), ("<s_a_1>", "w2")]
    np.testing.assert_allclose(first.examples[0][2], 5 / np.sqrt(26), rtol=1e-6)
    np.testing.assert_allclose(first.norm, (np.sqrt(26) + np.sqrt(90)) / 2, rtol=1e-6)
    unit = rows[:2] / np.linalg.norm(rows[:2], axis=1, keepdims=True)
    np.testing.assert_allclose(first.likeness, unit[0] @ unit[1], atol=1e-6)
    assert second.likeness == 1.0 and report.old_norm == 1.0
    assert "<s_a_0> near 'w0'" in "\n".join(report.summary())
