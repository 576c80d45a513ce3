"""generate_items on families of models: against transformers' own constrained beam search, and the way it runs."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from semid.errors import ConfigError
from semid.tokenizer_exports.generate import generate_items
from semid.tokenizer_exports.generate.choose_decoder import choose_decoder
from semid.trie import Trie
from tests.helpers.beam_oracle import BASE, SEQ2SEQ, SHAPE, item_scores, items_of, new_model, padded, stock_beams

SIZES = (6, 5, 8)
ITEMS = items_of(SIZES, 60)
TRIE = Trie.from_codes(ITEMS, SIZES, base=BASE)
PROMPTS = [[5, 17, 33, 8, 60, 61, 80, 21, 22], [70, 4, 4], [12, 13, 14, 15, 50, 51]]
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 128, "pad_token_id": 0,
        "bos_token_id": 2, "eos_token_id": 1}  # fmt: skip
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 128,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 1,
        "forced_eos_token_id": None}  # fmt: skip
MAMBA = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 0,
         "bos_token_id": 2, "eos_token_id": 1}  # fmt: skip
HYBRID = {"head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
          "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "num_experts": 4,
          "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}  # fmt: skip
WINDOW = {"head_dim": 8, "sliding_window": 4}  # shorter than two of the prompts

# name -> class, what its config says besides, all of its shape, how its beams run, which head is used
FAMILIES = {
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 8}, SHAPE, "tree", "sliced"),
    "qwen3, untied": ("Qwen3ForCausalLM", {"head_dim": 8, "tie_word_embeddings": False}, SHAPE, "tree", "sliced"),
    "llama": ("LlamaForCausalLM", {}, SHAPE, "tree", "sliced"),
    "mistral, all layers with a window": ("MistralForCausalLM", {"sliding_window": 4}, SHAPE, "tree", "sliced"),
    "gemma3, some layers with a window": (
        "Gemma3ForCausalLM", {**WINDOW, "num_hidden_layers": 6, "final_logit_softcapping": 2.0}, SHAPE, "tree", "sliced"
    ),
    "gemma2, two soft caps": (
        "Gemma2ForCausalLM", {**WINDOW, "final_logit_softcapping": 1.5, "attn_logit_softcapping": 5.0}, SHAPE, "tree",
        "sliced",
    ),
    "cohere, logit scale": ("CohereForCausalLM", {"logit_scale": 0.0625}, SHAPE, "tree", "sliced"),
    "granite, logit divisor": ("GraniteForCausalLM", {"logits_scaling": 4.0}, SHAPE, "tree", "sliced"),
    "phi, head bias": ("PhiForCausalLM", {"num_key_value_heads": 4}, SHAPE, "tree", "sliced"),
    "gpt-2, learned positions": ("GPT2LMHeadModel", {}, GPT2, "tree", "sliced"),
    "qwen3-moe, experts": (
        "Qwen3MoeForCausalLM",
        {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}, SHAPE, "tree",
        "sliced",
    ),
    "t5": ("T5ForConditionalGeneration", {}, SEQ2SEQ, "tree", "sliced"),
    "t5, unscaled": ("T5ForConditionalGeneration", {"tie_word_embeddings": False}, SEQ2SEQ, "tree", "sliced"),
    "mt5": ("MT5ForConditionalGeneration", {}, SEQ2SEQ, "tree", "sliced"),
    "bart, counts positions itself": ("BartForConditionalGeneration", {}, BART, "repeat", "sliced"),
    "bloom, alibi": ("BloomForCausalLM", {}, {**SHAPE, "n_layer": 2, "n_head": 4}, "repeat", "sliced"),
    "mamba": ("MambaForCausalLM", {}, MAMBA, "repeat", "sliced"),
    "qwen3-next, hybrid": ("Qwen3NextForCausalLM", HYBRID, SHAPE, "repeat", "sliced"),
}  # fmt: skip
MODELS: dict[str, transformers.PreTrainedModel] = {}


def model_of(name: str) -> transformers.PreTrainedModel:
    if name not in MODELS:
        kind, choices, shape, *_ = FAMILIES[name]
        MODELS[name] = new_model(getattr(transformers, kind), choices, shape=shape)
        if name.startswith("t5, unscaled"):
            MODELS[name].lm_head.weight = torch.nn.Parameter(torch.randn(128, 32) * 0.25)
        if name.startswith("bart"):
            torch.nn.init.normal_(MODELS[name].final_logits_bias)
    return MODELS[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_items_and_scores_are_those_of_transformers_own_beams(name):
    """Unequal prompts, padded on the left, fewer beams than items; the score is the model's log-probability."""
    if name == "mamba" and tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 15):
        pytest.skip(
            "transformers before 5.15 mixes up the states of Mamba's beams; the next test holds ours to the model"
        )
    model, inputs = model_of(name), padded(PROMPTS)
    *_, method, head = FAMILIES[name]
    found = generate_items(model, inputs, TRIE, num_beams=8, num_return=8, score="vocab")
    assert (found.method, choose_decoder(model, "auto").head.name) == (method, head)
    tokens, scores = stock_beams(model, inputs, ITEMS, SIZES, 8)
    torch.testing.assert_close(found.scores, scores.float(), atol=2e-4, rtol=1e-5)
    assert found.token_ids.tolist() == tokens.tolist()


