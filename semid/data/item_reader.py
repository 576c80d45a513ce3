"""The reader of catalogs: records become ids and columns of clean text, one record at a time. No record is kept."""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from semid.data.paths import find_field, roots
from semid.data.problems import Problems, name_list, quote
from semid.data.strings import PackedStrings, StringPacker
from semid.data.text_column import OBJECT, TextColumn
from semid.data.text_fields import WELL_KNOWN, name_rank, why_not_text
from semid.data.values import has_surrogate, id_fault, id_string, is_vector, is_wordy, kind_of

__all__ = ["ColumnReader", "field_order", "no_such_field", "reasons"]


REFUSED = {OBJECT: "object", "a list of numbers": "vectors"}


class ColumnReader:
    """Turns records into columns, one record at a time."""

    def __init__(self, problems: Problems, id_field: str, names: list[str] | None, keep: Collection[str] = ()) -> None:
        self.problems = problems
        self.id_field = id_field
        self.names = names  # None: detect them
        self.keep = frozenset(keep)  # of the detected ones, those that are text whatever they hold
        self.left_out: dict[str, str] = {}  # field name -> why it is not text
        self.ids = StringPacker()
        self.lines = array("q")  # of each id
        self.columns: dict[str, TextColumn] = {name: TextColumn() for name in names or ()}
        self.paths = [name for name in sorted({*self.keep, *(names or ())}) if roots(name)]
        self.found: set[str] = set()  # every field of every record, for the message about a misspelled one

    def reads(self, name: str) -> bool:
        """Return whether the field is read whatever it holds: because it was named, or a path begins in it."""
        heads = (head for path in self.paths for head in roots(path))
        return name == self.id_field or name in self.keep or name in self.columns or name in heads

    def add(self, line: int, record: dict[str, Any]) -> None:
        """Add the record of a line, or note what is wrong with it."""
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
        record = self._with_paths(record) if self.paths else record
        if self.names is None:
            self._add_any(row, record)
        else:
            self._add_chosen(row, line, record)

    def _with_paths(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record with the values at the paths, and note the fields next to them for `no_such_field`."""
        added = {}
        for name in self.paths:
            has, value = find_field(record, name)
            if has:
                added[name] = value
            for head in roots(name) if not has and self.names else ():
                if isinstance(inside := record.get(head), Mapping):
                    self.found.update(f"{head}.{key}" for key in inside)
        return {**record, **added}

    def _add_chosen(self, row: int, line: int, record: dict[str, Any]) -> None:
        self.found.update(record)
        for name, column in self.columns.items():
            value = record.get(name)
            if not column.add(row, value):
                column.note_objects(value)
                self._refuse(line, name, column, kind_of(value))

    def _refuse(self, line: int | None, name: str, column: TextColumn, kind: str) -> None:
        cure = f"Name its fields, e.g. {name}.{column.inside}" if column.inside else "Leave it out of --text"
        self.problems.add(line, f"field {quote(name)} holds {kind}; expected text. {cure}.")

    def _add_any(self, row: int, record: dict[str, Any]) -> None:
        for name, raw in record.items():
            if not isinstance(name, str) or (name == self.id_field and name not in self.keep):
                continue
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = TextColumn()
            if column.refused:  # remember whether it has text, for the warning
                column.has_words = column.has_words or (isinstance(raw, str) and is_wordy(raw))
                column.note_objects(raw)
            elif (type(raw) is not str and is_vector(raw)) or not column.add(row, raw):
                column.refuse(kind_of(raw), row)
                column.note_objects(raw)

    def finish(self, warn: Callable[[str], None]) -> tuple[PackedStrings, dict[str, PackedStrings]]:
        """Return the ids and the text columns, or raise the error that lists everything wrong with the source."""
        for name in sorted(set(self.columns) - self.found) if self.names and self.lines else ():
            self.problems.add(None, no_such_field(name, map(str, self.found)))
        if not self.lines and not self.problems.total:
            self.problems.add(None, "no items. Expected one record per item.")
        ids = self.ids.finish()
        self._add_duplicates(ids)
        fields = {name: self.columns[name].finish(len(ids)) for name in self.names or ()}
        for name in fields:
            self._check_objects(name, self.columns[name])
        self.problems.finish()
        if self.names is None:
            fields = {name: self.columns[name].finish(len(ids)) for name in self._text_fields(ids)}
        self._warn(fields, len(ids), warn)
        return ids, fields

    def _check_objects(self, name: str, column: TextColumn) -> None:
        """Note that a chosen field holds objects in its cells, or lists of objects without names and nothing else."""
        if column.refused:
            self._refuse(self.lines[column.refused_row], name, column, column.refused)
        elif column.inside and not column.tally.n_filled:
            self._refuse(None, name, column, "objects without a name, title, label, text or value")

    def _add_duplicates(self, ids: PackedStrings) -> None:
        """Note duplicate ids. They are sorted for it: a dict of all ids would take more memory than the catalog."""
        for row, first in zip(*ids.repeats(), strict=True):
            place = self.problems.first_at(self.lines[first])
            self.problems.add(self.lines[row], f"duplicate id {quote(ids[row])} (first at {place}). Keep one of them.")

    def _text_fields(self, ids: PackedStrings) -> list[str]:
        """Return the names of the fields that are text, in an order that does not depend on the order of the rows."""
        chosen = []
        for name in sorted(self.columns):
            column = self.columns[name]
            values = column.finish(len(ids))  # may refuse objects in cells
            if column.refused:
                if not column.has_words:  # else a warning of its own
                    self.left_out[name] = self._without_text(name, column)
            elif column.has_values and not has_surrogate(name):
                reason = None if name in self.keep else why_not_text(name, column.tally, values, ids)
                if reason is None:
                    chosen.append(name)
                else:
                    self.left_out[name] = self._without_text(name, column) if column.inside else reason
        return sorted(chosen, key=field_order)

    def _without_text(self, name: str, column: TextColumn) -> str:
        reason = REFUSED.get(column.refused or "", "no text") if column.refused else "objects"
        return f"{reason}; name its fields, e.g. {name}.{column.inside}" if column.inside else reason

    def _warn(self, fields: dict[str, PackedStrings], n_items: int, warn: Callable[[str], None]) -> None:
        for name in sorted(self.columns):
            column = self.columns[name]
            if column.refused and column.has_words:
                where = self.problems.where(self.lines[column.refused_row])
                warn(f"field {quote(name)} is left out: text in some items, but {column.refused} at {where}.")
        if not fields:  # `Items.require_text` says so where text is needed
            return
        lists = [name for name in fields if self.columns[name].read_as_lists]
        if lists:
            warn(f"read the cells of {name_list(lists)} as lists (JSON or Python)")
        if self.left_out and not self.keep:
            warn(f"text from {name_list(fields)}; left out: {reasons(self.left_out)}; choose fields with --text")
        filled = np.zeros(n_items, np.bool_)
        for packed in fields.values():
            filled |= np.diff(packed.offsets) > 0
        empty = n_items - int(filled.sum())
        if empty == 1:
            warn(f"1 item of {n_items:,} has no text; it still gets an ID.")
        elif empty:
            warn(f"{empty:,} items of {n_items:,} have no text; they still get IDs.")


def field_order(name: str) -> tuple[int, bool, str]:
    """Return the sort key of a text field: well-known names first, then the others by name.

    >>> sorted(["zebra", "brand", "movie_title", "title"], key=field_order)
    ['title', 'movie_title', 'brand', 'zebra']
    """
    return (*(name_rank(name) or (len(WELL_KNOWN), False)), name)


def reasons(left_out: Mapping[str, str]) -> str:
    """Return fields and why they are no text, for a message: "isbn (identifiers), year (numbers)"."""
    shown = [f"{name if name.isprintable() else quote(name)} ({reason})" for name, reason in sorted(left_out.items())]
    return name_list(shown)


def no_such_field(name: str, found: Iterable[str]) -> str:
    """Return a message that names a missing field, near names, and the existing ones."""
    found = sorted(found)
    near = difflib.get_close_matches(name, found, n=3)
    guess = f" Did you mean {' or '.join(map(quote, near))}?" if near else ""
    return f"no item has the text field {quote(name)}.{guess} Fields found: {name_list(found)}."
