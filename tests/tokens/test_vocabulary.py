import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import ConfigError, InputError
from semid.tokens import TEMPLATES, Found, Vocabulary
from semid.tokens.templates import letters_of, level_of

untimed = settings(deadline=None)  # a slow machine decides nothing here
ALL_TEMPLATES = [*TEMPLATES, "<|sid_{offset}|>", "[L{level}:{code}]", "<x{letter}{code}>"]


def vocabularies():
    sizes = st.lists(st.integers(1, 12), min_size=1, max_size=5)
    return st.builds(Vocabulary, sizes, st.sampled_from(ALL_TEMPLATES))


@st.composite
def coded(draw):
    vocabulary = draw(vocabularies())
    row = st.tuples(*(st.integers(0, size - 1) for size in vocabulary.sizes))
    return vocabulary, draw(st.lists(row, min_size=1, max_size=6))


def test_known_grammars_are_written_as_their_systems_write_them():
    def text(name):
        return Vocabulary([256, 512], name).text([12, 7], markers=True)

    assert text("onerec") == "<|sid_begin|><s_a_12><s_b_7><|sid_end|>"
    assert text("lcrec") == "<a_12><b_7>"
    assert text("rectokens") == "<item_L0_C12><item_L1_C7><|item_end|>"
    assert text("metaid") == "<CT12><1008>"


def test_default_block_is_what_flashrec_reads():
    tokens = Vocabulary([3, 2]).tokens
    assert tokens == [
        "<s_a_0>", "<s_a_1>", "<s_a_2>", "<s_b_0>", "<s_b_1>", "<|sid_begin|>", "<|sid_end|>",
    ]  # fmt: skip
    assert all(re.fullmatch(r"<s_([A-Za-z0-9]+)_(\d+)>", token) for token in tokens[:-2])


def test_levels_go_on_past_z():
    vocabulary = Vocabulary([2] * 30)
    assert vocabulary.token(25, 1) == "<s_z_1>"
    assert vocabulary.token(26, 0) == "<s_aa_0>"
    codes = [0, 1] * 15
    assert vocabulary.find(vocabulary.text(codes))[0].codes == tuple(codes)


@untimed
@given(st.integers(0, 100_000))
def test_letters_name_levels_one_to_one(level):
    assert level_of(letters_of(level)) == level


@untimed
@given(coded())
def test_text_and_token_ids_lead_back_to_the_codes(case):
    vocabulary, rows = case
    texts = vocabulary.texts(rows)
    assert texts == [vocabulary.text(row) for row in rows]
    for text, row in zip(texts, rows, strict=True):
        (found,) = vocabulary.find(text)
        assert (found.codes, found.problem, found.text) == (row, None, text)
    token_ids = vocabulary.token_ids(rows, base=1000)
    assert vocabulary.codes_of_token_ids(token_ids, base=1000).tolist() == [list(row) for row in rows]
    # token ids are places in the block: base + offset + code
    words = [[vocabulary.tokens[i - 1000] for i in row] for row in token_ids.tolist()]
    assert ["".join(row) for row in words] == texts
    marked = vocabulary.texts(rows, markers=True)
    assert marked == [vocabulary.begin + text + vocabulary.end for text in texts]
    assert [vocabulary.find(text)[0].codes for text in marked] == rows


@untimed
@given(vocabularies())
def test_tokens_are_distinct_and_none_begins_another(vocabulary):
    tokens = sorted(vocabulary.tokens)
    assert len(tokens) == len(vocabulary)
    assert not any(b.startswith(a) for a, b in zip(tokens, tokens[1:], strict=False))


@untimed
@given(coded(), st.lists(st.text(max_size=8), min_size=7, max_size=7))
def test_ids_are_found_inside_any_text(case, fillers):
    vocabulary, rows = case
    fillers = [re.sub(r"[<>\[\]|]", "", filler) + ";" for filler in fillers]
    text = fillers[0]
    for row, filler in zip(rows, fillers[1:], strict=False):
        text += vocabulary.text(row) + filler
    found = vocabulary.find(text)
    assert [f.codes for f in found] == rows
    assert all(text[f.start : f.end] == f.text for f in found)