@pytest.mark.parametrize("score", ["level", "vocab"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_item_has_its_teacher_forced_score(name, score):
    model = model_of(name)
    for prompt in PROMPTS[:2]:
        found = generate_items(model, torch.tensor([prompt]), TRIE, num_beams=60, num_return=60, score=score)
        expected = item_scores(model, prompt, ITEMS, SIZES, score)
        rows = found.rows[0].numpy()
        assert sorted(rows) == list(range(60))
        np.testing.assert_allclose(found.scores[0].numpy(), expected[rows], rtol=1e-5, atol=3e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family[3] == "tree"])
def test_the_tree_equals_repeated_caches(name, attention):
    if "soft caps" in name and attention == "sdpa":
        pytest.skip("transformers refuses soft caps with sdpa")
    kind, choices, shape, *_ = FAMILIES[name]
    model = new_model(getattr(transformers, kind), choices, shape=shape)
    model.set_attn_implementation(attention)
    inputs = padded(PROMPTS)
    tree, repeat = (
        generate_items(model, inputs, TRIE, num_beams=12, num_return=12, method=method) for method in ("tree", "repeat")
    )
    assert (tree.method, repeat.method) == ("tree", "repeat")
    assert tree.rows.tolist() == repeat.rows.tolist()
    torch.testing.assert_close(tree.scores, repeat.scores, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "gemma3, some layers with a window", "t5"])
def test_half_precision_models_run_as_trees(name):
    kind, choices, shape, *_ = FAMILIES[name]
    for dtype in (torch.bfloat16, torch.float16):
        model = new_model(getattr(transformers, kind), choices, shape=shape).to(dtype)
        tree, repeat = (
            generate_items(model, padded(PROMPTS), TRIE, num_beams=60, num_return=60, method=method)
            for method in ("tree", "repeat")
        )
        assert tree.rows.sort().values.tolist() == repeat.rows.sort().values.tolist()
        by_row = [found.scores.gather(1, found.rows.argsort(dim=1)) for found in (tree, repeat)]
        torch.testing.assert_close(*by_row, atol=0.2, rtol=0)


# ---- the way is chosen by trying


def test_a_slower_way_is_said_once_with_its_reason(caplog):
    model = new_model(transformers.MambaForCausalLM, {}, shape=MAMBA)
    with caplog.at_level(logging.WARNING, logger="semid"):
        for _ in range(2):
            generate_items(model, padded(PROMPTS), TRIE)
    assert [record.getMessage() for record in caplog.records] == [
        "MambaForCausalLM: generate_items runs slower than it could: "
        "its layers keep one running state, which must be copied for each beam"
    ]
    caplog.clear()
    generate_items(new_model(transformers.LlamaForCausalLM, {}), padded(PROMPTS), TRIE)
    assert not caplog.records


def test_a_way_asked_for_that_does_not_fit_is_an_error():
    with pytest.raises(
        ConfigError, match=r"cannot run MambaForCausalLM \(method='tree'\): its layers keep one running"
    ):
        generate_items(model_of("mamba"), padded(PROMPTS), TRIE, method="tree")


