"""A folder of one kind given for another: the message names it and what was meant, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semid.artifact import TopKCache, check_kind, save_top_k
from semid.artifact.kinds import CLUSTERS
from semid.clusters.fit import ClusterConfig, fit_clusters
from semid.clusters.tokens import ClusterTokens
from semid.diagnostics import verify_artifact
from semid.encoders.collaborative import WalkConfig
from semid.errors import ArtifactError, InputError
from semid.tokenizer import SemanticIDTokenizer
from tests.helpers.communities import histories, lines
from tests.helpers.tiny_models import ITEMS, ids_of

SMALL = ClusterConfig(clusters=4, walks=WalkConfig(dim=4, walks_per_node=2, walk_length=6))


@pytest.fixture(scope="module")
def clusters() -> ClusterTokens:
    return fit_clusters(histories(), SMALL)


@pytest.fixture
def folders(tmp_path, clusters) -> Path:
    """One of each kind, and what the commands need beside them."""
    clusters.save(tmp_path / "clusters")
    ids_of().save_pretrained(tmp_path / "ids")
    codes, scores = np.zeros((1, 2, 3), np.uint16), np.zeros((1, 2), np.float32)
    save_top_k(tmp_path / "cache", ["u"], codes, scores, histories=[["a"]], fingerprint="sha256:1")
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "add {} items.jsonl",
        "retire {} red-shoe",
        "history {}",
        "diff {} ids",
        "diff ids {}",
        "refit {} items.jsonl -o out",
        "encode {} red-shoe",
        "encode {} --items items.jsonl -o out.parquet",
        "decode {} <s_a_1><s_b_1><s_c_1>",
        "align {} log.jsonl -o out",
        "export {} --to lcrec -o out.json",
        "doctor {}",
        "clusters log.jsonl -o out --item-ids {}",
    ],
)
@pytest.mark.parametrize("kind", ["clusters", "cache"])
def test_what_is_not_semantic_ids_is_refused(semid, folders, command, kind):
    before = contents(folders)
    done = semid(*command.format(kind).split())
    assert done.code == 1
    assert f"{kind}: holds " in done.err and "expected semantic IDs, made by semid fit" in done.err
    assert ("made by semid clusters" in done.err) == (kind == "clusters")
    assert contents(folders) == before


@pytest.mark.parametrize("kind", ["ids", "cache"])
def test_what_is_not_clusters_is_refused(semid, folders, kind):
    before = contents(folders)
    done = semid("align", "ids", "log.jsonl", "-o", "out", "--user-tokens", kind)
    assert done.code == 1
    assert f"{kind}: holds " in done.err and "expected tokens of users and items, made by semid clusters" in done.err
    assert contents(folders) == before


@pytest.mark.parametrize("command", ["info cache", "show cache u", "extend base cache -o out"])
def test_a_cache_is_neither(semid, folders, command):
    before = contents(folders)
    done = semid(*command.split())
    assert done.code == 1 and "These are read with TopKCache.open" in done.err
    assert contents(folders) == before


def test_from_python_it_is_an_input_error(folders):
    openers = {"ids": SemanticIDTokenizer.from_pretrained, "clusters": ClusterTokens.open,
               "cache": lambda folder: TopKCache.open(folder, None)}  # fmt: skip
    for wanted, opened in openers.items():
        opened(folders / wanted)
        for other in openers.keys() - {wanted}:
            with pytest.raises(InputError, match=f"{folders}/{other}: holds .*; expected "):
                opened(folders / other)


@pytest.mark.parametrize("kind", [None, "another", ["cluster tokens"], 7])
def test_a_kind_of_another_semid_is_damage_or_to_come(kind):
    with pytest.raises(ArtifactError, match="upgrade semid"):
        check_kind("x", {"kind": kind}, CLUSTERS)


def test_verify_takes_every_kind(semid, folders):
    for kind in ("ids", "clusters", "cache"):
        problems, fingerprint = verify_artifact(folders / kind)
        assert problems == [] and fingerprint.startswith("sha256:")
        (data,) = sorted((folders / kind).glob("semid-*.safetensors"))[:1]
        whole = data.read_bytes()
        data.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert semid("verify", kind).code == 1
