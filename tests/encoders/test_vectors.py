"""Vectors from files: equal to what was written, and every damaged file refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from semid.data.items import Items
from semid.encoders import read_vectors
from semid.errors import InputError
from semid.pipeline.embed import given_vectors
from semid.runtime.tables import MappedRows, Tables

IDS = [f"item{i}" for i in range(6)]


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def write_safetensors(path, tensors):
    """By hand, so that bfloat16 needs no torch: {name: (dtype, array of its bytes)}."""
    header, blobs, end = {}, [], 0
    for name, (dtype, array) in tensors.items():
        blob = array.tobytes()
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [end, end + len(blob)]}
        end += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.dtype(">f4")]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.floats(-1000, 1000, width=16),
    ),
    st.booleans(),
)
def test_npy_rows_equal_what_was_saved(tmp_path_factory, array, fortran):
    path = tmp_path_factory.mktemp("v") / "v.npy"
    np.save(path, np.asfortranarray(array) if fortran else array)
    vectors = read_vectors(path)
    assert vectors.shape == array.shape
    assert np.array_equal(vectors.rows(), array.astype(np.float32))
    order = np.arange(len(array))[::-1]
    assert np.array_equal(vectors.rows(order), array[::-1].astype(np.float32))
    assert vectors.rows().dtype == np.float32


def test_safetensors_of_every_float_are_read(tmp_path, matrix):
    half = matrix.astype(np.float16)
    upper = (matrix.view(np.uint32) >> 16).astype(np.uint16)  # truncation to bfloat16
    path = tmp_path / "v.safetensors"
    for dtype, stored, expected in [
        ("F16", half, half.astype(np.float32)),
        ("F32", matrix, matrix),
        ("F64", matrix.astype(np.float64), matrix),
        ("BF16", upper, (upper.astype(np.uint32) << 16).view(np.float32)),
    ]:
        write_safetensors(path, {"only": (dtype, stored)})
        assert np.array_equal(read_vectors(path).rows(), expected), dtype


def test_bfloat16_agrees_with_torch(tmp_path, matrix):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    rounded = torch.from_numpy(matrix).bfloat16()
    save_file({"v": rounded, "count": torch.arange(3)}, tmp_path / "v.safetensors")
    found = read_vectors(tmp_path / "v.safetensors", name="v").rows()
    assert np.array_equal(found, rounded.float().numpy())


def test_chunks_join_to_the_rows(tmp_path, matrix, monkeypatch):
    monkeypatch.setattr("semid.encoders.vectors.BLOCK_BYTES", 2 * 4 * 4)  # two rows at a time
    np.save(tmp_path / "v.npy", matrix)
    vectors = read_vectors(tmp_path / "v.npy", ids=IDS)
    pieces = list(vectors.chunks())
    assert [len(piece) for piece in pieces] == [2, 2, 2]
    assert np.array_equal(np.concatenate(pieces), matrix)
    order = [5, 0, 3]
    assert np.array_equal(np.concatenate(list(vectors.chunks(order))), matrix[order])
    assert np.array_equal(np.asarray(vectors), matrix)


def test_npy_is_mapped_not_loaded(tmp_path, matrix):
    np.save(tmp_path / "v.npy", matrix)
    assert isinstance(read_vectors(tmp_path / "v.npy")._array, MappedRows)


def test_ids_beside_the_file_bring_rows_into_the_order_of_the_items(tmp_path, matrix):
    np.save(tmp_path / "v.npy", matrix)
    (tmp_path / "v.ids.txt").write_text("".join(f"{i}\n" for i in reversed(IDS)))
    vectors = read_vectors(tmp_path / "v.npy", ids=IDS[:4])  # the file may hold more
    assert vectors.shape == (4, 4)
    assert np.array_equal(vectors.rows(), matrix[::-1][:4])
    assert np.array_equal(vectors.rows([3, 0]), matrix[::-1][[3, 0]])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (IDS[:5], r"v\.ids\.txt has 5 lines, .*v\.npy has 6 rows"),
        ([*IDS[:5], "item0"], r"v\.ids\.txt:6: 'item0' is on line 1 already"),
        ([*IDS[:5], "other"], r"no row for 1 items of items\.jsonl: 'item5'"),
    ],
    ids=["too few", "twice", "another item"],
)
def test_a_wrong_list_of_ids_is_refused(tmp_path, matrix, lines, message):
    np.save(tmp_path / "v.npy", matrix)
    (tmp_path / "v.ids.txt").write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        read_vectors(tmp_path / "v.npy", ids=IDS, source="items.jsonl")


def test_another_number_of_rows_is_refused(tmp_path, matrix):
    np.save(tmp_path / "v.npy", matrix[:5])
    with pytest.raises(InputError, match=r"v\.npy has 5 rows, items\.jsonl has 6 items\."):
        read_vectors(tmp_path / "v.npy", ids=IDS, source="items.jsonl")


def test_nan_and_infinity_are_named_by_item(tmp_path, matrix, monkeypatch):
    monkeypatch.setattr("semid.encoders.vectors.BLOCK_BYTES", 2 * 4 * 4)
    matrix[1, 2], matrix[4, 0] = np.nan, -np.inf
    np.save(tmp_path / "v.npy", matrix)
    with pytest.raises(InputError, match=r"2 rows hold NaN.*: 'item1' \(row 1\), 'item4' \(row 4\)\. Repair"):
        read_vectors(tmp_path / "v.npy", ids=IDS)


def test_of_many_bad_rows_ten_are_named(tmp_path):
    np.save(tmp_path / "v.npy", np.full((25, 2), np.nan))
    with pytest.raises(InputError, match=r"25 rows .*row 0, .*row 9 and 15 more"):
        read_vectors(tmp_path / "v.npy")


def test_numbers_beyond_float32_are_named(tmp_path, matrix):
    matrix = matrix.astype(np.float64)
    matrix[3, 3] = 1e300
    np.save(tmp_path / "v.npy", matrix)
    with pytest.raises(InputError, match=r"beyond float32: row 3\."):
        read_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2), np.bool_), r"dtype=bool should be float16.*or integers.*astype\('float32'\)"),
        (np.zeros((3, 2), np.complex64), "dtype=complex64 should be float16"),
        (np.zeros(3, np.float32), r"shape=\(3,\) should be \(items, dims\)"),
        (np.zeros((3, 2, 2), np.float32), r"shape=\(3, 2, 2\) should be"),
        (np.zeros((0, 2), np.float32), r"shape=\(0, 2\) should be"),
        (np.zeros((3, 0), np.float32), r"shape=\(3, 0\) should be"),
        (np.array([["a", 1]], dtype=object), "pickled Python objects, which are never loaded"),
    ],
    ids=["bool", "complex", "1-D", "3-D", "no rows", "no columns", "objects"],
)
def test_wrong_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        read_vectors(tmp_path / "v.npy")


def test_a_pickle_in_the_file_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.save(tmp_path / "v.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="never loaded"):
        read_vectors(tmp_path / "v.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("tensors", "name", "message"),
    [
        (
            {"a": "F32", "b": "F32"},
            None,
            r"2 tensors; expected one\. Choose one by its name after #, as in v\.safetensors#a: a, b",
        ),
        ({"a": "F32"}, "z", r"no tensor 'z'\. Tensors there: a"),
        ({"a": "BOOL"}, None, r"tensor 'a': dtype=BOOL should be float16"),
        ({}, None, "0 tensors; expected one"),
    ],
)
def test_a_wrong_choice_of_tensor_is_refused(tmp_path, tensors, name, message):
    content = {"F32": np.ones((2, 2), np.float32), "BOOL": np.ones((2, 2), np.bool_)}
    write_safetensors(tmp_path / "v.safetensors", {key: (dtype, content[dtype]) for key, dtype in tensors.items()})
    with pytest.raises(InputError, match=message):
        read_vectors(tmp_path / "v.safetensors", name=name)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no\.npy: no such file"):
        read_vectors(tmp_path / "no.npy")
    with pytest.raises(InputError, match=r"v\.csv: no such file"):
        read_vectors(tmp_path / "v.csv")
    np.savez(tmp_path / "v.npz", a=np.ones(2))
    (tmp_path / "v.npz").rename(tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"v\.npy: not a \.npy file by its first bytes, but a \.npz.* Name it v\.npz"):
        read_vectors(tmp_path / "v.npy")
    np.save(tmp_path / "w.npy", np.ones((2, 2)))
    with pytest.raises(InputError, match="name='a' chooses one of several arrays"):
        read_vectors(tmp_path / "w.npy", name="a")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_vectors(tmp_path / "folder.npy")


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_header_is_an_input_error_or_harmless(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("v") / f"v{suffix}"
    array = np.ones((3, 4), np.float32)
    if suffix == ".npy":
        np.save(path, array)
    else:
        write_safetensors(path, {"v": ("F32", array)})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
        refused = True
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 49))] = data.draw(st.integers(0, 255))
        refused = False
    path.write_bytes(content)
    try:
        read_vectors(path)
    except InputError as error:
        assert path.name in str(error)
    else:
        assert not refused


# ---- folders and Parquet --------------------------------------------------------------------------------


def test_shards_follow_each_other_by_the_numbers_in_their_names(tmp_path, matrix):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("not vectors")
    for name, rows in (("part-2.npy", matrix[:3]), ("part-10.npy", matrix[3:5]), ("part-11.npy", matrix[5:])):
        np.save(folder / name, rows)
    vectors = read_vectors(folder, ids=IDS)
    assert np.array_equal(vectors.rows(), matrix)
    for order in ([5, 0, 3, 3], [1, 2], [4], []):
        assert np.array_equal(vectors.rows(order), matrix[order])
    assert np.array_equal(vectors.rows(slice(2, 6)), matrix[2:6])
    (tmp_path / "parts.ids.txt").write_text("".join(f"{i}\n" for i in reversed(IDS)))
    assert np.array_equal(read_vectors(folder, ids=IDS).rows(), matrix[::-1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_any_cut_into_shards_gives_the_same_rows(tmp_path_factory, lengths, data):
    folder = tmp_path_factory.mktemp("v")
    rows = np.random.default_rng(0).normal(size=(sum(lengths), 3)).astype(np.float16)
    for number, part in enumerate(np.split(rows, np.cumsum(lengths)[:-1])):
        write_safetensors(folder / f"{number}.safetensors", {"v": ("F16", part)})
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    assert np.array_equal(read_vectors(folder).rows(order), rows[order].astype(np.float32))


def test_folders_that_make_no_sense_are_refused(tmp_path, matrix):
    with pytest.raises(InputError, match=r"all of one format; found no such file"):
        read_vectors(tmp_path)
    np.save(tmp_path / "a.npy", matrix)
    np.save(tmp_path / "b.npy", matrix[:, :3])
    with pytest.raises(InputError, match=r"the files differ: float32 of 3 dims; float32 of 4 dims\. Write them alike"):
        read_vectors(tmp_path)
    np.save(tmp_path / "b.npy", matrix.astype(np.float16))
    with pytest.raises(InputError, match=r"differ: float16 of 4 dims; float32 of 4 dims"):
        read_vectors(tmp_path)
    write_safetensors(tmp_path / "b.safetensors", {"v": ("F32", matrix)})
    with pytest.raises(InputError, match=r"found \.npy and \.safetensors"):
        read_vectors(tmp_path)


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_a_parquet_column_is_read_in_blocks(tmp_path, matrix, monkeypatch, kind):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    monkeypatch.setattr("semid.encoders.vector_tables.TABLE_ROWS", 4)
    of = {"list": pa.list_(pa.float32()), "large": pa.large_list(pa.float64()), "fixed": pa.list_(pa.float32(), 4)}
    table = pa.table({"id": IDS, "v": pa.array(matrix.tolist(), of[kind])})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=5)
    assert np.array_equal(read_vectors(tmp_path / "v.parquet", ids=IDS).rows([5, 1]), matrix[[5, 1]])
    with Tables(room=0) as tables:  # decoded into a file
        vectors = read_vectors(tmp_path / "v.parquet", ids=IDS, tables=tables)
        assert tables.on_disk == matrix.nbytes
        assert np.array_equal(vectors.rows(), matrix)


def test_parquet_that_holds_no_vectors_is_refused(tmp_path, matrix):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "v.parquet"

    def written(**columns):
        pq.write_table(pa.table(columns), path)
        return path

    with pytest.raises(InputError, match=r"0 columns of lists of numbers; expected one\. .*: none"):
        read_vectors(written(id=IDS, n=[["1", "2"]] * 6))
    with pytest.raises(InputError, match=r"2 columns of lists of numbers; expected one\. .* v\.parquet#a: a, b"):
        read_vectors(written(a=matrix.tolist(), b=matrix.tolist()))
    assert read_vectors(path, name="b").shape == (6, 4)
    with pytest.raises(InputError, match=r"no column 'c' of lists of numbers\. Such columns there: a, b"):
        read_vectors(path, name="c")
    with pytest.raises(InputError, match=r"row 3: column 'v' holds 3 numbers, expected 4 as in row 1"):
        read_vectors(written(v=[row[: 3 if i == 2 else 4] for i, row in enumerate(matrix.tolist())]))
    with pytest.raises(InputError, match=r"row 2: column 'v' holds 0 numbers, expected 4"):
        read_vectors(written(v=[None if i == 1 else row for i, row in enumerate(matrix.tolist())]))
    with pytest.raises(InputError, match=r"1 rows hold NaN.*row 4"):
        read_vectors(written(v=[[None] * 4 if i == 4 else row for i, row in enumerate(matrix.tolist())]))
    with pytest.raises(InputError, match=r"shape=\(0, 0\) should be \(items, dims\)"):
        read_vectors(written(v=pa.array([], pa.list_(pa.float32()))))
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_vectors(path)


def test_vectors_of_a_part_of_a_source_are_refused_with_the_reason():
    items = Items(["a", "b", "c"], {}).take([2])
    with pytest.raises(InputError, match="of a source with 3 rows or more"):
        given_vectors(items, np.ones((1, 4), np.float32))


# ---- ids in the file ------------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path):
    """Write columns into a Parquet file; return its path."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    def written(name="v.parquet", **columns):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), path)
        return path

    return written


