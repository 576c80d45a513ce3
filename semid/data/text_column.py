"""TextColumn: one text field of a catalog while it is being read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semid.data.cells import looks_like_cell, parse_cell
from semid.data.markup import is_tag_piece
from semid.data.paths import LABELS, named_inside
from semid.data.string_batches import bytes_of, count_kinds, not_plain
from semid.data.strings import PackedStrings, StringPacker
from semid.data.text_fields import Tally, count_filled
from semid.data.values import clean_text, has_surrogate, text_of

__all__ = ["OBJECT", "TextColumn", "cell_text"]


OBJECT = "an object"
OPENING = frozenset("[{")


@dataclass
class TextColumn:
    """The values of one field, as clean text, and their kinds.

    Strings that may be lists or objects are kept as written until `finish`: whether they are read so depends on the
    other values. They are where most filled values are such cells.
    """

    values: StringPacker = field(default_factory=StringPacker)  # ends at the last item that has the field
    tally: Tally = field(default_factory=Tally)
    cells: array[int] = field(default_factory=lambda: array("q"))  # rows whose string may be a list or an object
    read_as_lists: bool = False  # whether `finish` read the cells as lists
    inside: str | None = None  # a field of an object, the first by name: an example of a path
    refused: str | None = None  # what the first value is that cannot be text
    refused_row: int = 0
    has_words: bool = False  # of a refused one: whether some value is text
    packed: PackedStrings | None = None  # all values, when the column is finished

    def add(self, row: int, raw: object) -> bool:
        """Add the value of an item; return whether it can be text."""
        if type(raw) is str:  # the fast path for nearly every value
            value = self._clean(row, raw)
        else:
            found = text_of(raw)
            if found is None:
                return False
            value = found
            if not value and isinstance(raw, list | tuple):
                self.note_objects(raw)
            self.tally.add(value)
        self.values.pad(row)
        self.values.append(value)
        return True

    def add_strings(self, row: int, strings: Any) -> None:
        """Add the values of the items from `row` on, an Arrow array of strings without nulls."""
        import pyarrow
        import pyarrow.compute

        rows = not_plain(strings)
        if len(rows):
            is_odd = np.zeros(len(strings), np.bool_)
            is_odd[rows] = True
            count_kinds(self.tally, strings.filter(pyarrow.array(~is_odd)))
            odd = strings.take(pyarrow.array(rows)).to_pylist()
            cleaned = [self._clean(row + at, raw) for at, raw in zip(rows.tolist(), odd, strict=True)]
            texts = pyarrow.array(cleaned, pyarrow.string())
            strings = pyarrow.compute.replace_with_mask(strings, pyarrow.array(is_odd), texts)
        else:
            count_kinds(self.tally, strings)
        self.values.pad(row)
        self.values.extend(*bytes_of(strings))

    def note_objects(self, values: object) -> None:
        """Note a field of an object, or of the objects in a list, to name as an example of a path."""
        for value in values if isinstance(values, list | tuple) else (values,):
            name = named_inside(value) if isinstance(value, Mapping) else None
            if name:
                self.inside = name if self.inside is None else min(name, self.inside, key=_by_label)

    def refuse(self, kind: str, row: int) -> None:
        """Note that a value cannot be text. The values so far are forgotten."""
        self.refused, self.refused_row = kind, row
        self.has_words = self.has_words or self.tally.n_words > 0
        self.values, self.cells = StringPacker(), array("q")

    def finish(self, n_items: int) -> PackedStrings:
        """Return all values, "" for the items without one. Nothing may be added afterwards."""
        if self.packed is None:
            self.values.pad(n_items)
            self.packed = self.values.finish()
            if self.cells:
                self.packed = self._without_cells(self.packed)
        return self.packed

    @property
    def has_values(self) -> bool:
        """Whether some item has the field, be it with markup or objects alone."""
        return bool(self.values.n_bytes or self.tally.n_markup or self.inside)

    def _clean(self, row: int, raw: str) -> str:
        """Return the clean text of a string, counted, or a cell as it is written."""
        if raw[:1] in OPENING and looks_like_cell(raw) and not has_surrogate(raw):
            self.cells.append(row)
            return raw
        value = clean_text(raw)
        if not value and raw:
            self.tally.n_markup += "<" in raw or is_tag_piece(raw)
        self.tally.add(value)
        return value

    def _without_cells(self, written: PackedStrings) -> PackedStrings:
        """Return the values with the cells read as lists if most filled values are, else cleaned like other text."""
        n_filled, n_objects = count_filled(written), 0
        texts, is_list = StringPacker(), bytearray(len(self.cells))
        for i, row in enumerate(self.cells if 2 * len(self.cells) > n_filled else ()):
            value = parse_cell(written[row])
            if isinstance(value, dict):
                n_objects += bool(value)  # {} is a cell without anything
                self.note_objects(value)
            is_list[i] = value is not None
            texts.append(text_of([value]) or "")
        if 2 * n_objects > n_filled:
            self.refuse(OBJECT, self.cells[0])
            return PackedStrings.pack([""] * len(written))
        self.read_as_lists = 2 * sum(is_list) > n_filled
        cells = zip(self.cells, texts.finish() if self.read_as_lists else written, is_list, strict=False)
        return PackedStrings.pack(self._cleaned(written, cells))

    def _cleaned(self, written: PackedStrings, cells: Iterable[tuple[int, str, int]]) -> Iterator[str]:
        cells = iter(cells)
        at, text, is_list = next(cells)
        for row, value in enumerate(written):
            if row != at:
                yield value
                continue
            value = text if self.read_as_lists and is_list else clean_text(value)
            self.tally.add(value)
            yield value
            at, text, is_list = next(cells, (-1, "", 0))


def _by_label(name: str) -> tuple[bool, str]:
    return name.casefold() not in LABELS, name


def cell_text(value: object) -> str | None:
    """Return the clean text of a value whose string may be a list or an object; None if it cannot be text.

    >>> cell_text('[{"id": 28, "name": "Drama"}]'), cell_text("['Ann', 'Bo']"), cell_text("[red] lamp")
    ('Drama', 'Ann, Bo', '[red] lamp')
    """
    parsed = parse_cell(value) if isinstance(value, str) else None
    return text_of(value if parsed is None else [parsed])
