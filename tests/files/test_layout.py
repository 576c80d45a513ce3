"""Layouts: delimiter, header, columns and JSON forms are found from the content, said, or refused with what to type."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semid.data import read_interactions, read_items
from semid.errors import InputError
from semid.files import Reading, iter_records
from semid.files.layout import plain_layout

untimed = settings(deadline=None)


@pytest.fixture
def put(tmp_path):
    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def read(path, key_field=None, **reading):
    return [record for _, record in iter_records(path, reading=Reading(**reading), key_field=key_field)]


def refusal(path, key_field=None, **reading) -> str:
    with pytest.raises(InputError) as caught:
        read(path, key_field, **reading)
    return str(caught.value).removeprefix(f"{path}")


# ---- delimiters

DELIMITERS = {",": "csv", "\t": "tsv", ";": "csv", "|": "txt"}
# Quoted where needed, so any text may stand in a cell; the header tells the columns.
CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROWS = st.lists(st.tuples(CELLS.filter(str.strip), CELLS, CELLS), min_size=1, max_size=8)


@pytest.mark.parametrize("delimiter", DELIMITERS)
@untimed
@given(rows=ROWS)
@example([("1", "a;b|c,d\te", "x"), ("2", 'say "hi"\r\nnow', "y")])
@example([(str(n), "a, b, c", "d; e; f | g") for n in range(9)])
def test_what_the_csv_module_writes_is_read_back(delimiter, rows):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("id", "title", "brand"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"items.{DELIMITERS[delimiter]}")
        path.write_bytes(text.getvalue().encode())
        assert read(path) == [dict(zip(("id", "title", "brand"), row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("name", "text", "delimiter", "records"),
    [
        ("a.csv", "id;title\n1;Lamp, red\n2;Sofa, blue, big\n", ";", [["1", "Lamp, red"], ["2", "Sofa, blue, big"]]),
        ("a.csv", "id,title,genres\n1,Lamp,A|B\n2,Sofa,C\n", ",", [["1", "Lamp", "A|B"], ["2", "Sofa", "C"]]),
        ("a.csv", "id\ttitle\n1\tRed lamp\n2\tSofa\n", "\t", [["1", "Red lamp"], ["2", "Sofa"]]),
        ("a.txt", "id|title\n1|Lamp; red, big\n", "|", [["1", "Lamp; red, big"]]),
        ("a.txt", "id::title::tags\n1::Lamp, a: b::x|y\n", "::", [["1", "Lamp, a: b", "x|y"]]),
        ("a.txt", "user  item rating\n1 7   5\n2 8 4\n", " ", [["1", "7", "5"], ["2", "8", "4"]]),
        ("a.tsv", "id\ttitle\n1\ta,b\n", "\t", [["1", "a,b"]]),
        ("a", 'id;title\n1;"Lamp; ""red"""\n', ";", [["1", 'Lamp; "red"']]),
        ("a.txt", "id,product title\n1,Red Lamp\n2,Sofa, blue\n", ",", [["1", "Red Lamp"]]),
        ("a.csv", "title\nLamp\nSofa\n", ",", [["Lamp"], ["Sofa"]]),
        ("a.csv", "id,title\r1,x\r2,y\r", ",", [["1", "x"], ["2", "y"]]),
    ],
)  # fmt: skip
def test_the_delimiter_is_found_from_the_content(put, name, text, delimiter, records):
    path = put(name, text)
    assert [list(record.values()) for record in read(path, skip_bad_rows=True)] == records
    assert plain_layout(str(path)).delimiter == delimiter


