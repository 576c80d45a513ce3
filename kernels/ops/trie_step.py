"""One step of beam search over a trie: hidden states in, the best children of a prompt's beams out.

    logit[b, m, k]  = cap tanh(scale (h_bm . w_k + bias_k) / cap)               without cap: scale (h_bm . w_k + bias_k)
    normalizer[b, m] = log sum_k exp logit[b, m, k]                              over the K codes of the level
    candidate       = score[b, m] - normalizer[b, m] + logit[b, m, code of the child]     for the children of a beam

and of the candidates of each prompt the `count` largest. Children of beam m are codes[first_m ... first_m + n_m - 1]
in a compressed (CSR) trie, codes ascending; `allowed` takes some away. A first level, where any code may come, is one
beam with first = 0, n = K and codes = 0 ... K - 1.

B prompts, M beams, H hidden size, K codes of the level, W the most children of any beam.

`trie_step` is two launches (`trie_step_triton.py`); `trie_step_torch` is the same in plain torch, for other devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from semid.kernels.beams import Beams

__all__ = ["Beams", "Step", "trie_step", "trie_step_torch"]


@dataclass(frozen=True)
class Step:
    """The children chosen, in the order of (parent, code); where there were too few, dead ones stand at the end."""

    scores: torch.Tensor  # (B, count) float32, -inf for dead
    parents: torch.Tensor  # (B, count) int64, beams 0..M-1; 0 for dead
    codes: torch.Tensor  # (B, count) int64; 0 for dead
    children: torch.Tensor  # (B, count) int64, places in Beams.codes; -1 for dead
    normalizers: torch.Tensor  # (B, M) float32; not finite where a logit is not


def trie_step(
    states: torch.Tensor,
    weight: torch.Tensor,
    beams: Beams,
    count: int,
    *,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
) -> Step:
    """Return the `count` best children over all beams of each prompt, by two Triton launches that never wait.

    Parameters
    ----------
    states : float [B, M, H].
    weight : float [K, H], the head's rows of this level's codes.
    beams : at most `trie_step_triton.MAX_BEAMS` (1,024) a prompt.
    count : children to keep; 1 <= count <= M W.
    bias : float [K], added to the products; None for none.
    scale, cap : what a model does to its logits; cap is the limit of soft-capping.

    Products are exact and summed in float32: where states and weight are both float16 or both bfloat16 on tensor
    cores, else in float32 throughout. Equal candidates are taken in the order of (parent, code). A candidate that is
    not a number is never taken; look at `normalizers` for logits that are not finite.

    Raises
    ------
    ValueError : shapes, types or devices that do not fit, or more beams than a program can hold.
    """
    _check(states, weight, beams, count, bias)
    from semid.kernels.trie_step_triton import step_with_triton  # triton is loaded with it

    return Step(*step_with_triton(states, weight, beams, count, bias, scale, cap))


def trie_step_torch(
    states: torch.Tensor,
    weight: torch.Tensor,
    beams: Beams,
    count: int,
    *,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
) -> Step:
    """Do `trie_step` in plain torch on any device; products in float32.

    >>> beams = Beams(torch.zeros(1, 1), torch.tensor([[0]]), torch.tensor([[2]]), torch.tensor([0, 2]), width=2)
    >>> step = trie_step_torch(torch.ones(1, 1, 1), torch.tensor([[0.0], [9.0], [0.5]]), beams, count=1)
    >>> step.parents.tolist(), step.codes.tolist(), step.children.tolist()
    ([[0]], [[2]], [[1]])
    """
    _check(states, weight, beams, count, bias)
    logits = torch.nn.functional.linear(states.float(), weight.float(), None if bias is None else bias.float())
    logits = logits * scale
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    normalizers = logits.logsumexp(-1)
    places = torch.arange(beams.width, device=states.device)
    valid = places < beams.counts.unsqueeze(-1)
    if beams.allowed is not None:
        valid &= beams.allowed
    children = (beams.firsts.unsqueeze(-1) + places).clamp(max=max(len(beams.codes) - 1, 0))
    codes = beams.codes[children].long().masked_fill(~valid, 0)
    candidates = (beams.scores - normalizers).unsqueeze(-1) + logits.gather(-1, codes)
    candidates = torch.where(valid & (candidates > -torch.inf), candidates, -torch.inf).flatten(1)
    chosen = _best(candidates, count)
    scores = candidates.gather(1, chosen)
    dead = scores == -torch.inf
    return Step(
        scores,
        (chosen // beams.width).masked_fill(dead, 0),
        codes.flatten(1).gather(1, chosen).masked_fill(dead, 0),
        children.flatten(1).gather(1, chosen).masked_fill(dead, -1),
        normalizers,
    )


def _best(candidates: torch.Tensor, count: int) -> torch.Tensor:
    """Return where the largest of each row [B, C] are, int64 [B, count], ascending; those of -inf come last."""
    order = candidates.sort(dim=1, descending=True, stable=True).indices[:, :count]
    dead = candidates.gather(1, order) == -torch.inf
    return torch.where(dead, order + candidates.shape[1], order).sort(dim=1).values % candidates.shape[1]


def _check(states: torch.Tensor, weight: torch.Tensor, beams: Beams, count: int, bias: torch.Tensor | None) -> None:
    shape = tuple(beams.scores.shape)
    if states.dim() != 3 or weight.dim() != 2 or states.shape[2] != weight.shape[1] or not weight.numel():
        raise ValueError(
            f"states: {tuple(states.shape)} and weight: {tuple(weight.shape)}, expected [B, M, H] and [K, H]"
        )
    if not states.is_floating_point() or not weight.is_floating_point():
        raise ValueError(f"states: {states.dtype} and weight: {weight.dtype}, expected floating point")
    for name, each in (("scores", beams.scores), ("firsts", beams.firsts), ("counts", beams.counts)):
        if each.shape != states.shape[:2]:
            raise ValueError(f"beams.{name}: shape {tuple(each.shape)}, expected {tuple(states.shape[:2])}, as states")
    if beams.allowed is not None and (
        beams.allowed.shape != (*shape, beams.width) or beams.allowed.dtype != torch.bool
    ):
        raise ValueError(
            f"beams.allowed: {beams.allowed.dtype} {tuple(beams.allowed.shape)}, expected bool {(*shape, beams.width)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: shape {tuple(bias.shape)}, expected [{len(weight)}], one per row of weight")
    if not 1 <= count <= shape[1] * beams.width:
        raise ValueError(f"count={count}, expected 1..{shape[1] * beams.width} = {shape[1]} beams x {beams.width}")
    tensors = (weight, beams.scores, beams.firsts, beams.counts, beams.codes, beams.allowed, bias)
    elsewhere = next((each for each in tensors if each is not None and each.device != states.device), None)
    if elsewhere is not None:
        raise ValueError(f"a tensor is on {elsewhere.device}, states on {states.device}: move all to one device")
