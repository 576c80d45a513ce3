"""Run beams as separate sequences: one copy of the prompt's cache per beam, reordered when beams are selected.

This is the slower decoder, for models that `tree_decoder.py` does not fit: state-space and hybrid layers, whose running
state cannot hold several continuations at once, and attention that takes no custom mask. The prompt is still read once
and copied afterwards. B prompts, M beams.
"""

from __future__ import annotations

from typing import cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from semid.tokenizer_exports.generate.lm_head import FullHead, SlicedHead
from semid.tokenizer_exports.generate.prompts import Prompts
from semid.tokenizer_exports.generate.transformers_versions import is_stateful, takes_positions

__all__ = ["RepeatDecoder"]


class RepeatDecoder:
    """Continue B prompts by M beams each: call `start` once, then `step` for each level."""

    name = "repeat"

    def __init__(self, model: PreTrainedModel, head: SlicedHead | FullHead, prompts: Prompts) -> None:
        self.head, self.prompts = head, prompts
        config = model.config.get_text_config(decoder=True)
        self.cache: DynamicCache | EncoderDecoderCache = DynamicCache(config=config)
        if prompts.encoded is not None:
            self.cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        self.takes_positions = takes_positions(head.arguments)
        # Mamba takes a mask only while it reads the prompt: its state has no length that a longer mask could match. It
        # takes no positions either. Hybrids, which also have attention, take both.
        self.masked_steps = self.takes_positions or not is_stateful(model)
        self.encoded, self.mask = prompts.encoded, prompts.mask
        self.positions = prompts.lengths - 1  # (B,) - of each prompt's last token
        self.n_beams = 1
        self.n_steps = 0

    def start(self) -> torch.Tensor:
        """Return the states [B, 1, ...] of the prompts' last tokens."""
        return self.head.run(self.cache, self.encoded, self.prompts.arguments(self.head), last=True)

    def step(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """Return the states [B, M, ...] of the new tokens [B, M]; `parents` [B, M] are beams of the step before."""
        n_prompts, n_beams = tokens.shape
        self.n_steps += 1
        self._take(parents, n_beams)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        inputs = {"input_ids": tokens.reshape(-1, 1)}
        if self.masked_steps:
            inputs["attention_mask"] = self.mask
        if self.encoded is None and self.takes_positions:
            inputs["position_ids"] = (self.positions + self.n_steps).repeat_interleave(n_beams).unsqueeze(1)
        states = self.head.run(self.cache, self.encoded, inputs)
        return states.view(n_prompts, n_beams, -1)

    def _take(self, parents: torch.Tensor, n_beams: int) -> None:
        """Make row b·M + m a copy of the state of the parent of beam m of prompt b."""
        prompts = torch.arange(len(parents), device=parents.device).unsqueeze(1)
        rows = cast(torch.LongTensor, (prompts * self.n_beams + parents).flatten())  # the type that transformers names
        of_prompt = (prompts * self.n_beams).expand(-1, n_beams).flatten()  # any beam of the prompt will do
        same_count, self.n_beams = n_beams == self.n_beams, n_beams
        if same_count and isinstance(self.cache, EncoderDecoderCache):
            self.cache.self_attention_cache.reorder_cache(rows)  # all beams of a prompt see the same encoder states
            return
        self.cache.reorder_cache(rows)
        if not same_count:
            self.mask = self.mask[of_prompt]
            self.encoded = None if self.encoded is None else self.encoded.select(of_prompt)
