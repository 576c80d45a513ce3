"""k-means for one level of a residual quantizer, and the joint refinement of all levels.

Plain Lloyd in full width starts badly on residuals: a few centroids become outliers and one the hub of everything else.
So the search starts in a few leading principal directions and widens step by step, each step from the clusters of the
step before (the progressive-dimension idea of faiss's ResidualQuantizer). All codes stay in use, and the error is
lower.

Everything is float32 matrix products and sums in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.quantize.grid import snap_centroids
from semid.quantize.residual_blocks import Multiply, float32_product
from semid.runtime.distributed import all_sum, gather, place
from semid.train.lloyd import assign_and_sum

__all__ = ["even_out", "improve_levels", "joint_refinement", "kmeans", "least_squares_tables", "lloyd", "usage_counts"]

WIDTHS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)  # leading directions used on the way to full width
STEP_ROUNDS = 8
MANY_POINTS, MANY_STEP_ROUNDS = 50_000, 5  # from so many points on, fewer rounds suffice
FINAL_ROUNDS = 30
MIN_GAIN = 2e-4  # relative gain of the error that another round needs
ROWS_AT_ONCE = 8192
EVENING_ROUNDS = 20
SHORTEST_STEP = 0.125
MAX_EVENING_ROWS = 65_536
EVENING_COST = 0.05  # allowed rise of a level's error

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.integer]


def kmeans(points: Floats, n_codes: int, *, seed: int = 0, rounds: int = FINAL_ROUNDS) -> Floats:
    """Return centroids float32 [K, d] of points float32 [N, d]; N may be below K.

    >>> points = np.repeat(np.float32([[0, 0], [4, 0], [0, 4]]), 5, axis=0)
    >>> sorted(kmeans(points, 3).round().tolist())
    [[0.0, 0.0], [0.0, 4.0], [4.0, 0.0]]
    """
    rng = np.random.default_rng(seed)
    n_points = place(len(points))[1]
    start, n_distinct = _distinct_points(points, n_codes, rng)
    if n_distinct <= n_codes:
        # Every distinct point is its own centroid; codes left over repeat the mean and lose every tie.
        mean = all_sum(points.sum(axis=0, keepdims=True)) / np.float32(n_points)
        return np.concatenate([start, np.repeat(mean, n_codes - n_distinct, axis=0)]).astype(np.float32)
    mean, directions = _principal_directions(points)
    rotated: Floats = np.matmul(points - mean, directions)
    width = rotated.shape[1]
    widths = [step for step in WIDTHS if step < width] + [width]
    step_rounds = STEP_ROUNDS if n_points < MANY_POINTS else MANY_STEP_ROUNDS
    multiply = float32_product()
    centroids: Floats = np.matmul(start - mean, directions)[:, : widths[0]]
    for step, here in enumerate(widths):
        visible = np.ascontiguousarray(rotated[:, :here])
        if step:  # the clusters of the narrower step, with means in all directions that are visible now
            narrower = np.ascontiguousarray(rotated[:, : widths[step - 1]])
            codes = assign_and_sum(narrower, centroids, multiply=multiply).codes
            centroids = _means(visible, codes, n_codes)
        last = step == len(widths) - 1
        centroids = lloyd(visible, centroids, rounds if last else step_rounds, rng=rng, multiply=multiply)
    return (centroids @ directions.T + mean).astype(np.float32)


def _distinct_points(points: Floats, most: int, rng: np.random.Generator) -> tuple[Floats, int]:
    """Draw at most so many distinct points, independent of the order of the rows; also return how many there are."""
    hashes, rows = np.unique(_hashes(points), return_index=True)
    first = place(len(hashes))[0]
    distinct, places = np.unique(gather(hashes), return_index=True)
    chosen = np.arange(len(distinct))
    if len(distinct) > most:
        chosen = np.sort(rng.choice(len(distinct), most, replace=False))
    places = places[chosen] - first  # among the rows of this process, or of another
    own = (places >= 0) & (places < len(rows))
    found = np.zeros((len(chosen), points.shape[1]), np.float32)
    found[own] = points[rows[places[own]]]
    return all_sum(found), len(distinct)


def _hashes(points: Floats) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each point's bits.

    Sorting the rows themselves takes longer than a round of k-means on all levels.
    """
    bits = np.ascontiguousarray(points + np.float32(0)).view(np.uint32)  # + 0 turns -0.0 into 0.0
    factors = np.random.default_rng(0).integers(2**63, size=bits.shape[1], dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(bits), np.uint64)
    for start in range(0, len(bits), ROWS_AT_ONCE):
        block = bits[start : start + ROWS_AT_ONCE].astype(np.uint64)
        hashes[start : start + ROWS_AT_ONCE] = (block * factors).sum(axis=1, dtype=np.uint64)
    return hashes


