"""semid add, retire, history and diff as a shell runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from semid.artifact import atomic
from semid.tokenizer import SemanticIDTokenizer
from tests.helpers.small_shop import contents, faults, learned, names, records, write_source

OLD, NEW = names(40), names(5, first=1000)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    learned(OLD).save_pretrained(folder / "sid")
    write_source(folder, "old", OLD)
    write_source(folder, "new", NEW)
    return folder


@pytest.fixture
def shop(semid, made, tmp_path):
    """`semid` in a folder with the artifact sid and the sources old and new."""
    for path in made.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    return semid


def add(shop, *options, **more):
    return shop("add", "sid", "new.jsonl", "--embeddings", "new.npy", *options, **more)


# ---- add


def test_add_prints_what_it_did(shop):
    done = add(shop)
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == ["added", "assigned", "room"]
    assert done.out.startswith("added       5 items as generation 1\n")
    assert faults(Path("sid")) == []
    decoded = shop("encode", "sid", *NEW).out
    assert decoded.count("<s_a_") == 5


def test_adding_a_file_twice_changes_nothing(shop, tmp_path):
    add(shop)
    before = contents(tmp_path / "sid")
    done = add(shop)
    assert (done.code, done.out) == (0, "unchanged   no new items; 5 were there already\n")
    assert contents(tmp_path / "sid") == before


def test_json_of_add_is_all_there_is_on_stdout(shop):
    told = json.loads(add(shop, "--json").out)
    assert (told["added"], told["generation"], told["drift"]) == (5, 1, None)
    assert told["first_choice"] + told["moved"] + told["moved_prefix"] == 5


def test_add_reads_standard_input(shop):
    lines = "".join(json.dumps(record) + "\n" for record in records(OLD[:3])).encode()
    done = shop("add", "sid", "-", stdin=lines)
    assert (done.code, done.out) == (0, "unchanged   no new items; 3 were there already\n")


def test_another_text_is_told_on_stderr_and_stored_with_update(shop, tmp_path):
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(OLD[:2], "other")))
    kept = shop("add", "sid", "other.jsonl")
    assert kept.code == 0
    assert "semid: 2 items are there with another text, which was kept: 'i0000', 'i0001'. Use --update" in kept.err
    stored = shop("add", "sid", "other.jsonl", "--update", "--json")
    assert (json.loads(stored.out)["updated"], stored.err) == (2, "")
    assert SemanticIDTokenizer.from_pretrained("sid").texts[0] == "other i0000"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "new.jsonl"], 1, "semid: nowhere: no such folder. Make it with: semid fit"),
        (["sid", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["sid", "new.jsonl"], 1, "learned from ready vectors"),
        (["sid", "new.jsonl", "--embeddings", "old.npy"], 1, "old.npy"),
        (["sid", "new.jsonl", "--reuse-after", "0"], 2, "reuse-after"),
        (["sid", "new.jsonl", "--id-field", "sku"], 1, "sku"),
        (["sid"], 2, "Missing argument"),
    ],
)
def test_wrong_input_of_add_is_named_and_changes_nothing(shop, tmp_path, arguments, code, message):
    before = contents(tmp_path / "sid")
    done = shop("add", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert contents(tmp_path / "sid") == before
    assert not (tmp_path / "nowhere").exists()


def test_retired_ids_are_given_out_again_only_if_asked(shop, tmp_path):
    learned(names(4), levels=2, codebook_size=2).save_pretrained("full")
    write_source(tmp_path, "one", ["x"])
    command = ("add", "full", "one.jsonl", "--embeddings", "one.npy")
    assert shop("retire", "full", "i0002").code == 0
    refused = shop(*command)
    assert refused.code == 1 and "n_items=1 should be <= 0" in refused.err
    assert shop(*command, "--reuse-after", "1").code == 0
    ids = SemanticIDTokenizer.from_pretrained("full")
    assert ids.tokens("x") == ids.tokens("i0002")
    assert ids.decode(ids.tokens("x")) == "x"


# ---- retire


def test_retire_says_how_many(shop):
    done = shop("retire", "sid", OLD[0], OLD[1])
    assert (done.code, done.out, done.err) == (0, "retired     2 items as generation 1\n", "")
    done = shop("retire", "sid", OLD[1], OLD[2])
    assert done.out == "retired     1 items as generation 2; 1 were retired before\n"
    done = shop("retire", "sid", OLD[1], OLD[2])
    assert done.out == "retired     nothing; 2 were retired before\n"
    assert json.loads(shop("retire", "sid", OLD[3], "--json").out) == {"generation": 3, "retired": 1, "already": 0}


def test_retire_reads_standard_input(shop):
    done = shop("retire", "sid", "-", stdin=f"{OLD[0]}\r\n\n{OLD[1]}\n{OLD[0]}".encode())
    assert done.out == "retired     2 items as generation 1\n"


def test_an_unknown_item_is_named_with_near_ones_and_nothing_is_retired(shop, tmp_path):
    before = contents(tmp_path / "sid")
    done = shop("retire", "sid", OLD[0], "i000")
    assert (done.code, done.out) == (1, "")
    assert re.match(r"semid: item id 'i000' is not among the 40 items\. Did you mean 'i0", done.err)
    assert contents(tmp_path / "sid") == before


def test_a_folder_that_is_missing_is_named(shop, tmp_path):
    for command in (["retire", "nowhere", "x"], ["history", "nowhere"], ["diff", "sid", "nowhere"]):
        done = shop(*command)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("semid: nowhere: no such folder.")
    assert not (tmp_path / "nowhere").exists()


# ---- history


def test_history_lists_the_generations(shop):
    add(shop, "--date", "2026-11-21")
    shop("retire", "sid", OLD[0])
    done = shop("history", "sid")
    assert done.out.splitlines() == [
        "   0  40 added; 40 live",
        "   1  5 added; 45 live  2026-11-21",
        "   2  1 retired; 44 live",
    ]
    told = json.loads(shop("history", "sid", "--json").out)
    assert [one["generation"] for one in told] == [0, 1, 2]
    assert [one["date"] for one in told] == [None, "2026-11-21", None]


def test_history_of_an_artifact_just_learned_is_its_fit(shop):
    assert shop("history", "sid").out == "   0  40 added; 40 live\n"


# ---- diff


def test_diff_tells_what_came_and_went(shop, tmp_path):
    shutil.copytree("sid", "before")
    add(shop)
    shop("retire", "sid", *OLD[:2])
    done = shop("diff", "before", "sid")
    assert done.out.splitlines() == [
        "items    40 -> 43: 2 gone, 5 new",
        "IDs      0 of the 38 items in both have another ID",
        "kept     the first 1, 2, 3 codes: 100.0%, 100.0%, 100.0%",
    ]
    told = json.loads(shop("diff", "sid", "before", "--json").out)
    assert (told["gone"], told["new"], told["n_both"], told["renamed"]) == (NEW, OLD[:2], 38, [])
    listed = shop("diff", "before", "sid", "--items")
    assert listed.out.splitlines() == [f"gone\t{item}\t\t" for item in OLD[:2]] + [f"new\t{item}\t\t" for item in NEW]
    assert listed.err.startswith("items    40 -> 43")


def test_diff_of_an_artifact_and_its_copy_says_so(shop):
    shutil.copytree("sid", "copy")
    assert shop("diff", "sid", "copy").out == "the same artifact\n"


def test_diff_of_other_codes_counts_them(shop):
    learned(OLD[:30], levels=2, codebook_size=8).save_pretrained("other")
    told = json.loads(shop("diff", "sid", "other", "--json").out)
    before, after = (SemanticIDTokenizer.from_pretrained(name) for name in ("sid", "other"))
    kept = (before.codes[:30, :2] == after.codes).cumprod(axis=1).sum(axis=0)
    assert told["kept_codes"] == kept.tolist()
    assert len(told["renamed"]) == 30
    assert told["renamed"][0] == [OLD[0], before.tokens(OLD[0]), after.tokens(OLD[0])]


# ---- two at once


@pytest.mark.parametrize("command", [["retire", "sid", OLD[0]], ["add", "sid", "new.jsonl", "--embeddings", "new.npy"]])
def test_a_second_writer_is_told_who_holds_the_folder(shop, tmp_path, command):
    with atomic.drafting(tmp_path / "sid"):
        done = shop(*command)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"semid: sid: process {os.getpid()} is writing here. Wait for it to finish, then try again.\n"
    assert shop(*command).code == 0


def test_the_lock_of_another_process_is_seen_and_free_when_that_dies(shop, tmp_path):
    script = """
        import sys
        from semid.artifact import atomic
        with atomic.drafting("sid"):
            print("held", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as holder:
        holder.stdout.readline()
        done = shop("retire", "sid", OLD[0])
        assert done.code == 1
        assert f"process {holder.pid} is writing here" in done.err
        holder.kill()
    assert (tmp_path / "sid" / ".semid.lock").read_text() == str(holder.pid)
    assert shop("retire", "sid", OLD[0]).code == 0
    assert not (tmp_path / "sid" / ".semid.lock").exists()


def test_the_lock_file_of_a_dead_process_is_no_obstacle(shop, tmp_path):
    (tmp_path / "sid" / ".semid.lock").write_text("999999999")
    (tmp_path / "sid" / ".semid-tmp-999999999-ab").write_text("half a file")
    assert add(shop).code == 0
    assert not [name for name in contents(tmp_path / "sid") if name.startswith(".")]
    assert faults(tmp_path / "sid") == []


def test_a_folder_that_may_not_be_written_is_named(shop, tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and "sid" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    done = shop("retire", "sid", OLD[0])
    assert done.code == 1
    assert done.err == (
        "semid: sid: cannot be written: Permission denied. Choose another folder, or change its permissions.\n"
    )
