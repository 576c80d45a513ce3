"""The training loop of `rqvae.RQVAE`, in torch. In: starting codebooks and vectors. Out: trained floats.

Works in normalised units (vectors and latents of mean square 1) so that one learning rate fits any input.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from semid.kernels.residual_train import residual_quantize
from semid.kernels.sinkhorn import balanced_codes
from semid.progress import bar
from semid.quantize.network import FloatLayer, Network

if TYPE_CHECKING:
    from semid.quantize.codebooks import Codebooks
    from semid.quantize.rqvae import RQVAE

__all__ = ["Trained", "has_fused_optimizer", "last_residual", "pick_device", "quantize", "train"]

log = logging.getLogger("semid")

FEWEST_EPOCHS = 3


@dataclass(frozen=True)
class Trained:
    """The best epoch, in the units of the input: float networks, and centroids in the latents' float units."""

    encoder: Network
    decoder: Network
    levels: list[npt.NDArray[np.float32]]
    epochs: int
    kept_epoch: int


def pick_device(name: str) -> str:
    """ "auto" -> the first accelerator torch sees, else the CPU; any other name as it is."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_fused_optimizer(device: torch.device) -> bool:
    """Whether one pass over the weights does the whole of AdamW's update there; it takes a quarter of the time."""
    return device.type in ("cpu", "cuda")


class SkipMLP(nn.Module):
    """`network.Network` as a module: skip(x) + mlp(x), ReLU between the MLP's layers."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.skip = None if network.skip is None else _linear(network.skip)
        self.mlp = nn.ModuleList(_linear(layer) for layer in network.mlp)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = None if self.skip is None else self.skip(x)
        if len(self.mlp):
            hidden = x
            for layer in self.mlp[:-1]:
                hidden = functional.relu(layer(hidden))
            branch = self.mlp[-1](hidden)
            result = branch if result is None else result + branch
        return result

    def network(self) -> Network:
        """Back to arrays."""
        skip = None if self.skip is None else _layer(self.skip)
        return Network(skip, tuple(_layer(layer) for layer in self.mlp))


class RQVAEModule(nn.Module):
    """Encoder, codebooks and decoder in normalised units."""

    def __init__(self, encoder: Network, levels: list[npt.NDArray[np.float32]], decoder: Network) -> None:
        super().__init__()
        self.encoder = SkipMLP(encoder)
        self.levels = nn.ParameterList(nn.Parameter(torch.tensor(level)) for level in levels)
        self.decoder = SkipMLP(decoder)


def quantize(
    latents: torch.Tensor, levels: Sequence[torch.Tensor], *, epsilon: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Residual quantization with gradients, of float32 latents [B, d] by L levels float32 [K_l, d].

    Returns the quantized latents [B, d], and per level the codebook and commitment losses [L] (squared norms,
    averaged over the batch). The last level is balanced over the batch if epsilon > 0 and B >= K.
    """
    levels, balanced = list(levels), None
    if epsilon > 0 and len(latents) >= len(levels[-1]):
        balanced = balanced_codes(last_residual(latents, levels), levels[-1], epsilon=epsilon)
    found = residual_quantize(latents, levels, balanced)
    return found.total, found.codebook, found.commitment


