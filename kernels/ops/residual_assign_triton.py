"""The Triton kernels of `residual_assign`; see there for what they compute and `packed_codebooks` for the error bound.

Finding the nearest code costs more than its matrix product when D is small, so a block of scores is reduced without
carrying indices: its maximum; the sum of 2^16 + column over the scores equal to it, which holds the column and how
often the maximum occurs; and the maximum of the others. A repeated maximum makes the lead 0, and the row is decided in
float64, so the answer does not depend on how codes were cut into blocks.

Offsets of items are int64; those of codebooks stay below 2^27 (16 levels of 8192 x 1024).

Only scores flow through the loop over blocks: anything that comes from the residual's own layout would be moved
through shared memory once a block.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["assign_kernel", "assign_level_kernel", "sum_centroids_kernel"]

FACTOR = tl.constexpr(64.0)  # packed_codebooks.SCALE
REACH = tl.constexpr(65000.0)  # a longer residual may hold a coordinate that overflows float16
HALF_UNIT = tl.constexpr(2.0**-24)  # of float32
COUNT = tl.constexpr(1 << 16)


@triton.jit
def _merge(scores, first_code, best, second, code, BLOCK_K: tl.constexpr):
    """Take a block of scores [N, BLOCK_K] into the best score, the second best and the best one's code, each [N]."""
    top = tl.max(scores, 1)
    is_top = scores == top[:, None]
    tally = tl.sum(tl.where(is_top, tl.arange(0, BLOCK_K)[None, :] + COUNT, 0), 1)
    single = tally < 2 * COUNT
    next_top = tl.where(single, tl.max(tl.where(is_top, float("-inf"), scores), 1), top)
    code = tl.where(top > best, first_code + tl.where(single, tally & (COUNT - 1), 0), code)
    second = tl.maximum(next_top, tl.maximum(second, tl.minimum(top, best)))
    return tl.maximum(top, best), second, code


@triton.jit
def _is_unsure(best, second, length, drift, windows, level):
    """Mark rows whose lead is within the error bound, where float16 could overflow, and NaN."""
    window = tl.load(windows + 3 * level) + tl.load(windows + 3 * level + 1) * length
    window += tl.load(windows + 3 * level + 2) * drift
    return (best - second <= window) | (best - second != best - second) | (length >= REACH) | (length != length)


@triton.jit
def _split(residual):
    """Return two float16 parts whose sum is the residual to 22 bits."""
    high = residual.to(tl.float16)
    return high, (residual - high.to(tl.float32)).to(tl.float16)


@triton.jit
def assign_kernel(
    x,
    x_row,
    x_column,
    n_items,
    n_dims,
    packed,
    offsets,
    starts,
    windows,
    n_levels,
    codes,
    norms,
    unsure_rows,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_NORMS: tl.constexpr,
):
    """All levels of BLOCK_N items, whose residuals stay in registers. D, the packed width, is at most 128."""
    items = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = items < n_items
    dims = tl.arange(0, D)
    columns = tl.arange(0, BLOCK_K)
    here = inside[:, None] & (dims < n_dims)[None, :]
    residual = tl.load(x + items[:, None] * x_row + dims[None, :] * x_column, mask=here, other=0.0)
    residual = residual.to(tl.float32) * FACTOR
    length = tl.sqrt(tl.sum(residual * residual, 1))
    drift = tl.zeros([BLOCK_N], tl.float32)
    unsure = tl.zeros([BLOCK_N], tl.int1)
    for level in range(n_levels):
        first = tl.multiple_of(tl.load(starts + level), 16)  # Prepared.block is one: loads become wide
        last = tl.load(starts + level + 1)
        high, low = _split(residual)
        best = tl.full([BLOCK_N], float("-inf"), tl.float32)
        second = tl.full([BLOCK_N], float("-inf"), tl.float32)
        code = tl.zeros([BLOCK_N], tl.int32) + first
        for start in range(first, last, BLOCK_K):
            centroids = tl.load(packed + start * D + columns[None, :] * D + dims[:, None])
            scores = tl.dot(low, centroids)
            scores = tl.dot(high, centroids, scores) - tl.load(offsets + start + columns)[None, :]
            best, second, code = _merge(scores, start, best, second, code, BLOCK_K)
        unsure = unsure | _is_unsure(best, second, length, drift, windows, level)
        tl.store(codes + items * n_levels + level, code - first, mask=inside)
        residual -= tl.load(packed + code[:, None] * D + dims[None, :]).to(tl.float32) * FACTOR
        square = tl.sum(residual * residual, 1)
        length = tl.sqrt(square)
        drift += length * HALF_UNIT
        if HAS_NORMS:
            tl.store(norms + items * n_levels + level, square / (FACTOR * FACTOR), mask=inside)
    tl.store(unsure_rows + items, unsure.to(tl.int8), mask=inside)


