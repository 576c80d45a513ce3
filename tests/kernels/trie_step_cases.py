"""Random beams over a made-up trie, for the interpreted tests of `trie_step` and those on a device."""

from __future__ import annotations

import torch

from semid.kernels.trie_step import Beams

__all__ = ["random_beams"]


def random_beams(
    prompts: int,
    beams: int,
    codes: int,
    width: int,
    *,
    filtered: bool = False,
    n_nodes: int = 50,
    seed: int = 0,
    device: str = "cpu",
) -> Beams:
    """Return beams at random nodes with 0..width children; every fifth is dead."""
    generator = torch.Generator().manual_seed(seed)
    children = [torch.randperm(codes, generator=generator)[:width].sort().values for _ in range(n_nodes)]
    scores = -4 * torch.rand(prompts, beams, generator=generator)
    scores[:, 1::5] = -torch.inf
    return Beams(
        scores.to(device),
        (torch.randint(n_nodes, (prompts, beams), generator=generator) * width).to(device),
        torch.randint(width + 1, (prompts, beams), generator=generator).to(device),
        torch.cat(children).int().to(device),
        width,
        (torch.rand(prompts, beams, width, generator=generator) < 0.7).to(device) if filtered else None,
    )
