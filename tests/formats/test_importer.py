"""Other systems' IDs as an artifact: codes kept exactly, what the file does not say refused rather than made up."""

from __future__ import annotations

import gzip
import json
import logging
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semid.artifact import store as artifact
from semid.data.items import Items
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.evaluation import model_card
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.formats import export, import_index, read_index
from semid.tokens.vocabulary import Vocabulary

LC_REC = {"2": ["<a_236>", "<b_7>"], "0": ["<a_236>", "<b_231>"], "1": ["<a_0>", "<b_231>"]}
COLLIDING = {
    "d": ["<a_1>", "<b_1>"],
    "a": ["<a_1>", "<b_1>"],
    "c": ["<a_0>", "<b_1>"],
    "b": ["<a_1>", "<b_1>"],
    "f": ["<a_2>", "<b_0>"],
    "e": ["<a_2>", "<b_0>"],
}


def written(folder: Path, content: object, name: str = "shop.index.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def index(tmp_path):
    return written(tmp_path, LC_REC)


@pytest.fixture
def ids(index):
    return import_index(index)


# ---- what comes in


def test_items_keep_the_codes_of_the_file(ids):
    assert list(ids.item_ids) == ["0", "1", "2"]
    assert ids.codes.tolist() == [[236, 231], [0, 231], [236, 7]]
    assert ids.tokens(["2", "0"]) == ["<a_236><b_7>", "<a_236><b_231>"]
    assert ids.decode("<a_0><b_231>") == "1"
    assert ids.base is None


def test_the_order_of_the_file_changes_nothing(tmp_path):
    marks = set()
    for seed in range(4):
        entries = list(LC_REC.items())
        random.Random(seed).shuffle(entries)
        path = written(tmp_path, dict(entries), f"{seed}.json")
        marks.add(import_index(path).save_pretrained(tmp_path / str(seed)))
    assert len(marks) == 1


def test_a_gzipped_index_and_a_read_one_give_the_same(index, tmp_path):
    packed = tmp_path / "x.json.gz"
    packed.write_bytes(gzip.compress(index.read_bytes()))
    for source in (packed, read_index(index)):
        assert import_index(source).codes.tolist() == [[236, 231], [0, 231], [236, 7]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_index_comes_back_out_with_the_same_content(tmp_path, data):
    n_levels = data.draw(st.integers(1, 6))
    rows = data.draw(st.lists(st.tuples(*[st.integers(0, 300)] * n_levels), min_size=1, max_size=20, unique=True))
    names = data.draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            min_size=len(rows),
            max_size=len(rows),
            unique=True,
        )
    )
    content = {
        name: [f"<{'abcdef'[level]}_{code}>" for level, code in enumerate(row)]
        for name, row in zip(names, rows, strict=True)
    }
    ids = import_index(written(tmp_path, content))
    assert ids.vocabulary.template == "lcrec"
    export(ids, tmp_path / "back.json", to="lcrec", force=True)
    assert json.loads((tmp_path / "back.json").read_text()) == content


@pytest.mark.parametrize(
    "template, sizes",
    [
        ("onerec", (300, 20, 20)),
        ("lcrec", (300, 20, 20)),
        ("rectokens", (300, 20, 20)),
        ("metaid", (101, 900)),
        ("<L{level}_{code}>", (9, 9, 12, 5, 300)),
        ("<banana_{letter}_{code}>", (9, 9)),  # an a that is not the level comes first
        ("<x0_{level}_{code}>", (9, 9)),
        ("[{code}|{letter}]a", (30, 30)),
        ("<{{{letter}}}-{code}>", (30, 30)),
        ("<|sid_{offset}|>", (32, 64, 16)),
        ("<{letter}_{code}>", (9,) * 30),  # levels past z
        ("<item_{code}>", (40,)),
    ],
)
def test_the_template_of_the_file_is_found_and_written_again(tmp_path, template, sizes):
    vocabulary = Vocabulary(sizes, template)
    chance = np.random.default_rng(0)
    codes = np.unique(chance.integers(0, sizes, (40, len(sizes))), axis=0)
    codes[0], codes[-1] = 0, np.array(sizes) - 1  # the highest code shows the size
    codes = np.unique(codes, axis=0)
    content = {
        f"i{row}": [vocabulary.token(level, code) for level, code in enumerate(line)]
        for row, line in enumerate(codes.tolist())
    }
    ids = import_index(written(tmp_path, content))
    for item_id, tokens in content.items():
        assert ids.tokens(item_id) == "".join(tokens)
        assert ids.encode(item_id).tolist() == codes[int(item_id[1:])].tolist()


