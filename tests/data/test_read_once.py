"""Commands read the interactions once, whatever they need to know of them."""

from __future__ import annotations

import builtins
import gzip
import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.communities import lines

SMALL = ("--method", "rqkmeans", "--levels", "2", "--codebook-size", "8")


@pytest.fixture
def opens(monkeypatch) -> Counter[str]:
    """How often each file was opened since, by name."""
    counts: Counter[str] = Counter()
    real = builtins.open

    def counted(file, *arguments, **choices):
        if isinstance(file, str | os.PathLike):
            counts[Path(file).name] += 1
        return real(file, *arguments, **choices)

    for module in (builtins, io):  # gzip.open and Path.open go through these
        monkeypatch.setattr(module, "open", counted)
    return counts


@pytest.fixture
def files(tmp_path):
    people = [
        one | {"times": list(range(number, number + len(one["items"]))), "n_valid": 1, "n_test": 1}
        for number, one in enumerate(lines())
    ]
    known = sorted({item for one in people for item in one["items"]})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in people))
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress((tmp_path / "log.jsonl").read_bytes()))
    items = [{"id": item, "title": f"thing {number}"} for number, item in enumerate(known)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    return tmp_path


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
@pytest.mark.parametrize("split", ["leave-one-out", "own"])
def test_fit_reads_the_interactions_once(semid, files, opens, name, split):
    chosen = ("--interactions", name, "--collaborative-fusion", "1", "--split", split)
    done = semid("fit", "items.jsonl", "-o", "sid", *SMALL, *chosen, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["sequence_lift"]
    assert opens[name] == 1


@pytest.mark.parametrize("split", ["leave-one-out", "own"])
def test_clusters_reads_the_interactions_once(semid, files, opens, split):
    done = semid("clusters", "log.jsonl", "-o", "clusters", "--split", split, "--clusters", "4")
    assert done.code == 0, done.err
    assert opens["log.jsonl"] == 1


@pytest.mark.parametrize("split", ["leave-one-out", "own", "time"])
def test_align_reads_the_interactions_once(semid, files, opens, split):
    assert semid("fit", "items.jsonl", "-o", "sid", *SMALL).code == 0
    done = semid("align", "sid", "log.jsonl", "-o", "data", "--split", split)
    assert done.code == 0, done.err
    assert opens["log.jsonl"] == 1