@untimed
@given(coded())
def test_ids_side_by_side_without_markers_are_told_apart(case):
    vocabulary, rows = case
    bare = Vocabulary(vocabulary.sizes, vocabulary.template, begin="", end="")
    assert [f.codes for f in vocabulary.find("".join(bare.texts(rows)))] == rows


@untimed
@given(vocabularies(), st.data())
def test_found_codes_spell_the_text_and_all_else_has_a_problem(vocabulary, data):
    pieces = st.sampled_from([*vocabulary.tokens, " ", "\t", "\n", "x", "<s_a_99>", "<", "01>"])
    text = "".join(data.draw(st.lists(pieces, max_size=30)))
    for found in vocabulary.find(text):
        assert (found.codes is None) != (found.problem is None)
        if found.codes is not None:
            bare = found.text.replace(" ", "").replace("\t", "")
            spelt = vocabulary.text(found.codes, markers=True)
            assert bare in {
                spelt,
                spelt.removeprefix(vocabulary.begin),
                spelt.removesuffix(vocabulary.end),
                spelt.removeprefix(vocabulary.begin).removesuffix(vocabulary.end),
            }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<s_a_1><s_b_2>", "has 2 of 3 codes"),
        ("<s_b_2><s_c_3>", "has a code of level 1 where level 0 is expected"),
        ("<s_a_1><s_c_3><s_b_2>", "has a code of level 2 where level 1 is expected"),
        ("<s_a_1><s_b_2><s_b_2><s_c_3>", "has a code of level 1 where level 2 is expected"),
        ("<s_a_1><s_b_2><s_c_3><s_c_3>", "has 4 codes, more than 3"),
        ("<s_a_1><s_b_8><s_c_3>", "<s_b_8> is not among the codes <s_b_0> to <s_b_7>"),
        ("<s_a_1><s_b_02><s_c_3>", "<s_b_02> is not among the codes <s_b_0> to <s_b_7>"),
        ("<s_a_1><s_b_2><s_c_3><s_d_0>", "<s_d_0> is not one of the 24 codes of 3 levels"),
        ("<|sid_begin|><|sid_end|>", "has 0 of 3 codes"),
        ("<|sid_end|>", "has 0 of 3 codes"),
        (f"<s_a_1><s_b_{'7' * 5000}>", f"<s_b_{'7' * 32}... is not among the codes <s_b_0> to <s_b_7>"),
    ],
)
def test_malformed_ids_are_reported_whole_and_not_guessed(text, problem):
    (found,) = Vocabulary([8, 8, 8]).find(f"see {text}, please")
    assert (found.text, found.codes, found.problem) == (text, None, problem)


def test_blanks_between_tokens_are_read_and_line_breaks_end_an_id():
    vocabulary = Vocabulary([8, 8])
    (found,) = vocabulary.find("<|sid_begin|> <s_a_1> \t<s_b_2> <|sid_end|>")
    assert found.codes == (1, 2)
    assert [f.problem for f in vocabulary.find("<s_a_1>\n<s_b_2>")] == [
        "has 1 of 2 codes",
        "has a code of level 1 where level 0 is expected",
    ]


def test_an_id_after_a_broken_one_is_still_found():
    found = Vocabulary([8, 8]).find("<s_a_1><s_a_2><s_b_3><|sid_begin|><s_a_4><|sid_begin|><s_a_5><s_b_6>")
    assert [f.codes for f in found] == [None, (2, 3), None, (5, 6)]


@pytest.mark.parametrize(
    "text",
    ["<s_a_" * 400_000, "<s_a_" + "1" * 2_000_000, "<" * 2_000_000, "<|sid_begin|" * 160_000],
    ids=["heads", "digits", "brackets", "markers"],
)
def test_hostile_text_of_two_megabytes_holds_no_id(text):
    """Also of linear time: about 0.05 s, where a quadratic scan would not end in hours."""
    assert Vocabulary([256] * 4).find(text) == []


