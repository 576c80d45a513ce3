"""What both implementations of `residual_quantize` must do, for the plain and the interpreted tests."""

from __future__ import annotations

import torch

from semid.kernels.residual_train import Quantized, residual_quantize
from tests.kernels.reference_residual import quantization_step

__all__ = ["agrees_with_autograd", "balanced_last_codes", "random_step"]


def random_step(
    batch: int, dims: int, sizes: list[int], *, seed: int = 0, size: float = 1.0, device: str = "cpu"
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return latents [B, D] and codebooks, all with gradients."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, dims, generator=generator) * size
    levels = [torch.randn(count, dims, generator=generator) * size * 0.6**level for level, count in enumerate(sizes)]
    return latents.to(device).requires_grad_(), [level.to(device).requires_grad_() for level in levels]


def balanced_last_codes(batch: int, count: int, device: str = "cpu") -> torch.Tensor:
    """Return codes in turn, but -1 in every third row; int64 [B]."""
    codes = torch.arange(batch) % count
    codes[::3] = -1
    return codes.to(device)


def agrees_with_autograd(
    latents: torch.Tensor, codebooks: list[torch.Tensor], last_codes: torch.Tensor | None = None
) -> Quantized:
    """Assert that outputs and the gradients of a loss of all of them equal the reference's; return the outputs."""
    found = residual_quantize(latents, codebooks, last_codes)
    expected = quantization_step(latents, codebooks, last_codes)
    assert torch.equal(found.codes.long(), expected[3])
    torch.testing.assert_close(tuple(found[:3]), expected[:3], rtol=1e-5, atol=1e-6)
    sizes = [len(centroids) for centroids in codebooks]
    counts = [torch.bincount(expected[3][:, level], minlength=size) for level, size in enumerate(sizes)]
    assert torch.equal(found.counts, torch.cat(counts))
    inputs = [latents, *codebooks]
    gradients = torch.autograd.grad(_loss(*found[:3]), inputs)
    for gradient, wanted in zip(gradients, torch.autograd.grad(_loss(*expected[:3]), inputs), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=2e-6 * float(wanted.abs().max().clamp_min(1e-30)))
    return found


def _loss(total: torch.Tensor, codebook: torch.Tensor, commitment: torch.Tensor) -> torch.Tensor:
    """Weight every output differently, so that swapped gradients are noticed."""
    batch, dims = total.shape
    weights = torch.linspace(-1, 1, batch * dims, device=total.device).reshape(batch, dims)
    levels = torch.arange(1, len(codebook) + 1, device=total.device)
    return (weights * total).sum() + (levels * codebook).sum() + 0.25 * (commitment / levels).sum()
