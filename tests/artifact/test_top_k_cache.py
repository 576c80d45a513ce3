"""The top-k cache: what was computed comes back, and nothing that is stale."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid import artifact
from semid.artifact import TopKCache, history_hash, save_top_k
from semid.data.interaction_reader import read_interactions
from semid.errors import ArtifactError, ConfigError, InputError, OutputExistsError
from tests.helpers.tiny_models import ITEMS, ids_of, new_model, new_tokenizer

MARK = "sha256:" + "0" * 64


def saved(folder, users, *, k=2, levels=3, **more):
    chance = np.random.default_rng(0)
    codes = chance.integers(0, 65536, (len(users), k, levels))
    scores = -np.sort(chance.random((len(users), k)).astype(np.float32))
    histories = more.pop("histories", [[user] for user in users])
    save_top_k(folder / "cache", users, codes, scores, histories=histories, fingerprint=MARK, **more)
    return codes, scores


@given(st.lists(st.text(), unique=True, max_size=40), st.text())
@settings(max_examples=25)
def test_every_user_gets_their_own_row_and_nobody_else(users, stranger):
    users = [user for user in users if user.isascii() or user.encode("utf-8", "replace").decode() == user]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        codes, scores = saved(path, users)
        cache = TopKCache.open(path / "cache", MARK)
        assert len(cache) == len(users)
        for row, user in enumerate(users):
            found = cache.get(user, [user])
            np.testing.assert_array_equal(found.codes, codes[row])
            np.testing.assert_array_equal(found.scores, scores[row])
        if stranger not in users:
            assert cache.row_of(stranger) == -1 and cache.get(stranger, [stranger]) is None


def test_users_of_one_stretch_are_told_apart(tmp_path, monkeypatch):
    """Even if all names had one hash."""
    monkeypatch.setattr("semid.artifact.top_k_cache.hash_ids", lambda users: np.full(len(users), 7, np.uint64))
    monkeypatch.setattr("semid.artifact.top_k_cache.hashes_of", lambda encoded: np.full(len(encoded), 7, np.uint64))
    codes, _ = saved(tmp_path, ["a", "b", "c"])
    cache = TopKCache.open(tmp_path / "cache", MARK)
    assert [cache.get(user, [user]).codes.tolist() for user in "abc"] == codes.tolist()
    assert cache.get("d", ["d"]) is None


def test_another_history_is_another_row(tmp_path):
    saved(tmp_path, ["u"], histories=[["a", "b"]])
    cache = TopKCache.open(tmp_path / "cache", MARK)
    assert cache.get("u", ["a", "b"]) is not None
    for history in (["a"], ["b", "a"], ["a", "b", "c"], ["ab"], []):
        assert cache.get("u", history) is None
    assert len({history_hash(one) for one in (["ab"], ["a", "b"], ["", "ab"], ["ab", ""], [])}) == 5


def test_another_artifact_is_refused(tmp_path):
    saved(tmp_path, ["u"])
    with pytest.raises(ArtifactError, match="was made for the IDs sha256:0+, these are sha256:1: the artifact has"):
        TopKCache.open(tmp_path / "cache", "sha256:1")
    assert TopKCache.open(tmp_path / "cache", None).fingerprint == MARK


def test_what_is_no_cache_is_refused(tmp_path):
    ids_of().save_pretrained(tmp_path / "sid")
    with pytest.raises(InputError, match=r"sid: holds semantic IDs, made by semid fit; expected recommendations"):
        TopKCache.open(tmp_path / "sid", None)
    artifact.save(
        tmp_path / "empty", {"kind": "top-k cache", "artifact": MARK}, {"codes": np.zeros((1, 1, 1), np.uint16)}
    )
    with pytest.raises(ArtifactError, match="array counts is missing"):
        TopKCache.open(tmp_path / "empty", None)


def test_fewer_than_k_are_given_as_they_are(tmp_path):
    codes, _ = saved(tmp_path, ["a", "b"], counts=np.array([0, 1]))
    cache = TopKCache.open(tmp_path / "cache", MARK)
    assert cache.get("a", ["a"]).codes.shape == (0, 3)
    assert cache.get("b", ["b"]).codes.tolist() == codes[1, :1].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": ["a", "a"]}, "'a' comes twice"),
        ({"users": ["a"]}, "codes: 2 rows for 1 users"),
        ({"codes": np.full((2, 1, 2), 70_000)}, "should be within 0..65535"),
        ({"codes": np.zeros((2, 2))}, r"expected integers \[U, k, L\]"),
        ({"scores": np.zeros((2, 3))}, r"expected integers \[U, k, L\]"),
        ({"histories": [[]]}, "histories: 1 rows for 2 users"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, change, message):
    given_ = {"users": ["a", "b"], "codes": np.zeros((2, 1, 2), int), "scores": np.zeros((2, 1)), "histories": [[], []]}
    with pytest.raises(InputError, match=message):
        save_top_k(tmp_path / "cache", **given_ | change, fingerprint=MARK)
    assert not (tmp_path / "cache").exists()


def test_a_cache_is_not_written_over_by_accident(tmp_path):
    saved(tmp_path, ["u"])
    with pytest.raises(OutputExistsError):
        saved(tmp_path, ["v"])
    saved(tmp_path, ["v"], force=True)
    assert list(TopKCache.open(tmp_path / "cache", MARK).users) == ["v"]


# ---- made by a model


@pytest.fixture(scope="module")
def shop():
    """A model with the tokens of the tests' items."""
    import semid

    ids, tokenizer, model = ids_of(), new_tokenizer(), new_model("qwen3 tied")
    semid.extend(tokenizer, model, ids)
    return ids, tokenizer, model


