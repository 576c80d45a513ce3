"""Codebooks as `residual_assign` reads them: one float16 matrix, one offset per code, one error bound per level.

    score of code k for residual r:   r . c_k - h_k,     h_k = |c_k|^2 / 2 - bias_k

The kernels multiply residuals and offsets by SCALE = 2^6. A residual on the 2^-20 grid then is a multiple of 2^-14,
the smallest normal float16, so neither half of its split is ever subnormal, and residuals up to 1,000 stay in range.

Error bound. With R = SCALE r as the kernel holds it, n = |R|, C the length of the longest centroid, H the largest
SCALE |h_k| and D the padded width, a computed score differs from SCALE times the exact one by at most

    E = C n (A D + 4) 2^-23   sums of products
      + C (n 2^-22 + sqrt(D) 2^-25)   what the split misses
      + 2^-22 (C n + H)   offsets and thresholds
      + C drift   residuals off the grid

- Split: hi = fp16(R) and lo = fp16(R - hi) each round to 11 bits, or to 2^-25 where they are subnormal; R - hi is
  exact in float32. So every coordinate misses at most max(2^-22 |R_i|, 2^-25).
- Sums: products of two float16 are exact in float32. Matrix units add them in groups of four or more, together with
  the sum so far: addends are shifted to the largest exponent and *truncated*, so each loses at most 2^-23 of the
  largest, and so do the old and the new sum (Fasi, Higham, Mikaitis, Pranesh, Numerical behavior of NVIDIA tensor
  cores, 2021). That is 1.5 D losses a product matrix, each at most 2^-23 C n, in whatever order and grouping;
  rounded float32 additions lose less. Adding lo first makes its losses 2^-11 smaller: A = 1.5; where the two
  alternate (D > 128), A = 3.
- Offsets: h rounded to float32, its subtraction rounded, the threshold best - 2E rounded: each at most
  2^-24 (C n + H).
- Drift: R is updated in float32. On the grid that is exact; off it, update l loses at most 2^-24 |R_l|.

All of it times 1.01 for the products of these terms and for n itself being computed in float32. If the best score
leads by more than 2E, the exact best is the same code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semid.kernels.sizes import power_of_two_at_least

__all__ = ["MAX_CODES", "MAX_DIMS", "MAX_LEVELS", "NARROW", "SCALE", "Prepared", "prepare"]

SCALE = 64.0
NARROW = 128  # the widest residual that stays in registers
WIDE_STEP = 64  # wider ones are padded to a multiple of it
MAX_DIMS, MAX_LEVELS, MAX_CODES = 1024, 16, 8192
WIDEST_BLOCK = 128


@dataclass(frozen=True, eq=False)
class Prepared:
    """L codebooks on one device, checked and packed. Made by `prepare`; P = the padded number of codes of all levels.

    Attributes
    ----------
    packed : float16 [P, padded_dims], zeros where padded.
    offsets : float32 [P], SCALE h, +inf for codes that cannot be chosen.
    exact_offsets : float64 [P], h.
    starts : int32 [L + 1], first packed row of each level.
    windows : float32 [L, 3], so that 2E = w_0 + w_1 n + w_2 drift.
    first_rows : `starts` as Python integers.
    sizes : number of codes of each level.
    dims, padded_dims : D and the width of `packed`.
    block : every level's padded size is a multiple of it.
    """

    packed: torch.Tensor
    offsets: torch.Tensor
    exact_offsets: torch.Tensor
    starts: torch.Tensor
    windows: torch.Tensor
    first_rows: tuple[int, ...]
    sizes: tuple[int, ...]
    dims: int
    padded_dims: int
    block: int

    def level(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a level's centroids float64 [K, D] and offsets h float64 [K]."""
        rows = slice(self.first_rows[number], self.first_rows[number] + self.sizes[number])
        return self.packed[rows, : self.dims].double(), self.exact_offsets[rows]


