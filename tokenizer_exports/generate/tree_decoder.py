"""Run the beams of a prompt as one sequence (tree attention): one forward over one copy of the prompt's cache.

The M newest tokens of a prompt's beams go through the model as a sequence of M tokens, all at the same position.
A four-dimensional mask shows each of them only the prompt and its own ancestors, so the result is that of M separate
sequences (attention ignores the order of its keys; the position ids carry it). The cache only grows: nothing is
repeated or reordered. When beams are selected, only the rows of the ancestry move, which are a few bits.

Not here: which models this fits (`choose_decoder.py`), selection (`beam_search.py`). B prompts, P tokens each, M beams,
T tokens generated so far over all beams.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from semid.tokenizer_exports.generate.lm_head import FullHead, SlicedHead
from semid.tokenizer_exports.generate.prompts import Prompts
from semid.tokenizer_exports.generate.transformers_versions import attention_kind

__all__ = ["TreeDecoder", "relative_bias", "windows"]


def windows(config: PreTrainedConfig) -> dict[str, int | None] | None:
    """Return how many tokens back each kind of attention layer looks (None: all); None if a kind is unknown.

    A model that names kinds of layers takes one mask per kind; one that does not has the single key "".
    """
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        return None if getattr(config, "attention_chunk_size", None) else {"": window}
    known = {"full_attention": None, "sliding_attention": window}
    return {kind: known[kind] for kind in sorted(set(kinds))} if set(kinds) <= known.keys() else None


def relative_bias(model: PreTrainedModel) -> Callable[..., torch.Tensor] | None:
    """Return T5's bias by relative position; None unless its decoder shares one among all layers."""
    biased = [part for part in model.get_decoder().modules() if getattr(part, "has_relative_attention_bias", False)]
    return biased[0].compute_bias if len(biased) == 1 and hasattr(biased[0], "compute_bias") else None


class TreeDecoder:
    """Continue B prompts by M beams each: call `start` once, then `step` for each level."""

    name = "tree"

    def __init__(self, model: PreTrainedModel, head: SlicedHead | FullHead, prompts: Prompts) -> None:
        self.head, self.prompts = head, prompts
        self.config = model.config.get_text_config(decoder=True)
        # Without the config: a layer with a window would drop the prompt's early tokens, which all beams share.
        self.cache: Cache = DynamicCache()
        self.bias = None
        if prompts.encoded is not None:
            self.cache = EncoderDecoderCache(self.cache, DynamicCache())
            self.bias = relative_bias(model)
        self.windows = {"": None} if prompts.encoded is not None else windows(self.config) or {"": None}
        self.dtype = model.dtype
        self.as_bool = attention_kind(model) == "sdpa" and self.bias is None
        n_prompts, self.width = prompts.input_ids.shape
        self.ancestry = torch.zeros(n_prompts, 1, 0, dtype=torch.bool, device=prompts.mask.device)  # (B, M, T)
        self.n_steps = 0
        self.steps = torch.zeros(
            0, dtype=torch.long, device=prompts.mask.device
        )  # (T,) - the step of each token, from 1

    def start(self) -> torch.Tensor:
        """Return the states [B, 1, ...] of the prompts' last tokens."""
        return self.head.run(self.cache, self.prompts.encoded, self.prompts.arguments(self.head), last=True)

    def step(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """Return the states [B, M, ...] of the new tokens [B, M]; `parents` [B, M] are beams of the step before."""
        n_prompts, n_beams = tokens.shape
        self.n_steps = step = self.n_steps + 1
        inherited = self.ancestry.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.ancestry.shape[-1]))
        itself = torch.eye(n_beams, dtype=torch.bool, device=tokens.device).expand(n_prompts, -1, -1)
        self.ancestry = torch.cat([inherited, itself], dim=-1)
        self.steps = torch.cat([self.steps, torch.full((n_beams,), step, device=tokens.device)])
        inputs: dict[str, object] = {"input_ids": tokens, "attention_mask": self._masks(step)}
        if self.prompts.encoded is None:
            inputs["position_ids"] = (self.prompts.lengths - 1 + step).unsqueeze(1).expand(-1, n_beams)
        return self.head.run(self.cache, self.prompts.encoded, inputs)

    def _masks(self, step: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return one mask [B, 1, M, P + T], or one per kind of layer."""
        prompt = self.prompts.mask.bool().unsqueeze(1).expand(-1, self.ancestry.shape[1], -1)
        visible = torch.cat([prompt, self.ancestry], dim=-1).unsqueeze(1)
        places = torch.cat([torch.arange(1 - self.width, 1, device=self.steps.device), self.steps])
        masks = {
            kind: self._additive(visible if window is None else visible & (step - places < window), step, places)
            for kind, window in self.windows.items()
        }
        return masks if "sliding_attention" in masks else next(iter(masks.values()))

    def _additive(self, visible: torch.Tensor, step: int, places: torch.Tensor) -> torch.Tensor:
        if self.as_bool:
            return visible
        mask = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device)
        mask = mask.masked_fill(~visible, torch.finfo(self.dtype).min)
        if self.bias is None:
            return mask
        # The model adds a bias by place in the sequence: subtract it, and add the bias by place in the tree.
        n_queries, n_keys = visible.shape[-2:]
        by_place = self.bias(n_queries, n_keys, past_seen_tokens=n_keys - n_queries)
        ago = step - places  # of each key, >= 0
        by_distance = self.bias(1, self.width + step, past_seen_tokens=self.width + step - 1)  # nearest last
        return mask + (by_distance[..., self.width + step - 1 - ago] - by_place).to(self.dtype)
