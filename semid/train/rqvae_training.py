"""The training loop of `rqvae.RQVAE`, in torch: starting codebooks and vectors in, trained float networks out.

Training works in normalized units (`rqvae_module.py`).

Where several processes learn together, each works on the rows of a batch that it holds: batches are drawn from the
rows of all processes, the loss is the batch's, and gradients are summed. So the result is that of one process.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from semid.quantize.codebooks import Codebooks
from semid.quantize.network import FloatLayer, Network
from semid.runtime.devices import pick_device
from semid.runtime.distributed import all_sum, place, sum_tensors, world
from semid.runtime.progress import bar
from semid.train.auxiliary import AuxiliaryTarget
from semid.train.auxiliary_losses import AuxiliaryLoss, Step, losses_of
from semid.train.rqvae_module import RQVAEModule, as_floats, decoder_in_units, quantize, rescaled, with_branch
from semid.train.settings import RQVAESettings

__all__ = ["Trained", "has_fused_optimizer", "train"]

logger = logging.getLogger("semid")

MIN_EPOCHS = 3
ROWS_AT_ONCE = 16_384  # through the encoder, whose hidden layer is five times as wide as the vectors


@dataclass(frozen=True)
class Trained:
    """The kept epoch in the units of the input: float networks, and centroids in the latents' float units."""

    encoder: Network[FloatLayer]
    decoder: Network[FloatLayer]
    levels: list[npt.NDArray[np.float32]]
    epochs: int
    kept_epoch: int


def has_fused_optimizer(device: torch.device) -> bool:
    """Return whether AdamW can update all weights in one pass there, which takes a quarter of the time."""
    return device.type in ("cpu", "cuda")


def train(
    settings: RQVAESettings,
    start: Codebooks,
    vectors: npt.NDArray[np.float32],
    held: npt.NDArray[np.bool_],
    *,
    targets: Sequence[AuxiliaryTarget] = (),
    callback: Callable[[int, Callable[[], Trained]], object] | None = None,
) -> Trained:
    """Train on the rows that are not held out, and return the epoch with the lowest held-out error.

    Parameters
    ----------
    settings : RQVAESettings
    start : Codebooks
        Where training starts.
    vectors : float32 [N, D]
    held : bool [N]
        Rows to measure the error on.
    targets : sequence of AuxiliaryTarget
        One entry per vector each. With targets the last epoch is returned, because they raise the held-out error.
    callback : callable, optional
        `callback(epoch, snapshot)` is called after each epoch, and with 0 before the first; `snapshot()` returns the
        weights as they are then. For learning curves.
    """
    device = pick_device(settings.device)
    n_items = place(len(vectors))[1]
    mean = (all_sum(vectors.sum(axis=0, dtype=np.float64)) / n_items).astype(np.float32)
    spread = _length(vectors - mean, n_items)
    encoder = as_floats(start.encoder.network, start.encoder.scale)
    parts = range(0, len(vectors), ROWS_AT_ONCE)
    size = _length(np.concatenate([encoder(vectors[at : at + ROWS_AT_ONCE]) for at in parts]), n_items)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = RQVAEModule(
            rescaled(encoder, mean, spread, 1 / size),
            [centroids / size for centroids in start.levels],
            with_branch(decoder_in_units(start.decoder.network, mean, spread, size), settings.hidden),
        ).to(device)
        rows = torch.from_numpy((vectors - mean) / spread).to(device)

        def snapshot(epoch: int, epochs: int) -> Trained:
            plain = copy.deepcopy(module).to("cpu")
            return Trained(
                rescaled(plain.encoder.network(), -mean / spread, 1 / spread, 1.0),
                decoder_in_units(plain.decoder.network(), -mean / spread, 1 / spread, 1.0),
                [level.detach().numpy() for level in plain.levels],
                epochs,
                epoch,
            )

        def after_epoch(epoch: int, epochs: int) -> None:
            if callback is not None:
                callback(epoch, partial(snapshot, epoch, epochs))

        seen, unseen = rows[torch.from_numpy(~held)], rows[torch.from_numpy(held)]
        of_seen = [target.take(np.flatnonzero(~held)) for target in targets]
        best, epoch, epochs = _run(settings, module, seen, unseen, after_epoch, of_seen)
    module.load_state_dict(best)
    return snapshot(epoch, epochs)


