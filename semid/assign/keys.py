"""Codes as sortable keys: one machine word an ID where that fits, a byte string where it does not.

Keys compare as codes do, level 0 first, so sorting keys sorts IDs and puts equal prefixes together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["code_dtype", "pack", "rank_within", "run_starts"]

WORD = 2**64


def pack(codes: npt.NDArray[np.integer], sizes: Sequence[int]) -> npt.NDArray[Any]:
    """Return one key for each row of `codes` [..., L]: uint64 in mixed radix, or bytes when ∏K is above 2^64.

    >>> pack(np.array([[1, 2], [0, 3]]), [4, 4]).tolist()
    [6, 3]
    """
    if math.prod(sizes) <= WORD:
        keys = np.zeros(codes.shape[:-1], np.uint64)
        for level, size in enumerate(sizes):
            keys *= np.uint64(size)
            keys += codes[..., level].astype(np.uint64)
        return keys
    # NumPy ignores trailing zero bytes when it compares byte strings; equal lengths make that harmless.
    big_endian = np.ascontiguousarray(codes.astype(">u4"))
    return big_endian.view(f"S{4 * len(sizes)}")[..., 0]


def code_dtype(sizes: Sequence[int]) -> np.dtype:
    """Return the dtype that codes are stored in: uint16, or int32 if a level has more than 65,536 codes."""
    return np.dtype(np.uint16 if max(sizes, default=0) <= 2**16 else np.int32)


def run_starts(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return where each run of equal neighbors begins, then the length: bounds of R runs, int64 [R + 1].

    >>> run_starts(np.array([7, 7, 2, 9, 9])).tolist()
    [0, 2, 3, 5]
    """
    if len(values) == 0:
        return np.zeros(1, np.int64)
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate(([0], changes, [len(values)])).astype(np.int64)


def rank_within(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return how many earlier rows belong to the same group, int64 [N].

    >>> rank_within(np.array([5, 3, 5, 5])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(groups, kind="stable")
    starts = run_starts(groups[order])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts[:-1], np.diff(starts))
    return ranks
