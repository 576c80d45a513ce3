"""write_split and semid split: every layout holds the same rows, and semid's own readers read them back."""

from __future__ import annotations

import ast
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid import read_interactions, write_alignment
from semid.data.splits import own_split, split_ends
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.tokenizer_exports.formats import write_split
from tests.helpers.aligned import catalog, histories, records

PARTS = ("train", "valid", "test")
LOGS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=5).filter(
    lambda lists: any(len(one) >= 3 for one in lists)
)


def log_of(lists):
    return read_interactions([{"user": f"u{n}", "items": [f"i{item}" for item in one]} for n, one in enumerate(lists)])


def expected_rows(log, ends, max_history):
    """Part -> (user, history, item) of every place but the first, walked through one by one."""
    rows = {part: [] for part in PARTS}
    for (user, items), (train_end, valid_end) in zip(log, ends.tolist(), strict=True):
        for place in range(1, len(items)):
            part = "train" if place < train_end else "valid" if place < valid_end else "test"
            rows[part].append((user, items[:place][-max_history:], items[place]))
    return rows


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def minionerec_rows(folder: Path, part: str, name: str = "data") -> list[tuple]:
    with (folder / "minionerec" / part / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["user_id"], ast.literal_eval(row["item_asins"]), row["item_asin"]) for row in csv.DictReader(file)]


def recbole_rows(folder: Path, part: str, name: str = "data") -> list[tuple]:
    table = (folder / "recbole" / name / f"{name}.{part}.inter").read_text("utf-8").splitlines()
    assert table[0] == "user_id:token\titem_id_list:token_seq\titem_id:token"
    cells = [line.split("\t") for line in table[1:]]
    return [(user, history.split(" "), item) for user, history, item in cells]


@settings(max_examples=30)
@given(LOGS, st.integers(1, 4))
def test_all_layouts_hold_the_same_rows(lists, max_history):
    log = log_of(lists)
    ends = split_ends(log)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "out"
        done = write_split(log, folder, max_history=max_history)
        rows = expected_rows(log, ends, max_history)
        assert done.counts == {part: len(rows[part]) for part in PARTS}
        assert {part: minionerec_rows(folder, part) for part in PARTS} == rows
        assert {part: recbole_rows(folder, part) for part in PARTS} == rows
        whole = expected_rows(log, ends, 99)
        for part in ("valid", "test"):
            found = [(one["user"], one["history"], one["item"]) for one in lines(folder / f"{part}.jsonl")]
            assert found == whole[part]
        # LC-Rec holds out the last two items of every user itself.
        kept = json.loads((folder / "data.inter.json").read_text())
        assert [(user, items[:-1], items[-1]) for user, items in kept.items()] == whole["test"]
        assert [(user, items[:-2], items[-2]) for user, items in kept.items()] == whole["valid"]


@settings(max_examples=30)
@given(LOGS)
def test_semid_reads_the_parts_back(lists):
    log = log_of(lists)
    ends = split_ends(log)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "out"
        write_split(log, folder)
        again = read_interactions(folder / "histories.jsonl")
        assert list(again) == list(log) and np.array_equal(own_split(again), ends)
        training = {user: items[:end] for (user, items), end in zip(log, ends[:, 0].tolist(), strict=True)}
        assert dict(read_interactions(folder / "train.jsonl")) == training
        assert dict(read_interactions(folder / "data.inter.json")) == {u: items for u, items in log if len(items) >= 3}
        longer = {user: items for user, items in training.items() if len(items) > 1}
        if longer:  # MiniOneRec and RecBole have no row of a user with one item
            assert dict(read_interactions(folder / "minionerec" / "train" / "data.csv")) == longer
            assert dict(read_interactions(folder / "recbole" / "data" / "data.train.inter")) == longer


def test_a_split_by_time_keeps_times_and_leaves_lc_rec_out(tmp_path):
    rows = [("u0", "a", 1), ("u0", "b", 2), ("u0", "c", 9), ("u1", "a", 3), ("u1", "b", 8), ("u1", "c", 10)]
    log = read_interactions([{"user": user, "item": item, "time": time} for user, item, time in rows])
    done = write_split(log, tmp_path / "out", split="time", cuts=(0.5, 0.8))
    assert done.counts == {"train": 1, "valid": 1, "test": 2}
    assert done.layouts == ("jsonl", "minionerec", "recbole")
    assert done.notes == ("lcrec is left out: LC-Rec always holds out the last two items of each user.",)
    again = read_interactions(tmp_path / "out" / "histories.jsonl")
    assert again.times.tolist() == [1, 2, 9, 3, 8, 10]
    assert own_split(again).tolist() == split_ends(log, "time", (0.5, 0.8)).tolist() == [[2, 2], [1, 2]]
    with (tmp_path / "out" / "minionerec" / "test" / "data.csv").open() as file:
        assert [(row["history_timestamp"], row["timestamp"]) for row in csv.DictReader(file)] == [
            ("[1, 2]", "9"), ("[3, 8]", "10"),
        ]  # fmt: skip


def test_align_asks_for_the_same_test_items(tmp_path):
    lists = [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9, 10]]
    write_split(histories(*lists), tmp_path / "out")
    write_alignment(catalog(), histories(*lists), tmp_path / "data", tasks="next-item")
    for part, name in (("test", "test"), ("valid", "validation")):
        asked = {(one["user"], one["item_id"]) for one in records(tmp_path / "data", name)}
        assert asked == {(one["user"], one["item"]) for one in lines(tmp_path / "out" / f"{part}.jsonl")}


