"""The training loop of `rqvae.RQVAE`, in torch. In: starting codebooks and vectors. Out: trained floats.

Works in normalized units (vectors and latents of mean square 1) so that one learning rate fits any input.

Where several processes learn together, each works on those rows of a batch that it holds: batches are drawn from the
rows of all, the loss is the batch's, and gradients are added up, so the mathematics is that of one process.
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
from semid.quantize.network import FloatLayer, Network
from semid.runtime.distributed import all_sum, is_writer, place, sum_tensors, world
from semid.runtime.progress import bar
from semid.train.sinkhorn import codes_balanced_together

if TYPE_CHECKING:
    from semid.quantize.codebooks import Codebooks
    from semid.train.auxiliary import Guide
    from semid.train.auxiliary_losses import CoOccurrenceLoss, SpokenTextLoss
    from semid.train.rqvae import RQVAE

__all__ = ["Trained", "has_fused_optimizer", "last_residual", "pick_device", "quantize", "train"]

log = logging.getLogger("semid")

FEWEST_EPOCHS = 3
ROWS_AT_ONCE = 16_384  # through the encoder, whose hidden layer is five times as wide as the vectors


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
    """Encoder, codebooks and decoder in normalized units."""

    def __init__(self, encoder: Network, levels: list[npt.NDArray[np.float32]], decoder: Network) -> None:
        super().__init__()
        self.encoder = SkipMLP(encoder)
        self.levels = nn.ParameterList(nn.Parameter(torch.tensor(level)) for level in levels)
        self.decoder = SkipMLP(decoder)


def quantize(
    latents: torch.Tensor, levels: Sequence[torch.Tensor], *, epsilon: float = 0.0, n_items: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Residual quantization with gradients, of float32 latents [B, d] by L levels float32 [K_l, d].

    Returns the quantized latents [B, d], and per level the codebook and commitment losses [L] (squared norms,
    averaged over the batch). The last level is balanced over the batch if epsilon > 0 and B >= K. `n_items` is the
    size of a batch of which these are the rows of one process among several: it is balanced over all of them.
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
    """What nearest codes of all levels but the last leave of the latents: [B, d], without gradients."""
    return latents - residual_quantize(latents, levels[:-1]).total if len(levels) > 1 else latents.detach()


def train(
    settings: RQVAE,
    start: Codebooks,
    vectors: npt.NDArray[np.float32],
    held: npt.NDArray[np.bool_],
    *,
    guides: Sequence[Guide] = (),
    watch: Callable[[int, Callable[[], Trained]], object] | None = None,
) -> Trained:
    """Train on the rows that are not held out; return the epoch with the lowest held-out error.

    With guides, one entry per vector, it is the last epoch: what they are for costs some of the error.

    `watch(epoch, trained)` hears of every epoch, 0 being the start; `trained()` gives it as it is. For learning curves.
    """
    device = pick_device(settings.device)
    n_items = place(len(vectors))[1]
    mean = (all_sum(vectors.sum(axis=0, dtype=np.float64)) / n_items).astype(np.float32)
    spread = _length(vectors - mean, n_items)
    encoder = _plain(start.encoder.network, start.encoder.scale)
    parts = range(0, len(vectors), ROWS_AT_ONCE)
    size = _length(np.concatenate([encoder(vectors[at : at + ROWS_AT_ONCE]) for at in parts]), n_items)
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
        taken = [guide.take(np.flatnonzero(~held)) for guide in guides]
        best, epoch, epochs = _run(settings, module, seen, unseen, shown, taken)
    module.load_state_dict(best)
    return trained(epoch, epochs)


def _run(
    settings: RQVAE,
    module: RQVAEModule,
    rows: torch.Tensor,
    held: torch.Tensor,
    shown: Callable[[int, int], object],
    guides: Sequence[Guide] = (),
) -> tuple[dict[str, torch.Tensor], int, int]:
    """The epochs; returns the best state, its number (0 = the start), and how many there were.

    `shown` hears of each epoch that is over, and how many there will be.
    """
    with torch.no_grad():
        anchors = torch.cat([module.encoder(part) for part in rows.split(ROWS_AT_ONCE)])
    losses = _guide_losses(guides, anchors, settings.seed)
    weights = [p for name, p in module.named_parameters() if not name.startswith("levels")]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": settings.weight_decay},
            {"params": list(module.levels), "weight_decay": 0.0},
            *({"params": list(loss.parameters()), "weight_decay": 0.0} for loss in losses),
        ],
        lr=settings.lr,
        fused=has_fused_optimizer(rows.device),
    )
    n_rows = place(len(rows))[1]
    batches = max(1, n_rows // settings.batch_size)
    epochs = settings.epochs
    if settings.max_steps is not None:
        epochs = min(epochs, max(FEWEST_EPOCHS, settings.max_steps // batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=epochs * batches, pct_start=0.1)
    best, kept, lowest = copy.deepcopy(module.state_dict()), 0, _error(module, held)
    shown(0, epochs)
    with bar("train", epochs * batches, unit="step", shown=settings.verbose and is_writer()) as advance:
        for epoch in range(1, epochs + 1):
            order = torch.randperm(n_rows).to(rows.device)
            for batch in order.tensor_split(batches):
                own = _own(batch, len(rows))
                guided = partial(_guided, losses, module, rows, own) if losses else None
                loss = _loss(settings, module, rows[own], anchors[own], len(batch), guided)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                sum_tensors([parameter.grad for parameter in module.parameters()])
                optimizer.step()
                schedule.step()
                advance(1)
            error = _error(module, held)
            shown(epoch, epochs)
            log.debug("epoch %d: held-out error %.5f", epoch, error)
            if error < lowest or losses:
                best, kept, lowest = copy.deepcopy(module.state_dict()), epoch, error
    return best, kept, epochs


def _own(batch: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Those rows of a batch, which counts over the rows of all processes, that are among the `n_rows` of this one."""
    if world() == 1:
        return batch
    own = batch - place(n_rows)[0]
    return own[(own >= 0) & (own < n_rows)]