def test_attention_without_masks_falls_back_and_names_the_cure(caplog):
    AttentionInterface.register("semid_without_masks", sdpa_attention_forward)
    AttentionMaskInterface.register("semid_without_masks", sdpa_mask)
    model = new_model(transformers.Qwen3ForCausalLM, {"head_dim": 8})
    expected = generate_items(model, padded(PROMPTS), TRIE)
    model.set_attn_implementation("semid_without_masks")
    with caplog.at_level(logging.WARNING, logger="semid"):
        found = generate_items(model, padded(PROMPTS), TRIE)
    assert (expected.method, found.method) == ("tree", "repeat")
    assert found.rows.tolist() == expected.rows.tolist()
    assert "'semid_without_masks' takes no mask per beam" in caplog.text
    assert 'attn_implementation="sdpa"' in caplog.text


class OddHead(transformers.LlamaForCausalLM):
    """Does to its logits what no config says."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits.sign() * outputs.logits.square()
        return outputs


class OwnPositions(transformers.LlamaModel):
    """Takes position ids and leaves them unused."""

    def forward(self, *args, position_ids=None, **kwargs):
        return super().forward(*args, **kwargs)


def test_logits_that_no_config_explains_come_from_the_models_own_forward():
    model = new_model(OddHead, {})
    found = generate_items(model, padded(PROMPTS), TRIE, num_beams=60, num_return=60, score="vocab")
    choice = choose_decoder(model, "auto")
    assert (choice.method, choice.head.name) == ("tree", "full")
    assert "sliced head gives other logits" in choice.reason
    for prompt, tokens in enumerate(PROMPTS):
        expected = item_scores(model, tokens, ITEMS, SIZES, "vocab")
        np.testing.assert_allclose(found.scores[prompt].numpy(), expected[found.rows[prompt]], rtol=1e-5, atol=3e-4)


def test_a_model_whose_positions_cannot_be_given_runs_without_the_tree():
    model = new_model(transformers.LlamaForCausalLM, {})
    body = OwnPositions(model.config).eval()
    body.load_state_dict(model.model.state_dict())
    model.model = body
    found = generate_items(model, torch.tensor([PROMPTS[0]]), TRIE, num_beams=60, num_return=60)
    assert found.method == "repeat"
    assert "tree with the sliced head gives other logits than the model itself" in choose_decoder(model, "auto").reason
    expected = item_scores(model, PROMPTS[0], ITEMS, SIZES, "level")
    np.testing.assert_allclose(found.scores[0].numpy(), expected[found.rows[0]], rtol=1e-5, atol=3e-4)


@pytest.mark.parametrize("kind", ["lora", "trained tokens"])
def test_adapters_of_peft_take_part(kind):
    peft = pytest.importorskip("peft")
    model = new_model(transformers.Qwen3ForCausalLM, {"head_dim": 8})
    before = generate_items(model, padded(PROMPTS), TRIE)
    choices = {"target_modules": ["q_proj", "o_proj"]}
    if kind == "trained tokens":
        choices["trainable_token_indices"] = list(range(BASE, BASE + sum(SIZES)))
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, init_lora_weights=False, **choices)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            parameter.normal_(0, 0.3) if "trainable_tokens" in name else None
    found = generate_items(adapted, padded(PROMPTS), TRIE, num_beams=60, num_return=60, score="vocab")
    assert found.rows[:, :10].tolist() != before.rows.tolist()
    for prompt, tokens in enumerate(PROMPTS):
        expected = item_scores(adapted, tokens, ITEMS, SIZES, "vocab")
        np.testing.assert_allclose(found.scores[prompt].numpy(), expected[found.rows[prompt]], rtol=1e-5, atol=3e-4)


def test_learned_prompts_of_peft_are_refused():
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(new_model(transformers.Qwen3ForCausalLM, {"head_dim": 8}), config)
    with pytest.raises(ConfigError, match="its adapter is a learned prompt"):
        generate_items(model, padded(PROMPTS), TRIE)


def test_autocast_changes_rounding_only():
    contexts = (nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16))
    plain, autocast = (  # each finds its way anew
        generate_with(new_model(transformers.Qwen3ForCausalLM, {"head_dim": 8}), context) for context in contexts
    )
    assert autocast.method == "tree"
    by_row = [found.scores.gather(1, found.rows.argsort(dim=1)) for found in (plain, autocast)]
    torch.testing.assert_close(*by_row, atol=0.3, rtol=0)


def generate_with(model, context):
    with context:
        return generate_items(model, padded(PROMPTS), TRIE, num_beams=60, num_return=60)
