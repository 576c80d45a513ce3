"""Measure a set of semantic IDs: collisions, use of the codes, neighbor recall, sequence lift.

Works on plain arrays, so that any system's IDs can be measured. `quality.py` says what each figure means, `advice.py`
what to do about a bad one. N items, L levels, K codes per level, D dims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.errors import InputError
from semid.evaluation.neighbors import Neighbors, find_neighbors
from semid.evaluation.quality import Distortion, LevelUse, Quality
from semid.runtime.tables import RowTable

if TYPE_CHECKING:
    from semid.data.interactions import Histories

__all__ = ["Distortion", "LevelUse", "Quality", "evaluate", "number_prefixes", "sequence_lift"]


def evaluate(
    codes: npt.NDArray[np.integer],
    *,
    sizes: Sequence[int] | None = None,
    raw_codes: npt.NDArray[np.integer] | None = None,
    distortion: Distortion | None = None,
    texts: Iterable[str] | None = None,
    vectors: RowTable | Neighbors | None = None,
    histories: Histories | None = None,
) -> Quality:
    """Measure an ID set. Only `codes` is needed; each further argument adds figures.

    Parameters
    ----------
    codes : int [N, L]
        One row per item, level 0 first. Rows may be equal. Shorter IDs are padded with -1.
    sizes : L ints, optional
        Codes per level. Default: the highest code of the level + 1; then `sizes_observed` is true.
    raw_codes : int [N, L], optional
        The codes before assignment made them unique.
    distortion : Distortion, optional
        Reported as given: only the owner of the codebooks can measure it.
    texts : N strings, optional
        The text that the encoder read of each item.
    vectors : float [N, D], or Neighbors, optional
        An array, a memory map, or rows of a file. Adds `neighbor_recall`. For several ID sets of the same vectors, call
        `find_neighbors` once and pass its result.
    histories : Histories, optional
        `read_interactions(path).map_to(item_ids)`. Adds `sequence_lift`.

    Returns
    -------
    Quality
        The figures.

    Raises
    ------
    InputError
        An array has the wrong shape, type or range.

    >>> quality = evaluate(np.array([[0, 0], [0, 1], [1, 0], [1, 0]]), sizes=[2, 2])
    >>> quality.collision_rate, quality.items_in_conflict, quality.max_prefix_fanout
    (0.25, 2, 2)
    >>> quality.levels[0]
    LevelUse(size=2, used=2, perplexity=2.0, largest_share=0.5)
    """
    sizes_observed = sizes is None
    codes, sizes = _checked(codes, sizes)
    n_items, n_levels = codes.shape
    prefixes = number_prefixes(codes)
    group_sizes = np.bincount(prefixes[-1])
    # Prefix figures stop one code before the whole ID, which names one item.
    inner = prefixes[: n_levels - 1]
    fanout = [int(np.bincount(prefix).max()) for prefix in inner]
    if raw_codes is not None and np.shape(raw_codes) != codes.shape:
        raise InputError(f"raw_codes has shape {np.shape(raw_codes)}; expected {codes.shape}, that of codes.")
    near = vectors if isinstance(vectors, Neighbors) or vectors is None else find_neighbors(vectors)
    if near is not None and len(near.groups) != n_items:
        raise InputError(f"vectors has {len(near.groups)} rows; expected {n_items}, one per row of codes.")
    lift, n_pairs = None, None
    if histories is not None:
        lift, n_pairs = sequence_lift(inner, histories.offsets, histories.rows)
    return Quality(
        n_items=n_items,
        n_unique_ids=len(group_sizes),
        collision_rate=(n_items - len(group_sizes)) / n_items,
        items_in_conflict=int(group_sizes[group_sizes > 1].sum()),
        largest_group=int(group_sizes.max()),
        raw_collision_rate=None if raw_codes is None else (n_items - _n_distinct(raw_codes)) / n_items,
        moved_items=None if raw_codes is None else int((codes != raw_codes).any(axis=1).sum()),
        identical_text_floor=None if texts is None else _text_floor(texts, n_items),
        identical_vector_floor=None if near is None else (n_items - len(near.sizes)) / n_items,
        distortion=distortion,
        levels=[_level_use(column, size) for column, size in zip(codes.T, sizes, strict=True)],
        sizes_observed=sizes_observed,
        max_prefix_fanout=fanout[-1] if fanout else n_items,
        prefix_fanout=fanout,
        neighbor_recall=None if near is None else near.recall(inner),
        neighbor_queries=None if near is None else len(near.positions),
        sequence_lift=lift,
        sequence_pairs=n_pairs,
    )


def number_prefixes(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the rank of each prefix in lexicographic order, int64 [L, N]; row l ranks the prefixes of l + 1 codes.

    >>> number_prefixes(np.array([[7, 1], [3, 9], [7, 0]]))
    array([[1, 0, 1],
           [2, 0, 1]])
    """
    order = np.lexsort(codes.T[::-1])
    in_order = codes[order]
    differs = np.logical_or.accumulate(in_order[1:] != in_order[:-1], axis=1)
    numbers = np.zeros((codes.shape[1], len(codes)), np.int64)
    numbers[:, order[1:]] = np.cumsum(differs, axis=0).T
    return numbers


