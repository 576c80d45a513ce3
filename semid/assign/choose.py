"""Choose how colliding codes become unique: by the config's method, and by how many items there are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semid.assign.global_search import assign_global
from semid.assign.unique import MANY_ITEMS, Assignment, assign_by_first_code, assign_unique
from semid.quantize.codebooks import Codebooks
from semid.runtime.tables import RowTable

__all__ = ["assign"]


def assign(latents: RowTable, codes: npt.NDArray[np.integer], codebooks: Codebooks, how: str) -> Assignment:
    """Give every item a unique ID as near to its latent as the other items allow.

    Parameters
    ----------
    latents : float [N, d]
        What the codes stand for, in canonical order: ties go to the earlier row.
    codes : integer [N, L]
        Raw codes, which may collide.
    codebooks : Codebooks
        L levels; K_l x d each.
    how : "local" or "global"
        "local" keeps every prefix that has room (`assign_unique`; from 10 million items on one first code at a time,
        `assign_by_first_code`). "global" searches all prefixes (`assign_global`).

    Returns
    -------
    Assignment
        Unique codes and their certificate.

    Raises
    ------
    CapacityError
        More items than IDs.
    """
    if how == "global":
        return assign_global(latents, codes, codebooks.levels)
    if len(codes) >= MANY_ITEMS:
        return assign_by_first_code(latents, codes, codebooks.levels)
    return assign_unique(latents, codes, codebooks.levels)