def test_minionerec_gets_numbers_titles_and_ids(tmp_path):
    from semid.tokenizer_exports import export

    ids = catalog()
    write_split(
        histories([0, 1, 2]), tmp_path / "out", layouts=["minionerec"], titles={"i0": 'a "b", c'}, ids=ids, name="toy"
    )
    with (tmp_path / "out" / "minionerec" / "test" / "toy.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    export(ids, tmp_path / "toy.index.json", to="lcrec")
    index = {item: "".join(tokens) for item, tokens in json.loads((tmp_path / "toy.index.json").read_text()).items()}
    assert ast.literal_eval(row["history_item_sid"]) == [index["i0"], index["i1"]] and row["item_sid"] == index["i2"]
    assert ast.literal_eval(row["history_item_title"]) == ['a "b", c', ""]
    assert (row["history_item_id"], row["item_id"]) == ("['i0', 'i1']", "i2")
    write_split([{"user": "7", "items": ["10", "0", "3"]}], tmp_path / "numbers", layouts=["minionerec"])
    with (tmp_path / "numbers" / "minionerec" / "test" / "data.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["history_item_id"], row["item_asins"]) == ("[10, 0]", "['10', '0']")


def test_users_with_two_items_are_told(tmp_path):
    done = write_split(histories([0, 1, 2], [3, 4]), tmp_path / "out")
    assert done.notes == ("lcrec is without 1 user of fewer than three items: nothing of theirs is held out.",)


def test_what_cannot_be_written_is_refused_and_nothing_appears(tmp_path):
    log, blank = histories([0, 1, 2]), [{"user": "u", "items": ["a b", "c", "d"]}]
    refused = [
        (log, {"layouts": ["csv"]}, ConfigError, "to='csv' should be one of jsonl, lcrec"),
        (log, {"layouts": ["lcrec"], "split": "time"}, InputError, "time"),
        (log, {"split": "half"}, ConfigError, "split='half' should be one of"),
        (log, {"name": "../x"}, ConfigError, "name='../x' should be letters"),
        (log, {"max_history": 0}, ConfigError, "max_history=0 should be 1 or more"),
        (histories([0, 1]), {}, InputError, "no user has a test interaction under --split leave-one-out"),
        (
            blank,
            {"layouts": ["recbole"]},
            ConfigError,
            "to='recbole': its lists are separated by blanks, and 'a b' has",
        ),
        (
            [{"user": "u", "items": ["i0", "x", "i1"]}],
            {"ids": catalog()},
            InputError,
            "1 item without a live ID .* 'x'",
        ),
    ]
    for source, choices, error, words in refused:
        with pytest.raises(error, match=words):
            write_split(source, tmp_path / "out", **choices)
    assert not list(tmp_path.iterdir())
    done = write_split(blank, tmp_path / "out")
    assert done.layouts == ("jsonl", "lcrec", "minionerec")
    assert done.notes == ("recbole is left out: its lists are separated by blanks, and 'a b' has one.",)
    with pytest.raises(OutputExistsError, match="exists and is not empty"):
        write_split(log, tmp_path / "out")


def test_the_command_splits_a_log(semid):
    Path("log.csv").write_text("who,what,time\n" + "".join(f"u{n % 3},i{n % 5},{n}\n" for n in range(12)))
    Path("items.jsonl").write_text(
        "".join(json.dumps({"id": f"i{n}", "title": f"Lamp {n} red"}) + "\n" for n in range(5))
    )
    fields = ("--user-field", "who", "--item-field", "what")
    done = semid("split", "log.csv", "-o", "parts", *fields, "--items", "items.jsonl", "--name", "shop")
    assert done.code == 0, done.err
    assert done.out == "3 train, 3 valid, 3 test rows as jsonl, lcrec, minionerec, recbole\n"
    assert "saved       parts" in done.err
    files = sorted(str(path.relative_to("parts")) for path in Path("parts").rglob("*") if path.is_file())
    assert files == [
        "histories.jsonl", "minionerec/test/shop.csv", "minionerec/train/shop.csv", "minionerec/valid/shop.csv",
        "recbole/shop/shop.test.inter", "recbole/shop/shop.train.inter", "recbole/shop/shop.valid.inter",
        "shop.inter.json", "test.jsonl", "train.jsonl", "valid.jsonl",
    ]  # fmt: skip
    assert "Lamp 3 red" in Path("parts/minionerec/test/shop.csv").read_text()
    again = semid("split", "log.csv", "-o", "parts", *fields)
    assert again.code == 1 and "parts: exists and is not empty" in again.err
    timed = semid("split", "log.csv", "-o", "timed", *fields, "--split", "time", "--to", "jsonl,lcrec", "--json")
    assert timed.code == 1 and "to='lcrec': LC-Rec always holds out the last two items of each user" in timed.err
    assert not Path("timed").exists()
    timed = semid("split", "log.csv", "-o", "timed", *fields, "--split", "time", "--cuts", "0.5,0.75", "--json")
    assert json.loads(timed.out)["counts"] == {"train": 3, "valid": 3, "test": 3}