def test_a_delimiter_that_is_not_what_the_name_promises_is_said_with_its_option(put, caplog):
    for name, text, said in [
        ("a.csv", "id;title\n1;x\n", "cells are separated by semicolons; change with --delimiter"),
        ("a.csv", "id\ttitle\n1\tx\n", "cells are separated by tabs; change with --delimiter"),
        ("a.dat", "id::title\n1::x\n", 'cells are separated by "::"; change with --delimiter'),
    ]:
        caplog.clear()
        path = put(name, text)
        assert read(path) == [{"id": "1", "title": "x"}]
        assert caplog.messages == [f"{path}: {said}"]
        caplog.clear()
        assert read(path, delimiter=plain_layout(str(path)).delimiter) == [{"id": "1", "title": "x"}]
        assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,title\n1,x\n"), ("a.tsv", "id\ttitle\n1\tx\n"), ("a.txt", "id,title\n1,x\n"),
        ("a.jsonl", '{"id": "1", "title": "x"}\n'), ("a.csv", "\ufeffid,title\r\n1,x\r\n"),
        ("a.json", '[{"id": "1", "title": "x"}]'),
    ],
)  # fmt: skip
def test_nothing_is_said_of_plain_files(put, caplog, name, text):
    assert read(put(name, text)) == [{"id": "1", "title": "x"}]
    assert caplog.messages == []


def test_any_string_can_be_the_delimiter(put):
    path = put("a.txt", "id~@~title\n1~@~x y\n")
    assert read(path, delimiter="~@~") == [{"id": "1", "title": "x y"}]
    assert read(put("a.txt", "id^title\n1^'x'\n"), delimiter="^") == [{"id": "1", "title": "'x'"}]
    assert "cannot tell the format; the first line is" in refusal(path) and "--delimiter" in refusal(path)


# ---- headers


def test_columns_can_be_named_for_a_file_without_a_header(put):
    path = put("a.csv", "7,Red Lamp,9\n8,Blue Lamp,8\n")
    assert refusal(path) == ': no header: the first line is "7,Red Lamp,9". Name its 3 columns with --columns.'
    lamps = [{"id": "7", "title": "Red Lamp", "n": "9"}, {"id": "8", "title": "Blue Lamp", "n": "8"}]
    assert read(path, columns="id,title,n") == lamps
    assert read(put("a.csv", "id,title,n\n7,Red Lamp,9\n8,Blue Lamp,8\n"), columns=("id", "title", "n")) == lamps
    told = refusal(put("a.csv", "7,Red Lamp,9\n"), columns="id,title")
    assert told == ': --columns names 2 columns (id, title), but the first row has 3: "7,Red Lamp,9". Name them all.'


@pytest.mark.parametrize("first", ["1,2.5", "http://x.org,b", "2020-01-31,b", "[1],b", "Very nice!,b", "-1e5,b"])
def test_a_line_of_data_is_no_header(put, first):
    assert refusal(put("a.csv", f"{first}\nc,d\n")).startswith(": no header")


def test_years_beside_an_id_are_names_of_columns(put):
    assert read(put("a.csv", "itemId,2019,2020\n1,5,6\n")) == [{"itemId": "1", "2019": "5", "2020": "6"}]
    assert refusal(put("a.csv", "lamp,2019,2020\nsofa,5,6\n")).startswith(": no header")


def test_an_unsure_header_is_said(put, caplog):
    assert read(put("a.txt", "Ann;Bo\nCy;Di\n")) == [{"Ann": "Cy", "Bo": "Di"}]
    assert "the first line is read as the header (Ann, Bo); if it is none, use --columns" in caplog.text
    caplog.clear()
    read(put("b.txt", "what,price_in_euro\nlamp,5\n"))
    assert caplog.messages == []


def test_two_columns_of_one_name_are_refused_and_unnamed_ones_dropped(put):
    assert refusal(put("a.csv", "id,a,a\n1,2,3\n")) == ':1: two columns are named "a". Rename one.'
    assert read(put("a.csv", ",id\n0,a\n1,b\n")) == [{"id": "a"}, {"id": "b"}]


# ---- quotes


