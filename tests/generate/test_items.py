"""generate_items on one small model: against every item's score, a plain beam search, and wrong use."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import ConfigError, InputError
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.generate import TrieTensors, generate_items, items_custom_generate
from semid.tokenizer_exports.generate.beam_search import _best
from semid.trie import Trie
from tests.helpers.beam_oracle import (
    BASE,
    SEQ2SEQ,
    VOCABULARY,
    item_scores,
    items_of,
    new_model,
    padded,
    plain_beams,
    qwen3,
    token_ids,
    token_scores,
)  # fmt: skip

SIZES = (6, 5, 8)
ITEMS = items_of(SIZES, 60)
TRIE = Trie.from_codes(ITEMS, SIZES, base=BASE)
PROMPTS = [[5, 17, 33, 8, 60, 61], [70, 4, 4], [12, 13, 14, 15]]
SCORES = ("level", "vocab")
MODEL = qwen3()
T5 = new_model(transformers.T5ForConditionalGeneration, {}, shape=SEQ2SEQ)
CLOSE = {"rtol": 1e-5, "atol": 2e-4}


def found_items(found, prompt: int = 0) -> list[tuple[int, ...]]:
    return [tuple(codes) for codes in found.codes[prompt].tolist() if codes[0] >= 0]


# ---- the result is right


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("score", SCORES)
def test_with_enough_beams_every_item_has_its_teacher_forced_score(score, side):
    found = generate_items(MODEL, padded(PROMPTS, side), TRIE, num_beams=60, num_return=60, score=score)
    assert found.method == "tree"
    for prompt, tokens in enumerate(PROMPTS):
        expected = item_scores(MODEL, tokens, ITEMS, SIZES, score)
        rows = found.rows[prompt].numpy()
        assert sorted(rows) == list(range(60))
        np.testing.assert_allclose(found.scores[prompt].numpy(), expected[rows], **CLOSE)
        np.testing.assert_allclose(expected[rows], np.sort(expected)[::-1], **CLOSE)
        assert found.codes[prompt].tolist() == [list(ITEMS[row]) for row in rows]
        assert found.token_ids[prompt].tolist() == [token_ids(ITEMS[row], SIZES) for row in rows]


@pytest.mark.parametrize("method", ["tree", "repeat"])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("beams", [1, 2, 7, 20])
def test_few_beams_are_those_of_a_plain_beam_search(beams, score, method):
    found = generate_items(
        MODEL, padded(PROMPTS), TRIE, num_beams=beams, num_return=min(beams, 5), score=score, method=method
    )
    for prompt, tokens in enumerate(PROMPTS):
        expected = plain_beams(MODEL, tokens, ITEMS, SIZES, score, beams)[:5]
        assert found_items(found, prompt) == [item for item, _ in expected]
        np.testing.assert_allclose(found.scores[prompt].numpy(), [value for _, value in expected], **CLOSE)


@st.composite
def small_catalogs(draw):
    """One to eight levels of one to five codes, one item to all."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) <= 30))
    code = st.tuples(*[st.integers(0, size - 1) for size in sizes])
    items = draw(st.lists(code, min_size=1, max_size=min(20, math.prod(sizes)), unique=True))
    return tuple(sizes), items


