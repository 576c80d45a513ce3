"""Unique IDs for items some of which had IDs before.

`assign_unique` moves any item that does not fit under a prefix. `assign_stable` keeps chosen items under the prefix of
their first codes: where one would have to leave, its prefix is assigned again, first to the items that must stay, then
to the others. Identical items may swap their IDs, so `reuse_old_ids` gives each the one that it had.
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

__all__ = ["assign_stable", "reuse_old_ids"]

Ints = npt.NDArray[np.integer]


def assign_stable(
    latents: RowTable, codes: Ints, codebooks: Codebooks, stays: npt.NDArray[np.bool_], depth: int
) -> Assignment:
    """Assign unique IDs like `assign_unique`, but keep the first `depth` codes of some items.

    Parameters
    ----------
    latents : float [N, d]
    codes : integer [N, L]
        Raw codes.
    codebooks : Codebooks
    stays : bool [N]
        Items that keep their first `depth` codes.
    depth : int
        0 to L.

    Raises
    ------
    CapacityError
        More items must stay under a prefix than it has IDs; impossible if they had distinct IDs before.
    """
    found = assign_unique(latents, codes, codebooks.levels)
    had_to_leave = stays & (found.codes[:, :depth] != codes[:, :depth]).any(axis=1)
    if not had_to_leave.any():
        return found
    sizes = codebooks.sizes[:depth]
    wanted, given = pack(codes[:, :depth], sizes), pack(found.codes[:, :depth], sizes)
    crowded = np.unique(wanted[had_to_leave])
    others = np.flatnonzero(~stays & np.isin(given, crowded))
    assigned = found.codes.copy()
    head = dataclasses.replace(codebooks, levels=codebooks.levels[:depth])
    for prefix in crowded:
        rows = np.flatnonzero(stays & (wanted == prefix))
        left = latents[rows] - head.quantized(codes[rows])
        assigned[rows, :depth] = codes[rows, :depth]
        assigned[rows, depth:] = assign_unique(left, codes[rows, depth:], codebooks.levels[depth:]).codes
    occupied = np.delete(assigned, others, axis=0)
    assigned[others] = assign_unique(latents[others], codes[others], codebooks.levels, occupied=occupied).codes
    return _counted(Assignment(assigned, found.certificate), codes, latents, codebooks)


def reuse_old_ids(
    assignment: Assignment, codes: Ints, old_codes: Ints, latents: RowTable, codebooks: Codebooks
) -> Assignment:
    """Swap IDs among items with equal latents, so that each has its old ID if one of them has it.

    Parameters
    ----------
    assignment : Assignment
    codes : integer [N, L]
        Raw codes, which the certificate compares with.
    old_codes : integer [N, L_old]
        Rows that are not IDs of these codebooks are ignored.
    latents : float [N, d]
    codebooks : Codebooks
    """
    sizes, assigned = codebooks.sizes, assignment.codes.copy()
    if old_codes.shape != assigned.shape:
        return assignment
    valid = ((old_codes >= 0) & (old_codes < sizes)).all(axis=1)
    wanting = np.flatnonzero(valid & (old_codes != assigned).any(axis=1))
    keys, wanted = pack(assigned, sizes), pack(old_codes[wanting], sizes)
    order = np.argsort(keys, kind="stable")
    holders = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    held = keys[holders] == wanted
    wanting, holders, wanted = wanting[held], holders[held], wanted[held]
    equal = (latents[wanting] == latents[holders]).all(axis=1)
    if not equal.any():
        return assignment
    now: dict[object, int] = {}  # key -> row that has it after the swaps so far
    for row, holder, key in zip(wanting[equal].tolist(), holders[equal].tolist(), wanted[equal].tolist(), strict=True):
        holder = now.get(key, holder)
        assigned[[row, holder]] = assigned[[holder, row]]
        keys[[row, holder]] = keys[[holder, row]]
        now |= {keys[row].item(): row, keys[holder].item(): holder}
    return _counted(Assignment(assigned, assignment.certificate), codes, latents, codebooks)


def _counted(assignment: Assignment, codes: Ints, latents: RowTable, codebooks: Codebooks) -> Assignment:
    """Return the assignment with the certificate's figures counted again."""
    assigned = assignment.codes
    errors = squared_errors(latents, assigned, [level.astype(np.float64) for level in codebooks.levels])
    certificate = dataclasses.replace(
        assignment.certificate,
        n_unique=len(np.unique(pack(assigned, codebooks.sizes))),
        moved_items=int((assigned != codes).any(axis=1).sum()),
        moved_prefix=int((assigned[:, :-1] != codes[:, :-1]).any(axis=1).sum()),
        distortion_after=math.fsum(errors.tolist()) / len(assigned),
    )
    return Assignment(assigned, certificate)
