"""The beam search of `items.py`: L selections, with one forward of the model between each and the next.

`_select` makes the selection of a level in torch; on a GPU the kernel of `semid.kernels.trie_step` does the same in two
launches. How beams run through the model is up to the decoder (`tree_decoder.py`, `repeat_decoder.py`).

B prompts, M beams, W the most children of a node, L levels.
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
MOST_FUSED_BEAMS = 1024  # the most that one program of the kernel holds


@dataclass
class Search:
    """A beam search. Beams stand in the order of their nodes, hence of their codes; dead ones have the score -inf."""

    decoder: Decoder
    head: Head
    trie: TrieTensors
    filters: FilterTensors | None
    score: Score

    def run(self, nodes: torch.Tensor, depth: int, num_beams: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the nodes and scores [B, M] of whole IDs, given start nodes [B] of one depth."""
        trie, levels = self.trie.trie, range(depth, self.trie.trie.n_levels)
        nodes = nodes.unsqueeze(1)
        scores = torch.zeros(nodes.shape, device=nodes.device)
        finite = torch.ones(len(nodes), dtype=torch.bool, device=nodes.device)
        states = self.decoder.start()
        for level in levels:
            n_nodes = trie.level_starts[level + 2] - trie.level_starts[level + 1]
            count = min(num_beams, nodes.shape[1] * trie.fanout[level], n_nodes)
            head = self._kernel_head(nodes.shape[1])
            if head is None:
                chosen = self._select(states, nodes, scores, level, count)
            else:
                chosen = self._fused(head, states, nodes, scores, level, count)
            finite &= chosen.normalizers.isfinite().all(dim=1)
            scores, nodes = chosen.scores, chosen.children
            if level < levels[-1]:
                tokens = chosen.codes + (self.trie.base + trie.offsets[level])
                states = self.decoder.step(tokens, chosen.parents)
        if not finite.all():
            prompt = int(torch.nonzero(~finite)[0])
            raise ConfigError(
                f"prompt {prompt}: the model's logits are not all finite. Load it in bfloat16 or float32."
            )
        return nodes, scores

    def _kernel_head(self, n_beams: int) -> SlicedHead | None:
        """Return the head if the kernel can take the step: rows of a matrix on this GPU, scores by level."""
        from semid.kernels.dispatch import uses_triton

        head, device = self.head, self.trie.device
        if self.score != "level" or not isinstance(head, SlicedHead) or head.extra is not None:
            return None
        fits = head.weight.device == device and n_beams <= MOST_FUSED_BEAMS and uses_triton(str(device))
        return head if fits else None

    def _fused(
        self, head: SlicedHead, states: torch.Tensor, nodes: torch.Tensor, scores: torch.Tensor, level: int, count: int
    ) -> Step:
        from semid.kernels.trie_step import trie_step

        trie = self.trie.trie
        start, width = self.trie.base + trie.offsets[level], trie.fanout[level]
        rows = slice(start, start + trie.sizes[level])
        firsts, ends = self.trie.bounds(nodes)
        allowed = None
        if self.filters is not None:
            _, children, valid = self.trie.children(nodes, width)
            allowed = valid & self._admitted(self.filters, children)
        beams = Beams(scores, firsts, ends - firsts, self.trie.codes, width, allowed)
        bias = None if head.bias is None else head.bias[rows]
        scale, cap = head.scale_and_cap()
        return trie_step(states, head.weight[rows], beams, count, bias=bias, scale=scale, cap=cap)

    def _admitted(self, filters: FilterTensors, children: torch.Tensor) -> torch.Tensor:
        """Return whether the filters admit an item below each child, bool [B, M, W]."""
        requests = torch.arange(len(children), device=children.device)
        return filters.admits(*self.trie.ranks(children), requests)

    def _select(self, states: torch.Tensor, nodes: torch.Tensor, scores: torch.Tensor, level: int, count: int) -> Step:
        """Do the same in torch, for any head and either score."""
        trie = self.trie.trie
        start = self.trie.base + trie.offsets[level]
        logits = self.head.logits(states, start, start + trie.sizes[level])
        normalizer = logits.logsumexp(-1) if self.score == "level" else self.head.log_normalizer(states)
        logits, normalizer = logits.to(nodes.device), normalizer.to(nodes.device)
        codes, children, valid = self.trie.children(nodes, trie.fanout[level])
        codes = codes.masked_fill(~valid, 0)  # past a node's children may lie those of another level
        if self.filters is not None:
            valid = valid & self._admitted(self.filters, children)
        found = (scores - normalizer).unsqueeze(-1) + logits.gather(-1, codes)
        found = found.masked_fill_(~valid, -torch.inf).flatten(1)
        chosen = _best(found, count)
        return Step(
            scores=found.gather(1, chosen),
            parents=chosen // children.shape[-1],
            codes=codes.flatten(1).gather(1, chosen),
            children=children.flatten(1).gather(1, chosen),
            normalizers=normalizer,
        )


def _best(candidates: torch.Tensor, count: int) -> torch.Tensor:
    """Return the places of the largest values of each row [B, C], int64 [B, count], ascending; of equal ones the first.

    `topk` does not say which of equal values it takes, and returns them by size.
    """
    threshold = candidates.topk(count, dim=1).values[:, -1:]
    above = candidates > threshold
    level = candidates == threshold
    room = count - above.sum(dim=1, keepdim=True)
    kept = above | (level & (level.cumsum(dim=1) <= room))
    place = torch.where(kept, kept.cumsum(dim=1) - 1, count)  # the others share a spare column
    columns = torch.arange(candidates.shape[1], device=candidates.device).expand_as(place)
    chosen = torch.zeros(len(candidates), count + 1, dtype=torch.long, device=candidates.device)
    return chosen.scatter_(1, place, columns)[:, :count]
