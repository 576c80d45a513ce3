"""One item, one ID, where items have had IDs before.

`assign_unique` moves what does not fit under a prefix to the nearest prefix with room, whoever it is. Here some items
may not leave the prefix of their first codes (`assign_keeping`): where one had to, its prefix is dealt again, to those
who must stay first and then to the others. And where items are identical, any of them may have any of their IDs, so
each gets the one that it has had (`with_old_ids`).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from semid.assign.distances import squared_errors
from semid.assign.keys import pack
from semid.assign.unique import Assignment, assign_unique
from semid.quantize.codebooks import Codebooks
from semid.runtime.tables import RowTable

__all__ = ["assign_keeping", "with_old_ids"]

Ints = npt.NDArray[np.integer]


def assign_keeping(
    latents: RowTable, codes: Ints, codebooks: Codebooks, stays: npt.NDArray[np.bool_], depth: int
) -> Assignment:
    """`assign_unique` for codes [N, L], but the rows of `stays` [N] keep their first `depth` codes.

    Raises CapacityError if more rows must stay under a prefix than it has IDs, which cannot be where they have had
    distinct ones.
    """
    found = assign_unique(latents, codes, codebooks.levels)
    had_to_leave = stays & (found.codes[:, :depth] != codes[:, :depth]).any(axis=1)
    if not had_to_leave.any():
        return found
    sizes = codebooks.sizes[:depth]
    wanted, given = pack(codes[:, :depth], sizes), pack(found.codes[:, :depth], sizes)
    crowded = np.unique(wanted[had_to_leave])
    others = np.flatnonzero(~stays & np.isin(given, crowded))
    dealt = found.codes.copy()
    head = dataclasses.replace(codebooks, levels=codebooks.levels[:depth])
    for prefix in crowded:
        rows = np.flatnonzero(stays & (wanted == prefix))
        left = latents[rows] - head.quantized(codes[rows])
        dealt[rows, :depth] = codes[rows, :depth]
        dealt[rows, depth:] = assign_unique(left, codes[rows, depth:], codebooks.levels[depth:]).codes
    occupied = np.delete(dealt, others, axis=0)
    dealt[others] = assign_unique(latents[others], codes[others], codebooks.levels, occupied=occupied).codes
    return _counted(Assignment(dealt, found.certificate), codes, latents, codebooks)


def with_old_ids(
    assignment: Assignment, codes: Ints, old_codes: Ints, latents: RowTable, codebooks: Codebooks
) -> Assignment:
    """The same IDs, dealt again among items with equal latents, so that each has its old one if that is among them.

    Parameters
    ----------
    codes : integer [N, L], those that the certificate compares with.
    old_codes : integer [N, L_old]; rows that are no ID of these codebooks are passed over.
    """
    sizes, dealt = codebooks.sizes, assignment.codes.copy()
    if old_codes.shape != dealt.shape:
        return assignment
    valid = ((old_codes >= 0) & (old_codes < sizes)).all(axis=1)
    wanting = np.flatnonzero(valid & (old_codes != dealt).any(axis=1))
    keys, wanted = pack(dealt, sizes), pack(old_codes[wanting], sizes)
    order = np.argsort(keys, kind="stable")
    holders = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    held = keys[holders] == wanted
    wanting, holders, wanted = wanting[held], holders[held], wanted[held]
    equal = (latents[wanting] == latents[holders]).all(axis=1)
    if not equal.any():
        return assignment
    now: dict[object, int] = {}  # key -> row that has it after the exchanges so far
    for row, holder, key in zip(wanting[equal].tolist(), holders[equal].tolist(), wanted[equal].tolist(), strict=True):
        holder = now.get(key, holder)
        dealt[[row, holder]] = dealt[[holder, row]]
        keys[[row, holder]] = keys[[holder, row]]
        now |= {keys[row].item(): row, keys[holder].item(): holder}
    return _counted(Assignment(dealt, assignment.certificate), codes, latents, codebooks)


def _counted(assignment: Assignment, codes: Ints, latents: RowTable, codebooks: Codebooks) -> Assignment:
    """With the figures of the certificate that a second deal changes."""
    dealt = assignment.codes
    errors = squared_errors(latents, dealt, [level.astype(np.float64) for level in codebooks.levels])
    certificate = dataclasses.replace(
        assignment.certificate,
        n_unique=len(np.unique(pack(dealt, codebooks.sizes))),
        moved_items=int((dealt != codes).any(axis=1).sum()),
        moved_prefix=int((dealt[:, :-1] != codes[:, :-1]).any(axis=1).sum()),
        distortion_after=math.fsum(errors.tolist()) / len(dealt),
    )
    return Assignment(dealt, certificate)
