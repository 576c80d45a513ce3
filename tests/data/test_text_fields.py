"""Which fields are text, from lists in cells, objects, other items' ids, markup and the usual names."""

from __future__ import annotations

import csv
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data import Items, PackedStrings, read_items
from semid.data.item_reader import field_order
from semid.data.text_fields import kind_of_text, name_rank, other_items
from semid.errors import InputError


def read(records, **options) -> tuple[Items, list[str]]:
    """Read records, in two orders: what is chosen and said may not depend on it."""
    warnings: list[str] = []
    items = read_items(records, on_warning=warnings.append, **options)
    shuffled = random.Random(len(records)).sample(records, len(records))
    other = read_items(shuffled, on_warning=str, **options)
    assert (list(other.fields), other.left_out) == (list(items.fields), items.left_out)
    assert list(other.sorted()) == list(items.sorted())
    return items, warnings


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


# ---- lists and objects in cells -------------------------------------------------------------------------


def test_cells_of_json_and_python_lists_are_read_as_lists(tmp_path):
    rows = [
        ["id", "title", "people", "kinds", "studios", "scores"],
        [
            "f1",
            "Dusk",
            "['Mary O'Neil', 'Al Day']",
            '[{"id": 4, "name": "War"}, {"id": 9, "name": "Sea"}]',
            "[]",
            "[1]",
        ],
        ["f2", "Dawn", "['Al Day' 'Jo &amp; Co']", "[]", "[{'id': 3, 'name': u'North'}]", "[2, 3]"],
        ["f3", "Noon", "", '[{"id": 4, "name": "War"}]', "[{'id': 5}]", "[4]"],
    ]
    warnings: list[str] = []
    items = read_items(write_csv(tmp_path / "films.csv", rows), on_warning=warnings.append)
    assert items.fields == {
        "title": ["Dusk", "Dawn", "Noon"],
        "kinds": ["War, Sea", "", "War"],
        "people": ["Mary O'Neil, Al Day", "Al Day, Jo & Co", ""],
        "studios": ["", "North", ""],
    }
    assert items.left_out == {"scores": "numbers"}
    assert warnings == [
        "read the cells of kinds, people, studios as lists (JSON or Python)",
        "text from title, kinds, people, studios; left out: scores (numbers); choose fields with --text",
    ]


def test_lists_in_cells_equal_lists_in_json():
    lists = [["red", "blue"], [["red"], []], [{"name": "green"}, {"id": 2}], ['it\'s "so"'], [], ["a, b"]]
    in_json = read_items([{"id": i, "x": value} for i, value in enumerate(lists)], on_warning=str)
    for write in (json.dumps, repr):
        records = [{"id": i, "x": write(value)} for i, value in enumerate(lists)]
        assert read(records)[0].fields == in_json.fields
        assert read(records, text="x")[0].fields == in_json.fields


def test_one_odd_cell_does_not_make_a_column_of_lists():
    records = [{"id": i, "title": "['red', 'blue']" if i == 1 else f"lamp {i}"} for i in range(5)]
    items, warnings = read(records)
    assert items.fields["title"][1] == "['red', 'blue']" and warnings == []
    half = [{"id": i, "x": "['red']" if i < 2 else "[red]"} for i in range(4)]
    assert read(half)[0].fields["x"] == ["['red']", "['red']", "[red]", "[red]"]
    most = [{"id": i, "x": "['red']" if i < 3 else "[red]"} for i in range(4)] + [{"id": 9, "x": "nan"}]
    assert read(most)[0].fields["x"] == ["red", "red", "red", "[red]", "nan"]


def test_text_in_brackets_is_cleaned_as_other_text():
    records = [
        {"id": 1, "title": "[red &amp;  blue]"},
        {"id": 2, "title": "{<b>x</b>} \ud800]"},
        {"id": 3, "title": "y"},
    ]
    assert read(records)[0].fields["title"] == ["[red & blue]", "{x} \ufffd]", "y"]


