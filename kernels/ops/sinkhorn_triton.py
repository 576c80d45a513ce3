"""The kernels of `sinkhorn.py`; see there for what they compute. Exponents are in base 2, where a GPU has them.

    s_nk   = r_n . c'_k 2 log2(e) / unit  +  (g_k - |c_k|^2 / unit) log2(e),      c' = c less the centroids' mean
    column_k = sum_n 2^s_nk / sum_j 2^s_nj

Each program gathers 2^s / sum for its tiles in a register tile [BLOCK_N, codes] and sums its rows once, at the end:
partial sums [programs, P], added up in float64 in a fixed order. With K <= 256 a tile sees all codes, so that a pass
is one launch and one reading of the residual. Beyond, a first launch finds each row's log2 of the sum (float32 [N]),
and a second one sums blocks of 128 columns.

Launches do not depend on the device. Nothing waits for it, except where a caller reads a result.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import triton
import triton.language as tl

from semid.kernels.kmeans_update_triton import assign
from semid.kernels.sizes import power_of_two_at_least
from semid.kernels.split_scores import SplitCentroids, largest_value, split_centroids, split_rows, split_scores

__all__ = [
    "TritonPlan",
    "balanced_codes_triton",
    "distance_range_kernel",
    "plan_columns_kernel",
    "row_log_sum_kernel",
    "tile",
    "update_potential_kernel",
]

ALL_CODES = 256  # the most that a tile sees at once
PROGRAMS = 1024
SMALLEST_BATCH_RANGE = 1e-5
LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _exponents(
    points, items, inside, row_stride, column_stride, n_dims, halves, offsets, scales, potential, unit,
    first, n_padded, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Return s [BLOCK_N, BLOCK_K] of the codes from `first` on; -inf for padding."""
    codes = first + tl.arange(0, BLOCK_K)
    factor = 2 * LOG2_E / tl.load(unit)
    scores = split_scores(
        points, items, inside, row_stride, column_stride, n_dims, halves, first, n_padded, tl.load(scales),
        BLOCK_N, BLOCK_K, BLOCK_D, W, False,
    )  # fmt: skip
    shift = tl.load(offsets + codes) * factor + tl.load(potential + codes) * LOG2_E
    return scores * (tl.load(scales + 1) * factor) + shift[None, :]