# ---- token ids


@untimed
@given(vocabularies(), st.integers(1, 5), st.data())
def test_token_ids_hold_the_ids_that_their_text_holds(vocabulary, base, data):
    """Text tokens are the letter x, whatever their id, so places in the text lead to places in the sequence."""
    size = len(vocabulary)
    codes = st.tuples(*(st.integers(0, size - 1) for size in vocabulary.sizes))
    whole = codes.map(lambda codes: (vocabulary.offsets[:-1] + codes).tolist())
    single = st.integers(-base, size + 3).map(lambda place: [place])
    places = sum(data.draw(st.lists(whole | single, max_size=20)), [])
    words = [vocabulary.tokens[place] if 0 <= place < size else "x" for place in places]
    starts = np.cumsum([0, *map(len, words)]).tolist()
    expected = [
        Found(starts.index(found.start), starts.index(found.end), found.codes, found.text, found.problem)
        for found in vocabulary.find("".join(words))
    ]
    token_ids = [base + place for place in places]
    assert vocabulary.find_token_ids(token_ids, base) == expected
    assert vocabulary.find_token_ids(np.array(token_ids, np.int32), base) == expected


@pytest.mark.parametrize(
    ("token_ids", "found"),
    [
        ([7, 100, 104, 7], [(1, 3, (0, 0), None)]),
        ([105, 103, 105], [(0, 1, None, "has a code of level 1 where level 0 is expected"), (1, 3, (3, 1), None)]),
        ([106, 103, 105, 107, 103], [(0, 4, (3, 1), None), (4, 5, None, "has 1 of 2 codes")]),
        ([106, 107], [(0, 2, None, "has 0 of 2 codes")]),
        ([100, 104, 107, 105], [(0, 3, (0, 0), None), (3, 4, None, "has a code of level 1 where level 0 is expected")]),
        (
            [100, 7, 104],
            [(0, 1, None, "has 1 of 2 codes"), (2, 3, None, "has a code of level 1 where level 0 is expected")],
        ),
        ([100, 104, 105], [(0, 3, None, "has 3 codes, more than 2")]),
        ([99, 108, -100], []),
        ([], []),
    ],
)
def test_ids_and_attempts_at_one_are_found_in_token_ids(token_ids, found):
    attempts = Vocabulary([4, 2]).find_token_ids(token_ids, base=100)  # 100..103, 104..105, begin 106, end 107
    assert [(one.start, one.end, one.codes, one.problem) for one in attempts] == found


def test_many_token_ids_are_read_in_linear_time():
    vocabulary = Vocabulary([256] * 4)
    token_ids = np.tile(vocabulary.token_ids([[1, 2, 3, 4]], base=10)[0], 50_000)
    assert len(vocabulary.find_token_ids(token_ids, 10)) == 50_000
    (one,) = vocabulary.find_token_ids(np.full(200_000, 10 + 256), 10)  # one attempt, level 1 all along
    assert one.problem == "has a code of level 1 where level 0 is expected"


@pytest.mark.parametrize("token_ids", [[[1, 2]], [[1, 2], [3]], [0.5], ["<s_a_1>"], 3, [[]]])
def test_what_is_no_single_sequence_of_token_ids_is_refused(token_ids):
    with pytest.raises(InputError, match=r"token_ids: .*should be integers \[T\], one sequence"):
        Vocabulary([4, 2]).find_token_ids(token_ids, 0)


def test_token_ids_of_no_code_become_minus_one():
    vocabulary = Vocabulary([4, 2])
    assert vocabulary.codes_of_token_ids([[9, 14], [10, 13], [13, 15], [14, 16]], base=10).tolist() == [
        [-1, 0], [0, -1], [3, 1], [-1, -1],
    ]  # fmt: skip


