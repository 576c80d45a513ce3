"""Codes in; one ID per item out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from semid.assign.unique import MANY_ITEMS, assign_in_parts
from semid.quantize.codebooks import Codebooks
from semid.runtime.tables import RowTable

if TYPE_CHECKING:
    from semid.assign.unique import Assignment


def _assign(latents: RowTable, raw_codes: np.ndarray, codebooks: Codebooks, how: str) -> Assignment:
    if how == "global":
        from semid.assign.global_search import assign_global

        return assign_global(latents, raw_codes, codebooks.levels)
    if len(raw_codes) >= MANY_ITEMS:
        return assign_in_parts(latents, raw_codes, codebooks.levels)
    from semid.assign.unique import assign_unique

    return assign_unique(latents, raw_codes, codebooks.levels)
