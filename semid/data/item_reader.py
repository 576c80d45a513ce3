"""The reader of catalogs: records become ids and columns of clean text, one record at a time. No record is kept."""

from __future__ import annotations

import difflib
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.interaction_fields import find_fields
from semid.data.paths import find_field, roots
from semid.data.string_batches import bytes_of, strings_of
from semid.data.strings import PackedStrings, StringPacker
from semid.data.text_column import OBJECT, TextColumn
from semid.data.text_fields import WELL_KNOWN, name_rank, why_not_text
from semid.data.values import has_surrogate, id_fault, id_string, is_vector, is_wordy, kind_of, text_of
from semid.files.problems import Problems, name_list, quote
from semid.files.row_batches import NotPlain

__all__ = ["ColumnReader", "field_order", "no_such_field", "reasons"]


BATCH = 4096  # records that are added at once
REFUSED = {OBJECT: "object", "a list of numbers": "vectors"}


class ColumnReader:
    """Turns records into columns, one record at a time."""

    def __init__(self, problems: Problems, id_field: str, names: list[str] | None, keep: Collection[str] = ()) -> None:
        self.problems = problems
        self.id_field = id_field
        self.names = names  # None: detect them
        self.keep = frozenset(keep)  # of the detected ones, those that are text whatever they hold
        self.left_out: dict[str, str] = {}  # field name -> why it is not text
        self.waiting: list[tuple[int, dict[str, Any]]] = []  # records that are not added yet
        self.ids = StringPacker()
        self.lines = array("q")  # of each id
        self.places = array("q")  # row of each id in the source; empty if no row before it was skipped
        self.rows = np.zeros(0, np.int64)  # of the items in the source, when they are finished
        self.columns: dict[str, TextColumn] = {name: TextColumn() for name in names or ()}
        self.paths = [name for name in sorted({*self.keep, *(names or ())}) if roots(name)]
        self.found: set[str] = set()  # every field of every record, for the message about a misspelled one

    def reads(self, name: str) -> bool:
        """Return whether the field is read whatever it holds: because it was named, or a path begins in it."""
        heads = (head for path in self.paths for head in roots(path))
        return name == self.id_field or name in self.keep or name in self.columns or name in heads

    def add(self, line: int, record: dict[str, Any]) -> None:
        """Add the record of a line, or note what is wrong with it."""
        if self.problems.skips:  # whether a record is skipped must be known before the next one is read
            self._add(line, record)
            return
        self.waiting.append((line, record))
        if len(self.waiting) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        """Add the records that wait: column by column if they are alike, else one by one."""
        import pyarrow

        waiting, self.waiting = self.waiting, []
        if waiting and not self._add_alike(*zip(*waiting, strict=True)):
            for line, record in waiting:
                self._add(line, record)
        pyarrow.default_memory_pool().release_unused()  # else Arrow keeps more than the batch took

    def _add_alike(self, lines: Sequence[int], records: Sequence[dict[str, Any]]) -> bool:
        """Add records with the same fields; return False, and add none, if they are not alike or one has a fault."""
        fields = tuple(records[0])
        if self.paths or self.id_field not in fields or any(tuple(record) != fields for record in records):
            return False
        ids = [item_id for record in records if (item_id := id_string(record[self.id_field])) is not None]
        if len(ids) < len(records):
            return False
        columns: dict[str, tuple[list[Any], Any]] = {}  # the values, and they as Arrow strings if they can be
        for name in filter(self._is_text if self.names is None else self.columns.__contains__, fields):
            values = [record[name] for record in records]
            columns[name] = values, strings_of(values)
            if self.names is not None and columns[name][1] is None:
                return False
        row = len(self.lines)
        self.lines.extend(lines)
        for item_id in ids:
            self.ids.append(item_id)
        self.found.update(fields if self.names is not None else ())
        for name, (values, strings) in columns.items():
            column = self.columns.setdefault(name, TextColumn())
            if strings is not None and not column.refused:
                column.add_strings(row, strings)
                continue
            for place, raw in enumerate(values):
                self._add_value(column, row + place, raw)
        return True

    def add_rows(self, line: int, columns: Mapping[str, Any]) -> None:
        """Add rows from a line on: Arrow arrays of strings without nulls, by name. NotPlain if an id is empty."""
        import pyarrow.compute

        ids = columns[self.id_field]
        if len(ids) and pyarrow.compute.min(pyarrow.compute.binary_length(ids)).as_py() == 0:
            raise NotPlain("an empty id")
        row = len(self.lines)
        self.ids.extend(*bytes_of(ids))
        self.lines.extend(range(line, line + len(ids)))
        self.found.update(columns if self.names is not None else ())
        for name in filter(self._is_text if self.names is None else self.columns.__contains__, columns):
            self.columns.setdefault(name, TextColumn()).add_strings(row, columns[name])

    def _is_text(self, name: object) -> bool:
        """Return whether a field may be text, where none was chosen."""
        return isinstance(name, str) and (name != self.id_field or name in self.keep)

    def _add(self, line: int, record: dict[str, Any]) -> None:
        if self.id_field not in record:
            have = f"have: {name_list(record)}" if record else "the record is empty"
            what = f"missing field {quote(self.id_field)} ({have}). Use --id-field {_likely_id(record)}."
            self.problems.add(line, what)
            return
        item_id = id_string(record[self.id_field])
        if item_id is None:
            self.problems.add(line, f"{self.id_field} {id_fault(record[self.id_field])}")
            return
        record = self._with_paths(record) if self.paths else record
        if self.names is not None and not self._are_text(line, record):
            return
        row = len(self.lines)
        self.ids.append(item_id)
        self.lines.append(line)
        if self.problems.skips:
            self.places.append(self.problems.n_rows - 1)
        if self.names is None:
            self._add_any(row, record)
        else:
            for name, column in self.columns.items():
                column.add(row, record.get(name))

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

    def _are_text(self, line: int, record: dict[str, Any]) -> bool:
        """Return whether the chosen fields can be text; note those that cannot."""
        self.found.update(record)
        wrong = [name for name in self.columns if type(raw := record.get(name)) is not str and text_of(raw) is None]
        for name in wrong:
            self.columns[name].note_objects(record[name])
            self._refuse(line, name, self.columns[name], kind_of(record[name]))
        return not wrong

    def _refuse(self, line: int | None, name: str, column: TextColumn, kind: str) -> None:
        cure = f"Name its fields, e.g. {name}.{column.inside}" if column.inside else "Leave it out of --text"
        self.problems.add(line, f"field {quote(name)} holds {kind}; expected text. {cure}.")

    def _add_any(self, row: int, record: dict[str, Any]) -> None:
        for name, raw in record.items():
            if self._is_text(name):
                self._add_value(self.columns.setdefault(name, TextColumn()), row, raw)

    def _add_value(self, column: TextColumn, row: int, raw: object) -> None:
        if column.refused:  # remember whether it has text, for the warning
            column.has_words = column.has_words or (isinstance(raw, str) and is_wordy(raw))
            column.note_objects(raw)
        elif (type(raw) is not str and is_vector(raw)) or not column.add(row, raw):
            column.refuse(kind_of(raw), row)
            column.note_objects(raw)

    def finish(self, warn: Callable[[str], None]) -> tuple[PackedStrings, dict[str, PackedStrings]]:
        """Return the ids and the text columns, or raise the error that lists everything wrong with the source."""
        self._flush()
        for name in sorted(set(self.columns) - self.found) if self.names and self.lines else ():
            self.problems.add(None, no_such_field(name, map(str, self.found)))
        if not self.lines and not self.problems.total:
            self.problems.add(None, "no items. Expected one record per item.")
        ids = self.ids.finish()
        kept = self._without_duplicates(ids, warn)
        fields = {name: self.columns[name].finish(len(ids)) for name in self.names or ()}
        for name in fields:
            self._check_objects(name, self.columns[name])
        self.problems.finish()
        if self.names is None:
            fields = {name: self.columns[name].finish(len(ids)) for name in self._text_fields(ids)}
            self.left_out |= self.problems.unread
        self.rows = np.array(self.places, np.int64) if self.places else np.arange(len(ids))
        if len(kept) < len(ids):
            fields = {name: values.take(kept) for name, values in fields.items()}
            ids, self.rows = ids.take(kept), self.rows[kept]
        self._warn(fields, len(ids), warn)
        return ids, fields

    def _check_objects(self, name: str, column: TextColumn) -> None:
        """Note that a chosen field holds objects in its cells, or lists of objects without names and nothing else."""
        if column.refused:
            self._refuse(self.lines[column.refused_row], name, column, column.refused)
        elif column.inside and not column.tally.n_filled:
            self._refuse(None, name, column, "objects without a name, title, label, text or value")

    def _without_duplicates(self, ids: PackedStrings, warn: Callable[[str], None]) -> npt.NDArray[np.int64]:
        """Return the rows to keep: int64, ascending. Note ids that come again, or say which of their rows are kept.

        Ids are sorted for it: a dict of all ids would take more memory than the catalog.
        """
        rows, firsts = ids.repeats()
        which = self.problems.reading.duplicates
        kept = np.ones(len(ids), np.bool_)
        kept[rows] = False
        if which == "last":
            kept[firsts] = False
            last = dict(zip(firsts.tolist(), rows.tolist(), strict=True))  # rows ascend: the last one stays
            kept[list(last.values())] = True
        if which == "error":
            for row, first in zip(rows.tolist(), firsts.tolist(), strict=True):
                place = self.problems.first_at(self.lines[first])
                what = f"duplicate id {quote(ids[row])} (first at {place})."
                self.problems.raw = ids[row]  # the row itself is gone
                self.problems.add(self.lines[row], f"{what} Keep one of them, perhaps with --duplicates first.")
        elif len(rows):
            have = "1 row repeats an id" if len(rows) == 1 else f"{len(rows):,} rows repeat an id"
            warn(f"{self.problems.name}: {have}; kept the {which} of each (--duplicates)")
        return np.flatnonzero(kept)

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


def _likely_id(record: Mapping[str, object]) -> str:
    """Return the field that is the id by its name, for a message: "movieId", or "to name another" if none is.

    >>> _likely_id({"movieId": 1, "title": "Lamp"}), _likely_id({"a": 1, "song": "Lamp"})
    ('movieId', 'to name another')
    """
    name = find_fields(tuple(record), (None, None, None)).item.name
    likely = name is not None and name.isprintable() and re.search("(id|asin|isbn|sku|code)$", name.casefold())
    return str(name) if likely else "to name another"
