"""Refit: what survives keeps its codes as far as was asked, every ID is distinct, and the report tells the truth."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.assign.stable import assign_stable, reuse_old_ids
from semid.assign.unique import assign_unique
from semid.diagnostics import verify_artifact
from semid.errors import ConfigError, InputError
from semid.evaluation.churn import Churn, remap_lines
from semid.pipeline.refit import refit, settings_of
from semid.quantize.codebooks import Codebooks
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.formats.importer import import_index
from semid.train.residual_kmeans import ResidualKMeans

COLORS = ["red", "blue", "green", "black", "white", "pink", "gold", "gray"]
THINGS = ["shoe", "shirt", "hat", "scarf", "lamp", "chair", "table", "brush", "cream", "soap"]
SMALL = {"method": "rqkmeans", "levels": 3, "codebook_size": 8}


def shop(first: int, last: int) -> list[dict[str, str]]:
    rows = range(first, last)
    return [
        {"id": f"i{n:03}", "title": f"{COLORS[n % 8]} {THINGS[n * 7 % 10]} {COLORS[n // 9 % 8]} number {n // 4}"}
        for n in rows
    ]


OLD = SemanticIDTokenizer.fit(shop(0, 120), **SMALL)
NOW = shop(12, 144)  # a tenth is gone, a fifth is new
SURVIVING = [item["id"] for item in shop(12, 120)]


def vectors_of(n_items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_items, 12)).astype(np.float32)


# ---- what is kept


def test_a_refit_of_the_same_catalog_changes_next_to_nothing():
    _, churn = refit(OLD, shop(0, 120))
    assert churn.kept_prefix[0] > 0.9 and churn.new == churn.gone == 0


def test_survivors_keep_most_codes_and_all_ids_are_distinct():
    new, churn = refit(OLD, NOW)
    assert (churn.surviving, churn.new, churn.gone) == (108, 24, 12)
    assert churn.kept_prefix[0] > 0.7
    assert churn.distortion_after < churn.distortion_before
    assert len(np.unique(new.codes, axis=0)) == len(new) == 132
    assert new.ledger.last_generation == 0
    assert new.decode(new.tokens(["i012", "i143"])) == ["i012", "i143"]


def test_the_report_counts_what_is_there():
    new, churn = refit(OLD, NOW)
    same = OLD.encode(SURVIVING) == new.encode(SURVIVING)
    assert churn.kept_prefix == [same[:, : level + 1].all(axis=1).mean() for level in range(3)]
    assert churn.to_dict() == new.provenance["refit"]["churn"]


def test_alignment_only_renames():
    """Without tolerance, matched IDs are the unmatched ones under other names."""
    plain, _ = refit(OLD, NOW, init="scratch", match_codes=False)
    aligned, churn = refit(OLD, NOW, init="scratch", keep_tolerance=0.0)
    vectors = plain.embed(_items(NOW))
    before, after = plain.encode_vectors(vectors), aligned.encode_vectors(vectors)
    for level in range(3):
        assert len(np.unique(np.stack([before[:, level], after[:, level]]), axis=1).T) == len(
            np.unique(before[:, level])
        )
    assert np.array_equal(plain.codebooks.reconstruct(before), aligned.codebooks.reconstruct(after))
    unaligned = Churn.of(OLD.encode(SURVIVING), plain.encode(SURVIVING), n_new=24, n_gone=12)
    assert churn.kept_prefix[0] > unaligned.kept_prefix[0]


def test_more_tolerance_keeps_more():
    kept = [refit(OLD, NOW, keep_tolerance=slack)[1].kept_prefix for slack in (0.0, 0.1, 5.0)]
    assert kept[0][0] <= kept[1][0] <= kept[2][0]
    assert kept[2][0] > 0.98


def test_the_order_of_the_items_changes_nothing():
    one, other = (refit(OLD, items)[0] for items in (NOW, NOW[::-1]))
    assert list(one.item_ids) == list(other.item_ids)
    assert np.array_equal(one.codes, other.codes)


def test_the_old_artifact_stays_as_it_was():
    codes, levels = OLD.codes.copy(), [level.copy() for level in OLD.codebooks.levels]
    refit(OLD, NOW)
    assert np.array_equal(OLD.codes, codes)
    assert all(np.array_equal(*pair) for pair in zip(OLD.codebooks.levels, levels, strict=True))


@pytest.mark.parametrize("depth", [1, 2])
def test_kept_levels_keep_codebooks_and_codes(depth):
    new, churn = refit(OLD, NOW, keep_prefix=depth)
    for level in range(depth):
        assert np.array_equal(new.codebooks.levels[level], OLD.codebooks.levels[level])
    assert np.array_equal(new.encode(SURVIVING)[:, :depth], OLD.encode(SURVIVING)[:, :depth])
    assert churn.kept_prefix[:depth] == [1.0] * depth
    assert not np.array_equal(new.codebooks.levels[depth], OLD.codebooks.levels[depth])


def test_moved_items_keep_the_prefix_they_were_moved_to():
    """So many equal vectors that some had to leave their prefix: it is theirs for good, and newcomers go elsewhere."""
    vectors = vectors_of(60)
    vectors[:20] = vectors[0]
    names = [{"id": f"i{n:02}"} for n in range(60)]
    old = SemanticIDTokenizer.fit(names[:40], embeddings=vectors[:40], method="rqkmeans", codebook_size=(4, 4, 4))
    assert len(np.unique(old.codes[:20, :2], axis=0)) > 4
    vectors[40:] = vectors[0]
    new, _ = refit(old, names, embeddings=vectors, keep_prefix=2)
    assert np.array_equal(new.codes[:40, :2], old.codes[:, :2])
    assert len(np.unique(new.codes, axis=0)) == 60


def test_prices_of_a_balanced_level_are_made_anew():
    old = SemanticIDTokenizer.fit(shop(0, 120), **SMALL, uniform="catalog")
    new, _ = refit(old, NOW)
    assert new.codebooks.biases[-1] is not None
    assert not np.array_equal(new.codebooks.biases[-1], old.codebooks.biases[-1])


def test_a_trained_fit_goes_on_with_its_network():
    old = SemanticIDTokenizer.fit(shop(0, 120), levels=2, codebook_size=16, epochs=1)
    new, churn = refit(old, NOW)
    assert new.config == old.config and churn.kept_prefix[0] > 0.5
    for name, array in old.codebooks.arrays().items():
        if name.startswith("encoder."):
            assert np.array_equal(new.codebooks.arrays()[name], array)


# ---- other starts


def test_ready_vectors():
    names = [{"id": str(n)} for n in range(60)]
    old = SemanticIDTokenizer.fit(names, embeddings=vectors_of(60), **SMALL)
    new, churn = refit(old, names, embeddings=vectors_of(60))
    assert churn.kept_prefix[0] > 0.9
    with pytest.raises(ConfigError, match="ready vectors"):
        refit(old, names)
    with pytest.raises(ConfigError, match="should be"):
        refit(old, names, embeddings=vectors_of(60)[:, :5])
    assert len(refit(old, names, embeddings=vectors_of(60)[:, :5], init="scratch")[0]) == 60


def test_fresh_with_other_sizes():
    wider = dataclasses.replace(OLD.config, levels=4, codebook_size=(8, 16, 8, 8))
    new, churn = refit(OLD, NOW, init="scratch", config=wider)
    assert new.sizes == (8, 16, 8, 8) and len(churn.kept_prefix) == 3
    assert churn.kept_prefix[0] > 0.2
    assert list(remap_lines(OLD, new))[1].split("\t")[2].count("<s_") == 4


def test_imported_ids_get_codebooks_under_their_own_names(tmp_path):
    index = {item["id"]: [f"<a_{code}>" for code in OLD.encode(item["id"])] for item in shop(0, 120)}
    index = {
        item_id: [token.replace("a", "abc"[level]) for level, token in enumerate(row)] for item_id, row in index.items()
    }
    (tmp_path / "other.index.json").write_text(json.dumps(index))
    imported = import_index(tmp_path / "other.index.json", sizes=8)
    with pytest.raises(ConfigError, match="Use init=.scratch."):
        refit(imported, NOW)
    quick = dataclasses.replace(settings_of(imported), method="rqkmeans")
    new, churn = refit(imported, NOW, init="scratch", config=quick)
    assert new.is_fitted and new.vocabulary == imported.vocabulary
    assert churn.kept_prefix[0] > 0.3 and churn.distortion_before is None


def test_retired_items_that_come_back_are_survivors():
    old = OLD.retire(["i020", "i000"])
    _, churn = refit(old, NOW)
    assert (churn.surviving, churn.gone) == (108, 11)


# ---- errors


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"init": "hot"}, "init='hot' should be warm or scratch"),
        ({"init": "scratch", "keep_prefix": 1}, "keep_prefix=1"),
        ({"keep_prefix": 3}, "should be 0 to 2"),
        ({"keep_prefix": -1}, "should be 0 to 2"),
        ({"keep_tolerance": -0.1}, "keep_tolerance=-0.1"),
        ({"keep_tolerance": float("nan")}, "keep_tolerance=nan"),
        ({"embeddings": np.zeros((132, 3))}, "Leave embeddings out"),
    ],
)
def test_impossible_choices_say_so(choices, says):
    with pytest.raises(ConfigError, match=says):
        refit(OLD, NOW, **choices)


def test_another_catalog_is_refused():
    with pytest.raises(InputError, match="none of its 2 items is in the artifact"):
        refit(OLD, [{"id": "x", "title": "red shoe"}, {"id": "y", "title": "blue hat"}])


# ---- uniqueness around what is kept


@functools.cache
def books(seed: int, sizes: tuple[int, ...] = (3, 3, 2)) -> tuple[Codebooks, np.ndarray]:
    vectors = np.random.default_rng(seed).normal(size=(40, 4)).astype(np.float32)
    learner = ResidualKMeans(levels=len(sizes), codebook_size=sizes, seed=seed).fit(vectors)
    return learner.codebooks_, learner.codebooks_.latents(vectors)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 2))
def test_those_who_must_stay_do_and_all_are_distinct(seed, depth):
    """18 IDs for up to 18 items: almost every prefix is overfull."""
    rng = np.random.default_rng(seed)
    codebooks, latents = books(seed % 5)
    every = np.stack(np.meshgrid(*map(np.arange, codebooks.sizes), indexing="ij"), -1).reshape(-1, 3)
    latents = latents[rng.choice(40, size=18)]
    codes = codebooks.encode_latents(latents)
    stays = rng.random(18) < 0.6
    codes[stays, :depth] = every[rng.permutation(18)[: stays.sum()], :depth]  # they had distinct IDs
    found = assign_stable(latents, codes, codebooks, stays, depth)
    assert np.array_equal(found.codes[stays, :depth], codes[stays, :depth])
    assert len(np.unique(found.codes, axis=0)) == 18 == found.certificate.n_unique
    assert found.certificate.moved_items == (found.codes != codes).any(axis=1).sum()


def test_nothing_to_keep_is_plain_assignment():
    codebooks, latents = books(0, sizes=(4, 4, 4))
    codes = codebooks.encode_latents(latents)
    found = assign_stable(latents, codes, codebooks, np.zeros(40, bool), 0)
    assert np.array_equal(found.codes, assign_unique(latents, codes, codebooks.levels).codes)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_identical_items_get_their_old_ids_back(seed):
    rng = np.random.default_rng(seed)
    codebooks, latents = books(seed % 5, sizes=(4, 4, 4))
    latents = latents[rng.integers(12, size=30)]
    codes = codebooks.encode_latents(latents)
    found = assign_unique(latents, codes, codebooks.levels)
    old = np.full((30, 3), -1)
    had = rng.permutation(30)[:20]
    old[had] = found.codes[rng.permutation(30)[:20]]  # distinct IDs, some of them of other items
    again = reuse_old_ids(found, codes, old, latents, codebooks)
    assert sorted(map(tuple, again.codes)) == sorted(map(tuple, found.codes))
    holder = {tuple(row): place for place, row in enumerate(again.codes.tolist())}
    for row in had:
        other = holder[tuple(old[row].tolist())]
        assert other == row or not np.array_equal(latents[other], latents[row])
    moved = (again.codes != found.codes).any(axis=1)
    cost = ((latents - codebooks.quantized(again.codes)) ** 2).sum()
    assert np.isclose(cost, ((latents - codebooks.quantized(found.codes)) ** 2).sum())
    assert all((latents[row] == latents[np.arange(30) != row]).all(axis=1).any() for row in np.flatnonzero(moved))


# ---- the map and the command


def test_the_map_names_every_item_once():
    new, churn = refit(OLD, NOW)
    header, *lines = remap_lines(OLD, new)
    cells = [line.split("\t") for line in lines]
    assert header == "item_id\told\tnew\tkept"
    assert [row[0] for row in cells] == [f"i{n:03}" for n in [*range(12, 144), *range(12)]]
    for item_id, old, made, kept in cells:
        assert old == ("" if kept == "new" else OLD.tokens(item_id))
        assert made == ("" if kept == "gone" else new.tokens(item_id))
    counts = [sum(row[3] == str(kept) for row in cells) for kept in range(4)]
    assert sum(counts) == churn.surviving
    assert counts[3] / churn.surviving == churn.kept_prefix[2]


@pytest.fixture
def files(tmp_path):
    OLD.save_pretrained(tmp_path / "sid")
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in NOW))
    return tmp_path


def test_the_command_writes_a_whole_artifact_with_its_map(semid, files):
    done = semid("refit", "sid", "items.jsonl", "-o", "new")
    assert done.code == 0, done.err
    assert "108 items survive, 24 are new, 12 are gone" in done.out
    assert "saved       new" in done.err
    problems, fingerprint = verify_artifact(files / "new")
    assert problems == [] and done.out.splitlines()[-1] == fingerprint
    new = SemanticIDTokenizer.from_pretrained(files / "new")
    assert (files / "new" / "remap.tsv").read_text().splitlines() == list(remap_lines(OLD, new))
    assert new.provenance["refit"]["of"] == verify_artifact(files / "sid")[1]
    (files / "new" / "remap.tsv").write_text("damaged")
    assert verify_artifact(files / "new")[0]


def test_the_command_as_json_and_its_options(semid, files):
    done = semid("refit", "sid", "items.jsonl", "-o", "new", "--json", "--keep-prefix", "1")
    told = json.loads(done.out)
    assert told["kept_prefix"][0] == 1.0 and told["folder"] == "new"
    assert semid("refit", "sid", "items.jsonl", "-o", "new").code == 1
    other = ("--init", "scratch", "--levels", "2", "--codebook-size", "16")
    assert semid("refit", "sid", "items.jsonl", "-o", "new", "--force", *other).code == 0
    assert SemanticIDTokenizer.from_pretrained(files / "new").sizes == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--keep-prefix", "3"], 1, "should be 0 to 2"),
        (["--levels", "2"], 1, "Use init='scratch'"),
        (["--keep-tolerance", "-1"], 2, "--keep-tolerance"),
        (["--init", "cold"], 2, "warm"),
    ],
)
def test_the_command_says_what_is_wrong(semid, files, arguments, code, says):
    done = semid("refit", "sid", "items.jsonl", "-o", "new", *arguments)
    assert (done.code, says in done.err) == (code, True)
    assert not (files / "new").exists()


def _items(records):
    from semid.data.items import read_items

    return read_items(records).sorted()
