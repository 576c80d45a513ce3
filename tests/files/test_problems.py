"""Mistakes: one message per cause, bad rows skipped, named and written, and never more silently than that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.errors import ConfigError, InputError
from semid.files import Problems, Reading, iter_records


def skipped(path, target=True, **options):
    """The records of a file whose bad rows are skipped."""
    return [record for _, record in iter_records(path, reading=Reading(skip_bad_rows=target, **options))]


def test_equal_messages_are_one_with_a_count_and_ten_places():
    problems = Problems("items.csv")
    for line in range(2, 1684):
        problems.add(line, 'missing field "id" (have: movieId, title). Use --id-field movieId.')
    problems.add(7, "id is null.")
    with pytest.raises(InputError) as caught:
        problems.finish()
    assert str(caught.value).splitlines() == [
        'items.csv: 1,682 rows: missing field "id" (have: movieId, title). Use --id-field movieId. '
        "Lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...",
        "items.csv:7: id is null.",
    ]


def test_places_are_written_as_the_source_counts():
    lines = {"row": "a: 2 rows: wrong. Rows 3, 9.", "index": "a: 2 rows: wrong. At a[2], a[8]."}
    for style, message in lines.items():
        problems = Problems("a", style)
        for line in (9, 3):
            problems.add(line, "wrong.")
        assert problems.shown == [message]
    problems = Problems("a")
    problems.add(None, "no items.")
    problems.add(3, "wrong.")
    assert problems.shown == ["a: no items.", "a:3: wrong."]


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from("abcdefghijklmno")), max_size=200))
def test_messages_are_those_of_a_plain_count(added):
    problems = Problems("x")
    for line, message in added:
        problems.add(line, message)
    lines = {message: sorted(line for line, other in added if other == message) for _, message in added}
    first = sorted(dict.fromkeys(message for _, message in added), key=lambda message: lines[message][0])[:10]
    assert problems.total == len(added)
    for shown, message in zip(problems.shown, first, strict=True):
        places = lines[message]
        if len(places) == 1:
            assert shown == f"x:{places[0]}: {message}"
        else:
            end = "." if len(places) <= 10 else ", ..."
            assert shown == f"x: {len(places)} rows: {message} Lines {', '.join(map(str, places[:10]))}{end}"


def test_more_causes_than_are_kept_are_counted_and_the_first_by_place_stay():
    problems = Problems("x")
    for line in range(5000, 0, -1):
        problems.add(line, f"wrong in {line}.")
    assert problems.shown[0] == "x:1: wrong in 1." and len(problems.shown) == 10
    assert str(problems.error()).endswith("\n... and 4,990 more")


def test_bad_rows_are_counted_named_and_written_with_their_lines(tmp_path, caplog):
    path, target = tmp_path / "items.csv", tmp_path / "bad.txt"
    path.write_text('id,title,author\n1,Red Lamp,Ann\n2,Blue Lamp,Bo, Jr.\n3,"Green ""Lamp""",Cy\n4\n')
    assert [record["id"] for record in skipped(path, target)] == ["1", "3"]
    fault = "columns, but the header has 3. Quote cells that hold commas, quotes or line breaks."
    assert caplog.messages == [
        f"{path}: skipped 2 of 4 rows (first: line 3: 4 {fault}); they are in {target}\n"
        f"{path}:3: 4 {fault}\n{path}:5: 1 {fault}"
    ]
    assert target.read_text() == f"3\t4 {fault}\t2,Blue Lamp,Bo, Jr.\n5\t1 {fault}\t4\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.txt", "items.csv"]


def test_rows_are_written_as_they_stand_in_the_file(tmp_path):
    path, target = tmp_path / "items.jsonl", tmp_path / "bad.txt"
    path.write_bytes(b'{"id": 1}\n{"id": caf\xe9}\n[2]\n')
    assert skipped(path, target) == [{"id": 1}]
    written = [line.split("\t") for line in target.read_text().splitlines()]
    assert [(place, raw) for place, _, raw in written] == [("2", '{"id": caf\\xe9}'), ("3", "[2]")]
    assert "--encoding latin-1" in written[0][1]


def test_a_row_that_spans_lines_is_written_on_one(tmp_path):
    path, target = tmp_path / "items.csv", tmp_path / "bad.txt"
    path.write_text('id,title\n1,x\n2,"two\nlines",3\n')
    assert skipped(path, target) == [{"id": "1", "title": "x"}]
    assert target.read_text().endswith('\t2,"two\\nlines",3\n')


def test_the_caller_s_mistakes_are_skipped_rows_too(caplog):
    problems = Problems.of([], Reading(skip_bad_rows=True))
    for line, record in iter_records([{"id": 1}, {}, {"id": 2}], problems=problems):
        if "id" not in record:
            problems.add(line, "no id.")
    problems.finish()
    assert caplog.messages == ["items: skipped 1 of 3 rows (first: items[1]: no id.)"]


def test_several_mistakes_of_one_row_are_one_skipped_row():
    problems = Problems("x", reading=Reading(skip_bad_rows=True), n_rows=5)
    for message in ("no id.", "no title."):
        problems.add(3, message)
    assert (problems.n_skipped, problems.total) == (1, 2)


def test_all_rows_bad_is_an_error_and_nothing_is_written(tmp_path):
    path, target = tmp_path / "items.csv", tmp_path / "bad.txt"
    path.write_text("id,title\n1,2,3\n4\n")
    with pytest.raises(InputError, match=r"items.csv:2: 3 columns"):
        skipped(path, target)
    assert not target.exists()


@pytest.mark.parametrize(
    "data", [b"", b"id,id\n1,2\n", b"1,2\n3,4\n", b"%PDF-1.7", b'[{"id": 1}, {"id": '], ids=lambda data: data.decode()
)
def test_mistakes_of_the_whole_source_are_never_skipped(tmp_path, data):
    path = tmp_path / "items.csv"
    path.write_bytes(data)
    if data:
        with pytest.raises(InputError):
            skipped(path)
    else:
        assert skipped(path) == []


def test_the_file_for_skipped_rows_must_be_a_file_of_its_own(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,title\n1,x\n2\n")
    for target, message in [
        (path, "this is the file that is read"),
        (tmp_path, "expected a file in a folder that exists"),
        (tmp_path / "none" / "bad.txt", "expected a file in a folder that exists"),
    ]:
        with pytest.raises(ConfigError, match=message):
            skipped(path, target)
    assert path.read_text() == "id,title\n1,x\n2\n"


def test_impossible_readings_name_their_option():
    for given_, option in [
        ({"delimiter": '"'}, "--delimiter"),
        ({"delimiter": ""}, "--delimiter"),
        ({"columns": ("id", "id")}, "--columns"),
        ({"columns": "id,,title"}, "--columns"),
        ({"encoding": "utf-99"}, "--encoding"),
        ({"encoding": "zip"}, "--encoding"),
        ({"skip_bad_rows": ""}, "--skip-bad-rows"),
        ({"duplicates": "both"}, "--duplicates"),
    ]:
        with pytest.raises(ConfigError, match=option):
            Reading(**given_)
    assert Reading(delimiter="TAB", columns="a, b").columns == ("a", "b")
