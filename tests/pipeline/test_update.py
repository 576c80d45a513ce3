"""Changing an artifact where it lies: only what is new is written, and the folder stays one that `save` could make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import threading

import numpy as np
import pytest

from semid.artifact import store as artifact
from semid.artifact.manifest import FORMAT_VERSION, as_text, complete, data_name, describe
from semid.artifact.tensors import tensor_blocks
from semid.errors import ArtifactError, CapacityError, UnknownIDError
from semid.ledger.ledger import Ledger
from semid.ledger.segment import merged
from semid.pipeline import update as changing
from semid.tokenizer import SemanticIDTokenizer
from tests.helpers.small_shop import contents, faults, learned, names, records, vectors

OLD, NEW = names(200), names(6, first=1000)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "ids"
    learned(OLD, codebook_size=8).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "ids")


def add(folder, item_ids, text="thing", **choices):
    return changing.add(folder, records(item_ids, text), embeddings=vectors(item_ids), **choices)


def opened(folder):
    return SemanticIDTokenizer.from_pretrained(folder)


def marks(folder):
    """File name -> what would differ had the file been written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


# ---- only what is new


def test_a_small_change_writes_small_files_and_leaves_the_others_alone(folder):
    before, fit_bytes = marks(folder), sum(path.stat().st_size for path in folder.iterdir())
    add(folder, NEW[:2])
    after = marks(folder)
    assert {name for name in before if after.get(name) != before[name]} == {"semid.json"}
    (data,) = [name for name in after.keys() - before.keys() if name.endswith(".safetensors")]
    assert after.keys() - before.keys() == {data, "ids-1.tsv"}
    assert (folder / data).stat().st_size < 3000 < fit_bytes
    assert faults(folder) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: changing.retire(folder, OLD[:3]),
        lambda folder: changing.add(folder, records(OLD[:3], "other"), update=True),
    ],
    ids=["retire", "update"],
)
def test_notes_about_rows_are_a_file_of_their_own_without_a_table(folder, change):
    before = marks(folder)
    change(folder)
    after = marks(folder)
    assert {name for name in before if after.get(name) != before[name]} == {"semid.json"}
    assert [name.endswith(".safetensors") for name in after.keys() - before.keys()] == [True]
    assert faults(folder) == []


def test_a_change_that_grows_is_merged_and_the_small_files_go(folder):
    homes = artifact.load(folder).arrays.homes()
    learned_part, base = homes["codebook.0"], homes["codes"]
    before = marks(folder)[learned_part]
    for first in range(1000, 1120, 8):
        add(folder, names(8, first))
        ids = opened(folder)
        data = [name for name in marks(folder) if name.endswith(".safetensors")]
        assert len(data) == 1 + len(ids.ledger.segments)
        assert faults(folder) == []
    assert len(ids.ledger.segments) < 5
    assert base not in marks(folder)  # 120 items are more than a quarter of 200: all is one table now
    assert marks(folder)[learned_part] == before  # but what was learned is never written again
    assert opened(folder).decode(opened(folder).tokens(OLD)) == OLD


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_tables_for_people_are_those_of_the_segments(folder, steps):
    for step in range(steps):
        add(folder, names(3, 1000 + 3 * step))
        changing.retire(folder, OLD[step : step + 1])
    ids, shown = opened(folder), []
    tables = sorted(path.name for path in folder.glob("ids*.tsv"))
    wanted = [artifact.tsv_name(part) for part, one in enumerate(ids.ledger.segments) if len(one)]
    assert tables == sorted(wanted)
    for name in wanted:
        header, *lines = (folder / name).read_text().splitlines()
        assert header == "item_id\ttokens\ttext"
        shown += lines
    tokens = ids.tokens(ids.item_ids)
    assert shown == [f"{item}\t{words}\tthing {item}" for item, words in zip(ids.item_ids, tokens, strict=True)]