@pytest.mark.parametrize("codes", [[[0, 2]], [[-1, 0]], [[0]], [[0, 1, 2]], [[0.0, 1.0]]])
def test_codes_outside_the_sizes_are_refused(codes):
    with pytest.raises(InputError, match=r"^codes"):
        Vocabulary([4, 2]).texts(codes)


def test_no_items_give_no_texts():
    assert Vocabulary([4, 2]).texts(np.zeros((0, 2), np.uint16)) == []
    assert Vocabulary([4, 2]).token_ids([], base=3).shape == (0, 2)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("<item>", "should contain {code} or {offset}"),
        ("<{code}>", "to distinguish 2 levels"),
        ("<{letter}{letter}{code}>", "each field once"),
        ("<{letter} {code}>", "not contain blanks"),
        ("item_{letter}_{code};", "begin with a character that occurs nowhere else"),
        ("<{letter}<{code}>", "begin with a character that occurs nowhere else"),
        ("{letter}_{code}>", "begin with a character that occurs nowhere else"),
        ("<{letter}_{code}", "should end {code} with"),
        ("<{letter}x{code}>", "should end {letter} with"),
        ("<{level}{code}>", "should end {level} with"),
        ("<{letter}_{code:03d}>", "without a format"),
        ("<{letter}_{rank}>", "should be {letter}, {level}, {code} or {offset}"),
        ("<{letter}_{code", "is not a pattern"),
        ("", "should contain {code} or {offset}"),
        ("onerce", "or one of the names onerec, lcrec, rectokens, metaid"),
    ],
)
def test_templates_with_doubtful_tokens_are_refused(template, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        Vocabulary([4, 4], template)


@pytest.mark.parametrize(
    ("begin", "end"),
    [("<s_a_1>", ""), ("<s", ""), ("<x>", "<x>"), ("<x>", "<x>y"), ("a b", ""), ("", "<s_a_1>x")],
)
def test_markers_that_look_like_tokens_are_refused(begin, end):
    with pytest.raises(ConfigError, match=r"begin=|end="):
        Vocabulary([4, 4], begin=begin, end=end)


@pytest.mark.parametrize("sizes", [[], [0], [4, -1], [65537], [4.0], [True], "44"])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ConfigError, match="sizes="):
        Vocabulary(sizes)


@untimed
@given(vocabularies())
def test_json_round_trip_gives_an_equal_vocabulary(vocabulary):
    again = Vocabulary.from_dict(vocabulary.to_dict())
    assert again == vocabulary
    assert again.tokens == vocabulary.tokens


@pytest.mark.parametrize(
    "record",
    [{}, {"sizes": [4]}, {"sizes": 4, "template": "lcrec", "begin": "", "end": ""}, None,
     {"sizes": [4], "template": 1, "begin": "", "end": ""},
     {"sizes": [4], "template": "lcrec", "begin": "", "end": "", "extra": 1}],
)  # fmt: skip
def test_a_record_of_another_form_is_refused(record):
    with pytest.raises(ConfigError, match="vocabulary="):
        Vocabulary.from_dict(record)


def test_a_million_ids_are_written():
    codes = np.random.default_rng(0).integers(0, 256, (1_000_000, 4), np.uint16)
    texts = Vocabulary([256] * 4).texts(codes)
    assert len(texts) == 1_000_000
    assert texts[-1] == "".join(f"<s_{letter}_{code}>" for letter, code in zip("abcd", codes[-1], strict=True))


def test_only_a_text_that_is_one_id_has_codes():
    vocabulary = Vocabulary([4, 2])
    texts = [
        " <s_a_3> <s_b_1>\n",
        "<|sid_begin|><s_a_0><s_b_0><|sid_end|>",
        "",
        "<s_a_3><s_b_1>.",
        "<s_a_3><s_b_1>" * 2,
    ]
    assert vocabulary.codes_of_texts(texts).tolist() == [[3, 1], [0, 0], [-1, -1], [-1, -1], [-1, -1]]
    assert vocabulary.codes_of_texts([]).shape == (0, 2)
