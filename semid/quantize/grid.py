"""Numbers on grids, whose sums of products are exact on any machine.

A float32 matrix product depends on the order of its additions, hence on thread count, batch size, library and
device, and sometimes the nearest centroid changes with it. Here every operand is a whole number times a
power of two, with so few bits that float64 represents every product and every partial sum *exactly*. Exact
sums have no order: NumPy, torch and a GPU must return the same bits.

    what                       grid          range        bits
    input vector x             2^-20         |x| <= 8     24     after the artifact's power-of-two scale
    layer weight w             2^-e          int16        16     e chosen per layer
    hidden activation, latent  2^-20         |z| <= 8     24
    centroid c                 2^-13         |c| <= 4     16     and at most 11 significant bits: exact float16
    layer bias b               2^-20         2^(32 - e)   52     on the grid of x . w

    x . w + b over D terms     24 + 15 + log2 D      <= 53 for D <= 16384
    r . c over d terms         26 + 15 + log2 d      <= 53 for d <= 4096   (|r| <= 8 + 4 L, L <= 14)

Residuals r = z - c stay on the 2^-20 grid, so they are exact too. The bounds are derived, not tuned; a test
checks them with Python integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "CENTROID_LIMIT",
    "LATENT_LIMIT",
    "MAX_INPUT_DIM",
    "ExactLayer",
    "float32_error",
    "power_of_two_scale",
    "snap",
    "snap_centroids",
]

LATENT_BITS = 20
LATENT_LIMIT = 8.0
CENTROID_BITS = 13
CENTROID_LIMIT = 4.0
WEIGHT_LIMIT = 2**15 - 1
MAX_INPUT_DIM = 2**14


def power_of_two_scale(values: npt.NDArray[np.floating] | np.floating, limit: float) -> float:
    """Return the largest power of two s with `max|s * values| <= limit`; 1.0 for all zeros.

    >>> power_of_two_scale(np.array([0.3, -0.9]), 4.0)
    4.0
    """
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0:
        return 1.0
    return math.ldexp(1.0, math.frexp(limit / largest)[1] - 1)  # exact, where a logarithm may round up


def snap(values: npt.NDArray[np.floating], limit: float = LATENT_LIMIT) -> npt.NDArray[np.float64]:
    """Round to the 2^-20 grid, half to even, and clip to +-limit (8): float64, any shape.

    >>> snap(np.array([1e-9, 0.5, 1e9])).tolist()
    [0.0, 0.5, 8.0]
    """
    scaled = np.asarray(values, np.float64) * 2.0**LATENT_BITS
    np.rint(scaled, out=scaled)
    np.clip(scaled, -limit * 2.0**LATENT_BITS, limit * 2.0**LATENT_BITS, out=scaled)
    scaled *= 2.0**-LATENT_BITS
    return scaled


def snap_centroids(centroids: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Round centroids to values that are exact float16 and multiples of 2^-13, clipped to +-4.

    Costs under 0.001 % of distortion once the latents fill the range.
    """
    clipped = np.clip(np.asarray(centroids, np.float64), -CENTROID_LIMIT, CENTROID_LIMIT)
    half = clipped.astype(np.float16).astype(np.float64)
    return (np.rint(half * 2.0**CENTROID_BITS) * 2.0**-CENTROID_BITS).astype(np.float32)


def float32_error(n_roundings: int) -> float:
    """Return gamma_n = n u / (1 - n u) with u = 2^-24, the bound on the relative error of n roundings to float32.

    So a dot product of d terms is wrong by `float32_error(d) |x| |y|` at most, in any order of its additions (Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1).

    >>> float32_error(1) > 2.0**-24
    True
    """
    total = n_roundings * 2.0**-24
    return total / (1 - total)


@dataclass(frozen=True)
class ExactLayer:
    """An affine map x @ weight + bias whose float64 evaluation is exact, rounded once to the 2^-20 grid.

    Parameters
    ----------
    weight : int16 [in, out]
        Real weight = `weight * 2.0**-exponent`.
    bias : float64 [out], on the 2^-20 grid, within 2^(32 - exponent).
    exponent : int
    """

    weight: npt.NDArray[np.int16]
    bias: npt.NDArray[np.float64]
    exponent: int

    @classmethod
    def from_float(cls, weight: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> ExactLayer:
        """Round a trained layer to the grid: weight float [in, out], bias float [out]."""
        weight = np.asarray(weight, np.float64)
        fitting = int(np.log2(power_of_two_scale(weight, WEIGHT_LIMIT)))
        # Outside 0..28 the bias would need bits that the sum does not have; no trained layer gets there.
        exponent = min(max(fitting, 0), 28)
        whole = np.clip(np.rint(weight * 2.0**exponent), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        # Vectors far from the origin need a bias far beyond the output's range: it cancels most of x @ weight.
        return cls(whole.astype(np.int16), snap(bias, 2.0 ** (32 - exponent)), exponent)

    @property
    def float_weight(self) -> npt.NDArray[np.float64]:
        """The weight as used, float64 [in, out]."""
        return self.weight.astype(np.float64) * 2.0**-self.exponent

    def __call__(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Map rows on the grid [N, in] to rows on the grid, float64 [N, out]."""
        return snap(x @ self.float_weight + self.bias)
