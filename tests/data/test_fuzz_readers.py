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
from semid.files.reading import Reading, RecordFile
from tests.helpers.record_formats import FORMATS

untimed = settings(deadline=None)  # a slow machine decides nothing here
NAMES = [
    "a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet", "a.unknown", "a.json", "a.txt", "a.dat", "a.inter",
    "a.item", "a.arrow", "a.zip", "a.csv.xz", "a.jsonl.zst",
]  # fmt: skip
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
@example("a.csv", b"\xff\xfea\x00,")
@example("a.arrow", b"ARROW1\x00\x00")
@example("a.zip", b"PK\x03\x04")
@example("a.zip", b"PK\x05\x06" + b"\x00" * 18)
@example("a.bz2", b"BZh9")
@example("a.xz", b"\xfd7zXZ\x00")
@example("a.zst", b"\x28\xb5\x2f\xfd")
@example("a.json", b"[" * 100_000)
@example("a.json", b"{'a': " * 100_000)
@example("a.json", b"{'id': 1, 'x': 1 .__class__}")
@example("a.json", b"{'id': '1', 'x': 9**9**9}")
def test_arbitrary_bytes_raise_input_errors_only(name, data):
    in_file(name, data, read_both)


PIECES = [
    b"[{", b"}]", b"{'id': u'1', 'title': 'x'}", b'{"1": {"title": "x"}, "2": {"title": "y"}}', b'{"u": ["a", "b"]}',
    b"id;title;price", b"1;x;3,5", b"1::Lamp::Drama", b"1|Lamp|x", b"user_id:token\titem_id:token", b"u a b c",
    b"1\t2\t3\t4", b'"', b"'", b"::", b"|", b";", b"\xff\xfe", b"\x00\x00", b"ARROW1", b"PK\x03\x04",
    b"<!DOCTYPE html>",
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
@example(catalog={"0": "<br>"})
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


READINGS = st.fixed_dictionaries(
    {},
    optional={
        "delimiter": st.sampled_from([",", "tab", ";", "|", "::", "space", "e"]),
        "columns": st.sampled_from([("id", "title"), ("user", "item", "time"), ("id",)]),
        "encoding": st.sampled_from(["utf-8", "latin-1", "utf-16", "cp1252", "ascii", "utf-7"]),
        "skip_bad_rows": st.just(True),
        "duplicates": st.sampled_from(["first", "last"]),
    },
)
SOUND = [
    {
        "id": f"{number:03}",
        "user": f"u{number % 3}",
        "item": f"i{number % 4}",
        "title": f"Lamp, no. {number}",
        "time": number,
    }
    for number in range(1, 12)
]


def read_told(source, reading) -> None:
    """Read with whatever options: InputError is the only way to fail."""
    for read in (
        lambda: read_items(source, on_warning=str, **reading),
        lambda: read_items(source, text=["title"], on_warning=str, **reading),
        lambda: read_interactions(RecordFile(source, Reading(**reading))),
    ):
        with contextlib.suppress(InputError):
            read()


@settings(untimed, max_examples=500)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 40),
    reading=READINGS,
)
def test_changed_and_cut_files_of_every_format_raise_input_errors_only(name, changes, cut, reading):
    form = FORMATS[name]
    data = bytearray(form.write(SOUND))
    for place, byte in changes:
        data[place % len(data)] = byte
    data = data[: len(data) - cut] if cut < 20 else data
    in_file(form.name, bytes(data), lambda path: (read_both(path), read_told(path, reading)))


@untimed
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12), reading=READINGS, name=st.sampled_from(NAMES))
def test_mangled_files_read_as_told_raise_input_errors_only(pieces, reading, name):
    in_file(name, b"".join(pieces), lambda path: read_told(path, reading))


@pytest.mark.parametrize("kind", ["id,title\n", "[", '{"a": {"id": 1}, ', "{'id': 1}\n", "id;title\n"])
def test_a_file_that_unpacks_to_very_much_ends_in_an_error(kind, tmp_path):
    """300 MB of one line in 300 KB."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(kind.encode())
        for _ in range(300):
            stream.write(b"x" * 2**20)
    with pytest.raises(InputError, match="bomb.gz"):
        read_items(path)


N = 200_000
LONG = {
    "words of a line": "a" + " x" * N + "\n1\n",
    "digits of a name": "1" * N + "x,title\n1,x\n",
    "digits of a cell": "id,title\n" + "1" * N + "x,b\n",
    "words of a name": "w_" * N + ",b\n1,2\n",
    "tags": "<a>" * N + "<\n",
    "brackets": "[" * N,
    "keys of Python": "{'a': " * N,
    "empty cells": "a;" * N + "\n",
    "quotes": '"' * N + "\n1,2\n",
    "doubled quotes": 'id,title\n1,"' + '""' * N + "\n",
    "colons": ":" * N + "\n1",
    "ranks": '{"id": 1, "x": "1 in ' + "(" * N + '"}\n',
    "dates": '{"id": 1, "x": "' + "1 jan " * N + '"}\n',
    "a cell with a list": '{"id": 1, "x": "[' + "'a' " * N + '"}\n',
    "backslashes of a key": '{"' + "\\\\" * N + '": {"id": 1}}',
    "commas": '{"id": 1, "x": "' + " , " * N + '"}\n',
    "decimals": "id;p\n1;" + "111." * N + "\n",
    "ends of lines": "\r" * N,
}


@pytest.mark.parametrize("suffix", [".csv", ".json", ".txt", ".item"])
@pytest.mark.parametrize("kind", LONG)
def test_long_lines_are_read_in_linear_time(kind, suffix, tmp_path):
    """None is worth a wrong result; a reader that takes quadratic time would need an hour for it."""
    path = tmp_path / f"long{suffix}"
    path.write_text(LONG[kind], encoding="utf-8", newline="")
    read_both(path)
