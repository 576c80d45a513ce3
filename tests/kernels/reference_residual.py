"""Residual quantization and its training step as their formulas read, in plain torch."""

from __future__ import annotations

import torch

__all__ = ["greedy_codes", "quantization_step", "on_grid", "random_codebooks", "residual_norms", "sum_of_centroids"]


def greedy_codes(
    x: torch.Tensor, codebooks: list[torch.Tensor], biases: list[torch.Tensor | None] | None = None
) -> torch.Tensor:
    """Return int64 [N, L]: the best score r . c - |c|^2 / 2 + bias at each level, the lowest index on ties."""
    residual, codes = x.double(), []
    for centroids, bias in zip(codebooks, biases or [None] * len(codebooks), strict=True):
        exact = centroids.double()
        scores = residual @ exact.T - exact.square().sum(1) / 2
        scores = scores if bias is None else scores + bias
        codes.append(torch.from_numpy(scores.cpu().numpy().argmax(axis=1)).to(x.device))
        residual = residual - exact[codes[-1]]
    return torch.stack(codes, 1)


def sum_of_centroids(codes: torch.Tensor, codebooks: list[torch.Tensor]) -> torch.Tensor:
    """Return the sum of each row's centroids, float32 [N, D], added in order of level."""
    total = torch.zeros(len(codes), codebooks[0].shape[1], device=codes.device)
    for level, centroids in enumerate(codebooks):
        total = total + centroids[codes[:, level].long()]
    return total


def residual_norms(x: torch.Tensor, codes: torch.Tensor, codebooks: list[torch.Tensor]) -> torch.Tensor:
    """Return |x - the first l + 1 centroids|^2, float64 [N, L]."""
    residual, norms = x.double(), []
    for level, centroids in enumerate(codebooks):
        residual = residual - centroids.double()[codes[:, level].long()]
        norms.append(residual.square().sum(1))
    return torch.stack(norms, 1)


def on_grid(values: torch.Tensor) -> torch.Tensor:
    """Round to float32 multiples of 2^-20 within +-8."""
    return ((values.double() * 2**20).round() / 2**20).clamp(-8, 8).float()


def random_codebooks(sizes: list[int], dims: int, *, seed: int = 0, device: str = "cpu") -> list[torch.Tensor]:
    """Return float32 [K, D] per level, multiples of 2^-13 that float16 holds, each level half as large as the last."""
    generator = torch.Generator().manual_seed(seed)
    codebooks = []
    for level, size in enumerate(sizes):
        centroids = torch.randn(size, dims, generator=generator) * 0.5**level
        centroids = (centroids.clamp(-4, 4).half().double() * 2**13).round() / 2**13
        codebooks.append(centroids.float().to(device))
    return codebooks


def quantization_step(
    latents: torch.Tensor, codebooks: list[torch.Tensor], last_codes: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return total [B, D], codebook and commitment losses [L], codes int64 [B, L]; gradients by autograd."""
    residual, total = latents, torch.zeros_like(latents)
    codebook, commitment, codes = [], [], []
    for level, centroids in enumerate(codebooks):
        scores = residual.detach() @ centroids.detach().T - centroids.detach().square().sum(1) / 2
        code = scores.argmax(1)
        if last_codes is not None and level == len(codebooks) - 1:
            code = torch.where(last_codes >= 0, last_codes, code)
        chosen = centroids[code]
        codebook.append((chosen - residual.detach()).square().sum(1).mean())
        commitment.append((chosen.detach() - residual).square().sum(1).mean())
        total = total + chosen
        residual = residual - chosen.detach()
        codes.append(code)
    return total, torch.stack(codebook), torch.stack(commitment), torch.stack(codes, 1)
