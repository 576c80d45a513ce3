"""Uniform semantic mapping: balanced assignment of items to codes by entropic transport.

    min_Q  sum_nk Q_nk d_nk - epsilon H(Q)   with row sums 1 and column sums N / K

`semid.kernels.sinkhorn` solves it in O(N + K) memory, for a training batch and for a catalog; here its potentials
become a bias per code. As in LC-Rec, distances are centered to [-1, 1] by their mid-range and half-range, which gives
epsilon its scale. LC-Rec's own scaling form in float64 is `lcrec_sinkhorn`, kept for comparison and for its preset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.runtime.distributed import all_max, all_sum

if TYPE_CHECKING:
    import torch

__all__ = ["catalog_prices", "codes_balanced_together", "lcrec_sinkhorn", "lcrec_sinkhorn_torch"]

PRICE_BITS = 26  # prices on a 2^-26 grid keep float64 scores exact


def catalog_prices(
    residual: npt.NDArray[np.floating],
    centroids: npt.NDArray[np.float32],
    *,
    epsilon: float = 0.003,
    rounds: int = 50,
    device: str = "cpu",
) -> tuple[npt.NDArray[np.float64], float]:
    """Compute prices that balance one level over the whole catalog, as a bias per code.

    Adding the bias to the scores `r . c - |c|^2 / 2` makes plain argmax the balanced assignment, so an item's code
    depends only on the item, not on its batch.

    Parameters
    ----------
    residual : float [N, d]
        After the earlier levels.
    centroids : float32 [K, d]
    epsilon : float
        Entropy of the transport, in units of half the range of the distances.
    rounds : int
    device : str
        Device of torch.

    Returns
    -------
    bias : float64 [K]
        On a 2^-26 grid.
    error : float
        Largest relative error of a column sum.
    """
    import torch

    from semid.kernels.sinkhorn import sinkhorn_potentials

    found = sinkhorn_potentials(
        torch.from_numpy(np.ascontiguousarray(residual)).to(device),
        torch.from_numpy(np.ascontiguousarray(centroids)).to(device),
        epsilon=epsilon,
        rounds=rounds,
    )
    return np.rint(found.bias.numpy() * 2.0**PRICE_BITS) * 2.0**-PRICE_BITS, found.error


def codes_balanced_together(
    residual: torch.Tensor, centroids: torch.Tensor, n_items: int, *, epsilon: float = 0.003, rounds: int = 20
) -> torch.Tensor:
    """Return the balanced codes of this process's rows of a batch that several processes share, int64 [B].

    The same rounds as in `semid.kernels.sinkhorn.balanced_codes`; column sums and the range of the distances are taken
    over all processes.

    Parameters
    ----------
    residual : float32 [B, d]
        The rows of this process; B may be 0.
    centroids : float32 [K, d]
        The same in every process.
    n_items : int
        Rows of all processes.
    """
    import torch

    from semid.kernels.sinkhorn import RELAXATION, SMALLEST_COLUMN, sinkhorn_step
    from semid.kernels.sinkhorn_chunks import SMALLEST_BATCH_RANGE

    moved, middle = residual.detach(), centroids.detach().mean(0)  # moving both keeps the products small
    moved, centers = moved - middle, centroids.detach() - middle
    scores = torch.addmm(centers.square().sum(1) / -2, moved, centers.T)
    distances = moved.square().sum(1, keepdim=True) - 2 * scores
    ends = [-float(distances.min()), float(distances.max())] if len(distances) else [-np.inf, -np.inf]
    unit = epsilon * max(float(all_max(np.array(ends)).sum()), SMALLEST_BATCH_RANGE) / 2
    potential = torch.zeros(len(centroids), dtype=torch.float64)
    for _ in range(rounds):
        columns = all_sum(sinkhorn_step(moved, centers, potential.to(moved.device), unit).cpu().numpy())
        potential += RELAXATION * (np.log(n_items / len(centroids)) - np.log(np.maximum(columns, SMALLEST_COLUMN)))
    balanced = (scores * (2 / unit) + potential.to(scores)).cpu().numpy()
    return torch.from_numpy(balanced.argmax(axis=1)).to(residual.device)


def lcrec_sinkhorn(
    distances: npt.NDArray[np.float64], epsilon: float = 0.003, iterations: int = 50
) -> npt.NDArray[np.float64]:
    """Return LC-Rec's transport plan of B items to K codes.

    d' = (d - mid) / (half-range + 1e-5) over the whole matrix; Q = exp(-d' / epsilon), scaled to sum 1; then
    `iterations` times each row is scaled to sum 1/B and each column to sum 1/K; the result is B Q. It ends on
    the columns, so rows need not sum to 1.

    Parameters
    ----------
    distances : float64 [..., B, K]
        Squared distances; leading axes are separate problems.
    epsilon : float
    iterations : int

    Returns
    -------
    float64 [..., B, K]
        Row argmax is the code. May hold NaN for tiny epsilon, as the original may.

    >>> lcrec_sinkhorn(np.array([[0.0, 1.0], [0.0, 2.0]])).argmax(axis=1).tolist()
    [1, 0]
    """
    n, size = distances.shape[-2:]
    high = distances.max(axis=(-2, -1), keepdims=True)
    middle = (high + distances.min(axis=(-2, -1), keepdims=True)) / 2
    plan = np.exp(-(distances - middle) / (high - middle + 1e-5) / epsilon)
    plan /= plan.sum(axis=(-2, -1), keepdims=True)
    for _ in range(iterations):
        plan /= plan.sum(axis=-1, keepdims=True)
        plan /= n
        plan /= plan.sum(axis=-2, keepdims=True)
        plan /= size
    plan *= n
    return plan


def lcrec_sinkhorn_torch(distances: torch.Tensor, epsilon: float = 0.003, iterations: int = 50) -> torch.Tensor:
    """Return `lcrec_sinkhorn` of one float64 matrix [B, K], on its device."""
    n, size = distances.shape
    middle = (distances.max() + distances.min()) / 2
    plan = (-(distances - middle) / (distances.max() - middle + 1e-5) / epsilon).exp()
    plan /= plan.sum()
    for _ in range(iterations):
        plan /= plan.sum(1, keepdim=True)
        plan /= n
        plan /= plan.sum(0, keepdim=True)
        plan /= size
    return plan * n
