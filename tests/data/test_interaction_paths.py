"""Items, users and times inside objects are named by a path, and messages show the path that works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semid import read_interactions
from semid.errors import InputError

EVENTS = [{"aid": 5, "ts": 10}, {"aid": 6, "ts": 11}]


def put(folder: Path, name: str, *records: object) -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_a_history_is_read_out_of_a_list_of_objects(tmp_path):
    log = put(tmp_path, "log.jsonl", {"session": 1, "events": EVENTS}, {"session": 2, "events": EVENTS[:1]})
    read = read_interactions(log, item_field="events.aid", time_field="events.ts")
    assert dict(read) == {"1": ["5", "6"], "2": ["5"]}
    assert read.times.tolist() == [10, 11, 10]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"session": 1, "events": EVENTS}, "Name it with --item-field, e.g. events.aid."),
        ({"session": 1, "items": EVENTS}, "Name its field with --item-field items.aid."),
        ({"user": 1, "items": [{"n": 1, "item_id": 5}, {"n": 2, "item_id": 6}]}, "--item-field items.item_id."),
    ],
)
def test_the_message_names_a_path_that_works(tmp_path, record, said):
    log = put(tmp_path, "log.jsonl", record)
    with pytest.raises(InputError) as caught:
        read_interactions(log)
    assert str(caught.value).endswith(said)
    path = said.removesuffix(".").split()[-1]
    assert list(read_interactions(log, item_field=path)) == [("1", ["5", "6"])]


def test_users_and_times_may_be_inside_objects(tmp_path):
    rows = [{"user": {"$oid": "u"}, "item": item, "time": {"$date": f"2020-01-0{day}"}} for item, day in ("a2", "b1")]
    log = put(tmp_path, "log.jsonl", *rows)
    assert list(read_interactions(log, user_field="user.$oid", time_field="time.$date")) == [("u", ["b", "a"])]


def test_a_path_leads_into_columns_of_parquet_too(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"session": [1], "events": [EVENTS]}), tmp_path / "log.parquet")
    read = read_interactions(tmp_path / "log.parquet", item_field="events.aid", time_field="events.ts")
    assert (list(read), read.times.tolist()) == ([("1", ["5", "6"])], [10, 11])


def test_words_in_a_cell_of_items_are_a_history_if_they_are_codes(tmp_path):
    log = tmp_path / "pairs.tsv"
    log.write_text("1\t12 3 4\n2\t9 8\n3\t7\n")
    read = read_interactions(log, columns="user,items")
    assert dict(read) == {"1": ["12", "3", "4"], "2": ["9", "8"], "3": ["7"]}
    log.write_text("user\titems\n1\tRed Lamp\n")
    with pytest.raises(InputError, match="items is not a list. .* rename the column to item"):
        read_interactions(log)