@torch.no_grad()
def last_residual(latents: torch.Tensor, levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """What nearest codes of all levels but the last leave of the latents: [B, d], without gradients."""
    return latents - residual_quantize(latents, levels[:-1]).total if len(levels) > 1 else latents.detach()


def train(
    settings: RQVAE,
    start: Codebooks,
    vectors: npt.NDArray[np.float32],
    held: npt.NDArray[np.bool_],
    *,
    watch: Callable[[int, Callable[[], Trained]], object] | None = None,
) -> Trained:
    """Train on the rows that are not held out; return the epoch with the lowest held-out error.

    `watch(epoch, trained)` hears of every epoch, 0 being the start; `trained()` gives it as it is. For learning curves.
    """
    device = pick_device(settings.device)
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = float(np.sqrt(np.square(vectors - mean).sum(axis=1).mean()))
    encoder = _plain(start.encoder.network, start.encoder.scale)
    size = float(np.sqrt(np.square(encoder(vectors)).sum(axis=1).mean()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = RQVAEModule(
            _rescaled(encoder, mean, spread, 1 / size),
            [centroids / size for centroids in start.levels],
            _with_branch(_decoder_in_units(start.decoder.network, mean, spread, size), settings.hidden),
        ).to(device)
        rows = torch.from_numpy((vectors - mean) / spread).to(device)

        def trained(epoch: int, epochs: int) -> Trained:
            plain = copy.deepcopy(module).to("cpu")
            return Trained(
                _rescaled(plain.encoder.network(), -mean / spread, 1 / spread, 1.0),
                _decoder_in_units(plain.decoder.network(), -mean / spread, 1 / spread, 1.0),
                [level.detach().numpy() for level in plain.levels],
                epochs,
                epoch,
            )

        def shown(epoch: int, epochs: int) -> None:
            if watch is not None:
                watch(epoch, partial(trained, epoch, epochs))

        seen, unseen = rows[torch.from_numpy(~held)], rows[torch.from_numpy(held)]
        best, epoch, epochs = _run(settings, module, seen, unseen, shown)
    module.load_state_dict(best)
    return trained(epoch, epochs)


def _run(
    settings: RQVAE,
    module: RQVAEModule,
    rows: torch.Tensor,
    held: torch.Tensor,
    shown: Callable[[int, int], object],
) -> tuple[dict[str, torch.Tensor], int, int]:
    """The epochs; returns the best state, its number (0 = the start), and how many there were.

    `shown` hears of each epoch that is over, and how many there will be.
    """
    with torch.no_grad():
        anchors = module.encoder(rows)
    weights = [p for name, p in module.named_parameters() if not name.startswith("levels")]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": settings.weight_decay},
            {"params": list(module.levels), "weight_decay": 0.0},
        ],
        lr=settings.lr,
        fused=has_fused_optimizer(rows.device),
    )
    batches = max(1, len(rows) // settings.batch_size)
    epochs = settings.epochs
    if settings.max_steps is not None:
        epochs = min(epochs, max(FEWEST_EPOCHS, settings.max_steps // batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=epochs * batches, pct_start=0.1)
    best, kept, lowest = copy.deepcopy(module.state_dict()), 0, _error(module, held)
    shown(0, epochs)
    with bar("train", epochs * batches, unit="step", shown=settings.verbose) as advance:
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(rows)).to(rows.device)
            for batch in order.tensor_split(batches):
                loss = _loss(settings, module, rows[batch], anchors[batch])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                advance(1)
            error = _error(module, held)
            shown(epoch, epochs)
            log.debug("epoch %d: held-out error %.5f", epoch, error)
            if error < lowest:
                best, kept, lowest = copy.deepcopy(module.state_dict()), epoch, error
    return best, kept, epochs


def _loss(settings: RQVAE, module: RQVAEModule, rows: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    latents = module.encoder(rows)
    quantized, codebook, commitment = quantize(latents, module.levels, epsilon=settings.epsilon)
    decoded = module.decoder(latents + (quantized - latents).detach())
    reconstruction = (decoded - rows).square().sum(1).mean()
    quantization = (codebook + settings.beta * commitment).mean()
    anchor = (latents - anchors).square().sum(1).mean()
    return reconstruction + settings.quant_weight * quantization + settings.anchor * anchor


@torch.no_grad()
def _error(module: RQVAEModule, rows: torch.Tensor) -> float:
    """Mean squared reconstruction error with plain nearest codes."""
    quantized, _, _ = quantize(module.encoder(rows), module.levels)
    return float((module.decoder(quantized) - rows).square().sum(1).mean())


def _linear(layer: FloatLayer) -> nn.Linear:
    module = nn.Linear(*layer.weight.shape)
    module.weight.data = torch.tensor(np.ascontiguousarray(layer.weight.T), dtype=torch.float32)
    module.bias.data = torch.tensor(np.asarray(layer.bias), dtype=torch.float32)
    return module


def _layer(module: nn.Linear) -> FloatLayer:
    return FloatLayer.from_float(module.weight.detach().numpy().T, module.bias.detach().numpy())


def _plain(network: Network, scale: float) -> Network:
    """An exact encoder network as floats that take unscaled vectors."""

    def floats(layer, factor=1.0) -> FloatLayer:
        return FloatLayer.from_float(layer.float_weight * factor, layer.bias)

    mlp = tuple(floats(layer, scale if number == 0 else 1.0) for number, layer in enumerate(network.mlp))
    return Network(None if network.skip is None else floats(network.skip, scale), mlp)


def _rescaled(network: Network, mean: npt.NDArray[np.floating], spread: float, gain: float) -> Network:
    """The network that gives `gain * network(x * spread + mean)` for its input x."""

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


def _decoder_in_units(network: Network, mean: npt.NDArray[np.floating], spread: float, size: float) -> Network:
    """The network that gives `(network(q * size) - mean) / spread` for its input q."""
    zero = np.zeros(1, np.float32)
    scaled = _rescaled(network, zero.repeat(network.dims[0]), size, 1 / spread)
    skip = FloatLayer.from_float(scaled.skip.weight, scaled.skip.bias - mean / spread)
    return Network(skip, scaled.mlp)


def _with_branch(network: Network, hidden: int) -> Network:
    """Add an MLP branch that answers zero until it is trained."""
    width, out = network.dims
    inner = torch.randn(width, hidden).numpy() * np.sqrt(2.0)
    branch = (
        FloatLayer.from_float(inner, np.zeros(hidden)),
        FloatLayer.from_float(np.zeros((hidden, out)), np.zeros(out)),
    )
    return Network(network.skip, branch)