@settings(max_examples=60)
@given(small_catalogs(), st.integers(1, 25), st.sampled_from(SCORES), st.sampled_from(["tree", "repeat"]), st.data())
def test_any_catalog_any_number_of_beams_any_filter(catalog, beams, score, method, data):
    sizes, items = catalog
    trie = Trie.from_codes(items, sizes, base=BASE)
    kept = data.draw(st.lists(st.sampled_from(range(len(items))), min_size=1, unique=True))
    count = data.draw(st.integers(1, min(beams, len(items))))
    filters = [None, trie.filter(only=kept)]
    found = generate_items(
        MODEL, padded(PROMPTS[:2]), trie, num_beams=beams, num_return=count, score=score, filter=filters, method=method
    )
    for prompt, pool in enumerate([items, [items[row] for row in kept]]):
        expected = plain_beams(MODEL, PROMPTS[prompt], pool, sizes, score, beams)[:count]
        mine = found_items(found, prompt)
        assert len(mine) == len(set(mine)) == len(expected)
        assert set(mine) <= set(pool)
        np.testing.assert_allclose(found.scores[prompt, : len(mine)].numpy(), [s for _, s in expected], **CLOSE)
        alone = item_scores(MODEL, PROMPTS[prompt], mine, sizes, score)
        np.testing.assert_allclose(found.scores[prompt, : len(mine)].numpy(), alone, **CLOSE)
        assert (found.rows[prompt, len(mine) :] == -1).all()
        assert (found.scores[prompt, len(mine) :] == -torch.inf).all()


def test_a_prompt_gives_the_same_alone_as_among_others():
    together = generate_items(MODEL, padded(PROMPTS), TRIE, num_return=7)
    for prompt, tokens in enumerate(PROMPTS):
        alone = generate_items(MODEL, torch.tensor([tokens]), TRIE, num_return=7)
        assert alone.rows[0].tolist() == together.rows[prompt].tolist()
        torch.testing.assert_close(alone.scores[0], together.scores[prompt], atol=1e-4, rtol=1e-5)


def test_equal_scores_are_ordered_by_codes_and_runs_are_equal():
    model = qwen3(tie_word_embeddings=False)
    torch.nn.init.zeros_(model.lm_head.weight)
    ranked = sorted(ITEMS)
    for beams in (4, 10, 60):
        found = generate_items(model, padded(PROMPTS), TRIE, num_beams=beams, num_return=4)
        assert found_items(found) == ranked[:4]
    again = generate_items(model, padded(PROMPTS), TRIE, num_beams=60, num_return=4)
    assert torch.equal(found.rows, again.rows) and torch.equal(found.scores, again.scores)


@given(st.data())
def test_the_best_are_those_of_a_stable_sort(data):
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    value = st.sampled_from([-math.inf, -math.inf, -2.0, -1.0, 0.5])
    drawn = [[data.draw(value) for _ in range(columns)] for _ in range(rows)]
    count = data.draw(st.integers(1, columns))
    chosen = _best(torch.tensor(drawn), count)
    expected = np.sort(np.argsort(-np.array(drawn), axis=1, kind="stable")[:, :count], axis=1)
    assert chosen.tolist() == expected.tolist()


def test_bfloat16_models_give_scores_near_those_of_their_own_logits():
    model = qwen3().to(torch.bfloat16)
    found = generate_items(model, padded(PROMPTS), TRIE, num_beams=60, num_return=60, score="vocab")
    expected = item_scores(model, PROMPTS[1], ITEMS, SIZES, "vocab")
    assert found.method == "tree"
    np.testing.assert_allclose(found.scores[1].numpy(), expected[found.rows[1]], atol=0.3)
    assert found.scores.dtype == torch.float32


def test_level_sizes_may_differ_and_a_level_may_have_one_code():
    for sizes in [(7,), (1, 1), (3, 1, 9), (1, 30, 2), (2,) * 8]:
        items = items_of(sizes, min(12, math.prod(sizes)))
        trie = Trie.from_codes(items, sizes, base=BASE)
        found = generate_items(MODEL, padded(PROMPTS), trie, num_return=len(items))
        assert all(sorted(found_items(found, prompt)) == sorted(items) for prompt in range(3)), sizes


# ---- filters


