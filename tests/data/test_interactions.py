"""Reading interactions: histories and logs end in one table; every mistake is named by file and line."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data import Interactions, PackedStrings, read_interactions
from semid.errors import InputError

HISTORIES = [{"user": "u2", "items": ["b", "a", "b"], "ratings": [5, 3, 4]}, {"user": 1, "items": [7]}]


def histories(interactions: Interactions) -> dict[str, list[str]]:
    return {user: interactions.history(i) for i, user in enumerate(interactions.users)}


def write_lines(path, *lines):
    path.write_text("\n".join(lines))
    return path


def refusal(source, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_interactions(source, **options)
    return str(caught.value)


def test_histories_read_from_jsonl_gzip_and_dicts(tmp_path):
    text = "\n".join(map(json.dumps, HISTORIES))
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for source in (tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz", HISTORIES, iter(HISTORIES)):
        read = read_interactions(source)
        assert histories(read) == {"1": ["7"], "u2": ["b", "a", "b"]}
        assert (read.users, read.item_ids) == (["1", "u2"], ["7", "a", "b"])
        assert (read.offsets.dtype, read.items.dtype) == (np.int64, np.int32)
        assert read.offsets.tolist() == [0, 1, 4]


HEADERS = ["user,item,time", "user_id,item_id,timestamp", "uid,iid,ts", "userId,asin,TIME", "User_ID,sku,ts"]


@pytest.mark.parametrize("header", HEADERS)
def test_logs_are_ordered_by_time_under_any_usual_header(tmp_path, header):
    path = write_lines(tmp_path / "log.csv", header, "u,b,20", "v,a,5", "u,a,3", "u,c,20", "u,d,-1.5")
    assert histories(read_interactions(path)) == {"u": ["d", "a", "b", "c"], "v": ["a"]}
    path = write_lines(tmp_path / "log.tsv", *(path.read_text().replace(",", "\t").split("\n")))
    assert histories(read_interactions(path)) == {"u": ["d", "a", "b", "c"], "v": ["a"]}


def test_an_id_beside_a_better_name_is_the_row_number():
    assert read_interactions([{"id": 1, "user": "u", "asin": "a"}]).item_ids == ["a"]


def test_fields_can_be_named():
    rows = [{"who": "u", "what": item, "when": time, "user": "x"} for item, time in [("b", 2), ("a", 1)]]
    read = read_interactions(rows, user_field="who", item_field="what", time_field="when")
    assert histories(read) == {"u": ["a", "b"]}
    assert "Name it with --user-field." in refusal(rows, user_field="whom")
    misspelt = refusal(rows, item_field="what", time_field="whn")
    assert misspelt.startswith('items: 2 rows: missing field "whn" (have: who, what, when, user), named as')


def test_dates_order_like_the_moments_they_name():
    moments = ["2024-03-01", "2024-03-01T00:00:01Z", "2024-03-01T03:30:00+03:00", "2024-03-01 02:00:00.5"]
    rows = [{"user": "u", "item": i, "time": moment} for i, moment in enumerate(moments)]
    random.Random(1).shuffle(rows)
    assert histories(read_interactions(rows)) == {"u": ["0", "1", "2", "3"]}
    rows = [{"user": "u", "item": i, "time": datetime.date(2024, 1, 9 - i)} for i in range(4)]
    assert histories(read_interactions(rows)) == {"u": ["3", "2", "1", "0"]}


def test_times_beyond_float_precision_and_int64_still_order():
    close = 2**60
    rows = [{"user": "u", "item": i, "time": close - i} for i in range(5)]
    assert histories(read_interactions(rows)) == {"u": ["4", "3", "2", "1", "0"]}
    rows = [{"user": "u", "item": i, "time": time} for i, time in enumerate([10**30, 1, 0.5, -(10**25)])]
    assert histories(read_interactions(rows)) == {"u": ["3", "2", "1", "0"]}


def test_without_time_the_order_of_the_source_stands():
    rows = [{"user": user, "item": item} for user, item in ["va", "ub", "ua", "vc", "ub"]]
    assert histories(read_interactions(rows)) == {"u": ["b", "a", "b"], "v": ["a", "c"]}


def test_parquet_logs_read_with_timestamps_and_integer_lists(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for kind in (pa.timestamp("ns"), pa.timestamp("ms", "Europe/Paris"), pa.int64()):
        times = pa.array([3 * 10**9, 10**9, 2 * 10**9], pa.int64()).cast(kind)
        log = pa.table({"user": ["u"] * 3, "item": [3, 1, 2], "time": times})
        pq.write_table(log, tmp_path / "a.parquet")
        assert histories(read_interactions(tmp_path / "a.parquet")) == {"u": ["1", "2", "3"]}
    table = pa.table({"user_id": [1, 2], "items": [[5, 4], [5]]})
    assert histories(read_interactions(table)) == {"1": ["5", "4"], "2": ["5"]}


def test_standard_input_is_read(monkeypatch):
    data = b'{"user": 1, "items": ["a"]}\n{"user": 2}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert refusal("-").startswith("<stdin>:2: no item field, such as items, item, ")


def test_a_time_of_a_wrong_type_is_named_by_its_type():
    huge = {"user": 1, "item": 2, "time": 10**5000}
    assert refusal([huge]).startswith("items[0]: time of type int is no time; ")


def test_interactions_pass_through():
    read = read_interactions(HISTORIES)
    assert read_interactions(read) is read


def test_map_to_gives_catalog_rows_and_counts_the_unknown():
    read = read_interactions([{"user": "u", "items": ["c", "x", "a"]}, {"user": "v", "items": []}])
    for catalog in (["a", "b", "c"], PackedStrings.pack(["a", "b", "c"])):
        mapped = read.map_to(catalog)
        assert mapped.rows.tolist() == [2, -1, 0]
        assert (mapped.rows.dtype, mapped.offsets.tolist(), mapped.n_unknown) == (np.int64, [0, 3, 3], 1)
    nothing = read_interactions([{"user": "v", "items": []}]).map_to(["a"])
    assert (nothing.rows.tolist(), nothing.n_unknown) == ([], 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdé\U0001f600"), st.integers(-3, 3)), min_size=1))
def test_logs_equal_a_plain_sort_per_user(rows):
    read = read_interactions({"user": u, "item": i, "time": t} for u, i, t in rows)
    plain = {
        user: [i for u, i, _ in sorted(rows, key=lambda row: row[2]) if u == user]
        for user in sorted({u for u, _, _ in rows})
    }
    assert histories(read) == plain
    assert read.item_ids == sorted({i for _, i, _ in rows}, key=str.encode)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(min_size=1)), min_size=1), st.randoms())
def test_the_order_of_histories_changes_nothing(users, shuffler):
    records = [{"user": user, "items": items} for user, items in users.items()]
    first = read_interactions(records)
    shuffler.shuffle(records)
    other = read_interactions(records)
    assert (first.users, first.item_ids) == (other.users, other.item_ids)
    assert histories(first) == histories(other) == users
    assert first.items.tolist() == other.items.tolist()


SINGLE, TIMED = '{"user": 1, "item": 2}', '{"user": 1, "item": 2, "ts": 1}'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], ": no interactions. "),
        (['{"items": ["a"]}'], ":1: no user field, such as user, userid, uid (have: items)."),
        (['{"user": 1}'], ":1: no item field, such as items, "),
        (['{"user": null, "items": []}'], ":1: user is null; expected a string or an integer."),
        (['{"user": 1, "items": ["a", null]}'], ":1: items[1] is null; "),
        (['{"user": 1, "items": [1.5]}'], ":1: items[0] is 1.5; "),
        (['{"user": 1, "items": "a b"}'], ":1: items is not a list. Write item ids, oldest first, as [7, 8]"),
        (['{"user": 1, "items": []}', '{"user": "1", "items": []}'], ':2: user "1" again (first at line 1).'),
        (['{"user": 1, "item": ""}'], ":1: item is empty; "),
        (['{"user": 1, "item": 2, "time": null}'], ":1: time null is no time; expected a number"),
        (['{"user": 1, "item": 2, "time": "soon"}'], ':1: time "soon" is no time; '),
        (['{"user": 1, "item": 2, "time": NaN}'], ":1: time NaN is no time; "),
        (['{"user": 1, "item": 2, "time": true}'], ":1: time true is no time; "),
        ([SINGLE, '{"user": 2, "items": [3]}'], ":2: a whole history here, a single interaction at line 1."),
        ([TIMED, SINGLE], ":2: no time here, a number as time at line 1. Write"),
        ([SINGLE, TIMED], ":2: a number as time here, no time at line 1."),
        ([TIMED, '{"user": 1, "item": 2, "ts": "2014-07-23"}'], ":2: a date as time here, a number as"),
        (['{"user": 1, "item": 2', "x"], ":1: broken JSON"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, lines, message):
    path = write_lines(tmp_path / "log.jsonl", *lines)
    assert refusal(path).startswith(f"{path}{message}")


# ---- times and held-out counts


def test_times_come_in_the_order_of_the_interactions():
    log = read_interactions(
        [{"user": "v", "item": "x", "ts": 1}, *({"user": "u", "item": i, "ts": 9 - i} for i in range(3))]
    )
    assert log.times.dtype == np.float64 and log.times.tolist() == [7, 8, 9, 1]
    lists = [{"user": "u", "items": ["a", "b"], "timestamps": ["1970-01-01", "1970-01-02"]}, {"user": "a", "items": []}]
    assert read_interactions(lists[:1]).times.tolist() == [0, 86_400 * 10**6]
    named = read_interactions([{"user": "u", "items": [1, 2], "when": [0.5, 2]}], time_field="when")
    assert named.times.tolist() == [0.5, 2]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (HISTORIES, r"^items: 2 rows: no time, which a split by time needs.* At items\[0\], items\[1\]\.$"),
        ([{"user": 1, "items": [1, 2], "times": [1]}], r"^items\[0\]: no time"),
        ([{"user": 1, "items": [1, 2], "times": [1, "soon"]}], r"^items\[0\]: no time"),
        ([{"user": 1, "items": [1, 2], "times": [2, 1]}], r"^items\[0\]: the times of the history fall"),
        ([{"user": 1, "items": [1], "ts": [2]}, {"user": 2, "items": [1], "ts": ["2020-01-01"]}], r"^items\[1\]: num"),
        ([{"user": 1, "item": 1}] * 12, r"^items: 12 rows: no time.* At items\[0\], .*, items\[9\], \.\.\.$"),
    ],
)  # fmt: skip
def test_missing_times_are_an_error_only_where_they_are_needed(records, message):
    log = read_interactions(records)
    assert log.times is None and len(log.items)
    with pytest.raises(InputError, match=message):
        log.require_times()


def test_held_out_counts_come_in_the_order_of_the_users():
    records = [{"user": u, "items": ["a", "b", "c"], "n_valid": n, "n_test": 1} for n, u in enumerate("wv")]
    log = read_interactions(records)
    assert log.held_out.tolist() == [[1, 1], [0, 1]] and log.require_held_out() is log.held_out
    rows = [{"user": "u", "item": item, "time": 1, "n_valid": 0, "n_test": 2} for item in "abc"]
    assert read_interactions(rows).held_out.tolist() == [[0, 2]]
    with pytest.raises(InputError, match=r"^items\[1\]: n_valid=0, n_test=1: an earlier record of the user has other"):
        read_interactions([rows[0], rows[1] | {"n_test": 1}]).require_held_out()


def test_a_part_keeps_users_items_and_times():
    log = read_interactions(
        [{"user": u, "items": ["a", "b", "c"], "times": [1, 2, 3], "n_valid": 0, "n_test": 1} for u in "uv"]
    )
    part = log.where(np.array([True, False, True, False, False, False]))
    assert list(part) == [("u", ["a", "c"]), ("v", [])] and part.times.tolist() == [1, 3]
    assert (part.users, part.item_ids, part.source) == (log.users, log.item_ids, log.source)
    with pytest.raises(InputError, match="items: no n_valid and n_test"):
        part.require_held_out()


def test_interactions_and_histories_tell_what_they_hold():
    log = read_interactions(HISTORIES)
    assert repr(log) == "Interactions(2 users, 3 items, 4 events)" and len(log) == 2
    assert list(log) == [("1", ["7"]), ("u2", ["b", "a", "b"])]
    assert repr(log.map_to(["a", "b"])) == "Histories(2 users, 4 events, 1 unknown)" and len(log.map_to([])) == 2