def lloyd(
    points: Floats,
    centroids: Floats,
    rounds: int,
    *,
    rng: np.random.Generator | None = None,
    multiply: Multiply | None = None,
) -> Floats:
    """Run Lloyd's rounds from given centroids, until they stop gaining.

    A code without points takes half of a crowded code's points. `multiply` as for `assign_and_sum`.
    """
    rng, multiply = rng or np.random.default_rng(0), multiply or float32_product()
    squares = _squares(points)
    error = np.inf
    for _ in range(rounds):
        found = assign_and_sum(points, centroids, multiply=multiply)
        before, error = error, squares - 2 * found.scores
        if error >= before * (1 - MIN_GAIN):
            break
        centroids = found.means()
        empty = np.flatnonzero(found.counts == 0)
        if len(empty):
            crowded = np.argsort(-found.counts, kind="stable")[: len(empty)]
            spread = np.abs(centroids[crowded]).mean() * 1e-3
            nudge = spread * rng.standard_normal((len(empty), points.shape[1]), np.float32)
            error = np.inf
            centroids[empty] = centroids[crowded] + nudge
            centroids[crowded] -= nudge
    return centroids


def even_out(points: Floats, centroids: Floats, balance: float) -> Floats:
    """Move centroids so that codes are used more evenly, for a small rise of the error.

    k-means with a price on crowded codes: in round t of T a code's score is lowered by
    `balance * t / T * mean|x|^2 * log(its items / (N / K))`, damped. Too high a price overshoots, so it rises slowly,
    every round is measured without prices, and the most even round is kept among those whose error is within
    EVENING_COST of the start's.
    """
    first, n_points = place(len(points))
    every = 1 + n_points // MAX_EVENING_ROWS
    n_codes, points = len(centroids), points[-first % every :: every]
    squares, n_points = _squares(points), all_sum(len(points))
    highest = balance * squares / n_points
    fair = n_points / n_codes
    price = np.zeros(n_codes, np.float32)
    best, limit, evenness, multiply = centroids, np.inf, -np.inf, float32_product()
    for step in range(EVENING_ROUNDS + 1):
        plain = assign_and_sum(points, centroids, multiply=multiply)
        error = squares - 2 * plain.scores
        entropy = _entropy(plain.counts)
        if step == 0:
            limit = error * (1 + EVENING_COST)
        if error <= limit and entropy > evenness:
            best, evenness = centroids, entropy
        priced = assign_and_sum(points, centroids, price, multiply=multiply) if step else plain
        centroids = np.where((priced.counts > 0)[:, None], priced.means(), centroids)
        due = highest * (step + 1) / EVENING_ROUNDS * np.log((priced.counts + 1) / (fair + 1))
        price = ((price + due) / 2).astype(np.float32)
    return best


def _squares(points: Floats) -> float:
    """Return the sum of the squares of all points."""
    return all_sum(float(np.einsum("nd,nd->", points, points, dtype=np.float64)))


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    """Return the entropy of the use of codes, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return -float(shares @ np.log(shares))


def usage_counts(codes: Codes, sizes: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Return how many items use each code, per level."""
    return [all_sum(np.bincount(codes[:, level], minlength=size)) for level, size in enumerate(sizes)]


def least_squares_tables(
    codes: Codes, targets: npt.NDArray[np.floating], sizes: Sequence[int], *, ridge: float = 1e-3
) -> list[Floats]:
    """Fit L tables whose rows, summed along each item's codes, are nearest to the targets [N, D].

    Solves (A + ridge I) T = B with A = co-occurrence counts of codes and B = sums of targets per code: least squares on
    the one-hot codes. `ridge` counts like that many items with a target of zero. Unused codes get zero rows. Returns L
    arrays float32 [K_l, D].
    """
    onehot = _onehot(codes, sizes)
    normal = all_sum((onehot.T @ onehot).toarray())
    normal[np.diag_indices_from(normal)] += ridge
    sums = all_sum(onehot.T @ np.asarray(targets, np.float64))
    solution = np.linalg.solve(normal, sums).astype(np.float32)
    return np.split(solution, np.cumsum(sizes)[:-1])


