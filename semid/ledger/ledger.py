"""The ledger: which item has which codes, written once.

A row is an item: its id, its text, its codes, the generation that added it and the one that retired it. Rows are
append-only; an item's codes never change, and those of a retired item are not assigned again unless asked for. A change
makes a new ledger and starts a new generation; the first one is 0.

A ledger is a chain of segments (`segment.py`): a change adds a small one, so its cost depends on the change, not on
the size of the table. Everything in a segment is an array, the indexes too, so a ledger of ten million items opens from
a mapped file without being read: ids are found by bisection over sorted 64-bit hashes, codes by bisection over the rows
in the order of their codes (`lookup.py`). Whole columns (`codes`, `live`, ...) are concatenated when first used.

Not here: which codes an item should get (`semid/assign/`), files (`semid/artifact/store.py`), token strings
(`semid/tokens/vocabulary.py`). N items, L levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings, StringChain
from semid.errors import CapacityError, InputError, UnknownIDError
from semid.ledger.checks import problems_of
from semid.ledger.lookup import MAX_CODE, code_keys, find_codes, find_ids, hashes_of, near_ids
from semid.ledger.new_rows import MAX_ROWS, new_segment
from semid.ledger.segment import Segment, joined_order, merged

__all__ = ["Ledger", "UsedCodes"]

MERGE_RATIO = 4  # a segment is merged into the one before if that has less than this many times its weight


@dataclass(frozen=True, eq=False, repr=False)
class Ledger:
    """A table of N items with their codes; made by `create` or `from_arrays`. A change returns a new ledger.

    >>> ledger = Ledger.create(["B1", "B2"], [[0, 1], [0, 2]])
    >>> later = ledger.append(["B3"], [[3, 0]]).retire(["B1"])
    >>> later.rows_of(["B3", "B1"]).tolist(), later.rows_of_codes([[0, 2], [9, 9]]).tolist()
    ([2, 0], [1, -1])
    >>> later.live.tolist(), later.generation.tolist(), later.retired_in.tolist()
    ([False, True, True], [0, 0, 1], [2, 0, 0])
    >>> later.rows_of(["B33"])
    Traceback (most recent call last):
    semid.errors.UnknownIDError: item id 'B33' is not among the 3 items. Did you mean 'B3'?
    """

    segments: tuple[Segment, ...]  # at least one

    def __repr__(self) -> str:
        retired = f", {len(self) - self.n_live} of them retired" if self.n_live < len(self) else ""
        return f"Ledger({len(self)} items{retired}, {self.n_levels} levels, generation {self.last_generation})"

    @classmethod
    def create(cls, item_ids: Iterable[str], codes: npt.ArrayLike, texts: Iterable[str] | None = None) -> Ledger:
        """Return a ledger of generation 0.

        Parameters
        ----------
        item_ids : N strings
            Distinct ids.
        codes : int [N, L]
            Distinct rows of codes, 0 to 65535.
        texts : N strings, optional
            Texts of the items.

        Raises
        ------
        InputError
            An id or a row of codes comes twice, or a code is not in 0..65535.
        CapacityError
            N is past 2^31 - 1.
        """
        return cls((new_segment(0, 0, item_ids, codes, texts),))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Ledger:
        """Return the ledger that `arrays` wrote, without copying.

        ArtifactError if an array is missing or of another type or shape. Contents are not checked: see `check`.
        """
        segments = [Segment.from_arrays(arrays, "", 0)]
        while f"{_prefix(len(segments))}codes" in arrays:
            rows = segments[-1].first + len(segments[-1])
            segments.append(Segment.from_arrays(arrays, _prefix(len(segments)), rows))
        return cls(tuple(segments))

    def parts(self) -> list[dict[str, np.ndarray]]:
        """Return the arrays of each segment by distinct names; a change leaves the first parts as they were."""
        return [segment.arrays(_prefix(number)) for number, segment in enumerate(self.segments)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of all segments by name."""
        return {name: array for part in self.parts() for name, array in part.items()}

    # ---- whole columns

    def __len__(self) -> int:
        """Return the number of items N, retired ones included."""
        return self.segments[-1].first + len(self.segments[-1])

    @property
    def n_levels(self) -> int:
        """Codes per item, L."""
        return int(self.segments[0].codes.shape[1])

    @cached_property
    def item_ids(self) -> StringChain:
        """The ids of all N items."""
        return StringChain([segment.item_ids for segment in self.segments])

    @cached_property
    def texts(self) -> StringChain | None:
        """The texts of all N items, or None if they are not kept."""
        texts = [segment.texts for segment in self.segments if segment.texts is not None]
        if len(texts) < len(self.segments):
            return None
        revised: dict[int, str] = {}
        for segment in self.segments:
            revised |= dict(zip(segment.revised.rows.tolist(), segment.revisions, strict=True))
        return StringChain(texts, revised)

    @cached_property
    def codes(self) -> npt.NDArray[np.uint16]:
        """The codes of all items: uint16 [N, L]."""
        return self._column("codes")

    @cached_property
    def generation(self) -> npt.NDArray[np.int32]:
        """The generation that added each item: int32 [N], never falling."""
        return self._column("generation")

    @cached_property
    def retired_in(self) -> npt.NDArray[np.int32]:
        """The generation that retired each item: int32 [N], 0 for live ones."""
        column = np.zeros(len(self), np.int32)
        for segment in self.segments:
            column[segment.retired.rows] = segment.retired.generation
        return column

    @cached_property
    def live(self) -> npt.NDArray[np.bool_]:
        """Which items are not retired: bool [N]."""
        return np.equal(self.retired_in, 0)

    @cached_property
    def code_order(self) -> npt.NDArray[np.int32]:
        """Rows in the lexicographic order of their codes: int32 [N]."""
        order = self.segments[0].code_order
        for segment in self.segments[1:]:  # merges the orders only: ids and texts may be large
            order = joined_order(self.codes[: segment.first], order, segment)
        return order

    def _column(self, name: str) -> np.ndarray:
        columns = [getattr(segment, name) for segment in self.segments]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    @property
    def n_live(self) -> int:
        """Number of items that are not retired."""
        return len(self) - sum(len(segment.retired) for segment in self.segments)

    @property
    def last_generation(self) -> int:
        """The generation of the latest change; 0 if there was none."""
        return int(self.segments[-1].newest[0])

    # ---- look-up

    def find_rows(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the row of each id, int64 [M], retired ones too; -1 for an unknown id."""
        if isinstance(item_ids, str):
            raise InputError(f"item_ids={item_ids!r} should be a list of ids. Write [{item_ids!r}].")
        encoded = [item_id.encode("utf-8", "surrogatepass") for item_id in item_ids]
        sought = hashes_of(encoded)
        found = np.full(len(encoded), -1, np.int64)
        for one in self.segments:
            rows = find_ids(encoded, sought, one.item_ids, one.id_hashes, one.id_order)
            found = np.where(rows >= 0, rows + one.first, found)
        return found

    def rows_of(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the row of each id, int64 [M], retired ones too.

        Raises
        ------
        UnknownIDError
            An id does not exist; the message lists similar ones.
        """
        ids = item_ids if isinstance(item_ids, str) else list(item_ids)  # find_rows refuses a string
        rows = self.find_rows(ids)
        unknown = np.flatnonzero(rows < 0).tolist()
        if unknown:
            problems = [f"item id {ids[i]!r} is not among the {len(self)} items." for i in unknown[:10]]
            for k, i in enumerate(unknown[:3]):
                if near := near_ids(ids[i], self.item_ids):
                    problems[k] += f" Did you mean {', '.join(map(repr, near))}?"
            raise UnknownIDError(str(InputError.listing(problems, len(unknown))))
        return rows

    def codes_of(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint16]:
        """Return the codes of some rows, uint16 [M, L], without concatenating the whole column."""
        codes = np.empty((len(rows), self.n_levels), np.uint16)
        for segment in self.segments:
            here = np.flatnonzero((rows >= segment.first) & (rows < segment.first + len(segment)))
            codes[here] = segment.codes[rows[here] - segment.first]
        return codes

    def rows_of_codes(self, codes: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the row with each of the codes [M, L], int64 [M], retired ones too; -1 if there is none.

        If codes were assigned again, it is the latest row.
        """
        sought = np.asarray(codes)
        if sought.shape == (0,):
            return np.zeros(0, np.int64)
        if sought.ndim != 2 or sought.shape[1] != self.n_levels or sought.dtype.kind not in "iu":
            shape = f"shape={sought.shape} dtype={sought.dtype}"
            raise InputError(f"codes: {shape} should be integers [M, {self.n_levels}].")
        fits: npt.NDArray[np.bool_] = np.all((sought >= 0) & (sought <= MAX_CODE), axis=1)
        keys = code_keys(np.where(fits[:, None], sought, 0).astype(np.uint16))
        found = np.full(len(sought), -1, np.int64)
        for segment in self.segments:
            found = np.maximum(found, segment.places_of(keys))
        return np.where(fits, found, -1)

    def retired_generations(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Return the generation that retired each of a few rows, int32 [M]; 0 for live ones."""
        found = np.zeros(len(rows), np.int32)
        for segment in self.segments:
            notes = segment.retired
            if len(notes):
                place = np.minimum(np.searchsorted(notes.rows, rows), len(notes) - 1)
                found = np.where(notes.rows[place] == rows, notes.generation[place], found)
        return found

    # ---- changes

    def append(
        self,
        item_ids: Iterable[str],
        codes: npt.ArrayLike,
        texts: Iterable[str] | None = None,
        *,
        revised: Mapping[int, str] | None = None,
        reuse_after: int | None = None,
    ) -> Ledger:
        """Return a ledger with these items added in one new generation; this ledger itself if nothing changes.

        Parameters
        ----------
        item_ids : n strings
            New ids.
        codes : int [n, L]
            Their codes.
        texts : n strings, optional
            Their texts; empty by default, and left out if the ledger keeps none.
        revised : row -> text, optional
            Earlier rows that get another text in the same generation.
        reuse_after : int, optional
            Allow codes that were retired at least this many generations before the new one. By default none.

        Raises
        ------
        InputError
            An id exists or comes twice; codes are taken, by a retired item too, or come twice.
        CapacityError
            More than 2^31 - 1 items.
        """
        codes = np.asarray(codes)
        codes = codes if codes.size else np.zeros((0, self.n_levels), np.uint16)
        if self.texts is None:
            texts = None
        elif texts is None:
            texts = [""] * len(codes)
        new = new_segment(len(self), self.last_generation + 1, item_ids, codes, texts, revised=revised)
        if not new.weight:
            return self
        known, taken = self.find_rows(new.item_ids), self.owners(new.codes, reuse_after)
        problems = [f"item id {new.item_ids[i]!r} exists. Leave it out." for i in np.flatnonzero(known >= 0).tolist()]
        for i in np.flatnonzero(taken >= 0).tolist():
            owner, shown = self.item_ids[taken[i]], new.codes[i].tolist()
            problems.append(f"item {new.item_ids[i]!r}: codes {shown} belong to {owner!r}. Assign again.")
        if problems:
            raise InputError.listing(problems)
        if len(self) + len(new) > MAX_ROWS:
            raise CapacityError(f"n_items={len(self) + len(new)} should be at most {MAX_ROWS}.")
        return self._with(new)

    def retire(self, item_ids: Iterable[str]) -> Ledger:
        """Return a ledger with these items retired in one new generation; this ledger itself if all of them were.

        UnknownIDError as in `rows_of`.
        """
        rows = np.unique(self.rows_of(item_ids))
        rows = rows[self.retired_generations(rows) == 0]
        if not len(rows):
            return self
        none, texts = np.zeros((0, self.n_levels), np.uint16), None if self.texts is None else PackedStrings.pack([])
        return self._with(
            Segment.of(len(self), self.last_generation + 1, PackedStrings.pack([]), none, texts, retired=rows)
        )

    def in_use(self, reuse_after: int | None = None) -> UsedCodes:
        """Return the codes that the next generation may not assign, for `assign_unique`."""
        return UsedCodes(self, reuse_after)

    def owners(self, codes: npt.NDArray[np.integer], reuse_after: int | None) -> npt.NDArray[np.int64]:
        """Return the row that owns each of the codes [M, L], int64 [M]; -1 if the next generation may assign them."""
        rows = self.rows_of_codes(codes)
        if reuse_after is None:
            return rows
        retired = self.retired_generations(rows)
        return np.where((retired > 0) & (self.last_generation + 1 - retired >= reuse_after), -1, rows)

    def _with(self, new: Segment) -> Ledger:
        segments = [*self.segments, new]
        while len(segments) > 1 and MERGE_RATIO * segments[-1].weight >= segments[-2].weight:
            newer = segments.pop()
            segments.append(merged(segments.pop(), newer))
        return Ledger(tuple(segments))

    # ---- invariants

    def check(self, sizes: Sequence[int] | None = None) -> list[str]:
        """Return every broken invariant, one sentence each; reads all arrays, whatever they hold.

        With `sizes`, the codes per level, codes out of range are reported too.
        """
        return problems_of(self.segments, sizes)


def _prefix(number: int) -> str:
    """Return the prefix of the names of a segment's arrays."""
    return f"change{number}." if number else ""


class UsedCodes:
    """The codes of a ledger that may not be assigned (`semid.assign.InUse`), looked up prefix by prefix."""

    def __init__(self, ledger: Ledger, reuse_after: int | None) -> None:
        self._ledger, self._reuse_after = ledger, reuse_after

    def __len__(self) -> int:
        """Return the number of IDs in use: each once, even if several items had it, and none that may be reused."""
        return self._n_in_use

    @cached_property
    def _n_in_use(self) -> int:
        ledger = self._ledger
        retired = np.concatenate([segment.retired.rows for segment in ledger.segments])
        owners = ledger.owners(ledger.codes_of(retired), self._reuse_after)
        return ledger.n_live + int(np.count_nonzero(owners == retired))  # not those that other items have now

    def contains(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return which of the IDs [n, L] are in use, bool [n]."""
        return self._ledger.owners(codes, self._reuse_after) >= 0

    def last_codes(self, prefixes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the number of IDs in use under each prefix [n, L - 1], int64 [n], and their last codes, end to end."""
        low, high = _keys(prefixes, 0), _keys(prefixes, MAX_CODE)
        places, codes = [], []  # of each ID found: place of its prefix, all its codes
        for one in self._ledger.segments:
            first = find_codes(low, one.codes, one.code_order, side="left")
            n = find_codes(high, one.codes, one.code_order, side="right") - first
            rows = one.code_order[np.arange(n.sum()) + np.repeat(first - (np.cumsum(n) - n), n)].astype(np.int64)
            places.append(np.repeat(np.arange(len(prefixes)), n))
            codes.append(one.codes[rows])
        place, found = np.concatenate(places), np.concatenate(codes)
        kept = self.contains(found) if self._reuse_after is not None else np.ones(len(found), np.bool_)
        pairs = np.unique(np.stack((place[kept], found[kept, -1].astype(np.int64)), axis=1), axis=0)
        return np.bincount(pairs[:, 0], minlength=len(prefixes)).astype(np.int64), pairs[:, 1]


def _keys(prefixes: npt.NDArray[np.integer], last: int) -> npt.NDArray[Any]:
    """Return the sortable keys of the prefixes with `last` as the last code."""
    column = np.full((len(prefixes), 1), last)
    return code_keys(np.concatenate((prefixes, column), axis=1).astype(np.uint16))
