"""A token for every user and item: ids by arithmetic, read whole, and never out of what somebody wrote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.entities import EntityNames, EntityTokens, add_entities, find_entities
from semid.tokenizer_exports.models import extend
from tests.helpers.tiny_models import new_model, new_tokenizer

PATTERNS = [("user_{}", "item_{}"), ("<user_{}>", "<item_{}>"), ("[u:{}]", "<|item{}|>")]
TRICKY = ["item_", "user_", "<user_", "<item", "item_4", "user_12>", "\\", "0", "7", ">", "_", "item", " ", "é", "\n"]
names_of = {pattern: EntityNames(12, 105, *pattern) for pattern in PATTERNS}
tokenizers = {}


def prepared(pattern):
    """A tokenizer with the tokens, made once."""
    if pattern not in tokenizers:
        tokenizer = new_tokenizer()
        tokenizers[pattern] = tokenizer, add_entities(tokenizer, names_of[pattern])
    return tokenizers[pattern]


texts = st.lists(st.sampled_from(TRICKY), max_size=12).map("".join) | st.text(max_size=30)


@given(st.sampled_from(PATTERNS), texts)
@settings(deadline=None)
def test_free_text_comes_back_and_holds_no_token(pattern, text):
    tokenizer, entities = prepared(pattern)
    escaped = entities.names.escape(text)
    assert entities.names.unescape(escaped) == text
    for around in ("{}", "7{} 7", "item_3 {}\n{}, user_1"):  # what stands beside it makes no token out of it either
        found = entities.find(tokenizer(around.format(escaped, escaped), add_special_tokens=False)["input_ids"])
        own = entities.find(tokenizer(around.format("", ""), add_special_tokens=False)["input_ids"])
        assert [one[1:] for one in found] == [one[1:] for one in own]


@given(st.sampled_from(PATTERNS), st.data())
@settings(deadline=None)
def test_tokens_come_back_from_any_text_around_them(pattern, data):
    tokenizer, entities = prepared(pattern)
    names = entities.names
    kinds = data.draw(st.lists(st.sampled_from(["user", "item"]), max_size=6))
    numbers = [data.draw(st.integers(0, names.count(kind) - 1)) for kind in kinds]
    between = [data.draw(st.sampled_from(["", " ", ", ", " and ", "\n", "."])) for _ in kinds]
    text = "".join(
        names.token(kind, number) + space for kind, number, space in zip(kinds, numbers, between, strict=True)
    )
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = entities.find(token_ids)
    assert [(one.kind, one.number) for one in found] == list(zip(kinds, numbers, strict=True))
    assert tokenizer.decode(token_ids) == text
    assert all(token_ids[one.place] in (entities.users if one.kind == "user" else entities.items) for one in found)


def test_blocks_are_contiguous_users_first():
    tokenizer = new_tokenizer()
    before = len(tokenizer)
    entities = add_entities(tokenizer, EntityNames(12, 105))
    assert entities.words == range(before)
    assert entities.users == range(before, before + 12) and entities.items == range(before + 12, before + 117)
    assert tokenizer.convert_ids_to_tokens([before, before + 12, before + 116]) == ["user_0", "item_0", "item_104"]
    assert entities.item_ids([[3], [104]]).tolist() == [[before + 15], [before + 116]]
    assert entities.item_numbers([before, before + 12, before + 117, 0]).tolist() == [-1, 0, -1, -1]
    assert entities.user_numbers(entities.user_ids(np.arange(12))).tolist() == list(range(12))
    assert add_entities(tokenizer, entities.names) == entities == find_entities(tokenizer, entities.names)
    assert len(tokenizer) == before + 117


def test_a_saved_tokenizer_has_them_where_they_were(tmp_path):
    tokenizer, entities = prepared(PATTERNS[0])
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    names = EntityNames.from_dict(entities.names.to_dict())
    assert find_entities(loaded, names) == entities
    assert loaded("user_1 met item_104")["input_ids"] == tokenizer("user_1 met item_104")["input_ids"]


def test_only_items_or_only_users():
    for names in (EntityNames(0, 5), EntityNames(5, 0)):
        tokenizer = new_tokenizer()
        entities = add_entities(tokenizer, names)
        assert len(names) == 5 == len(entities.users) + len(entities.items)
        assert find_entities(tokenizer, names) == entities
    with pytest.raises(InputError, match="absent: there are no items"):
        entities.item_ids([0])


@pytest.mark.parametrize("kind", ["qwen3 tied", "qwen3 untied"])
def test_extend_gives_them_rows(kind):
    tokenizer, model, names = new_tokenizer(), new_model(kind), EntityNames(5, 300)
    extended = extend(tokenizer, model, names, init="default")
    entities = EntityTokens(names, extended.base)
    assert entities == find_entities(tokenizer, names) and extended.n_tokens == 305
    rows = model.get_input_embeddings().weight.detach()[entities.items.start : entities.items.stop]
    assert len(np.unique(rows.numpy(), axis=0)) == 300
    with pytest.raises(ConfigError, match="needs codebooks"):
        extend(tokenizer, model, names, init="codebook")
    assert not extend(tokenizer, model, names).initialized


@pytest.mark.parametrize("wrong", [[105], [-1], [3, 9999]])
def test_numbers_out_of_range_are_named(wrong):
    _, entities = prepared(PATTERNS[0])
    with pytest.raises(InputError, match=rf"items\[{len(wrong) - 1}\]={wrong[-1]} should be in 0\.\.104"):
        entities.item_ids(wrong)
    with pytest.raises(InputError, match=r"items\[0\]=105 should be"):
        entities.names.token("item", 105)
    with pytest.raises(InputError, match="dtype=float64 should be integers"):
        entities.user_ids([0.5])


@pytest.mark.parametrize(
    "given, said",
    [
        ({"n_users": -1}, "n_users=-1 should be an integer"),
        ({"n_users": True}, "n_users=True"),
        ({"n_users": 0, "n_items": 0}, "at least one user or item"),
        ({"item_name": "item_"}, "one {} for the number"),
        ({"item_name": "item_{}{}"}, "one {} for the number"),
        ({"item_name": "item_{n}"}, "one {} for the number"),
        ({"item_name": "item {}"}, "not contain blanks"),
        ({"item_name": "item\\{}"}, "not contain blanks or backslashes"),
        ({"item_name": "_{}"}, "two or more characters"),
        ({"item_name": "item1{}"}, "no digit next to the number"),
        ({"item_name": "item_{}0"}, "no digit next to the number"),
        ({"item_name": "user_{}"}, "are the same"),
        ({"user_name": "an_item_{}"}, "contain 'item_'"),
        ({"user_name": "<u{}<", "item_name": "<i{}>"}, "run into each other"),
        ({"item_name": "#{n}#"}, "one {} for the number"),
    ],
)
def test_what_cannot_be_is_refused(given, said):
    with pytest.raises(ConfigError) as caught:
        EntityNames(**({"n_users": 3, "n_items": 4} | given))
    assert said in str(caught.value)


def test_counts_of_any_integer_type_are_counts():
    names = EntityNames(np.int64(3), np.max(np.arange(5)))
    assert names == EntityNames(3, 4) and names.to_dict()["n_items"] == 4
    assert type(names.n_users) is int


def test_names_that_would_not_be_written_as_they_are_read_are_refused():
    with pytest.raises(ConfigError, match=r"would write the token 'käufer_2' as .*names of ASCII letters. .*my_user_"):
        add_entities(new_tokenizer(), EntityNames(3, 4, "käufer_{}"))
    tokenizer = new_tokenizer()
    for _ in range(2):  # that the names are there by then does not make them right
        with pytest.raises(ConfigError, match="would write"):
            add_entities(tokenizer, EntityNames(3, 4, "käufer_{}"))
    tokenizer, names = new_tokenizer(), EntityNames(0, 4, item_name="物品{}")  # of letters that no byte is written as
    entities = add_entities(tokenizer, names)
    token_ids = tokenizer("物品3 und 物品0")["input_ids"]
    assert [one.number for one in entities.find(token_ids)] == [3, 0]
    assert tokenizer.decode(token_ids) == "物品3 und 物品0"
    assert not entities.find(tokenizer(names.escape("物品3"))["input_ids"])


def test_only_a_sequence_of_token_ids_is_looked_through():
    _, entities = prepared(PATTERNS[0])
    assert entities.find([]) == [] == entities.find(np.zeros(0, np.int64))
    with pytest.raises(InputError, match=r"shape=\(1, 2\) should be \(T,\)"):
        entities.find([[1, 2]])
    with pytest.raises(InputError, match="dtype=float64 should be integers"):
        entities.item_numbers([1.5])


def test_names_that_the_tokenizer_has_are_refused():
    tokenizer = new_tokenizer()
    tokenizer.add_tokens(["item_3"])
    with pytest.raises(ConfigError, match="already has 1 of the 7 tokens"):
        add_entities(tokenizer, EntityNames(3, 4))
    with pytest.raises(ConfigError, match="should have the keys"):
        EntityNames.from_dict({"n_users": 3})


@pytest.mark.slow
def test_a_million_are_workable():
    """Added, found and read in seconds, not minutes."""
    import time

    tokenizer, start = new_tokenizer(), time.process_time()
    entities = add_entities(tokenizer, EntityNames(500_000, 500_000))
    assert time.process_time() - start < 60
    assert (
        entities.find(tokenizer("user_499999 met item_17, item_1 and item_499999")["input_ids"])[-1].number == 499_999
    )


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("family", ["qwen", "gpt2", "mistral", "mistral-prepend", "bert", "unigram"])
def test_real_tokenizers_read_them_whole_and_escaped_text_as_text(family, pattern):
    from tests.helpers.real_models.tokenizers import FAMILIES

    tokenizer, names = FAMILIES[family](), names_of[pattern]
    entities = add_entities(tokenizer, names)
    text = f"{names.token('user', 11)} chose{names.token('item', 4)}, {names.token('item', 104)}."
    found = [one[1:] for one in entities.find(tokenizer(text)["input_ids"])]
    assert found == [("user", 11), ("item", 4), ("item", 104)]
    assert not entities.find(tokenizer(names.escape(text))["input_ids"])
    assert names.unescape(names.escape(text)) == text