def people(n_users: int = 5) -> list[dict]:
    names = [item["id"] for item in ITEMS]
    return [{"user": f"u{n}", "items": names[n : n + 4]} for n in range(n_users)]


def test_rows_are_what_generate_items_finds_for_the_prompts_of_training(shop, tmp_path):
    from semid import Trie, generate_items
    from semid.tokenizer_exports.generate.top_k import build_top_k

    ids, tokenizer, model = shop
    cache = build_top_k(model, tokenizer, ids, people(), tmp_path / "cache", k=3, batch_size=2)
    assert cache.fingerprint == ids.save_pretrained(tmp_path / "sid")
    for one in people():
        text = f"Someone chose these items, oldest first: {', '.join(ids.tokens(one['items']))}. Which item comes next?"
        message = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(
            message, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        expected = generate_items(model, prompt, Trie.from_tokenizer(ids, tokenizer), num_return=3)
        found = cache.get(one["user"], one["items"])
        assert ids.decode(found.codes) == expected.item_ids[0]
        np.testing.assert_allclose(found.scores, expected.scores[0], atol=1e-4)


def test_only_what_is_stale_is_computed_again(shop, tmp_path):
    from semid.tokenizer_exports.generate.top_k import build_top_k

    ids, tokenizer, model = shop
    first = build_top_k(model, tokenizer, ids, people(), tmp_path / "cache", k=2)
    later = people(6)
    later[1]["items"].append(ITEMS[9]["id"])
    assert list(first.stale(read_interactions(later))) == ["u1", "u5"]
    asked = []

    def prompt(user, history):
        asked.append(user)
        return " ".join(history)

    second = build_top_k(model, tokenizer, ids, later, tmp_path / "cache", k=2, reuse=first, force=True, prompt=prompt)
    assert asked == ["u1", "u5"] and list(second.stale(read_interactions(later))) == []
    assert second.get("u0", later[0]["items"]).scores.tolist() == first.get("u0", later[0]["items"]).scores.tolist()
    with pytest.raises(ConfigError, match="reuse: has k=2"):
        build_top_k(model, tokenizer, ids, later, tmp_path / "other", k=3, reuse=first)


def test_what_was_met_is_not_recommended_if_so_wished(shop, tmp_path):
    from semid.tokenizer_exports.generate.top_k import build_top_k

    ids, tokenizer, model = shop
    everything = {"user": "all", "items": [item["id"] for item in ITEMS]}
    cache = build_top_k(model, tokenizer, ids, [*people(), everything], tmp_path / "cache", k=40, unseen_only=True)
    for one in people():
        found = ids.decode(cache.get(one["user"], one["items"]).codes)
        assert len(found) == len(ITEMS) - 4 and not set(found) & set(one["items"])
    assert len(cache.get("all", everything["items"]).scores) == 0


def test_interactions_without_ids_are_refused(shop, tmp_path):
    from semid.tokenizer_exports.generate.top_k import build_top_k

    ids, tokenizer, model = shop
    with pytest.raises(InputError, match="none of its items has a live ID"):
        build_top_k(model, tokenizer, ids, [{"user": "u", "items": ["?"]}], tmp_path / "cache")
