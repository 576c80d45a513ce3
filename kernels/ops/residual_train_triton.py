"""The Triton kernels of `residual_train`; see there for the formulas.

Every sum has a fixed order, so a step repeats bit for bit: losses are summed per program, then over programs; a
centroid's gradient is summed by one program, over its items in ascending order.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["centroid_gradient_kernel", "latent_gradient_kernel", "quantize_kernel"]


@triton.jit
def quantize_kernel(
    latents,
    latents_row,
    latents_column,
    n_items,
    n_dims,
    centroids,
    starts,
    n_levels,
    last_codes,
    total,
    codes,
    squares,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    HAS_LAST: tl.constexpr,
):
    """BLOCK_N items through all levels: codes, sum of centroids, and the program's sum of |r_{l+1}|^2 per level.

    centroids float32 [sum K, n_dims], level l in rows starts[l] to starts[l + 1]; D = n_dims up to a power of two.
    """
    items = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = items < n_items
    dims = tl.arange(0, D)
    in_dims = dims < n_dims
    here = inside[:, None] & in_dims[None, :]
    residual = tl.load(latents + items[:, None] * latents_row + dims[None, :] * latents_column, mask=here, other=0.0)
    sums = tl.zeros([BLOCK_N, D], tl.float32)
    for level in range(n_levels):
        first = tl.load(starts + level)
        last = tl.load(starts + level + 1)
        best = tl.full([BLOCK_N], float("-inf"), tl.float32)
        code = tl.zeros([BLOCK_N], tl.int32) + first
        for start in range(first, last, BLOCK_K):
            rows = start + tl.arange(0, BLOCK_K)
            real = rows < last
            block = tl.load(
                centroids + rows[None, :] * n_dims + dims[:, None], mask=real[None, :] & in_dims[:, None], other=0.0
            )
            half = tl.where(real, tl.sum(block * block, 0) * 0.5, float("inf"))
            scores = tl.dot(residual, block, input_precision=PRECISION) - half[None, :]
            top = tl.max(scores, 1)
            column = tl.min(tl.where(scores == top[:, None], tl.arange(0, BLOCK_K)[None, :], BLOCK_K), 1)
            code = tl.where(top > best, start + column, code)
            best = tl.maximum(top, best)
        if HAS_LAST:  # noqa: SIM102 (the outer condition is the compiler's, the inner one the GPU's)
            if level == n_levels - 1:
                given = tl.load(last_codes + items, mask=inside, other=-1).to(tl.int32)
                code = tl.where(given >= 0, first + given, code)
        code = tl.minimum(code, last - 1)  # no address outside the codebook, whatever was given
        tl.store(codes + items * n_levels + level, code - first, mask=inside)
        chosen = tl.load(centroids + code[:, None] * n_dims + dims[None, :], mask=here, other=0.0)
        sums += chosen
        residual -= chosen
        tl.store(squares + tl.program_id(0) * n_levels + level, tl.sum(residual * residual))
    tl.store(total + items[:, None] * n_dims + dims[None, :], sums, mask=here)


@triton.jit
def latent_gradient_kernel(
    latents,
    latents_row,
    latents_column,
    n_items,
    n_dims,
    centroids,
    starts,
    n_levels,
    codes,
    grad_commitment,
    factor,
    grad_latents,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store grad_latents [N, D] = factor * sum over l of grad_commitment[l] * r_{l+1}."""
    items = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    dims = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = items < n_items
    here = inside[:, None] & (dims < n_dims)[None, :]
    residual = tl.load(latents + items[:, None] * latents_row + dims[None, :] * latents_column, mask=here, other=0.0)
    gradient = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for level in range(n_levels):
        rows = tl.load(codes + items * n_levels + level, mask=inside, other=0) + tl.load(starts + level)
        residual -= tl.load(centroids + rows[:, None] * n_dims + dims[None, :], mask=here, other=0.0)
        gradient += tl.load(grad_commitment + level) * factor * residual
    tl.store(grad_latents + items[:, None] * n_dims + dims[None, :], gradient, mask=here)


@triton.jit
def centroid_gradient_kernel(
    latents,
    latents_row,
    latents_column,
    n_dims,
    centroids,
    starts,
    n_levels,
    codes,
    order,
    ends,
    grad_total,
    grad_codebook,
    factor,
    grad_centroids,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_TOTAL: tl.constexpr,
):
    """One centroid's gradient: over its items, the sum of grad_total - factor * grad_codebook[l] * r_{l+1}.

    order int64 [N L] holds item * L + level, sorted by centroid and then by item; centroid k owns the places from
    ends[k - 1] to ends[k].
    """
    centroid = tl.program_id(0)
    level = 0
    for other in range(1, n_levels):
        level += (tl.load(starts + other) <= centroid).to(tl.int32)
    dims = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_dims = dims < n_dims
    weight = tl.load(grad_codebook + level) * factor
    first = tl.load(ends + centroid - 1, mask=centroid > 0, other=0)
    last = tl.load(ends + centroid)
    gradient = tl.zeros([BLOCK_D], tl.float32)
    for start in range(first, last, BLOCK_N):
        places = start + tl.arange(0, BLOCK_N)
        inside = places < last
        here = inside[:, None] & in_dims[None, :]
        items = tl.load(order + places, mask=inside, other=0) // n_levels
        place = items[:, None] * latents_row + dims[None, :] * latents_column
        residual = tl.load(latents + place, mask=here, other=0.0)
        for earlier in range(level + 1):
            rows = tl.load(codes + items * n_levels + earlier, mask=inside, other=0) + tl.load(starts + earlier)
            residual -= tl.load(centroids + rows[:, None] * n_dims + dims[None, :], mask=here, other=0.0)
        change = -weight * residual
        if HAS_TOTAL:
            change += tl.load(grad_total + items[:, None] * n_dims + dims[None, :], mask=here, other=0.0)
        gradient += tl.sum(change, 0)
    tl.store(grad_centroids + centroid.to(tl.int64) * n_dims + dims, gradient, mask=in_dims)
