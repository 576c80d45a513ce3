"""Vectors in every format: equal to what was written, found by their ids, and what is wrong named by file and row."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import pickle
import random
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from semid.encoders import read_vectors
from semid.errors import InputError
from semid.runtime.tables import MappedRows, Tables

IDS = ["B1", "007", "é 3", "x", "12", "a,b"]
MATRIX = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def write_csv(path, ids, matrix, delimiter=",", header=True):
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter=delimiter)
        if header:
            rows.writerow(["id", *(f"d{dim}" for dim in range(matrix.shape[1]))])
        rows.writerows([name, *row] for name, row in zip(ids, matrix.tolist(), strict=True))


def write_list_cells(path, ids, matrix):
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title", "embedding"])
        rows.writerows([name, f"about {name}", str(row)] for name, row in zip(ids, matrix.tolist(), strict=True))


def lines(ids, matrix):
    return [{"title": "t", "id": name, "embedding": row} for name, row in zip(ids, matrix.tolist(), strict=True)]


def wide_table(ids, matrix):
    return pa.table({"id": ids} | {f"d{dim}": matrix[:, dim] for dim in range(matrix.shape[1])})


def list_table(ids, matrix):
    return pa.table({"id": ids, "v": pa.array(matrix.tolist(), pa.list_(pa.float32()))})


def write_stream(path, table):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def words(ids):
    return [name.replace(" ", "_").replace(",", "_") for name in ids]


def write_word2vec(path, ids, matrix, header=True):
    with open(path, "w", encoding="utf-8") as file:
        if header:
            file.write(f"{len(ids)} {matrix.shape[1]}\n")
        for name, row in zip(ids, matrix.tolist(), strict=True):
            file.write(f"{name} {' '.join(map(repr, row))}\n")


def write_text(path, text, pack=bytes):
    path.write_bytes(pack(text.encode()))


def write_tensors(path, ids, matrix):
    torch.save({"ids": list(ids), "vectors": torch.tensor(matrix)}, path)


WRITERS = {
    "npz": ("v.npz", lambda p, i, m: np.savez(p, ids=np.array(i), vectors=m)),
    "npz packed": ("v.npz", lambda p, i, m: np.savez_compressed(p, asins=np.array(i), vectors=m)),
    "npz columns": ("v.npz", lambda p, i, m: np.savez_compressed(p, item_ids=np.array(i), v=np.asfortranarray(m))),
    "pt": ("v.pt", write_tensors),
    "pt under another name": ("v.bin", write_tensors),
    "pt before 1.6": (
        "v.pth",
        lambda p, i, m: torch.save({"ids": list(i), "v": torch.tensor(m)}, p, _use_new_zipfile_serialization=False),
    ),
    "pt by id": ("v.pt", lambda p, i, m: torch.save({n: torch.tensor(r) for n, r in zip(i, m, strict=True)}, p)),
    "parquet": ("v.parquet", lambda p, i, m: pa.parquet.write_table(list_table(i, m), p)),
    "parquet by dim": ("v.pq", lambda p, i, m: pa.parquet.write_table(wide_table(i, m), p)),
    "parquet unnamed": ("vectors", lambda p, i, m: pa.parquet.write_table(list_table(i, m), p)),
    "feather": ("v.feather", lambda p, i, m: pa.feather.write_feather(list_table(i, m), p)),
    "arrow stream": ("v.arrow", lambda p, i, m: write_stream(p, list_table(i, m))),
    "arrow stream by dim": ("v.arrow", lambda p, i, m: write_stream(p, wide_table(i, m))),
    "json lines": ("v.jsonl", lambda p, i, m: write_text(p, "\n".join(map(json.dumps, lines(i, m))))),
    "json lines gzipped": (
        "v.jsonl.gz",
        lambda p, i, m: write_text(p, "\n".join(map(json.dumps, lines(i, m))), gzip.compress),
    ),
    "json array": ("v.json", lambda p, i, m: write_text(p, json.dumps(lines(i, m), indent=2), bz2.compress)),
    "json object": (
        "v.json",
        lambda p, i, m: write_text(p, json.dumps(dict(zip(i, m.tolist(), strict=True)), ensure_ascii=False)),
    ),
    "csv": ("v.csv", write_csv),
    "csv without header": ("v.csv", lambda p, i, m: write_csv(p, i, m, header=False)),
    "tsv": ("v.tsv", lambda p, i, m: write_csv(p, i, m, "\t")),
    "semicolons": ("v.csv", lambda p, i, m: write_csv(p, i, m, ";")),
    "cells with lists": ("v.csv", write_list_cells),
}


@pytest.mark.parametrize("form", WRITERS)
def test_rows_are_found_by_their_ids_in_every_format(tmp_path, form):
    name, write = WRITERS[form]
    order = [3, 0, 5, 2, 1, 4]
    write(tmp_path / name, [IDS[row] for row in order], MATRIX[order])
    assert np.array_equal(read_vectors(tmp_path / name, ids=IDS).rows(), MATRIX)
    assert np.array_equal(read_vectors(tmp_path / name).rows(), MATRIX[order])
    with pytest.raises(InputError, match=rf"{name}: .*: no row for 1 items of items\.jsonl: 'other'"):
        read_vectors(tmp_path / name, ids=[*IDS, "other"], source="items.jsonl")
    with Tables(room=0) as tables:  # whatever is not mapped goes into files
        assert np.array_equal(read_vectors(tmp_path / name, ids=IDS, tables=tables).rows([4, 1]), MATRIX[[4, 1]])


@pytest.mark.parametrize("form", [name for name in WRITERS if name != "pt by id" and name != "json object"])
def test_an_id_that_comes_twice_is_refused_in_every_format(tmp_path, form):
    name, write = WRITERS[form]
    write(tmp_path / name, [*IDS[:5], IDS[0]], MATRIX)
    with pytest.raises(InputError, match=r", row 6: 'B1' is on row 1 already"):
        read_vectors(tmp_path / name, ids=IDS)


@pytest.mark.parametrize("header", [True, False], ids=["word2vec", "GloVe"])
@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin", "vectors.w2v"])
def test_words_and_their_vectors_are_read_with_and_without_a_first_line(tmp_path, header, name):
    write_word2vec(tmp_path / name, words(IDS)[::-1], MATRIX[::-1], header)
    assert np.array_equal(read_vectors(tmp_path / name, ids=words(IDS)).rows(), MATRIX)
    (tmp_path / name).write_bytes(lzma.compress((tmp_path / name).read_bytes()))
    assert np.array_equal(read_vectors(tmp_path / name, ids=words(IDS)).rows(), MATRIX)


def test_names_of_word2vec_may_hold_blanks(tmp_path):
    write_word2vec(tmp_path / "v.txt", IDS, MATRIX)
    assert np.array_equal(read_vectors(tmp_path / "v.txt", ids=IDS).rows(), MATRIX)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i2", ">f8"])
def test_integers_and_floats_of_any_size_become_float32(tmp_path, dtype):
    numbers = np.array([[0, 1, 100], [3, 127, 5]]).astype(dtype)
    expected = numbers.astype(np.float32)
    np.save(tmp_path / "v.npy", numbers)
    np.savez(tmp_path / "v.npz", v=numbers)
    found = [read_vectors(tmp_path / name).rows() for name in ("v.npy", "v.npz")]
    if not dtype.startswith(">"):
        torch.save(torch.from_numpy(numbers), tmp_path / "v.pt")
        pa.parquet.write_table(pa.table({"v": pa.array(list(numbers))}), tmp_path / "v.parquet")
        found += [read_vectors(tmp_path / name).rows() for name in ("v.pt", "v.parquet")]
    if dtype[0] in "iu":
        from safetensors.numpy import save_file

        if not dtype.startswith(">"):
            save_file({"v": numbers}, tmp_path / "v.safetensors")
            found.append(read_vectors(tmp_path / "v.safetensors").rows())
    for rows in found:
        assert rows.dtype == np.float32
        assert np.array_equal(rows, expected)


def test_bfloat16_of_torch_is_read(tmp_path):
    tensor = torch.tensor(MATRIX).bfloat16()
    torch.save({"v": tensor, "ids": torch.arange(6)}, tmp_path / "v.pt")
    assert np.array_equal(read_vectors(tmp_path / "v.pt", ids=list("543210")).rows(), tensor.float().numpy()[::-1])


def test_other_shapes_of_torch_files_are_read(tmp_path):
    path = tmp_path / "v.pt"
    for content in (
        torch.tensor(MATRIX),
        torch.nn.Parameter(torch.tensor(MATRIX)),
        torch.tensor(MATRIX.T.copy()).T,
        [torch.tensor(row) for row in MATRIX],
        {"state": {"item.weight": torch.tensor(MATRIX), "bias": torch.zeros(3)}, "epoch": 3},
    ):
        torch.save(content, path)
        assert np.array_equal(read_vectors(path).rows(), MATRIX)


def test_plain_npz_is_mapped_and_packed_npz_is_unpacked_into_a_file(tmp_path):
    np.savez(tmp_path / "v.npz", MATRIX)
    assert isinstance(read_vectors(tmp_path / "v.npz")._array, MappedRows)
    np.savez_compressed(tmp_path / "v.npz", MATRIX)
    assert np.array_equal(read_vectors(tmp_path / "v.npz").rows(), MATRIX)


@pytest.mark.parametrize("suffix", ["npz", "pt", "parquet", "jsonl"])
def test_one_of_several_is_chosen_by_name_or_after_a_number_sign(tmp_path, suffix):
    path = tmp_path / f"v.{suffix}"
    both = {"a": MATRIX, "b": 2 * MATRIX}
    if suffix == "npz":
        np.savez(path, **both)
    elif suffix == "pt":
        torch.save({name: torch.tensor(rows) for name, rows in both.items()}, path)
    elif suffix == "parquet":
        pa.parquet.write_table(pa.table({name: list(rows) for name, rows in both.items()}), path)
    else:
        path.write_text("\n".join(json.dumps({"a": row, "b": [2 * x for x in row]}) for row in MATRIX.tolist()))
    with pytest.raises(
        InputError, match=rf"expected one\. Choose one by its name after #, as in v\.{suffix}#a: a, b\."
    ):
        read_vectors(path)
    for found in (read_vectors(path, name="b"), read_vectors(f"{path}#b")):
        assert np.array_equal(found.rows(), both["b"])
    with pytest.raises(InputError, match=r"no .* 'c'.* there: a, b\."):
        read_vectors(f"{path}#c")


def test_shards_of_text_are_joined_with_their_ids(tmp_path):
    write_csv(tmp_path / "part-2.csv", IDS[:2], MATRIX[:2])
    write_csv(tmp_path / "part-10.csv", IDS[2:], MATRIX[2:])
    assert np.array_equal(read_vectors(tmp_path).rows(), MATRIX)
    assert np.array_equal(read_vectors(tmp_path, ids=IDS[::-1]).rows(), MATRIX[::-1])
    np.save(tmp_path / "v.npy", MATRIX)  # the text then tells about the arrays
    assert np.array_equal(read_vectors(tmp_path).rows(), MATRIX)


@pytest.mark.parametrize("vectors", ["v.csv", "v.npz#second", "v.pt", "v.jsonl.gz"])
def test_fit_learns_the_same_from_the_same_vectors_in_every_format(semid, tmp_path, vectors):
    rows = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    names = [f"i{row}" for row in range(30)]
    (tmp_path / "shop.csv").write_text("sku\n" + "".join(f"{name}\n" for name in names))
    np.save(tmp_path / "plain.npy", rows)
    order = np.random.default_rng(2).permutation(30)
    shuffled, moved = [names[row] for row in order], rows[order]
    write_csv(tmp_path / "v.csv", shuffled, moved)
    write_text(tmp_path / "v.jsonl.gz", "\n".join(map(json.dumps, lines(shuffled, moved))), gzip.compress)
    write_tensors(tmp_path / "v.pt", shuffled, moved)
    np.savez(tmp_path / "v.npz", first=np.zeros((30, 2)), second=moved, sku=np.array(shuffled))
    fit = ("--id-field", "sku", "--method", "rqkmeans", "--levels", "3", "--codebook-size", "4", "--embeddings")
    made = [semid("fit", "shop.csv", "-o", name, *fit, given) for name, given in (("a", "plain.npy"), ("b", vectors))]
    assert [done.code for done in made] == [0, 0], made[1].err
    assert made[0].out == made[1].out


# ---- which column holds the ids -------------------------------------------------------------------------


def test_the_first_column_of_integers_beside_fractions_is_the_ids_and_is_said(tmp_path, caplog):
    (tmp_path / "v.csv").write_text("2,0.5,1\n1,0.25,0.75\n")
    assert read_vectors(tmp_path / "v.csv", ids=["1", "2"]).rows().tolist() == [[0.25, 0.75], [0.5, 1]]
    assert "the first column holds integers and others do not: it is read as the item ids" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "d0,d1,d2\n2,5,1\n1,2,3\n",
        "0,1,2\n2.5,1,3\n",
        "2.0,5.0,1.0\n1.0,2.0,3.0\n",
        "x y z\n2.5 1 3\n",
        "2e0 5e0\n1e0 2e0\n",
    ],
)
def test_numbers_without_ids_go_by_their_order(tmp_path, text):
    (tmp_path / "v.csv").write_text(text)
    last = [float(word) for word in text.split("\n")[-2].replace(",", " ").split()]
    assert (
        read_vectors(tmp_path / "v.csv", ids=[str(row) for row in range(text.count(".5") or 2)][: text.count("\n")])
        .rows()[-1]
        .tolist()
        == last
    )


@pytest.mark.parametrize("text", ["movie,0,1\n2,5,1\n1,2,3\n", ",0,1\n2,5,1\n1,2,3\n", "id,0,1\n2,5,1\n1,2,3\n"])
def test_a_header_tells_which_column_of_integers_holds_the_ids(tmp_path, text):
    (tmp_path / "v.csv").write_text(text)
    assert read_vectors(tmp_path / "v.csv", ids=["1", "2"]).rows().tolist() == [[2, 3], [5, 1]]


def test_decimal_commas_are_read_beside_semicolons(tmp_path):
    (tmp_path / "v.csv").write_text("id;d0;d1\na;0,5;-1,25\n")
    assert read_vectors(tmp_path / "v.csv", ids=["a"]).rows().tolist() == [[0.5, -1.25]]


@pytest.mark.parametrize("cell", ["[0.5, 1.0]", "[0.5 1.]", "(0.5, 1)", "0.5 1", " [ 0.5,1 ] "])
def test_lists_in_cells_are_read_as_people_write_them(tmp_path, cell):
    for text in (f'id,embedding\na,"{cell}"\n', f"embedding\tid\n{cell}\ta\n"):
        (tmp_path / "v.csv").write_text(text)
        assert read_vectors(tmp_path / "v.csv", ids=["a"]).rows().tolist() == [[0.5, 1.0]]


# ---- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.csv", "id,d0,d1\na,1.5,2\nb,1\n", r"v\.csv:3: 2 cells, expected 3 as in the first line"),
        ("v.csv", "id,d0,d1\na,1.5,2\nb,1,two\n", r'v\.csv:3: "two" among the numbers'),
        ("v.csv", "id,d0,d1\na,1.5,2\nb,,2\n", r'v\.csv:3: "" among the numbers'),
        ("v.csv", "id,d0,d1\na,1.5,2\n,1,2\n", r"v\.csv:3: the id is empty"),
        ("v.csv", "id,v\na,[1 2 ... 3]\n", r"v\.csv:2: \.\.\., as NumPy shortens what it prints"),
        ("v.csv", 'id,v\na,"[1, 2]"\nb,"[1]"\n', r"v\.csv:3: 1 numbers, expected 2 as in the first vector"),
        ("v.csv", "id,d0,d0\na,1,2\n", r'v\.csv: two columns are named "d0"'),
        ("v.csv", "id,d0\n", r"v\.csv: a header and no row below it"),
        ("v.csv", "1,2,3\n4,5,6\n", r"v\.csv: all columns hold integers: the first one may be ids or a dim"),
        ("v.csv", "0,1,2\n4,5,6\n", r"v\.csv: all columns hold integers: the first one may be ids or a dim"),
        ("v.csv", "", r"v\.csv: the file is empty"),
        ("v.csv", 'id,d0\na,"1', r"v\.csv:2: unexpected end of data"),
        ("v.csv", "a,b,d0\nx,y,0.5\n", r"several columns may hold the item ids: a, b"),
        ("v.txt", "2 3\na 1 2 3\nb 1 2\n", r"v\.txt:3: 2 numbers after the name, expected 3 as the first line says"),
        ("v.txt", "3 3\na 1 2 3\nb 1 2 3\n", r"v\.txt: 2 rows, the first line says 3\. Is the file cut short"),
        ("v.txt", "1 2\na 1 x\n", r'v\.txt:2: "x" among the numbers'),
        (
            "v.jsonl",
            '{"id": "a", "v": [1]}\n{"id": "b", "v": [1, 2]}\n',
            r'v\.jsonl:2: item "b": 2 numbers, expected 1',
        ),
        ("v.jsonl", '{"id": "a", "v": [1]}\n{"id": "b"}\n', r'v\.jsonl:2: missing field "v" \(have: id\)'),
        (
            "v.jsonl",
            '{"id": "a", "v": [1]}\n{"id": null, "v": [1]}\n',
            r'v\.jsonl:2: field "id" is null; expected the id',
        ),
        ("v.jsonl", '{"id": "a", "v": [1]}\n{"id": "b", "v": [null]}\n', r'v\.jsonl:2: item "b": null where a list of'),
        ("v.jsonl", '{"id": "a", "v": [1]}\n{"id": "b", "v": [1}\n', r"v\.jsonl:2: broken JSON"),
        ("v.jsonl", '{"id": "a", "v": ["1"]}\n', r"v\.jsonl: 0 fields of lists of numbers; expected one"),
        ("v.json", '{"a": [1, 2], "b": "x"}', r"v\.json: field 'b': no row for 2 items of the catalog: 'a', 'b'"),
        ("v.json", '{"a": [1, 2], "b": [1]}', r'v\.json:1: item "b": 1 numbers, expected 2'),
        ("v.json", "[" * 100_000, r"v\.json:1: cannot be read as JSON"),
        ("v.json", '{"a": [1' + "0" * 5000 + "]}", r"v\.json:1: cannot be read as JSON"),
        ("v.json", "[]", r"v\.json: no vectors"),
        ("v.json", '{"\\ud800": [1.5]}', r"v\.json:1: an id holds half of a surrogate pair"),
        (
            "v.jsonl",
            '{"id": "a", "v": [1e999]}\n',
            r"v\.jsonl: 1 rows hold NaN, infinity or numbers beyond float32: 'a'",
        ),
    ],
)
def test_faults_in_text_are_named_by_file_and_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_vectors(tmp_path / name, ids=["a"] if "999" in text else ["a", "b"])


def test_files_of_other_kinds_are_named_for_what_they_are(tmp_path):
    def refused(name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_vectors(tmp_path / name)
        return str(caught.value).removeprefix(f"{tmp_path / name}: ")

    np.savez(tmp_path / "a.npz", v=MATRIX)
    packed = (tmp_path / "a.npz").read_bytes()
    assert refused("v.pt", packed) == "not a file of torch.save by its first bytes, but a .npz file. Name it v.npz."
    assert refused("v.csv", packed) == "not text by its first bytes, but a .npz file. Name it v.npz."
    assert refused("v.npy.gz", gzip.compress(packed)) == "a .npy file that is packed. Unpack it first."
    assert "is a Python pickle, which may run code" in refused("v.pkl", pickle.dumps([1.5]))
    assert "is an HDF5 file" in refused("v.h5", b"\x89HDF\r\n\x1a\n")
    assert "looks like a web page" in refused("v.npy", b"<!DOCTYPE html><html>")
    assert "is a Git LFS pointer" in refused("v.safetensors", b"version https://git-lfs.github.com/spec/v1\n")
    assert "not UTF-8" in refused("v.bin", b"2 2\na " + np.array([0.3, -7.7], np.float32).tobytes() + b"\n")
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as book:
        book.writestr("[Content_Types].xml", "<x/>")
    assert "is an Excel or Word file" in refused("book.xlsx", (tmp_path / "book.xlsx").read_bytes())


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_is_ever_run(tmp_path):
    ran = tmp_path / "ran"
    torch.save({"vectors": torch.ones(2, 2), "ids": Bomb(ran)}, tmp_path / "v.pt")
    torch.save(Bomb(ran), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "v.npz", ids=np.array([Bomb(ran)] * 2, object), vectors=np.ones((2, 2)))
    (tmp_path / "v.bin").write_bytes(pickle.dumps(Bomb(ran)))
    for name in ("v.pt", "old.pt", "v.npz", "v.bin"):
        with pytest.raises(InputError, match=rf"{name}: .*(never loaded|may run code)"):
            read_vectors(tmp_path / name, ids=["a", "b"])
    assert not ran.exists()


def test_endless_lines_are_refused_but_one_line_of_json_may_hold_all(tmp_path, monkeypatch):
    monkeypatch.setattr("semid.files.sources.LINE_LIMIT", 1000)
    (tmp_path / "v.csv").write_bytes(b"id,d0\n" + b"1" * 600_000)
    with pytest.raises(InputError, match=r"v\.csv: .*in one line"):
        read_vectors(tmp_path / "v.csv")
    rows = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    names = [str(row) for row in range(5000)]
    (tmp_path / "v.json").write_text(json.dumps(dict(zip(names, rows.tolist(), strict=True))))
    assert np.array_equal(read_vectors(tmp_path / "v.json", ids=names).rows(), rows)


@pytest.mark.parametrize("chunk", [20, 33, 64])
def test_json_is_read_alike_in_pieces_of_any_length(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("semid.files.formats_json.CHUNK", chunk)
    monkeypatch.setattr("semid.files.sources.HEAD", 250)  # longer than a record, shorter than the object
    content = dict(zip(IDS, MATRIX.tolist(), strict=True))
    for text in (
        json.dumps(content, indent=1),
        json.dumps(lines(IDS, MATRIX)),
        "\n".join(json.dumps(one, ensure_ascii=False) for one in lines(IDS, MATRIX)),
    ):
        (tmp_path / "v.json").write_text(text, encoding="utf-8")
        assert np.array_equal(read_vectors(tmp_path / "v.json", ids=IDS[::-1]).rows(), MATRIX[::-1])


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path):
    path = tmp_path / "v.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"
        archive.writestr("v.npy", header.ljust(127) + b"\n" + bytes(64))
    with pytest.raises(InputError, match="cut short: 64 bytes of numbers, the header says 16000000000000"):
        read_vectors(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    matrix=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(2, 5)),
        elements=st.floats(-1000, 1000, width=32).map(lambda x: x + 0.0),
    ),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_the_same_vectors_come_back_from_every_format(tmp_path_factory, matrix, seed, data):
    names = data.draw(
        st.lists(
            st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=6).map(lambda t: f"i{t}"),
            min_size=len(matrix),
            max_size=len(matrix),
            unique=True,
        )
    )
    order = random.Random(seed).sample(range(len(names)), len(names))
    folder = tmp_path_factory.mktemp("v")
    for form, (name, write) in WRITERS.items():
        path = folder / f"{form.replace(' ', '-')}-{name}"
        write(path, [names[row] for row in order], matrix[order])
        assert np.array_equal(read_vectors(path, ids=names).rows(), matrix), form


# ---- damaged files --------------------------------------------------------------------------------------

KEPT = {
    "npz": 500, "npz packed": 500, "pt": 200, "pt before 1.6": 200, "feather": 500, "arrow stream": 500, "parquet": 500,
    "json lines": 500, "json object": 500, "json lines gzipped": 500, "csv": 500, "cells with lists": 500,
}  # fmt: skip


@pytest.mark.parametrize("form", [*KEPT, "word2vec"])
def test_damaged_files_are_refused_or_read_never_a_crash(tmp_path, form):
    name, write = WRITERS.get(form, ("v.txt", write_word2vec))
    path = tmp_path / name
    write(path, words(IDS), MATRIX)
    whole = path.read_bytes()
    chance = random.Random(form)
    n_refused = 0
    for _ in range(KEPT.get(form, 500)):
        content = bytearray(whole)
        kind = chance.randrange(4)
        at = chance.randrange(len(content))
        if kind == 0:
            del content[at:]
        elif kind == 1:
            del content[at : at + chance.randrange(1, 9)]
        elif kind == 2:
            content[at:at] = chance.randbytes(chance.randrange(1, 5))
        else:
            for _ in range(chance.randrange(1, 4)):
                content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            read_vectors(path, ids=words(IDS))
        except InputError as error:
            assert name in str(error)
            n_refused += 1
    assert n_refused > 20
