"""The streaming plan of `sinkhorn.py` in plain torch, for a CPU: a block of rows at a time, in the core's cache.

A pass costs one float32 product, one exponential and two matrix-vector products per block:

    E = exp([r, -b, 1] [C'; 1; o])        C' = 2 C^T / unit,  o_k = g_k - |c_k|^2 / unit,  b the row's shift
    q = E 1,   columns += E^T (1 / q),    b <- b + log q

The shift rides along in the product, so no pass over the block is spent on finding and subtracting row maxima: b is
the row's own log-sum of the pass before plus the largest growth of g since, hence an upper bound of the new one. It
is at most the spread of that growth too high; where the spread is large (the first rounds of a hard case), maxima
are found after all. Exponents are kept above -80: results below float32's normal range make processors crawl.

Both sides are moved by the centroids' mean first, which changes no distance and keeps the products small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

__all__ = ["ChunkedPlan", "balanced_codes_torch"]

BLOCK_SCORES = 2**18  # 1 MB in float32: stays in a core's second-level cache
SPREAD = 40.0  # exp(-40) is far above float32's smallest number, and exp(-80) far below it in weight
FLOOR = -80.0
DENSE_ROWS = 8192  # batches up to this size keep their scores: 8 MB at K = 256
SMALLEST_BATCH_RANGE = 1e-5


class ChunkedPlan:
    """Passes over one set of items. residual float [N, D] of any strides, centroids float [K, D].

    Holds one float32 per item between passes, so that a pass near the one before is cheap.
    """

    def __init__(self, residual: torch.Tensor, centroids: torch.Tensor) -> None:
        self.residual = residual
        centroids = centroids.detach().double()
        self.mean = centroids.mean(0)
        self.centroids = centroids - self.mean
        self.squares = self.centroids.square().sum(1)
        self.rows = max(64, min(4096, BLOCK_SCORES // len(centroids)))
        self.scores = torch.empty(min(self.rows, len(residual)), len(centroids), device=residual.device)
        self.ones = torch.ones(len(centroids), device=residual.device)
        self.before: tuple[torch.Tensor, float] | None = None  # potential and unit of the last pass
        self.shifts = torch.empty(len(residual), device=residual.device)  # minus each row's log-sum

    def distance_range(self) -> tuple[float, float]:
        """Smallest and largest squared distance of an item to a centroid; NaN where a value is not finite."""
        centroids, offsets = self.centroids.T.float(), (self.squares / -2).float()
        low, high = [], []
        for _, rows, scores in self._blocks(0):
            torch.addmm(offsets, rows, centroids, out=scores)
            norms = rows.square().sum(1)
            low.append((norms - 2 * scores.amax(1)).amin())
            high.append((norms - 2 * scores.amin(1)).amax())
        return float(torch.stack(low).amin()), float(torch.stack(high).amax())

    def columns(self, potential: torch.Tensor, unit: float | torch.Tensor) -> torch.Tensor:
        """Return column sums of softmax_k(potential_k - d_nk / unit), float64 [K]."""
        potential, unit = potential.detach().to(self.squares), float(unit)
        weights = torch.cat([self.centroids.T * (2 / unit), torch.ones_like(self.squares)[None]])
        weights = torch.cat([weights, (potential - self.squares / unit)[None]]).float()
        growth = self._growth(potential, unit)
        totals = torch.zeros_like(self.squares)
        dims = self.residual.shape[1]
        for place, rows, plan in self._blocks(2):
            shift = rows[:, dims]
            if growth is not None:
                torch.sub(self.shifts[place], growth, out=shift)
            torch.mm(rows, weights, out=plan)
            if growth is None:
                shift = plan.amax(1).neg_()
                plan += shift[:, None]
            sums = torch.mv(plan.clamp_(min=FLOOR).exp_(), self.ones)
            torch.sub(shift, sums.log(), out=self.shifts[place])
            totals += torch.mv(plan.T, sums.reciprocal_())
        self.before = potential, unit
        return totals

    def _growth(self, potential: torch.Tensor, unit: float) -> float | None:
        """By how much the log-sums can have grown since the last pass; None where that says too little."""
        if self.before is None or self.before[1] != unit or not len(self.residual):
            return None
        least, most = (float(bound) for bound in (potential - self.before[0]).aminmax())
        return most if most - least <= SPREAD else None

    def _blocks(self, spare: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Place of each block, its moved rows float32 [R, D + spare] and room for scores [R, K], all reused."""
        n_items, dims = self.residual.shape
        rows = self.scores.new_zeros(len(self.scores), dims + spare)
        rows[:, -1:] = 1  # the factor of the offsets, where they are part of the product
        mean = self.mean.to(torch.promote_types(self.residual.dtype, torch.float32))
        for start in range(0, n_items, self.rows):
            place = slice(start, min(start + self.rows, n_items))
            count = place.stop - start
            torch.sub(self.residual[place].detach(), mean, out=rows[:count, :dims])
            yield place, rows[:count], self.scores[:count]


