"""The training loop of `lcrec.LCRecRQVAE`, in torch: vectors in, trained float networks out, BatchNorm folded in.

    z = encoder(x),  r_0 = z,  r_{l+1} = r_l - c_l,  x^ = decoder(z + sg(sum_l c_l - z))
    loss = mse(x, x^) + w mean_l( mse(c_l, sg r_l) + beta mse(sg c_l, r_l) )

Every mse is a mean over rows and dims, as in LC-Rec's code (its paper writes sums). No held-out rows.
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
from torch import nn
from torch.nn import functional

from semid.errors import ConfigError
from semid.kernels.residual_train import residual_quantize
from semid.quantize.network import FloatLayer, Network
from semid.runtime.devices import pick_device
from semid.runtime.progress import bar
from semid.train.kmeans import kmeans
from semid.train.rqvae_module import last_residual
from semid.train.rqvae_training import has_fused_optimizer
from semid.train.settings import LCRecSettings
from semid.train.sinkhorn import lcrec_sinkhorn_torch

__all__ = ["LCRecModule", "LCRecTrained", "folded", "train"]

logger = logging.getLogger("semid")

KMEANS_ROUNDS = 100
CLIP_NORM = 1.0
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class LCRecTrained:
    """The kept epoch: float networks and centroids, its loss and its collision rate."""

    encoder: Network[FloatLayer]
    decoder: Network[FloatLayer]
    levels: list[npt.NDArray[np.float32]]
    kept_epoch: int
    loss: float
    collision_rate: float


class LCRecModule(nn.Module):
    """Encoder and decoder of widths D - layers - d and back, and L codebooks that are zero until `start`."""

    def __init__(self, widths: Sequence[int], sizes: Sequence[int], *, batch_norm: bool) -> None:
        super().__init__()
        self.encoder = perceptron(widths, batch_norm=batch_norm)
        self.levels = nn.ParameterList(nn.Parameter(torch.zeros(size, widths[-1])) for size in sizes)
        self.decoder = perceptron(widths[::-1], batch_norm=batch_norm)

    def start(self, latents: torch.Tensor, seed: int) -> None:
        """Set every codebook by k-means on the residuals of these latents [n, d] after the levels before it."""
        residual = latents.detach().cpu().numpy()
        for number, centroids in enumerate(self.levels):
            found = torch.from_numpy(_starting_centroids(residual, len(centroids), seed + number))
            centroids.data.copy_(found)
            distances = _squared_distances(torch.from_numpy(residual), found)
            residual = residual - found[distances.argmin(1)].numpy()

    def quantize(
        self, latents: torch.Tensor, *, beta: float, epsilon: float = 0.0, iterations: int = 50
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return quantized latents [B, d] with straight-through gradients, the loss (a scalar), and codes [B, L]."""
        levels, balanced = list(self.levels), None
        if epsilon > 0:
            with torch.no_grad():
                distances = _squared_distances(last_residual(latents, levels), levels[-1])
                balanced = lcrec_sinkhorn_torch(distances.double(), epsilon, iterations).argmax(1)
        found = residual_quantize(latents, levels, balanced)
        # The original subtracts the straight-through value from the residual, which takes the whole gradient with
        # it: the encoder feels the commitment of the first level only.
        felt = torch.cat([found.commitment[:1], found.commitment[1:].detach()])
        loss = (found.codebook + beta * felt).mean() / latents.shape[1]
        return latents + (found.total - latents).detach(), loss, found.codes.long()

    @torch.no_grad()
    def codes(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the nearest codes of rows [N, D], int64 [N, L], in eval mode."""
        self.eval()
        chunks = [self.quantize(self.encoder(chunk), beta=0.0)[2] for chunk in rows.split(ROWS_AT_ONCE)]
        return torch.cat(chunks)


def perceptron(widths: Sequence[int], *, batch_norm: bool) -> nn.Sequential:
    """Return Linear [-> BatchNorm] -> ReLU per layer, without either after the last; Xavier-normal weights, zero bias.

    The original has a Dropout of probability 0 before each layer.
    """
    modules: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        modules.append(linear)
        if number < len(widths) - 2:
            modules += [nn.BatchNorm1d(outputs)] * batch_norm + [nn.ReLU(inplace=True)]
    return nn.Sequential(*modules)


def folded(modules: nn.Sequential) -> Network[FloatLayer]:
    """Return a trained perceptron as arrays, in eval mode: each BatchNorm is folded into the layer before it."""
    layers: list[FloatLayer] = []
    for module in modules:
        if isinstance(module, nn.Linear):
            layers.append(FloatLayer.from_float(_array(module.weight).T, _array(module.bias)))
        elif isinstance(module, nn.BatchNorm1d):
            mean, variance = module.running_mean, module.running_var
            assert mean is not None and variance is not None  # BatchNorm1d's default
            gain = _array(module.weight) / np.sqrt(_array(variance) + module.eps)
            last = layers.pop()
            bias = (last.bias - _array(mean)) * gain + _array(module.bias)
            layers.append(FloatLayer.from_float(last.weight * gain, bias))
    return Network(None, tuple(layers))


def train(
    settings: LCRecSettings,
    vectors: npt.NDArray[np.float32],
    sizes: Sequence[int],
    *,
    callback: Callable[[int, float, Callable[[], LCRecTrained]], object] | None = None,
) -> LCRecTrained:
    """Train on all rows and return the epoch that `settings.keep` prefers.

    Parameters
    ----------
    settings : LCRecSettings
    vectors : float32 [N, D]
    sizes : L ints
        K of each level.
    callback : callable, optional
        `callback(epoch, loss, snapshot)` is called after each epoch; `snapshot()` returns the weights as they are then,
        with a collision rate of NaN where it was not measured. For learning curves.
    """
    device = pick_device(settings.device)
    batch_norm = settings.batch_norm and len(vectors) > 1  # one row has no variance
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        widths = [vectors.shape[1], *settings.layers, settings.dim]
        module = LCRecModule(widths, sizes, batch_norm=batch_norm).to(device)

        def after_epoch(epoch: int, loss: float, collisions: float) -> None:
            if callback is not None:
                callback(epoch, loss, partial(_snapshot, module, epoch, loss, collisions))

        rows = torch.from_numpy(vectors).to(device)
        state, epoch, loss, collisions = _run(settings, module, rows, batch_norm, after_epoch)
    module.load_state_dict(state)
    return _snapshot(module, epoch, loss, collisions)


def _snapshot(module: LCRecModule, epoch: int, loss: float, collisions: float) -> LCRecTrained:
    levels = [centroids.detach().cpu().numpy().copy() for centroids in module.levels]
    return LCRecTrained(folded(module.encoder), folded(module.decoder), levels, epoch, loss, collisions)


def _run(
    settings: LCRecSettings,
    module: LCRecModule,
    rows: torch.Tensor,
    batch_norm: bool,
    after_epoch: Callable[[int, float, float], object],
) -> tuple[dict[str, torch.Tensor], int, float, float]:
    """Run the epochs; return the kept state, its epoch, loss and collision rate, which `after_epoch` gets of each."""
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        fused=has_fused_optimizer(rows.device),
    )
    # A last batch of one row is left out under BatchNorm: one row has no variance.
    n_trained = len(rows) - (batch_norm and len(rows) % settings.batch_size == 1)
    n_batches = -(-n_trained // settings.batch_size)
    schedule = _schedule(optimizer, settings.warmup_epochs * n_batches, settings.epochs * n_batches)
    every = min(settings.eval_every, settings.epochs)
    kept, best = None, float("inf")
    with bar("train", settings.epochs * n_batches, unit="step") as advance:
        for epoch in range(1, settings.epochs + 1):
            module.train()
            losses = []
            order = torch.randperm(len(rows))[:n_trained]
            for number, batch in enumerate(order.split(settings.batch_size)):
                here = rows[batch.to(rows.device)]
                if epoch == 1 and number == 0:
                    _start(settings, module, rows, here)
                losses.append(_step(settings, module, optimizer, here))
                schedule.step()
                advance(1)
            loss, collisions = sum(torch.stack(losses).tolist()) / n_batches, float("nan")
            if not np.isfinite(loss):
                raise ConfigError(f"the loss is not finite in epoch {epoch}: lr={settings.lr} is too high. Lower it.")
            if epoch % every == 0:
                collisions = _collision_rate(module, rows)
                logger.debug("epoch %d: loss %.5f, collision rate %.4f", epoch, loss, collisions)
                score = collisions if settings.keep == "collision" else loss
                if score < best:
                    kept, best = (copy.deepcopy(module.state_dict()), epoch, loss, collisions), score
            after_epoch(epoch, loss, collisions)
    assert kept is not None  # `every` is at most the number of epochs, and scores are finite
    return kept


def _step(
    settings: LCRecSettings, module: LCRecModule, optimizer: torch.optim.Optimizer, rows: torch.Tensor
) -> torch.Tensor:
    """Do one optimizer step and return the loss, without waiting for the device."""
    loss = _loss(settings, module, rows)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.detach()


def _start(settings: LCRecSettings, module: LCRecModule, rows: torch.Tensor, first_batch: torch.Tensor) -> None:
    """Start by k-means on the first training batch, or on all rows where a codebook is larger than the batch."""
    largest = max(len(centroids) for centroids in module.levels)
    chunks = [first_batch]
    if len(first_batch) < min(largest, len(rows)):
        logger.warning(
            "batch_size=%d is below codebook_size=%d, where LC-Rec stops with an error: "
            "k-means starts from all %d rows instead.",
            settings.batch_size,
            largest,
            len(rows),
        )
        chunks = rows.split(settings.batch_size)
        if len(chunks[-1]) == 1:  # one row has no variance
            chunks = [*chunks[:-2], torch.cat(chunks[-2:])]
    with torch.no_grad():
        module.start(torch.cat([module.encoder(chunk) for chunk in chunks]), settings.seed)


def _loss(settings: LCRecSettings, module: LCRecModule, rows: torch.Tensor) -> torch.Tensor:
    quantized, quantization, _ = module.quantize(
        module.encoder(rows), beta=settings.beta, epsilon=settings.epsilon, iterations=settings.iterations
    )
    return functional.mse_loss(module.decoder(quantized), rows) + settings.quant_weight * quantization


def _schedule(optimizer: torch.optim.Optimizer, warmup: int, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Raise the rate from 0 over `warmup` steps, then lower it linearly to 0 at `total` steps."""

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return max(0.0, (total - step) / max(1, total - warmup))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _collision_rate(module: LCRecModule, rows: torch.Tensor) -> float:
    """(N - distinct code rows) / N with nearest codes."""
    distinct = torch.unique(module.codes(rows), dim=0)
    return (len(rows) - len(distinct)) / len(rows)


def _starting_centroids(points: npt.NDArray[np.float32], size: int, seed: int) -> npt.NDArray[np.float32]:
    if len(np.unique(points, axis=0)) <= size:
        return kmeans(points, size)  # every distinct point is its own centroid
    from sklearn.cluster import KMeans

    search = KMeans(size, max_iter=KMEANS_ROUNDS, random_state=seed).fit(points.astype(np.float64))
    return search.cluster_centers_.astype(np.float32)


def _squared_distances(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    return rows.square().sum(1, keepdim=True) + centroids.square().sum(1) - 2 * rows @ centroids.T


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()