def test_another_template_writes_the_same_codes(index):
    ids = import_index(index, template="onerec")
    assert ids.tokens("2") == "<s_a_236><s_b_7>"
    assert ids.vocabulary.begin == "<|sid_begin|>"


@pytest.mark.parametrize(
    "wanted, sizes",
    [(None, (256, 256)), (300, (300, 300)), ((256, 512), (256, 512)), ([237, 232], (237, 232)), ((256,), (256, 256))],
)
def test_sizes_are_the_power_of_two_that_holds_the_codes_or_as_wished(index, wanted, sizes):
    assert import_index(index, sizes=wanted).sizes == sizes


@pytest.mark.parametrize("highest, size", [(0, 1), (1, 2), (2, 4), (7, 8), (8, 16), (255, 256), (256, 512)])
def test_the_default_size_just_holds_the_highest_code(tmp_path, highest, size):
    assert import_index(written(tmp_path, {"x": [f"<a_{highest}>"]})).sizes == (size,)


# ---- collisions


def test_collisions_are_listed_and_the_fix_named(tmp_path):
    with pytest.raises(InputError) as caught:
        import_index(written(tmp_path, COLLIDING))
    head, *lines = str(caught.value).splitlines()
    assert "shop.index.json: 2 IDs are shared by 5 of 6 items" in head
    assert "--on-collision add-level" in head
    assert lines == ["<a_1><b_1>: 'a', 'b', 'd'", "<a_2><b_0>: 'e', 'f'"]


def test_at_most_ten_collisions_are_named(tmp_path):
    content = {f"{row:02}": [f"<a_{row // 2}>"] for row in range(30)}
    with pytest.raises(InputError) as caught:
        import_index(written(tmp_path, content))
    lines = str(caught.value).splitlines()
    assert "15 IDs are shared by 30 of 30 items" in lines[0]
    assert len(lines) == 12
    assert lines[-1] == "... and 5 more"


def test_an_added_level_is_the_place_in_the_group_by_id(tmp_path):
    ids = import_index(written(tmp_path, COLLIDING), on_collision="add-level")
    assert ids.sizes == (4, 2, 3)
    assert dict(zip(ids.item_ids, ids.codes.tolist(), strict=True)) == {
        "a": [1, 1, 0],
        "b": [1, 1, 1],
        "c": [0, 1, 0],
        "d": [1, 1, 2],
        "e": [2, 0, 0],
        "f": [2, 0, 1],
    }
    assert ids.tokens("d") == "<a_1><b_1><c_2>"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_an_added_level_keeps_all_codes_and_leaves_no_collision(tmp_path, rows):
    content = {f"i{row:02}": [f"<a_{a}>", f"<b_{b}>"] for row, (a, b) in enumerate(rows)}
    ids = import_index(written(tmp_path, content), on_collision="add-level")
    codes = ids.codes.tolist()
    assert [tuple(line[:2]) for line in codes] == rows
    assert len(set(map(tuple, codes))) == len(rows)
    largest = max(Counter(rows).values())
    assert len(ids.sizes) == (2 if largest == 1 else 3)
    assert largest == 1 or ids.sizes[2] == largest


def test_sizes_may_name_the_added_level_too(tmp_path):
    path = written(tmp_path, COLLIDING)
    assert import_index(path, on_collision="add-level", sizes=(8, 8, 16)).sizes == (8, 8, 16)
    assert import_index(path, on_collision="add-level", sizes=(8, 8)).sizes == (8, 8, 3)
    with pytest.raises(InputError, match="3 items share one ID, more than the 2 codes of the added level"):
        import_index(path, on_collision="add-level", sizes=(8, 8, 2))


# ---- what is refused


