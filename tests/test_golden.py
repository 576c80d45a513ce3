"""Folders and files that earlier versions wrote still open, with the same IDs: `tests/golden`, written by 256e02a."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semid import SemanticIDTokenizer, Trie
from semid.artifact.top_k_cache import TopKCache
from semid.clusters.tokens import ClusterTokens
from semid.diagnostics import verify_artifact

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["rqvae", "grown"])
def test_an_artifact_keeps_its_ids_tokens_and_fingerprint(name):
    ids, expected = SemanticIDTokenizer.from_pretrained(GOLDEN / name), EXPECTED[name]
    assert ids.fingerprint == expected["fingerprint"]
    assert {item_id: ids.tokens(item_id) for item_id in ids.item_ids} == expected["tokens"]
    assert ids.decode(list(expected["tokens"].values())) == list(expected["tokens"])
    assert verify_artifact(GOLDEN / name) == ([], expected["fingerprint"])


def test_an_artifact_still_encodes_and_knows_who_retired():
    ids = SemanticIDTokenizer.from_pretrained(GOLDEN / "grown")
    codes = EXPECTED["grown"]["encoded"]
    vectors = np.random.default_rng(1).integers(-8, 9, (len(codes), EXPECTED["grown"]["dims"])) / 8
    assert ids.encode_vectors(vectors.astype(np.float32)).tolist() == codes
    assert [item_id for item_id, live in zip(ids.item_ids, ids.ledger.live, strict=True) if not live] == ["item-3"]


def test_a_trie_file_accepts_the_same_ids():
    ids, expected = SemanticIDTokenizer.from_pretrained(GOLDEN / "grown"), EXPECTED["trie"]
    for trie in (Trie.load(GOLDEN / "grown.trie"), Trie.load(GOLDEN / "grown.trie", ids)):
        assert (len(trie), trie.base) == (expected["n_items"], expected["base"])
        assert trie.codes_of(np.arange(len(trie))).tolist() == expected["codes"]
        assert trie.rows_of(trie.walk(expected["codes"])).tolist() == expected["rows"]


def test_a_cluster_folder_keeps_its_tokens():
    clusters, expected = ClusterTokens.open(GOLDEN / "clusters"), EXPECTED["clusters"]
    assert clusters.fingerprint == expected["fingerprint"]
    for side, members in (("users", clusters.users), ("items", clusters.items)):
        assert {name: members.tokens(name) for name in members.ids} == expected[side]


def test_a_top_k_cache_keeps_its_lists():
    cache, expected = TopKCache.open(GOLDEN / "top-k", EXPECTED["grown"]["fingerprint"]), EXPECTED["top-k"]
    for place, (user, history) in enumerate([("user-0", ["item-0"]), ("user-1", ["item-1", "item-2"])]):
        found = cache.get(user, history)
        assert found.codes.tolist() == expected["codes"][place]
        np.testing.assert_array_equal(found.scores, np.float32(expected["scores"][place]))
