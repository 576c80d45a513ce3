"""Losses on a batch of pairs: InfoNCE in both directions, and LLMEmb's contrastive loss with soft targets.

`left[i]` and `right[i]` are a pair, and the other rows of the batch are negatives. n pairs, D dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["FIRST_TAU", "infonce", "soft_target_loss"]

FIRST_TAU = 3.0  # LLMEmb's code starts its learnable temperature here, whatever its command line says


def infonce(
    left: torch.Tensor,
    right: torch.Tensor,
    left_items: torch.Tensor,
    right_items: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Return InfoNCE of cosines, the mean of both directions.

    With s_ij the cosine of left i and right j over the temperature, the loss of row i is
    -s_ii + log sum_j exp(s_ij), and that of column i likewise. A negative that is the same item as the other side is
    left out of the sum.

    Parameters
    ----------
    left, right : float [n, D]
        Vectors of any length.
    left_items, right_items : int64 [n]
        Which item each vector is of. In a pair of two views of one item both are the same.
    temperature : float
        Of the cosines.

    >>> import torch
    >>> sides, items = torch.eye(2), torch.arange(2)
    >>> round(float(infonce(sides, sides, items, items + 2, temperature=1.0)), 4)  # log(1 + exp(-1))
    0.3133
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    logits = normalize(left, dim=1) @ normalize(right, dim=1).T / temperature
    pairs = torch.arange(len(left), device=left.device)
    same = (
        (left_items[:, None] == right_items)  # a vector against another one of the same item
        | (left_items[:, None] == left_items)  # the same left item, whose pair this is
        | (right_items[:, None] == right_items)
    )
    logits = logits.masked_fill(same & (pairs[:, None] != pairs), float("-inf"))
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


def soft_target_loss(
    left: torch.Tensor, right: torch.Tensor, tau: torch.Tensor, *, detached: bool = False
) -> torch.Tensor:
    """Return LLMEmb's loss: cross-entropy towards the similarities inside each side, the mean of both directions.

        logits  = left @ right.T / tau
        targets = softmax over rows of (left @ left.T + right @ right.T) / 2 * tau
        loss    = mean_i of (CE(logits_i, targets_i) + CE(logits.T_i, targets.T_i)) / 2

    Vectors are not normalized. As in its code, the rows of `targets.T` need not sum to 1, and the gradient flows
    through the targets too.

    Parameters
    ----------
    left, right : float [n, D]
        Vectors of the pairs.
    tau : float scalar
        Temperature; a parameter that is learned, from `FIRST_TAU`.
    detached : bool
        Correct both: no gradient through the targets, and targets of the second direction that sum to 1.

    >>> import torch
    >>> sides = torch.eye(2) * 9
    >>> float(soft_target_loss(sides, sides, torch.tensor(FIRST_TAU))) < 1e-6
    True
    """
    logits = left @ right.T / tau
    likeness = (left @ left.T + right @ right.T) / 2 * tau
    if detached:
        likeness = likeness.detach()
    targets = likeness.softmax(dim=1)
    others = likeness.T.softmax(dim=1) if detached else targets.T
    forward = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
    backward = -(others * logits.T.log_softmax(dim=1)).sum(dim=1)
    return ((forward + backward) / 2).mean()