def test_tsv_cells_with_stray_quotes_are_read_literally(put):
    text = 'id\ttitle\n1\t"Lucky" lamp wins\n2\t5" pipe\n3\t"quoted\tcell"\n4\t"open\n5\tend\n'
    assert [record["title"] for record in read(put("a.tsv", text))] == [
        '"Lucky" lamp wins', '5" pipe', "quoted\tcell", '"open', "end",
    ]  # fmt: skip


OPENS = ":5: broken CSV: a quoted cell opens here"


def rows_with(cell: str, at: int, count: int) -> str:
    rows = [f"{n},lamp {n},{cell if n == at else 'x'}" for n in range(count)]
    return "id,title,brand\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("text", "message", "kept"),
    [
        (rows_with('"open', 3, 20), OPENS + " and never ends", 19),
        (rows_with('"open', 3, 20).replace("9,lamp 9,x", '9,lamp 9,"x"'), OPENS + " and ends wrongly in line 11", 19),
        (rows_with('"open', 3, 20).replace("9,lamp 9,x", '9,lamp 9,x"'), OPENS + " and runs over 5 lines", 19),
        (rows_with('a"b"', 3, 9), None, 9),
        (rows_with('"a"b', 3, 9), ":5: broken CSV: ',' expected after '\"'. Quote the cell", 8),
    ],
)  # fmt: skip
def test_a_quote_that_is_never_closed_costs_one_row(put, text, message, kept):
    path = put("a.csv", text)
    if message is None:
        assert len(read(path)) == kept
        return
    assert refusal(path).startswith(message)
    records = read(path, skip_bad_rows=True)
    assert [record["id"] for record in records] == [str(n) for n in range(kept + 1) if n != 3]


def test_a_quoted_cell_of_prose_may_span_many_lines(put):
    prose = "\n".join(f"line {n}, with a comma" for n in range(5))
    path = put("a.csv", f'id,title\n1,"{prose}"\n2,x\n')
    assert read(path) == [{"id": "1", "title": prose}, {"id": "2", "title": "x"}]


def test_decimal_commas_are_points_in_columns_of_numbers_alone(put, caplog):
    path = put("a.csv", "id;title;price;sum\n1;1,5;3,99;1.234,50\n2;red, blue;4;7\n")
    assert read(path) == [
        {"id": "1", "title": "1,5", "price": "3.99", "sum": "1234.50"},
        {"id": "2", "title": "red, blue", "price": "4", "sum": "7"},
    ]
    assert "decimal commas in price, sum are read as points" in caplog.text
    assert read(put("b.csv", 'id,price\n1,"3,99"\n')) == [{"id": "1", "price": "3,99"}]


# ---- files of the field's data sets


def test_movielens_files_are_known_by_their_shape(put, caplog):
    ratings = [{"user": "1", "item": "31", "rating": "2.5", "timestamp": "978302109"}]
    assert read(put("ratings.dat", "1::31::2.5::978302109\n")) == ratings
    assert read(put("u.data", "1\t31\t2.5\t978302109\n")) == ratings
    assert (
        'cells separated by "::", columns user, item, rating, timestamp; change with --delimiter, --columns'
        in caplog.text
    )
    films = put("movies.dat", "1::Red Lamp (1995)::Drama|Comedy\n2::L'été (1996)::Drama\n".encode("latin-1"))
    assert read(films)[1] == {"id": "2", "title": "L'été (1996)", "genres": "Drama"}
    assert "not UTF-8 are read as Latin-1; change with --encoding" in caplog.text
    flags = "|".join("1" if n in (1, 18) else "0" for n in range(19))
    (film,) = read(put("u.item", f"1|Red Lamp (1995)|01-Jan-1995||http://x.example.com|{flags}\n"))
    assert (film["title"], film["genres"], len(film)) == ("Red Lamp (1995)", ["Action", "Western"], 6)
    assert read(put("users.dat", "1::F::18::10::48067\n2::M::56::16::70072\n"))[0]["user"] == "1"
    tags = read(put("tags.dat", "15::4973::excellent!::1215184630\n"))
    assert tags == [{"user": "15", "item": "4973", "tag": "excellent!", "timestamp": "1215184630"}]
    info = read(put("info.txt", "<a_1><b_2><c_3>\tRed Lamp\t0\n<a_1><b_2><c_4>\tSofa\t1\n"))
    assert info[1] == {"semantic_id": "<a_1><b_2><c_4>", "title": "Sofa", "id": "1"}


