"""Fields of interactions: the right column under its usual names, a refusal where several could be meant; no guess."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from semid.data import read_interactions
from semid.data.interaction_fields import find_fields
from semid.errors import InputError
from semid.files.field_names import may_be_a_field

UNNAMED = (None, None, None)


def histories(source, **options) -> dict[str, list[str]]:
    return dict(read_interactions(source, **options))


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "semid")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


TIME_NAMES = (
    "date datetime created_at event_time event_timestamp unixReviewTime unix_review_time timestamp_ms rating_timestamp "
    "review_time interaction_time visit_time time_ms ts_ms purchase_date order_date t_dat Timestamp TS clicked_at "
    "listened-time Booking-Date eventTime timestamp:float"
)
TIMES = [
    ["2020-01-03", "2020-01-02", "2020-01-01"],
    ["2020-01-01 10:00:02", "2020-01-01 10:00:01", "2020-01-01 09:59:59.5"],
    ["2020-01-01T10:00:00Z", "2020-01-01T11:30:00+02:00", "2020-01-01T09:00:00Z"],
    ["2020-01-01 00:00:02 UTC", "2020-01-01 00:00:01 UTC", "2019-12-31 00:00:00 UTC"],
    ["1260759146", "1260759145", "999999999"],
    ["1260759144002", "1260759144001", "1260759143999"],
    ["1e9", "99.5", "-3"],
    ["2020/02/01", "2020/01/31", "2019/12/31"],
    ["01 2, 2014", "12 31, 2013", "09 3, 2013"],
    ["Wed Apr 04 18:00:09 +0000 2012", "Tue Apr 03 18:00:10 +0000 2012", "Tue Apr 03 19:00:09 +0100 2012"],
]


@pytest.mark.parametrize("name", TIME_NAMES.split())
def test_the_time_is_found_under_its_usual_names(tmp_path, name):
    rows = [f"u1,{item},{time}" for item, time in zip(["third", "second", "first"], TIMES[0], strict=True)]
    path = write(tmp_path / "log.csv", f"user_id,item_id,{name}", *rows)
    assert histories(path) == {"u1": ["first", "second", "third"]}


@pytest.mark.parametrize("times", TIMES)
def test_times_of_any_kind_put_the_newest_last(times):
    rows = [{"user_id": "u", "item_id": i, "date": time} for i, time in enumerate(times)]
    assert histories(rows) == {"u": ["2", "1", "0"]}


@pytest.mark.parametrize(
    "name",
    ["release_date", "birth_date", "year", "watch_time", "published_at", "signupDate", "last_updated_at", "format"],
)
def test_a_field_that_means_something_else_is_no_time(said, name):
    rows = [{"user_id": "u", "item_id": item, name: 9 - n} for n, item in enumerate("ab")]
    assert histories(rows) == {"u": ["a", "b"]}
    told = f"no time column (columns: user_id, item_id, {name}); using the order of the lines."
    assert ("WARNING", f"items: {told} Name it with --time-field.") in said()


def test_the_finest_of_several_times_is_taken_and_said(said):
    rows = [{"reviewerID": "u", "asin": n, "reviewTime": "09 13, 2009", "unixReviewTime": 9 - n} for n in range(2)]
    assert histories(rows) == {"u": ["1", "0"]}
    assert said() == [
        (
            "WARNING",
            "items: user from reviewerID, item from asin, time from unixReviewTime; "
            "change with --user-field, --item-field, --time-field",
        )
    ]


def test_times_under_unknown_names_of_a_kind_are_refused():
    rows = [{"user": "u", "item": 1, "clicked_at": 3, "bought_at": 4}] * 3
    with pytest.raises(InputError) as caught:
        read_interactions(rows)
    assert str(caught.value) == ("items[0]: the time could be in clicked_at, bought_at. Name it with --time-field.")
    assert read_interactions(rows, time_field="bought_at").times.tolist() == [4, 4, 4]
    assert read_interactions(rows, time_field="").times is None


def test_the_order_of_the_lines_can_be_asked_for(said):
    rows = [{"user": "u", "item": item, "time": 9 - n} for n, item in enumerate("ab")]
    assert histories(rows, time_field="") == {"u": ["a", "b"]}
    assert said() == []


def test_a_time_that_is_none_names_the_option():
    with pytest.raises(InputError, match=r'date "soon" is no time; .* Name another field with --time-field\.'):
        read_interactions([{"user": 1, "item": 2, "date": "soon"}])


# ---- what is said


@pytest.mark.parametrize(
    ("record", "levels"),
    [
        ({"user": "u", "items": ["a"]}, []),
        ({"User": "u", "ITEM": "a", "timestamp": 1}, []),
        ({"user_id": "u", "item_id": "a", "ts": 1}, ["INFO"]),
        ({"userId": "u", "movieId": "a", "timestamp": 1}, ["WARNING"]),
        ({"user": "u", "item": "a"}, ["WARNING"]),
        ({"user_id": "u", "item_id": "a"}, ["INFO", "WARNING"]),
    ],
)
def test_what_was_chosen_is_said_in_one_line(said, record, levels):
    read_interactions([record, record] if "items" not in record else [record])
    assert [level for level, _ in said()] == levels


def test_named_fields_need_no_word(said):
    read_interactions([{"who": 1, "what": 2, "when": 3}], user_field="who", item_field="what", time_field="when")
    assert said() == []


# ---- the item


@pytest.mark.parametrize("item", ["product_id", "item_id", "thing_id", "thingId", "productid", "sku", "product"])
def test_a_row_number_is_not_the_item(tmp_path, item):
    path = write(tmp_path / "log.csv", f"id,user_id,{item}", "1,u1,p10", "2,u1,p11", "3,u2,p10")
    assert histories(path) == {"u1": ["p10", "p11"], "u2": ["p10"]}


def test_an_id_alone_is_the_item(said):
    assert histories([{"user": "u", "id": 7, "time": 1}]) == {"u": ["7"]}
    assert [level for level, _ in said()] == ["WARNING"]


@pytest.mark.parametrize(
    ("columns", "among"),
    [
        ("id,user_id,review_id", "id, review_id"),
        ("user_id,foo_id,bar_id", "foo_id, bar_id"),
        ("sku,user_id,product_id", "sku, product_id"),
    ],
)
def test_two_columns_that_could_be_the_item_are_refused_once(tmp_path, columns, among):
    path = write(tmp_path / "log.csv", columns, *["1,2,3"] * 20)
    with pytest.raises(InputError) as caught:
        read_interactions(path)
    told = f"the item could be in {among} (have: {columns.replace(',', ', ')}). Name it with --item-field."
    assert str(caught.value) == f"{path}:2: {told}"
    assert len(read_interactions(path, item_field=columns.split(",")[-1]).items) == 20


@pytest.mark.parametrize(
    ("columns", "user", "item"),
    [
        ("userId movieId rating timestamp", "userId", "movieId"),
        ("timestamp visitorid event itemid transactionid", "visitorid", "itemid"),
        ("review_id user_id business_id stars", "user_id", "business_id"),
        ("user_id parent_asin asin timestamp", "user_id", "parent_asin"),
        ("event_time event_type product_id category_id user_id user_session", "user_id", "product_id"),
        ("t_dat customer_id article_id price", "customer_id", "article_id"),
        ("user_id item item_id", "user_id", "item_id"),
        ("user_id:token item_id:token timestamp:float", "user_id:token", "item_id:token"),
        ("session_id item_id", "session_id", "item_id"),
        ("user_id category_id", "user_id", None),
        ("customer_id visitor_id item", None, "item"),
    ],
)
def test_the_columns_of_known_files(columns, user, item):
    names = tuple(columns.split())
    found = find_fields(names, UNNAMED)
    assert (found.user.name, found.item.name) == (user, item)
    assert find_fields(names[::-1], UNNAMED).item.name == item  # the order of columns changes nothing
    assert all(may_be_a_field(name) for name in (user, item) if name)


# ---- histories before the item


def test_the_history_before_an_item_is_read(tmp_path, said):
    path = write(
        tmp_path / "log.csv",
        "user_id,history_item_id,item_id",
        *('u1,"[7]",8', 'u1,"[7, 8, 9]",10', "u1,\"['7', '8']\",9", 'u2,"[]",7', 'u2,"[""7""]",3'),
    )
    assert histories(path) == {"u1": ["7", "8", "9", "10"], "u2": ["7", "3"]}
    assert said() == [
        (
            "WARNING",
            f"{path}: user from user_id, item from history_item_id and item_id; change with --user-field, --item-field",
        ),
        (
            "WARNING",
            f"{path}: read each user's longest history, its item at the end (users: 2, interactions: 6, rows: 5).",
        ),
    ]
    assert histories(path, item_field="item_id")["u2"] == ["7", "3"]
    assert len(read_interactions(path, item_field="item_id").items) == 5


def test_histories_of_the_last_items_only_are_joined():
    items = list("abcdefg")
    rows = [{"user": "u", "history": items[max(0, n - 3) : n], "item": items[n]} for n in range(1, 7)]
    assert histories(rows) == {"u": items}
    assert histories([rows[-1]]) == {"u": items[-4:]}
    typed = [f"u\t{' '.join(row['history'])}\t{row['item']}" for row in rows]
    with_header = ["user_id:token\titem_id_list:token_seq\titem_id:token", *typed]
    records = [dict(zip(with_header[0].split("\t"), line.split("\t"), strict=True)) for line in with_header[1:]]
    assert histories(records) == {"u": items}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([([1, 2], 3), ([1, 5], 6)], r"items\[1\]: history does not continue the other rows of user \"u\" \(first at"),
        ([([1], 2), ([1], 3)], r"items\[1\]: history does not continue"),
        ([("[1", 2)], r"items\[0\]: history is not a list"),
        ([("['1' '2']", 2)], r"items\[0\]: history is not a list"),
        ([("1,2", 2)], r"items\[0\]: history is not a list"),
        ([("{1: 2}", 2)], r"items\[0\]: history is not a list"),
        ([([1, None], 2)], r"items\[0\]: history\[1\] is null"),
        ([([1], None)], r"items\[0\]: item is null"),
    ],
)
def test_histories_that_do_not_fit_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        read_interactions([{"user": "u", "history": before, "item": item} for before, item in rows])


def test_a_history_alone_and_lists_in_cells_are_read(tmp_path):
    assert histories([{"user": "u", "history": [1, 2]}]) == {"u": ["1", "2"]}
    assert histories([{"user": "u", "item_ids": [1, 2]}]) == {"u": ["1", "2"]}
    assert histories(write(tmp_path / "a.csv", "user,items", 'u,"[1, 2]"', "v,\"['a']\"")) == {
        "u": ["1", "2"],
        "v": ["a"],
    }


def test_a_mixture_of_kinds_is_refused():
    rows = [{"user": "u", "history": [1], "item": 2}, {"user": "v", "item": 2}]
    with pytest.raises(InputError, match="a single interaction here, a history before the item at"):
        read_interactions(rows)


# ---- commands


@pytest.fixture
def shop(tmp_path):
    items = [{"id": f"i{n}", "title": f"{color} thing {n}"} for n, color in enumerate(["red", "blue", "green"] * 4)]
    write(tmp_path / "items.jsonl", *map(json.dumps, items))
    rows = [f"{u * 9 + k},u{u},i{(u + k) % 12},{100 - k}" for u in range(12) for k in range(5)]
    write(tmp_path / "log.csv", "n,who,what,when", *rows)


def test_commands_take_the_names_of_fields(semid, shop):
    names = ("--user-field", "who", "--item-field", "what", "--time-field", "when")
    small = ("--method", "rqkmeans", "--levels", "2", "--codebook-size", "4")
    signal = ("--interactions", "log.csv", "--collaborative-fusion", "1")
    refused = semid("fit", "items.jsonl", "-o", "sid", *small, "--interactions", "log.csv")
    assert refused.code == 1 and "Name it with --user-field." in refused.err
    for command in (
        ("fit", "items.jsonl", "-o", "sid", *small, *signal),
        ("refit", "sid", "items.jsonl", "-o", "sid2", "--init", "scratch", *signal),
        ("doctor", "sid", "--interactions", "log.csv"),
        ("clusters", "log.csv", "-o", "c", "--clusters", "2"),
        ("align", "sid", "log.csv", "-o", "data", "--tasks", "next-item"),
    ):
        done = semid(*command, *names)
        assert done.code == 0, done.err
    test = json.loads(Path("data/next-item/test.jsonl").read_text().splitlines()[0])
    assert (test["user"], test["item_id"]) == ("u0", "i0")  # the newest of u0, which is first in the file
