"""The ledger: which item has which codes, written once.

A row is an item: its id, its text, its codes, the generation that added it and the one that retired it. Rows are
only ever appended; an item's codes never change, and those of a retired item are not given out again unless that is
asked for. A change makes a new ledger and starts a new generation; the first is 0.

A ledger is a chain of segments (`segment.py`): a change adds a small one, so that it costs what it brings, not what
was there. Everything in them is an array, the indexes too, so a ledger of ten million items opens from a mapped file
without being read: ids are found by bisection over sorted 64-bit hashes, codes by bisection over the rows in the
order of their codes (`lookup.py`). Whole columns (`codes`, `live`, ...) are put together when first asked for.

Not here: which codes an item should get (`unique.py`), files (`semid/artifact/store.py`), token strings
(`semid/tokens/vocabulary.py`). N items, L levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings, StringChain
from semid.errors import CapacityError, InputError, UnknownIDError
from semid.ledger.checks import problems_of
from semid.ledger.lookup import code_keys, find_codes, find_ids, hashes_of, near_ids
from semid.ledger.new_rows import MAX_CODE, MAX_ROWS, new_segment
from semid.ledger.segment import Segment, joined_order, merged

__all__ = ["Ledger", "LedgerCodes"]


GROWN = 4  # a segment is merged into the one before when that is less than this many times its weight


@dataclass(frozen=True, eq=False, repr=False)
class Ledger:
    """A table of N items; make one with `create` or `from_arrays`.

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
        """A ledger of generation 0 from N distinct ids, distinct integer codes [N, L], and perhaps N texts.

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
        """The inverse of `arrays`; copies nothing. ArtifactError if an array is missing or of a wrong shape.

        Checks types and shapes only; `check` reads everything.
        """
        segments = [Segment.from_arrays(arrays, "", 0)]
        while f"{_prefix(len(segments))}codes" in arrays:
            rows = segments[-1].first + len(segments[-1])
            segments.append(Segment.from_arrays(arrays, _prefix(len(segments)), rows))
        return cls(tuple(segments))

    def parts(self) -> list[dict[str, np.ndarray]]:
        """Name -> array of each segment, the names distinct: a change leaves the first parts as they were."""
        return [segment.arrays(_prefix(number)) for number, segment in enumerate(self.segments)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array of all parts."""
        return {name: array for part in self.parts() for name, array in part.items()}

    # ---- whole columns

    def __len__(self) -> int:
        """N, retired items included."""
        return self.segments[-1].first + len(self.segments[-1])

    @property
    def n_levels(self) -> int:
        """L."""
        return self.segments[0].codes.shape[1]

    @cached_property
    def item_ids(self) -> StringChain:
        """The N ids."""
        return StringChain([segment.item_ids for segment in self.segments])

    @cached_property
    def texts(self) -> StringChain | None:
        """The N texts, or None where they are not kept."""
        if any(segment.texts is None for segment in self.segments):
            return None
        revised = {}
        for segment in self.segments:
            revised |= dict(zip(segment.revised.rows.tolist(), segment.revisions, strict=True))
        return StringChain([segment.texts for segment in self.segments], revised)

    @cached_property
    def codes(self) -> npt.NDArray[np.uint16]:
        """uint16 [N, L]."""
        return self._column("codes")

    @cached_property
    def generation(self) -> npt.NDArray[np.int32]:
        """int32 [N]: the generation that added each item; never falls."""
        return self._column("generation")

    @cached_property
    def retired_in(self) -> npt.NDArray[np.int32]:
        """int32 [N]: the generation that retired each item; 0 while it is live."""
        column = np.zeros(len(self), np.int32)
        for segment in self.segments:
            column[segment.retired.rows] = segment.retired.generation
        return column

    @cached_property
    def live(self) -> npt.NDArray[np.bool_]:
        """bool [N]: which items are not retired."""
        return self.retired_in == 0

    @cached_property
    def code_order(self) -> npt.NDArray[np.int32]:
        """int32 [N]: rows in the lexicographic order of their codes."""
        order = self.segments[0].code_order
        for segment in self.segments[1:]:  # the orders alone: ids and texts may be large
            order = joined_order(self.codes[: segment.first], order, segment)
        return order

    def _column(self, name: str) -> np.ndarray:
        columns = [getattr(segment, name) for segment in self.segments]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    @property
    def n_live(self) -> int:
        """How many items are not retired."""
        return len(self) - sum(len(segment.retired) for segment in self.segments)

    @property
    def last_generation(self) -> int:
        """The generation that the latest change started; 0 if there was none."""
        return int(self.segments[-1].newest[0])

    # ---- look-up

    def find_rows(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """int64 [M]: the row of each id, retired ones too; -1 where there is none."""
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
        """int64 [M]: the row of each id, retired ones too; UnknownIDError names those that do not exist."""
        if not isinstance(item_ids, str):
            item_ids = list(item_ids)
        rows = self.find_rows(item_ids)
        unknown = np.flatnonzero(rows < 0).tolist()
        if unknown:
            problems = [f"item id {item_ids[i]!r} is not among the {len(self)} items." for i in unknown[:10]]
            for k, i in enumerate(unknown[:3]):
                if near := near_ids(item_ids[i], self.item_ids):
                    problems[k] += f" Did you mean {', '.join(map(repr, near))}?"
            raise UnknownIDError(str(InputError.listing(problems, len(unknown))))
        return rows

    def codes_of(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint16]:
        """uint16 [M, L]: the codes of some rows, without putting the whole column together."""
        codes = np.empty((len(rows), self.n_levels), np.uint16)
        for segment in self.segments:
            here = np.flatnonzero((rows >= segment.first) & (rows < segment.first + len(segment)))
            codes[here] = segment.codes[rows[here] - segment.first]
        return codes

    def rows_of_codes(self, codes: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """int64 [M]: the row, retired ones too, that has each of the codes [M, L]; -1 where there is none.

        Of several, where codes were given out again, the latest.
        """
        codes = np.asarray(codes)
        if codes.shape == (0,):
            return np.zeros(0, np.int64)
        if codes.ndim != 2 or codes.shape[1] != self.n_levels or codes.dtype.kind not in "iu":
            raise InputError(f"codes: shape={codes.shape} dtype={codes.dtype} should be integers [M, {self.n_levels}].")
        fits = ((codes >= 0) & (codes <= MAX_CODE)).all(axis=1)
        keys = code_keys(np.where(fits[:, None], codes, 0).astype(np.uint16))
        found = np.full(len(codes), -1, np.int64)
        for segment in self.segments:
            found = np.maximum(found, segment.places_of(keys))
        return np.where(fits, found, -1)

    def retired_generations(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """int32 [M]: the generation that retired each row, 0 for live ones; for a few rows of many."""
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
        """A ledger with these items added as one new generation; this ledger itself if there is nothing to change.

        Parameters
        ----------
        texts
            Of the new items; needed where the ledger keeps texts.
        revised : row -> text
            Rows that get another text, in the same generation.
        reuse_after : int, optional
            Codes may be given out again that were retired at least so many generations before the new one.

        Raises
        ------
        InputError
            An id exists or comes twice; codes are taken, by a retired item too, or come twice.
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
        known, taken = self.find_rows(new.item_ids), self.takers(new.codes, reuse_after)
        problems = [f"item id {new.item_ids[i]!r} exists. Leave it out." for i in np.flatnonzero(known >= 0)]
        for i in np.flatnonzero(taken >= 0):
            owner, shown = self.item_ids[taken[i]], new.codes[i].tolist()
            problems.append(f"item {new.item_ids[i]!r}: codes {shown} belong to {owner!r}. Assign again.")
        if problems:
            raise InputError.listing(problems)
        if len(self) + len(new) > MAX_ROWS:
            raise CapacityError(f"n_items={len(self) + len(new)} should be at most {MAX_ROWS}.")
        return self._with(new)

    def retire(self, item_ids: Iterable[str]) -> Ledger:
        """A ledger where these items are retired, in one new generation; UnknownIDError as in `rows_of`.

        Items retired before stay as they are; if no other is named, the result is this ledger itself.
        """
        rows = np.unique(self.rows_of(item_ids))
        rows = rows[self.retired_generations(rows) == 0]
        if not len(rows):
            return self
        none, texts = np.zeros((0, self.n_levels), np.uint16), None if self.texts is None else PackedStrings.pack([])
        return self._with(
            Segment.of(len(self), self.last_generation + 1, PackedStrings.pack([]), none, texts, retired=rows)
        )

    def in_use(self, reuse_after: int | None = None) -> LedgerCodes:
        """The codes that the next generation may not give out, for `assign_unique`."""
        return LedgerCodes(self, reuse_after)

    def takers(self, codes: npt.NDArray[np.uint16], reuse_after: int | None) -> npt.NDArray[np.int64]:
        """int64 [M]: the row that keeps the next generation from giving these codes out; -1 if none does."""
        rows = self.rows_of_codes(codes)
        if reuse_after is None:
            return rows
        retired = self.retired_generations(rows)
        return np.where((retired > 0) & (self.last_generation + 1 - retired >= reuse_after), -1, rows)

    def _with(self, new: Segment) -> Ledger:
        segments = [*self.segments, new]
        while len(segments) > 1 and GROWN * segments[-1].weight >= segments[-2].weight:
            newer = segments.pop()
            segments.append(merged(segments.pop(), newer))
        return Ledger(tuple(segments))

    # ---- invariants

    def check(self, sizes: Sequence[int] | None = None) -> list[str]:
        """Every broken invariant, one sentence each; reads all arrays, whatever is in them.

        With `sizes`, the codes per level, codes out of range are found too.
        """
        return problems_of(self.segments, sizes)


def _prefix(number: int) -> str:
    """What the names of a segment's arrays begin with."""
    return f"change{number}." if number else ""


# ---- The codes of a ledger as an assignment asks about them: prefix by prefix, never all of them.


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

    def contains(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """bool [n]: which IDs [n, L] are in use."""
        return self._ledger.takers(codes, self._reuse_after) >= 0

    def last_codes(self, prefixes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
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
        kept = self.contains(found) if self._reuse_after is not None else np.ones(len(found), np.bool_)
        pairs = np.unique(np.stack((owner[kept], found[kept, -1].astype(np.int64)), axis=1), axis=0)
        counts[:] = np.bincount(pairs[:, 0], minlength=len(prefixes))
        return counts, pairs[:, 1]


def _extended(prefixes: npt.NDArray[np.integer], last: int) -> npt.NDArray:
    """Sortable keys of the prefixes with `last` as the last code."""
    column = np.full((len(prefixes), 1), last)
    return code_keys(np.concatenate((prefixes, column), axis=1).astype(np.uint16))
