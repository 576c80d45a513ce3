"""The training step of residual quantization: forward and backward as one operator, `semid::residual_quantize`.

With r_0 = z, for each level l and each of B latents:

    c_l = argmin_k |r_l - C_l[k]|^2       chosen_l = C_l[c_l]       r_{l+1} = r_l - chosen_l
    total = sum_l chosen_l     codebook_l = mean |chosen_l - sg r_l|^2     commitment_l = mean |sg chosen_l - r_l|^2

sg stops gradients (van den Oord et al. 2017). Both losses are the mean of |r_{l+1}|^2, with different gradients:

    dz        = 2/B sum_l dcommitment_l r_{l+1}
    dC_l[k]   = sum over items with c_l = k of   dtotal - 2/B dcodebook_l r_{l+1}

The residual passes gradients on only to z, never to earlier centroids; `total` passes none to z, so a caller that
wants the straight-through estimator decodes z + sg(total - z). The backward recomputes the residuals from the codes.
A step repeats bit for bit. Codes are nearest up to float32 rounding, since trained centroids lie on no grid.

Triton kernels (`residual_train_triton`) where `dispatch` says so, plain torch elsewhere. The operator has a fake
implementation and an autograd formula, so `torch.compile` keeps it in the graph, and it never waits for the device, so
a CUDA graph can hold it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from semid.kernels.dispatch import uses_triton
from semid.kernels.sizes import power_of_two_at_least

__all__ = ["Quantized", "residual_quantize"]

WIDEST = 128  # of the fused forward; wider latents find their codes in plain torch
BLOCK_N, NUM_WARPS, NUM_STAGES = 16, 4, 2  # small blocks: a training batch has to reach every multiprocessor


class Quantized(NamedTuple):
    """One step's outcome.

    total float32 [B, D], codebook and commitment float32 [L], codes int32 [B, L], counts int64 [sum K]: how often
    each code was used, level after level.
    """

    total: torch.Tensor
    codebook: torch.Tensor
    commitment: torch.Tensor
    codes: torch.Tensor
    counts: torch.Tensor


def residual_quantize(
    latents: torch.Tensor, codebooks: Sequence[torch.Tensor], last_codes: torch.Tensor | None = None
) -> Quantized:
    """Residual quantization of a batch, with gradients to the latents and the codebooks.

    Parameters
    ----------
    latents : float [B, D], any strides; other types than float32 are converted.
    codebooks : L float32 tensors [K_l, D] on the latents' device.
    last_codes : int64 [B], codes of the last level to use instead of the nearest, or -1 in rows that keep the
        nearest; None for -1 everywhere. A value of K or more raises on a CPU; a GPU lowers it to K - 1, since to
        raise would mean to wait for it.

    Latents with NaN give NaN losses and some valid code.

    Raises
    ------
    ValueError : shapes, types or devices that do not fit.
    RuntimeError : SEMID_BACKEND=triton, and it cannot run on the latents' device.
    """
    _check(latents, codebooks, last_codes)
    return Quantized(*_quantize(latents.float(), list(codebooks), last_codes))


@torch.library.custom_op(
    "semid::residual_quantize",
    mutates_args=(),
    schema="(Tensor latents, Tensor[] codebooks, Tensor? last_codes) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _quantize(
    latents: torch.Tensor, codebooks: list[torch.Tensor], last_codes: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    fused = uses_triton(latents.device) and latents.shape[1] <= WIDEST and len(latents) > 0
    forward = _forward_triton if fused else _forward_torch
    total, codes, losses = forward(latents, codebooks, last_codes)
    sizes = tuple(len(centroids) for centroids in codebooks)
    rows = (codes + _starts(sizes, latents.device)[:-1]).flatten().long()
    counts = torch.zeros(sum(sizes), dtype=torch.int64, device=latents.device)
    counts.scatter_add_(0, rows, torch.ones_like(rows))  # whole numbers: any order gives the same sum
    return total, losses, losses.clone(), codes, counts


@_quantize.register_fake
def _(latents, codebooks, last_codes):
    batch, n_levels = latents.shape[0], len(codebooks)
    return (
        latents.new_empty(batch, latents.shape[1]),
        latents.new_empty(n_levels),
        latents.new_empty(n_levels),
        latents.new_empty(batch, n_levels, dtype=torch.int32),
        latents.new_empty(sum(len(centroids) for centroids in codebooks), dtype=torch.int64),
    )


@torch.library.custom_op(
    "semid::residual_quantize_backward",
    mutates_args=(),
    schema="(Tensor latents, Tensor[] codebooks, Tensor codes, Tensor counts, Tensor? grad_total, "
    "Tensor grad_codebook, Tensor grad_commitment) -> (Tensor, Tensor)",
)
def _gradients(
    latents: torch.Tensor,
    codebooks: list[torch.Tensor],
    codes: torch.Tensor,
    counts: torch.Tensor,
    grad_total: torch.Tensor | None,
    grad_codebook: torch.Tensor,
    grad_commitment: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the latents [B, D] and of all centroids [sum K, D]."""
    if uses_triton(latents.device) and len(latents) > 0:
        return _backward_triton(latents, codebooks, codes, counts, grad_total, grad_codebook, grad_commitment)
    return _backward_torch(latents, codebooks, codes, grad_total, grad_codebook, grad_commitment)


