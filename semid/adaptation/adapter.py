"""Adapters: a few dense layers on top of frozen vectors, learned from pairs of rows in seconds on a CPU.

    linear   W (x - m) + b                             starts as P (x - m)
    mlp      W (x - m) + b + W2 relu(W1 (x - m) + b1)  the same, since W2 and b start at zero

with m the mean of the catalog, which all vectors of a language model share to a large part: without it their cosines
differ little, and learning them apart takes all the steps. P is the identity, or the first principal directions where
the new vectors have fewer dims. What is learned leaves as plain dense layers, which sentence-transformers runs without
any code of ours: with x = relu(x) - relu(-x), the MLP is

    relu of [W; -W; W1] (x - m) + [0; 0; b1]   then   [I, -I, W2] h + b.

N items, R rows of text vectors, D dims, d new dims, H hidden units.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.adaptation.config import AdaptConfig
from semid.adaptation.losses import FIRST_TAU, infonce, soft_target_loss
from semid.adaptation.report import Scores
from semid.errors import ConfigError
from semid.runtime.arrays import unit_rows
from semid.runtime.devices import pick_device
from semid.runtime.progress import bar, log_step

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Dense", "Learned", "apply_layers", "learn_adapter", "principal_directions"]

logger = logging.getLogger("semid")

WARM_UP = 50  # steps; fewer in a short training
JUDGED = 6  # times that the vectors are judged during training
ROWS = 1 << 13  # through the layers at a time

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dense:
    """One layer, `x @ weight.T + bias`, and then perhaps relu.

    Parameters
    ----------
    weight : float32 [out, in], bias : float32 [out]
    relu : bool
    """

    weight: Floats
    bias: Floats
    relu: bool = False

    def __call__(self, rows: Floats) -> Floats:
        """Return the layer's output for rows, float32 [n, out]."""
        out = rows @ self.weight.T + self.bias
        return np.maximum(out, 0) if self.relu else out


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs of rows of a table of vectors, and of which item each row is; int64 [n] each."""

    left: Ints
    right: Ints
    left_items: Ints
    right_items: Ints


@dataclass(frozen=True, eq=False)
class Learned:
    """An adapter, and how learning went.

    Parameters
    ----------
    layers : list of Dense
        Of the step with the best score; empty if that is the start, where vectors stay as they are.
    step : int
        That step; 0 is the start.
    scores : list of (step, loss, score)
        What was measured, from the start on; the loss is the mean since the last line, NaN at the start.
    others : dict of str to Scores
        Next-item figures of what else was learned, by name: the recommender of `rat.py`.
    """

    layers: list[Dense]
    step: int
    scores: list[tuple[int, float, float]] = field(default_factory=list)
    others: dict[str, Scores] = field(default_factory=dict)


def apply_layers(layers: Sequence[Dense], vectors: Floats) -> Floats:
    """Return the vectors after the layers, of unit length, float32 [n, d]; a row of zeros stays so.

    >>> swap = Dense(np.eye(2, dtype=np.float32)[::-1], np.zeros(2, np.float32))
    >>> apply_layers([swap], np.array([[2, 0]], np.float32))
    array([[0., 1.]], dtype=float32)
    """
    if not layers:
        return vectors
    width = len(layers[-1].weight)
    adapted = np.zeros((len(vectors), width), np.float32)
    for start in range(0, len(vectors), ROWS):
        block = vectors[start : start + ROWS]
        has_text = block.any(axis=1, keepdims=True)
        for layer in layers:
            block = layer(block)
        adapted[start : start + ROWS] = unit_rows(block) * has_text
    return adapted


def principal_directions(vectors: Floats, dim: int) -> Floats:
    """Return the directions of largest variance, orthonormal rows, float32 [dim, D]; their signs are fixed.

    Raises
    ------
    ConfigError
        More directions than dims.
    """
    if dim > vectors.shape[1]:
        raise ConfigError(f"dim={dim} should be at most {vectors.shape[1]}, the model's.")
    centered = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centered.T @ centered)
    first = directions[:, ::-1][:, :dim].T
    largest = np.take_along_axis(first, np.abs(first).argmax(axis=1)[:, None], axis=1)
    return (first * np.sign(largest)).astype(np.float32)


def learn_adapter(
    inputs: Floats,
    batches: Iterable[Batch],
    n_steps: int,
    config: AdaptConfig,
    *,
    catalog: Floats,
    judge: Callable[[Floats], float] | None = None,
) -> Learned:
    """Learn an adapter from batches of pairs, and return the step that is judged best.

    Parameters
    ----------
    inputs : float32 [R, D]
        Frozen vectors, which the batches point into.
    batches : iterable of Batch
        One for each step.
    n_steps : int
        How many there are.
    config : AdaptConfig
        Shape, loss, rate, dropout, seed and device.
    catalog : float32 [N, D]
        Frozen vectors of the items, whose adapted vectors are judged.
    judge : callable, optional
        Returns a score of vectors [N, d], higher is better. Without it the last step is returned.

    Returns
    -------
    Learned
        Equal inputs and settings give equal layers on one machine.
    """
    import torch

    device = pick_device(config.device)
    rows, rate = torch.from_numpy(inputs).to(device), config.training()[2]
    warm_up = max(1, min(WARM_UP, n_steps // 3))
    due = {n_steps * part // JUDGED for part in range(1, JUDGED + 1)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        adapter = _Adapter(catalog, config, device)
        optimizer = torch.optim.AdamW(adapter.weights, lr=rate)
        best = Learned([], 0)
        start = max(judge(catalog), judge(apply_layers(adapter.layers(), catalog))) if judge else 0.0
        scores = [(0, float("nan"), start)] if judge else []
        losses: list[float] = []
        with bar("adapt", n_steps, unit="step") as advance:
            for step, batch in enumerate(batches, 1):
                share = min(step / warm_up, (n_steps - step + 1) / max(1, n_steps - warm_up))
                optimizer.param_groups[0]["lr"] = rate * share
                loss = adapter.loss(rows, batch)
                if not torch.isfinite(loss):
                    logger.warning("the loss is not finite at step %d; the best step before it is kept.", step)
                    return Learned(best.layers, best.step, scores)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                advance(1)
                if step in due:
                    layers = adapter.layers()
                    score = judge(apply_layers(layers, catalog)) if judge else 0.0
                    scores.append((step, float(np.mean(losses)), score))
                    losses.clear()
                    logger.info("step %d of %d: loss %.4f, recall@10 %.4f", *(step, n_steps), *scores[-1][1:])
                    if not judge or score > max(earlier for _, _, earlier in scores[:-1]):
                        best = Learned(layers, step)
    log_step("adapt", _in_words(best.step, n_steps, scores, judged=judge is not None))
    return Learned(best.layers, best.step, scores)


def _in_words(kept: int, n_steps: int, scores: Sequence[tuple[int, float, float]], *, judged: bool) -> str:
    losses = [loss for _, loss, _ in scores if loss == loss]
    found = f"{n_steps:,} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}"
    if not judged:
        return found
    score_of = {step: score for step, _, score in scores}
    return f"{found}; step {kept:,} is kept: R@10 of judges {score_of[kept]:.2%}, at the start {score_of[0]:.2%}"


class _Adapter:
    """The weights while they are learned, in torch."""

    def __init__(self, catalog: Floats, config: AdaptConfig, device: str) -> None:
        import torch

        def weight(array: torch.Tensor) -> torch.Tensor:
            return array.to(device).requires_grad_()

        width = catalog.shape[1]
        dim = config.dim or width
        start = torch.eye(width) if dim == width else torch.from_numpy(principal_directions(catalog, dim))
        has_text = np.asarray(catalog.any(axis=1))
        self.config = config
        self.mean = torch.from_numpy(catalog[has_text].mean(axis=0, dtype=np.float64).astype(np.float32)).to(device)
        self.matrix, self.shift = weight(start), weight(torch.zeros(dim))
        self.weights = [self.matrix, self.shift]
        self.tau = weight(torch.tensor(FIRST_TAU))
        if config.loss != "infonce":
            self.weights.append(self.tau)
        if config.adapter == "mlp":
            reach = width**-0.5  # as torch.nn.Linear starts
            self.inner = weight((torch.rand(config.hidden, width) * 2 - 1) * reach)
            self.inner_shift = weight((torch.rand(config.hidden) * 2 - 1) * reach)
            self.outer = weight(torch.zeros(dim, config.hidden))
            self.weights += [self.inner, self.inner_shift, self.outer]

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        import torch

        rows = rows - self.mean
        moved = rows @ self.matrix.T + self.shift
        if self.config.adapter == "linear":
            return moved
        hidden = torch.relu(rows @ self.inner.T + self.inner_shift)
        return moved + torch.nn.functional.dropout(hidden, self.config.dropout) @ self.outer.T

    def loss(self, rows: torch.Tensor, batch: Batch) -> torch.Tensor:
        import torch

        names = ("left", "right", "left_items", "right_items")
        sides = [torch.from_numpy(getattr(batch, name)).to(rows.device) for name in names]
        left, right = self(rows[torch.cat(sides[:2])]).chunk(2)
        if self.config.loss == "infonce":
            return infonce(left, right, sides[2], sides[3], self.config.temperature)
        return soft_target_loss(left, right, self.tau, detached=self.config.loss == "llmemb-detached")

    def layers(self) -> list[Dense]:
        """Return the layers as they are now; the mean goes into their shifts."""

        def plain(tensor: torch.Tensor) -> Floats:
            return tensor.detach().cpu().numpy().copy()

        matrix, mean = plain(self.matrix), plain(self.mean)
        if self.config.adapter == "linear":
            return [Dense(matrix, plain(self.shift) - matrix @ mean)]
        one = np.eye(len(matrix), dtype=np.float32)
        first = np.concatenate([matrix, -matrix, plain(self.inner)])
        shift = np.concatenate([np.zeros(2 * len(matrix), np.float32), plain(self.inner_shift)]) - first @ mean
        return [Dense(first, shift, relu=True), Dense(np.hstack([one, -one, plain(self.outer)]), plain(self.shift))]