@pytest.mark.parametrize("column", ["id", "item_id", "sku", "anything"])
def test_rows_of_parquet_are_found_by_their_ids(parquet, matrix, column, monkeypatch):
    monkeypatch.setattr("semid.encoders.vector_tables.TABLE_ROWS", 4)
    path = parquet(**{column: IDS[::-1], "v": matrix[::-1].tolist()})
    assert np.array_equal(read_vectors(path, ids=IDS, id_field="sku").rows(), matrix)
    items = Items(IDS, {}).take([4, 0, 5, 1, 3, 2])
    assert np.array_equal(given_vectors(items, path)[np.arange(6)], matrix[[4, 0, 5, 1, 3, 2]])


def test_the_id_column_may_be_named_and_may_hold_integers_or_categories(parquet, matrix):
    pa = pytest.importorskip("pyarrow")
    numbers = [5, 4, 3, 2, 1, 0]
    path = parquet(id=range(6), other=numbers, v=matrix[::-1].tolist(), text=pa.array(IDS[::-1]).dictionary_encode())
    names = [str(i) for i in range(6)]
    assert np.array_equal(read_vectors(path, ids=names, id_column="other").rows(), matrix)
    assert np.array_equal(read_vectors(path, ids=names, id_field="other").rows(), matrix)
    assert np.array_equal(read_vectors(path, ids=names).rows(), matrix[::-1])
    assert np.array_equal(read_vectors(path, ids=IDS, id_field="text").rows(), matrix)


