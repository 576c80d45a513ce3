"""The beam search of `items.py`: L selections, with the model asked once between each and the next.

A level's selection is `_select`, in torch, or on a GPU the kernel of `semid.kernels.trie_step`, which does the same in
two launches. How beams run through the model is the decoder's business (`tree_decoder.py`, `repeat_decoder.py`).

B prompts, M beams, W children of a node at most, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from semid.errors import ConfigError
from semid.kernels.trie_step import Beams, Step
from semid.tokenizer_exports.generate.choose_decoder import Decoder, Head
from semid.tokenizer_exports.generate.lm_head import SlicedHead
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors

__all__ = ["Score", "Search"]

Score = Literal["level", "vocab"]
MOST_FUSED_BEAMS = 1024  # as one program of the kernel holds


@dataclass
class Search:
    """Beams in the order of their nodes, hence of their codes; dead ones, with score -inf, keep the shapes full."""

    decoder: Decoder
    head: Head
    trie: TrieTensors
    filters: FilterTensors | None
    score: Score

    def run(self, nodes: torch.Tensor, depth: int, num_beams: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Nodes and scores [B, M] of whole IDs, from nodes [B] of one depth."""
        trie, levels = self.trie.trie, range(depth, self.trie.trie.n_levels)
        nodes = nodes.unsqueeze(1)
        scores = torch.zeros(nodes.shape, device=nodes.device)
        finite = torch.ones(len(nodes), dtype=torch.bool, device=nodes.device)
        states = self.decoder.start()
        for level in levels:
            n_nodes = trie.level_starts[level + 2] - trie.level_starts[level + 1]
            count = min(num_beams, nodes.shape[1] * trie.fanout[level], n_nodes)
            step = self._fused if self.uses_kernel(nodes.shape[1]) else self._select
            chosen = step(states, nodes, scores, level, count)
            finite &= chosen.normalizers.isfinite().all(dim=1)
            scores, nodes = chosen.scores, chosen.children
            if level < levels[-1]:
                tokens = chosen.codes + (self.trie.base + trie.offsets[level])
                states = self.decoder.step(tokens, chosen.parents)
        if not finite.all():
            prompt = int(torch.nonzero(~finite)[0])
            raise ConfigError(
                f"prompt {prompt}: the model's logits are not all finite numbers. Load it in bfloat16 or float32."
            )
        return nodes, scores

    def uses_kernel(self, n_beams: int) -> bool:
        """On a GPU a step is two launches, where the head is rows of a matrix and scores are those of the level."""
        from semid.kernels.dispatch import uses_triton

        head, device = self.head, self.trie.device
        return (
            self.score == "level"
            and isinstance(head, SlicedHead)
            and head.extra is None
            and head.weight.device == device
            and n_beams <= MOST_FUSED_BEAMS
            and uses_triton(str(device))
        )

    def _fused(self, states: torch.Tensor, nodes: torch.Tensor, scores: torch.Tensor, level: int, count: int) -> Step:
        from semid.kernels.trie_step import trie_step

        trie, head = self.trie.trie, self.head
        start, width = self.trie.base + trie.offsets[level], trie.fanout[level]
        rows = slice(start, start + trie.sizes[level])
        firsts, ends = self.trie.bounds(nodes)
        allowed = None
        if self.filters is not None:
            _, children, valid = self.trie.children(nodes, width)
            allowed = valid & self._admitted(children)
        beams = Beams(scores, firsts, ends - firsts, self.trie.codes, width, allowed)
        bias = None if head.bias is None else head.bias[rows]
        scale, cap = head.scale_and_cap()
        return trie_step(states, head.weight[rows], beams, count, bias=bias, scale=scale, cap=cap)

    def _admitted(self, children: torch.Tensor) -> torch.Tensor:
        """bool [B, M, W]: does the filter leave an item below each child?"""
        requests = torch.arange(len(children), device=children.device)
        return self.filters.admits(*self.trie.ranks(children), requests)

    def _select(self, states: torch.Tensor, nodes: torch.Tensor, scores: torch.Tensor, level: int, count: int) -> Step:
        """The same by torch, for any head and either score."""
        trie = self.trie.trie
        start = self.trie.base + trie.offsets[level]
        logits = self.head.logits(states, start, start + trie.sizes[level])
        normalizer = logits.logsumexp(-1) if self.score == "level" else self.head.log_normalizer(states)
        logits, normalizer = logits.to(nodes.device), normalizer.to(nodes.device)
        codes, children, valid = self.trie.children(nodes, trie.fanout[level])
        codes = codes.masked_fill(~valid, 0)  # beyond a node's children lie those of another level, too
        if self.filters is not None:
            valid = valid & self._admitted(children)
        found = (scores - normalizer).unsqueeze(-1) + logits.gather(-1, codes)
        found = found.masked_fill_(~valid, -torch.inf).flatten(1)
        chosen = _best(found, count)
        best = (each.flatten(1).gather(1, chosen) for each in (codes, children))
        return Step(found.gather(1, chosen), chosen // children.shape[-1], *best, normalizer)


def _best(candidates: torch.Tensor, count: int) -> torch.Tensor:
    """int64 [B, count]: places of the largest of each row [B, C], ascending; of equal ones the first.

    Unlike `topk`, which leaves open which of equal values it takes and returns them by size.
    """
    threshold = candidates.topk(count, dim=1).values[:, -1:]
    above = candidates > threshold
    level = candidates == threshold
    room = count - above.sum(dim=1, keepdim=True)
    kept = above | (level & (level.cumsum(dim=1) <= room))
    place = torch.where(kept, kept.cumsum(dim=1) - 1, count)  # those not kept meet in a spare column
    columns = torch.arange(candidates.shape[1], device=candidates.device).expand_as(place)
    chosen = torch.zeros(len(candidates), count + 1, dtype=torch.long, device=candidates.device)
    return chosen.scatter_(1, place, columns)[:, :count]