def sequence_lift(
    prefixes: npt.NDArray[np.integer], offsets: npt.NDArray[np.integer], rows: npt.NDArray[np.integer]
) -> tuple[list[float | None], int]:
    """Return how much more often than by chance consecutive items share a prefix, and the number of pairs.

    Numerator: among consecutive pairs of *different* known items in the histories, the share that has the same
    prefix. Denominator: the probability that two items, drawn independently by their popularity in the same histories,
    have the same prefix *given that they are different items*. With p_i the popularity of item i and P_g the sum of
    p_i under prefix g,

        chance = (sum_g P_g^2 - sum_i p_i^2) / (1 - sum_i p_i^2),

    which is computed, not sampled. A lift of 1 means that the prefix says nothing about the next item. Without the
    condition, every item would agree with itself, and lifts of long prefixes would shrink as prefixes become unique.

    Parameters
    ----------
    prefixes : int [P, N]
        As `number_prefixes` returns them.
    offsets : int64 [U + 1]
        The history of user u is `rows[offsets[u]:offsets[u + 1]]`, oldest first.
    rows : int64 [n]
        Rows of the items; a pair with an unknown item (-1) is not counted.

    Returns
    -------
    list of P floats or None, int
        None where no two different items can share the prefix, or there is no pair.

    >>> prefixes = number_prefixes(np.array([[0, 0], [0, 1], [1, 0]]))
    >>> sequence_lift(prefixes[:1], np.array([0, 2, 3]), np.array([0, 1, 2]))
    ([3.0], 1)
    """
    offsets, rows = _checked_histories(prefixes.shape[1], offsets, rows)
    inside = np.ones(max(len(rows) - 1, 0), bool)
    ends = offsets[1:-1] - 1  # the last place of each history but the last one
    inside[ends[(ends >= 0) & (ends < len(inside))]] = False
    before, after = rows[:-1][inside], rows[1:][inside]
    counted = (before >= 0) & (after >= 0) & (before != after)
    before, after = before[counted], after[counted]
    seen = np.bincount(rows[rows >= 0], minlength=prefixes.shape[1]).astype(np.float64)
    lifts = [_lift(prefix, before, after, seen) for prefix in prefixes]
    return lifts, len(before)


def _lift(prefix, before, after, seen) -> float | None:
    # Subtracted prefix by prefix, so that a prefix with a single item gives exactly 0.
    agreeing = np.bincount(prefix, weights=seen) ** 2 - np.bincount(prefix, weights=seen**2)
    chance = agreeing.sum() / max(seen.sum() ** 2 - (seen**2).sum(), 1.0)
    if chance == 0 or len(before) == 0:
        return None
    return float((prefix[before] == prefix[after]).mean() / chance)


def _level_use(column: npt.NDArray[np.integer], size: int) -> LevelUse:
    counts = np.unique(column[column >= 0], return_counts=True)[1]
    shares = counts / max(counts.sum(), 1)
    return LevelUse(
        size=size,
        used=len(counts),
        perplexity=float(np.exp(-(shares * np.log(shares)).sum())) if len(counts) else 0.0,
        largest_share=float(shares.max()) if len(counts) else 0.0,
    )


def _n_distinct(codes: npt.NDArray[np.integer]) -> int:
    return int(number_prefixes(codes)[-1].max()) + 1


def _text_floor(texts: Iterable[str], n_items: int) -> float:
    digests = b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    if len(digests) != 8 * n_items:
        raise InputError(f"texts has {len(digests) // 8} entries; expected {n_items}, one per row of codes.")
    # Among a hundred million texts, the chance that two different ones share 64 bits is 1 in 4,000.
    return (n_items - len(np.unique(np.frombuffer(digests, np.uint64)))) / n_items


def _checked(codes, sizes) -> tuple[npt.NDArray[np.integer], list[int]]:
    codes = np.asarray(codes)
    if codes.ndim != 2 or 0 in codes.shape or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"codes is {codes.dtype} of shape {codes.shape}; expected integers of shape (items, levels), "
            "both at least 1."
        )
    if codes.min() < -1:
        raise InputError(f"codes holds {codes.min()}; expected 0 or more, or -1 after the end of a short ID.")
    if ((codes[:, :-1] < 0) & (codes[:, 1:] >= 0)).any():
        raise InputError("codes holds -1 before another code; expected -1 only after the end of a short ID.")
    highest = codes.max(axis=0)
    if sizes is None:
        return codes, [int(code) + 1 for code in highest]
    if len(sizes) != codes.shape[1]:
        raise InputError(f"sizes={list(sizes)}; expected {codes.shape[1]} numbers, one a level.")
    for level, (code, size) in enumerate(zip(highest, sizes, strict=True)):
        if code >= size:
            raise InputError(f"codes holds {code} at level {level}; expected less than its size, {size}.")
    return codes, [int(size) for size in sizes]


def _checked_histories(n_items: int, offsets, rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    offsets, rows = np.asarray(offsets, np.int64), np.asarray(rows, np.int64)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        raise InputError(f"offsets does not cut rows: expected it to rise from 0 to len(rows)={len(rows)}.")
    if len(rows) and (rows.max() >= n_items or rows.min() < -1):
        raise InputError(
            f"rows holds {rows.min()}..{rows.max()}; expected rows of codes, 0..{n_items - 1}, "
            "or -1 for an unknown item."
        )
    return offsets, rows