def test_without_a_column_of_ids_the_order_of_the_rows_counts(parquet, matrix):
    path = parquet(score=[0.5] * 6, v=matrix.tolist())
    assert np.array_equal(read_vectors(path, ids=IDS).rows(), matrix)


def test_extra_ids_are_left_out_and_counted(parquet, matrix, caplog, tmp_path):
    path = parquet(id=IDS[::-1], v=matrix[::-1].tolist())
    assert np.array_equal(read_vectors(path, ids=IDS[1:3], source="items.jsonl").rows(), matrix[1:3])
    assert caplog.messages == [f"{path}: column 'id': left out 4 vectors of items that items.jsonl does not have"]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"id": [*IDS[:5], "x"]}, {}, "column 'id': no row for 1 items of items.jsonl: 'item5'. Add them."),
        ({"id": [*IDS[:5], "item1"]}, {}, "column 'id', row 6: 'item1' is on row 2 already."),
        ({"id": [*IDS[:5], None]}, {}, ", row 6: column 'id' is empty."),
        ({"id": [0.5] * 6}, {}, "column 'id' holds values of type double; expected one column of item ids"),
        ({"id": IDS}, {"id_column": "sku"}, "no column 'sku'. Columns there: id, v."),
        ({"a": IDS, "b": IDS}, {}, "several columns may hold the item ids: a, b. Rename that column to 'id'"),
        ({"id": IDS, "item_id": IDS}, {"id_field": "sku"}, "several columns may hold the item ids: id, item_id."),
        ({"title": ["lamp"] * 5 + ["rug"]}, {}, "column 'title', row 2: 'lamp' is on row 1 already."),
        ({"title": list("abcdef")}, {}, "If column 'title' does not hold item ids, leave it out"),
    ],
)
def test_parquet_with_wrong_ids_is_refused(parquet, matrix, columns, options, message):
    with pytest.raises(InputError) as caught:
        read_vectors(parquet(**columns, v=matrix.tolist()), ids=IDS, source="items.jsonl", **options)
    assert message in str(caught.value)


