"""Filters: which items may be generated, answered for any interval of ranks.

The rank of an item is its place in the catalog sorted by codes (`trie.py`); below every node of the trie lies an
interval of ranks. `counts[r]` is the number of admitted items before rank r, so an interval holds an admitted item
exactly if the counts at its ends differ. The few items that a single request bans are kept as a sorted list beside the
counts, so they cost nothing that grows with the catalog.

A rank names an item in one trie only: in a changed catalog another item may have it, even if the number of items is the
same. So a filter records which trie it was made from (`Origin`), and whatever applies it checks that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError

if TYPE_CHECKING:
    from semid.data.strings import PackedStrings
    from semid.ledger.ledger import Ledger

__all__ = ["Chosen", "Filter", "Origin", "chosen_rows", "ids_digest"]

Chosen = Iterable[str] | Iterable[int] | npt.NDArray[np.bool_]  # item ids, rows, or one bool a row
FEW = 4096  # at most so many bans are kept as a list; more go into the counts


@dataclass(frozen=True)
class Origin:
    """A digest of what ranks mean: equal for the same trie in another process or read from its file.

    >>> one, other = (Origin.of([np.arange(n)], ids) for n, ids in ((3, "a"), (4, None)))
    >>> one.agrees(Origin(one.ranks, None)), one.agrees(Origin(one.ranks, "b")), one.agrees(other)
    (True, False, False)
    """

    ranks: str  # digest of the codes and of the rows they belong to
    ids: str | None  # digest of the item ids up to the last such row; None for a trie made from codes

    @classmethod
    def of(cls, arrays: Iterable[np.ndarray], ids: str | None) -> Origin:
        """Digest the arrays that say which codes each row has; about 10 ms for a million items."""
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(f"{array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        return cls(digest.hexdigest(), ids)

    def agrees(self, other: Origin) -> bool:
        """Return whether equal ranks mean equal items. An origin without ids agrees with any ids."""
        return self.ranks == other.ranks and (None in (self.ids, other.ids) or self.ids == other.ids)


def ids_digest(parts: Sequence[PackedStrings], n: int) -> str:
    """Return a digest of the first n strings of several tables, independent of how they are cut into tables.

    >>> from semid.data.strings import PackedStrings
    >>> one, a, b = (PackedStrings.pack(ids) for ids in (["a", "b", "c"], ["a"], ["b"]))
    >>> ids_digest([one], 2) == ids_digest([a, b], 2) != ids_digest([a, b], 1)
    True
    """
    digest, lengths = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for part in parts:
        offsets = part.offsets[: min(len(part), n) + 1]
        n -= len(offsets) - 1
        digest.update(np.ascontiguousarray(part.data[offsets[0] : offsets[-1]]).data)
        lengths.update(np.diff(offsets).astype("<i8").data)
    digest.update(lengths.digest())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Filter:
    """Admit some of N ranks; made by `Trie.filter`.

    >>> Filter(5).narrowed(None, np.array([0, 1])).admits(np.array([0, 0]), np.array([2, 3])).tolist()
    [False, True]
    """

    n_items: int
    counts: npt.NDArray[np.int32] | None = None  # (N + 1,) - admitted ranks before each rank; None: all are admitted
    banned: npt.NDArray[np.int64] | None = None  # distinct ascending ranks that `counts` admits; None: no further bans
    origin: Origin | None = None  # of the trie it was made from; None fits no trie

    @cached_property
    def n_admitted(self) -> int:
        """Number of items that can be generated."""
        by_counts = self.n_items if self.counts is None else int(self.counts[-1])
        return by_counts - (0 if self.banned is None else len(self.banned))

    def check(self, origin: Origin, n_items: int, name: str) -> None:
        """Raise ConfigError unless made from the trie of this origin and size; the error names the argument `name`."""
        if self.origin is None or not self.origin.agrees(origin):
            other = f"of {self.n_items} items, this one has {n_items}"
            if self.n_items == n_items:
                other = f"of {n_items} items too, but not the same"
            raise ConfigError(f"{name}: made from another trie, {other}. Make it again with trie.filter(...).")

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return which ranks are admitted, bool [N]."""
        mask = np.ones(self.n_items, np.bool_) if self.counts is None else np.diff(self.counts) > 0
        if self.banned is not None:
            mask[self.banned] = False
        return mask

    def narrowed(self, only: npt.NDArray[np.int64] | None, without: npt.NDArray[np.int64] | None) -> Filter:
        """Return a narrower filter.

        Parameters
        ----------
        only
            Distinct ascending ranks; all others are banned. None: ban no others.
        without
            Distinct ascending ranks to ban. None: ban none.

        Raises
        ------
        ConfigError
            No item would be left.
        """
        banned = self._more_banned(without) if only is None else None
        if only is None and (banned is None or len(banned) <= FEW):
            narrower = replace(self, banned=banned)
        else:
            mask = self.mask()
            if only is not None:
                kept = np.zeros_like(mask)
                kept[only] = True
                mask &= kept
            if without is not None:
                mask[without] = False
            counts = np.zeros(self.n_items + 1, np.int32)
            np.cumsum(mask, out=counts[1:])
            narrower = replace(self, counts=counts, banned=None)
        if not narrower.n_admitted:
            raise ConfigError(
                f"the filter bans all {self.n_items} items, so nothing could be generated. Admit at least one."
            )
        return narrower

    def _more_banned(self, ranks: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64] | None:
        if ranks is None or not len(ranks):
            return self.banned
        if self.counts is not None:  # the counts leave some out already: do not subtract them twice
            ranks = ranks[self.counts[ranks + 1] > self.counts[ranks]]
        return ranks if self.banned is None else np.union1d(self.banned, ranks)

    def admits(self, start: npt.NDArray[np.integer], stop: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return whether start:stop holds an admitted rank, bool of their shape."""
        admitted = stop - start if self.counts is None else self.counts[stop] - self.counts[start]
        if self.banned is not None:
            admitted = admitted - (np.searchsorted(self.banned, stop) - np.searchsorted(self.banned, start))
        return admitted > 0


def chosen_rows(items: Chosen, n_rows: int, ledger: Ledger | None, name: str) -> npt.NDArray[np.int64]:
    """Return the row numbers of chosen items, int64.

    Parameters
    ----------
    items
        Item ids, row numbers, or bool [n_rows].
    n_rows
        Rows of the table of items.
    ledger
        The table, which resolves ids; None if it is not at hand.
    name
        The caller's argument, for error messages.

    Raises
    ------
    InputError
        `items` are none of the three, or row numbers are out of range.
    UnknownIDError
        An id is not in the table.
    ConfigError
        Ids were given, but no ledger.

    >>> chosen_rows(np.array([True, False, True]), 3, None, "only").tolist()
    [0, 2]
    """
    if isinstance(items, str):
        items = [items]
    if not isinstance(items, Iterable) or (isinstance(items, np.ndarray) and items.ndim != 1):
        raise InputError(f"{name}={items!r:.80} should be item ids, rows, or bool [{n_rows}].")
    items = items if isinstance(items, np.ndarray) else list(items)
    if len(items) and all(isinstance(item, str) for item in items):
        if ledger is None:
            raise ConfigError(f"{name}: this trie was made from codes and has no item ids. Give rows.")
        return ledger.rows_of(items)
    rows = np.asarray(items) if len(items) else np.zeros(0, np.int64)
    if rows.dtype == np.bool_:
        if rows.shape != (n_rows,):
            raise InputError(f"{name}: shape={rows.shape} should be [{n_rows}], one bool per item.")
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"{name}: should be item ids, rows, or bool [{n_rows}].")
    if len(rows) and (rows.min() < 0 or rows.max() >= n_rows):
        raise InputError(f"{name}: rows {rows.min()}..{rows.max()} should be inside 0..{n_rows - 1}.")
    return rows.astype(np.int64)
