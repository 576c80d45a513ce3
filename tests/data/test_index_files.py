"""Other systems' index files: read as written, or refused with the file, the item and the fix."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import InputError
from semid.evaluation import number_prefixes
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports import export, import_index, read_index

LC_REC = {"0": ["<a_236>", "<b_231>"], "1": ["<a_0>", "<b_231>"], "2": ["<a_236>", "<b_7>"]}


def written(folder: Path, content: object, name: str = "x.index.json") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize("indent", [None, 4], ids=["one line", "pretty"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_lc_rec_index_keeps_its_order_and_numbers(tmp_path, indent, pack):
    index = read_index(written(tmp_path, pack(json.dumps(LC_REC, indent=indent).encode())))
    assert index.item_ids == ["0", "1", "2"]
    assert index.tokens[1] == ["<a_0>", "<b_231>"]
    assert index.codes.tolist() == [[236, 231], [0, 231], [236, 7]]
    assert index.codes.dtype == "int32"
    assert index.sizes == [237, 232]
    assert index.templates == ["<a_{}>", "<b_{}>"]


@pytest.mark.parametrize(
    "token, template, code",
    [
        ("<s_a_12>", "<s_a_{}>", 12),
        ("<|sid_64|>", "<|sid_{}|>", 64),
        ("<L0_119>", "<L0_{}>", 119),
        ("<CT79>", "<CT{}>", 79),
        ("7", "{}", 7),
        ("item 0", "item {}", 0),
        ("<a_999999999>", "<a_{}>", 999_999_999),
    ],
)
def test_the_last_number_of_a_token_is_its_code(tmp_path, token, template, code):
    index = read_index(written(tmp_path, {"x": [token]}))
    assert index.templates == [template]
    assert index.codes.tolist() == [[code]]


@pytest.mark.parametrize(
    "tokens",
    [
        ["<a_1>", "<b_0>", "<a_10>"],  # two templates at one level
        ["<a_01>", "<a_1>", "<a_2>"],  # two tokens with one number
        ["nail", "polish", "5"],  # words
        ["<a_1>", "<a_12345678901234567890>", "<a_3>"],  # more than int32 holds
        ["", " ", "\u0663"],  # nothing, a space, an Arabic digit
    ],
)
def test_tokens_without_a_common_template_become_ranks(tmp_path, tokens):
    index = read_index(written(tmp_path, {str(row): [token] for row, token in enumerate(tokens)}))
    assert index.templates == [None]
    assert index.codes[:, 0].tolist() == [sorted(tokens).index(token) for token in tokens]
    assert index.sizes == [3]


def test_short_ids_are_padded_and_items_without_any_token_are_reported(tmp_path, caplog):
    index = read_index(written(tmp_path, {"a": ["nail", "care"], "b": ["nail"], "c": []}))
    assert index.codes.tolist() == [[0, 0], [0, -1], [-1, -1]]
    assert "1 of 3 items have no tokens at all" in caplog.text


def test_rows_put_codes_in_the_order_of_a_catalog(tmp_path):
    index = read_index(written(tmp_path, LC_REC))
    assert index.rows(["2", "missing", "0"]).tolist() == [2, -1, 0]


def test_ids_and_tokens_of_any_script_survive(tmp_path):
    content = {"crème/ßß 日本": ["▁loss", "😀"]}
    index = read_index(written(tmp_path, "\ufeff".encode() + json.dumps(content, ensure_ascii=False).encode()))
    assert index.item_ids == list(content)
    assert index.tokens == list(content.values())


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.lists(st.sampled_from(["<a_1>", "<a_2>", "<a_02>", "<b_1>", "x", "", "3"]), max_size=4),
        min_size=1,
    )
)
def test_equal_prefixes_of_tokens_are_equal_prefixes_of_codes(tmp_path_factory, content):
    path = written(tmp_path_factory.mktemp("index"), content)
    if not any(content.values()):
        with pytest.raises(InputError, match="no item has a token"):
            read_index(path)
        return
    index = read_index(path)
    numbers = number_prefixes(index.codes)
    for length, row in enumerate(numbers, 1):
        prefixes = [tuple(tokens[:length]) for tokens in index.tokens]
        assert len(set(zip(prefixes, row.tolist(), strict=True))) == len(set(prefixes)) == len(set(row.tolist()))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"a": ["<a_1>"],\n "b": [}', r"x\.index\.json:2: broken JSON, column 8"),
        (b'{"a": ["<a_1>"]', "broken JSON"),
        (b"{}", "no items"),
        (b"[]", "no items"),
        (b'["<a_1>"]', "a JSON list"),
        (b'"text"', "expected an object {...}, got a string"),
        (b'{"a": "Red lamp"}', "item 'a' has \"Red lamp\"; expected a list of tokens or codes, or a string of them"),
        (b'{"a": "<a_1> and <b_2>"}', "item 'a' has \"<a_1> and <b_2>\"; expected"),
        (b'{"a": {"b": []}}', "item 'a' has"),
        (b'{"a": [12, -3]}', "item 'a' has the token -3; expected"),
        (b'{"a": [12, true]}', "item 'a' has the token true; expected"),
        (b'{"a": [2147483648]}', "item 'a' has the token 2147483648; expected"),
        (b'{"a": [12], "b": ["<a_1>"]}', "item 'b' has tokens and item 'a' has codes; expected one kind"),
        (b'{"a": [12, "<a_1>"]}', "item 'a' has tokens and item 'a' has codes; expected one kind"),
        (b'{"a": ["x", null]}', "item 'a' has the token null"),
        (b'{"a": [["<a_1>"]]}', "item 'a' has the token"),
        (b'{"a": ["<a_1>"], "a": ["<a_2>"]}', "item 'a' appears twice; expected one ID per item"),
        (b'{"a": []}', "no item has a token"),
        (b'{"a": ["\\ud800"]}', "half of a surrogate pair"),
        (b'{"\\ud800": ["<a_1>"], "\\ud800": []}', "appears twice"),
        (b'{"a":\n["\xff"]}', r"x\.index\.json:2: not UTF-8"),
        (b"[" * 200_000, "cannot be read as JSON|broken JSON"),
        (b'{"a": [' + b"9" * 5000 + b"]}", "cannot be read as JSON"),
        (gzip.compress(json.dumps(LC_REC).encode(), mtime=0)[:-10], "the gzip data (end too early|are damaged)"),
        (gzip.compress(json.dumps(LC_REC).encode(), mtime=0)[:12], "the gzip data (end too early|are damaged)"),
        (b"\x1f\x8bnot really", "the gzip data (end too early|are damaged)"),
    ],
)
def test_files_that_are_no_index_are_refused_with_their_name(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read_index(written(tmp_path, content))
    assert "x.index.json" in str(caught.value)


def test_several_bad_items_are_listed_together_up_to_ten(tmp_path):
    with pytest.raises(InputError) as caught:
        read_index(written(tmp_path, {str(row): row for row in range(25)}))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 15 more"


@settings(deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_read_or_refused_never_a_crash(tmp_path_factory, noise, packed):
    path = written(tmp_path_factory.mktemp("noise"), gzip.compress(noise) if packed else noise)
    try:
        assert len(read_index(path).item_ids) > 0
    except InputError as error:
        assert path.name in str(error)


@settings(deadline=None)
@given(st.data())
def test_an_index_cut_or_flipped_anywhere_is_read_or_refused(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from([bytes, gzip.compress]))(json.dumps(LC_REC).encode()))
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path = written(tmp_path_factory.mktemp("damage"), bytes(content))
    try:
        assert len(read_index(path).item_ids) > 0
    except InputError as error:
        assert path.name in str(error)


# ---- other formats --------------------------------------------------------------------------------------

TOKENS = {"B1": ["<a_5>", "<b_0>"], "007": ["<a_5>", "<b_12>"], "x": ["<a_1>", "<b_2>"]}
CODES = {name: [int(token[3:-1]) for token in tokens] for name, tokens in TOKENS.items()}


def in_lines(entries: dict[str, object], name: str, values: str) -> bytes:
    return "\n".join(json.dumps({name: item, "title": "t", values: value}) for item, value in entries.items()).encode()


TEXTS = {
    "tokens in one string": ("x.json", {name: "".join(tokens) for name, tokens in TOKENS.items()}),
    "tokens apart": ("x.json", {name: " ".join(tokens) for name, tokens in TOKENS.items()}),
    "lines of tokens": ("x.jsonl", in_lines(TOKENS, "item_id", "semantic_ids")),
    "an array of records": ("x.json", [{"id": name, "tokens": tokens} for name, tokens in TOKENS.items()]),
    "csv": ("x.csv", b"id,tokens\nB1,<a_5><b_0>\n007,<a_5><b_12>\nx,<a_1><b_2>\n"),
    "csv by level": ("x.csv", b"item,level1,level2\nB1,<a_5>,<b_0>\n007,<a_5>,<b_12>\nx,<a_1>,<b_2>\n"),
    "csv with lists": ("x.csv", b"id\tsid\nB1\t['<a_5>', '<b_0>']\n007\t['<a_5>', '<b_12>']\nx\t['<a_1>', '<b_2>']\n"),
    "RecBole": ("x.item", b"item_id:token\tsid:token_seq\nB1\t<a_5> <b_0>\n007\t<a_5> <b_12>\nx\t<a_1> <b_2>\n"),
    "info.txt": ("info.txt", b"<a_5><b_0>\tRed Lamp\tB1\n<a_5><b_12>\tBlue Lamp\t007\n<a_1><b_2>\tRug\tx\n"),
}  # fmt: skip
NUMBERS = {
    "lists of codes": ("x.json", CODES),
    "codes in one string": ("x.json", {name: ",".join(map(str, codes)) for name, codes in CODES.items()}),
    "FlashRec": ("x.json", {",".join(map(str, codes)): name for name, codes in CODES.items()}),
    "lines of codes": ("x.jsonl", in_lines(CODES, "id", "codes")),
    "csv by level": ("x.csv", b"item_id,c0,c1\nB1,5,0\n007,5,12\nx,1,2\n"),
    "csv with lists": ("x.csv", b'item_id,sid\nB1,"[5, 0]"\n007,"[5, 12]"\nx,"[1, 2]"\n'),
    "RecBole": ("x.item", b"item_id:token\tsid:token_seq\nB1\t5 0\n007\t5 12\nx\t1 2\n"),
}


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_tokens_are_read_from_every_format(tmp_path, form, pack):
    name, content = TEXTS[form]
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    index = read_index(written(tmp_path, pack(content), name))
    assert dict(zip(index.item_ids, index.tokens, strict=True)) == TOKENS
    assert index.item_ids == list(TOKENS)
    assert index.codes.tolist() == [[5, 0], [5, 12], [1, 2]]
    assert index.templates == ["<a_{}>", "<b_{}>"]
    assert not index.is_codes


@pytest.mark.parametrize("form", NUMBERS)
def test_codes_are_read_from_every_format(tmp_path, form):
    name, content = NUMBERS[form]
    index = read_index(written(tmp_path, content, name))
    assert dict(zip(index.item_ids, index.codes.tolist(), strict=True)) == CODES
    assert index.tokens[1] == ["5", "12"]
    assert index.sizes == [6, 13]
    assert index.is_codes


def save_array(path: Path, codes: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, codes)
    elif path.suffix == ".npz":
        np.savez_compressed(path, codes=codes)
    else:
        torch.save(torch.from_numpy(codes), path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_arrays_of_codes_go_by_their_own_ids_by_the_catalog_or_by_row_numbers(tmp_path, suffix, caplog):
    path = tmp_path / f"codes{suffix}"
    save_array(path, np.array(list(CODES.values()), np.int16))
    index = read_index(path)
    assert index.item_ids == ["0", "1", "2"]
    assert index.codes.tolist() == list(CODES.values())
    assert "the items are named by their row numbers, 0 to 2. Write the id of each row to codes.ids.txt" in caplog.text
    assert read_index(path, ids=["p", "q", "r"]).item_ids == ["p", "q", "r"]
    with pytest.raises(InputError, match="has 3 rows, the catalog has 2 items"):
        read_index(path, ids=["p", "q"])
    (tmp_path / "codes.ids.txt").write_text("B1\n007\nx\n")
    assert read_index(path, ids=["p", "q", "r"]).item_ids == list(CODES)


def test_arrays_with_ids_beside_the_codes_are_read(tmp_path):
    codes = np.array(list(CODES.values()))
    np.savez(tmp_path / "x.npz", codes=codes, item_ids=np.array(list(CODES)))
    torch.save({"codes": torch.from_numpy(codes), "ids": list(CODES)}, tmp_path / "x.pt")
    for name in ("x.npz", "x.pt"):
        index = read_index(tmp_path / name)
        assert dict(zip(index.item_ids, index.codes.tolist(), strict=True)) == CODES


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 2)), r"dtype=float64 should be integers"),
        (np.ones(3, int), r"shape=\(3,\) should be \(items, levels\)"),
        (np.ones((3, 3000), int), r"shape=\(3, 3000\) should be \(items, levels\).*Save the transpose"),
        (np.full((3, 2), -1), r"item '0' has the token -1; expected"),
    ],
)
def test_other_arrays_are_no_index(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=message):
        read_index(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "id,tokens\nB1,<a_1>\nB1,<a_2>\n", r'x\.csv:3: item "B1" appears twice'),
        (
            "x.csv",
            "id,title,price\nB1,Red lamp,9.5\n",
            r"x\.csv: fields id, title, price: expected an item id, and tokens",
        ),
        ("x.csv", "id,tokens\nB1,Red lamp\n", "item 'B1' has \"Red lamp\"; expected a list of tokens or codes"),
        ("x.jsonl", '{"id": "a", "codes": [1]}\n{"id": "b"}\n', r'x\.jsonl:2: missing field "codes" \(have: id\)'),
        ("x.jsonl", '{"id": "a", "codes": [1]}\n{"id": null, "codes": [1]}\n', r"x\.jsonl:2: id is null"),
    ],
)
def test_records_that_are_no_index_are_refused_by_line(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_index(written(tmp_path, text.encode(), name))


def test_one_line_of_json_is_a_record_not_an_index(tmp_path):
    index = read_index(written(tmp_path, b'{"id": "B1", "tokens": ["<a_1>"]}', "x.jsonl"))
    assert index.item_ids == ["B1"]


def test_an_exported_table_is_read_as_an_index(tmp_path):
    import_index(written(tmp_path, TOKENS)).save_pretrained(tmp_path / "sid")
    ids = SemanticIDTokenizer.from_pretrained(tmp_path / "sid")
    for to, name in (("parquet", "x.parquet"), ("lcrec", "x.json"), ("flashrec", "y.json")):
        export(ids, tmp_path / name, to=to, base=0) if to == "flashrec" else export(ids, tmp_path / name, to=to)
        again = import_index(tmp_path / name, sizes=ids.sizes)
        assert again.codes.tolist() == ids.codes.tolist()
        assert list(again.item_ids) == list(ids.item_ids)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5).map(lambda text: f"i{text}"),
        st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 9)),
        min_size=1,
    )
)
def test_the_same_codes_come_back_from_every_format(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("index")
    codes = {name: list(row) for name, row in content.items()}
    tokens = {name: [f"<{'abc'[level]}_{code}>" for level, code in enumerate(row)] for name, row in codes.items()}
    table = pa.table({"item_id": list(codes), "codes": list(codes.values())})
    pyarrow.parquet.write_table(table, folder / "x.parquet")
    files = [
        written(folder, tokens, "a.json"),
        written(folder, {name: "".join(row) for name, row in tokens.items()}, "b.json"),
        written(folder, codes, "c.json"),
        written(folder, in_lines(codes, "id", "sid"), "d.jsonl"),
        written(folder, in_lines(tokens, "id", "tokens"), "e.jsonl"),
        folder / "x.parquet",
    ]
    for path in files:
        index = read_index(path)
        assert dict(zip(index.item_ids, index.codes.tolist(), strict=True)) == codes, path.name


@pytest.mark.parametrize("form", [*TEXTS, "npz", "npy"])
def test_damaged_files_of_every_format_are_read_or_refused(tmp_path, form):
    name, content = TEXTS.get(form, (f"x.{form}", b""))
    path = written(tmp_path, content, name)
    if form in ("npy", "npz"):
        save_array(path, np.array(list(CODES.values())))
    whole, chance = path.read_bytes(), random.Random(form)
    for _ in range(500):
        damaged, at = bytearray(whole), chance.randrange(len(whole))
        if chance.random() < 0.3:
            del damaged[at:]
        elif chance.random() < 0.5:
            damaged[at:at] = chance.randbytes(chance.randrange(1, 5))
        else:
            damaged[at] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            assert len(read_index(path).item_ids) > 0
        except InputError as error:
            assert name in str(error)


def test_reading_an_index_needs_numpy_only(tmp_path):
    path = written(tmp_path, LC_REC)
    script = (
        "import sys; import semid.tokenizer_exports as exports\n"
        f"exports.read_index({str(path)!r})\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'faiss'}; print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_an_unknown_name_of_the_package_says_what_there_is():
    import semid.tokenizer_exports as exports

    assert "read_index" in dir(exports)
    with pytest.raises(AttributeError, match="it has .*read_index"):
        exports.read_indices  # noqa: B018
