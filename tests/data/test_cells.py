"""Lists and objects in the strings of a column, and paths into objects."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data.cells import looks_like_cell, parse_cell
from semid.data.paths import find_field, label_of, named_inside, roots

untimed = settings(deadline=None)
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00\x07\x08\x0b\x0c")
strings = st.text(characters)
leaves = strings | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=3))
cells = st.lists(values) | st.dictionaries(strings, values, max_size=3)


@untimed
@given(cells)
def test_what_python_and_json_write_is_read_back(value):
    assert parse_cell(repr(value)) == value
    assert parse_cell(json.dumps(value)) == value


plain = st.text(st.sampled_from("abc é-&"), min_size=1, max_size=9).map(str.strip).filter(bool)


@untimed
@given(st.lists(plain), st.sampled_from(["'", '"']), st.sampled_from([", ", ",", " , "]))
def test_lists_of_quoted_words_are_read_whatever_stands_between_them(words, quote, between):
    assert parse_cell("[" + between.join(f"{quote}{word}{quote}" for word in words) + "]") == words


@untimed
@given(st.lists(plain, min_size=2))
def test_numpy_arrays_of_strings_are_read(words):
    numpy = pytest.importorskip("numpy")
    assert parse_cell(str(numpy.array(words, object))) == words


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("['Mary O'Neil', 'Al Day']", ["Mary O'Neil", "Al Day"]),
        ("['rock 'n' roll', 'blues']", ["rock 'n' roll", "blues"]),
        ("[{'id': 7, 'name': 'Nora's House'}]", [{"id": 7, "name": "Nora's House"}]),
        ("[{'id': 7, 'name': u'War', 'on': True, 'x': None, 'y': nan}]",
         [{"id": 7, "name": "War", "on": True, "x": None, "y": None}]),
        ("['it\\'s', \"b\"]", ["it's", "b"]),
        ("[('a', 1)]", [["a", 1]]),
        ("[]", []), ("{}", {}), ("[1, 2.5]", [1, 2.5]), ("[['a'], []]", [["a"], []]),
    ],
)  # fmt: skip
def test_cells_as_programs_write_them(cell, value):
    assert parse_cell(cell) == value


@pytest.mark.parametrize(
    "text",
    ["[red] lamp", "[red]", "['red'", "red", "", "[", "['a'] and ['b']", "{'a'}", "[1, two]", "{1}", "('a', 'b')",
     "[" * 40 + "'a'" + "]" * 40, "{x: 1}", "[:]", "[=]"],
)  # fmt: skip
def test_other_strings_are_no_cells(text):
    assert parse_cell(text) is None


@pytest.mark.parametrize("piece", ["'", "['", "[", "{'a':", "' ", "', ", "'\"", "\\'", "'a', ", "1,", "',    ", "a'b "])
@pytest.mark.parametrize("start", ["[", "['", "{"])
def test_a_megabyte_of_hostile_cell_ends(piece, start):
    """With time quadratic in the length this would take hours."""
    cell = start + piece * (1_000_000 // len(piece)) + "]"
    assert looks_like_cell(cell)
    found = parse_cell(cell)
    assert found is None or sum(len(str(value)) for value in found) <= len(cell)


@untimed
@given(st.text(st.sampled_from("[]{}'\",: abu1\\") | characters).map(lambda text: f"[{text}]"))
def test_any_bracketed_string_is_a_list_or_none(text):
    assert parse_cell(text) is None or isinstance(parse_cell(text), list)


# ---- paths ----------------------------------------------------------------------------------------------

BOOK = {
    "details": {"Material": "paper", "size": {"cm": 21}, "Item.Weight": "1 lb"},
    "people": [{"name": "Ann", "roles": ["author"]}, {"name": "Bo"}, "x"],
    "a.b": "key",
    "a": {"b": "path"},
    "cell": '{"x": [{"y": "z"}]}',
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("details.Material", (True, "paper")), ("details.size.cm", (True, 21)), ("details.Item.Weight", (True, "1 lb")),
        ("people.name", (True, ["Ann", "Bo"])), ("people.roles", (True, [["author"]])), ("a.b", (True, "key")),
        ("cell.x.y", (True, ["z"])), ("details", (True, BOOK["details"])), ("details.Color", (False, None)),
        ("people.age", (False, [])), ("details.Material.x", (False, None)), ("", (False, None)), (".", (False, None)),
        ("details.", (False, None)),
    ],
)  # fmt: skip
def test_paths_go_into_objects_and_a_real_name_wins(path, found):
    has, value = find_field(BOOK, path)
    assert has == found[0] and (not has or value == found[1])


def test_a_path_does_not_follow_lists_without_end():
    value: object = {"b": "x"}
    for _ in range(20):
        value = [value]
    assert find_field({"a": value}, "a.b")[0]
    for _ in range(50_000):
        value = [value]
    assert find_field({"a": value}, "a.b") == (False, None)


def test_objects_are_called_by_the_first_of_their_names():
    assert label_of({"value": 1, "Title": "t", "NAME": "n"}) == "n"
    assert label_of({"title": "t", "Name": "n"}) == "n"
    assert label_of({"id": 1}) is None and label_of({}) is None
    assert named_inside({"b": "x", "a": 1, "text": 2}) == "text" and named_inside({"\n": 1}) is None
    assert roots("a") == [] and roots("a.b.c") == ["a.b", "a"] and not re.search("x", str(roots(".x")))
