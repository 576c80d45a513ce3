"""Check that there are enough IDs before any work is done, and name sizes that suffice."""

from __future__ import annotations

import math
from collections.abc import Sequence

from semid.errors import CapacityError

__all__ = ["check_capacity"]

USUAL_SIZE = 256


def check_capacity(n_items: int, sizes: Sequence[int], *, occupied: int = 0) -> None:
    """Raise CapacityError, naming sizes that suffice, if there are more items than free IDs.

    Parameters
    ----------
    n_items : int
        Items that need an ID.
    sizes : L ints
        K of each level.
    occupied : int
        IDs already assigned.

    >>> check_capacity(65_536, [256, 256])
    >>> check_capacity(70_000, [256, 256])
    Traceback (most recent call last):
    semid.errors.CapacityError: n_items=70000 should be <= 65536 = 256 x 256, the room of 2 levels of 256 \
codes. Use --levels 3.
    """
    room = math.prod(sizes)
    if n_items + occupied <= room:
        return
    product = " = ".join([str(room), " x ".join(map(str, sizes))][: len(sizes)])
    levels = "1 level" if len(sizes) == 1 else f"{len(sizes)} levels"
    codes = " and ".join(filter(None, [", ".join(map(str, sizes[:-1])), str(sizes[-1])]))
    if len(set(sizes)) == 1:
        codes = str(sizes[0])
    bound = f"{product}, the room of {levels} of {codes} codes"
    if occupied:
        bound = f"{room - occupied}: {bound}, less {occupied} IDs already given out"
    raise CapacityError(f"n_items={n_items} should be <= {bound}. Use {_remedy(n_items + occupied, sizes)}.")


def _remedy(n_items: int, sizes: Sequence[int]) -> str:
    """Return the options that make room: the given sizes with more levels."""
    if max(sizes) == 1:
        sizes = [USUAL_SIZE] * len(sizes)
        changed = True
    else:
        changed = len(set(sizes)) > 1
    grown = list(sizes)
    while math.prod(grown) < n_items:
        grown.append(max(sizes))
    if not changed:
        return f"--levels {len(grown)}"
    named = {str(size): None for size in grown} if len(set(grown)) == 1 else map(str, grown)
    return f"--levels {len(grown)} --codebook-size {','.join(named)}"
