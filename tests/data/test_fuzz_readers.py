"""Whatever the bytes, reading ends in items or in an InputError; whatever the strings, they come back."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semid.data import read_interactions, read_items
from semid.data.values import clean_text, text_of
from semid.errors import InputError

untimed = settings(deadline=None)  # a slow machine decides nothing here
NAMES = ["a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet", "a.unknown"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)
known_names = st.sampled_from(
    ["id", "title", "tags", "user", "items", "item", "time", "x", "foo_id", "history", "date", "clicked_at"]
)
field_names = known_names | st.text(st.characters())
records = st.lists(st.dictionaries(field_names, json_values, max_size=5), max_size=6)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
catalogs = st.dictionaries(ids, unicode_text, min_size=1, max_size=8)


def read_both(source) -> None:
    """Read as items, found and chosen, and as interactions: InputError is the only way to fail."""
    for read in (
        lambda: read_items(source, on_warning=str),
        lambda: read_items(source, text=["title", "x"], on_warning=str),
        lambda: read_interactions(source),
    ):
        with contextlib.suppress(InputError):
            read()


def in_file(name: str, data: bytes, read):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        return read(path)


@untimed
@given(name=st.sampled_from(NAMES), data=st.binary(max_size=200))
@example("a.unknown", b"PAR1")
@example("a.jsonl", b"\x1f\x8b")
@example("a.csv", b'id,title\n"\r\r\n,\x00"x')
@example("a.csv", b"id,title\r1,x\r2,y\r")
@example("a.jsonl", "\ufeff".encode("utf-16"))
def test_arbitrary_bytes_raise_input_errors_only(name, data):
    in_file(name, data, read_both)


PIECES = [
    b'{"id": 1, "title": "x"}', b'{"user": "u", "items": ["a"]}', b"id,title", b"user,item,time", b"1,x",
    b'2,"y"', b"\n", b"\r\n",
    b"\xff", b"\x00", b'"', b",", b"\t", b"[", b"{", b"}", b" ", b"\xef\xbb\xbf", b"PAR1",
]  # fmt: skip


@untimed
@given(
    name=st.sampled_from(NAMES),
    pieces=st.lists(st.sampled_from(PIECES), max_size=12),
    zipped=st.booleans(),
    cut=st.integers(0, 40),
)
def test_mangled_files_raise_input_errors_only(name, pieces, zipped, cut):
    data = b"".join(pieces)
    data = gzip.compress(data) if zipped else data
    in_file(name, data[: len(data) - cut] if cut < 20 else data, read_both)


@untimed
@given(records)
@example([{"id": "a", "x": 10**400}])
def test_arbitrary_records_raise_input_errors_only(rows):
    read_both(rows)
    lines = "\n".join(map(json.dumps, rows))
    in_file("a.jsonl", lines.encode(), read_both)


@untimed
@given(st.lists(json_values, max_size=4))
def test_arbitrary_json_lines_raise_input_errors_only(values):
    in_file("a.jsonl", "\n".join(map(json.dumps, values)).encode(), read_both)


def jsonl(catalog: dict[str, str], *, ascii_only: bool) -> bytes:
    rows = [{"id": item_id, "title": title} for item_id, title in catalog.items()]
    return "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows).encode()


def separated(catalog: dict[str, str], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("id", "title"), *catalog.items()])
    return text.getvalue().encode()


def parquet(catalog: dict[str, str]) -> bytes:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": list(catalog), "title": list(catalog.values())}), buffer)
    return buffer.getvalue()


WRITERS = {
    "a.jsonl": lambda catalog: jsonl(catalog, ascii_only=False),
    "b.jsonl": lambda catalog: jsonl(catalog, ascii_only=True),
    "a.jsonl.gz": lambda catalog: gzip.compress(jsonl(catalog, ascii_only=False)),
    "a.csv": lambda catalog: separated(catalog, ","),
    "a.tsv": lambda catalog: separated(catalog, "\t"),
    "a.csv.gz": lambda catalog: gzip.compress(separated(catalog, ",")),
    "a.parquet": parquet,
}


@pytest.mark.parametrize("name", WRITERS)
@untimed
@given(catalog=catalogs)
@example(catalog={"\ufeff": "x", "a\r\nb": "\r", '"': '""', "\x00": "\x00", ",\t": "\x1c\x85\u2028"})
def test_any_unicode_comes_back_from_any_format(name, catalog):
    data = WRITERS[name](catalog)
    items = in_file(name, data, lambda path: read_items(path, text="title", on_warning=str))
    assert items.ids == list(catalog)
    assert items.fields["title"] == [clean_text(title) for title in catalog.values()]


@untimed
@given(st.text(st.characters()))
def test_clean_text_is_printable_utf8_without_doubled_blanks(text):
    clean = clean_text(text)
    clean.encode("utf-8")
    assert clean == " ".join(clean.split())
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in clean)


@untimed
@given(st.lists(unicode_text))
def test_joined_lists_hold_each_string_once(strings):
    joined = text_of(strings)
    plain = list(dict.fromkeys(filter(None, map(clean_text, strings))))
    assert joined == ", ".join(plain) == text_of([strings, [strings]])


@untimed
@given(catalogs, st.randoms())
def test_shuffled_catalogs_sort_to_the_same_items(catalog, shuffler):
    rows = [{"id": item_id, "title": title} for item_id, title in catalog.items()]
    first = read_items(rows, on_warning=str).sorted()
    shuffler.shuffle(rows)
    other = read_items(rows, on_warning=str).sorted()
    assert (first.ids, first.fields) == (other.ids, other.fields)
    assert first.ids == sorted(catalog, key=lambda item_id: item_id.encode())
    assert [rows[row]["id"] for row in other.rows] == other.ids