def test_of_many_missing_ids_ten_are_named(parquet):
    path = parquet(id=["x"], v=[[1.0]])
    with pytest.raises(InputError, match=r"no row for 25 items of the catalog: '0', .*'9', \.\.\.\. Add"):
        read_vectors(path, ids=[str(i) for i in range(25)])


def test_ids_of_a_folder_of_parquet_are_joined(parquet, matrix):
    parquet("v/part-2.parquet", id=IDS[:2], v=matrix[:2].tolist())
    folder = parquet("v/part-10.parquet", id=IDS[:1:-1], v=matrix[:1:-1].tolist()).parent
    assert np.array_equal(read_vectors(folder, ids=IDS).rows(), matrix)
    parquet("v/part-2.parquet", v=matrix[:2].tolist())
    with pytest.raises(
        InputError, match="the files differ in their ids: part-2.parquet: none; part-10.parquet: column 'id'"
    ):
        read_vectors(folder, ids=IDS)


def test_safetensors_with_a_tensor_of_ids_are_found_by_them(tmp_path, matrix):
    numbers = np.arange(6)[::-1].copy()
    path = tmp_path / "v.safetensors"
    write_safetensors(path, {"ids": ("I64", numbers), "v": ("F32", matrix[::-1].copy())})
    assert np.array_equal(read_vectors(path, ids=[str(i) for i in range(6)]).rows(), matrix)
    with pytest.raises(InputError, match="tensor 'ids': no row for 6 items of the catalog"):
        read_vectors(path, ids=IDS)
    write_safetensors(path, {"ids": ("I64", numbers[:4].copy()), "v": ("F32", matrix)})
    with pytest.raises(InputError, match="tensor 'ids' holds 4 ids for 6 rows"):
        read_vectors(path, ids=IDS)
