"""LC-Rec's RQ-VAE trainer in plain PyTorch, step for step as its public code works, to time semid's preset against.

https://github.com/RUCAIBox/LC-Rec, `index/`: the network, its loss, the Sinkhorn plan in float64 with four passes an
iteration, and the waits for the device in every step (the checks of the plan, of the loss, and two sums of losses).
Batches come as tensors, without the data loader's workers, which on a CPU would take part of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional

__all__ = ["PlainLCRec", "train_plain"]

BATCH, RATE, DECAY, BETA, EPSILON, ITERATIONS = 1024, 1e-3, 1e-4, 0.25, 0.003, 50
WARMUP_EPOCHS = 50


class PlainLevel(nn.Module):
    """One codebook [K, d]; set by k-means the first time it sees a training batch."""

    def __init__(self, size: int, width: int, epsilon: float, seed: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        self.embedding.weight.data.zero_()
        self.epsilon, self.seed, self.started = epsilon, seed, False

    def start(self, residual: torch.Tensor) -> None:
        points = residual.detach().cpu().numpy().astype(np.float64)
        found = KMeans(self.embedding.num_embeddings, max_iter=100, random_state=self.seed).fit(points)
        self.embedding.weight.data.copy_(torch.from_numpy(found.cluster_centers_))
        self.started = True

    def forward(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.started and self.training:
            self.start(residual)
        weight = self.embedding.weight
        distances = (
            torch.sum(residual**2, dim=1, keepdim=True)
            + torch.sum(weight**2, dim=1, keepdim=True).t()
            - 2 * torch.matmul(residual, weight.t())
        )
        codes = self.balanced(distances) if self.epsilon > 0 else torch.argmin(distances, dim=-1)
        chosen = self.embedding(codes)
        commitment = functional.mse_loss(chosen.detach(), residual)
        codebook = functional.mse_loss(chosen, residual.detach())
        return residual + (chosen - residual).detach(), codebook + BETA * commitment

    @torch.no_grad()
    def balanced(self, distances: torch.Tensor) -> torch.Tensor:
        highest, lowest = distances.max(), distances.min()
        middle = (highest + lowest) / 2
        half = highest - middle + 1e-5
        assert half > 0
        plan = torch.exp(-((distances - middle) / half).double() / self.epsilon)
        plan /= plan.sum(-1, keepdim=True).sum(-2, keepdim=True)
        items, size = plan.shape
        for _ in range(ITERATIONS):
            plan /= torch.sum(plan, dim=1, keepdim=True)
            plan /= items
            plan /= torch.sum(plan, dim=0, keepdim=True)
            plan /= size
        plan *= items
        if torch.isnan(plan).any() or torch.isinf(plan).any():
            raise SystemExit("The Sinkhorn plan is not finite.")
        return torch.argmax(plan, dim=-1)


class PlainLCRec(nn.Module):
    """Encoder, levels and decoder; the forward pass gives the decoded rows and the quantization loss."""

    def __init__(self, widths: Sequence[int], sizes: Sequence[int], *, batch_norm: bool, seed: int) -> None:
        super().__init__()
        self.encoder = _perceptron(widths, batch_norm)
        epsilons = [0.0] * (len(sizes) - 1) + [EPSILON]
        with torch.random.fork_rng():  # semid's codebooks draw nothing, and both shall have the same weights
            self.levels = nn.ModuleList(
                PlainLevel(size, widths[-1], epsilon, seed + number)
                for number, (size, epsilon) in enumerate(zip(sizes, epsilons, strict=True))
            )
        self.decoder = _perceptron(widths[::-1], batch_norm)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        residual = self.encoder(rows)
        total, losses = 0, []
        for level in self.levels:
            passed, loss = level(residual)
            residual = residual - passed
            total = total + passed
            losses.append(loss)
        return self.decoder(total), torch.stack(losses).mean()


def _perceptron(widths: Sequence[int], batch_norm: bool) -> nn.Sequential:
    modules: list[nn.Module] = []
    for number in range(len(widths) - 1):
        linear = nn.Linear(widths[number], widths[number + 1])
        nn.init.xavier_normal_(linear.weight)
        nn.init.constant_(linear.bias, 0.0)
        modules += [nn.Dropout(p=0.0), linear]
        if number < len(widths) - 2:
            modules += [nn.BatchNorm1d(widths[number + 1])] if batch_norm else []
            modules.append(nn.ReLU())
    return nn.Sequential(*modules)


def train_plain(
    vectors: npt.NDArray[np.float32],
    widths: Sequence[int],
    sizes: Sequence[int],
    *,
    epochs: int,
    batch_norm: bool,
    seed: int,
    watch: Callable[[float], object],
) -> None:
    """Train; `watch` hears the mean loss of every epoch as it ends."""
    torch.manual_seed(seed)
    model = PlainLCRec(widths, sizes, batch_norm=batch_norm, seed=seed)
    rows = torch.from_numpy(vectors)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    batches = -(-len(rows) // BATCH)
    warmup, steps = WARMUP_EPOCHS * batches, epochs * batches

    def factor(step: int) -> float:
        return step / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(epochs):
        model.train()
        total, reconstructed = 0.0, 0.0
        for batch in torch.randperm(len(rows)).split(BATCH):
            here = rows[batch]
            optimizer.zero_grad()
            decoded, quantization = model(here)
            reconstruction = functional.mse_loss(decoded, here, reduction="mean")
            loss = reconstruction + quantization
            if torch.isnan(loss):
                raise SystemExit("The loss is not a number.")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
            reconstructed += reconstruction.item()
        watch(total / batches)
