"""The definitions of the operations of this room in plain NumPy (torch for training), straight from the formulas.

Slow on purpose: the tests compare the fast versions with it. Read it first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = [
    "balanced_codes",
    "beam_codes",
    "lcrec_sinkhorn",
    "lloyd",
    "nearest_code",
    "quantization_losses",
    "residual_codes",
    "sinkhorn",
]


def nearest_code(residual: npt.NDArray[np.float64], centroids: npt.NDArray[np.floating]) -> int:
    """Return argmin_k |r - c_k|^2, the lowest k on ties.

    >>> nearest_code(np.array([0.0, 0.0]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    0
    """
    distances = [float(((residual - centroid) ** 2).sum()) for centroid in np.asarray(centroids, np.float64)]
    return distances.index(min(distances))


def residual_codes(
    latents: npt.NDArray[np.floating], levels: Sequence[npt.NDArray[np.floating]]
) -> npt.NDArray[np.int32]:
    """Quantize greedily: subtract the nearest centroid, continue with the residual. int32 [N, L]."""
    codes = np.zeros((len(latents), len(levels)), np.int32)
    for row, latent in enumerate(np.asarray(latents, np.float64)):
        residual = latent
        for level, centroids in enumerate(levels):
            codes[row, level] = nearest_code(residual, centroids)
            residual = residual - centroids[codes[row, level]]
    return codes


def beam_codes(
    latents: npt.NDArray[np.floating], levels: Sequence[npt.NDArray[np.floating]], width: int
) -> npt.NDArray[np.int32]:
    """Keep the `width` nearest prefixes of each latent level by level; return the nearest whole ID. int32 [N, L].

    On ties the lexicographically smallest.
    """
    codes = np.zeros((len(latents), len(levels)), np.int32)
    for row, latent in enumerate(np.asarray(latents, np.float64)):
        prefixes: list[tuple[tuple[int, ...], npt.NDArray[np.float64]]] = [((), latent)]
        for level, centroids in enumerate(levels):
            longer = [((*prefix, code), left - centroid) for prefix, left in prefixes
                      for code, centroid in enumerate(np.asarray(centroids, np.float64))]  # fmt: skip
            longer.sort(key=lambda each: (float((each[1] ** 2).sum()), each[0]))
            prefixes = longer[: 1 if level == len(levels) - 1 else width]
        codes[row] = prefixes[0][0]
    return codes


def balanced_codes(distances: torch.Tensor, *, epsilon: float = 0.003, rounds: int = 20) -> torch.Tensor:
    """Return the balanced code of each row, int64 [B]: row argmax of the transport plan of squared distances [B, K].

    Over-relaxed rounds on one potential per code, as `semid.kernels.sinkhorn` makes them without the matrix.

    >>> import torch
    >>> balanced_codes(torch.tensor([[0.0, 1.0], [0.0, 2.0]])).tolist()
    [1, 0]
    """
    import torch

    batch, codes = distances.shape
    low, high = distances.amin(), distances.amax()
    scaled = (distances - (high + low) / 2) * (-2 / ((high - low).clamp_min(1e-5) * epsilon))
    log_fair = float(np.log(batch / codes))
    potential = torch.zeros(codes, dtype=scaled.dtype, device=scaled.device)
    for _ in range(rounds):
        plan = torch.softmax(scaled + potential, dim=1)
        potential += 1.6 * (log_fair - plan.sum(0).clamp_min(1e-30).log())
    return (scaled + potential).argmax(dim=1)


def lloyd(
    points: npt.NDArray[np.floating], centroids: npt.NDArray[np.floating], rounds: int
) -> npt.NDArray[np.float64]:
    """Run k-means by Lloyd's algorithm: assign, then move each centroid to the mean of its points. float64 [K, d]."""
    moved = np.array(centroids, np.float64)
    for _ in range(rounds):
        codes = np.array([nearest_code(point, moved) for point in points])
        for code in range(len(moved)):
            if (codes == code).any():
                moved[code] = points[codes == code].mean(axis=0)
    return moved


def sinkhorn(distances: npt.NDArray[np.floating], epsilon: float, rounds: int) -> npt.NDArray[np.float64]:
    """Return the plan of entropic transport with equal marginals [B, K], in the log domain, ending on the columns.

    Q = exp((f_i + g_k - d_ik) / epsilon) with row sums 1 / B and column sums 1 / K in the limit.
    """
    batch, codes = distances.shape
    scaled = -np.asarray(distances, np.float64) / epsilon
    rows, columns = np.zeros(batch), np.zeros(codes)
    for _ in range(rounds):
        rows = -np.logaddexp.reduce(scaled + columns, axis=1) - np.log(batch)
        columns = -np.logaddexp.reduce(scaled + rows[:, None], axis=0) - np.log(codes)
    return np.exp(scaled + rows[:, None] + columns)


def lcrec_sinkhorn(distances: Sequence[Sequence[float]], epsilon: float, rounds: int) -> npt.NDArray[np.float64]:
    """Return LC-Rec's own plan [B, K], a number at a time: centered distances, then rows and columns scaled in turn.

    d' = (d - mid) / (half-range + 1e-5) over the whole matrix; ends on the columns; the result is B times the plan.
    """
    n, size = len(distances), len(distances[0])
    flat = [value for row in distances for value in row]
    middle = (max(flat) + min(flat)) / 2
    half_range = max(flat) - middle + 1e-5
    plan = [[math.exp(-((value - middle) / half_range) / epsilon) for value in row] for row in distances]
    total = sum(map(sum, plan))
    plan = [[value / total for value in row] for row in plan]
    for _ in range(rounds):
        plan = [[value / sum(row) / n for value in row] for row in plan]
        columns = [sum(row[k] for row in plan) for k in range(size)]
        plan = [[row[k] / columns[k] / size for k in range(size)] for row in plan]
    return np.array([[value * n for value in row] for row in plan])


def quantization_losses(
    latents: npt.NDArray[np.floating], levels: Sequence[npt.NDArray[np.floating]], codes: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Return the mean squared residual after each level, averaged over items and dims: float64 [L].

    The codebook loss |c - sg(r)|^2 and the commitment loss |sg(c) - r|^2 both have this value; only their
    gradients differ (van den Oord et al. 2017, eq. 3; per level in LC-Rec).
    """
    residual = np.asarray(latents, np.float64)
    losses = []
    for level, centroids in enumerate(levels):
        residual = residual - np.asarray(centroids, np.float64)[codes[:, level]]
        losses.append(float((residual**2).mean()))
    return np.array(losses)