def test_objects_in_cells_are_objects():
    records = [{"id": i, "title": "t", "set": "{'id': 3, 'name': 'Tale's End'}"} for i in range(3)]
    items, _ = read(records)
    assert items.left_out == {"set": "object; name its fields, e.g. set.name"}
    assert read(records, text="set.name")[0].fields == {"set.name": ["Tale's End"] * 3}
    with pytest.raises(
        InputError, match=r'field "set" holds an object; expected text. Name its fields, e.g. set.name.'
    ):
        read_items(records, text="set")


# ---- objects --------------------------------------------------------------------------------------------

PLANTS = [
    {"id": "p1", "title": "Fern", "care": {"Light": "low", "pot": {"cm": 12}}, "uses": [{"id": 1, "name": "office"}]},
    {"id": "p2", "title": "Palm", "care": {"Water": "weekly"}, "uses": [{"id": 2, "name": "hall"}, {"id": 1}]},
    {"id": "p3", "title": "Moss", "care": None, "uses": []},
]


def test_objects_are_left_out_by_name_and_lists_of_objects_give_their_names():
    items, warnings = read(PLANTS)
    assert items.fields == {"title": ["Fern", "Palm", "Moss"], "uses": ["office", "hall", ""]}
    what = "care (object; name its fields, e.g. care.Light)"
    assert warnings == [f"text from title, uses; left out: {what}; choose fields with --text"]


def test_a_path_reads_the_fields_of_objects_and_of_lists_of_objects():
    items, _ = read(PLANTS, text="care.Light,care.pot.cm,uses.name,uses.id")
    assert items.fields == {
        "care.Light": ["low", "", ""],
        "care.pot.cm": ["12", "", ""],
        "uses.name": ["office", "hall", ""],
        "uses.id": ["1", "2, 1", ""],
    }
    with pytest.raises(InputError) as caught:
        read_items(PLANTS, text="care.Ligth")
    assert 'no item has the text field "care.Ligth". Did you mean "care.Light" or' in str(caught.value)
    assert "Fields found: care, care.Light, care.Water, care.pot, id, title, uses." in str(caught.value)


def test_a_field_whose_name_has_a_dot_wins_over_a_path():
    records = [{"id": 1, "a.b": "key", "a": {"b": "path"}}, {"id": 2, "a": {"b": "path"}}]
    assert read(records, text="a.b")[0].fields == {"a.b": ["key", "path"]}


def test_an_earlier_choice_of_a_path_is_kept():
    items, _ = read(PLANTS, keep=["care.Light", "title"])
    assert items.fields["care.Light"] == ["low", "", ""]


def test_objects_without_a_name_are_no_text():
    records = [{"id": i, "title": "t", "makers": [{"maker_id": str(i), "role": "x"}]} for i in range(3)]
    items, _ = read(records)
    assert items.left_out == {"makers": "objects; name its fields, e.g. makers.maker_id"}
    with pytest.raises(
        InputError, match=r'items: field "makers" holds objects without a name, .*e\.g\. makers\.maker_id'
    ):
        read_items(records, text="makers")


def test_nested_tables_read_like_nested_records(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(PLANTS), tmp_path / "plants.parquet")
    for options in ({}, {"text": "care.Light,uses.name"}):
        items = read_items(tmp_path / "plants.parquet", on_warning=str, **options)
        assert items.fields == read(PLANTS, **options)[0].fields
    assert read_items(tmp_path / "plants.parquet", on_warning=str).left_out == read(PLANTS)[0].left_out


# ---- ids of other items, markup, ranks ------------------------------------------------------------------


def shop(n: int, **fields) -> list[dict]:
    return [
        {"id": f"K{i:03}", "title": f"jug {i}"} | {name: make(i) for name, make in fields.items()} for i in range(n)
    ]


