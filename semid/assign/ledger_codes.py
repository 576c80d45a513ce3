"""The codes of a ledger as an assignment asks about them: prefix by prefix, never all of them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.assign.lookup import code_keys, find_codes
from semid.assign.new_rows import MAX_CODE

if TYPE_CHECKING:
    from semid.assign.ledger import Ledger

__all__ = ["LedgerCodes"]


class LedgerCodes:
    """The codes of a ledger as `occupancy.InUse`: only the prefixes asked about are looked up."""

    def __init__(self, ledger: Ledger, reuse_after: int | None) -> None:
        self._ledger, self._reuse_after = ledger, reuse_after

    def __len__(self) -> int:
        """How many IDs are in use: not the free ones of retired items, and each once, whoever else had it before."""
        return self._n_in_use

    @cached_property
    def _n_in_use(self) -> int:
        ledger = self._ledger
        retired = np.concatenate([segment.retired.rows for segment in ledger.segments])
        last = ledger.takers(ledger.codes_of(retired), self._reuse_after)
        return ledger.n_live + int(np.count_nonzero(last == retired))  # not those that others have now

    def holds(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """bool [n]: which IDs [n, L] are in use."""
        return self._ledger.takers(codes, self._reuse_after) >= 0

    def under(self, prefixes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How many IDs in use each prefix [n, L - 1] has, int64 [n], and their last codes, end to end."""
        counts = np.zeros(len(prefixes), np.int64)
        owners, codes = [], []
        for one in self._ledger.segments:
            first, end = (
                find_codes(_extended(prefixes, last), one.codes, one.code_order, side=side)
                for last, side in ((0, "left"), (MAX_CODE, "right"))
            )
            n = end - first
            owner = np.repeat(np.arange(len(prefixes)), n)
            rows = one.code_order[np.arange(n.sum()) + np.repeat(first - (np.cumsum(n) - n), n)].astype(np.int64)
            owners.append(owner)
            codes.append(one.codes[rows])
        owner, found = np.concatenate(owners), np.concatenate(codes)
        kept = self.holds(found) if self._reuse_after is not None else np.ones(len(found), np.bool_)
        pairs = np.unique(np.stack((owner[kept], found[kept, -1].astype(np.int64)), axis=1), axis=0)
        counts[:] = np.bincount(pairs[:, 0], minlength=len(prefixes))
        return counts, pairs[:, 1]


def _extended(prefixes: npt.NDArray[np.integer], last: int) -> npt.NDArray:
    """Sortable keys of the prefixes with `last` as the last code."""
    column = np.full((len(prefixes), 1), last)
    return code_keys(np.concatenate((prefixes, column), axis=1).astype(np.uint16))