@triton.jit
def assign_level_kernel(
    source,
    source_row,
    source_column,
    source_factor,
    n_items,
    n_dims,
    packed,
    offsets,
    starts,
    windows,
    level,
    n_levels,
    drifts,
    codes,
    norms,
    unsure_rows,
    target,
    D,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_NORMS: tl.constexpr,
):
    """One level of BLOCK_N items of any width D: the residual source * source_factor -> codes, next residual in target.

    source and target are different memory, so no thread reads what another has overwritten.
    """
    items = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = items < n_items
    dims = tl.arange(0, BLOCK_D)
    columns = tl.arange(0, BLOCK_K)
    first = tl.multiple_of(tl.load(starts + level), 16)
    last = tl.load(starts + level + 1)
    best = tl.full([BLOCK_N], float("-inf"), tl.float32)
    second = tl.full([BLOCK_N], float("-inf"), tl.float32)
    code = tl.zeros([BLOCK_N], tl.int32) + first
    for start in range(first, last, BLOCK_K):
        scores = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
        for at in range(0, D, BLOCK_D):
            here = inside[:, None] & (at + dims < n_dims)[None, :]
            place = items[:, None] * source_row + (at + dims)[None, :] * source_column
            high, low = _split(tl.load(source + place, mask=here, other=0.0).to(tl.float32) * source_factor)
            centroids = tl.load(packed + start * D + columns[None, :] * D + (at + dims)[:, None])
            scores = tl.dot(low, centroids, scores)
            scores = tl.dot(high, centroids, scores)
        scores -= tl.load(offsets + start + columns)[None, :]
        best, second, code = _merge(scores, start, best, second, code, BLOCK_K)
    tl.store(codes + items * n_levels + level, code - first, mask=inside)
    square = tl.zeros([BLOCK_N], tl.float32)
    next_square = tl.zeros([BLOCK_N], tl.float32)
    for at in range(0, D, BLOCK_D):
        here = inside[:, None] & (at + dims < n_dims)[None, :]
        place = items[:, None] * source_row + (at + dims)[None, :] * source_column
        residual = tl.load(source + place, mask=here, other=0.0).to(tl.float32) * source_factor
        square += tl.sum(residual * residual, 1)
        chosen = tl.load(packed + code[:, None] * D + (at + dims)[None, :])
        residual -= chosen.to(tl.float32) * FACTOR
        next_square += tl.sum(residual * residual, 1)
        tl.store(target + items[:, None] * D + (at + dims)[None, :], residual, mask=inside[:, None])
    drift = tl.load(drifts + items, mask=inside, other=0.0)
    unsure = _is_unsure(best, second, tl.sqrt(square), drift, windows, level)
    unsure = unsure | (tl.load(unsure_rows + items, mask=inside, other=0) != 0)
    tl.store(unsure_rows + items, unsure.to(tl.int8), mask=inside)
    tl.store(drifts + items, drift + tl.sqrt(next_square) * HALF_UNIT, mask=inside)
    if HAS_NORMS:
        tl.store(norms + items * n_levels + level, next_square / (FACTOR * FACTOR), mask=inside)


@triton.jit
def sum_centroids_kernel(
    codes,
    n_items,
    n_levels,
    packed,
    packed_dims,
    starts,
    out,
    n_dims,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store the sum of each item's centroids, in order of level: out float32 [N, D]."""
    items = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    dims = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = items < n_items
    here = inside[:, None] & (dims < n_dims)[None, :]
    total = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for level in range(n_levels):
        rows = tl.load(codes + items * n_levels + level, mask=inside, other=0) + tl.load(starts + level)
        chosen = tl.load(packed + rows[:, None] * packed_dims + dims[None, :], mask=here, other=0.0)
        total += chosen.to(tl.float32)
    tl.store(out + items[:, None] * n_dims + dims[None, :], total, mask=here)