def _loss(
    settings: RQVAE,
    module: RQVAEModule,
    rows: torch.Tensor,
    anchors: torch.Tensor,
    n_items: int | None = None,
    guided: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """What rows [B, D] add to the loss of a batch of n_items, else their own; of no row NaN, with gradients of 0.

    `guided` gives what the guides add, from latents and quantized latents [B, d].
    """
    latents, n_items = module.encoder(rows), len(rows) if n_items is None else n_items
    quantized, codebook, commitment = quantize(latents, module.levels, epsilon=settings.epsilon, n_items=n_items)
    passed = latents + (quantized - latents).detach()
    decoded = module.decoder(passed)
    reconstruction = (decoded - rows).square().sum(1).mean()
    quantization = (codebook + settings.beta * commitment).mean()
    anchor = (latents - anchors).square().sum(1).mean()
    loss = reconstruction + settings.quant_weight * quantization + settings.anchor * anchor
    if guided is not None:
        loss = loss + guided(latents, passed)
    return loss if n_items == len(rows) else loss * (len(rows) / n_items)


def _guide_losses(guides: Sequence[Guide], start: torch.Tensor, seed: int) -> list[CoOccurrenceLoss | SpokenTextLoss]:
    if not guides:
        return []
    from semid.train.auxiliary_losses import losses_of

    return losses_of(guides, start, seed)


def _guided(
    losses: Sequence[CoOccurrenceLoss | SpokenTextLoss],
    module: RQVAEModule,
    rows: torch.Tensor,
    batch: torch.Tensor,
    latents: torch.Tensor,
    quantized: torch.Tensor,
) -> torch.Tensor:
    """The weighted sum of the guides' losses."""
    from semid.train.auxiliary_losses import Step

    step = Step(module.encoder, list(module.levels), rows, batch, latents, quantized)
    return sum(loss.weight * loss(step) for loss in losses)


@torch.no_grad()
def _error(module: RQVAEModule, rows: torch.Tensor) -> float:
    """Mean squared reconstruction error with plain nearest codes."""
    quantized, _, _ = quantize(module.encoder(rows), module.levels)
    return all_sum(float((module.decoder(quantized) - rows).square().sum(1).sum())) / all_sum(len(rows))


def _length(rows: npt.NDArray[np.floating], n_items: int) -> float:
    """The square root of the mean squared length of the rows of all processes, `n_items`."""
    return float(np.sqrt(all_sum(np.square(rows).sum(axis=1).sum()) / n_items))


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