def test_one_filter_for_all_and_one_for_each_prompt():
    stock = TRIE.filter(only=[3, 17, 40, 41, 42, 59])
    found = generate_items(MODEL, padded(PROMPTS), TRIE, num_return=10, filter=stock)
    assert all(set(rows.tolist()) == {3, 17, 40, 41, 42, 59, -1} for rows in found.rows)
    each = [TRIE.filter(only=[9]), None, TRIE.filter(without=[0, 3], within=stock)]
    found = generate_items(MODEL, padded(PROMPTS), TRIE, num_return=10, filter=each)
    assert [int((rows >= 0).sum()) for rows in found.rows] == [1, 10, 5]
    assert found.rows[0, 0] == 9
    free = generate_items(MODEL, padded(PROMPTS), TRIE, num_return=10)
    assert found.rows[1].tolist() == free.rows[1].tolist()


def test_bans_take_away_and_change_nothing_else():
    free = generate_items(MODEL, padded(PROMPTS), TRIE, num_beams=60, num_return=60)
    banned = free.rows[0, :5].tolist()
    found = generate_items(
        MODEL, padded(PROMPTS), TRIE, num_beams=60, num_return=55, filter=[TRIE.filter(without=banned), None, None]
    )
    assert found.rows[0].tolist() == free.rows[0, 5:].tolist()
    torch.testing.assert_close(found.scores[0], free.scores[0, 5:])


# ---- prompts


@pytest.mark.parametrize("depth", [1, 2])
def test_an_id_that_the_prompt_has_begun_is_continued(depth):
    begun = [ITEMS[0][:depth], ITEMS[7][:depth]]
    prompts = [[*PROMPTS[0], *token_ids(begun[0], SIZES)], [*PROMPTS[1], *token_ids(begun[1], SIZES)]]
    found = generate_items(MODEL, padded(prompts), TRIE, num_return=30)
    for prompt, prefix in enumerate(begun):
        pool = [item for item in ITEMS if item[:depth] == prefix]
        mine = found_items(found, prompt)
        assert sorted(mine) == sorted(pool)[:30]
        scores = token_scores(MODEL, PROMPTS[prompt], mine, SIZES, "level")[:, depth:].sum(axis=1)
        np.testing.assert_allclose(found.scores[prompt, : len(mine)].numpy(), scores, **CLOSE)
        assert found.token_ids[prompt, 0].tolist() == token_ids(mine[0], SIZES)


def test_a_begun_id_that_the_filter_closes_gives_no_items():
    prompt = [*PROMPTS[0], *token_ids(ITEMS[0][:2], SIZES)]
    elsewhere = [row for row, item in enumerate(ITEMS) if item[0] != ITEMS[0][0]]
    found = generate_items(MODEL, torch.tensor([prompt]), TRIE, filter=TRIE.filter(only=elsewhere))
    assert (found.rows == -1).all() and (found.scores == -torch.inf).all()


def test_whole_items_in_the_prompt_are_history():
    prompts = [[*PROMPTS[0], *token_ids(ITEMS[0], SIZES), *token_ids(ITEMS[1], SIZES)]]
    found = generate_items(MODEL, padded(prompts), TRIE, num_beams=60, num_return=60)
    expected = item_scores(MODEL, prompts[0], ITEMS, SIZES, "level")
    np.testing.assert_allclose(found.scores[0].numpy(), expected[found.rows[0]], **CLOSE)


def test_prompts_that_end_at_different_levels_are_refused():
    prompts = [PROMPTS[0], [*PROMPTS[1], *token_ids(ITEMS[0][:2], SIZES)]]
    with pytest.raises(InputError, match="prompt 0 ends after 0 tokens of an unfinished ID, prompt 1 after 2"):
        generate_items(MODEL, padded(prompts), TRIE)


