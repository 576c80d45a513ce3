"""Encoding batches: any kind of table, any process, and whole data sets into one file."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid import SemanticIDTokenizer
from semid.data import Items
from semid.data.columns import matrix, values, with_columns
from semid.errors import ArtifactError, ConfigError, InputError, OutputExistsError
from semid.pipeline import batch_encoder as batch_module
from semid.pipeline.batch_encoder import BatchEncoder
from semid.pipeline.dataset_encoder import ROW_GROUP, encode_file
from tests.helpers.recipes import differences

N = 120
NEW = 40  # rows of ROWS that are no item
COLORS = ("red", "blue", "green", "black")
ROWS = [
    {"id": f"item-{n}", "title": f"nail polish {COLORS[n % 4]} shade {n}", "brand": f"brand {n % 9}"}
    for n in range(N + NEW)
]
CHOICES = {"method": "rqkmeans", "levels": 3, "codebook_size": 8, "dim": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("batch") / "ids"
    SemanticIDTokenizer.fit(ROWS[:N], **CHOICES).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def vector_folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "ids"
    SemanticIDTokenizer.fit(ROWS[:N], embeddings=VECTORS[:N], **CHOICES).save_pretrained(path)
    return path


VECTORS = np.random.default_rng(0).normal(size=(N + NEW, 12)).astype(np.float32)


def columns(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in ("id", "title", "brand")}


# ---- what comes out


def test_items_get_their_ids_and_others_their_nearest_codes(folder):
    ids = SemanticIDTokenizer.from_pretrained(folder)
    out = BatchEncoder(folder)(columns(ROWS))
    assert out["known"].tolist() == [True] * N + [False] * NEW
    np.testing.assert_array_equal(out["codes"][:N], ids.encode([row["id"] for row in ROWS[:N]]))
    new = {name: [row[name] for row in ROWS[N:]] for name in ("title", "brand")}
    nearest = ids.encode_vectors(ids.embed(Items([str(n) for n in range(NEW)], new)))
    np.testing.assert_array_equal(out["codes"][N:], nearest)
    assert out["tokens"] == ids.vocabulary.texts(out["codes"])
    assert out["codes"].dtype == np.int32 and out["title"] == columns(ROWS)["title"]


def test_an_item_keeps_its_id_whatever_its_text_says_now(folder):
    encode = BatchEncoder(folder)
    changed = [row | {"title": "quite another thing"} for row in ROWS[:N]]
    assert encode(columns(changed))["tokens"] == encode(columns(ROWS[:N]))["tokens"]


def test_without_an_id_column_no_row_is_known(folder):
    out = BatchEncoder(folder, id_field=None)({"title": ["red polish", None], "brand": ["brand 1", 3]})
    assert not out["known"].any() and out["codes"].shape == (2, 3)
    answers = BatchEncoder(folder, id_field=None).answers({"title": ["red polish", None], "brand": ["brand 1", 3]})
    assert answers.column_names == ["codes", "tokens", "known"]
    assert answers["codes"].to_pylist() == out["codes"].tolist() and answers["tokens"].to_pylist() == out["tokens"]


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, N + NEW), max_size=6), order=st.randoms(use_true_random=False))
def test_a_row_depends_on_itself_alone(folder, cuts, order):
    encode = BatchEncoder(folder)
    expected = dict(zip(columns(ROWS)["id"], encode(columns(ROWS))["tokens"], strict=True))
    rows = order.sample(ROWS, len(ROWS))
    ends = sorted({0, len(rows), *cuts})
    for start, stop in zip(ends, ends[1:], strict=False):
        out = encode(columns(rows[start:stop]))
        assert out["tokens"] == [expected[item] for item in out["id"]]


# ---- kinds of tables


def of_kind(kind: str, rows: list[dict]):
    table = pa.Table.from_pylist(rows)
    if kind == "record batch":
        return table.combine_chunks().to_batches()[0]
    return {"dict": columns(rows), "table": table, "pandas": table.to_pandas()}[kind]


@pytest.mark.parametrize("kind", ["dict", "table", "record batch", "pandas"])
def test_every_kind_of_table_says_the_same(folder, kind):
    encode = BatchEncoder(folder)
    expected = encode(columns(ROWS))
    given_batch = of_kind(kind, ROWS)
    out = encode(given_batch)
    assert type(out) is type(given_batch)
    assert values(out, "id") == expected["id"] and values(out, "tokens") == expected["tokens"]
    assert np.array(values(out, "codes")).tolist() == expected["codes"].tolist()
    assert values(out, "known") == expected["known"].tolist()
    assert "codes" not in given_batch


def test_fields_of_objects_and_lists_in_cells_read_as_in_a_fit(tmp_path):
    rows = [
        {"id": row["id"], "about": {"title": row["title"]}, "tags": json.dumps([{"name": row["brand"]}, {"name": "x"}])}
        for row in ROWS
    ]
    ids = SemanticIDTokenizer.fit(rows[:N], text=["about.title", "tags"], **CHOICES)
    ids.save_pretrained(tmp_path / "ids")
    flat = {"about.title": [row["title"] for row in ROWS], "tags": [f"{row['brand']}, x" for row in ROWS]}
    expected = ids.encode_vectors(ids.embed(Items([row["id"] for row in ROWS], flat)))
    encode = BatchEncoder(tmp_path / "ids", id_field=None)
    batch = {name: [row[name] for row in rows] for name in ("about", "tags")}
    np.testing.assert_array_equal(encode(batch)["codes"], expected)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.parquet"):
        encode_file(BatchEncoder(tmp_path / "ids"), tmp_path / name, tmp_path / "codes.parquet", force=True)
        codes = matrix(pq.read_table(tmp_path / "codes.parquet"), "codes")
        np.testing.assert_array_equal(codes[N:], expected[N:])  # the first N are known by their ids
    grown, report = ids.add(rows)
    assert report.added == NEW and len(grown) == N + NEW


@pytest.mark.parametrize("kind", ["table", "pandas"])
def test_an_empty_batch_keeps_its_columns(folder, kind):
    whole = of_kind(kind, ROWS)
    out = BatchEncoder(folder)(whole.slice(0, 0) if kind == "table" else whole.iloc[:0])
    assert len(out) == 0
    assert {"codes", "tokens", "known"} <= set(out.column_names if kind == "table" else out.columns)
    if kind == "table":
        assert out.schema.field("codes").type == pa.list_(pa.int32())
        assert out.schema.field("tokens").type == pa.string() and out.schema.field("known").type == pa.bool_()


def test_datasets_map(folder):
    from datasets import Dataset

    out = Dataset.from_list(ROWS).map(BatchEncoder(folder), batched=True, batch_size=33)
    expected = BatchEncoder(folder)(columns(ROWS))
    assert out["tokens"][:] == expected["tokens"]
    assert out["codes"][:] == expected["codes"].tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32())),
        pa.array([[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64())).slice(1),
        pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        pa.array([[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)).slice(1),
        pa.array([list(np.float16([1, 2])), list(np.float16([3, 4]))], pa.large_list(pa.float16())),
        pa.array([[1, 2], [3, 4]], pa.list_(pa.int32())),
    ],
    ids=str,
)
def test_vectors_of_any_arrow_list(column):
    assert matrix(pa.table({"v": column}), "v").tolist() == [[1, 2], [3, 4]]
    assert matrix(pa.table({"v": column}).to_pandas(), "v").tolist() == [[1, 2], [3, 4]]


def test_ready_vectors(vector_folder):
    ids = SemanticIDTokenizer.from_pretrained(vector_folder)
    encode = BatchEncoder(vector_folder, vector_column="embedding")
    out = encode({"id": columns(ROWS)["id"], "embedding": VECTORS})
    np.testing.assert_array_equal(out["codes"][:N], ids.encode([row["id"] for row in ROWS[:N]]))
    np.testing.assert_array_equal(out["codes"][N:], ids.encode_vectors(VECTORS[N:]))
    table = pa.table({"id": columns(ROWS)["id"], "embedding": list(VECTORS)})
    assert values(encode(table), "tokens") == out["tokens"]


# ---- processes


def test_it_pickles_into_little_and_opens_late(folder, monkeypatch):
    data = pickle.dumps(BatchEncoder(folder))
    assert len(data) < 1000
    batch_module._opened.cache_clear()
    opened = []
    monkeypatch.setattr(batch_module, "load", lambda path: opened.append(path))
    pickle.loads(data)
    assert not opened


def test_a_process_opens_the_folder_once(folder, monkeypatch):
    batch_module._opened.cache_clear()
    opened, real = [], batch_module.load
    monkeypatch.setattr(batch_module, "load", lambda path: opened.append(path) or real(path))
    for _ in range(3):
        pickle.loads(pickle.dumps(BatchEncoder(folder)))(columns(ROWS[:2]))
    assert len(opened) == 1


@pytest.mark.slow
def test_a_fresh_process_says_the_same(folder):
    encode = BatchEncoder(folder)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(encode, columns(ROWS)).result()
    assert there["tokens"] == encode(columns(ROWS))["tokens"]


def test_a_folder_that_has_changed_is_refused(tmp_path):
    first = SemanticIDTokenizer.fit(ROWS[:N], **CHOICES)
    first.save_pretrained(tmp_path / "ids")
    encode = pickle.loads(pickle.dumps(BatchEncoder(tmp_path / "ids")))
    other = SemanticIDTokenizer.fit(ROWS[: N - 1], **CHOICES)
    other.save_pretrained(tmp_path / "ids", force=True)
    with pytest.raises(ArtifactError, match=f"{tmp_path}/ids: its fingerprint is sha256:.*Make the BatchEncoder anew"):
        encode(columns(ROWS[:1]))
    assert BatchEncoder(tmp_path / "ids")(columns(ROWS[:1]))["known"].all()


# ---- what is refused


def test_what_cannot_be_encoded_says_so_at_once(tmp_path, folder, vector_folder):
    with pytest.raises(ArtifactError, match="no such folder"):
        BatchEncoder(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="learned from ready vectors.*vector_column=, or --vector-column"):
        BatchEncoder(vector_folder)
    (tmp_path / "x.json").write_text(json.dumps({"a": ["<a_1>", "<b_2>"], "b": ["<a_1>", "<b_3>"]}))
    from semid.tokenizer_exports.formats.importer import import_index

    import_index(tmp_path / "x.json").save_pretrained(tmp_path / "imported")
    with pytest.raises(ConfigError, match="imported"):
        BatchEncoder(tmp_path / "imported")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"title": ["a"]}, 'no column "id". It has: title'),
        ({"id": ["a", None], "title": ["x", "y"]}, "batch, row 2: id is null"),
        ({"id": ["a", 1.5], "title": ["x", "y"]}, "batch, row 2: id is 1.5"),
        ({"id": ["a"], "name": ["x"]}, "none of the text columns title, brand. It has: id, name"),
        ({"id": ["a"], "title": [{"en": "x"}]}, 'batch, row 1: field "title" holds an object'),
        ({"id": ["a"], "title": ["x"], "codes": [1]}, 'has a column "codes" already'),
        ([1, 2], "batch: list, expected a dict of columns"),
    ],
)
def test_bad_batches_name_the_place(folder, batch, message):
    with pytest.raises(InputError) as error:
        BatchEncoder(folder)(batch)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0] * 12, [float("nan")] * 12], 'batch, row 2: "v" holds NaN'),
        ([[1.0] * 12, [1.0] * 11], "all of one length"),
        ([[1.0] * 12, None], "all of one length"),
        ([["a"] * 12, ["b"] * 12], "one list of numbers"),
    ],
)
def test_bad_vectors_name_the_place(vector_folder, vectors, message):
    encode = BatchEncoder(vector_folder, vector_column="v")
    with pytest.raises(InputError) as error:
        encode({"id": ["new", "newer"], "v": vectors})
    assert message in str(error.value)
    with pytest.raises(ConfigError, match=r"should be \(N, 12\)"):
        encode({"id": ["new"], "v": [[1.0, 2.0]]})


def test_columns_are_never_overwritten():
    with pytest.raises(InputError, match='"codes" already'):
        with_columns(pa.table({"codes": [1]}), {"codes": np.zeros((1, 2), np.int32)})


# ---- files


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The rows as Parquet, as a folder of Parquet and as JSONL."""
    path = tmp_path_factory.mktemp("data")
    pq.write_table(pa.Table.from_pylist(ROWS), path / "items.parquet", row_group_size=37)
    (path / "parts").mkdir()
    for number, start in enumerate(range(0, len(ROWS), 50)):
        pq.write_table(pa.Table.from_pylist(ROWS[start : start + 50]), path / "parts" / f"{number}.parquet")
    (path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_file_holds_every_row_in_order(folder, data, tmp_path):
    done = encode_file(BatchEncoder(folder), data / "items.parquet", tmp_path / "codes.parquet", batch_size=17)
    assert (done.n_items, done.n_known) == (N + NEW, N)
    table = pq.read_table(tmp_path / "codes.parquet")
    expected = BatchEncoder(folder)(columns(ROWS))
    assert table.column_names == ["item_id", "codes", "tokens", "known"]
    assert table["item_id"].to_pylist() == expected["id"] and table["tokens"].to_pylist() == expected["tokens"]
    assert table["codes"].to_pylist() == expected["codes"].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["codes.parquet"]


@pytest.mark.parametrize("source", ["items.parquet", "parts", "items.jsonl"])
@pytest.mark.parametrize("batch_size", [7, 8192])
def test_neither_the_source_nor_the_batches_change_a_byte(folder, data, tmp_path, source, batch_size):
    encoder = BatchEncoder(folder)
    encode_file(encoder, data / "items.parquet", tmp_path / "expected.parquet")
    encode_file(encoder, data / source, tmp_path / "codes.parquet", batch_size=batch_size)
    assert (tmp_path / "codes.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_row_groups_are_full(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("semid.pipeline.dataset_encoder.ROW_GROUP", 32)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "items.parquet")
    for batch_size in (5, 32, 70, 1000):
        encode_file(
            BatchEncoder(folder), tmp_path / "items.parquet", tmp_path / "o.parquet", batch_size=batch_size, force=True
        )
        groups = pq.ParquetFile(tmp_path / "o.parquet").metadata
        assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [32] * 5
    assert ROW_GROUP >= 8192


@pytest.mark.slow
def test_processes_change_nothing(folder, data, tmp_path):
    encode_file(BatchEncoder(folder), data / "items.jsonl", tmp_path / "one.parquet")
    encode_file(BatchEncoder(folder), data / "items.jsonl", tmp_path / "two.parquet", batch_size=9, concurrency=2)
    assert (tmp_path / "two.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()


def test_an_error_in_the_middle_leaves_nothing(folder, tmp_path):
    lines = [json.dumps(row) for row in ROWS]
    lines[100] = json.dumps({"id": None, "title": "x"})
    (tmp_path / "items.jsonl").write_text("\n".join(["", *lines]))
    with pytest.raises(InputError, match=r"items.jsonl:102: id is null"):
        encode_file(BatchEncoder(folder), tmp_path / "items.jsonl", tmp_path / "out" / "codes.parquet", batch_size=10)
    assert not (tmp_path / "out").exists()


def test_broken_sources_and_outputs_are_refused(folder, data, tmp_path):
    encoder = BatchEncoder(folder)
    (tmp_path / "there.parquet").write_bytes(b"old")
    with pytest.raises(OutputExistsError, match="there.parquet: exists"):
        encode_file(encoder, data / "items.parquet", tmp_path / "there.parquet")
    with pytest.raises(InputError, match="there.parquet: not a readable Parquet file"):
        encode_file(encoder, tmp_path / "there.parquet", tmp_path / "o.parquet")
    with pytest.raises(InputError, match="nothing.jsonl: no such file"):
        encode_file(encoder, tmp_path / "nothing.jsonl", tmp_path / "o.parquet")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="no items"):
        encode_file(encoder, tmp_path / "empty.jsonl", tmp_path / "o.parquet")
    with pytest.raises(InputError, match="holds files of several formats"):
        encode_file(encoder, folder, tmp_path / "o.parquet")
    for choices, message in (
        ({"engine": "spark"}, "engine='spark' should be one of local, ray"),
        ({"batch_size": 0}, "batch_size=0 should be 1 or more"),
        ({"concurrency": 0}, "concurrency=0 should be 1 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            encode_file(encoder, data / "items.parquet", tmp_path / "o.parquet", **choices)
    with pytest.raises(ConfigError, match="Name it codes.parquet"):
        encode_file(encoder, data / "items.parquet", tmp_path / "codes.csv")
    with pytest.raises(ConfigError, match="engine=ray reads Parquet"):
        encode_file(encoder, data / "items.jsonl", tmp_path / "o.parquet", engine="ray")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl", "there.parquet"]


# ---- the command


def test_the_command_encodes_a_file(semid, folder, data, tmp_path):
    done = semid("encode", folder, "--items", data / "items.jsonl", "-o", "codes.parquet", "--json")
    assert done.code == 0 and "160 rows, 120 of them items" in done.err
    assert json.loads(done.out) == {"output": "codes.parquet", "items": 160, "known": 120}
    assert semid("encode", folder, "--items", data / "items.jsonl", "-o", "codes.parquet").code == 1
    forced = semid("encode", folder, "--items", data / "parts", "-o", "codes.parquet", "--force")
    assert forced.out == "codes.parquet\n" and pq.read_table(tmp_path / "codes.parquet").num_rows == N + NEW


def test_the_command_with_vectors(semid, vector_folder, tmp_path):
    rows = [{"key": row["id"], "v": vector.tolist()} for row, vector in zip(ROWS, VECTORS, strict=True)]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = semid(
        "encode", vector_folder, "--items", "v.jsonl", "-o", "c.parquet", "--vector-column", "v", "--id-field", "key"
    )
    assert done.code == 0
    expected = BatchEncoder(vector_folder, vector_column="v")({"id": columns(ROWS)["id"], "v": VECTORS})
    assert pq.read_table(tmp_path / "c.parquet")["tokens"].to_pylist() == expected["tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give items, - for standard input, or --items FILE"),
        (("item-1", "--items", "x.jsonl"), "'item-1' and --items were both given"),
        (("--items", "x.jsonl"), "--items needs -o"),
        (("item-1", "--engine", "ray"), "--engine goes with --items"),
        (("item-1", "--batch-size", "7"), "--batch-size goes with --items"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(semid, folder, arguments, message):
    done = semid("encode", folder, *arguments)
    assert done.code == 2 and message in done.err


def test_looking_up_is_as_it_was(semid, folder):
    done = semid("encode", folder, "item-3")
    assert done.out.startswith("item-3\t<s_a_")


@pytest.mark.slow
@pytest.mark.parametrize("heading", ["A file", "The function", "datasets"])
def test_the_recipes_of_the_page(tmp_path, heading):
    assert differences(heading, tmp_path) == []