def test_recbole_headers_have_types(put):
    path = put("a.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t9\n1\t3\t4\n")
    assert dict(read_interactions(path)) == {"1": ["3", "2"]}
    path = put("a.user", "user_id:token\tname:token_seq\tv:float_seq\n1\tAnn Lee\t0.5 1\n")
    assert read(path) == [{"user_id": "1", "name": "Ann Lee", "v": ["0.5", "1"]}]


def test_lines_of_a_user_and_items_are_histories(put, caplog):
    path = put("a.txt", "1 5 6 7\n2 6 7\n")
    assert dict(read_interactions(path)) == {"1": ["5", "6", "7"], "2": ["6", "7"]}
    assert "each line is read as a user and the user's items; change with --columns" in caplog.text
    assert "with --columns user,items" in refusal(put("a.txt", "1 5 6\n2 6 7\n"))  # a table, or histories of one length
    assert read(put("a.txt", "1 5\n2 6\n"), delimiter="space", columns="user,item")[1] == {"user": "2", "item": "6"}


# ---- JSON

RECORDS = [{"id": "1", "title": "Red Lamp", "n": [1, {"x": "é"}]}, {"id": "2", "title": "Blue\nLamp", "n": []}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "[" + ",\n".join(map(json.dumps, RECORDS)) + "]\n",
        "\n".join(json.dumps(record, indent=1) for record in RECORDS),
        "\n\n".join(map(json.dumps, RECORDS)),
        "\n".join(map(repr, RECORDS)),
        json.dumps({record["id"]: {"title": record["title"], "n": record["n"]} for record in RECORDS}),
        json.dumps({record["id"]: record for record in RECORDS}, indent=4),
    ],
    ids=["array", "indented array", "array by lines", "indented", "lines", "python", "map", "indented map"],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a"])
def test_json_is_read_however_it_is_laid_out(put, name, text):
    assert read(put(name, text), key_field="id") == RECORDS


def test_keys_of_one_object_are_ids_or_users(put, caplog):
    path = put("a.item.json", '{"7": {"title": "x"}, "8": {"title": "y"}}')
    assert read_items(path, id_field="asin").ids == ["7", "8"]
    assert 'one JSON object; its keys are read as the field "asin"' in caplog.text
    assert read(path, key_field="asin")[1] == {"asin": "8", "title": "y"}
    path = put("a.inter.json", '{"7": [1, 2], "8": [2]}')
    assert dict(read_interactions(path)) == {"7": ["1", "2"], "8": ["2"]}
    with pytest.raises(InputError, match='"7" has a list: these are histories by user or an index file, not items.'):
        read_items(path)
    assert dict(read_interactions(put("b.json", '{"7": {"items": [1, 2]}, "8": {"items": []}}')))["7"] == ["1", "2"]


@pytest.mark.parametrize(
    "value", [{"1": ["<a_1>", "<b_2>"]}, {"1": "<a_1> <b_2>", "2": "<a_1><b_3>"}, {"1": ["<a_1><b_2>"]}]
)
def test_index_files_are_named(put, value):
    assert "is an index file (tokens by item), and holds no records" in refusal(put("a.json", json.dumps(value)))


