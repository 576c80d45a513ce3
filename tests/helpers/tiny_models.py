"""A tokenizer, IDs and random models, all small and made in a moment: shared by the tests of extending."""

from __future__ import annotations

from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    TrainingArguments,
)

from semid.tokenizer import SemanticIDTokenizer

COLORS = ["red", "blue", "green", "black", "white", "gray"]
THINGS = ["shoe", "shirt", "hat", "scarf", "glove", "coat", "sock"]
ITEMS = [{"id": f"{c}-{t}", "title": f"{c} {t}, warm"} for c in COLORS for t in THINGS]
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}\n{% endfor %}"


@cache
def ids_of(levels: int = 3, codebook_size: int = 8, **choices: object) -> SemanticIDTokenizer:
    """IDs of the 42 items; 26 tokens by default."""
    return SemanticIDTokenizer.fit(ITEMS, levels=levels, codebook_size=codebook_size, method="rqkmeans", **choices)


@cache
def _trained() -> str:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    words.train_from_iterator([item["title"] for item in ITEMS] * 4, trainer)
    return words.to_str()


def new_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()), eos_token="<|end|>", pad_token="<|end|>"
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def new_model(kind: str, n_rows: int | None = None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model; `n_rows` of the embedding are those of the tokenizer unless given."""
    n_rows = n_rows or len(new_tokenizer())
    torch.manual_seed(1)
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": n_rows, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    t5 = {"vocab_size": n_rows, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4,
          "decoder_start_token_id": 0, "eos_token_id": 0}  # fmt: skip
    bart = {"vocab_size": n_rows, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
            "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
            "decoder_start_token_id": 0, "forced_eos_token_id": 0}  # fmt: skip
    if kind == "qwen3 tied":
        model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8, tie_word_embeddings=True))
    elif kind == "qwen3 untied":
        model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8, tie_word_embeddings=False))
    elif kind == "llama untied":
        model = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
    elif kind == "phi with a head bias":
        model = PhiForCausalLM(PhiConfig(**{**shape, "num_key_value_heads": 4}, tie_word_embeddings=False))
        torch.nn.init.normal_(model.lm_head.bias, 0.3, 0.1)
    elif kind == "bart":
        model = BartForConditionalGeneration(BartConfig(**bart))
        torch.nn.init.normal_(model.final_logits_bias, 0.3, 0.1)
    else:
        model = T5ForConditionalGeneration(T5Config(**t5))
        if kind == "t5 with a head of its own":  # as T5 1.1: tied by the configuration, not by the weights
            model.lm_head.weight = torch.nn.Parameter(torch.randn(n_rows, 32) * 0.05)
            model.all_tied_weights_keys.pop("lm_head.weight", None)
    return model.to(dtype).eval()


def keep_activations() -> dict[str, bool]:
    """For SFTConfig, whose default it is not: nothing is computed twice. Under the name that this transformers has."""
    new = "activation_checkpointing"
    return {new if hasattr(TrainingArguments, new) else "gradient_checkpointing": False}


def quiet_training() -> dict[str, object]:
    """For SFTConfig: on the CPU, in float32, with the loss on completions; nothing saved, shown or sent."""
    settings = {"save_strategy": "no", "report_to": "none", "logging_steps": 1, "disable_tqdm": True, "use_cpu": True}
    return settings | {"bf16": False, "completion_only_loss": True, "seed": 0} | keep_activations()


KINDS = (
    "qwen3 tied", "qwen3 untied", "llama untied", "phi with a head bias", "bart", "t5 tied", "t5 with a head of its own"
)  # fmt: skip


def logits_of(model: PreTrainedModel, rows: list[list[int]]) -> torch.Tensor:
    """Logits of token ids, for either kind of model."""
    given = {"input_ids": torch.tensor(rows)}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = torch.tensor(rows)[:, :3]
    with torch.no_grad():
        return model(**given).logits.float()