def test_fields_of_a_shop_page_keep_their_words_only():
    records = shop(
        3,
        category=lambda i: ["Kitchen", "</span></span>", "</i>"],
        description=lambda i: ["<p>Blue &amp; <b>light</b>.</p>"],
        also_view=lambda i: [f"Z{i}77", f"Y{i}31X"],
        rank=lambda i: [f">#{i + 2},411 in Kitchen &amp; Dining (See top 100)"],
        main_cat=lambda i: '<img src="https://img.example.org/k.png" alt="Kitchen" />',
        similar_item=lambda i: 'class="a-row comparison">\n<tr><td>jug</td>',
        price=lambda i: "$12,50",
        imageURL=lambda i: ["https://img.example.org/1.jpg", "https://img.example.org/2.jpg"],
    )
    items, _ = read(records)
    assert {name: column[0] for name, column in items.fields.items()} == {
        "title": "jug 0", "category": "Kitchen", "description": "Blue & light.",
    }  # fmt: skip
    assert items.left_out == {
        "also_view": "ids of other items", "imageURL": "links", "main_cat": "markup", "price": "numbers",
        "rank": "ranks", "similar_item": "markup",
    }  # fmt: skip


@pytest.mark.parametrize(
    "write",
    [list, ", ".join, "|".join, " ".join, str, json.dumps],
    ids=["list", "commas", "bars", "blanks", "Python", "JSON"],
)
def test_lists_of_the_catalogs_own_ids_are_left_out(write):
    n = 40
    next_ones = [[f"K{(i + k) % n:03}" for k in (1, 2, 5)] + ["X9"] for i in range(n)]
    items, _ = read(shop(n, goes_with=lambda i: write(next_ones[i]) if i % 4 else None))
    assert items.left_out == {"goes_with": "ids of other items"}


def test_ids_that_are_words_are_told_by_the_catalog():
    names = ["bowl", "cup", "fork", "jug", "pan", "plate", "pot", "spoon"]
    records = [
        {"id": name, "title": f"a {name}", "needs": [names[i - 1], names[i - 2]], "made_of": ["iron", "wood"][i % 2]}
        for i, name in enumerate(names)
    ]
    items, _ = read(records)
    assert list(items.fields) == ["title", "made_of"] and items.left_out == {"needs": "ids of other items"}
    for record in records:
        record["itself"] = record["id"]  # an item's own id says nothing about others
    assert list(read(records)[0].fields) == ["title", "itself", "made_of"]


def test_lists_of_codes_that_are_not_in_the_catalog_are_identifiers():
    items, _ = read(
        shop(20, parts=lambda i: [f"Q{i}A7", f"R{i}B7", f"S{i}C7"], sizes=lambda i: ["5ml", f"{10 + i % 3}ml"])
    )
    assert items.left_out == {"parts": "identifiers"}
    assert items.fields["sizes"][0] == "5ml, 10ml"


def test_names_of_lists_of_items_do_not_leave_out_words():
    assert list(read(shop(9, related=lambda i: ["tea time", "late breakfast"[i % 2 :]]))[0].fields) == [
        "title",
        "related",
    ]
    assert read(shop(9, alsoBought=lambda i: [str(i), "17"]))[0].left_out == {"alsoBought": "ids of other items"}
    assert read(shop(9, rooms=lambda i: [i, 17]))[0].left_out == {"rooms": "numbers"}


@settings(deadline=None)
@given(st.lists(st.text("ab1", min_size=1, max_size=3), min_size=1, max_size=30, unique=True), st.randoms())
def test_other_items_agree_with_a_set_of_all_ids(names, rng):
    ids = PackedStrings.pack(names)
    lists = [[rng.choice([*names, "no such"]) for _ in range(rng.randrange(4))] for _ in names]
    others = [piece for own, found in zip(names, lists, strict=True) for piece in found if piece != own]
    known = [piece for piece in others if piece in set(names)]
    expected = len(set(others)) >= 3 and 2 * len(known) > len(others)
    assert (other_items("x", PackedStrings.pack(map(", ".join, lists)), ids) == "ids of other items") == expected


