"""Catalogs read column by column equal the same catalogs read record by record: ids, texts, choice, words."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from unittest import mock

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semid.data import item_reader, read_items
from semid.data.item_reader import ColumnReader
from semid.data.string_batches import count_kinds, not_plain
from semid.data.text_fields import Tally
from semid.data.values import clean_text
from semid.errors import InputError
from semid.files import row_batches

untimed = settings(deadline=None, max_examples=200)
pieces = st.sampled_from([
    "red", "kohl", "a", "B004756YJA", "7", "1.5", "1e5", "x9", "e9", "9e", "nan", "N/A", "unknown", "yes", "true",
    "null", "http://x.y", "https://x", "2020-01-02", "01-Jan-1995", "Nov 21, 2019", "#3,000 in Toys (See Top 100)",
    "12in", "-", "-5", "1.2.3", "\x7f", "&amp;", "<b>", "<3", 'class="a"', '="', "é", "e\u0301", "日本",
    "\x00", "\t", "\n", "[1]", "['a', 'b']", "{", '{"name": "x"}',
    "", " ", "  ", "A" * 64 + "1", "1" * 70, "q_9", "1_0", "0x1A", "infinity", "$3", "3%", "!",
])  # fmt: skip
strings = (
    pieces | st.lists(pieces, max_size=3).map(" ".join) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)
printable = pieces.filter(str.isprintable)
ascii_strings = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, 0, -0.0, True])
values = st.recursive(
    st.none() | strings | numbers | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "x"]), inner, max_size=2),
    max_leaves=4,
)
columns = st.sampled_from(
    [strings, strings, pieces, ascii_strings, st.none() | strings, numbers, st.none() | st.floats(), values]
)


@st.composite
def catalogs(draw: st.DrawFn) -> list[dict[str, object]]:
    """Records with the same fields, or nearly so."""
    fields = {name: draw(columns) for name in draw(st.sets(st.sampled_from(["title", "brand", "x", "also_buy", "d"])))}
    rows = draw(st.lists(st.fixed_dictionaries(fields), min_size=1, max_size=12))
    ids = st.integers(0, 30) if draw(st.booleans()) else st.integers(0, 10**9)
    records = [{"id": draw(ids), **row} for row in rows]
    if draw(st.integers(0, 3)) == 0:
        record = draw(st.sampled_from(records))
        record.update(draw(st.sampled_from([{"id": ""}, {"id": None}, {"new": "a"}, {"id": "\ud800"}, {}])))
    return records


def outcome(records: list[dict[str, object]] | Path, **options: object) -> object:
    said: list[str] = []
    try:
        items = read_items(records, on_warning=said.append, **options)
    except InputError as error:
        return str(error), said
    return items.ids, list(items.fields.items()), items.left_out, items.rows.tolist(), said


@untimed
@given(
    records=catalogs(),
    batch=st.sampled_from([1, 2, 5, 100]),
    options=st.sampled_from([{}, {}, {"text": "title,x"}, {"keep": ["x"]}, {"id_field": "x"}, {"duplicates": "last"}]),
)
@example(records=[{"id": 1, "x": 10**400}, {"id": 2, "x": 1.5}], batch=2, options={"text": "x"})
def test_records_read_in_batches_equal_records_read_alone(records, batch, options):
    with mock.patch.object(item_reader, "BATCH", batch):
        batches = outcome(records, **options)
    with mock.patch.object(ColumnReader, "_add_alike", return_value=False):
        assert batches == outcome(records, **options)


@untimed
@given(st.lists(strings | ascii_strings, max_size=8))
def test_only_strings_that_are_not_plain_need_cleaning(texts):
    odd = set(not_plain(pa.array(texts, pa.string())).tolist())
    for row, text in enumerate(texts):
        if row not in odd:
            assert clean_text(text) == text
            assert text.isascii()
            assert not text.startswith(("[", "{"))


@untimed
@given(st.lists(st.lists(strings | ascii_strings, max_size=6), max_size=3))
def test_kinds_of_plain_strings_are_counted_as_one_by_one(batches):
    counted, alone = Tally(), Tally()
    for batch in batches:
        clean = [text for text in map(clean_text, batch) if text.isascii()]
        count_kinds(counted, pa.array(clean, pa.string()))
        for text in clean:
            alone.add(text)
    assert (counted.n_phrases, counted.kinds, counted.same) == (alone.n_phrases, alone.kinds, alone.same)
    assert not counted.same or counted.first == alone.first


def test_an_integer_too_long_to_write_out_is_refused_alike():
    records = [{"id": 1, "x": 10**5000, "title": "Lamp"}, {"id": 2, "x": 1, "title": "Vase"}]
    batches = outcome(records)
    with mock.patch.object(ColumnReader, "_add_alike", return_value=False):
        assert batches == outcome(records)


def test_records_with_the_same_fields_are_read_in_batches():
    records = [{"id": i, "title": f"<b>Lamp</b> {i}", "price": i / 2} for i in range(3)]
    with mock.patch.object(ColumnReader, "_add", side_effect=AssertionError):
        items = read_items(records, on_warning=str)
    assert items.fields == {"title": ["Lamp 0", "Lamp 1", "Lamp 2"]}


# ---- CSV files


def file_outcome(path: Path, by_columns: bool, **options: object) -> object:
    if by_columns:
        return outcome(path, **options)
    with (
        mock.patch("semid.data.items.read_rows", return_value=False),
        mock.patch.object(ColumnReader, "_add_alike", return_value=False),
    ):
        return outcome(path, **options)


@untimed
@given(
    header=st.sampled_from(["id,title,x", "id,title,x", ",id,title", "x,id,brand", "id,id,x", "title,x,y"]),
    rows=st.lists(st.tuples(st.sampled_from("abcdefghijkl"), strings | ascii_strings, pieces), min_size=1, max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    damage=st.sampled_from([b"", b"", b"", b"\xff", b'"', b"\n", b",", b"\r", b"\0"]),
    place=st.integers(0, 60),
    block=st.sampled_from([200, 1 << 20]),
    options=st.sampled_from([{}, {}, {"text": "title,x"}, {"text": "title.x"}, {"keep": ["x"]}, {"id_field": "x"}]),
)
def test_rows_read_by_columns_equal_rows_read_by_records(header, rows, quoting, damage, place, block, options):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting).writerows([header.split(","), *rows])
    data = text.getvalue().encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "items.csv")
        path.write_bytes(data[:place] + damage + data[place:])
        with mock.patch.object(row_batches, "BLOCK", block):
            columns = file_outcome(path, True, **options)
        assert columns == file_outcome(path, False, **options)


@untimed
@given(rows=st.lists(st.tuples(printable, printable), min_size=2))
def test_sound_catalogs_are_read_by_columns(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("id", "title", "x"), *((number, *row) for number, row in enumerate(rows))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "items.csv")
        path.write_bytes(text.getvalue().encode())
        with mock.patch("semid.data.items.iter_records", side_effect=AssertionError):
            columns = file_outcome(path, True)
        assert columns == file_outcome(path, False)