def test_a_change_that_changes_nothing_writes_nothing(folder):
    add(folder, NEW)
    changing.retire(folder, NEW[:1])
    before = marks(folder)
    assert add(folder, NEW).added == 0
    assert changing.retire(folder, NEW[:1]) == changing.Retired(2, 0, 1)
    assert marks(folder) == before


# ---- the folder is what it says, however it came about


def test_saving_a_changed_artifact_elsewhere_gives_the_same_files(folder, tmp_path):
    add(folder, NEW[:3])
    changing.retire(folder, OLD[:1], date="spring")
    add(folder, NEW)
    changing.add(folder, records(NEW[:1], "other"), update=True)
    mark = opened(folder).save_pretrained(tmp_path / "copy")
    assert mark == artifact.load(folder).fingerprint
    data = {name for name in contents(folder) if name.endswith(".safetensors")}
    assert contents(tmp_path / "copy").keys() == contents(folder).keys()
    assert all(contents(tmp_path / "copy")[name] == contents(folder)[name] for name in data)
    assert faults(tmp_path / "copy") == []


def test_the_same_changes_give_the_same_folder_and_no_clock_is_in_it(made, tmp_path):
    for name, date in (("a", None), ("b", None), ("c", "2026-11-21")):
        copy = shutil.copytree(made, tmp_path / name)
        add(copy, NEW if name == "a" else NEW[::-1], date=date)
        changing.retire(copy, OLD[:2])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert artifact.load(tmp_path / "a").fingerprint == artifact.load(tmp_path / "c").fingerprint


def test_a_changed_folder_can_be_replaced_by_another_artifact(folder):
    add(folder, NEW)
    learned(OLD[:30]).save_pretrained(folder, force=True)
    assert sorted(name for name in contents(folder) if name.endswith(".tsv")) == ["ids.tsv"]
    assert faults(folder) == []


def test_files_of_others_stay(folder):
    for name in ("model.safetensors", "config.json", "notes.tsv", "ids-1.tsv.bak"):
        (folder / name).write_text("theirs")
    for step in range(12):
        add(folder, names(10, 1000 + 10 * step))
    assert [(folder / name).read_text() for name in ("model.safetensors", "config.json", "notes.tsv")] == ["theirs"] * 3


# ---- a change that fails


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda folder: changing.retire(folder, [OLD[0], "nobody"]), UnknownIDError),
        (lambda folder: add(folder, names(400, 1000)), CapacityError),
    ],
)
def test_a_change_that_is_refused_leaves_everything_as_it_was(folder, change, error):
    before = contents(folder), marks(folder)
    with pytest.raises(error):
        change(folder)
    assert (contents(folder), marks(folder)) == before


