"""The losses of the targets in `auxiliary.py`, in torch: added to the RQ-VAE's own loss in each training step.

Both use InfoNCE: with a_i and b_i two sides of item i of a batch, s = cosine / temperature,

    mean_i  -log( exp s(a_i, b_i) / sum_j exp s(a_i, b_j) )

where a j that equals i is left out of the sum. a_i is the *quantized* latent with straight-through gradients, as in the
decoder's input, so that the codes have to agree and not the latents alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from semid.kernels.residual_train import residual_quantize
from semid.train.auxiliary import AuxiliaryTarget, CoOccurrenceTarget, TextEmbeddingTarget

__all__ = ["AuxiliaryLoss", "CoOccurrenceLoss", "TextEmbeddingLoss", "Step", "centroid_pull", "info_nce", "losses_of"]

RIDGE = 1e-2  # of the first projection, relative to the latents' mean square in a dim
SAME_TEXT = 1 - 1e-4  # from this cosine on, two texts count as equal


class Step(NamedTuple):
    """A training step: all rows [N, D], the batch's row numbers [B], its latents and quantized latents [B, d]."""

    encoder: nn.Module
    levels: Sequence[torch.Tensor]
    rows: torch.Tensor
    batch: torch.Tensor
    latents: torch.Tensor
    quantized: torch.Tensor  # with the latents' gradients


def info_nce(
    ours: torch.Tensor, theirs: torch.Tensor, temperature: float, same: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the InfoNCE loss of rows [B, d] against rows [B, d]; see above.

    `same`, bool [B, B], marks pairs that are not negatives.

    >>> eye = torch.eye(3)
    >>> float(info_nce(eye, eye, 0.01)) < 1e-6 < float(info_nce(eye, eye.roll(1, 0), 0.01))
    True
    """
    scores = functional.normalize(ours, dim=1) @ functional.normalize(theirs, dim=1).T / temperature
    own = torch.arange(len(ours), device=ours.device)
    if same is not None:
        kept = same.clone()
        kept[own, own] = False
        scores = scores.masked_fill(kept, -torch.inf)
    return functional.cross_entropy(scores, own)


def centroid_pull(
    levels: Sequence[torch.Tensor], codes: torch.Tensor, targets: torch.Tensor, projection: nn.Module
) -> torch.Tensor:
    """Return the squared distance of projected centroids to the mean target of the items under them.

    With u_k the share of the batch's items under code k and m_k the mean of their targets,

        mean_l sum_k u_k |projection(centroid_k) - m_k|^2.

    codes int [B, L], targets [B, H]. Codes without an item in the batch do not count.
    """
    total = targets.new_zeros(())
    for level, centroids in enumerate(levels):
        used, place, counts = codes[:, level].unique(return_inverse=True, return_counts=True)
        means = targets.new_zeros(len(used), targets.shape[1]).index_add_(0, place, targets) / counts[:, None]
        distances = (projection(centroids[used.long()]) - means).square().sum(1)
        total = total + (distances * counts).sum() / len(codes)
    return total / len(levels)


class CoOccurrenceLoss(nn.Module):
    """InfoNCE between an item and a neighbor from the histories, drawn anew at each step."""

    def __init__(self, target: CoOccurrenceTarget, device: torch.device | str, seed: int) -> None:
        super().__init__()
        self.weight, self.temperature = target.weight, target.temperature
        self.offsets = torch.from_numpy(target.offsets).to(device)
        self.near = torch.from_numpy(target.rows).to(device)
        self.draws = torch.Generator(device).manual_seed(seed)

    def forward(self, step: Step) -> torch.Tensor:
        """Return the loss of a batch; 0 if no item of it has a neighbor."""
        first, n_near = self.offsets[step.batch], self.offsets[step.batch + 1] - self.offsets[step.batch]
        met = n_near > 0
        if not met.any():
            return step.latents.sum() * 0
        share = torch.rand(len(first), generator=self.draws, device=first.device, dtype=torch.float64)
        other = self.near[(first + (share * n_near).long())[met]]
        return info_nce(
            step.quantized[met], step.encoder(step.rows[other]), self.temperature, other[:, None] == other[None]
        )


class TextEmbeddingLoss(nn.Module):
    """Pull projected centroids towards the mean text under them, and projected codes towards their own item's text.

    Targets are centered and scaled to mean square length 1. The projection starts as ridge regression from the starting
    latents [N, d].
    """

    def __init__(self, target: TextEmbeddingTarget, start: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.temperature = target.weight, target.temperature
        targets = torch.from_numpy(target.vectors).to(start)
        targets = targets - targets.mean(0)
        self.targets = targets / targets.square().sum(1).mean().sqrt().clamp_min(1e-12)
        self.projection = _regression(start, self.targets)

    def forward(self, step: Step) -> torch.Tensor:
        """Return the loss of a batch."""
        targets = self.targets[step.batch]
        with torch.no_grad():
            codes = residual_quantize(step.latents, list(step.levels)).codes
            directions = functional.normalize(targets, dim=1)
            same = directions @ directions.T > SAME_TEXT
        pull = centroid_pull(step.levels, codes, targets, self.projection)
        return pull + info_nce(self.projection(step.quantized), targets, self.temperature, same)


AuxiliaryLoss = CoOccurrenceLoss | TextEmbeddingLoss


def losses_of(targets: Sequence[AuxiliaryTarget], start: torch.Tensor, seed: int) -> list[AuxiliaryLoss]:
    """Return a loss for each target, on the device of the starting latents [N, d]."""
    return [
        CoOccurrenceLoss(target, start.device, seed)
        if isinstance(target, CoOccurrenceTarget)
        else TextEmbeddingLoss(target, start)
        for target in targets
    ]


def _regression(inputs: torch.Tensor, targets: torch.Tensor) -> nn.Linear:
    """Fit the affine map from inputs [N, d] to centered targets [N, H], by ridge regression."""
    mean = inputs.mean(0)
    centered = (inputs - mean).double()
    normal = centered.T @ centered
    normal += torch.eye(len(normal), device=normal.device) * (RIDGE * normal.diagonal().mean() + 1e-12)
    weight = torch.linalg.solve(normal, centered.T @ targets.double()).float()
    layer = nn.Linear(inputs.shape[1], targets.shape[1], device=inputs.device)
    layer.weight.data, layer.bias.data = weight.T.contiguous(), -mean @ weight
    return layer
