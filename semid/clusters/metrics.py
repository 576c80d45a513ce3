"""Diversity and memorization of the vectors of IDs: whether they tell entities apart, and similar ones agree.

META ID (arXiv 2406.08477) scores the vectors that tokens give to users and items: DS, the mean divergence of two
vectors, and MS, how well their cosines agree with co-occurrence. Both are here as its code computes them (`published_`)
and corrected:

- DS as published grows with the scale of the vectors: ten times as long, a hundred times as diverse. `diversity` uses
  directions only, and all pairs instead of a sample.
- MS as published compares cosines with a product of two numbers, one per item. So items without a common user resemble
  each other, and since nearly all pairs are unrelated, vectors without information score best. `memorization` is the
  correlation, over all pairs, of the cosines with the adjusted cosine over common raters.

All are sums that can be factored, so none needs an N x N matrix: the cost is N x D^2, plus the pairs with a common
rater. N entities, D dims, M raters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from semid.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from semid.data.interactions import Interactions

__all__ = [
    "adjusted_cosines",
    "centered",
    "diversity",
    "interaction_matrix",
    "memorization",
    "published_diversity",
    "published_memorization",
]

Floats = npt.NDArray[np.float64]
KEPT_VARIANCE = 0.95
ROWS_AT_ONCE = 4096


# ---- diversity


def diversity(vectors: npt.NDArray[np.floating]) -> float:
    """Return the mean symmetric divergence over all pairs, of the softmaxes of vectors scaled to root mean square 1.

    0 if all vectors point the same way; their lengths make no difference.

    Parameters
    ----------
    vectors : float [N, D]
        At least two vectors.

    >>> [round(diversity(vectors), 3) for vectors in (np.eye(3), np.eye(3) * 10, np.ones((3, 2)))]
    [1.053, 1.053, 0.0]
    """
    vectors = _checked(vectors)
    spread = np.sqrt((vectors**2).mean(axis=1, keepdims=True))
    shares, logs = _softmax(vectors / np.where(spread > 0, spread, 1))
    # The mean over pairs of (p - q)(log p - log q) / 2 is the covariance of p and log p.
    covariances = (shares * logs).mean(axis=0) - shares.mean(axis=0) * logs.mean(axis=0)
    return max(0.0, float(covariances.sum()) * len(vectors) / (len(vectors) - 1))


def published_diversity(vectors: npt.NDArray[np.floating], *, n_pairs: int = 10_000, seed: int = 0) -> float:
    """Return DS as META ID's code computes it: of unscaled vectors, over a random sample of pairs."""
    vectors = _checked(vectors)
    rng = np.random.default_rng(seed)
    one = rng.integers(len(vectors), size=n_pairs)
    other = (one + rng.integers(1, len(vectors), size=n_pairs)) % len(vectors)
    total = 0.0
    for start in range(0, n_pairs, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        (p, log_p), (q, log_q) = _softmax(vectors[one[part]]), _softmax(vectors[other[part]])
        total += float(((p - q) * (log_p - log_q)).sum()) / 2
    return total / n_pairs


def _softmax(vectors: Floats) -> tuple[Floats, Floats]:
    """Return the softmax of each row, and its logarithm."""
    shifted = vectors - vectors.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.exp(logs), logs


# ---- memorization


def interaction_matrix(log: Interactions, *, of: Literal["items", "users"] = "items") -> csr_array:
    """Return interactions as a sparse matrix of ones, [items, users] or [users, items]; repeated ones count once."""
    from scipy.sparse import csr_array

    shape = (len(log.users), len(log.item_ids))
    table = csr_array((np.ones(len(log.items)), log.items, log.offsets), shape, copy=True)  # is sorted in place
    table.sum_duplicates()
    table.data[:] = 1
    return table if of == "users" else table.T.tocsr()


def centered(ratings: csr_array, *, by: Literal["rater", "entity"] = "rater") -> csr_array:
    """Return ratings [N, M] minus the mean of each rater (column), or of each entity (row), for `adjusted_cosines`.

    META ID's code uses an entity's own mean for users. Do not center ratings that are all equal, as those of plain
    interactions are: nothing would be left.
    """
    table = ratings.tocsr().astype(np.float64)
    places = table.indices if by == "rater" else np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    n = table.shape[1] if by == "rater" else table.shape[0]
    counts = np.bincount(places, minlength=n)
    means = np.bincount(places, weights=table.data, minlength=n) / np.maximum(counts, 1)
    table.data = table.data - means[places]
    return table


def adjusted_cosines(deviations: csr_array) -> csr_array:
    """Return the cosines of rows [N, M] with a common rater, above the diagonal: sparse [N, N].

    The sum over common raters of d_i d_j / (|d_i| |d_j|), with the lengths over all raters of each, so that one common
    rater of two popular entities has little weight.

    >>> from scipy.sparse import csr_array
    >>> adjusted_cosines(csr_array(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))).toarray().round(3).tolist()
    [[0.0, 0.707, 0.707], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    from scipy.sparse import triu

    rows = deviations.tocsr().astype(np.float64)
    squares = np.bincount(
        np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), weights=rows.data**2, minlength=rows.shape[0]
    )
    lengths = np.sqrt(np.where(squares > 0, squares, 1))
    rows.data = rows.data / np.repeat(lengths, np.diff(rows.indptr))
    return triu(rows @ rows.T, k=1, format="csr")


def memorization(vectors: npt.NDArray[np.floating], truth: csr_array) -> float | None:
    """Return the correlation over all pairs of the cosines of vectors with the true cosines, from -1 to 1.

    None if either side is the same for all pairs. Scale and shift of either side make no difference.

    Parameters
    ----------
    vectors : float [N, D]
        The vectors of the IDs.
    truth : sparse [N, N]
        `adjusted_cosines` of the same entities.

    >>> from scipy.sparse import csr_array
    >>> truth = adjusted_cosines(csr_array(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
    >>> round(memorization(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), truth), 6)
    1.0
    """
    units = _units(_checked(vectors))
    if truth.shape != (len(units), len(units)):
        raise InputError(f"truth has shape {truth.shape}; expected {(len(units), len(units))}, that of the vectors.")
    truth = truth.tocoo()
    agreeing = 0.0
    for start in range(0, truth.nnz, ROWS_AT_ONCE * 16):
        part = slice(start, start + ROWS_AT_ONCE * 16)
        rows, columns = truth.coords[0][part], truth.coords[1][part]
        agreeing += float(np.einsum("nd,nd,n->", units[rows], units[columns], truth.data[part]))
    n_pairs, (total, squares) = len(units) * (len(units) - 1) / 2, _pair_sums(units)
    true_total, true_squares = float(truth.data.sum()), float((truth.data**2).sum())
    spread, true_spread = squares - total**2 / n_pairs, true_squares - true_total**2 / n_pairs
    if spread <= 1e-9 * squares or true_spread <= 1e-9 * true_squares:
        return None
    return (agreeing - total * true_total / n_pairs) / math.sqrt(spread * true_spread)


def published_memorization(vectors: npt.NDArray[np.floating], deviations: csr_array) -> float:
    """Return MS as META ID's code computes it, 1 minus a mean squared error: higher is better.

    Vectors are standardized and reduced to the principal components with 95 % of the variance. Their cosines are
    compared with (S_i S_j) / (|d_i| |d_j|), S the sums of the deviations, scaled to 0..1. Exact, over all pairs.

    Raises
    ------
    InputError
        The deviations are the same for all pairs, as when all ratings are equal.
    """
    units = _units(_principal(_checked(vectors)))
    rows = deviations.tocsr().astype(np.float64)
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    sums = np.bincount(owner, weights=rows.data, minlength=len(units))
    lengths = np.sqrt(np.bincount(owner, weights=rows.data**2, minlength=len(units)))
    sides = np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), 0)
    low, high = _product_range(sides)
    if high - low < 1e-12:
        raise InputError("all ratings are alike, so the published truth is the same for all pairs. Give real ratings.")
    n_pairs, (cosines, cosine_squares) = len(units) * (len(units) - 1) / 2, _pair_sums(units)
    products, product_squares = _pair_sums(sides[:, None])
    crossed = (((units * sides[:, None]).sum(axis=0) ** 2).sum() - (sides**2 * (units**2).sum(axis=1)).sum()) / 2
    scale, shift = 1 / (high - low), -low / (high - low)  # the truth is scale * product + shift
    truth_squares = scale**2 * product_squares + 2 * scale * shift * products + shift**2 * n_pairs
    error = truth_squares + cosine_squares - 2 * (scale * crossed + shift * cosines)
    return 1 - float(error) / n_pairs


def _pair_sums(rows: Floats) -> tuple[float, float]:
    """Return the sums over pairs i < j of r_i . r_j and of its square, for rows [N, D]."""
    squares = (rows**2).sum(axis=1)
    gram = rows.T @ rows
    return float((rows.sum(axis=0) ** 2).sum() - squares.sum()) / 2, float((gram**2).sum() - (squares**2).sum()) / 2


def _product_range(sides: Floats) -> tuple[float, float]:
    """Return the lowest and the highest product of two different entries."""
    ends = np.sort(sides)
    ends = ends if len(ends) < 4 else np.concatenate([ends[:2], ends[-2:]])
    products = np.outer(ends, ends)[np.triu_indices(len(ends), 1)]
    return float(products.min()), float(products.max())


def _principal(vectors: Floats) -> Floats:
    """Return the vectors standardized, in the fewest principal components with 95 % of the variance."""
    spread = vectors.std(axis=0)
    standard = (vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1)
    variances, directions = np.linalg.eigh(standard.T @ standard)
    shares = np.cumsum(variances[::-1]) / variances.sum()
    kept = int(np.searchsorted(shares, KEPT_VARIANCE, side="right")) + 1
    return standard @ directions[:, ::-1][:, :kept]


def _units(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _checked(vectors: npt.NDArray[np.floating]) -> Floats:
    checked = np.asarray(vectors, np.float64)
    if checked.ndim != 2 or len(checked) < 2 or not np.isfinite(checked).all():
        raise InputError(f"vectors has shape {checked.shape}; expected finite numbers [N, D], N at least 2.")
    return checked
