"""The network that RQ-VAE training trains, in torch: encoder, codebooks, decoder, and quantization with gradients.

Networks come from arrays (`quantize.network.Network`) and go back to arrays. The functions at the end move a network
into the normalized units that training works in: vectors and latents of mean square 1, so that one learning rate fits
any input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from semid.kernels.residual_train import residual_quantize
from semid.kernels.sinkhorn import balanced_codes
from semid.quantize.grid import ExactLayer
from semid.quantize.network import FloatLayer, Network
from semid.runtime.distributed import world
from semid.train.sinkhorn import codes_balanced_together

__all__ = [
    "RQVAEModule",
    "SkipMLP",
    "as_floats",
    "decoder_in_units",
    "last_residual",
    "quantize",
    "rescaled",
    "with_branch",
]


class SkipMLP(nn.Module):
    """A `quantize.network.Network` as a torch module: skip(x) + mlp(x), ReLU between the MLP's layers."""

    def __init__(self, network: Network[FloatLayer]) -> None:
        super().__init__()
        self.skip = None if network.skip is None else _linear(network.skip)
        self.mlp = nn.ModuleList(_linear(layer) for layer in network.mlp)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map rows [N, in] to [N, out]."""
        if self.skip is None:
            return self._branch(x)
        skipped: torch.Tensor = self.skip(x)
        return skipped + self._branch(x) if len(self.mlp) else skipped

    def _branch(self, x: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.mlp, 1):
            x = functional.relu(layer(x)) if number < len(self.mlp) else layer(x)
        return x

    def network(self) -> Network[FloatLayer]:
        """Return the network as arrays."""
        skip = None if self.skip is None else _layer(self.skip)
        return Network(skip, tuple(_layer(layer) for layer in self.mlp if isinstance(layer, nn.Linear)))


class RQVAEModule(nn.Module):
    """Encoder, codebooks and decoder in normalized units."""

    def __init__(
        self, encoder: Network[FloatLayer], levels: list[npt.NDArray[np.float32]], decoder: Network[FloatLayer]
    ) -> None:
        super().__init__()
        self.encoder = SkipMLP(encoder)
        self.levels = nn.ParameterList(nn.Parameter(torch.tensor(level)) for level in levels)
        self.decoder = SkipMLP(decoder)


def quantize(
    latents: torch.Tensor, levels: Sequence[torch.Tensor], *, epsilon: float = 0.0, n_items: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantize float32 latents [B, d] level by level, with gradients.

    Parameters
    ----------
    latents : float32 [B, d]
    levels : L tensors float32 [K_l, d]
    epsilon : float
        Balance the last level over the batch if this is above 0 and B >= K.
    n_items : int, optional
        Size of the whole batch, where these are the rows of one process among several; B by default.

    Returns
    -------
    quantized [B, d], codebook loss [L], commitment loss [L]
        Losses are squared norms, averaged over the batch.
    """
    levels, balanced = list(levels), None
    n_items = len(latents) if n_items is None else n_items
    if epsilon > 0 and n_items >= len(levels[-1]):
        left, last = last_residual(latents, levels), levels[-1]
        if world() > 1:
            balanced = codes_balanced_together(left, last, n_items, epsilon=epsilon)
        else:
            balanced = balanced_codes(left, last, epsilon=epsilon)
    found = residual_quantize(latents, levels, balanced)
    return found.total, found.codebook, found.commitment


@torch.no_grad()
def last_residual(latents: torch.Tensor, levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Residual of the latents after the nearest codes of all levels but the last: [B, d], without gradients."""
    return latents - residual_quantize(latents, levels[:-1]).total if len(levels) > 1 else latents.detach()


def _linear(layer: FloatLayer) -> nn.Linear:
    module = nn.Linear(*layer.weight.shape)
    module.weight.data = torch.tensor(np.ascontiguousarray(layer.weight.T), dtype=torch.float32)
    module.bias.data = torch.tensor(np.asarray(layer.bias), dtype=torch.float32)
    return module


def _layer(module: nn.Linear) -> FloatLayer:
    return FloatLayer.from_float(module.weight.detach().numpy().T, module.bias.detach().numpy())


def as_floats(network: Network[ExactLayer], scale: float) -> Network[FloatLayer]:
    """Return an exact encoder network as a float network that takes unscaled vectors."""

    def floats(layer: ExactLayer, factor: float = 1.0) -> FloatLayer:
        return FloatLayer.from_float(layer.float_weight * factor, layer.bias)

    mlp = tuple(floats(layer, scale if number == 0 else 1.0) for number, layer in enumerate(network.mlp))
    return Network(None if network.skip is None else floats(network.skip, scale), mlp)


def rescaled(
    network: Network[FloatLayer], mean: npt.NDArray[np.floating], spread: float, gain: float
) -> Network[FloatLayer]:
    """Return the network that maps x to `gain * network(x * spread + mean)`."""

    def inner(layer: FloatLayer, factor: float) -> FloatLayer:
        return FloatLayer.from_float(layer.weight * (spread * factor), (layer.bias + mean @ layer.weight) * factor)

    skip = None if network.skip is None else inner(network.skip, gain)
    mlp = list(network.mlp)
    if len(mlp) == 1:
        mlp = [inner(mlp[0], gain)]
    elif mlp:
        last = FloatLayer.from_float(mlp[-1].weight * gain, mlp[-1].bias * gain)
        mlp = [inner(mlp[0], 1.0), *mlp[1:-1], last]
    return Network(skip, tuple(mlp))


def decoder_in_units(
    network: Network[FloatLayer], mean: npt.NDArray[np.floating], spread: float, size: float
) -> Network[FloatLayer]:
    """Return the network that maps q to `(network(q * size) - mean) / spread`."""
    zero = np.zeros(1, np.float32)
    scaled = rescaled(network, zero.repeat(network.dims[0]), size, 1 / spread)
    assert scaled.skip is not None  # every decoder has a linear path
    skip = FloatLayer.from_float(scaled.skip.weight, scaled.skip.bias - mean / spread)
    return Network(skip, scaled.mlp)


def with_branch(network: Network[FloatLayer], hidden: int) -> Network[FloatLayer]:
    """Add an MLP branch of `hidden` units whose output is zero until it is trained."""
    width, out = network.dims
    inner = torch.randn(width, hidden).numpy() * np.sqrt(2.0)
    branch = (
        FloatLayer.from_float(inner, np.zeros(hidden)),
        FloatLayer.from_float(np.zeros((hidden, out)), np.zeros(out)),
    )
    return Network(network.skip, branch)
