"""Scores of points against any float32 centroids on tensor cores, to nearly float32: the block that kernels share.

    score[n, k] = x_n . c_k + o_k          x a = X + x',  c b = C + c',  a and b powers of two
    x . c       = (X . C + x' . C + X . c') / (a b)

X, C are the float16 nearest to the scaled value, x', c' the float16 nearest to what that leaves: 22 bits together.
The scales bring the largest value to 2^13..2^14, so that leftovers of values 2^-14 times as large still are exact.
Products of float16 are exact in float32, where they are summed; the leftover product x' . c' is below 2^-22 of the
whole and is left out. A score is off by less than (D + 8) 2^-22 |x| |c|: as float32's own, within a small factor.

Centroids are split once per call, points as they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from semid.kernels.sizes import power_of_two_at_least

__all__ = ["SplitCentroids", "largest_value", "split_centroids", "split_rows", "split_scores"]

LARGEST_EXPONENT = 14
LARGEST_HALF = tl.constexpr(65504.0)
WIDEST = 1024
WIDEST_STEP = 64


@dataclass(frozen=True)
class SplitCentroids:
    """K centroids padded to P codes and W dims, on one device; made without waiting for it.

    W is 16, 32, 64 or a multiple of 64, so a kernel may take min(W, 32) or min(W, 64) dims at a time.

    Attributes
    ----------
    halves : float16 [2, P, W], C and c'.
    offsets : float32 [P], -inf where padded.
    scales : float32 [2], a and 1 / (a b).
    """

    halves: torch.Tensor
    offsets: torch.Tensor
    scales: torch.Tensor

    @property
    def padded_codes(self) -> int:
        """P."""
        return self.halves.shape[1]

    @property
    def width(self) -> int:
        """W."""
        return self.halves.shape[2]


def split_centroids(
    centroids: torch.Tensor, limit: torch.Tensor, offsets: torch.Tensor, *, multiple: int = 16
) -> SplitCentroids:
    """Split and pad centroids.

    Parameters
    ----------
    centroids : float [K, D], D <= 1024.
    limit : float [] on the same device: no point has a larger absolute value.
    offsets : float [K], what is added to the products.
    multiple : P is the least multiple of it.

    A centroid that is not finite, or an offset that is no number, gets the offset -inf.

    Raises
    ------
    ValueError : D > 1024.
    """
    n_codes, dims = centroids.shape
    if dims > WIDEST:
        raise ValueError(f"D={dims}, expected at most {WIDEST}: reduce the dimension first, by PCA say")
    width = max(16, power_of_two_at_least(dims)) if dims <= WIDEST_STEP else -(-dims // WIDEST_STEP) * WIDEST_STEP
    padding = (0, width - dims, 0, -n_codes % multiple)
    usable = centroids.isfinite().all(1) & ~offsets.isnan()
    offsets = torch.where(usable, offsets, -torch.inf).float()
    centroids = torch.nan_to_num(centroids.float(), nan=0.0, posinf=0.0, neginf=0.0)
    point_scale, centroid_scale = _scale(limit), _scale(largest_value(centroids))
    scaled = torch.nn.functional.pad(centroids * centroid_scale, padding)
    high = scaled.half()
    padded_offsets = torch.nn.functional.pad(offsets, padding[2:], value=-torch.inf)
    scales = torch.stack([point_scale, 1 / (point_scale * centroid_scale)])
    return SplitCentroids(torch.stack([high, (scaled - high.float()).half()]), padded_offsets, scales)


def largest_value(values: torch.Tensor) -> torch.Tensor:
    """Return the largest absolute value, float32 [] on the device; 0 for no values, 1 where it is not finite."""
    if not values.numel():
        return torch.zeros((), device=values.device)
    low, high = torch.aminmax(values.detach())
    return torch.nan_to_num(torch.maximum(-low, high).float(), nan=1.0, posinf=1.0)


def _scale(limit: torch.Tensor) -> torch.Tensor:
    """Return the power of two that brings `limit` to 2^13..2^14, float32 []."""
    _, exponent = torch.frexp(limit.float())
    return torch.exp2((LARGEST_EXPONENT - exponent).clamp(-60, 60).float())


@triton.jit
def split_rows(points, items, inside, row_stride, column_stride, dims, n_dims):
    """Points [N, BLOCK_D] as float32, zero where there are none. items int64 [N], dims [BLOCK_D]."""
    place = points + items[:, None] * row_stride + dims[None, :] * tl.cast(column_stride, tl.int64)
    return tl.load(place, mask=inside[:, None] & (dims < n_dims)[None, :], other=0.0).to(tl.float32)


@triton.jit
def split_scores(
    points,
    items,
    inside,
    row_stride,
    column_stride,
    n_dims,
    halves,
    first_code,
    n_padded,
    scale,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    W: tl.constexpr,
    CLAMP: tl.constexpr,
):
    """X . C + x' . C + X . c' of BLOCK_N points and BLOCK_K codes from `first_code` on; n_padded = P, `scale` = a.

    With CLAMP a value that is not finite counts as a large one, so that every score is a number.
    """
    codes = first_code + tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for start in range(0, W, BLOCK_D):
        dims = start + tl.arange(0, BLOCK_D)
        rows = split_rows(points, items, inside, row_stride, column_stride, dims, n_dims) * scale
        if CLAMP:
            rows = tl.maximum(tl.minimum(rows, LARGEST_HALF), -LARGEST_HALF)
        high = rows.to(tl.float16)
        low = (rows - high.to(tl.float32)).to(tl.float16)
        place = halves + codes[None, :] * W + dims[:, None]
        coarse = tl.load(place)
        total = tl.dot(low, coarse, total)
        total = tl.dot(high, tl.load(place + n_padded * W), total)
        total = tl.dot(high, coarse, total)
    return total
