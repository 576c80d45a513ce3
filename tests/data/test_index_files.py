"""Other systems' index files: read as written, or refused with the file, the item and the fix."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import InputError
from semid.evaluation import number_prefixes
from semid.tokenizer_exports import read_index

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
        (b'"text"', "a JSON str"),
        (b'{"a": "<a_1><b_2>"}', "item 'a' has \"<a_1><b_2>\"; expected a list of token strings"),
        (b'{"a": {"b": []}}', "item 'a' has"),
        (b'{"a": [12, 3]}', "item 'a' has the token 12; expected"),
        (b'{"a": ["x", null]}', "item 'a' has the token null"),
        (b'{"a": [["<a_1>"]]}', "item 'a' has the token"),
        (b'{"a": ["<a_1>"], "a": ["<a_2>"]}', "item 'a' appears twice; expected one ID per item"),
        (b'{"a": []}', "no item has a token"),
        (b'{"a": ["\\ud800"]}', "half of a surrogate pair"),
        (b'{"\\ud800": ["<a_1>"], "\\ud800": []}', "appears twice"),
        (b'{"a":\n["\xff"]}', r"x\.index\.json:2: not UTF-8"),
        (b"[" * 200_000, "cannot be read as JSON|broken JSON"),
        (b'{"a": [' + b"9" * 5000 + b"]}", "cannot be read as JSON"),
        (gzip.compress(json.dumps(LC_REC).encode(), mtime=0)[:-10], "truncated or damaged gzip"),
        (gzip.compress(json.dumps(LC_REC).encode(), mtime=0)[:12], "truncated or damaged gzip"),
        (b"\x1f\x8bnot really", "truncated or damaged gzip"),
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
