"""The kernels of `kmeans_update.py`; see there for what they compute.

Sums by atomics would depend on who comes first. Two other ways, both of which always add in the same order:

- K <= 256 and D <= 64: with the codes of a tile at hand, onehot(codes)^T [X | x'] is a matrix product, gathered in
  the registers of one program over its tiles (padded codes x padded dims) and stored once: partial sums
  [programs, P, W], added up in float64. x is read from memory once.
- otherwise: the points' order by code, then each code's points in SPLITS equal runs, each summed in float64 by one
  program. x is read twice, no copy of it is made.

Launches do not depend on the device, so partial sums do not either.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from semid.kernels.sizes import power_of_two_at_least
from semid.kernels.split_scores import SplitCentroids, largest_value, split_centroids, split_rows, split_scores

__all__ = ["assign", "assign_kernel", "segment_kernel", "update_with_triton"]

# Points, codes and dims of a tile; 8 warps, one stage. Larger ones spill on sm_80 or sm_90.
ONE_HOT_BLOCKS = (64, 64, 32)
ASSIGN_BLOCKS = (128, 64, 64)
ONE_HOT_CODES, ONE_HOT_DIMS = 256, 64
PROGRAMS = 1024
TILES = 256  # of a program in one launch: float32 sums take in 16,384 points at most
SPLITS = 16
SEGMENT_BLOCK_N, SEGMENT_BLOCK_D = 32, 64

Result = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@triton.jit
def assign_kernel(
    points,
    row_stride,
    column_stride,
    n_items,
    n_dims,
    n_tiles,
    halves,
    offsets,
    scales,
    n_padded,
    codes,
    centroids,
    sums,
    counts,
    errors,
    ONE_HOT: tl.constexpr,
    W: tl.constexpr,
    P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Codes of a program's tiles of BLOCK_N points; with ONE_HOT also its sums [P, W], counts [P] and error."""
    program = tl.program_id(0)
    scale = tl.load(scales)
    back = tl.load(scales + 1)
    if ONE_HOT:
        sum_tile = tl.zeros([P, W], tl.float32)
        count_tile = tl.zeros([P], tl.int32)
        error = tl.zeros([1], tl.float64)
    for tile in range(program, n_tiles, tl.num_programs(0)):
        items = tl.cast(tile, tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = items < n_items
        best = tl.full([BLOCK_N], float("-inf"), tl.float32)
        code = tl.zeros([BLOCK_N], tl.int32)
        for first in range(0, n_padded, BLOCK_K):
            scores = split_scores(
                points, items, inside, row_stride, column_stride, n_dims, halves, first, n_padded, scale,
                BLOCK_N, BLOCK_K, BLOCK_D, W, True,
            )  # fmt: skip
            scores = scores * back + tl.load(offsets + first + tl.arange(0, BLOCK_K))[None, :]
            top, place = tl.max(scores, 1, return_indices=True, return_indices_tie_break_left=True)
            code = tl.where(top > best, first + place, code)
            best = tl.maximum(best, top)
        tl.store(codes + items, code, mask=inside)
        if ONE_HOT:
            dims = tl.arange(0, W)
            rows = split_rows(points, items, inside, row_stride, column_stride, dims, n_dims)
            real = inside[:, None] & (dims < n_dims)[None, :]
            chosen = tl.load(centroids + code[:, None] * n_dims + dims[None, :], mask=real, other=0.0)
            difference = rows - chosen
            error += tl.sum(tl.sum(difference * difference, 1), 0).to(tl.float64)
            onehot = ((code[None, :] == tl.arange(0, P)[:, None]) & inside[None, :]).to(tl.float16)
            rows *= scale
            high = rows.to(tl.float16)
            sum_tile = tl.dot(onehot, high, sum_tile)
            sum_tile = tl.dot(onehot, (rows - high.to(tl.float32)).to(tl.float16), sum_tile)
            count_tile += tl.histogram(code, P, mask=inside)
    if ONE_HOT:
        all_codes = tl.arange(0, P)
        place = program.to(tl.int64) * P + all_codes
        tl.store(sums + place[:, None] * W + tl.arange(0, W)[None, :], sum_tile)
        tl.store(counts + place, count_tile)
        tl.store(errors + program + tl.arange(0, 1), error)


@triton.jit
def segment_kernel(
    points,
    row_stride,
    column_stride,
    n_dims,
    order,
    starts,
    centroids,
    sums,
    errors,
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store sums [K, SPLITS, D] and errors [K, SPLITS, blocks of D] of one run of one code's points, BLOCK_D dims."""
    code = tl.program_id(0)
    split = tl.program_id(1)
    block = tl.program_id(2)
    start = tl.load(starts + code)
    count = tl.load(starts + code + 1) - start
    first = start + count * split // SPLITS
    last = start + count * (split + 1) // SPLITS
    dims = block * BLOCK_D + tl.arange(0, BLOCK_D)
    real = dims < n_dims
    centroid = tl.load(centroids + code.to(tl.int64) * n_dims + dims, mask=real, other=0.0)
    total = tl.zeros([BLOCK_N, BLOCK_D], tl.float64)
    error = tl.zeros([BLOCK_N, BLOCK_D], tl.float64)
    for at in range(first, last, BLOCK_N):
        places = at + tl.arange(0, BLOCK_N)
        inside = places < last
        items = tl.load(order + places, mask=inside, other=0)
        rows = split_rows(points, items, inside, row_stride, column_stride, dims, n_dims)
        difference = tl.where(inside[:, None], rows - centroid[None, :], 0.0)
        total += rows.to(tl.float64)
        error += (difference * difference).to(tl.float64)
    run = code.to(tl.int64) * SPLITS + split
    tl.store(sums + run * n_dims + dims, tl.sum(total, 0), mask=real)
    tl.store(errors + run * tl.num_programs(2) + block, tl.sum(tl.sum(error, 1), 0))


def update_with_triton(
    points: torch.Tensor,
    centroids: torch.Tensor,
    prices: torch.Tensor | None,
    limit: torch.Tensor | float | None,
) -> Result:
    """Codes, sums, counts and objective, as in `Update`; arguments checked by the caller."""
    points, centroids = points.detach(), centroids.detach().float().contiguous()
    if limit is None:
        limit = largest_value(points)
    limit = torch.as_tensor(limit, dtype=torch.float32, device=points.device)
    halves = centroids.double().square().sum(1) / 2
    offsets = -halves if prices is None else -halves - prices
    n_codes, dims = centroids.shape
    one_hot = n_codes <= ONE_HOT_CODES and dims <= ONE_HOT_DIMS
    padded = max(16, power_of_two_at_least(n_codes))
    multiple = padded if one_hot else min(ASSIGN_BLOCKS[1], padded)
    split = split_centroids(centroids, limit, offsets, multiple=multiple)
    return (_one_hot_update if one_hot else _segment_update)(points, centroids, split)


def assign(points: torch.Tensor, split: SplitCentroids) -> torch.Tensor:
    """Return the best code of each point, int32 [N]."""
    codes = torch.empty(len(points), dtype=torch.int32, device=points.device)
    if len(points):
        _launch(points, split, codes, -(-len(points) // ASSIGN_BLOCKS[0]), None)
    return codes


def _one_hot_update(points: torch.Tensor, centroids: torch.Tensor, split: SplitCentroids) -> Result:
    n_codes, dims = centroids.shape
    device = points.device
    codes = torch.empty(len(points), dtype=torch.int32, device=device)
    sums = torch.zeros(split.padded_codes, split.width, dtype=torch.float64, device=device)
    counts = torch.zeros(split.padded_codes, dtype=torch.int64, device=device)
    objective = torch.zeros((), dtype=torch.float64, device=device)
    at_once = PROGRAMS * TILES * ONE_HOT_BLOCKS[0]
    for start in range(0, len(points), at_once):
        rows = points[start : start + at_once]
        programs = min(PROGRAMS, -(-len(rows) // ONE_HOT_BLOCKS[0]))
        partial = (
            torch.empty(programs, *sums.shape, device=device),
            torch.empty(programs, *counts.shape, dtype=torch.int32, device=device),
            torch.empty(programs, dtype=torch.float64, device=device),
        )
        _launch(rows, split, codes[start:], programs, (centroids, *partial))
        sums += partial[0].sum(0, dtype=torch.float64)
        counts += partial[1].sum(0)
        objective += partial[2].sum()
    sums /= split.scales[0]
    return codes, sums[:n_codes, :dims].contiguous(), counts[:n_codes].contiguous(), objective


def _segment_update(points: torch.Tensor, centroids: torch.Tensor, split: SplitCentroids) -> Result:
    n_codes, dims = centroids.shape
    codes = assign(points, split)
    ordered, order = torch.sort(codes, stable=True)
    edges = torch.arange(n_codes + 1, dtype=torch.int32, device=codes.device)
    starts = torch.searchsorted(ordered, edges)
    blocks = -(-dims // SEGMENT_BLOCK_D)
    sums = torch.empty(n_codes, SPLITS, dims, dtype=torch.float64, device=codes.device)
    errors = torch.empty(n_codes, SPLITS, blocks, dtype=torch.float64, device=codes.device)
    segment_kernel[(n_codes, SPLITS, blocks)](
        points, *points.stride(), dims, order, starts, centroids, sums, errors,
        SPLITS, SEGMENT_BLOCK_N, min(SEGMENT_BLOCK_D, split.width), num_warps=4,
    )  # fmt: skip
    return codes, sums.sum(1), starts.diff(), errors.sum()


def _launch(
    points: torch.Tensor,
    split: SplitCentroids,
    codes: torch.Tensor,
    programs: int,
    partial: tuple[torch.Tensor, ...] | None,
) -> None:
    one_hot = partial is not None
    block_n, block_k, block_d = ONE_HOT_BLOCKS if one_hot else ASSIGN_BLOCKS
    assign_kernel[(programs,)](
        points, *points.stride(), *points.shape, -(-len(points) // block_n), split.halves, split.offsets, split.scales,
        split.padded_codes, codes, *(partial or (None,) * 4),
        ONE_HOT=one_hot, W=split.width, P=split.padded_codes if one_hot else 16, BLOCK_N=block_n,
        BLOCK_K=min(block_k, split.padded_codes), BLOCK_D=min(block_d, split.width), num_warps=8, num_stages=1,
    )  # fmt: skip
