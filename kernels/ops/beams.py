"""The input of a step of beam search over a trie (`trie_step.py`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Beams"]


@dataclass(frozen=True)
class Beams:
    """The beams to continue, and where their children are; tensors on one device.

    Attributes
    ----------
    scores : float32 [B, M]; -inf for a beam that is dead.
    firsts : int64 [B, M], the place in `codes` of each beam's first child.
    counts : int64 [B, M], how many children it has, at most `width`.
    codes : int [C], codes 0..K-1 of all children of the trie.
    width : W >= 1.
    allowed : bool [B, M, W] or None: False takes the child at that place away.
    """

    scores: torch.Tensor
    firsts: torch.Tensor
    counts: torch.Tensor
    codes: torch.Tensor
    width: int
    allowed: torch.Tensor | None = None