@pytest.mark.parametrize(
    "content, message",
    [
        ({"x": ["<a_1>", "<b_1>"], "y": ["<a_1>"]}, r"IDs have 1 to 2 tokens \(item 'y' 1, item 'x' 2\); expected one"),
        ({"x": ["<a_1>"], "y": []}, "IDs have 0 to 1 tokens"),
        ({"x": ["nail", "polish"]}, "tokens like nailpolish follow no template at level 0"),
        ({"x": ["<a_1>", "soap"]}, "follow no template at level 1"),
        ({"x": ["<a_1>", "<c_1>"]}, "tokens like <a_1><c_1> follow no template: expected"),  # level b is missing
        ({"x": ["1", "2"]}, "follow no template"),  # bare numbers cannot be found in text
        ({"x": ["<a_70000>"]}, r"item 'x' has <a_70000> at level 0, code 70000; expected 0 to 65535"),
        ({"x": ["<CT1>", "<7>"]}, r"has <7> at level 1, code -994; expected 0 to"),
        ({"": ["<a_1>"]}, "an item id is empty"),
    ],
)
def test_what_cannot_be_an_artifact_is_refused_with_file_and_reason(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        import_index(written(tmp_path, content))
    assert "shop.index.json" in str(caught.value)


TOKENS = ["<a_1>", "<b_1>", "<b_20>", "<{1}>", "{letter}1", "<a_{}_1>", "<1>", "1", "a1a", "<CT3>", "x", "", "<a_0_0>"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.dictionaries(st.text("ab", max_size=2), st.lists(st.sampled_from(TOKENS), max_size=3), min_size=1),
    on_collision=st.sampled_from(["error", "add-level"]),
)
def test_any_index_is_kept_token_by_token_or_refused(tmp_path, content, on_collision):
    try:
        ids = import_index(written(tmp_path, content), on_collision=on_collision)
    except InputError as error:
        assert "shop.index.json" in str(error)
        return
    n_levels = len(next(iter(content.values())))
    assert len(ids.sizes) in (n_levels, n_levels + 1)
    for item_id, tokens in content.items():
        codes = ids.encode(item_id).tolist()
        assert [ids.vocabulary.token(level, codes[level]) for level in range(n_levels)] == tokens


@pytest.mark.parametrize(
    "choices, error, message",
    [
        ({"sizes": 16}, InputError, r"item '0' has <a_236> at level 0, code 236; expected 0 to 15.*--sizes 256,256"),
        ({"sizes": (256, 100)}, InputError, r"has <b_231> at level 1, code 231; expected 0 to 99"),
        ({"sizes": (256, 256, 256)}, ConfigError, "is for 3 levels; the IDs have 2"),
        ({"sizes": (256, 0)}, ConfigError, "should be"),
        ({"sizes": (256, 70000)}, ConfigError, "should be"),
        ({"template": "{code}"}, ConfigError, "template="),
        ({"on_collision": "merge"}, ConfigError, "on_collision='merge' should be one of error, add-level"),
    ],
)
def test_impossible_choices_are_refused(index, choices, error, message):
    with pytest.raises(error, match=message):
        import_index(index, **choices)


# ---- texts


def test_texts_come_from_items_by_id(index, tmp_path):
    items = Items(["1", "9", "0", "2"], {"title": ["Soap", "Foreign", "Red polish", ""]})
    assert list(import_index(index, items=items).texts) == ["Red polish", "Soap", ""]
    lines = tmp_path / "items.jsonl"
    lines.write_text('{"id": "2", "title": "Kohl"}\n{"id": 1, "title": "Soap"}\n{"id": 0, "title": "Oil"}\n')
    assert list(import_index(index, items=lines).texts) == ["Oil", "Soap", "Kohl"]
    assert import_index(index).texts is None


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_texts_come_from_the_item_json_of_lc_rec(index, tmp_path, pack):
    content = {"0": {"title": "Oil", "brand": "OPI"}, "1": {"title": "Soap", "brand": ""}, "2": {"title": "Kohl"}}
    path = tmp_path / ("shop.item.json" + (".gz" if pack is gzip.compress else ""))
    path.write_bytes(pack(json.dumps(content).encode()))
    assert list(import_index(index, items=path).texts) == ["Oil. OPI", "Soap", "Kohl"]


def test_items_without_text_are_counted_and_foreign_catalogs_refused(index, caplog):
    with caplog.at_level(logging.WARNING, "semid"):
        ids = import_index(index, items=Items(["2"], {"title": ["Kohl"]}, "shop.jsonl"))
    assert list(ids.texts) == ["", "", "Kohl"]
    assert "shop.jsonl: lacks 2 of the 3 items; they have no text" in caplog.text
    with pytest.raises(InputError, match="shop.jsonl: has none of the items, for instance '0'"):
        import_index(index, items=Items(["B2"], {"title": ["Kohl"]}, "shop.jsonl"))


@pytest.mark.parametrize(
    "content, message", [({"0": "Oil"}, r'shop\.item\.json:1: missing field "id" \(have: 0\)'), ([], "no items")]
)
def test_an_item_json_of_another_shape_is_refused(index, tmp_path, content, message):
    path = written(tmp_path, content, "shop.item.json")
    with pytest.raises(InputError, match=message):
        import_index(index, items=path)


def test_each_step_logs_one_line(tmp_path, caplog):
    items = Items(list("abcdef"), {"title": ["x"] * 6})
    with caplog.at_level(logging.INFO, "semid.steps"):
        import_index(written(tmp_path, COLLIDING), on_collision="add-level", items=items)
    assert caplog.messages == [
        "read        6 items with 2 codes, like <a_1><b_1>",
        "collisions  2 IDs are shared by 5 of 6 items, up to 3 per ID: one more code tells them apart",
        "vocabulary  4 x 2 x 3 codes, like <a_1><b_1><c_0>",
        "texts       of 6 items, from title",
    ]


@pytest.mark.parametrize("template", [None, "onerec"])
def test_codes_without_tokens_get_those_of_lc_rec_or_of_a_template(tmp_path, template, caplog):
    with caplog.at_level(logging.INFO, "semid.steps"):
        ids = import_index(written(tmp_path, {"b": [3, 0], "a": [1, 2]}), template=template)
    assert ids.codes.tolist() == [[1, 2], [3, 0]]
    assert ids.tokens("a") == ("<s_a_1><s_b_2>" if template else "<a_1><b_2>")
    assert caplog.messages[0] == "read        2 items with 2 codes, like 1, 2"
    assert ("--template" in caplog.messages[1]) == (template is None)


def test_arrays_of_codes_belong_to_the_items_of_the_catalog(semid, tmp_path):
    np.save(tmp_path / "codes.npy", np.array([[1, 2], [3, 0]]))
    (tmp_path / "shop.csv").write_text("asin,title\nB2,Oil\nB1,Soap\n")
    done = semid("import", "codes.npy", "-o", "sid", "--items", "shop.csv", "--id-field", "asin")
    assert done.code == 0, done.err
    ids = SemanticIDTokenizer.from_pretrained(tmp_path / "sid")
    assert dict(zip(ids.item_ids, ids.codes.tolist(), strict=True)) == {"B2": [1, 2], "B1": [3, 0]}
    assert list(ids.texts) == ["Soap", "Oil"]
    judged = semid("doctor", "codes.npy", "--items", "shop.csv", "--id-field", "asin", "--json")
    assert json.loads(judged.out)["n_unique_ids"] == 2


def test_files_without_a_header_are_imported_with_the_names_of_their_columns(semid, tmp_path):
    (tmp_path / "codes.csv").write_text("B1,1,2\nB2,1,3\n")
    stopped = semid("import", "codes.csv", "-o", "sid")
    assert stopped.code == 1 and "--columns" in stopped.err
    for command in (["import", "codes.csv", "-o", "sid"], ["doctor", "codes.csv"]):
        done = semid(*command, "--columns", "index=id,c0,c1")
        assert done.code == 0, done.err
    assert SemanticIDTokenizer.from_pretrained(tmp_path / "sid").decode("<a_1><b_3>") == "B2"


def test_import_reads_catalogs_like_every_command(semid, tmp_path):
    written(tmp_path, {"1": ["<a_0>", "<b_1>"]})
    for text in ('{"asin": "1", "title": "Oil", "note": "x"}\n', '[{"asin": "1", "title": "Oil", "note": "x"}]'):
        (tmp_path / "items.json").write_text(text)
        done = semid(
            "import", "shop.index.json", "-o", "sid", "--items", "items.json", "--id-field", "asin", "--text", "title",
            "--force",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert list(SemanticIDTokenizer.from_pretrained(tmp_path / "sid").texts) == ["Oil"]


# ---- the artifact


def test_imported_ids_are_saved_and_opened_again(ids, tmp_path):
    mark = ids.save_pretrained(tmp_path / "sid")
    again = SemanticIDTokenizer.from_pretrained(tmp_path / "sid")
    assert again.codes.tolist() == ids.codes.tolist()
    assert list(again.item_ids) == list(ids.item_ids)
    assert again.vocabulary == ids.vocabulary
    assert again.config is None
    assert not again.is_fitted
    assert again.imported_from == "shop.index.json"
    assert artifact.verify(tmp_path / "sid") == []
    assert again.save_pretrained(tmp_path / "copy") == mark
    with pytest.raises(OutputExistsError):
        again.save_pretrained(tmp_path / "copy")


def test_the_name_of_the_file_is_noted_and_no_part_of_the_fingerprint(tmp_path):
    marks = set()
    for name in ("one.json", "two.json"):
        ids = import_index(written(tmp_path, LC_REC, name))
        assert ids.imported_from == name
        marks.add(ids.save_pretrained(tmp_path / f"{name}-sid"))
    assert len(marks) == 1


def test_what_the_file_did_not_say_is_an_error_that_names_it(ids):
    with pytest.raises(ConfigError, match=r"imported from shop\.index\.json.*no codebooks.*semid fit"):
        _ = ids.codebooks
    with pytest.raises(ConfigError, match="no codebooks"):
        ids.encode_vectors(np.zeros((1, 4)))
    with pytest.raises(ConfigError, match=r"imported from shop\.index\.json.*no encoder.*semid fit"):
        ids.embed(Items(["x"], {"title": ["Soap"]}))


def test_the_quality_of_imported_ids_is_measured_with_vectors_too(ids):
    assert ids.quality().collision_rate == 0
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    quality = ids.quality(vectors=vectors)
    assert quality.neighbor_recall is not None
    assert quality.distortion is None


def test_learned_ids_stay_as_they_were():
    items = [{"id": str(n), "title": f"thing {n}"} for n in range(9)]
    ids = SemanticIDTokenizer.fit(items, levels=2, codebook_size=4, method="rqkmeans")
    assert ids.is_fitted
    assert ids.imported_from is None
    assert ids.codebooks.sizes == (4, 4)


@pytest.mark.parametrize("provenance", [{}, {"imported_from": 7}, [], None, "x"])
def test_a_lost_note_of_the_source_does_no_harm(ids, tmp_path, provenance):
    ids.save_pretrained(tmp_path / "sid")
    path = tmp_path / "sid" / "semid.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"provenance": provenance}))
    opened = SemanticIDTokenizer.from_pretrained(tmp_path / "sid")
    assert opened.imported_from == "elsewhere"
    assert opened.base is None


def test_every_reading_command_takes_an_imported_artifact(semid, tmp_path, ids):
    ids.save_pretrained(tmp_path / "sid")
    done = semid("verify", "sid")
    assert done.code == 0, done.err
    assert "OK" in done.out
    done = semid("info", "sid")
    assert done.code == 0, done.err
    assert "none: imported from shop.index.json" in done.out
    for command in (["show", "sid", "2"], ["encode", "sid", "2"], ["decode", "sid", "<a_236><b_7>"], ["doctor", "sid"]):
        done = semid(*command)
        assert done.code == 0, (command, done.err)
    done = semid("show", "sid", "2")
    assert "<a_236><b_7>" in done.out


def test_the_card_of_imported_ids_names_their_source_and_no_settings(ids):
    text = model_card(ids, "me/sid", ids.quality())
    assert "imported from shop.index.json" in text
    assert "Settings" not in text
