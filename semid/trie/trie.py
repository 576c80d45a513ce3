"""The prefix index of a catalog: which codes may follow a prefix, and which item an ID belongs to.

A trie over codes, not over token ids, in three arrays that can be memory-mapped. Its nodes are the distinct
prefixes, numbered level by level: the root, the prefixes of one code, of two, ..., the items, each level in
lexicographic order. Everything else rests on two facts:

- the children of a node are consecutive, so `ptr[node]:ptr[node + 1]` are its children;
- the items below a node are consecutive too: an interval of *ranks*, where the rank of an item is its place in the
  catalog sorted by codes. A filter counts the admitted items before each rank (`filters.py`), so a node leads to an
  admitted item exactly if its interval holds one.

Not here: the file (`file.py`), torch (`tokenizer_exports/generate/trie_tensors.py`), generation. N items, L levels,
K codes in a level.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.assign.keys import pack, run_starts
from semid.errors import ArtifactError, CapacityError, ConfigError, InputError
from semid.ledger.ledger import Ledger
from semid.tokens.block import TokenTable, find_base
from semid.tokens.vocabulary import Vocabulary
from semid.trie.file import TrieFields, read_trie, write_trie
from semid.trie.filters import Chosen, Filter, Origin, chosen_rows, ids_digest

if TYPE_CHECKING:
    from semid.state import TokenizerState

__all__ = ["Trie"]

logger = logging.getLogger("semid")

SAMPLE = 64  # items compared to check that a trie belongs to an artifact
MAX_NODES = 2**31 - 1  # nodes are stored as int32


@dataclass(frozen=True, eq=False, repr=False)
class Trie:
    """Accept exactly the live items of a catalog. Make one with `from_tokenizer` or `from_codes`.

    >>> trie = Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4))
    >>> trie
    Trie(3 items, 2x4)
    >>> codes, children, valid = trie.children(np.array([0]))        # of the root
    >>> codes[valid].tolist()
    [0, 3]
    >>> trie.rows_of(trie.walk([[3, 0], [3, 1]])).tolist()            # the row of the item, -1 if there is none
    [2, -1]
    >>> trie.matched([[0, 2], [0, 3], [1, 1]]).tolist()               # leading codes that some item has
    [2, 1, 0]
    """

    sizes: tuple[int, ...]  # (L,) - K of each level
    level_starts: tuple[int, ...]  # (L + 2,) - level_starts[d]:level_starts[d + 1] are the nodes of depth d
    codes: npt.NDArray[np.unsignedinteger]  # (nodes,), uint8 or uint16 - the last code of each prefix; 0 at the root
    ptr: npt.NDArray[np.int32]  # (inner nodes + 1,) - the first child of each node above the items
    rows: npt.NDArray[np.int32]  # (N,) - the row of each rank in the table of items
    n_rows: int  # rows of that table, including those that the trie leaves out
    base: int | None = None  # token id of the first code in the language model; None if unknown
    ledger: Ledger | None = None  # the table of items; None if the trie was made from codes or a file alone
    ids: str | None = None  # digest of the item ids as read from a file; see `origin`

    # ---- making

    @classmethod
    def from_tokenizer(
        cls, ids: TokenizerState, tokenizer: TokenTable | None = None, *, base: int | None = None
    ) -> Trie:
        """Return the trie of an artifact's live items.

        Parameters
        ----------
        ids
            The artifact, for instance a `SemanticIDTokenizer`.
        tokenizer
            The language model's tokenizer, extended with the tokens of `ids`. Gives `base`.
        base
            The token id of the first code, instead of `tokenizer`. Default: the one that `semid extend` wrote into the
            artifact; if there is none, the trie works on codes but not on token ids.

        Raises
        ------
        ConfigError
            The tokenizer lacks the tokens, or the catalog has no live item.
        """
        if tokenizer is not None:
            base = find_base(ids.vocabulary, tokenizer)
        elif base is None:
            base = ids.base
        return cls.from_ledger(ids.ledger, ids.sizes, base=base)

    @classmethod
    def from_ledger(cls, ledger: Ledger, sizes: Sequence[int], *, base: int | None = None) -> Trie:
        """Return the trie of a table's live items. Sorts nothing, since the table keeps the order of its codes."""
        rows = ledger.code_order
        if not ledger.live.all():
            rows = rows[ledger.live[rows]]
        return cls._build(ledger.codes, rows, tuple(sizes), base=base, ledger=ledger)

    @classmethod
    def from_codes(cls, codes: npt.ArrayLike, sizes: Sequence[int], *, base: int | None = None) -> Trie:
        """Return the trie of distinct codes.

        Parameters
        ----------
        codes
            Integers [N, L]; row i is item i.
        sizes
            K of each level, L numbers.
        base
            Token id of the first code in a language model. Default: None, codes alone.

        Raises
        ------
        InputError
            Codes are out of range, or two rows have the same codes.
        ConfigError
            There is no row, or the sizes are impossible.
        """
        codes, sizes = np.asarray(codes), Vocabulary(tuple(sizes)).sizes  # the vocabulary checks them
        if codes.ndim != 2 or codes.shape[1] != len(sizes) or codes.dtype.kind not in "iu":
            raise InputError(f"codes: shape={codes.shape} dtype={codes.dtype} should be integers [N, {len(sizes)}].")
        wrong = np.argwhere((codes < 0) | (codes >= np.array(sizes)))
        if len(wrong):
            row, level = wrong[0].tolist()
            raise InputError(f"codes[{row}, {level}]={codes[row, level]} should be below sizes={list(sizes)}.")
        codes = codes.astype(np.uint16)
        order = np.argsort(pack(codes, sizes)).astype(np.int32)
        return cls._build(codes, order, sizes, base=base)

    @classmethod
    def _build(
        cls,
        codes: npt.NDArray[np.uint16],
        rows: npt.NDArray[np.int32],
        sizes: tuple[int, ...],
        *,
        base: int | None,
        ledger: Ledger | None = None,
    ) -> Trie:
        """Build from codes [n_rows, L] and N of their row numbers, in lexicographic order of the codes."""
        if not len(rows):
            raise ConfigError("the catalog has no live item, so there is nothing to generate. Add items first.")
        narrow = np.uint8 if max(sizes) <= 256 else np.uint16
        n_items = len(rows)
        ordered = codes.take(rows, axis=0)  # four times as fast as indexing
        first = np.zeros(n_items, np.bool_)  # whether each rank is the first with its prefix
        first[0] = True
        parents = np.zeros(1, np.int64)  # first rank of each node of the level above, here the root
        level_codes, pointers, starts = [np.zeros(1, narrow)], [], [0, 1]
        for level in range(len(sizes)):
            column = ordered[:, level].astype(narrow)
            first[1:] |= column[1:] != column[:-1]
            ranks = np.flatnonzero(first)
            child = np.cumsum(first, dtype=np.int32)  # of each rank, counted from 1
            pointers.append(child[parents] + np.int32(starts[-1] - 1))
            level_codes.append(column[ranks])
            starts.append(starts[-1] + len(ranks))
            if starts[-1] > MAX_NODES:
                raise CapacityError(f"n_nodes={starts[-1]} should be at most {MAX_NODES}. Split the catalog.")
            parents = ranks
        if len(parents) != n_items:
            twice = ordered[np.argmin(first)]
            a, b, *_ = np.flatnonzero((codes == twice).all(axis=1)).tolist()
            raise InputError(f"codes: rows {a} and {b} both have {twice.tolist()}. Each item needs its own codes.")
        pointers.append(np.array([starts[-1]], np.int32))
        return cls(
            sizes, tuple(starts), np.concatenate(level_codes), np.concatenate(pointers), rows, len(codes), base, ledger
        )

    # ---- figures

    def __len__(self) -> int:
        """Return N, the number of items."""
        return len(self.rows)

    def __repr__(self) -> str:
        """Return one line: items, levels and codes, and the base if it is known.

        >>> Trie.from_codes([[0, 1]], sizes=(2, 4), base=50257)
        Trie(1 item, sizes=(2, 4), base=50257)
        """
        parts = [f"{len(self)} item{'s' * (len(self) != 1)}"]
        parts.append(f"{self.n_levels}x{self.sizes[0]}" if len(set(self.sizes)) == 1 else f"sizes={self.sizes}")
        return f"Trie({', '.join(parts)}{'' if self.base is None else f', base={self.base}'})"

    def __getstate__(self) -> dict[str, object]:
        """Pickle and copy the fields alone, without what was computed from them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def n_levels(self) -> int:
        """Number of levels, L."""
        return len(self.sizes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """(L + 1,): level l begins at token id base + offsets[l]; the last entry is the number of codes."""
        return tuple(int(offset) for offset in np.concatenate([[0], np.cumsum(self.sizes)]))

    @cached_property
    def fanout(self) -> tuple[int, ...]:
        """(L,): the largest number of children of a node at each depth 0 ... L - 1."""
        counts, starts = np.diff(self.ptr), self.level_starts
        return tuple(int(counts[starts[depth] : starts[depth + 1]].max()) for depth in range(self.n_levels))

    @property
    def nbytes(self) -> int:
        """Bytes of the prefix index, without `rows` (4 bytes per item; the ledger's own if all items are live)."""
        return self.codes.nbytes + self.ptr.nbytes

    def with_base(self, base: int) -> Trie:
        """Return this trie for a language model in which the first code has the token id `base`."""
        return replace(self, base=base)

    # ---- walking: nodes are integers, -1 means no node

    def walk(self, prefixes: npt.ArrayLike, nodes: npt.NDArray[np.integer] | None = None) -> npt.NDArray[np.int64]:
        """Return the node of each prefix, int64 [R]; -1 where no item begins with it.

        Parameters
        ----------
        prefixes
            Codes, integers [R, d], 0 <= d <= L.
        nodes
            Where each walk starts, integers [R]. Default: the root.

        Raises
        ------
        InputError
            `prefixes` are not integers [R, d].
        """
        *_, last = self._steps(prefixes, nodes)
        return last

    def matched(self, codes: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return how many leading codes of each row [R, d] are the beginning of an item, int64 [R]."""
        steps = self._steps(codes)
        depth = np.zeros(len(next(steps)), np.int64)
        for nodes in steps:
            depth += nodes >= 0
        return depth

    def contains(self, codes: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which rows of codes [R, L] belong to an item, bool [R]."""
        return self.is_item(self.walk(codes))

    def _steps(
        self, prefixes: npt.ArrayLike, nodes: npt.NDArray[np.integer] | None = None
    ) -> Iterator[npt.NDArray[np.int64]]:
        prefixes = np.asarray(prefixes)
        if prefixes.ndim != 2 or (prefixes.size and prefixes.dtype.kind not in "iu"):
            raise InputError(f"prefixes: shape={prefixes.shape} dtype={prefixes.dtype} should be integers [R, d].")
        here = np.zeros(len(prefixes), np.int64) if nodes is None else np.asarray(nodes, np.int64)
        yield here
        for column in prefixes.astype(np.int64).T:
            here = self._child(here, column)
            yield here

    def _child(self, nodes: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the child of each node with the given code, -1 if there is none, by bisection in all rows at once."""
        low, high = self._bounds(nodes)
        end = high
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) // 2
            less = (low < high) & (self.codes[np.minimum(middle, self.codes.size - 1)] < codes)
            low, high = np.where(less, middle + 1, low), np.where(less, high, middle)
        found = (low < end) & (self.codes[np.minimum(low, self.codes.size - 1)] == codes)
        return np.where(found, low, -1)

    def _bounds(self, nodes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the first child of each node [R] and one past the last; the two are equal for items and for -1."""
        nodes = np.asarray(nodes, np.int64)
        inner = (nodes >= 0) & (nodes < len(self.ptr) - 1)
        at = np.where(inner, nodes, 0)
        return np.where(inner, self.ptr[at], 0).astype(np.int64), np.where(inner, self.ptr[at + 1], 0).astype(np.int64)

    def children(
        self, nodes: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the children of each node [R]: codes int64, nodes int64 and validity bool, all [R, most children].

        Where validity is False the codes and nodes are meaningless. Items and -1 have no children.
        """
        start, stop = self._bounds(nodes)
        width = int((stop - start).max(initial=0))
        child = start[:, None] + np.arange(width)
        valid = child < stop[:, None]
        child = np.minimum(child, self.codes.size - 1)
        return self.codes[child].astype(np.int64), child, valid

    def is_item(self, nodes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return which nodes are whole IDs, bool of their shape."""
        return np.asarray(nodes) >= self.level_starts[-2]

    def ranks(self, nodes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the first rank below each node and one past the last, int64 of their shape; no node may be -1."""
        low = np.asarray(nodes, np.int64)
        high = low + 1
        inner_nodes = len(self.ptr) - 1
        for _ in range(self.n_levels):  # this holds one past a level's last node as well
            inner = low < inner_nodes
            low, high = (
                np.where(inner, self.ptr[np.where(inner, low, 0)], low),
                np.where(inner, self.ptr[np.where(inner, high, 0)], high),
            )
        return low - self.level_starts[-2], high - self.level_starts[-2]

    def codes_of(self, ranks: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the codes of the items at these ranks [R], int64 [R, L]."""
        nodes = (np.asarray(ranks, np.int64) + self.level_starts[-2]).astype(np.int32)  # the dtype of ptr: no cast
        columns = []
        for _ in range(self.n_levels):
            columns.append(self.codes[nodes].astype(np.int64))
            nodes = (np.searchsorted(self.ptr, nodes, side="right") - 1).astype(np.int32)  # the parent
        return np.stack(columns[::-1], axis=1)

    def rows_of(self, nodes: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the row of each node in the table of items, int64; -1 for a node that is not a whole ID."""
        nodes = np.asarray(nodes, np.int64)
        whole = self.is_item(nodes)
        return np.where(whole, self.rows[np.where(whole, nodes - self.level_starts[-2], 0)], -1)

    @cached_property
    def device_copies(self) -> dict[object, object]:
        """Copies of the arrays by device, made and kept by `TrieTensors.on`; they live as long as the trie."""
        return {}

    @cached_property
    def rank_of_row(self) -> npt.NDArray[np.int32]:
        """int32 [n_rows]: the inverse of `rows`; -1 for a row that the trie leaves out."""
        ranks = np.full(self.n_rows, -1, np.int32)
        ranks[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        return ranks

    # ---- filters

    @cached_property
    def origin(self) -> Origin:
        """A digest of the content, computed on first use; `base` is not part of it.

        It covers the item ids where they are known: a rebuilt catalog may give one item's row and codes to another.
        """
        ids = self.ids if self.ledger is None else ids_digest(self.ledger.item_ids.parts, int(self.rows.max()) + 1)
        return Origin.of([np.array(self.sizes), self.codes, self.ptr, self.rows], ids)

    def filter(
        self, only: Chosen | None = None, *, without: Chosen | None = None, within: Filter | None = None
    ) -> Filter:
        """Return a filter that restricts generation to some items. Costs one running sum; the trie does not change.

        Parameters
        ----------
        only, without
            Items to admit, items to ban: ids, rows of the table, or bool [n_rows]. Default: admit all, ban none.
            Retired items have no effect.
        within
            A filter to restrict further. Default: the whole catalog. Banning a few more items costs next to nothing.

        Raises
        ------
        UnknownIDError
            An id is not in the catalog.
        ConfigError
            No item is left, or `within` was made from another trie, even one that differs by a single item.

        >>> trie = Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4))
        >>> in_stock = trie.filter(only=[0, 2])
        >>> in_stock.n_admitted, trie.filter(without=[2], within=in_stock).n_admitted
        (2, 1)
        """
        chosen = None if only is None else self._ranks_of(only, "only")
        banned = None if without is None else self._ranks_of(without, "without")
        if within is not None:
            within.check(self.origin, len(self), "within")
        return (within or Filter(len(self), origin=self.origin)).narrowed(chosen, banned)

    def _ranks_of(self, items: Chosen, name: str) -> npt.NDArray[np.int64]:
        """Return the distinct ranks, ascending, of items chosen by id, row or mask; retired items have none."""
        ranks = self.rank_of_row[chosen_rows(items, self.n_rows, self.ledger, name)]
        ranks = np.sort(ranks[ranks >= 0])  # np.unique hashes: 500 times slower for a million
        return ranks[run_starts(ranks)[:-1]].astype(np.int64)

    def item_ids(self, rows: Iterable[int]) -> list[str | None]:
        """Return the item id of each row, None for row -1; ConfigError if the trie was made from codes alone."""
        if self.ledger is None:
            raise ConfigError("this trie was made from codes and has no item ids. Use Trie.from_tokenizer.")
        return [None if row < 0 else self.ledger.item_ids[int(row)] for row in rows]

    # ---- files

    def save(self, path: str | Path) -> None:
        """Write one safetensors file atomically: the index and the map to rows, without the item ids."""
        kept = TrieFields(
            sizes=self.sizes,
            level_starts=self.level_starts,
            codes=self.codes,
            ptr=self.ptr,
            rows=self.rows,
            n_rows=self.n_rows,
            base=self.base,
            ids=self.origin.ids,
        )
        write_trie(Path(path), kept)

    @classmethod
    def load(cls, path: str | Path, ids: TokenizerState | None = None) -> Trie:
        """Open a saved trie, memory-mapped.

        A trie that lacks items added to `ids` since, or still holds items retired since, opens with a warning.

        Parameters
        ----------
        path
            The file that `save` wrote.
        ids
            The artifact from which the trie was made; gives the trie its item ids. Default: none.

        Raises
        ------
        ArtifactError
            The file is missing or damaged, or a sample of items shows that it is not the trie of `ids`.
        """
        trie = cls(**read_trie(Path(path)))
        if ids is None:
            return trie
        trie = replace(trie, ledger=ids.ledger)
        ranks = np.unique(np.linspace(0, len(trie) - 1, SAMPLE).astype(np.int64))
        fits = trie.n_rows <= len(ids) and trie.sizes == ids.sizes
        if not fits or (trie.codes_of(ranks) != ids.codes[trie.rows[ranks]]).any():
            raise ArtifactError(f"{path}: belongs to another artifact. Write it again with Trie.save.")
        live = int(ids.ledger.live.sum())
        if trie.n_rows != len(ids) or len(trie) != live:
            counts = f"the trie has {len(trie)} items, the artifact {live} live ones"
            logger.warning("%s: the artifact has changed since: %s. Write it again with Trie.save.", path, counts)
        return trie