@_gradients.register_fake
def _(latents, codebooks, codes, counts, grad_total, grad_codebook, grad_commitment):
    rows = sum(len(centroids) for centroids in codebooks)
    return latents.new_empty(latents.shape), latents.new_empty(rows, latents.shape[1])


def _save_for_backward(ctx, inputs, output) -> None:
    latents, codebooks, _ = inputs
    _, _, _, codes, counts = output
    ctx.mark_non_differentiable(codes, counts)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(latents, codes, counts, *codebooks)


def _backward(ctx, grad_total, grad_codebook, grad_commitment, *_):
    latents, codes, counts, *codebooks = ctx.saved_tensors
    zeros = latents.new_zeros(len(codebooks))
    grad_latents, grad_centroids = _gradients(
        latents,
        codebooks,
        codes,
        counts,
        grad_total,
        zeros if grad_codebook is None else grad_codebook,
        zeros if grad_commitment is None else grad_commitment,
    )
    return grad_latents, list(grad_centroids.split([len(centroids) for centroids in codebooks])), None


_quantize.register_autograd(_backward, setup_context=_save_for_backward)


@functools.lru_cache(maxsize=64)
def _starts(sizes: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return each level's first row among all centroids, int32 [L + 1]. Cached: a copy to the GPU would wait for it."""
    ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    return torch.tensor(ends, dtype=torch.int32, device=device)


def _forward_torch(
    latents: torch.Tensor, codebooks: list[torch.Tensor], last_codes: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    residual, total = latents, torch.zeros_like(latents, memory_format=torch.contiguous_format)
    codes, losses = [], []
    for number, centroids in enumerate(codebooks):
        scores = residual @ centroids.T - 0.5 * centroids.square().sum(1)
        # torch's own argmax is scalar on a CPU
        on_cpu = scores.device.type == "cpu"
        code = torch.from_numpy(scores.numpy().argmax(axis=1)) if on_cpu else scores.argmax(dim=1)
        if last_codes is not None and number == len(codebooks) - 1:
            code = torch.where(last_codes >= 0, _within(last_codes, len(centroids)), code)
        chosen = centroids[code]
        total = total + chosen
        residual = residual - chosen
        codes.append(code.to(torch.int32))
        losses.append(residual.square().sum(1).mean())
    return total, torch.stack(codes, 1), torch.stack(losses)


def _within(last_codes: torch.Tensor, size: int) -> torch.Tensor:
    if last_codes.device.type == "cpu" and len(last_codes) and int(last_codes.max()) >= size:
        raise ValueError(f"last_codes: {int(last_codes.max())} given, expected codes below K={size}, or -1")
    return last_codes.clamp_max(size - 1)


def _forward_triton(
    latents: torch.Tensor, codebooks: list[torch.Tensor], last_codes: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from semid.kernels.residual_train_triton import quantize_kernel

    (batch, dims), n_levels = latents.shape, len(codebooks)
    programs = -(-batch // BLOCK_N)
    width = max(16, power_of_two_at_least(dims))
    total = torch.empty(batch, dims, dtype=torch.float32, device=latents.device)
    codes = torch.empty(batch, n_levels, dtype=torch.int32, device=latents.device)
    squares = torch.empty(programs, n_levels, dtype=torch.float32, device=latents.device)
    quantize_kernel[(programs,)](
        latents,
        *latents.stride(),
        batch,
        dims,
        torch.cat(codebooks),
        _starts(tuple(len(centroids) for centroids in codebooks), latents.device),
        n_levels,
        None if last_codes is None else last_codes.contiguous(),
        total,
        codes,
        squares,
        D=width,
        BLOCK_N=BLOCK_N,
        BLOCK_K=block_k(width),
        PRECISION=float32_precision(),
        HAS_LAST=last_codes is not None,
        num_warps=NUM_WARPS,
        num_stages=NUM_STAGES,
    )
    return total, codes, squares.sum(0) / batch


def block_k(width: int) -> int:
    """Codes at a time, such that no configuration spills (tests/kernels)."""
    return 64 if width <= 64 else 32


def float32_precision() -> str:
    """Return how `tl.dot` multiplies float32 nearly exactly: AMD's units do, NVIDIA's need three TF32 products."""
    return "ieee" if torch.version.hip else "tf32x3"


def _backward_torch(
    latents: torch.Tensor,
    codebooks: list[torch.Tensor],
    codes: torch.Tensor,
    grad_total: torch.Tensor | None,
    grad_codebook: torch.Tensor,
    grad_commitment: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    factor = 2.0 / max(len(latents), 1)
    residual, grad_latents = latents, torch.zeros_like(latents, memory_format=torch.contiguous_format)
    grads = []
    for number, centroids in enumerate(codebooks):
        code = codes[:, number].long()
        residual = residual - centroids[code]
        grad_latents = grad_latents + (factor * grad_commitment[number]) * residual
        change = (-factor * grad_codebook[number]) * residual
        change = change if grad_total is None else change + grad_total
        grads.append(torch.zeros_like(centroids).index_add_(0, code, change))
    return grad_latents, torch.cat(grads)


def _backward_triton(
    latents: torch.Tensor,
    codebooks: list[torch.Tensor],
    codes: torch.Tensor,
    counts: torch.Tensor,
    grad_total: torch.Tensor | None,
    grad_codebook: torch.Tensor,
    grad_commitment: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    from semid.kernels.residual_train_triton import centroid_gradient_kernel, latent_gradient_kernel

    (batch, dims), n_levels = latents.shape, len(codebooks)
    starts = _starts(tuple(len(centroids) for centroids in codebooks), latents.device)
    centroids = torch.cat(codebooks)
    grad_latents = torch.empty(batch, dims, dtype=torch.float32, device=latents.device)
    grad_centroids = torch.empty_like(centroids)
    block_d = min(64, max(16, power_of_two_at_least(dims)))
    slices = -(-dims // block_d)
    latent_gradient_kernel[(-(-batch // 32), slices)](
        latents,
        *latents.stride(),
        batch,
        dims,
        centroids,
        starts,
        n_levels,
        codes,
        grad_commitment.contiguous(),
        2.0 / batch,
        grad_latents,
        BLOCK_N=32,
        BLOCK_D=block_d,
        num_warps=4,
    )
    order = (codes + starts[:-1]).flatten().sort(stable=True).indices
    centroid_gradient_kernel[(len(centroids), slices)](
        latents,
        *latents.stride(),
        dims,
        centroids,
        starts,
        n_levels,
        codes,
        order,
        counts.cumsum(0),
        None if grad_total is None else grad_total.contiguous(),
        grad_codebook.contiguous(),
        2.0 / batch,
        grad_centroids,
        BLOCK_N=32,
        BLOCK_D=block_d,
        HAS_TOTAL=grad_total is not None,
        num_warps=4,
    )
    return grad_latents, grad_centroids


def _check(latents: torch.Tensor, codebooks: Sequence[torch.Tensor], last_codes: torch.Tensor | None) -> None:
    if latents.dim() != 2 or not latents.is_floating_point():
        raise ValueError(f"latents: {latents.dtype} {tuple(latents.shape)}, expected float [B, D]")
    if not len(codebooks):
        raise ValueError("codebooks: none given, expected at least one level")
    for number, centroids in enumerate(codebooks):
        if centroids.dim() != 2 or centroids.shape[1] != latents.shape[1] or not len(centroids):
            raise ValueError(
                f"codebooks[{number}]: shape {tuple(centroids.shape)}, expected [K, {latents.shape[1]}] with K >= 1"
            )
        if centroids.dtype != torch.float32 or centroids.device != latents.device:
            raise ValueError(
                f"codebooks[{number}]: {centroids.dtype} on {centroids.device}, expected float32 on {latents.device}"
            )
    if last_codes is not None and (last_codes.dtype != torch.int64 or last_codes.shape != latents.shape[:1]):
        raise ValueError(
            f"last_codes: {last_codes.dtype} {tuple(last_codes.shape)}, expected int64 [{latents.shape[0]}]"
        )
