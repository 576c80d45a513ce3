"""Filters of generation: which items are admitted, told from an interval of ranks.

The rank of an item is its place in the catalog sorted by codes (`trie.py`); below every node of the trie
lies an interval of ranks. `counts[r]` admitted items stand before rank r, so an interval holds an admitted one
exactly if the counts at its ends differ. A request's own few bans are a sorted list beside that sum, so they
cost nothing that grows with the catalog.

A rank means an item in one trie alone: after a change another item may stand there, however many there are. So a filter
says which trie it was made from (`Origin`), and whatever applies it checks that.
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
FEW = 4096  # bans kept as a list; more of them go into the counts


@dataclass(frozen=True)
class Origin:
    """What ranks mean, told by content: equal for the same trie in another process, or opened from its file.

    >>> one, other = (Origin.of([np.arange(n)], ids) for n, ids in ((3, "a"), (4, None)))
    >>> one.agrees(Origin(one.ranks, None)), one.agrees(Origin(one.ranks, "b")), one.agrees(other)
    (True, False, False)
    """

    ranks: str  # digest of the codes, and of the rows that they belong to
    ids: str | None  # digest of the item ids, up to the last such row; None for a trie of codes, which knows none

    @classmethod
    def of(cls, arrays: Iterable[np.ndarray], ids: str | None) -> Origin:
        """From the arrays that say which codes each row has: some 10 ms for a million items."""
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(f"{array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        return cls(digest.hexdigest(), ids)

    def agrees(self, other: Origin) -> bool:
        """Do equal ranks mean equal items, as far as both know? A trie of rows alone agrees with any ids."""
        return self.ranks == other.ranks and (None in (self.ids, other.ids) or self.ids == other.ids)


def ids_digest(parts: Sequence[PackedStrings], n: int) -> str:
    """Digest of the first n strings of several tables, the same however they are cut into tables.

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
    """Admits some of N ranks; made by `Trie.filter`.

    >>> Filter(5).narrowed(None, np.array([0, 1])).admits(np.array([0, 0]), np.array([2, 3])).tolist()
    [False, True]
    """

    n_items: int
    counts: npt.NDArray[np.int32] | None = None  # (N + 1,) - admitted ranks before each; None: all are admitted
    banned: npt.NDArray[np.int64] | None = None  # distinct, ascending, admitted by `counts`; None: no more bans
    origin: Origin | None = None  # of the trie whose ranks these are; None fits no trie

    @cached_property
    def n_admitted(self) -> int:
        """How many items can be generated."""
        by_counts = self.n_items if self.counts is None else int(self.counts[-1])
        return by_counts - (0 if self.banned is None else len(self.banned))

    def check(self, origin: Origin, n_items: int, name: str) -> None:
        """ConfigError unless made from the trie of this origin and size; `name` is the argument, for the error."""
        if self.origin is None or not self.origin.agrees(origin):
            other = f"of {self.n_items} items, this one has {n_items}"
            if self.n_items == n_items:
                other = f"of {n_items} items too, but not the same"
            raise ConfigError(f"{name}: made from another trie, {other}. Make it again with trie.filter(...).")

    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [N]: which ranks are admitted."""
        mask = np.ones(self.n_items, np.bool_) if self.counts is None else np.diff(self.counts) > 0
        if self.banned is not None:
            mask[self.banned] = False
        return mask

    def narrowed(self, only: npt.NDArray[np.int64] | None, without: npt.NDArray[np.int64] | None) -> Filter:
        """This filter with all but the ranks `only` and with the ranks `without` banned; both distinct, ascending.

        ConfigError if that leaves nothing.
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
        if self.counts is not None:  # a rank is subtracted once: not if the counts leave it out already
            ranks = ranks[self.counts[ranks + 1] > self.counts[ranks]]
        return ranks if self.banned is None else np.union1d(self.banned, ranks)

    def admits(self, start: npt.NDArray[np.integer], stop: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """bool, of the arguments' shape: does start:stop hold an admitted rank?"""
        admitted = stop - start if self.counts is None else self.counts[stop] - self.counts[start]
        if self.banned is not None:
            admitted = admitted - (np.searchsorted(self.banned, stop) - np.searchsorted(self.banned, start))
        return admitted > 0


def chosen_rows(items: Chosen, n_rows: int, ledger: Ledger | None, name: str) -> npt.NDArray[np.int64]:
    """Rows of a table of items, chosen by ids, by rows, or by bool [n_rows]; `name` is the argument, for errors.

    Raises
    ------
    InputError
        None of the three, or rows that the table has not.
    UnknownIDError
        An id that the table has not.
    ConfigError
        Ids, and no ledger that knows them.

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
            raise ConfigError(f"{name}: this trie was made from codes and knows no item ids. Give rows.")
        return ledger.rows_of(items)
    rows = np.asarray(items) if len(items) else np.zeros(0, np.int64)
    if rows.dtype == np.bool_:
        if rows.shape != (n_rows,):
            raise InputError(f"{name}: shape={rows.shape} should be [{n_rows}], one bool an item.")
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"{name}: should be item ids, rows, or bool [{n_rows}].")
    if len(rows) and (rows.min() < 0 or rows.max() >= n_rows):
        raise InputError(f"{name}: rows {rows.min()}..{rows.max()} should be inside 0..{n_rows - 1}.")
    return rows.astype(np.int64)
