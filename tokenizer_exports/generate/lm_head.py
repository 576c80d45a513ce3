"""The output head of a language model, computed for a slice of the vocabulary.

A step of constrained generation needs the logits of the K codes of one level, not of 150,000 tokens. `SlicedHead` runs
the model up to its last hidden states and multiplies them with the rows of that level alone. What the model does to its
logits afterwards (soft-capping, a scale, a bias) is applied here according to its config. `FullHead` uses the model's
own forward, for a model whose head is anything else. `choose_decoder.py` compares the two once per model and decides.

R rows, q tokens each, H hidden size, V rows of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from semid.errors import ConfigError
from semid.tokenizer_exports.generate.transformers_versions import argument_names, cache_argument

__all__ = ["EncodedPrompts", "FullHead", "SlicedHead"]

CHUNK = 1 << 20  # logits held at once by log_normalizer; 0.5M to 2M are equally fast, all [200, 151936] half as fast


@dataclass(frozen=True)
class EncodedPrompts:
    """The encoder's output for R prompts of an encoder-decoder model."""

    states: torch.Tensor  # (R, P, H)
    mask: torch.Tensor  # (R, P) int64

    def select(self, rows: torch.Tensor) -> EncodedPrompts:
        """Return the output of the prompts `rows` [R']."""
        return EncodedPrompts(self.states[rows], self.mask[rows])


class SlicedHead:
    """Compute hidden states with the model's body and logits with rows of its output embedding."""

    name = "sliced"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.seq2seq = bool(model.config.is_encoder_decoder)
        self.body = model.get_decoder() if self.seq2seq else model.base_model
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or not head.weight.is_floating_point() or self.body is model:
            raise ConfigError(f"{type(model).__name__} has no linear output head of its own, so it cannot be sliced.")
        self.weight, self.bias = head.weight, head.bias
        self.arguments = argument_names(self.body)
        self.extra = getattr(model, "final_logits_bias", None)  # (1, V) - BART and its kin
        self.config = model.config.get_text_config(decoder=True)

    def run(
        self, cache: Cache, encoded: EncodedPrompts | None, inputs: Mapping[str, object], *, last: bool = False
    ) -> torch.Tensor:
        """Return the hidden states [R, q, H] of `input_ids` [R, q], or of the last token alone; extend the cache."""
        given = dict(inputs)
        if encoded is not None:
            given |= {"encoder_hidden_states": encoded.states, "encoder_attention_mask": encoded.mask}
        states = self.body(**given, **cache_argument(self.arguments, cache), use_cache=True).last_hidden_state
        return states[:, -1:] if last else states

    def logits(self, states: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return the logits of the token ids start ... stop - 1, float32 [R, q, stop - start].

        The products are float32 whatever the model's dtype: in bfloat16 many codes of a level would tie.
        """
        bias = None if self.bias is None else self.bias[start:stop].float()
        weight = self.weight[start:stop].float()
        return self._finish(functional.linear(states.to(weight.device).float(), weight, bias), start, stop)

    def log_normalizer(self, states: torch.Tensor) -> torch.Tensor:
        """Return the log of the sum of exp over the vocabulary, float32 [R, q]; never holds all logits at once."""
        shape, states = states.shape[:-1], states.flatten(0, -2).to(self.weight)
        step = max(256, CHUNK // len(states))
        largest = torch.full((len(states), 1), -torch.inf, device=states.device)
        total = torch.zeros_like(largest)  # sum of exp(logit - largest)
        for start in range(0, len(self.weight), step):
            stop = min(start + step, len(self.weight))
            bias = None if self.bias is None else self.bias[start:stop]
            logits = functional.linear(states, self.weight[start:stop], bias).float()
            logits = self._finish(logits, start, stop)
            larger = torch.maximum(largest, logits.amax(dim=-1, keepdim=True))
            total = total * (largest - larger).exp() + logits.sub_(larger).exp_().sum(dim=-1, keepdim=True)
            largest = larger
        return (largest + total.log()).view(shape)

    def scale_and_cap(self) -> tuple[float, float | None]:
        """Return the factor and the soft cap (None: no cap) that the model's config applies to its logits."""
        config, scale = self.config, 1.0
        if getattr(config, "scale_decoder_outputs", False):  # T5 scales the states, which has the same effect
            scale *= config.d_model**-0.5
        for name in ("logit_scale", "output_multiplier"):  # Cohere; Muse
            factor = getattr(config, name, None)
            scale *= 1.0 if factor is None else factor
        if getattr(config, "logits_scaling", None):  # Granite
            scale /= config.logits_scaling
        cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
        return scale, cap or None  # Gemma; RecurrentGemma

    def _finish(self, logits: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        if self.extra is not None:
            logits = logits + self.extra[0, start:stop]
        scale, cap = self.scale_and_cap()
        logits = logits if scale == 1.0 else logits * scale
        return logits if cap is None else torch.tanh(logits / cap) * cap


class FullHead:
    """Compute logits with the model's own forward: `states` are the logits of all V tokens."""

    name = "full"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.seq2seq = bool(model.config.is_encoder_decoder)
        self.arguments = argument_names(model)

    def run(
        self, cache: Cache, encoded: EncodedPrompts | None, inputs: Mapping[str, object], *, last: bool = False
    ) -> torch.Tensor:
        """Return the logits [R, q, V] of `input_ids` [R, q], or of the last token alone; extend the cache."""
        given = dict(inputs)
        if encoded is not None:
            given = {f"decoder_{name}": value for name, value in inputs.items()}
            given |= {"encoder_outputs": (encoded.states,), "attention_mask": encoded.mask}
        elif last and "logits_to_keep" in self.arguments:
            given["logits_to_keep"] = 1
        logits = self.model(**given, **cache_argument(self.arguments, cache), use_cache=True).logits
        return logits[:, -1:] if last else logits

    def logits(self, states: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return the logits of the token ids start ... stop - 1, float32 [R, q, stop - start]."""
        return states[..., start:stop].float()

    def log_normalizer(self, states: torch.Tensor) -> torch.Tensor:
        """Return the log of the sum of exp over the vocabulary, float32 [R, q]."""
        return states.float().logsumexp(-1)