def prepare(codebooks: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None] | None = None) -> Prepared:
    """Check and pack codebooks, once for any number of calls.

    Parameters
    ----------
    codebooks : L tensors [K_l, D] of any float type on one device, all values exact in float16.
    biases : per level float64 [K_l] or None, added to the scores.

    Raises
    ------
    ValueError : sizes out of range or not matching, or a centroid that float16 does not hold.
    """
    biases = [None] * len(codebooks) if biases is None else list(biases)
    _check(codebooks, biases)
    dims, device = codebooks[0].shape[1], codebooks[0].device
    sizes = tuple(len(centroids) for centroids in codebooks)
    padded_dims = max(16, power_of_two_at_least(dims)) if dims <= NARROW else -(-dims // WIDE_STEP) * WIDE_STEP
    block = min(WIDEST_BLOCK, max(16, power_of_two_at_least(max(sizes))))
    first_rows = [0]
    for size in sizes:
        first_rows.append(first_rows[-1] + -(-size // block) * block)
    packed = torch.zeros(first_rows[-1], padded_dims, dtype=torch.float16, device=device)
    offsets = torch.full((first_rows[-1],), math.inf, device=device)
    exact_offsets = torch.full((first_rows[-1],), math.inf, dtype=torch.float64, device=device)
    windows = []
    for first, centroids, bias in zip(first_rows[:-1], codebooks, biases, strict=True):
        rows = slice(first, first + len(centroids))
        exact = centroids.detach().double()
        half = exact.square().sum(1) / 2
        offset = half if bias is None else half - bias.to(device, torch.float64)
        packed[rows, :dims] = centroids.detach().half()
        exact_offsets[rows] = offset
        offsets[rows] = torch.where(_repeated(exact, offset), math.inf, SCALE * offset).float()
        longest, largest = math.sqrt(2 * float(half.max())), SCALE * float(offset.abs().max())
        windows.append(_window(longest, largest, padded_dims))
    return Prepared(
        packed,
        offsets,
        exact_offsets,
        torch.tensor(first_rows, dtype=torch.int32, device=device),
        torch.tensor(windows, dtype=torch.float32, device=device),
        tuple(first_rows),
        sizes,
        dims,
        padded_dims,
        block,
    )


def _window(longest: float, largest: float, padded_dims: int) -> tuple[float, float, float]:
    """2E of the module's docstring, as constant, factor of n and factor of the drift."""
    losses = (1.5 if padded_dims <= NARROW else 3.0) * padded_dims + 4
    constant = longest * math.sqrt(padded_dims) * 2.0**-25 + largest * 2.0**-22
    slope = longest * (losses * 2.0**-23 + 2.0**-22 + 2.0**-22)
    return 2.02 * constant, 2.02 * slope, 2.02 * longest


def _repeated(centroids: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Mark each code equal to an earlier one: it can never be chosen, but would make every choice a tie."""
    rows = torch.cat([centroids, offset[:, None]], dim=1)
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    order = torch.arange(len(rows), device=rows.device)
    earliest = torch.full_like(order, len(rows)).scatter_reduce_(0, group, order, "amin")
    return earliest[group] < order


def _check(codebooks: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]) -> None:
    if not 1 <= len(codebooks) <= MAX_LEVELS:
        raise ValueError(f"codebooks: {len(codebooks)} levels, expected 1 to {MAX_LEVELS}")
    if len(biases) != len(codebooks):
        raise ValueError(f"biases: {len(biases)} given for {len(codebooks)} levels; give one or None for each")
    for number, (centroids, bias) in enumerate(zip(codebooks, biases, strict=True)):
        where = f"codebooks[{number}]"
        if centroids.dim() != 2 or not 1 <= len(centroids) <= MAX_CODES or not 1 <= centroids.shape[1] <= MAX_DIMS:
            raise ValueError(
                f"{where}: shape {tuple(centroids.shape)}, expected [K, D] with K in 1..{MAX_CODES} and "
                f"D in 1..{MAX_DIMS}"
            )
        if centroids.shape[1] != codebooks[0].shape[1] or centroids.device != codebooks[0].device:
            raise ValueError(
                f"{where}: D={centroids.shape[1]} on {centroids.device}, but codebooks[0] has "
                f"D={codebooks[0].shape[1]} on {codebooks[0].device}; they must agree"
            )
        if not bool((centroids.half().to(centroids.dtype) == centroids).all() & centroids.half().isfinite().all()):
            raise ValueError(f"{where}: a value is not exact in float16; round it first: centroids.half().float()")
        if bias is not None and (bias.shape != centroids.shape[:1] or not bool(bias.isfinite().all())):
            raise ValueError(f"biases[{number}]: expected {len(centroids)} finite values, got {tuple(bias.shape)}")