def test_numbers_with_signs_stay_numbers():
    values = ["3,99", "1.299,00 €", "$5", "12 %", "1 000", "-4", "+3.5e2", "£1"]
    assert {kind_of_text(value) for value in values} == {"numbers"}
    assert kind_of_text("12 kg") == "words"
    ranks = ["#3,000 in Toys (See Top 100 in Toys)", ">#12 in Books", "3,000 in Toys (", "3,000inMusic("]
    assert {kind_of_text(value) for value in ranks} == {"ranks"}
    assert kind_of_text("24 in 1 screwdriver") == kind_of_text("3 in A Row (game)") == "words"


# ---- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "like"),
    [("movie_title", "title"), ("bookTitle", "title"), ("Book-Title", "title"), ("product name", "name"),
     ("track_name", "name"), ("artistName", "name"), ("main_category", "category"), ("Book-Author", "author"),
     ("detail_desc", "desc"), ("TITLE", "title"), ("abstract", "abstract")],
)  # fmt: skip
def test_names_are_known_by_their_last_word(name, like):
    assert name_rank(name)[0] == name_rank(like)[0]


@pytest.mark.parametrize("name", ["user_name", "reviewerName", "file_name", "title_id", "subtitle", "n", "", "_", "ſ"])
def test_other_names_are_not_known(name):
    assert name_rank(name) is None


def test_known_names_come_first_and_stay_whatever_they_hold():
    names = ["zoo", "description", "book_title", "title", "artistName", "brand"]
    assert sorted(names, key=field_order) == ["title", "book_title", "artistName", "brand", "description", "zoo"]
    items, _ = read(shop(20, track_name=lambda i: f"mp{i}x", user_name=lambda i: f"u{i}x", shop_name=lambda i: "main"))
    assert list(items.fields) == ["title", "track_name"]
    assert items.left_out == {"shop_name": "constant", "user_name": "identifiers"}


# ---- rows that come again, or are bad -------------------------------------------------------------------

TWICE = [{"id": "a", "title": "x"}, {"id": "b", "title": "y"}, {"id": "a", "title": "z"}, {"id": "a", "title": "w"}]


@pytest.mark.parametrize(
    ("which", "ids", "titles", "rows"),
    [("first", ["a", "b"], ["x", "y"], [0, 1]), ("last", ["b", "a"], ["y", "w"], [1, 3])],
)
def test_of_items_with_one_id_the_first_or_the_last_is_kept(which, ids, titles, rows):
    warnings: list[str] = []
    items = read_items(TWICE, duplicates=which, on_warning=warnings.append)
    assert (items.ids, items.fields["title"], items.rows.tolist()) == (ids, titles, rows)
    assert warnings == [f"items: 2 rows repeat an id; kept the {which} of each (--duplicates)"]


def test_rows_without_an_id_or_text_are_skipped_on_request(caplog):
    records = [{"title": "x"}, {"id": "b", "title": "y"}, {"id": "c", "title": {"q": "z"}}, {"id": "d", "title": "v"}]
    items = read_items([*records, records[1]], text="title", skip_bad_rows=True)
    assert (items.ids, items.fields["title"], items.rows.tolist()) == (["b", "d"], ["y", "v"], [1, 3])
    assert "items: skipped 3 of 5 rows" in caplog.text
    vectors = np.arange(5)
    assert vectors[items.rows].tolist() == [1, 3]


def test_left_out_fields_are_said_only_where_fields_were_chosen():
    records = [{"id": i, "title": "t", "n": i} for i in range(3)]
    assert read(records)[1] == ["text from title; left out: n (numbers); choose fields with --text"]
    assert read(records, text="title")[1] == [] and read(records, keep=["title"])[1] == []
