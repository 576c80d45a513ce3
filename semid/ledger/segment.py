"""A segment: the rows that one change, or several merged ones, added to a ledger, with their own indexes.

A ledger of ten million items that gains a thousand must not be written again. So each change is a small table of its
own: new rows, and notes about earlier rows: which were retired, and which got another text. When a segment has grown to
a quarter of the one before it, the two are merged (`merged`); so there are only about log4(N) segments, and a row is
copied about as often.

Everything is an array, so a segment opens from a mapped file without being read. Row numbers count over the whole
ledger; `id_order` and `code_order` count from the segment's own first row. n rows, L levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings, joined
from semid.errors import ArtifactError
from semid.ledger.lookup import code_keys, find_codes, hash_ids

__all__ = ["Segment", "joined_order", "merged"]

ARRAYS = {  # name -> dtype, dimensions; one entry per row, except for strings and notes
    "item_ids.data": (np.uint8, 1),
    "item_ids.offsets": (np.int64, 1),
    "codes": (np.uint16, 2),
    "generation": (np.int32, 1),
    "newest": (np.int32, 1),  # one number: the generation of the latest change
    "id_hashes": (np.uint64, 1),
    "id_order": (np.int32, 1),
    "code_order": (np.int32, 1),
    "retired.rows": (np.int32, 1),
    "retired.generation": (np.int32, 1),
    "revised.rows": (np.int32, 1),
    "revised.generation": (np.int32, 1),
    "revised.data": (np.uint8, 1),
    "revised.offsets": (np.int64, 1),
}
TEXT = {"text.data": (np.uint8, 1), "text.offsets": (np.int64, 1)}  # only if texts are kept
COLUMNS = ("codes", "generation", "newest", "id_hashes", "id_order", "code_order")
FORMAT_1 = "retired_in"  # format 1 kept the generation that retired each row here, 0 for live ones, and no notes


@dataclass(frozen=True, eq=False)
class Notes:
    """What changes say of rows: ascending row numbers, each once, and the generation of the change."""

    rows: npt.NDArray[np.int32]
    generation: npt.NDArray[np.int32]

    @classmethod
    def of(cls, rows: npt.ArrayLike, generation: int | npt.ArrayLike) -> Notes:
        """Return the notes of rows given in any order, each once."""
        numbers = np.asarray(rows, np.int32)
        order = np.argsort(numbers)
        return cls(numbers[order], np.broadcast_to(np.asarray(generation, np.int32), numbers.shape)[order])

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False, repr=False)
class Segment:
    """Rows `first` to `first + n` of a ledger, and notes about those rows and the ones before."""

    first: int
    item_ids: PackedStrings
    texts: PackedStrings | None
    codes: npt.NDArray[np.uint16]  # [n, L]
    generation: npt.NDArray[np.int32]  # [n] - the change that added the row
    newest: npt.NDArray[np.int32]  # [1] - generation of the latest change
    id_hashes: npt.NDArray[np.uint64]  # [n] - ascending
    id_order: npt.NDArray[np.int32]  # [n] - the row of each hash
    code_order: npt.NDArray[np.int32]  # [n] - rows in the lexicographic order of their codes, then of their number
    retired: Notes
    revised: Notes  # rows that got another text
    revisions: PackedStrings  # those texts

    @classmethod
    def of(
        cls,
        first: int,
        generation: int,
        item_ids: PackedStrings,
        codes: npt.NDArray[np.uint16],
        texts: PackedStrings | None,
        *,
        retired: npt.ArrayLike = (),
        revised: Mapping[int, str] | None = None,
    ) -> Segment:
        """Return the segment of one change, with its indexes; parameters as in `new_segment`, unchecked."""
        revised = dict(sorted((revised or {}).items()))
        hashes = hash_ids(item_ids)
        id_order = np.argsort(hashes, kind="stable").astype(np.int32)
        return cls(
            first=first,
            item_ids=item_ids,
            texts=texts,
            codes=codes,
            generation=np.full(len(codes), generation, np.int32),
            newest=np.array([generation], np.int32),
            id_hashes=hashes[id_order],
            id_order=id_order,
            code_order=np.argsort(code_keys(codes), kind="stable").astype(np.int32),
            retired=Notes.of(retired, generation),
            revised=Notes.of(list(revised), generation),
            revisions=PackedStrings.pack(revised.values()),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str, first: int) -> Segment:
        """Return the segment that `arrays` wrote, without copying.

        ArtifactError if an array is missing or of another type or shape.
        """
        names = (*ARRAYS, *TEXT, FORMAT_1)
        at = {name: array for name in names if (array := arrays.get(prefix + name)) is not None}
        if FORMAT_1 in at and "retired.rows" not in at:
            at |= _notes_of_format_1(at[FORMAT_1], at.get("generation"))
        n_rows, n_retired, n_revised = (
            len(at[name]) if name in at and at[name].ndim else 0 for name in ("codes", "retired.rows", "revised.rows")
        )
        lengths = {
            "item_ids.data": None, "item_ids.offsets": n_rows + 1, "text.data": None, "text.offsets": n_rows + 1,
            "newest": 1, "retired.rows": n_retired, "retired.generation": n_retired, "revised.rows": n_revised,
            "revised.generation": n_revised, "revised.data": None, "revised.offsets": n_revised + 1,
        }  # fmt: skip
        has_text = "text.data" in at or "text.offsets" in at
        for name, (dtype, n_dims) in (ARRAYS | (TEXT if has_text else {})).items():
            _check(prefix + name, at.get(name), dtype, n_dims, lengths.get(name, n_rows))
        return cls(
            first=first,
            item_ids=PackedStrings(at["item_ids.data"], at["item_ids.offsets"]),
            texts=PackedStrings(at["text.data"], at["text.offsets"]) if has_text else None,
            retired=Notes(at["retired.rows"], at["retired.generation"]),
            revised=Notes(at["revised.rows"], at["revised.generation"]),
            revisions=PackedStrings(at["revised.data"], at["revised.offsets"]),
            **{name: at[name] for name in COLUMNS},
        )

    def arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Return all arrays by name, each with the prefix, for a file."""
        strings = {"item_ids": self.item_ids, "revised": self.revisions}
        if self.texts is not None:
            strings["text"] = self.texts
        found = {f"{name}.{part}": getattr(one, part) for name, one in strings.items() for part in ("data", "offsets")}
        found |= {name: getattr(self, name) for name in COLUMNS}
        for name, notes in (("retired", self.retired), ("revised", self.revised)):
            found |= {f"{name}.rows": notes.rows, f"{name}.generation": notes.generation}
        return {prefix + name: array for name, array in found.items()}

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    def __repr__(self) -> str:
        notes = f"{len(self.retired)} retired, {len(self.revised)} revised"
        return f"Segment({len(self)} rows from {self.first}, {notes})"

    @property
    def weight(self) -> int:
        """Rows and notes: the cost of copying the segment."""
        return len(self) + len(self.retired) + len(self.revised)

    def places_of(self, keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the last row of this segment with each of the code keys, int64 [M]; -1 if there is none."""
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        places = find_codes(keys, self.codes, self.code_order) - 1
        rows = self.code_order[np.maximum(places, 0)].astype(np.int64)
        found = (places >= 0) & (code_keys(self.codes[rows]) == keys)
        return np.where(found, rows + self.first, -1)


def joined_order(codes: npt.NDArray[np.uint16], order: npt.NDArray[np.int32], newer: Segment) -> npt.NDArray[np.int32]:
    """Return rows [n] and those of the segment after them [m] in the order of their codes: int32 [n + m]."""
    places = find_codes(code_keys(newer.codes[newer.code_order]), codes, order)
    return np.insert(order, places, newer.code_order + np.int32(len(codes)))


def merged(older: Segment, newer: Segment) -> Segment:
    """Return one segment in place of two neighbors; every row and note stays the same."""
    id_places = np.searchsorted(older.id_hashes, newer.id_hashes, side="right")
    shift = np.int32(len(older))
    texts = None if older.texts is None or newer.texts is None else joined([older.texts, newer.texts])
    revised = _latest([older, newer])
    here = {row: text for row, (_, text) in revised.items() if row >= older.first}
    if texts is not None and here:
        places = sorted(here)
        texts = _replaced(texts, [row - older.first for row in places], [here[row] for row in places])
        revised = {row: note for row, note in revised.items() if row < older.first}
    rows = sorted(revised)
    return Segment(
        first=older.first,
        item_ids=joined([older.item_ids, newer.item_ids]),
        texts=texts,
        codes=np.concatenate([older.codes, newer.codes]),
        generation=np.concatenate([older.generation, newer.generation]),
        newest=newer.newest,
        id_hashes=np.insert(older.id_hashes, id_places, newer.id_hashes),
        id_order=np.insert(older.id_order, id_places, newer.id_order + shift),
        code_order=joined_order(older.codes, older.code_order, newer),
        retired=Notes.of(
            np.concatenate([older.retired.rows, newer.retired.rows]),
            np.concatenate([older.retired.generation, newer.retired.generation]),
        ),
        revised=Notes.of(rows, [revised[row][0] for row in rows]),
        revisions=PackedStrings.pack(revised[row][1] for row in rows),
    )


def _latest(segments: list[Segment]) -> dict[int, tuple[int, str]]:
    """Return row -> (generation, text) of the last revision of each row."""
    found: dict[int, tuple[int, str]] = {}
    for segment in segments:
        notes = zip(segment.revised.rows.tolist(), segment.revised.generation.tolist(), strict=True)
        found |= {row: (generation, text) for (row, generation), text in zip(notes, segment.revisions, strict=True)}
    return found


def _replaced(strings: PackedStrings, places: list[int], by: list[str]) -> PackedStrings:
    """Return the table with the strings at ascending places replaced, without decoding the others."""
    pieces, lengths, start = [], np.diff(strings.offsets), 0
    for place, text in zip(places, by, strict=True):
        encoded = np.frombuffer(text.encode("utf-8"), np.uint8)
        pieces += [strings.data[start : strings.offsets[place]], encoded]
        start = strings.offsets[place + 1]
        lengths[place] = len(encoded)
    return PackedStrings(
        np.concatenate([*pieces, strings.data[start:]]), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )


def _notes_of_format_1(retired_in: np.ndarray, generation: np.ndarray | None) -> dict[str, np.ndarray]:
    _check(FORMAT_1, retired_in, np.int32, 1, None)
    rows = np.flatnonzero(retired_in).astype(np.int32)
    none = np.zeros(0, np.int32)
    latest = max(retired_in.max(initial=0), 0 if generation is None else generation.max(initial=0))
    return {
        "newest": np.array([latest], np.int32), "retired.rows": rows, "retired.generation": retired_in[rows],
        "revised.rows": none, "revised.generation": none, "revised.data": np.zeros(0, np.uint8),
        "revised.offsets": np.zeros(1, np.int64),
    }  # fmt: skip


def _check(name: str, array: np.ndarray | None, dtype: type, n_dims: int, length: int | None) -> None:
    if array is None or array.dtype != dtype or array.ndim != n_dims or length not in (None, len(array)):
        have = "missing" if array is None else f"{array.dtype}{list(array.shape)}"
        want = f"{np.dtype(dtype)}[{'bytes' if length is None else length}{', L' * (n_dims - 1)}]"
        raise ArtifactError(f"array {name} is {have}, expected {want}. Run semid verify.")
