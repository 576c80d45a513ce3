"""`Codebooks.encode` on a torch device: the same exact arithmetic, the same codes.

Latents come from float64 products whose partial sums are all exact (grid.py), scores from float32 products checked
against the rounding bound (residual.py), so a GPU and a CPU cannot disagree. With `fused`, all levels are one
launch of `semid.kernels.residual_assign`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from semid.quantize.grid import LATENT_BITS, LATENT_LIMIT, ExactLayer, float32_error
from semid.quantize.network import Encoder
from semid.quantize.residual import stays_on_float32

__all__ = ["encode", "encode_latents"]

ROWS_AT_ONCE = 8192
LATENTS_AT_ONCE = 1 << 18


Levels = Sequence[npt.NDArray[np.float32]]  # L x [K_l, d]
Biases = Sequence[npt.NDArray[np.float64] | None]  # L x [K_l], or empty


def encode(
    encoder: Encoder,
    levels: Levels,
    biases: Biases,
    vectors: npt.NDArray[np.floating],
    *,
    device: str = "cpu",
    fused: bool = False,
    advance: Callable[[int], object] | None = None,
) -> npt.NDArray[np.int32]:
    """Return the codes of vectors [N, D], int32 [N, L], equal to the NumPy backend's.

    Parameters
    ----------
    encoder, levels, biases
        Of the codebooks; `biases` may be empty.
    vectors : float [N, D]
    device : str
        Where torch works.
    fused : bool
        Use the Triton kernel, where it can take these codebooks.
    advance : callable, optional
        Called with the number of rows done.
    """
    assign = _assigner(levels, biases, device, fused)
    skip, mlp = encoder.network.skip, encoder.network.mlp
    skip_layer = None if skip is None else _on_device(skip, device)
    mlp_layers = [_on_device(layer, device) for layer in mlp]
    codes = np.empty((len(vectors), len(levels)), np.int32)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        rows = np.array(vectors[start : start + ROWS_AT_ONCE], np.float64)
        x = _snap(torch.from_numpy(rows).to(device) * encoder.scale)
        codes[start : start + len(rows)] = assign(_latents(x, skip_layer, mlp_layers)).cpu().numpy()
        if advance is not None:
            advance(len(rows))
    return codes


def encode_latents(
    levels: Levels,
    biases: Biases,
    latents: npt.NDArray[np.float64],
    *,
    device: str = "cpu",
    fused: bool = False,
    advance: Callable[[int], object] | None = None,
) -> npt.NDArray[np.int32]:
    """Return the codes of latents on the grid, float64 [N, d]: int32 [N, L]. Other parameters as in `encode`."""
    assign = _assigner(levels, biases, device, fused)
    codes = np.empty((len(latents), len(levels)), np.int32)
    for start in range(0, len(latents), LATENTS_AT_ONCE):
        rows = torch.from_numpy(np.ascontiguousarray(latents[start : start + LATENTS_AT_ONCE])).to(device)
        codes[start : start + len(rows)] = assign(rows).cpu().numpy()
        if advance is not None:
            advance(len(rows))
    return codes


def _assigner(levels: Levels, biases: Biases, device: str, fused: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from latents float64 [n, d] on the device to codes [n, L] there."""
    fast = stays_on_float32(levels)
    if fused and fast and _fits_kernel(levels):
        from semid.kernels.packed_codebooks import prepare
        from semid.kernels.residual_assign import residual_assign

        on_device = [torch.tensor(centroids, device=device) for centroids in levels]
        prices = [None if bias is None else torch.tensor(bias, device=device) for bias in biases] or None
        prepared = prepare(on_device, prices)
        return lambda latents: residual_assign(latents.float(), prepared).codes
    exact = [torch.tensor(centroids, dtype=torch.float64, device=device) for centroids in levels]
    offsets = [
        None if bias is None else torch.tensor(bias, dtype=torch.float64, device=device)
        for bias in biases or [None] * len(levels)
    ]
    fast = fast and _float32_is_full(levels[0].shape[1], device)

    def assign(residual: torch.Tensor) -> torch.Tensor:
        codes = []
        for centroids, bias in zip(exact, offsets, strict=True):
            codes.append(_nearest(residual, centroids, bias, fast))
            residual = residual - centroids[codes[-1]]
        return torch.stack(codes, dim=1)

    return assign


def _fits_kernel(levels: Levels) -> bool:
    from semid.kernels.packed_codebooks import MAX_CODES, MAX_DIMS, MAX_LEVELS

    return levels[0].shape[1] <= MAX_DIMS and len(levels) <= MAX_LEVELS and max(map(len, levels)) <= MAX_CODES


def _float32_is_full(width: int, device: str) -> bool:
    """Return False if the caller lets torch multiply float32 as TF32 or bfloat16, by a global setting or autocast.

    Found by trying, because the settings have several names that may disagree.
    """
    needs_21_bits = torch.full((1024, width), 1 + 2.0**-20, device=device)
    product = needs_21_bits @ torch.eye(width, max(width, 256), device=device)
    return product.dtype == torch.float32 and bool((product[:, :width] == needs_21_bits).all())


def _on_device(layer: ExactLayer, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.tensor(layer.float_weight, dtype=torch.float64, device=device)
    return weight, torch.tensor(layer.bias, dtype=torch.float64, device=device)


def _snap(values: torch.Tensor) -> torch.Tensor:
    limit = LATENT_LIMIT * 2.0**LATENT_BITS
    return torch.round(values * 2.0**LATENT_BITS).clamp_(-limit, limit) * 2.0**-LATENT_BITS


def _latents(
    x: torch.Tensor,
    skip: tuple[torch.Tensor, torch.Tensor] | None,
    mlp: list[tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    paths = [] if skip is None else [_snap(x @ skip[0] + skip[1])]
    if mlp:
        hidden = x
        for weight, bias in mlp[:-1]:
            hidden = torch.relu(_snap(hidden @ weight + bias))
        paths.append(_snap(hidden @ mlp[-1][0] + mlp[-1][1]))
    return _snap(sum(paths[1:], start=paths[0]))


def _nearest(residual: torch.Tensor, centroids: torch.Tensor, bias: torch.Tensor | None, fast: bool) -> torch.Tensor:
    """Return the column of the best score per row; the lowest on ties, whatever `argmax` does on this device."""
    squares = (centroids * centroids).sum(1)
    offset = -0.5 * squares if bias is None else bias - 0.5 * squares
    if not fast or len(centroids) == 1:
        return _first_best(residual @ centroids.T + offset)
    scores = residual.float() @ centroids.T.float() + offset.float()
    top = scores.topk(2, dim=1)
    longest = squares.max().sqrt()
    error = float32_error(centroids.shape[1] + 3) * (residual.square().sum(1).sqrt() * longest + longest * longest)
    if bias is not None:
        error = error + bias.abs().max() * 2.0**-22
    chosen = top.indices[:, 0].clone()
    unsure = ((top.values[:, 0] - top.values[:, 1]).double() <= 2 * error).nonzero()[:, 0]
    if len(unsure):
        chosen[unsure] = _first_best(residual[unsure] @ centroids.T + offset)
    return chosen


def _first_best(scores: torch.Tensor) -> torch.Tensor:
    best = scores.amax(1, keepdim=True)
    order = torch.arange(scores.shape[1], device=scores.device)
    return torch.where(scores == best, order, scores.shape[1]).amin(1)
