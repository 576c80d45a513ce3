"""One step of k-means: assign every point, and sum points, counts and error per code, without an N x K matrix.

    code_n    = argmax_k  x_n . c_k - |c_k|^2 / 2 - price_k          lowest k on ties
    sums_k    = sum of x_n over code_n = k,     counts_k = how many
    objective = sum_n |x_n - c_{code_n}|^2                           without the prices

The new centroids are sums / counts, where counts > 0. N points, D dims, K codes.

`kmeans_update` runs the kernels of `kmeans_update_triton.py`. `kmeans_update_torch` is the same in blocks of plain
torch, for other devices. Both return the same bits every time; between the two, and between devices, a point whose
two best scores agree to rounding may fall to either code, for centroids are any float32 here and nothing is decided
again in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Update", "check_points", "kmeans_update", "kmeans_update_torch"]

BLOCK_SCORES = 2**18


@dataclass(frozen=True)
class Update:
    """The result of one step, on the points' device."""

    codes: torch.Tensor  # (N,) int32
    sums: torch.Tensor  # (K, D) float64
    counts: torch.Tensor  # (K,) int64
    objective: torch.Tensor  # () float64


def kmeans_update(
    points: torch.Tensor,
    centroids: torch.Tensor,
    *,
    prices: torch.Tensor | None = None,
    limit: torch.Tensor | float | None = None,
) -> Update:
    """Assign and accumulate with Triton, in one pass over the points where K <= 256 and D <= 64.

    Parameters
    ----------
    points : float16, bfloat16, float32 or float64 [N, D], any strides, read as float32; D <= 1024.
    centroids : float [K, D] on the same device.
    prices : float [K], taken off the scores; None for none.
    limit : no point has a larger absolute value; None measures it, which is one more pass over the points. A k-means
        loop measures it once. Too small a limit makes scores overflow.

    Precision: scores are off by less than (D + 8) 2^-22 |x| |c| (`split_scores.py`). Sums of K <= 256 and D <= 64
    are those of float32 in groups of at most 16,384 points, and of float64 beyond; wider ones are float64's.

    A centroid that is not finite is never chosen. A point that is not finite makes the objective so. Codes lie in
    0..K-1 all the same, but then neither they nor the sums mean anything: look at `objective` where points may be bad.

    Raises
    ------
    ValueError : shapes, types or devices that do not fit.
    """
    check_points(points, centroids, prices)
    from semid.kernels.kmeans_update_triton import update_with_triton

    return Update(*update_with_triton(points, centroids, prices, limit))


def kmeans_update_torch(points: torch.Tensor, centroids: torch.Tensor, *, prices: torch.Tensor | None = None) -> Update:
    """Do the same in plain torch, a block of points at a time; scores in float32, sums in float64.

    Here a centroid that is not finite makes the objective so, as a point does.

    >>> points = torch.tensor([[0.0], [1.0], [3.0]])
    >>> update = kmeans_update_torch(points, torch.tensor([[0.0], [2.0]]))
    >>> update.codes.tolist(), update.sums.tolist(), update.counts.tolist(), update.objective.item()
    ([0, 0, 1], [[1.0], [3.0]], [2, 1], 2.0)
    """
    check_points(points, centroids, prices)
    points, centroids = points.detach(), centroids.detach().float()
    n_codes, device = len(centroids), points.device
    halves = centroids.double().square().sum(1) / 2
    offsets = (-halves if prices is None else -halves - prices).float()
    rows_at_once = max(64, min(4096, BLOCK_SCORES // n_codes))
    codes = torch.empty(len(points), dtype=torch.int32, device=device)
    sums = torch.zeros(centroids.shape, dtype=torch.float64, device=device)
    objective = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(points), rows_at_once):
        rows = points[start : start + rows_at_once].float()
        chosen = _first_largest(torch.addmm(offsets, rows, centroids.T))
        codes[start : start + rows_at_once] = chosen
        objective += (rows - centroids[chosen]).square().sum(dtype=torch.float64)
        sums += _sums_per_code(rows.double(), chosen, n_codes)
    return Update(codes, sums, torch.bincount(codes, minlength=n_codes), objective)


def check_points(points: torch.Tensor, centroids: torch.Tensor, prices: torch.Tensor | None) -> None:
    """ValueError unless points [N, D], centroids [K, D] and prices [K] are floating and on one device."""
    if points.dim() != 2 or centroids.dim() != 2 or points.shape[1] != centroids.shape[1] or not centroids.numel():
        raise ValueError(
            f"points: {tuple(points.shape)} and centroids: {tuple(centroids.shape)}, expected [N, D] and [K, D] with "
            "one D >= 1 and K >= 1"
        )
    if prices is not None and prices.shape != centroids.shape[:1]:
        raise ValueError(f"prices: shape {tuple(prices.shape)}, expected [{len(centroids)}], one per centroid")
    for name, other in (("points", points), ("centroids", centroids), ("prices", prices)):
        if other is not None and (not other.is_floating_point() or other.device != points.device):
            raise ValueError(f"{name}: {other.dtype} on {other.device}, expected floating point on {points.device}")


def _first_largest(scores: torch.Tensor) -> torch.Tensor:
    """Return where each row's largest value is, the first of equal ones: int64 [R]; of NaN, any place."""
    if scores.device.type == "cpu":  # the array's argmax is vectorized, the tensor's is not: 5 to 25 times faster
        return torch.from_numpy(scores.numpy().argmax(axis=1))
    places = torch.arange(scores.shape[1], device=scores.device)
    return torch.where(scores == scores.amax(1, keepdim=True), places, scores.shape[1] - 1).amin(1)


def _sums_per_code(rows: torch.Tensor, codes: torch.Tensor, n_codes: int) -> torch.Tensor:
    """Return the sum of each code's points, float64 [K, D], always added in the same order."""
    if rows.device.type == "cpu":
        return rows.new_zeros(n_codes, rows.shape[1]).index_add_(0, codes, rows)
    onehot = codes == torch.arange(n_codes, device=codes.device)[:, None]  # index_add_ uses atomics elsewhere
    return onehot.to(rows.dtype) @ rows