@pytest.mark.parametrize(
    "value",
    [
        {"id": {"0": "a", "1": "b"}, "title": {"0": "x", "1": "y"}},
        {"user": ["u", "u"], "item": ["a", "b"]},
    ],
)
def test_tables_by_columns_are_named(put, value):
    assert "is a table by columns. Write it by rows" in refusal(put("a.json", json.dumps(value)))


def test_one_record_is_no_object_of_records(put):
    for record in ({"id": "1", "tags": ["a"]}, {"title": {"a": 1}}, {"id": 1}, {"items": [1, 2], "user": "u"}):
        assert read(put("a.json", json.dumps(record))) == [record]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1},\n{"id": 2', ": the JSON ends too early, in line 2: the file is cut short. Copy it again."),
        ('{\n"7": {"title": "x"},\n"8": {', ": the JSON ends too early, in line 3: the file is cut short."),
        ('[{"id": 1},\n{"id" 2}]', ": broken JSON in line 2: Expecting ':' delimiter."),
        ('[{"id": 1}\n{"id": 2}]', ": broken JSON in line 2: expected ',' or ']'."),
        ('[{"id": 1},\n{}]\n[2]', ": line 3 has more text behind the end of the JSON. Write one value a file."),
        ('[{"id": 1}, 7, null, 8]', ": 2 rows: expected an object {...}, got a bare value. Rows 2, 4."),
        ("[" * 100_000, ": line 1: the JSON is nested too deeply. Flatten it."),
        ('[{"id": ' + "9" * 5000 + "}]", ": broken JSON in line 1: Exceeds the limit"),
        (b'[{"id": 1},\n{"id": "\xe9"}]', ": line 1: not UTF-8: byte 0xe9. Name the encoding"),
        ("{'id': 1}\n{'id': open('x')}\n", ":2: broken Python literal; expected {'name': 'value', ...}."),
        ('{"id": 1\n{"id": 2}\n', ":1: broken JSON at column 9: Expecting ',' delimiter."),
    ],
)  # fmt: skip
def test_broken_json_is_named_by_its_line(put, text, message):
    assert refusal(put("a.json", text)).splitlines()[0].startswith(message)


def test_a_large_array_streams(put):
    """Elements come before the array ends, so a fault at its end is found after them."""
    path = put(
        "a.json", "[" + ", ".join(json.dumps({"id": n, "title": "x" * 1000}) for n in range(5_000)) + ", broken]"
    )
    stream = iter_records(path)
    assert [next(stream)[1]["id"] for _ in range(4_000)] == list(range(4_000))
    with pytest.raises(InputError, match="broken JSON in line 1: Expecting value"):
        list(stream)


VALUES = st.text() | st.integers() | st.floats(allow_nan=False)


@untimed
@given(
    st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), min_size=1, max_size=5),
    st.sampled_from([None, 1]),
    st.sampled_from([1, 7, 1 << 20]),
)
def test_values_are_the_same_wherever_chunks_end(records, indent, chunk):
    from semid.files import formats_json

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats_json, "CHUNK", chunk)
        path = Path(folder, "a.json")
        path.write_text(
            json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8", errors="surrogatepass"
        )
        try:
            path.read_text("utf-8")
        except UnicodeDecodeError:
            return  # lone surrogates are no UTF-8
        assert read(path) == records


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_whose_cells_hold_blanks_is_no_list_of_items(tmp_path, encoding):
    """Its lines have different numbers of words, as those of `user item item ...` have, but a header and cells."""
    (tmp_path / "shop.txt").write_text("id\ttitle\n1\tRed Lamp\n2\tBlue\n3\tGreen big lamp\n", encoding=encoding)
    assert read_items(tmp_path / "shop.txt").fields == {"title": ["Red Lamp", "Blue", "Green big lamp"]}
    (tmp_path / "log.txt").write_text("u1 5 6 7\nu2 6 7\n", encoding=encoding)
    assert list(read_interactions(tmp_path / "log.txt")) == [("u1", ["5", "6", "7"]), ("u2", ["6", "7"])]