@triton.jit
def plan_columns_kernel(
    points,
    row_stride,
    column_stride,
    n_items,
    n_dims,
    n_tiles,
    halves,
    offsets,
    scales,
    potential,
    unit,
    n_padded,
    row_log_sums,
    partial,
    ROWS_GIVEN: tl.constexpr,
    W: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store partial [programs, P]: sums over a program's tiles of BLOCK_K columns of the plan."""
    program = tl.program_id(0)
    first = tl.program_id(1) * BLOCK_K
    gathered = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for tile in range(program, n_tiles, tl.num_programs(0)):
        items = tl.cast(tile, tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = items < n_items
        exponents = _exponents(
            points, items, inside, row_stride, column_stride, n_dims, halves, offsets, scales, potential, unit,
            first, n_padded, BLOCK_N, BLOCK_K, BLOCK_D, W,
        )  # fmt: skip
        if ROWS_GIVEN:
            log_sums = tl.load(row_log_sums + items, mask=inside, other=float("inf"))
            gathered += tl.exp2(exponents - log_sums[:, None])
        else:
            plan = tl.exp2(exponents - tl.max(exponents, 1)[:, None])
            gathered += plan * tl.where(inside, 1 / tl.sum(plan, 1), 0.0)[:, None]
    place = program.to(tl.int64) * n_padded + first + tl.arange(0, BLOCK_K)
    tl.store(partial + place, tl.sum(gathered, 0))


@triton.jit
def row_log_sum_kernel(
    points,
    row_stride,
    column_stride,
    n_items,
    n_dims,
    halves,
    offsets,
    scales,
    potential,
    unit,
    n_padded,
    row_log_sums,
    W: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store row_log_sums [N]: log2 of the sum of 2^s over all codes."""
    items = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = items < n_items
    largest = tl.full([BLOCK_N], -3.4e38, tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    for first in range(0, n_padded, BLOCK_K):
        exponents = _exponents(
            points, items, inside, row_stride, column_stride, n_dims, halves, offsets, scales, potential, unit,
            first, n_padded, BLOCK_N, BLOCK_K, BLOCK_D, W,
        )  # fmt: skip
        larger = tl.maximum(largest, tl.max(exponents, 1))
        total = total * tl.exp2(largest - larger) + tl.sum(tl.exp2(exponents - larger[:, None]), 1)
        largest = larger
    tl.store(row_log_sums + items, largest + tl.log2(total), mask=inside)


@triton.jit
def distance_range_kernel(
    points,
    row_stride,
    column_stride,
    n_items,
    n_dims,
    n_tiles,
    halves,
    offsets,
    scales,
    n_codes,
    n_padded,
    ranges,
    W: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store ranges [programs, 2]: smallest and largest |r|^2 - 2 (r . c - |c|^2 / 2) of a program's tiles."""
    program = tl.program_id(0)
    low = tl.full([BLOCK_N], float("inf"), tl.float32)
    high = tl.full([BLOCK_N], float("-inf"), tl.float32)
    for tile in range(program, n_tiles, tl.num_programs(0)):
        items = tl.cast(tile, tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = items < n_items
        norms = tl.zeros([BLOCK_N], tl.float32)
        for start in range(0, W, BLOCK_D):
            dims = start + tl.arange(0, BLOCK_D)
            rows = split_rows(points, items, inside, row_stride, column_stride, dims, n_dims)
            norms += tl.sum(rows * rows, 1)
        for first in range(0, n_padded, BLOCK_K):
            codes = first + tl.arange(0, BLOCK_K)
            scores = split_scores(
                points, items, inside, row_stride, column_stride, n_dims, halves, first, n_padded, tl.load(scales),
                BLOCK_N, BLOCK_K, BLOCK_D, W, False,
            )  # fmt: skip
            scores = scores * tl.load(scales + 1) + tl.load(offsets + codes)[None, :]
            distances = norms[:, None] - 2 * scores
            real = inside[:, None] & (codes < n_codes)[None, :]
            low = tl.minimum(low, tl.min(tl.where(real, distances, float("inf")), 1))
            distances = tl.where(distances == distances, distances, float("inf"))  # reductions pass NaN over
            high = tl.maximum(high, tl.max(tl.where(real, distances, float("-inf")), 1))
    tl.store(ranges + 2 * program, tl.min(low, 0))
    tl.store(ranges + 2 * program + 1, tl.max(high, 0))


@triton.jit
def update_potential_kernel(
    partial,
    n_programs,
    potential,
    n_codes,
    n_padded,
    log_fair,
    relaxation,
    smallest_column,
    BLOCK_K: tl.constexpr,
):
    """Add relaxation (log_fair - log column) to potential [P]; columns are the sums of partial [programs, P]."""
    codes = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    real = codes < n_codes
    columns = tl.zeros([BLOCK_K], tl.float64)
    for program in range(n_programs):
        place = tl.cast(program, tl.int64) * n_padded + codes
        columns += tl.load(partial + place, mask=real, other=0.0).to(tl.float64)
    logs = tl.log(tl.maximum(columns.to(tl.float32), smallest_column))
    before = tl.load(potential + codes, mask=real, other=0.0)
    tl.store(potential + codes, before + relaxation * (log_fair - logs), mask=real)


def tile(n_codes: int, dims: int) -> tuple[int, int, int]:
    """Items, codes and dims of a tile, for 8 warps and one stage; larger ones spill on sm_80 or sm_90."""
    if n_codes > ALL_CODES:
        return 64, 128, 32
    return 64 if dims <= 32 else 32, max(16, power_of_two_at_least(n_codes)), 32


class TritonPlan:
    """Passes over one set of items; the interface of `sinkhorn_chunks.ChunkedPlan`.

    residual float [N, D] of any strides, read as float32; centroids float [K, D], D <= 1024.
    """

    def __init__(self, residual: torch.Tensor, centroids: torch.Tensor) -> None:
        self.residual = residual.detach()
        self.centroids = centroids.detach().double()
        self.n_codes = len(centroids)
        self.block_n, self.block_k, self.block_d = tile(*centroids.shape)
        self.limit = largest_value(self.residual)
        self.offsets = self.centroids.square().sum(1) / -2
        # Products with the mean are the same for a whole row: without them less is lost to rounding.
        self.split = self._split(self.centroids - self.centroids.mean(0))
        self.n_tiles = -(-len(residual) // self.block_n)
        self.programs = min(PROGRAMS, self.n_tiles)

    def distance_range(self) -> tuple[float, float]:
        """Return the smallest and largest squared distance of an item to a centroid; if one is NaN, inf is largest."""
        low, high = self.device_range().tolist()
        return low, high

    def device_range(self) -> torch.Tensor:
        """Return the distance range as float32 [2] on the device."""
        split = self._split(self.centroids)
        ranges = torch.empty(self.programs, 2, device=self.residual.device)
        distance_range_kernel[(self.programs,)](
            *self._items(), self.n_tiles, split.halves, split.offsets, split.scales, self.n_codes,
            split.padded_codes, ranges, num_warps=8, num_stages=1, **self._blocks(),
        )  # fmt: skip
        return torch.stack([ranges[:, 0].amin(), ranges[:, 1].amax()])

    def columns(self, potential: torch.Tensor, unit: float | torch.Tensor) -> torch.Tensor:
        """Return column sums of softmax_k(potential_k - d_nk / unit), float64 [K] on the device."""
        if not len(self.residual):
            return torch.zeros(self.n_codes, dtype=torch.float64, device=self.residual.device)
        padded = self.padded(potential)
        unit = torch.as_tensor(unit, dtype=torch.float32, device=self.residual.device)
        return self.partial_columns(padded, unit)[:, : self.n_codes].sum(0, dtype=torch.float64)

    def padded(self, potential: torch.Tensor) -> torch.Tensor:
        """Return a potential [K] as float32 [P] on the device."""
        potential = potential.detach().to(self.residual.device, torch.float32)
        return torch.nn.functional.pad(potential, (0, self.split.padded_codes - self.n_codes))

    def partial_columns(self, potential: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        """Return partial sums float32 [programs, P]; potential float32 [P], unit float32 of one element."""
        split = self.split
        partial = torch.empty(self.programs, split.padded_codes, device=self.residual.device)
        operands = (split.halves, split.offsets, split.scales, potential, unit, split.padded_codes)
        blocks = split.padded_codes // self.block_k
        row_log_sums = None
        if blocks > 1:
            row_log_sums = torch.empty(len(self.residual), device=self.residual.device)
            row_log_sum_kernel[(self.n_tiles,)](
                *self._items(), *operands, row_log_sums, num_warps=8, num_stages=1, **self._blocks()
            )
        plan_columns_kernel[(self.programs, blocks)](
            *self._items(), self.n_tiles, *operands, row_log_sums, partial,
            ROWS_GIVEN=blocks > 1, num_warps=8, num_stages=1, **self._blocks(),
        )  # fmt: skip
        return partial

    def _split(self, centroids: torch.Tensor) -> SplitCentroids:
        return split_centroids(centroids, self.limit, self.offsets, multiple=self.block_k)

    def _items(self) -> tuple[torch.Tensor, int, int, int, int]:
        return self.residual, *self.residual.stride(), *self.residual.shape

    def _blocks(self) -> dict[str, int]:
        return {
            "W": self.split.width,
            "BLOCK_N": self.block_n,
            "BLOCK_K": self.block_k,
            "BLOCK_D": min(self.block_d, self.split.width),
        }


def balanced_codes_triton(
    residual: torch.Tensor,
    centroids: torch.Tensor,
    epsilon: float,
    rounds: int,
    relaxation: float,
    smallest_column: float,
) -> torch.Tensor:
    """Do `sinkhorn.balanced_codes`: int64 [B], B >= 1. Two launches a round, three with K > 256; none waits."""
    plan = TritonPlan(residual, centroids)
    low, high = plan.device_range()
    unit = (high - low).clamp_min(SMALLEST_BATCH_RANGE) * (epsilon / 2)
    potential = torch.zeros(plan.split.padded_codes, device=residual.device)
    log_fair = math.log(len(residual) / len(centroids))
    for _ in range(rounds):
        partial = plan.partial_columns(potential, unit)
        update_potential_kernel[(-(-plan.n_codes // plan.block_k),)](
            partial, plan.programs, potential, plan.n_codes, plan.split.padded_codes, log_fair, relaxation,
            smallest_column, BLOCK_K=plan.block_k, num_warps=4,
        )  # fmt: skip
    offsets = plan.split.offsets + potential * (unit / 2)  # scores are minus half the squared distance
    balanced = replace(plan.split, offsets=torch.nan_to_num(offsets, nan=-math.inf, neginf=-math.inf))
    return assign(plan.residual, balanced).long()
