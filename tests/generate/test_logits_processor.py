"""`generate` of real (tiny, random) models with the trie's logits processor and prefix function."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5
from transformers.generation.logits_process import PrefixConstrainedLogitsProcessor

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate import (
    TrieLogitsProcessor,
    TrieTensors,
    marker_ids,
    prefix_allowed_tokens_fn,
)
from semid.tokens.vocabulary import Vocabulary
from semid.trie import Trie

PAD, EOS = 0, 1
BASE, SIZES = 20, (6, 4, 5)
N_LEVELS = len(SIZES)
VOCABULARY = Vocabulary(SIZES)
V = 64  # 20 of the text, 15 codes, 2 markers, padding
CODES = np.unique(np.random.default_rng(0).integers(0, SIZES, size=(40, N_LEVELS)), axis=0)
TRIE = Trie.from_codes(CODES, SIZES, base=BASE)
ITEMS = set(map(tuple, CODES.tolist()))
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}


def tokens(codes: tuple[int, ...]) -> list[int]:
    return VOCABULARY.token_ids([codes], BASE)[0].tolist()


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def model(request):
    """Decoders alone; weights large enough that beams differ."""
    torch.manual_seed(1)
    options = SHAPE | {"vocab_size": V, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 2}
    options["initializer_range"] = 0.5
    if request.param == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**options, head_dim=8)).eval()
    return LlamaForCausalLM(LlamaConfig(**options)).eval()


@pytest.fixture(scope="module")
def t5():
    torch.manual_seed(2)
    options = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD, "initializer_factor": 3.0}
    return T5(T5Config(vocab_size=V, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **options)).eval()


@pytest.fixture
def prompts() -> dict[str, torch.Tensor]:
    """Four, padded on the left: text, an item within, an item at the end, two codes of an item at the end."""
    first, second = CODES[3].tolist(), CODES[-5].tolist()
    rows = [[5, 6, 7], [8, *tokens(first), 9, 3], [4, *tokens(second)], [10, 11, *tokens(first)[:2]]]
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def dictionary_fn(trie: Trie) -> Callable[[int, torch.Tensor], list[int]]:
    """What people write: a nested dict, and the depth from the end of the row."""
    root: dict = {}
    for codes in trie.codes_of(np.arange(len(trie))).tolist():
        node = root
        for token in tokens(codes):
            node = node.setdefault(token, {})

    def allowed(batch_id: int, input_ids: torch.Tensor) -> list[int]:
        row = input_ids.tolist()
        for depth in range(N_LEVELS - 1, -1, -1):
            node = root
            for token in row[len(row) - depth :]:
                node = node.get(token) if node else None
            if node:
                return sorted(node)
        raise AssertionError("no node")

    return allowed


def items_of(row: list[int]) -> list[tuple[int, ...]]:
    """The items in a row of token ids; a code outside an item is an error, but for the last one, cut off."""
    found, place = [], 0
    while place < len(row):
        if not BASE <= row[place] < BASE + sum(SIZES):
            place += 1
            continue
        piece = row[place : place + N_LEVELS]
        if len(piece) < N_LEVELS:
            assert any(tokens(item)[: len(piece)] == piece for item in ITEMS), (row, place)
            break
        codes = VOCABULARY.codes_of_token_ids([piece], BASE)[0]
        assert tuple(codes.tolist()) in ITEMS, (row, place)
        found.append(tuple(codes.tolist()))
        place += N_LEVELS
    return found


MODES = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "several samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 5, "num_return_sequences": 5},
    "sampled beams": {"num_beams": 4, "num_return_sequences": 2, "do_sample": True},
}


# ---- one item


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_an_item_to_every_prompt(model, prompts, mode):
    torch.manual_seed(0)
    processor = TrieLogitsProcessor(TRIE)
    rows = model.generate(**prompts, **MODES[mode], max_new_tokens=N_LEVELS, logits_processor=[processor])
    start = prompts["input_ids"].shape[1]
    n = len(rows) // 4
    for row in rows[: 3 * n].tolist():
        assert len(items_of(row[start:])) == 1
    for row in rows[3 * n :].tolist():  # the item begun in the prompt is completed, the next one begins
        assert len(items_of(row[start - 2 : start + 1])) == 1
        assert row[start + 1 : start + 3] in [tokens(item)[:2] for item in CODES.tolist()]


@pytest.mark.parametrize("n_beams", [1, 2, 7])
def test_processor_prefix_function_and_a_dict_give_the_same_tokens_and_scores(model, prompts, n_beams):
    options = {"num_beams": n_beams, "num_return_sequences": n_beams, "max_new_tokens": 2 * N_LEVELS}
    options |= {"output_scores": True, "return_dict_in_generate": True}
    ours = model.generate(**prompts, **options, logits_processor=[TrieLogitsProcessor(TRIE)])
    for function in (prefix_allowed_tokens_fn(TRIE), dictionary_fn(TRIE)):
        theirs = model.generate(**prompts, **options, prefix_allowed_tokens_fn=function)
        assert torch.equal(ours.sequences, theirs.sequences)
        assert all(map(torch.equal, ours.scores, theirs.scores))


def test_the_processor_masks_as_that_of_transformers_does(model):
    rows = torch.tensor([[7, 7, 7, *tokens(CODES[0])[:depth]][-3:] for depth in range(3)])
    scores = torch.randn(3, V)
    stock = PrefixConstrainedLogitsProcessor(dictionary_fn(TRIE), num_beams=1)(rows, scores.clone())
    assert torch.equal(TrieLogitsProcessor(TRIE)(rows, scores), stock)


def test_sampling_draws_the_same_tokens_as_with_the_prefix_function(model, prompts):
    drawn = []
    for options in (
        {"logits_processor": [TrieLogitsProcessor(TRIE)]},
        {"prefix_allowed_tokens_fn": prefix_allowed_tokens_fn(TRIE)},
    ):
        torch.manual_seed(5)
        drawn.append(model.generate(**prompts, **options, max_new_tokens=9, do_sample=True, num_return_sequences=4))
    assert torch.equal(*drawn)


def test_an_encoder_decoder_generates_items_too(t5, prompts):
    options = {"max_new_tokens": N_LEVELS + 1, "num_beams": 6, "num_return_sequences": 6}
    processor = TrieLogitsProcessor(TRIE, EOS, prompt_length=1, max_items=1)
    rows = t5.generate(**prompts, **options, logits_processor=[processor])
    assert all(len(items_of(row)) == 1 and row[-1] == EOS for row in rows.tolist())
    prefix = prefix_allowed_tokens_fn(TRIE, EOS, prompt_length=1, max_items=1)
    assert torch.equal(rows, t5.generate(**prompts, **options, prefix_allowed_tokens_fn=prefix))


def test_half_precision_models_give_items(model, prompts):
    rows = model.to(torch.bfloat16).generate(
        **prompts, max_new_tokens=N_LEVELS, logits_processor=[TrieLogitsProcessor(TRIE)]
    )
    model.to(torch.float32)
    assert all(items_of(row) for row in rows[:3, -N_LEVELS:].tolist())


# ---- filters


@pytest.mark.parametrize("mode", MODES)
def test_each_prompt_has_its_own_filter(model, prompts, mode):
    torch.manual_seed(0)
    one = {name: rows[:3] for name, rows in prompts.items()}
    chosen = [[0, 5], None, [7, 8, 9, 20]]
    filters = [None if rows is None else TRIE.filter(only=rows) for rows in chosen]
    processor = TrieLogitsProcessor(TRIE, filter=filters)
    rows = model.generate(**one, **MODES[mode], max_new_tokens=2 * N_LEVELS, logits_processor=[processor])
    for number, group in enumerate(rows[:, -2 * N_LEVELS :].reshape(3, -1, 2 * N_LEVELS).tolist()):
        admitted = ITEMS if chosen[number] is None else {tuple(CODES[row].tolist()) for row in chosen[number]}
        for row in group:
            assert set(items_of(row)) <= admitted


def test_the_prefix_function_filters_each_prompt_under_beams(model, prompts):
    filters = [TRIE.filter(only=[number, number + 9]) for number in range(4)]
    options = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": N_LEVELS}
    ours = model.generate(**prompts, **options, logits_processor=[TrieLogitsProcessor(TRIE, filter=filters)])
    prefix = prefix_allowed_tokens_fn(TRIE, filter=filters)
    assert torch.equal(ours, model.generate(**prompts, **options, prefix_allowed_tokens_fn=prefix))


def test_the_prefix_function_refuses_filters_whose_prompts_it_cannot_tell():
    """What `generate` asks before transformers 5.24: the rows of several samples a prompt, as if they were prompts."""
    prefix = prefix_allowed_tokens_fn(TRIE, filter=[TRIE.filter(only=[number]) for number in range(4)])
    with pytest.raises(InputError, match="asked for prompt 4, there are filters for 4.*use TrieLogitsProcessor"):
        prefix(4, torch.tensor([7]))


@pytest.mark.parametrize("n_samples", [1, 2])
def test_the_prefix_function_filters_each_prompt_or_refuses(model, prompts, n_samples):
    prefix = prefix_allowed_tokens_fn(TRIE, filter=[TRIE.filter(only=[number]) for number in range(4)])
    options = {"max_new_tokens": N_LEVELS, "do_sample": True, "num_return_sequences": n_samples}
    try:
        rows = model.generate(**prompts, **options, prefix_allowed_tokens_fn=prefix)
    except InputError as error:
        assert n_samples > 1 and "use TrieLogitsProcessor" in str(error)
    else:
        whole = rows[: 3 * n_samples, -N_LEVELS:].tolist()  # the last prompt had begun its item
        expected = [tuple(CODES[number].tolist()) for number in range(3) for _ in range(n_samples)]
        assert [items_of(row)[0] for row in whole] == expected


def test_more_beams_than_items_leave_real_ones_above_a_bound(model, prompts):
    """What the docstring tells callers to do."""
    one = {name: rows[:1] for name, rows in prompts.items()}
    processor = TrieLogitsProcessor(TRIE, filter=TRIE.filter(only=[0, 1, 30]))
    options = {"num_beams": 8, "num_return_sequences": 8, "max_new_tokens": N_LEVELS, "length_penalty": 0.0}
    out = model.generate(
        **one, **options, logits_processor=[processor], return_dict_in_generate=True, output_scores=True
    )
    real = out.sequences[out.sequences_scores > -1e8]
    codes = VOCABULARY.codes_of_token_ids(real[:, one["input_ids"].shape[1] :].numpy(), BASE)
    assert sorted(TRIE.rows_of(TRIE.walk(codes)).tolist()) == [0, 1, 30]


# ---- several items, text, ends


def generated(model, prompts, *, new: int = 40, mode: str = "several samples", **constraints) -> list[list[int]]:
    """What follows the prompts, up to the end of each sequence."""
    torch.manual_seed(3)
    start = prompts["input_ids"].shape[1]
    processor = TrieLogitsProcessor(TRIE, model.generation_config, prompt_length=start, **constraints)
    rows = model.generate(**prompts, **MODES[mode], max_new_tokens=new, logits_processor=[processor])
    rows = [row[start:] for row in rows.tolist()]
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]


@pytest.fixture
def texts(prompts) -> dict[str, torch.Tensor]:
    """The prompts that do not end inside an item."""
    return {name: rows[:3] for name, rows in prompts.items()}


@pytest.mark.parametrize("mode", MODES)
def test_so_many_items_and_then_the_end(model, texts, mode):
    for row in generated(model, texts, mode=mode, max_items=3):
        assert len(row) == 3 * N_LEVELS + 1
        assert row[-1] == EOS
        assert len(items_of(row)) == 3


def test_between_a_minimum_and_a_maximum_of_items(model, texts):
    lengths = {len(items_of(row)) for row in generated(model, texts, min_items=1, max_items=4)}
    assert lengths <= {1, 2, 3, 4}


@pytest.mark.parametrize("mode", MODES)
def test_no_repeats_until_the_catalog_is_spent(model, texts, mode):
    few = TRIE.filter(only=range(5))
    for row in generated(model, texts, mode=mode, filter=few, repeats=False, min_items=0 if "beam" in mode else None):
        items = items_of(row)
        assert len(set(items)) == len(items)
        assert "beam" in mode or len(items) == 5
        assert row[-1] == EOS


@pytest.mark.parametrize("mode", MODES)
def test_items_inside_free_text(model, texts, mode):
    rows = generated(model, texts, mode=mode, text=True, min_items=2, max_items=5, repeats=False)
    for row in rows:
        items = items_of(row)
        assert len(set(items)) == len(items) <= 5
        assert row[-1] != EOS or len(items) >= 2
    if mode == "several samples":
        assert any(token < BASE for row in rows for token in row[:-1]), "there is text"
        assert any(items_of(row) for row in rows), "and there are items"


def test_items_stand_between_markers(model, texts):
    begin, end = marker_ids(VOCABULARY, BASE)
    seen = 0
    for text in (True, False):
        for row in generated(model, texts, text=text, markers=VOCABULARY, max_items=4):
            items = items_of(row)
            seen += len(items)
            for place, token in enumerate(row):
                if token == begin:
                    assert row[place + N_LEVELS + 1 : place + N_LEVELS + 2] in ([end], [])
            assert row.count(begin) - len(items) in (0, 1), "the last may be cut off"
            assert all(a == begin for a, b in pairwise([None, *row]) if b is not None and BASE <= b < BASE + SIZES[0])
    assert seen > 10


def test_rows_that_have_ended_leave_the_others_alone(model, texts):
    """Prompts one by one give what the batch gives, though its rows end at different steps."""
    together = generated(model, texts, mode="greedy", text=True, max_items=3, new=20)
    one_by_one = []
    for number in range(3):
        width = int(texts["attention_mask"][number].sum())
        one = {name: rows[number : number + 1, -width:] for name, rows in texts.items()}
        one_by_one += generated(model, one, mode="greedy", text=True, max_items=3, new=20)
    assert together == one_by_one


# ---- the logits, and wrong use


@pytest.mark.parametrize("copy", [False, True])
def test_copy_keeps_the_logits_that_generate_returns(model, prompts, copy):
    processor = TrieLogitsProcessor(TRIE, copy=copy)
    out = model.generate(
        **prompts, max_new_tokens=2, logits_processor=[processor], return_dict_in_generate=True, output_logits=True
    )
    assert bool(out.logits[0].isfinite().all()) == copy
    scores = torch.zeros(1, V)
    assert (processor(torch.tensor([[5]]), scores) is scores) != copy


def test_one_set_of_tensors_serves_many_processors(prompts):
    tensors = TrieTensors(TRIE)
    scores = torch.randn(4, V)
    one, other = TrieLogitsProcessor(tensors, copy=True), TrieLogitsProcessor(TRIE)
    assert torch.equal(one(prompts["input_ids"], scores), other(prompts["input_ids"], scores.clone()))


def test_the_end_is_known_from_a_tokenizer_a_config_or_numbers(model):
    scores, row = torch.zeros(1, V), torch.tensor([[5]])
    for eos in (EOS, [EOS], model.config, model.generation_config):
        processor = TrieLogitsProcessor(TRIE, eos, prompt_length=1, min_items=0, copy=True)
        assert processor(row, scores)[0, EOS] == 0


def test_wrong_use_says_what_to_give(model, prompts):
    with pytest.raises(ConfigError, match=r"prompt_length=inputs\[\"input_ids\"\].shape\[1\]"):
        TrieLogitsProcessor(TRIE, EOS, max_items=2)
    with pytest.raises(ConfigError, match="eos_ids="):
        TrieLogitsProcessor(TRIE, prompt_length=3, max_items=2)
    with pytest.raises(ConfigError, match="this LlamaConfig has no eos_token_id"):
        TrieLogitsProcessor(TRIE, LlamaConfig(eos_token_id=None), prompt_length=3, max_items=2)
    with pytest.raises(ConfigError, match="has no token ids"):
        TrieLogitsProcessor(Trie.from_codes(CODES, SIZES))
    with pytest.raises(ConfigError, match="text=True requires vocab_size"):
        prefix_allowed_tokens_fn(TRIE, EOS, text=True)
    of_others = Trie.from_codes(CODES[::-1], SIZES).filter(without=[0])
    for made in (TrieLogitsProcessor, prefix_allowed_tokens_fn):
        with pytest.raises(ConfigError, match=r"made from another trie.*Make it again with trie\.filter"):
            made(TRIE, filter=of_others)
    with pytest.raises(InputError, match="3 filters for 4 rows"):
        model.generate(**prompts, max_new_tokens=1, logits_processor=[TrieLogitsProcessor(TRIE, filter=[None] * 3)])
    with pytest.raises(InputError, match=r"vocabulary=64 should be at least 115.*semid\.extend"):
        model.generate(**prompts, max_new_tokens=1, logits_processor=[TrieLogitsProcessor(TRIE.with_base(100))])