def test_what_tokenizers_return_and_bare_ids_are_the_same():
    tokens = PROMPTS[0]
    expected = generate_items(MODEL, torch.tensor([tokens]), TRIE).rows.tolist()
    for inputs in (
        torch.tensor(tokens),
        torch.tensor([tokens], dtype=torch.int32),
        {"input_ids": [tokens]},
        {"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones(1, 6, dtype=torch.bool)},
        transformers.BatchEncoding({"input_ids": torch.tensor([tokens]), "token_type_ids": torch.zeros(1, 6)}),
        {"input_ids": torch.tensor([[9, 9, *tokens]]), "attention_mask": torch.tensor([[0, 0, *[1] * 6]])},
    ):
        assert generate_items(MODEL, inputs, TRIE).rows.tolist() == expected


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(0, 3, dtype=torch.long), "at least one prompt"),
        (torch.zeros(2, 0, dtype=torch.long), "at least one prompt"),
        (torch.zeros(1, 3), "should be integers"),
        ({"input_ids": [[1, 2], [3]]}, "one length for all prompts"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, r"attention_mask: shape=\[1, 1\]"),
        ({"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [0, 0]]}, "prompt 1 is empty"),
        (torch.tensor([[1, VOCABULARY]]), f"inside 0..{VOCABULARY - 1}"),
        (torch.tensor([[-100, 3]]), "-100..3 should be inside"),
    ],
)
def test_wrong_prompts_say_what_is_wrong(inputs, message):
    with pytest.raises(InputError, match=message):
        generate_items(MODEL, inputs, TRIE)


# ---- choices and models


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"num_return": 61}, r"num_return=61 should be 1\.\.60"),
        ({"num_return": 0}, r"num_return=0 should be 1\.\.60"),
        ({"num_return": 10, "num_beams": 9}, "num_beams=9 should be >= num_return=10"),
        ({"score": "children"}, "score='children' should be one of 'level', 'vocab'"),
        ({"method": "fast"}, "method='fast' should be one of 'auto', 'tree', 'repeat'"),
        ({"filter": ["B1"]}, r"filter: got a str\. Make filters with trie\.filter"),
        ({"filter": Trie.from_codes([[0, 1]], (2, 2)).filter()}, "of 1 items, this one has 60"),
        ({"filter": Trie.from_codes(ITEMS[::-1], SIZES).filter(only=[3])}, "made from another trie, of 60 items"),
    ],
)
def test_impossible_choices_say_what_is_possible(choices, message):
    with pytest.raises(ConfigError, match=message):
        generate_items(MODEL, padded(PROMPTS[:1]), TRIE, **choices)


def test_filters_for_another_number_of_prompts_are_refused():
    with pytest.raises(InputError, match="2 filters for 3 requests"):
        generate_items(MODEL, padded(PROMPTS), TRIE, filter=[None, None])


def test_more_items_than_usual_beams_raise_the_beams():
    items = items_of((5, 4, 6), 100)
    trie = Trie.from_codes(items, (5, 4, 6), base=BASE)
    found = generate_items(MODEL, torch.tensor([PROMPTS[0]]), trie, num_return=90)
    assert len(set(found.rows[0].tolist()) - {-1}) == 90


def test_a_model_that_was_not_extended_is_refused():
    with pytest.raises(ConfigError, match="the model has 128 rows: it was not extended"):
        generate_items(MODEL, padded(PROMPTS), TRIE.with_base(VOCABULARY - 5))
    with pytest.raises(ConfigError, match="the trie has no token ids"):
        generate_items(MODEL, padded(PROMPTS), Trie.from_codes(ITEMS, SIZES))
    with pytest.raises(ConfigError, match="Linear should be a transformers model"):
        generate_items(torch.nn.Linear(2, 2), padded(PROMPTS), TRIE)
    with pytest.raises(ConfigError, match="Qwen3Model should be a transformers model with a language modeling head"):
        generate_items(MODEL.model, padded(PROMPTS), TRIE)


def test_a_trie_is_copied_to_a_device_once_and_freed_with_its_copies():
    trie = Trie.from_codes(ITEMS, SIZES, base=BASE)
    for _ in range(2):
        generate_items(MODEL, padded(PROMPTS), trie, num_return=2)
    assert list(trie.device_copies) == [MODEL.device]
    assert TrieTensors.on(trie, "cpu") is trie.device_copies[MODEL.device]
    gone = weakref.ref(trie)
    del trie
    gc.collect()
    assert gone() is None


