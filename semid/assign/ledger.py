"""The ledger: which item has which codes, written once.

A row is an item: its id, its codes, the generation that added it and the one that retired it. Rows are only
ever appended; an item's codes never change, and those of a retired item are never given out again. A change
makes a new ledger and starts a new generation; the first is 0.

Everything is an array, the indexes too, so a ledger of ten million items opens from a mapped file without
being read (sorting its codes alone would take over a second): ids are found by bisection over sorted 64-bit
hashes, codes by bisection over the rows in the order of their codes (`lookup.py`).

Not here: which codes an item should get (`unique.py`), files (`semid/artifact.py`), token strings
(`semid/vocabulary.py`). N items, L levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from semid.assign.lookup import code_keys, find_codes, find_ids, hash_ids, near_ids
from semid.errors import ArtifactError, CapacityError, InputError, UnknownIDError
from semid.strings import PackedStrings

__all__ = ["Ledger"]

MAX_CODE = 65535  # codes are stored as uint16
MAX_ROWS = 2**31 - 1  # rows are stored as int32
ARRAYS = {  # name -> dtype, dimensions
    "item_ids.data": (np.uint8, 1),
    "item_ids.offsets": (np.int64, 1),
    "codes": (np.uint16, 2),
    "generation": (np.int32, 1),
    "retired_in": (np.int32, 1),
    "id_hashes": (np.uint64, 1),
    "id_order": (np.int32, 1),
    "code_order": (np.int32, 1),
}


@dataclass(frozen=True, eq=False)
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

    item_ids: PackedStrings
    codes: npt.NDArray[np.uint16]  # [N, L]
    generation: npt.NDArray[np.int32]  # [N], that added the row
    retired_in: npt.NDArray[np.int32]  # [N], generation that retired the row; 0 while it is live
    id_hashes: npt.NDArray[np.uint64]  # [N], ascending
    id_order: npt.NDArray[np.int32]  # [N], the row of each hash
    code_order: npt.NDArray[np.int32]  # [N], rows in the lexicographic order of their codes

    @classmethod
    def create(cls, item_ids: Iterable[str], codes: npt.ArrayLike) -> Ledger:
        """A ledger of generation 0 from N distinct ids and distinct integer codes [N, L].

        Raises
        ------
        InputError
            An id or a row of codes comes twice, or a code is not in 0..65535.
        CapacityError
            N is past 2^31 - 1.
        """
        packed = _packed(item_ids)
        codes = _stored(codes, len(packed))
        if len(codes) > MAX_ROWS:
            raise CapacityError(f"n_items={len(codes)} should be at most {MAX_ROWS}. Split the catalogue.")
        hashes = hash_ids(packed)
        id_order = np.argsort(hashes, kind="stable").astype(np.int32)
        code_order = np.argsort(code_keys(codes), kind="stable").astype(np.int32)
        zeros = np.zeros(len(codes), np.int32)
        ledger = cls(packed, codes, zeros, zeros, hashes[id_order], id_order, code_order)
        problems = [f"item id {packed[row]!r} comes twice. Keep one." for row in ledger._repeated_ids()]
        problems += [
            f"items {packed[a]!r} and {packed[b]!r} have the same codes {codes[a].tolist()}. Assign again."
            for a, b in ledger._repeated_codes()
        ]
        if problems:
            raise InputError.listing(problems)
        return ledger

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Ledger:
        """The inverse of `arrays`; copies nothing. ArtifactError if an array is missing or of a wrong shape.

        Checks types and shapes only; `check` reads everything.
        """
        n_items = len(arrays["codes"]) if "codes" in arrays and arrays["codes"].ndim else 0
        for name, (dtype, n_dims) in ARRAYS.items():
            array = arrays.get(name)
            have = "missing" if array is None else f"{array.dtype}{list(array.shape)}"
            length = {"item_ids.offsets": n_items + 1, "item_ids.data": None}.get(name, n_items)
            fits = array is not None and array.dtype == dtype and array.ndim == n_dims
            if not fits or length not in (None, len(array)):
                want = f"{np.dtype(dtype)}[{'bytes' if length is None else length}{', L' * (n_dims - 1)}]"
                raise ArtifactError(f"array {name} is {have}, expected {want}. Run semid verify.")
        columns = {name: arrays[name] for name in ARRAYS if not name.startswith("item_ids.")}
        return cls(PackedStrings(arrays["item_ids.data"], arrays["item_ids.offsets"]), **columns)

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, for `artifact.save`."""
        ids = {"item_ids.data": self.item_ids.data, "item_ids.offsets": self.item_ids.offsets}
        return {name: ids[name] if name in ids else getattr(self, name) for name in ARRAYS}

    def __len__(self) -> int:
        """N, retired items included."""
        return len(self.codes)

    @property
    def n_levels(self) -> int:
        """L."""
        return self.codes.shape[1]

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """bool [N]: which items are not retired."""
        return self.retired_in == 0

    @property
    def last_generation(self) -> int:
        """The generation that the latest change started; 0 if there was none."""
        return int(max(self.generation.max(initial=0), self.retired_in.max(initial=0)))

    # ---- look-up

    def find_rows(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """int64 [M]: the row of each id, retired ones too; -1 where there is none."""
        if isinstance(item_ids, str):
            raise InputError(f"item_ids={item_ids!r} should be a list of ids. Write [{item_ids!r}].")
        return find_ids(item_ids, self.item_ids, self.id_hashes, self.id_order)

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

    def rows_of_codes(self, codes: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """int64 [M]: the row, retired ones too, that has each of the codes [M, L]; -1 where there is none."""
        codes = np.asarray(codes)
        if codes.shape == (0,):
            return np.zeros(0, np.int64)
        if codes.ndim != 2 or codes.shape[1] != self.n_levels or codes.dtype.kind not in "iu":
            raise InputError(f"codes: shape={codes.shape} dtype={codes.dtype} should be integers [M, {self.n_levels}].")
        if not len(self):
            return np.full(len(codes), -1, np.int64)
        fits = ((codes >= 0) & (codes <= MAX_CODE)).all(axis=1)
        keys = code_keys(np.where(fits[:, None], codes, 0).astype(np.uint16))
        places = find_codes(keys, self.codes, self.code_order)
        rows = self.code_order[np.minimum(places, len(self) - 1)].astype(np.int64)
        return np.where(fits & (code_keys(self.codes[rows]) == keys), rows, -1)

    # ---- changes

    def append(self, item_ids: Iterable[str], codes: npt.ArrayLike) -> Ledger:
        """A ledger with these items added as one new generation; this ledger itself if there are none.

        Raises
        ------
        InputError
            An id exists or comes twice; codes are taken, by a retired item too, or come twice.
        """
        codes = np.asarray(codes)
        new = Ledger.create(item_ids, codes if codes.size else np.zeros((0, self.n_levels), np.uint16))
        if not len(new):
            return self
        known, taken = self.find_rows(new.item_ids), self.rows_of_codes(new.codes)
        problems = [f"item id {new.item_ids[i]!r} exists. Leave it out." for i in np.flatnonzero(known >= 0)]
        for i in np.flatnonzero(taken >= 0):
            owner, shown = self.item_ids[taken[i]], new.codes[i].tolist()
            problems.append(f"item {new.item_ids[i]!r}: codes {shown} belong to {owner!r}. Assign again.")
        if problems:
            raise InputError.listing(problems)
        if len(self) + len(new) > MAX_ROWS:
            raise CapacityError(f"n_items={len(self) + len(new)} should be at most {MAX_ROWS}.")
        ids, more = self.item_ids, new.item_ids
        places = np.searchsorted(self.id_hashes, new.id_hashes, side="right")
        code_places = find_codes(code_keys(new.codes[new.code_order]), self.codes, self.code_order)
        shift = np.int32(len(self))
        return Ledger(
            PackedStrings(
                np.concatenate([ids.data, more.data]),
                np.concatenate([ids.offsets, more.offsets[1:] + ids.offsets[-1]]),
            ),
            np.concatenate([self.codes, new.codes]),
            np.concatenate([self.generation, np.full(len(new), self.last_generation + 1, np.int32)]),
            np.concatenate([self.retired_in, new.retired_in]),
            np.insert(self.id_hashes, places, new.id_hashes),
            np.insert(self.id_order, places, new.id_order + shift),
            np.insert(self.code_order, code_places, new.code_order + shift),
        )

    def retire(self, item_ids: Iterable[str]) -> Ledger:
        """A ledger where these items are retired, in one new generation; UnknownIDError as in `rows_of`.

        Items retired before stay as they are; if no other is named, the result is this ledger itself.
        """
        rows = self.rows_of(item_ids)
        rows = rows[self.retired_in[rows] == 0]
        if not len(rows):
            return self
        retired_in = self.retired_in.copy()
        retired_in[rows] = self.last_generation + 1
        return replace(self, retired_in=retired_in)

    # ---- invariants

    def check(self, sizes: Sequence[int] | None = None) -> list[str]:
        """Every broken invariant, one sentence each; reads all arrays, whatever is in them.

        With `sizes`, the codes per level, codes out of range are found too.
        """
        problems = self._check_ids()
        if problems:
            return problems  # nothing below can be read without sound ids
        if (self.generation < 0).any() or (np.diff(self.generation) < 0).any():
            problems.append("generation: should be 0 or more and never fall from row to row")
        if ((self.retired_in != 0) & (self.retired_in <= self.generation)).any():
            problems.append("retired_in: an item should be retired after the generation that added it")
        for level, size in enumerate(sizes or ()):
            if (highest := int(self.codes[:, level].max(initial=0))) >= size:
                problems.append(f"codes: level {level} has code {highest}, expected below {size}")
        hashes = hash_ids(self.item_ids)
        if not _is_order(self.id_order, hashes) or (hashes[self.id_order] != self.id_hashes).any():
            problems.append("id_hashes, id_order: should be the sorted hashes of the ids and their rows")
        elif repeated := self._repeated_ids():
            problems.append(f"item_ids: {self.item_ids[repeated[0]]!r} comes twice")
        if not _is_order(self.code_order, code_keys(self.codes)):
            problems.append("code_order: should be the rows in the order of their codes")
        elif repeated := self._repeated_codes():
            a, b = (self.item_ids[row] for row in repeated[0])
            problems.append(f"codes: {a!r} and {b!r} have the same")
        return problems

    def _check_ids(self) -> list[str]:
        data, offsets = self.item_ids.data, self.item_ids.offsets
        if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
            return ["item_ids.offsets: should rise from 0 to the length of item_ids.data"]
        inner = offsets[offsets < len(data)]
        try:
            data.tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            return [f"item_ids.data: is not UTF-8 at byte {error.start}"]
        if ((data[inner] & 0xC0) == 0x80).any():  # a continuation byte begins no character
            return ["item_ids.offsets: cuts a character in two"]
        return []

    def _repeated_ids(self) -> list[int]:
        """Rows whose id a row before has, found among equal neighbours in the order of the hashes."""
        equal = self.id_hashes[1:] == self.id_hashes[:-1]
        places = np.flatnonzero(np.append(equal, False) | np.insert(equal, 0, False))
        seen: set[str] = set()
        repeated = []
        for row in sorted(self.id_order[places].tolist()):
            item_id = self.item_ids[row]
            if item_id in seen:
                repeated.append(row)
            seen.add(item_id)
        return repeated

    def _repeated_codes(self) -> list[tuple[int, int]]:
        """Pairs of neighbours in the order of the codes that have the same codes."""
        keys = code_keys(self.codes[self.code_order])
        places = np.flatnonzero(keys[1:] == keys[:-1])
        return [(int(self.code_order[place]), int(self.code_order[place + 1])) for place in places]


def _is_order(order: npt.NDArray[np.int32], keys: npt.NDArray) -> bool:
    """Is `order` every row once, with ascending keys?"""
    if not len(order):
        return True
    if order.min() < 0 or order.max() >= len(order) or np.bincount(order, minlength=len(order)).max() > 1:
        return False
    ordered = keys[order]
    return bool((ordered[1:] >= ordered[:-1]).all())


def _packed(item_ids: Iterable[str]) -> PackedStrings:
    if isinstance(item_ids, PackedStrings):
        return item_ids
    if isinstance(item_ids, str):
        raise InputError(f"item_ids={item_ids!r} should be a list of ids. Write [{item_ids!r}].")
    try:
        return PackedStrings.pack(item_ids)
    except UnicodeEncodeError as error:
        raise InputError(f"item id {error.object!r:.80} cannot be written in UTF-8. Change it.") from None


def _stored(codes: npt.ArrayLike, n_items: int) -> npt.NDArray[np.uint16]:
    codes = np.asarray(codes)
    if codes.ndim != 2 or len(codes) != n_items or codes.dtype.kind not in "iu" or not codes.shape[1]:
        raise InputError(f"codes: shape={codes.shape} dtype={codes.dtype} should be integers [{n_items}, L].")
    wrong = np.argwhere((codes < 0) | (codes > MAX_CODE))
    if len(wrong):
        row, level = wrong[0].tolist()
        raise InputError(f"codes[{row}, {level}]={codes[row, level]} should be in 0..{MAX_CODE}.")
    return np.ascontiguousarray(codes, np.uint16)
