"""Reading catalogs: every format gives the same items; every mistake is named by file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import random
import subprocess
import sys
import unicodedata
from datetime import UTC, datetime

import numpy as np
import pytest

from semid.data import Items, read_items
from semid.data.values import clean_text, id_string, text_of
from semid.errors import ConfigError, InputError
from semid.files import Problems, iter_records
from semid.runtime.progress import show_progress

TOY = [
    {"id": "B1", "title": "Red polish", "brand": "OPI", "categories": ["Nails", "Polish"]},
    {"id": "B2", "title": "Kohl &amp; liner", "brand": None, "categories": [["Eyes"], ["Eyes", "Liner"]]},
    {"id": 3, "title": "", "brand": "Ardell", "categories": []},
]
TOY_FIELDS = {
    "title": ["Red polish", "Kohl & liner", ""],
    "brand": ["OPI", "", "Ardell"],
    "categories": ["Nails, Polish", "Eyes, Liner", ""],
}


def write_lines(path, *lines):
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def write_records(path, records):
    return write_lines(path, *(json.dumps(record) for record in records))


def refusal(source, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_items(source, **options)
    return str(caught.value)


# ---- formats --------------------------------------------------------------------------------------------


def test_jsonl_plain_gzipped_and_misnamed_read_the_same(tmp_path):
    plain = write_records(tmp_path / "items.jsonl", TOY)
    for name, data in [
        ("items.jsonl.gz", gzip.compress(plain.read_bytes())),
        ("items.json.gz", gzip.compress(plain.read_bytes())),
        ("gzipped-but-not-named-so.jsonl", gzip.compress(plain.read_bytes())),
        ("no-suffix", plain.read_bytes()),
        ("odd.suffix", gzip.compress(b"\n  " + plain.read_bytes())),
    ]:
        (tmp_path / name).write_bytes(data)
        items = read_items(tmp_path / name)
        assert (items.ids, items.fields) == (["B1", "B2", "3"], TOY_FIELDS), name


@pytest.mark.parametrize("name", ["items.csv", "items.tsv", "items.csv.gz", "items.unknown"])
def test_csv_and_tsv_read_like_jsonl(tmp_path, name):
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if "tsv" in name else ",")
    writer.writerows([["id", "title", "brand"], ["B1", 'Red, "hot"\npolish', "OPI"], ["2", "", "Ardell"]])
    data = text.getvalue().encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    items = read_items(tmp_path / name)
    assert items.ids == ["B1", "2"]
    assert items.fields == {"title": ['Red, "hot" polish', ""], "brand": ["OPI", "Ardell"]}


def test_parquet_arrow_and_pandas_like_sources_read_like_jsonl(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "id": ["B1", "B2", "3"],
            "title": ["Red polish", "Kohl &amp; liner", None],
            "brand": ["OPI", None, "Ardell"],
            "categories": [[["Nails", "Polish"]], [["Eyes"], ["Eyes", "Liner"]], []],
            "vector": [[0.1, 0.2]] * 3,
            "meta": [{"a": "x"}] * 3,
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")
    (tmp_path / "unnamed").write_bytes((tmp_path / "items.parquet").read_bytes())
    for source in (tmp_path / "items.parquet", tmp_path / "unnamed", table):
        items = read_items(source)
        assert (items.ids, items.fields) == (["B1", "B2", "3"], TOY_FIELDS)
    assert read_items(table, text="vector").fields == {"vector": ["0.1, 0.2"] * 3}


def test_hugging_face_dataset_reads_through_its_row_selection():
    datasets = pytest.importorskip("datasets")
    rows = [{"id": str(i), "title": f"thing {i}", "tags": ["a", "b"], "vector": [0.5, i]} for i in range(9)]
    dataset = datasets.Dataset.from_list(rows).select([7, 2, 5])
    items = read_items(dataset)
    assert items.ids == ["7", "2", "5"]
    assert items.fields == {"tags": ["a, b"] * 3, "title": ["thing 7", "thing 2", "thing 5"]}
    assert list(items.fields) == ["title", "tags"]
    assert read_items(dataset.to_iterable_dataset()).ids == items.ids
    assert 'source["train"]' in refusal(datasets.DatasetDict({"train": dataset}))


def test_iterables_of_dicts_read_without_a_file():
    items = read_items(record for record in TOY)
    assert (items.ids, items.fields, items.source) == (["B1", "B2", "3"], TOY_FIELDS, "items")
    numpy_record = {"id": np.int64(7), "title": np.str_("x"), "tags": np.array(["a", "b"]), "vec": np.ones(3)}
    assert read_items([numpy_record]).fields == {"title": ["x"], "tags": ["a, b"]}


def test_items_pass_through_and_their_fields_can_be_chosen():
    items = read_items(TOY)
    assert read_items(items) is items
    assert list(read_items(items, text="brand,title").fields) == ["brand", "title"]
    assert 'Did you mean "title"?' in refusal(items, text="titel")


@pytest.mark.parametrize("zipped", [False, True])
def test_standard_input_is_jsonl_gzipped_or_not(monkeypatch, zipped):
    data = b'{"id": "a", "title": "x"}\n{"id": "a"}\n'
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(data) if zipped else data))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert refusal("-").startswith('<stdin>:2: duplicate id "a" (first at line 1).')
    assert not stdin.buffer.closed


def test_a_pipe_is_read_to_its_end():
    code = "from semid.data.items import read_items; assert len(read_items('-')) == 5000"
    lines = "".join(f'{{"id": {i}, "title": "thing"}}\n' for i in range(5000))
    done = subprocess.run([sys.executable, "-c", code], input=lines, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_byte_order_mark_crlf_and_blank_lines_are_tolerated(tmp_path):
    body = b'\xef\xbb\xbf\r\n{"id": 1, "title": "x"}\r\n\r\n  \n{"id": 2, "title": "y"}'
    (tmp_path / "a.jsonl").write_bytes(body)
    assert read_items(tmp_path / "a.jsonl").fields == {"title": ["x", "y"]}
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfid,title\r\n\r\n1,x\r\n2,y\r\n")
    assert read_items(tmp_path / "a.csv").fields == {"title": ["x", "y"]}


def test_ten_megabytes_in_one_field_read_from_csv_and_jsonl(tmp_path):
    text = "x" * 10_000_000
    write_lines(tmp_path / "a.csv", "id,title", f"1,{text}")
    write_records(tmp_path / "a.jsonl", [{"id": 1, "title": text}])
    for name in ("a.csv", "a.jsonl"):
        assert len(read_items(tmp_path / name).fields["title"][0]) == len(text)


# ---- ids and text ---------------------------------------------------------------------------------------


def test_integer_ids_become_strings_and_clash_with_their_spelling():
    assert read_items([{"id": 1}, {"id": "01"}, {"id": -1}], on_warning=str).ids == ["1", "01", "-1"]
    clash = refusal([{"id": 1}, {"id": "1"}])
    assert clash == 'items[1]: duplicate id "1" (first at items[0]). Keep one of them, perhaps with --duplicates first.'


@pytest.mark.parametrize(
    "bad", [None, "", True, 1.5, float("nan"), [], {}, b"x", "\ud800", pytest.param(10**5000, id="huge")]
)
def test_ids_are_strings_or_integers_only(bad):
    assert id_string(bad) is None
    assert refusal([{"id": "ok"}, {"id": bad}]).startswith("items[1]: id ")


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Fish &amp; chips", "Fish & chips"),
        ("Fish &amp;amp;amp; chips", "Fish & chips"),
        ("&amp;lt;b&amp;gt;", ""),  # an escaped tag is a tag
        (" a\t\n b\x00c\x85d\xa0e\u2028f ", "a b c d e f"),
        ("cafe\u0301", "caf\u00e9"),
        ("x\ud800y", "x\ufffdy"),
        ("AT&T", "AT&T"),
        ("&#10;&nbsp;", ""),
        ("日本  語", "日本 語"),
        ("100% plain", "100% plain"),
    ],
)
def test_text_is_unescaped_collapsed_and_composed(raw, clean):
    assert clean_text(raw) == clean
    assert unicodedata.is_normalized("NFC", clean_text(raw))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["a", ["b", ["a", "c", None, ""]]], "a, b, c"),
        ([], ""),
        ([[]], ""),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
        (float("nan"), ""),
        (float("-inf"), ""),
        (np.float32(0.5), "0.5"),
        (np.array([["a", "b"], ["b", "c"]]), "a, b, c"),
        ({"a": 1}, None),
        (["a", {"b": 1}], "a"),  # an object without a name
        (b"x", None),
    ],
)
def test_values_become_text_or_are_refused(value, text):
    assert text_of(value) == text


def test_lists_nested_as_deep_as_json_allows_are_flattened():
    value = "leaf"
    for _ in range(50_000):
        value = [value]
    assert text_of(value) == "leaf"


def test_texts_join_fields_and_do_not_double_a_full_stop():
    fields = {"x": ["One.", "", "Who?"], "y": ["", "", "Two"], "z": ["Three", "", "Four."]}
    items = Items(["a", "b", "c"], fields)
    assert items.texts() == ["One. Three", "", "Who? Two. Four."]
    assert Items(["a", "b"], {}).texts() == ["", ""]


def test_columns_of_another_length_are_refused():
    with pytest.raises(InputError, match="title: 1 values for 2 ids"):
        Items(["a", "b"], {"title": ["x"]})


# ---- which fields are text ------------------------------------------------------------------------------


def test_found_fields_are_words_not_numbers_dates_links_vectors_or_objects():
    record = {
        "zebra": "free text", "id": "a", "brand": "OPI", "title": "1984", "price": 9.99, "cost": "$9.99",
        "year": "1995", "added": "2014-07-23T10:00:00Z", "in_stock": "true", "image": "https://x.org/a.jpg",
        "images": ["http://x.org/a", "http://x.org/b"], "vector": [0.1, 0.2], "token_ids": [1, 2],
        "meta": {"a": "b"}, "nothing": None, "no_tags": [], "sizes": "1e-5", "Apple": "fruit",
    }  # fmt: skip
    assert list(read_items([record]).fields) == ["title", "brand", "Apple", "zebra"]


def test_found_fields_do_not_depend_on_the_order_of_rows():
    records = [{"id": i, "b": "x" if i % 3 else 7, "a": "12" if i == 5 else "yellow", "c": i} for i in range(20)]
    records[3]["title"] = "late"
    seen = set()
    for seed in range(5):
        random.Random(seed).shuffle(records)
        seen.add(tuple(read_items(records, on_warning=str).fields))
    assert seen == {("title", "a", "b")}


def test_fields_that_some_items_lack_stay_in_step():
    records = [{"id": 0}, {"id": 1, "a": "x"}, {"id": 2, "b": "y"}, {"id": 3, "a": "z"}, {"id": 4}]
    items = read_items(records, on_warning=str)
    assert items.fields == {"a": ["", "x", "", "z", ""], "b": ["", "", "y", "", ""]}


def test_a_field_of_text_and_vectors_or_of_an_invalid_name_is_left_out():
    warnings: list[str] = []
    records = [{"id": 0, "x": [0.5, 1], "title": "t", "\ud800": "y"}, {"id": 1, "x": "word"}]
    assert list(read_items(records, on_warning=warnings.append).fields) == ["title"]
    assert 'field "x" is left out: text in some items, but a list of numbers at items[0].' in warnings


def test_shuffled_input_gives_equal_sorted_items_and_rows_lead_back():
    records = [{"id": f"é{i}" if i % 2 else f"\U0001f600{i}", "title": f"thing {i}"} for i in range(50)]
    vectors = np.arange(50)
    first = read_items(records).sorted()
    order = random.Random(0).sample(range(50), 50)
    other = read_items([records[i] for i in order]).sorted()
    assert (first.ids, first.fields) == (other.ids, other.fields)
    assert first.ids == sorted(first.ids, key=str.encode)
    assert (vectors[first.rows] == vectors[order][other.rows]).all()
    assert first.take([3, 1]).rows.tolist() == [first.rows[3], first.rows[1]]
    assert first.take(first.rows == 3).ids == [records[3]["id"]]
    assert first.take([]).ids == []
    assert other.sorted().rows.tolist() == other.rows.tolist()


def test_chosen_fields_keep_their_order_and_turn_numbers_into_text():
    records = [{"id": 5, "year": 1995, "title": "x"}, {"id": 6}]
    items = read_items(records, text="year, title,id", on_warning=str)
    assert items.fields == {"year": ["1995", ""], "title": ["x", ""], "id": ["5", "6"]}
    assert list(items.fields) == ["year", "title", "id"]
    with pytest.raises(ConfigError, match="names no field"):
        read_items(TOY, text=" , ")


def test_a_misspelt_field_lists_near_matches_and_fields_found(tmp_path):
    path = write_records(tmp_path / "a.jsonl", TOY)
    assert refusal(path, text="titel,brand") == (
        f'{path}: no item has the text field "titel". Did you mean "title"? Fields found: brand, categories, id, title.'
    )


def test_an_object_is_an_error_where_chosen_and_skipped_where_found(tmp_path):
    records = [{"id": 1, "title": "x", "meta": "word"}, {"id": 2, "title": "y", "meta": {"a": 1}}]
    path = write_records(tmp_path / "a.jsonl", records)
    assert f'{path}:2: field "meta" holds an object; expected text.' in refusal(path, text="title,meta")
    warnings: list[str] = []
    assert list(read_items(path, on_warning=warnings.append).fields) == ["title"]
    assert warnings == [f'field "meta" is left out: text in some items, but an object at {path}:2.']


def test_items_without_text_are_kept_and_counted(caplog):
    records = [{"id": i, "title": "x" if i < 2 else "&nbsp;"} for i in range(1200)]
    warnings: list[str] = []
    assert len(read_items(records, on_warning=warnings.append)) == 1200
    assert warnings == ["1,198 items of 1,200 have no text; they still get IDs."]
    with caplog.at_level(logging.WARNING, "semid"):
        read_items([{"id": "a", "title": "x"}, {"id": "b"}])
    assert caplog.messages == ["1 item of 2 has no text; it still gets an ID."]


# ---- which fields are text: by the share of their values ------------------------------------------------


def chosen_and_left_out(columns, **options):
    """Read columns of strings; return the fields taken as text, and the warnings."""
    warnings: list[str] = []
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    records = [{"id": f"item{i}", **row} for i, row in enumerate(rows)]
    items = read_items(records, on_warning=warnings.append, **options)
    other = read_items(records[::-1], on_warning=str, **options)
    assert (list(other.fields), other.left_out) == (list(items.fields), items.left_out)
    return list(items.fields), warnings


def test_one_value_with_a_letter_does_not_make_numbers_text():
    columns = {
        "title": [f"lamp {i}" for i in range(10)],
        "code": ["80442957X" if i == 3 else f"80442957{i}" for i in range(10)],
        "Year": ["N/A" if i == 2 else f"{1980 + i // 2}" for i in range(10)],
        "zip": ["K1A" if i == 5 else f"0213{i // 3}" for i in range(10)],
        "image": ["none" if i == 1 else f"https://x.org/{i}.jpg" for i in range(10)],
    }
    fields, warnings = chosen_and_left_out(columns)
    assert fields == ["title"]
    left_out = "text from title; left out: Year (numbers), code (identifiers), image (links), zip (numbers)"
    assert warnings == [left_out + "; choose fields with --text"]
    assert chosen_and_left_out(columns, text="title,code")[0] == ["title", "code"]


@pytest.mark.parametrize("empty", ["N/A", "NA", "nan", "NaN", "None", "null", "\\N", "-", "unknown", ""])
def test_words_for_nothing_count_as_empty(empty):
    columns = {"title": ["lamp"] * 10, "pages": [empty] * 7 + ["120", "80", "95"], "color": [empty] * 9 + ["red"]}
    assert chosen_and_left_out(columns)[0] == ["title", "color"]


@pytest.mark.parametrize(
    "codes",
    [
        [f"B00{i}56YJA" for i in range(10, 50)],
        [f"sku-{i:05}" for i in range(40)],
        [f"804429570{i}" if i % 3 else f"B0{i}44295" for i in range(40)],  # digits alone in some
        [f"{i:08x}-6b1d-4c2e-9d7a-0242ac13{i:04x}" for i in range(40)],
    ],
    ids=["letters and digits", "a prefix", "mixed", "uuid"],
)
def test_identifiers_and_constants_are_left_out(codes):
    n = len(codes)
    columns = {"kind": ["red lamp" if i % 2 else "blue lamp" for i in range(n)], "code": codes, "shop": ["main"] * n}
    fields, warnings = chosen_and_left_out(columns)
    assert fields == ["kind"]
    left_out = "text from kind; left out: code (identifiers), shop (constant); choose fields with --text"
    assert warnings == [left_out]


@pytest.mark.parametrize(
    "values",
    [
        [("red", "blue", "green")[i % 3] for i in range(40)],  # a color
        [("S", "M", "L", "3XL")[i % 4] for i in range(40)],
        [f"{5 * (i % 4 + 1)}ml" for i in range(40)],  # codes that repeat
        [f"maker{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(40)],  # one word, all distinct
        [f"red-lamp-{i}" for i in range(40)],  # a slug holds words
        [f"红色指甲油{i}号" for i in range(40)],  # no blanks between words
        [f"Vol. {i}" for i in range(40)],
        ["prize"] + [""] * 39,  # says much about one item
        ["12" if i % 3 == 0 else "twelve" for i in range(40)],
    ],
)
def test_columns_of_words_stay(values):
    assert chosen_and_left_out({"x": values}) == (["x"], []) or "" in values
    assert chosen_and_left_out({"title": ["lamp"] * 40, "x": values}) == (["title", "x"], [])


def test_a_few_values_are_not_taken_for_identifiers_or_a_constant():
    assert chosen_and_left_out({"model": ["x100", "t5", "m10"], "maker": ["fuji"] * 3}) == (["maker", "model"], [])


def test_well_known_names_stay_whatever_they_hold():
    columns = {"title": [f"mp{i}x" for i in range(20)], "brand": ["OPI"] * 20, "category": ["12"] * 20}
    assert chosen_and_left_out(columns) == (["title", "brand", "category"], [])


def test_kept_fields_are_text_whatever_they_hold_and_nothing_is_said_of_the_others():
    columns = {"title": ["lamp"] * 9, "code": [f"b{i}" for i in range(9)], "year": ["1990"] * 9, "size": ["1"] * 9}
    assert chosen_and_left_out(columns, keep=["code", "year"]) == (["title", "code", "year"], [])


def test_without_text_the_error_names_the_numeric_fields():
    items = read_items([{"id": i, "price": i, "year": "1990", "image": "http://x.org/a"} for i in range(3)])
    assert items.sorted().left_out == {"image": "links", "price": "numbers", "year": "numbers"}
    with pytest.raises(InputError) as caught:
        items.sorted().require_text()
    assert str(caught.value) == (
        "items: no text field; numeric fields: price, year; left out: image (links). Name text fields with --text, or "
        "give vectors with --embeddings."
    )
    with pytest.raises(InputError, match=r"items: no item has text in title\. Name text"):
        Items(["a"], {"title": [""]}).require_text()
    Items(["a", "b"], {"title": ["", "x"]}).require_text()


# ---- mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"a": "x", "b": 1}'], ':1: missing field "id" (have: a, b). Use --id-field to name another.'),
        (["{}"], ':1: missing field "id" (the record is empty).'),
        (['{"id": 1}', "", '{"id": 1}'], ':3: duplicate id "1" (first at line 1). Keep one of them'),
        (['{"id": 1}', '{"id": 2 x}'], ":2: broken JSON at column 10: "),
        (['{"id": 1}', "[1]"], ":2: expected an object {...}, got a list."),
        (['{"id": 1}', "null"], ":2: expected an object {...}, got null."),
        (['{"id": 1}', '"x"'], ":2: expected an object {...}, got a string."),
        (['{"id": 1}', "3"], ":2: expected an object {...}, got a bare value."),
        (['[{"id": 1},'], ": the JSON ends too early, in line 1: the file is cut short."),
        (["{", '"id": 1', '"title": "x"}'], ": broken JSON in line 3: Expecting ',' delimiter."),
        (['{"id": 1}', '{"id": null}'], ":2: id is null; expected a string or an integer."),
        (['{"id": ""}'], ":1: id is empty; "),
        (['{"id": true}'], ":1: id is true; "),
        (['{"id": 1.5}'], ":1: id is 1.5; "),
        (['{"id": "\\ud800"}'], ':1: id "\\ud800" holds a lone surrogate'),
        (['{"id": {"a": 1}}'], ":1: id is an object; "),
        (['{"id": 1}', b'{"id": "caf\xe9"}'], ":2: not UTF-8: byte 0xe9. Name the encoding, e.g. --encoding latin-1."),
        (['{"id": 1}', '{"id": ' + "[" * 100_000], ":2: the JSON is nested too deeply."),
        (['{"id": 1}', '{"id": ' + "9" * 5000 + "}"], ":2: broken JSON: Exceeds the limit"),
        ([], ": no items. "),
        (["", "  ", ""], ": no items. "),
    ],
)  # fmt: skip
def test_a_bad_jsonl_line_is_named(tmp_path, lines, message):
    path = write_lines(tmp_path / "items.jsonl", *lines)
    assert refusal(path).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,title", "1,a", "2,b,c"], ":3: 3 columns, but the header has 2. Quote cells that hold commas"),
        (["id,title", "1"], ":2: 1 columns, but the header has 2."),
        (["id,title", '1,"two', 'lines"', "2,b,c"], ":4: 3 columns"),
        (["id,title", '1,"never closed', "2,b"], ":2: broken CSV: a quoted cell opens here and never ends"),
        (["id,title", '1,"a"b'], ":2: broken CSV: "),
        (["id,title,title", "1,a,b"], ':1: two columns are named "title". Rename one.'),
        (["title", "x"], ':2: missing field "id" (have: title).'),
        (["id,title", ",x"], ":2: id is empty; "),
        (["id,title", "1,a", b"2,caf\xe9"], ":3: not UTF-8: byte 0xe9. Name the encoding"),
        (["id,title"], ": no items. "),
        ([], ": no items. "),
    ],
)
def test_a_bad_csv_row_is_named_by_its_first_line(tmp_path, lines, message):
    path = write_lines(tmp_path / "items.csv", *lines)
    assert refusal(path).startswith(f"{path}{message}")


def test_bad_parquet_rows_and_files_are_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "a"], "title": ["x", "y", "z"]}), path)
    told = f'{path}, row 3: duplicate id "a" (first at row 1). Keep one of them, perhaps with --duplicates first.'
    assert refusal(path) == told
    latin = pa.array([b"ok", b"caf\xe9"]).cast(pa.string(), safe=False)
    offsets = pa.StringArray.from_buffers(2, *latin.buffers()[1:])
    pq.write_table(pa.table({"id": ["a", "b"], "title": offsets}), path)
    assert refusal(path).startswith(f"{path}, row 2: not UTF-8: byte 0xe9.")
    pq.write_table(pa.table({"id": ["a"], "tags": [["x"]]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"element", b"\x90lement"))
    assert refusal(path).startswith(f"{path}: not a readable Parquet file: ")
    path.write_bytes(path.read_bytes()[:-9])
    assert refusal(path).startswith(f"{path}: not a readable Parquet file: ")


def test_a_row_far_into_a_parquet_file_keeps_its_number(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"id": [*range(10_000), 77]}), tmp_path / "a.parquet", row_group_size=3000)
    assert "a.parquet, row 10001: duplicate id" in refusal(tmp_path / "a.parquet")


def test_arrow_dates_are_read_on_request_in_utc():
    pa = pytest.importorskip("pyarrow")
    noon = pa.array([datetime(2024, 7, 1, 12, tzinfo=UTC)], pa.timestamp("s", "Europe/Paris"))
    table = pa.table({"id": [1], "when": noon})
    assert list(iter_records(table)) == [(1, {"id": 1})]
    assert list(iter_records(table, keep="when".__eq__)) == [(1, {"id": 1, "when": "2024-07-01 12:00:00"})]


def test_the_row_number_column_that_pandas_writes_is_dropped(tmp_path):
    path = write_lines(tmp_path / "a.csv", ",id,title", "0,a,x", "1,b,y")
    assert list(iter_records(path)) == [(2, {"id": "a", "title": "x"}), (3, {"id": "b", "title": "y"})]


def test_many_problems_keep_ten_messages():
    problems = Problems("x")
    for line in range(1000):
        problems.add(line, f"wrong in {line}.")
    assert (len(problems.shown), problems.total) == (10, 1000)


def test_ten_problems_are_shown_and_all_are_counted(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", *(f'{{"id": {i // 2}}}' for i in range(60)), "{")
    lines = refusal(path).splitlines()
    assert len(lines) == 11
    assert lines[0].startswith(f"{path}:2: duplicate")
    assert lines[-1] == "... and 21 more"


def test_a_truncated_or_damaged_gzip_is_an_input_error(tmp_path):
    lines = "".join(f'{{"id": {i}, "title": "{random.Random(i).random()}"}}\n' for i in range(5000))
    data = gzip.compress(lines.encode())
    path = tmp_path / "a.jsonl.gz"
    for cut in (3, 15, 2000, len(data) - 4):
        path.write_bytes(data[:cut])
        assert "the gzip data end too early: the file is cut short. Copy it again." in refusal(path)
    path.write_bytes(data[:9000] + b"\xff" * 50 + data[9050:])
    assert "gzip data are damaged" in refusal(path)
    path.write_bytes(b"{}" + data)
    assert refusal(path) == f"{path}: is not text (it begins with 7b 7d 1f 8b 08 00 ...). Is this the right file?"


def test_unreadable_paths_say_why(tmp_path, monkeypatch):
    assert refusal(tmp_path / "none.jsonl") == f"{tmp_path}/none.jsonl: no such file. Check the path."
    assert refusal(tmp_path).startswith(f"{tmp_path}: is a folder without a file of records.")
    assert "no such file" in refusal("a\0b.jsonl")
    assert "cannot tell the format" in refusal(write_lines(tmp_path / "a.bin", "just words"))

    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    path = write_records(tmp_path / "a.jsonl", TOY)
    monkeypatch.setattr("builtins.open", denied)
    assert refusal(path) == f"{path}: cannot be read: Permission denied."


@pytest.mark.parametrize("source", [42, None, b"items.jsonl", {"a": 1}])
def test_a_source_of_no_known_kind_is_refused(source):
    assert refusal(source).startswith(f"source={type(source).__name__}: expected a path")


def test_records_that_are_no_dicts_are_named_by_position():
    assert refusal([{"id": 1}, "x"]) == "items[1]: expected a dict, got str."


def test_iter_records_streams_and_raises_at_its_end(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", '{"id": 1}', "broken", '{"id": 2}')
    stream = iter_records(path)
    assert [next(stream), next(stream)] == [(1, {"id": 1}), (3, {"id": 2})]
    with pytest.raises(InputError, match=r"a\.jsonl:2: broken JSON"):
        next(stream)


def test_nan_and_infinity_in_json_are_numbers_without_text(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", '{"id": 1, "title": "x", "n": NaN}', '{"id": 2, "n": -Infinity}')
    assert read_items(path, on_warning=str).fields == {"title": ["x", ""]}
    assert read_items(path, text="n", on_warning=str).fields == {"n": ["", ""]}


def test_progress_goes_to_standard_error_only_when_asked(capsys):
    read_items(TOY)
    assert capsys.readouterr() == ("", "")
    show_progress(True)
    try:
        read_items(TOY)
    finally:
        show_progress(None)
    out, err = capsys.readouterr()
    assert out == "" and "reading items" in err


def test_items_tell_what_they_hold_and_can_be_looped_over():
    items = read_items(TOY)
    assert repr(items) == "Items(3 items; title, brand, categories)" and len(items) == 3
    assert list(items)[0] == {"id": "B1", "title": "Red polish", "brand": "OPI", "categories": "Nails, Polish"}
    assert [item["id"] for item in items] == ["B1", "B2", "3"]
    assert repr(Items(["a"], {})) == "Items(1 items; no text)" and list(Items(["a"], {})) == [{"id": "a"}]
