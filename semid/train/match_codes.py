"""Renumber new codes like the old ones, so that most items keep their codes.

The numbers of a level's centroids are arbitrary names. So when codebooks are learned again, each new code takes, level
by level, the name of the old code whose items it has: the assignment of names with which most items keep their code.
What a language model learned about a token then still holds for most items.

N items of both catalogs, L levels, K codes a level.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.quantize.codebooks import Codebooks
from semid.quantize.network import Decoder

__all__ = ["in_order_among_equals", "match_levels", "permuted", "renamed"]

Names = list[npt.NDArray[np.int64]]
Levels = Sequence[npt.NDArray[np.floating]]


def match_levels(
    old_codes: npt.NDArray[np.integer],
    new_codes: npt.NDArray[np.integer],
    old_sizes: Sequence[int],
    new_sizes: Sequence[int],
    *,
    distances: Sequence[npt.NDArray[np.floating]] | None = None,
) -> Names:
    """Return names for the new codes: per level a permutation, int64 [K_new], `names[level][new code]`.

    The names of a level are assigned so that as many items as possible keep this code too, first among the items that
    kept their earlier codes, then among all items; then at the least total distance, which decides for codes without
    common items.

    Parameters
    ----------
    old_codes, new_codes : integer [N, L_old], [N, L_new]
        The same items in the same order. Levels beyond the shorter one keep their names.
    old_sizes, new_sizes : K of each level
        If they differ, the codes below both are matched; the others take the remaining names, in order.
    distances : per level float [K_old, K_new], optional
        Between old and new centroids, if both are in one latent space.

    >>> [names.tolist() for names in match_levels(np.array([[0], [1], [1]]), np.array([[2], [0], [0]]), [3], [3])]
    [[1, 2, 0]]
    """
    names: Names = [np.arange(size, dtype=np.int64) for size in new_sizes]
    kept = np.ones(len(old_codes), np.bool_)
    for level in range(min(len(old_sizes), len(new_sizes))):
        old, new = old_codes[:, level].astype(np.int64), new_codes[:, level].astype(np.int64)
        shape = old_sizes[level], new_sizes[level]
        # One item that kept its earlier codes counts more than all other items together.
        gain = _shared(old[kept], new[kept], shape) * float(len(old) + 1) + _shared(old, new, shape)
        if distances is not None:
            gain -= _below_one(distances[level])
        names[level] = _assign_names(gain)
        kept &= names[level][new] == old
    return names


def permuted(codebooks: Codebooks, names: Names) -> Codebooks:
    """Return the same codebooks with other names: code k of a level becomes `names[level][k]`.

    Codes come out renamed (`renamed`), latents and reconstructions as before. For codebooks with equal centroids see
    `in_order_among_equals`.
    """
    places = [np.argsort(level) for level in names]

    def moved(tables: Sequence[npt.NDArray | None]) -> tuple:
        return tuple(None if table is None else table[place] for table, place in zip(tables, places, strict=False))

    decoder = Decoder(codebooks.decoder.network, moved(codebooks.decoder.tables))
    return dataclasses.replace(
        codebooks, levels=moved(codebooks.levels), decoder=decoder, biases=moved(codebooks.biases)
    )


def renamed(codes: npt.NDArray[np.integer], names: Names) -> npt.NDArray[np.int32]:
    """Return codes [N, L] under their new names, int32 [N, L].

    >>> renamed(np.array([[0, 1], [2, 0]]), [np.array([5, 3, 4]), np.array([1, 0])]).tolist()
    [[5, 0], [4, 1]]
    """
    return np.stack([level[codes[:, place]] for place, level in enumerate(names)], axis=1).astype(np.int32)


def in_order_among_equals(codebooks: Codebooks, names: Names) -> Names:
    """Return the same names, swapped among codes with equal centroids so that these keep their order.

    Of equal centroids the lowest is the nearest code, and the decoder knows only that one. A catalog with fewer
    distinct vectors than codes has equal centroids.
    """
    ordered = []
    for centroids, level in zip(codebooks.levels, names, strict=True):
        _, group = np.unique(centroids, axis=0, return_inverse=True)
        group = group.reshape(-1)
        swapped = np.empty_like(level)
        swapped[np.argsort(group, kind="stable")] = level[np.lexsort((level, group))]
        ordered.append(swapped)
    return ordered


def _shared(old: npt.NDArray[np.int64], new: npt.NDArray[np.int64], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return how many items have each pair of codes, float64 [K_old, K_new]."""
    pairs = np.bincount(old * shape[1] + new, minlength=shape[0] * shape[1])
    return pairs.reshape(shape).astype(np.float64)


def _below_one(distances: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Scale distances so that all those of an assignment together count less than one item."""
    largest = float(np.max(distances, initial=0.0))
    return np.asarray(distances, np.float64) / (largest * (len(distances) + 1) or 1.0)


def _assign_names(gain: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return a name for each new code, int64 [K_new], with the highest total of `gain` [K_old, K_new]."""
    from scipy.optimize import linear_sum_assignment

    n_old, n_new = gain.shape
    owned, codes = linear_sum_assignment(gain[: min(n_old, n_new)], maximize=True)
    names = np.full(n_new, -1, np.int64)
    names[codes] = owned
    names[names < 0] = np.setdiff1d(np.arange(n_new), owned)
    return names
