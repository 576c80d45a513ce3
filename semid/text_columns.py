"""Columns: records turned into ids and columns of clean text, one record at a time.

Which fields are text is decided here. Records are let go at once; what stays are bytes end to end (`semid.strings`).
Where records come from is the business of `records`, what is made of the columns that of `catalog`.
"""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semid.problems import Problems, name_list, quote
from semid.strings import PackedStrings, StringPacker
from semid.text import clean_text, has_surrogate, id_fault, id_string, is_vector, is_wordy, kind_of, text_of

__all__ = ["ColumnReader", "no_such_field"]

# Fields that hold text in the catalogues people have, most telling first; others follow by name.
WELL_KNOWN = (
    "title", "name", "product_title", "product_name", "brand", "author", "artist", "store",
    "categories", "category", "genres", "genre", "features", "description", "summary", "text",
    "tags", "keywords",
)  # fmt: skip


@dataclass
class _Column:
    """One text field while it is being read."""

    values: StringPacker = field(default_factory=StringPacker)  # shorter than N until the next item that has it
    has_words: bool = False  # some value is more than a number, a date or a link
    only_links: bool = True
    refused: str | None = None  # where the first value stands that cannot be text

    def put(self, row: int, value: str) -> None:
        self.values.pad(row)
        self.values.append(value)
        if value and not self.has_words:
            link = value.startswith(("http://", "https://"))
            self.only_links = self.only_links and link
            self.has_words = not link and is_wordy(value)

    def refuse(self, why: str) -> None:
        self.refused = self.refused or why
        self.values = StringPacker()


class ColumnReader:
    """Turns records into columns, one at a time; the records themselves are let go."""

    def __init__(self, problems: Problems, id_field: str, names: list[str] | None) -> None:
        self.problems = problems
        self.id_field = id_field
        self.names = names  # None: find them
        self.ids = StringPacker()
        self.lines = array("q")  # of each id
        self.columns: dict[str, _Column] = {name: _Column() for name in names or ()}
        self.found: set[str] = set()  # every field of every record, for the message about a misspelt one

    def add(self, line: int, record: dict[str, Any]) -> None:
        if self.id_field not in record:
            have = f"have: {name_list(record)}" if record else "the record is empty"
            what = f"missing field {quote(self.id_field)} ({have}). Use --id-field to name another."
            self.problems.add(line, what)
            return
        item_id = id_string(record[self.id_field])
        if item_id is None:
            self.problems.add(line, f"{self.id_field} {id_fault(record[self.id_field])}")
            return
        row = len(self.lines)
        self.ids.append(item_id)
        self.lines.append(line)
        if self.names is None:
            self._add_any(row, line, record)
        else:
            self._add_chosen(row, line, record)

    def _add_chosen(self, row: int, line: int, record: dict[str, Any]) -> None:
        self.found.update(record)
        for name in self.columns:
            value = text_of(record.get(name))
            if value is not None:
                self.columns[name].put(row, value)
            else:
                kind = kind_of(record[name])
                self.problems.add(line, f"field {quote(name)} holds {kind}; expected text. Leave it out of --text.")

    def _add_any(self, row: int, line: int, record: dict[str, Any]) -> None:
        for name, raw in record.items():
            if name == self.id_field or not isinstance(name, str):
                continue
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = _Column()
            if column.refused:  # only whether there was text, for the warning
                column.has_words = column.has_words or (isinstance(raw, str) and is_wordy(raw))
                continue
            if type(raw) is str:  # nearly every value: skip the questions
                column.put(row, clean_text(raw))
                continue
            value = None if is_vector(raw) else text_of(raw)
            if value is None:
                column.refuse(f"{kind_of(raw)} at {self.problems.where(line)}")
            else:
                column.put(row, value)

    def finish(self, warn: Callable[[str], None]) -> tuple[PackedStrings, dict[str, PackedStrings]]:
        """The ids and the text columns, or the error that lists everything wrong with the source."""
        for name in sorted(set(self.columns) - self.found) if self.names and self.lines else ():
            self.problems.add(None, no_such_field(name, map(str, self.found)))
        if not self.lines and not self.problems.total:
            self.problems.add(None, "no items. Expected one record per item.")
        ids = self.ids.finish()
        self._add_duplicates(ids)
        self.problems.raise_if_any()
        fields = {}
        for name in self.names if self.names is not None else self._text_fields():
            column = self.columns[name].values
            column.pad(len(ids))
            fields[name] = column.finish()
        self._warn(fields, len(ids), warn)
        return ids, fields

    def _add_duplicates(self, ids: PackedStrings) -> None:
        """A dictionary of all ids would take more memory than the catalogue; they are sorted anyway."""
        for row, first in zip(*ids.repeats(), strict=True):
            place = self.problems.first_at(self.lines[first])
            self.problems.add(self.lines[row], f"duplicate id {quote(ids[row])} (first at {place}). Keep one of them.")

    def _text_fields(self) -> list[str]:
        """Names of the fields that are text, in an order that does not depend on the order of the rows."""
        rank = {name: i for i, name in enumerate(WELL_KNOWN)}
        chosen = [
            name
            for name, column in self.columns.items()
            if column.values.n_bytes and not has_surrogate(name)  # a refused column holds nothing
            if column.has_words or (name.casefold() in rank and not column.only_links)
        ]
        return sorted(chosen, key=lambda name: (rank.get(name.casefold(), len(rank)), name))

    def _warn(self, fields: dict[str, PackedStrings], n_items: int, warn: Callable[[str], None]) -> None:
        for name in sorted(self.columns):
            column = self.columns[name]
            if column.refused and column.has_words:
                warn(f"field {quote(name)} is left out: text in some items, but {column.refused}.")
        filled = np.zeros(n_items, np.bool_)
        for packed in fields.values():
            filled |= np.diff(packed.offsets) > 0
        empty = n_items - int(filled.sum())
        if empty == 1:
            warn(f"1 item of {n_items:,} has no text; it still gets an ID.")
        elif empty:
            warn(f"{empty:,} items of {n_items:,} have no text; they still get IDs.")


def no_such_field(name: str, found: Iterable[str]) -> str:
    """For a message: the field that is missing, near names, and those there are."""
    found = sorted(found)
    near = difflib.get_close_matches(name, found, n=3)
    guess = f" Did you mean {' or '.join(map(quote, near))}?" if near else ""
    return f"no item has the text field {quote(name)}.{guess} Fields found: {name_list(found)}."