def balanced_codes_torch(
    residual: torch.Tensor,
    centroids: torch.Tensor,
    epsilon: float,
    rounds: int,
    relaxation: float,
    smallest_column: float,
) -> torch.Tensor:
    """Do `sinkhorn.balanced_codes`: int64 [B], B >= 1. Batches of up to 8,192 rows keep their scores."""
    plan = ChunkedPlan(residual, centroids)
    scores = _all_scores(plan) if len(residual) <= DENSE_ROWS else None
    if scores is None:
        low, high = plan.distance_range()
    else:
        norms = (residual.detach() - plan.mean.to(residual.dtype)).square().sum(1)
        low, high = float((norms - 2 * scores.amax(1)).amin()), float((norms - 2 * scores.amin(1)).amax())
    unit = epsilon * max(high - low, SMALLEST_BATCH_RANGE) / 2
    kept = None if scores is None else _KeptPlan(scores.mul_(2 / unit))
    log_fair = math.log(len(residual) / len(centroids))
    potential = torch.zeros_like(plan.squares)
    for _ in range(rounds):
        columns = plan.columns(potential, unit) if kept is None else kept.columns(potential)
        potential += relaxation * (log_fair - columns.clamp_min_(smallest_column).log_())
    if scores is not None:
        return _first_largest(scores.add_(potential.float()))
    codes = torch.empty(len(residual), dtype=torch.int64, device=residual.device)
    offsets, products = (potential * (unit / 2) - plan.squares / 2).float(), plan.centroids.T.float()
    for place, rows, room in plan._blocks(0):
        codes[place] = _first_largest(torch.addmm(offsets, rows, products, out=room))
    return codes


class _KeptPlan:
    """Passes over logits float32 [B, K] that are kept: E = exp(logits + h) is made once and used while g stays near h.

    columns = v * E^T (1 / (E v)) with v = exp(g - h): two matrix-vector products a round (absorption, Schmitzer,
    Stabilized sparse scaling algorithms, 2019).
    """

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.plan = torch.empty_like(logits)
        self.absorbed: torch.Tensor | None = None

    def columns(self, potential: torch.Tensor) -> torch.Tensor:
        """Return the sums of the plan's columns under a potential [K], float64 [K]."""
        growth = potential if self.absorbed is None else potential - self.absorbed
        least, most = growth.aminmax()
        if self.absorbed is None or not float(most - least) <= SPREAD:
            torch.add(self.logits, potential.float(), out=self.plan)
            self.plan -= self.plan.amax(1, keepdim=True)
            self.plan.clamp_(min=FLOOR).exp_()
            self.absorbed, growth = potential.clone(), torch.zeros_like(potential)
            most = torch.zeros_like(most)
        weights = (growth - most).exp_().float()
        return (weights * torch.mv(self.plan.T, torch.mv(self.plan, weights).reciprocal_())).double()


def _all_scores(plan: ChunkedPlan) -> torch.Tensor:
    rows = (plan.residual.detach() - plan.mean.to(plan.residual.dtype)).float()
    return torch.addmm((plan.squares / -2).float(), rows, plan.centroids.T.float())


def _first_largest(scores: torch.Tensor) -> torch.Tensor:
    """Return where each row's largest value is, the first of equal ones: int64 [R]."""
    if scores.device.type == "cpu":  # the array's argmax is vectorized, the tensor's is not: 5 to 25 times faster
        return torch.from_numpy(scores.numpy().argmax(axis=1))
    places = torch.arange(scores.shape[1], device=scores.device)
    largest = torch.where(scores == scores.amax(1, keepdim=True), places, scores.shape[1] - 1)
    return largest.amin(1)  # a tensor's argmax leaves open which of equal values it takes
