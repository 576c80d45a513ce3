"""Sources: files are opened for what they hold, unpacked in bounded memory, and named for what they are otherwise."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import lzma
import os
import pickle
import sqlite3
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from semid.data import read_interactions, read_items
from semid.errors import DependencyError, InputError
from semid.files import Reading, iter_records
from semid.files.layout import plain_layout

RECORDS = [{"id": str(n), "title": f"lamp {n}"} for n in range(5)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def read(path, **reading):
    return [record for _, record in iter_records(path, reading=Reading(**reading))]


def refusal(path, **reading) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **reading)
    return str(caught.value)


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    "zip": lambda data: zipped({"items.jsonl": data, "__MACOSX/._items.jsonl": b"x", ".DS_Store": b"x"}),
}


# ---- packed files


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", ["items.jsonl.{}", "items.{}", "items.jsonl", "items"])
def test_packed_files_are_unpacked_whatever_they_are_called(tmp_path, packing, name):
    path = tmp_path / name.format(packing)
    path.write_bytes(PACK[packing](LINES))
    assert read(path) == RECORDS
    assert plain_layout(str(path)).compression == {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}.get(packing, packing)


@pytest.mark.parametrize("packing", PACK)
def test_packed_standard_input_is_unpacked(monkeypatch, packing):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PACK[packing](LINES))))
    assert read("-") == RECORDS


@pytest.mark.parametrize("packing", PACK)
def test_a_pipe_into_standard_input_is_read(monkeypatch, packing):
    out, into = os.pipe()
    with os.fdopen(into, "wb") as pipe:
        pipe.write(PACK[packing](LINES))
    with os.fdopen(out, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        assert read("-") == RECORDS


@pytest.mark.parametrize("packing", PACK)
def test_cut_and_damaged_packings_are_named(tmp_path, packing):
    noise = np.random.default_rng(0).integers(0, 1 << 60, 60_000)
    data = PACK[packing]("".join(f'{{"id": {n}}}\n' for n in noise).encode())
    path = tmp_path / "items.jsonl"
    path.write_bytes(data[: len(data) // 2])
    assert "Copy it again." in refusal(path)
    path.write_bytes(data[:300_000] + b"\xff" * 64 + data[300_064:])
    assert "Copy it again." in refusal(path)


def test_a_zip_of_several_files_lists_them(tmp_path):
    path = tmp_path / "items.zip"
    path.write_bytes(zipped({"a.csv": b"id\n1\n", "b.csv": b"id\n2\n"}))
    assert refusal(path) == f"{path}: is a zip archive with 2 files: a.csv, b.csv. Unpack it, and pass one file."
    path.write_bytes(zipped({}))
    assert "with no file" in refusal(path)


def test_a_bomb_without_a_line_end_is_refused_in_bounded_memory(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
    tracemalloc.start()
    try:
        assert refusal(path).startswith(f"{path}:1: more than 64 MiB in one line, which is no record.")
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


# ---- encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_tell_the_encoding(tmp_path, encoding):
    path = tmp_path / "items.csv"
    path.write_bytes("id,title\r\n1,Lampe d'été\r\n".encode(encoding))
    assert read(path) == [{"id": "1", "title": "Lampe d'été"}]
    path.write_bytes(gzip.compress('{"id": 1, "title": "日本 \U0001f484"}\n'.encode(encoding)))
    assert read(path) == [{"id": 1, "title": "日本 \U0001f484"}]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be", "shift_jis", "gb18030"])
def test_an_encoding_can_be_named(tmp_path, encoding):
    text = {"latin-1": "été", "cp1252": "l’été", "shift_jis": "日本"}.get(encoding, "été 日本")
    path = tmp_path / "items.csv"
    path.write_bytes(f"id,title\n1,{text}\n".encode(encoding) * 1)
    assert read(path, encoding=encoding) == [{"id": "1", "title": text}]


def test_utf_16_without_a_mark_is_named(tmp_path):
    for encoding in ("utf-16-le", "utf-16-be"):
        path = tmp_path / "items.csv"
        path.write_bytes("id,title\n1,lamp\n".encode(encoding))
        assert f"without a byte order mark. Use --encoding {encoding}" in refusal(path)


@pytest.mark.parametrize(("byte", "encoding"), [(0xE9, "latin-1"), (0x92, "cp1252"), (0x81, "latin-1")])
def test_bytes_that_are_not_utf_8_name_an_encoding_that_reads_them(tmp_path, byte, encoding):
    path = tmp_path / "items.csv"
    path.write_bytes(b"id,title\n1,ok\n2,caf" + bytes([byte]) + b"\n3,x" + bytes([byte]) + b"\n")
    message = f"not UTF-8: byte 0x{byte:02x}. Name the encoding, e.g. --encoding {encoding}."
    assert refusal(path) == f"{path}: 2 rows: {message} Lines 3, 4."
    assert [record["id"] for record in read(path, encoding=encoding)] == ["1", "2", "3"]


def test_a_wrong_encoding_is_named_with_its_line(tmp_path):
    path = tmp_path / "items.csv"
    path.write_bytes("id,title\n1,x\n2,é\n".encode())
    assert (
        refusal(path, encoding="ascii")
        == f"{path}:3: not ascii: byte 0xc3 (ordinal not in range(128)). Correct --encoding."
    )
    path.write_bytes("id,title\n1,x".encode("utf-16")[:-1])
    assert "not utf-16-le: " in refusal(path)


def test_an_encoding_of_characters_over_the_end_of_a_chunk(tmp_path):
    path = tmp_path / "items.csv"
    rows = [f"{n},{'日本' * 50}" for n in range(9_000)]
    path.write_bytes(("id,title\n" + "\n".join(rows)).encode("gb18030"))
    assert [",".join(record.values()) for record in read(path, encoding="gb18030")] == rows


# ---- what a file is not


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table items (id)")
    return connection.serialize()


def saved(write) -> bytes:
    data = io.BytesIO()
    write(data)
    return data.getvalue()


FOREIGN = {
    "Excel": zipped({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<x/>"}),
    "SQLite": database(),
    "pickle": pickle.dumps({"id": 1}),
    "PDF": b"%PDF-1.7\n",
    "web page": b"\n<!DOCTYPE html>\n<html></html>",
    "XML": b'<?xml version="1.0"?><items/>',
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "NumPy array": saved(lambda file: np.save(file, np.zeros(3))),
    "npz": saved(lambda file: np.savez(file, v=np.zeros(3))),
    "image": b"\x89PNG\r\n\x1a\n",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "tar archive": b"a.csv".ljust(257, b"\0") + b"ustar\x0000",
    "is not text": bytes(range(256)) * 9,
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["items.jsonl", "items.csv", "items"])
def test_other_files_are_named_for_what_they_are(tmp_path, kind, name):
    path = tmp_path / name
    path.write_bytes(FOREIGN[kind])
    assert kind in refusal(path)
    path.write_bytes(gzip.compress(FOREIGN[kind]))
    assert refusal(path)


def test_pipes_devices_and_missing_files_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a named pipe. Pass - " in refusal(tmp_path / "pipe")
    assert "is a device" in refusal("/dev/zero")
    assert refusal(tmp_path / "none.csv") == f"{tmp_path / 'none.csv'}: no such file. Check the path."
    out, into = os.pipe()
    with os.fdopen(into, "wb") as pipe:
        pipe.write(LINES)
    assert read(f"/dev/fd/{out}") == RECORDS
    os.close(out)


# ---- tables


def parquet(table) -> bytes:
    return saved(lambda file: pq.write_table(table, file))


def stream(table) -> bytes:
    def write(file):
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)

    return saved(write)


TABLES = {
    "parquet": parquet,
    "feather": lambda table: saved(lambda file: feather.write_feather(table, file)),
    "arrow": stream,
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", ["items.{}", "items.csv", "items"])
def test_tables_are_read_whatever_they_are_called_and_packed(tmp_path, kind, name, monkeypatch):
    data = TABLES[kind](pa.Table.from_pylist(RECORDS))
    path = tmp_path / name.format(kind)
    path.write_bytes(data)
    assert read(path) == RECORDS
    path.write_bytes(gzip.compress(data))
    assert read(path) == RECORDS
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read("-") == RECORDS
    path.write_bytes(data[: len(data) - 12])
    assert kind == "arrow" or "not a readable" in refusal(path)  # a stream may end anywhere


def test_objects_of_tables_are_dicts_and_what_is_not_read_is_said(tmp_path):
    rows = [{"id": 1, "details": {"Material": "copper"}, "genres": [{"name": "War"}], "vector": [0.5, 1.0]}]
    rows[0] |= {"image": {"bytes": b"x", "path": "a"}, "out": datetime.date(1995, 1, 2), "title": "Lamp"}
    path = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    kept = {"id": 1, "details": {"Material": "copper"}, "genres": [{"name": "War"}], "title": "Lamp"}
    assert read(path) == [kept]
    asked = [record for _, record in iter_records(path, keep={"out", "vector"}.__contains__)]
    assert asked == [kept | {"vector": [0.5, 1.0], "out": "1995-01-02"}]
    said: list[str] = []
    items = read_items(path, on_warning=said.append)
    assert list(items.texts()) == ["Lamp. War"]
    assert {name: items.left_out[name] for name in ("vector", "image", "out")} == {
        "vector": "vectors", "image": "no text", "out": "dates",
    }  # fmt: skip
    assert "out (dates), vector (vectors); choose fields with --text" in said[0]


def test_columns_of_a_table_cannot_be_named(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), path)
    assert refusal(path, columns="a,b") == f"{path}: is a parquet file, whose columns have names. Leave out --columns."
    assert "Leave out --delimiter." in refusal(path, delimiter=";")


# ---- folders


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path):
    for number, record in enumerate(RECORDS, 8):
        (tmp_path / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(json.dumps(record).encode()))
    for name in ("_SUCCESS", ".part-8.crc", "README.md", "dataset_info.json"):
        (tmp_path / name).write_text("x")
    assert read(tmp_path) == RECORDS
    assert [line for line, _ in iter_records(tmp_path)] == [1, 2, 3, 4, 5]


def test_mistakes_in_shards_name_the_shard_and_its_line(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("id,title\n1,x\n2\n")
    (tmp_path / "b.csv").write_text("id,title\n1,y\n3,z,4\n4\n")
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    lines = refusal(tmp_path).splitlines()
    fault = "columns, but the header has 2. Quote cells that hold commas, quotes or line breaks."
    assert lines == [f"{tmp_path}: 2 rows: 1 {fault} At {first}:3, {second}:4.", f"{second}:3: 3 {fault}"]
    (tmp_path / "a.csv").write_text("id,title\n1,x\n")
    (tmp_path / "b.csv").write_text("id,title\n2,y\n1,z\n")
    with pytest.raises(InputError, match=f'{second}:3: duplicate id "1" .first at {first}:2.'):
        read_items(tmp_path)
    (tmp_path / "b.csv").write_text("id,title\n3\n4,x\n")
    assert read(tmp_path, skip_bad_rows=True) == [{"id": "1", "title": "x"}, {"id": "4", "title": "x"}]
    assert f"skipped 1 of 3 rows (first: {second}:2: 1 columns" in caplog.text


def test_folders_that_are_no_data_set_say_what_to_pass(tmp_path):
    (tmp_path / "data").mkdir()
    assert "It holds the folders data; pass one of them." in refusal(tmp_path)
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "b.jsonl").write_text("{}")
    assert "holds files of several formats (csv, jsonl). Pass one of its files." in refusal(tmp_path)
    os.remove(tmp_path / "a.csv")
    for name in ("train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"):
        (tmp_path / name).write_text("{}")
    assert "holds several splits (test, train)" in refusal(tmp_path)


def test_data_sets_saved_to_disk_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(RECORDS)
    saved.save_to_disk(tmp_path / "one", num_shards=2)
    assert read(tmp_path / "one") == RECORDS
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "two")
    message = f"holds the splits test, train. Pass one of them: {tmp_path}/two/test or {tmp_path}/two/train."
    assert message in refusal(tmp_path / "two")
    assert read(tmp_path / "two" / "train") == RECORDS


# ---- the hub


class FakeHub:
    """Stands for the package `datasets`: one data set with two splits, one with a single one."""

    def __init__(self, datasets) -> None:
        self.made, self.asked = datasets.Dataset.from_list(RECORDS), []

    def load_dataset(self, *names):
        self.asked.append(names)
        if names[0] == "no/such":
            raise FileNotFoundError("Dataset 'no/such' doesn't exist on the Hub.")
        return {"train": self.made} if names[0] == "one/split" else {"train": self.made, "test": self.made.select([0])}


def test_data_sets_of_the_hub_are_loaded_by_name(monkeypatch):
    datasets = pytest.importorskip("datasets")
    hub = FakeHub(datasets)
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    assert read("hf://one/split") == RECORDS
    assert read("hf://two/splits:test") == read("hf://two/splits/test") == RECORDS[:1]
    assert read("hf://two/splits/config:test") == RECORDS[:1] and hub.asked[-1] == ("two/splits", "config")
    assert "holds the splits train, test. Name one, e.g. hf://two/splits:train." in refusal("hf://two/splits")
    assert "has no split dev. It has: train, test." in refusal("hf://two/splits:dev")
    assert "cannot be loaded: Dataset 'no/such' doesn't exist" in refusal("hf://no/such")
    assert "is no address of a data set" in refusal("hf://items")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DependencyError, match="needs datasets. Install it with: pip install datasets"):
        read("hf://one/split")


def test_the_layout_of_what_cannot_be_opened_again_is_none(tmp_path):
    assert plain_layout("-") is None and plain_layout(str(tmp_path)) is None
    assert plain_layout(str(Path(tmp_path, "none.csv"))) is None


def test_a_time_of_an_odd_name_in_a_table_is_said_and_can_be_named(tmp_path, caplog):
    path = tmp_path / "log.parquet"
    days = [datetime.datetime(2020, 1, 3), datetime.datetime(2020, 1, 1)]
    pq.write_table(pa.table({"user": ["u", "u"], "item": ["b", "a"], "gesehen": days}), path)
    assert dict(read_interactions(path)) == {"u": ["b", "a"]}
    assert "no time column (columns: user, item, gesehen); using the order of the lines." in caplog.text
    assert dict(read_interactions(path, time_field="gesehen")) == {"u": ["a", "b"]}