def joint_refinement(latents: npt.NDArray[np.float64], levels: list[Floats], rounds: int) -> list[Floats]:
    """Refit all levels at once to their codes, encode again, and keep the result if the error is lower.

    Levels learned one after the other never revise an earlier level; solving for all centroids together does. The
    refitted tables are nearer to the items under the old codes, but greedy codes change with the tables. If the whole
    step raises the error, half of it may not.

    Returns centroids in plain floats; the caller puts them on the grid.
    """
    from semid.quantize.residual import residual_codes

    def error_of(candidate: list[Floats]) -> tuple[float, Codes]:
        codes = residual_codes(latents, candidate)
        total = sum(centroids[codes[:, level]].astype(np.float64) for level, centroids in enumerate(candidate))
        return all_sum(float(((latents - total) ** 2).sum())) / n_numbers, codes

    n_numbers = place(len(latents))[1] * latents.shape[1]
    best, (lowest, codes) = levels, error_of(levels)
    step = 1.0
    for _ in range(rounds):
        sizes = [len(centroids) for centroids in best]
        solved = least_squares_tables(codes, latents, sizes)
        for level, counts in enumerate(usage_counts(codes, sizes)):
            solved[level][counts == 0] = best[level][counts == 0]
        while step >= SHORTEST_STEP:
            candidate = [old + np.float32(step) * (new - old) for old, new in zip(best, solved, strict=True)]
            error, new_codes = error_of(candidate)
            if error < lowest:
                break
            step /= 2
        else:
            break
        best, lowest, codes = candidate, error, new_codes
    return best


def improve_levels(
    latents: npt.NDArray[np.float64], levels: Sequence[Floats], *, refine: int, balance: float
) -> tuple[Floats, ...]:
    """Refine all levels jointly, then even out the use of their codes.

    Joint refinement lowers the error most, but a few codes become crowded; `even_out` then trades some of the error for
    even use, level by level.

    Parameters
    ----------
    latents : float64 [N, d]
        On the grid.
    levels : L arrays float32 [K_l, d]
        On the grid; so is the result.
    refine : int
        Cap on the rounds of joint refinement.
    balance : float
        Price of crowded codes (`even_out`). 0 skips it.
    """
    from semid.quantize.residual import residual_codes

    if refine and len(levels) > 1:
        levels = [snap_centroids(centroids) for centroids in joint_refinement(latents, list(levels), refine)]
    if not balance:
        return tuple(levels)
    residual, even = latents.astype(np.float32), []
    for centroids in levels:
        moved = snap_centroids(even_out(residual, centroids, balance))
        residual = residual - moved[residual_codes(residual.astype(np.float64), [moved])[:, 0]]
        even.append(moved)
    return tuple(even)


def _means(points: Floats, codes: Codes, n_codes: int) -> Floats:
    counts = all_sum(np.bincount(codes, minlength=n_codes))
    sums = all_sum(_onehot(codes[:, None], [n_codes]).T @ points)
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)


def _onehot(codes: Codes, sizes: Sequence[int]):
    """Return a sparse matrix [N, sum K_l] with a one at each item's code of each level."""
    from scipy.sparse import csr_matrix

    n_items, n_levels = codes.shape
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    columns = (codes + offsets).ravel()
    rows = np.arange(n_items + 1) * n_levels
    return csr_matrix((np.ones(n_items * n_levels), columns, rows), (n_items, int(np.sum(sizes))))


def _principal_directions(points: Floats) -> tuple[Floats, Floats]:
    """Return the mean [d] and the rotation [d, d] onto principal axes, largest variance first."""
    n_points = place(len(points))[1]
    mean = all_sum(points.sum(axis=0, dtype=np.float64)) / n_points
    products = np.zeros((points.shape[1], points.shape[1]))
    for start in range(0, len(points), ROWS_AT_ONCE):
        centered = points[start : start + ROWS_AT_ONCE] - mean
        products += centered.T @ centered
    _, vectors = np.linalg.eigh(all_sum(products) / n_points)
    return mean.astype(np.float32), np.ascontiguousarray(vectors[:, ::-1], np.float32)