@pytest.mark.parametrize("change", [lambda folder: add(folder, NEW), lambda folder: changing.retire(folder, OLD[:1])])
def test_a_folder_that_is_none_is_refused_and_not_made(tmp_path, change):
    with pytest.raises(ArtifactError, match=r"nowhere: no such folder\. Make it with"):
        change(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"not a semid folder"):
        change(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    artifact.save(tmp_path / "other", {"kind": "another"}, {"x": np.zeros(3)})
    before = contents(tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"kind='another' should be"):
        add(tmp_path / "other", NEW)
    assert contents(tmp_path / "other") == before


# ---- several at once


def test_of_writers_at_once_each_wins_or_is_refused_and_no_change_is_lost(folder):
    start, outcomes = threading.Barrier(6), {}

    def write(number):
        start.wait()
        try:
            outcomes[number] = add(folder, names(2, 1000 + 2 * number)).added
        except ArtifactError as error:
            outcomes[number] = str(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = opened(folder)
    won = [number for number, outcome in outcomes.items() if outcome == 2]
    assert won
    assert set(ids.item_ids[len(OLD) :]) == {name for number in won for name in names(2, 1000 + 2 * number)}
    refused = [outcome for outcome in outcomes.values() if outcome != 2]
    assert all("process" in outcome and "is writing here" in outcome for outcome in refused)
    assert ids.ledger.last_generation == len(won)
    assert faults(folder) == []


def test_readers_see_whole_generations_while_changes_come_in(folder):
    seen, done = set(), threading.Event()

    def change():
        for step in range(15):
            add(folder, names(8, 1000 + 8 * step))
        done.set()

    writer = threading.Thread(target=change)
    writer.start()
    while not done.is_set():
        ids = opened(folder)
        generation = ids.ledger.last_generation
        assert len(ids) == len(OLD) + 8 * generation == len(ids.decode(ids.tokens(ids.item_ids)))
        assert sum(one["added"] for one in ids.history) == len(ids)
        seen.add(generation)
    writer.join()
    assert opened(folder).ledger.last_generation == 15
    assert len(seen) > 1


def test_an_open_reader_keeps_its_generation_when_its_files_are_gone(folder):
    reader = opened(folder)
    for step in range(12):
        add(folder, names(10, 1000 + 10 * step))
    changing.retire(folder, OLD[:5])
    assert len(reader) == len(OLD)
    assert reader.ledger.n_live == len(OLD)
    assert reader.decode(reader.tokens(OLD)) == OLD
    assert reader.codebooks.sizes == reader.sizes  # read only now, from a file that has no name any more


# ---- artifacts of format 1


def as_format_1(folder, target):
    """The same artifact as the first semid wrote it: one data file, `retired_in` for all rows, no history."""
    ids, loaded = opened(folder), artifact.load(folder)
    later = ("newest", "retired.", "revised.", "fit.")  # arrays that format 2 brought
    arrays = {name: array for name, array in loaded.arrays.items() if not name.startswith(later)}
    assert len(ids.ledger.segments) == 1
    arrays["retired_in"] = ids.ledger.retired_in
    manifest = {key: value for key, value in loaded.manifest.items() if key not in ("history", "text_fields")}
    target.mkdir()
    data = b"".join(tensor_blocks(arrays))
    table = (folder / "ids.tsv").read_bytes()
    files = {data_name(hashlib.sha256(data).hexdigest()): data, "ids.tsv": table}
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in files.items()
    }
    whole = complete(manifest, entries, describe(arrays)) | {"format_version": 1}
    for name, content in (files | {"semid.json": as_text(whole)}).items():
        (target / name).write_bytes(content)
    return target


@pytest.fixture
def first_format(made, tmp_path):
    """With items 3 and 5 retired in generation 1."""
    ids = opened(made)
    gone = ids.ledger.retire([OLD[3], OLD[5]])
    ids = dataclasses.replace(ids, ledger=Ledger((merged(*gone.segments),)))  # format 1 had one table
    ids.save_pretrained(tmp_path / "now")
    return as_format_1(tmp_path / "now", tmp_path / "then")


def test_the_first_format_is_read(first_format, tmp_path):
    assert json.loads((first_format / "semid.json").read_text())["format_version"] == 1
    then, now = opened(first_format), opened(tmp_path / "now")
    assert faults(first_format) == []
    assert then.ledger.retired_in.tolist() == now.ledger.retired_in.tolist()
    assert then.ledger.last_generation == 1
    assert list(then.texts) == list(now.texts)
    assert then.decode(then.tokens(OLD)) == OLD
    assert then.text_fields is None


def test_the_first_format_can_be_changed_and_becomes_the_present_one(first_format):
    before = opened(first_format)
    report = add(first_format, [OLD[0], *NEW])
    assert (report.added, report.unchanged, report.generation) == (6, 1, 2)
    changing.retire(first_format, NEW[:1])
    manifest = json.loads((first_format / "semid.json").read_text())
    assert manifest["format_version"] == FORMAT_VERSION
    assert "retired_in" not in manifest["arrays"]
    after = opened(first_format)
    assert after.codes[: len(OLD)].tolist() == before.codes.tolist()
    assert after.ledger.retired_in[:6].tolist() == [0, 0, 0, 1, 0, 1]
    assert after.ledger.retired_in[len(OLD)] == 3
    assert faults(first_format) == []
    assert sorted(path.name for path in first_format.glob("*.tsv")) == ["ids-1.tsv", "ids.tsv"]