def _run(
    settings: RQVAESettings,
    module: RQVAEModule,
    rows: torch.Tensor,
    held: torch.Tensor,
    after_epoch: Callable[[int, int], object],
    targets: Sequence[AuxiliaryTarget] = (),
) -> tuple[dict[str, torch.Tensor], int, int]:
    """Run the epochs; return the best state, its epoch (0 is the start), and how many epochs there were.

    `after_epoch(epoch, epochs)` is called after each epoch, and with 0 before the first.
    """
    with torch.no_grad():
        anchors = torch.cat([module.encoder(part) for part in rows.split(ROWS_AT_ONCE)])
    losses = losses_of(targets, anchors, settings.seed)
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
        epochs = min(epochs, max(MIN_EPOCHS, settings.max_steps // batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=epochs * batches, pct_start=0.1)
    best, kept, lowest = copy.deepcopy(module.state_dict()), 0, _error(module, held)
    after_epoch(0, epochs)
    with bar("train", epochs * batches, unit="step") as advance:
        for epoch in range(1, epochs + 1):
            order = torch.randperm(n_rows).to(rows.device)
            for batch in order.tensor_split(batches):
                own = _own(batch, len(rows))
                extra = partial(_auxiliary_loss, losses, module, rows, own) if losses else None
                loss = _loss(settings, module, rows[own], anchors[own], len(batch), extra)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                sum_tensors([parameter.grad for parameter in module.parameters() if parameter.grad is not None])
                optimizer.step()
                schedule.step()
                advance(1)
            error = _error(module, held)
            after_epoch(epoch, epochs)
            logger.debug("epoch %d: held-out error %.5f", epoch, error)
            if error < lowest or losses:
                best, kept, lowest = copy.deepcopy(module.state_dict()), epoch, error
    return best, kept, epochs


def _own(batch: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Of a batch of row numbers over all processes, the rows of this one (`n_rows` in all), counted from its first."""
    if world() == 1:
        return batch
    own = batch - place(n_rows)[0]
    return own[(own >= 0) & (own < n_rows)]


def _loss(
    settings: RQVAESettings,
    module: RQVAEModule,
    rows: torch.Tensor,
    anchors: torch.Tensor,
    n_items: int | None = None,
    extra: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Loss of this process's rows [B, D], scaled to its share of a batch of n_items (default: B).

    NaN, with gradients of 0, if it has no row. `extra` returns the loss of the auxiliary targets, from latents and
    quantized latents [B, d].
    """
    latents, n_items = module.encoder(rows), len(rows) if n_items is None else n_items
    quantized, codebook, commitment = quantize(latents, list(module.levels), epsilon=settings.epsilon, n_items=n_items)
    passed = latents + (quantized - latents).detach()
    decoded = module.decoder(passed)
    reconstruction = (decoded - rows).square().sum(1).mean()
    quantization = (codebook + settings.beta * commitment).mean()
    anchor = (latents - anchors).square().sum(1).mean()
    loss = reconstruction + settings.quant_weight * quantization + settings.anchor * anchor
    if extra is not None:
        loss = loss + extra(latents, passed)
    return loss if n_items == len(rows) else loss * (len(rows) / n_items)


def _auxiliary_loss(
    losses: Sequence[AuxiliaryLoss],
    module: RQVAEModule,
    rows: torch.Tensor,
    batch: torch.Tensor,
    latents: torch.Tensor,
    quantized: torch.Tensor,
) -> torch.Tensor:
    """Weighted sum of the auxiliary losses."""
    step = Step(module.encoder, list(module.levels), rows, batch, latents, quantized)
    return sum((loss.weight * loss(step) for loss in losses), start=latents.new_zeros(()))


@torch.no_grad()
def _error(module: RQVAEModule, rows: torch.Tensor) -> float:
    """Mean squared reconstruction error with plain nearest codes."""
    quantized, _, _ = quantize(module.encoder(rows), list(module.levels))
    return all_sum(float((module.decoder(quantized) - rows).square().sum(1).sum())) / all_sum(len(rows))


def _length(rows: npt.NDArray[np.floating], n_items: int) -> float:
    """Root mean square length of the rows of all processes, `n_items` in all."""
    return float(np.sqrt(all_sum(np.square(rows).sum(axis=1).sum()) / n_items))