def test_logits_that_are_no_numbers_are_an_error():
    model = qwen3(tie_word_embeddings=False)
    generate_items(model, padded(PROMPTS), TRIE)  # the decoder is chosen
    model.lm_head.weight.data[BASE + 3] = torch.nan
    with pytest.raises(ConfigError, match="prompt 0: the model's logits are not all finite"):
        generate_items(model, padded(PROMPTS), TRIE)


def test_a_training_model_gives_the_same_and_is_left_as_it_was():
    model = qwen3(attention_dropout=0.5)
    expected = generate_items(model, padded(PROMPTS), TRIE)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()  # the name before 5.24
    model.train()
    model.model.layers[0].eval()  # frozen by its owner
    modes = [part.training for part in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = generate_items(model, padded(PROMPTS), TRIE)
    assert torch.equal(found.rows, expected.rows) and torch.equal(found.scores, expected.scores)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled() and not found.scores.requires_grad


def test_a_trie_with_a_ledger_names_the_items():
    items = [{"id": f"item {row}", "title": f"thing {row} of {row % 7}"} for row in range(40)]
    ids = SemanticIDTokenizer.fit(items, levels=3, codebook_size=8, method="rqkmeans")
    trie = Trie.from_tokenizer(ids, base=BASE)
    only = trie.filter(only=["item 3", "item 8"])
    found = generate_items(MODEL, padded(PROMPTS[:2]), trie, num_return=5, filter=[None, only])
    assert [len(names) for names in found.item_ids] == [5, 2]
    assert set(found.item_ids[1]) == {"item 3", "item 8"}
    assert found.item_ids[0] == [ids.item_ids[row] for row in found.rows[0]]
    assert generate_items(MODEL, padded(PROMPTS), TRIE).item_ids is None


# ---- through model.generate


@pytest.mark.parametrize("model", [MODEL, T5], ids=["qwen3", "t5"])
def test_generate_takes_it_as_a_custom_method(model):
    inputs = padded(PROMPTS)
    expected = generate_items(model, inputs, TRIE, num_return=4, num_beams=20, score="vocab")
    given = {"custom_generate": items_custom_generate, "trie": TRIE, "item_count": 4, "item_beams": 20,
             "item_score": "vocab", "max_new_tokens": 3}  # fmt: skip
    sequences = model.generate(**inputs, **given)
    start = torch.zeros(3, 1, dtype=torch.long) if model is T5 else inputs["input_ids"]
    assert torch.equal(sequences[:, : start.shape[1]], start.repeat_interleave(4, dim=0))
    assert torch.equal(sequences[:, start.shape[1] :].view(3, 4, 3), expected.token_ids)
    found = model.generate(**inputs, **given, return_dict_in_generate=True)
    assert torch.equal(found.rows, expected.rows)
    torch.testing.assert_close(found.scores, expected.scores)


def test_generate_without_padding_and_with_a_filter():
    unpadded = torch.tensor([PROMPTS[0]])  # generate then passes no mask at all
    only = TRIE.filter(only=[5, 6])
    sequences = MODEL.generate(
        unpadded, custom_generate=items_custom_generate, trie=TRIE, item_count=3, item_filter=only, max_new_tokens=3
    )
    expected = generate_items(MODEL, unpadded, TRIE, num_return=2, filter=only)
    assert torch.equal(sequences[:2, 6:], expected.token_ids[0])
    assert sequences[2, 6:].tolist() == [0, 0, 0]  # the padding token: only two items are admitted


def test_generate_with_its_own_beams_or_without_a_trie_is_refused():
    inputs = padded(PROMPTS)
    with pytest.raises(ConfigError, match="num_beams=2 should be 1"):
        MODEL.generate(**inputs, custom_generate=items_custom_generate, trie=TRIE, num_beams=2, max_new_tokens=3)
    with pytest.raises(ConfigError, match="trie is missing"):
        MODEL.generate(**inputs, custom_generate=items_custom_generate, max_new_tokens=3)
