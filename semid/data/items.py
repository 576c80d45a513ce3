"""Items: the catalog as ids and cleaned text fields, whatever it is stored in.

Columns of strings are packed into arrays (`strings.py`), so a million items take little more memory than their text.
This file decides which fields are text; `values.py` decides what clean text is.

The order of the rows changes neither the fields nor their order, and `Items.sorted()` puts the items into one canonical
order.
"""

from __future__ import annotations

import difflib
import logging
import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.problems import Problems, name_list, quote
from semid.data.records import iter_records
from semid.data.strings import PackedStrings, StringPacker
from semid.data.values import clean_text, has_surrogate, id_fault, id_string, is_vector, is_wordy, kind_of, text_of
from semid.errors import ConfigError, InputError
from semid.runtime.progress import track

__all__ = ["ColumnReader", "Items", "no_such_field", "read_items"]


logger = logging.getLogger("semid")


@dataclass(frozen=True, eq=False)
class Items:
    """A catalog of N items: their ids and their text, in columns. Iterating gives a dict of strings per item.

    Parameters
    ----------
    ids : sequence of N strings
        Unique, never empty, kept exactly as written. `read_items` returns PackedStrings, which equal a list.
    fields : dict of field name -> sequence of N strings
        Clean text, "" where an item has none, in the order in which texts are joined.
    source : str
        Name of the catalog in messages.
    rows : int64 [N], optional
        Row of each item in the source, from 0: `vectors[items.rows]` puts vectors in source order into the order of
        the items. By default 0 .. N - 1.
    left_out : dict of field name -> reason, optional
        The fields that `read_items` did not take as text: numbers, identifiers, links, a constant, ...
    id_field : str
        Name of the field that the ids come from.

    >>> items = Items(["b", "a"], {"title": ["Red polish.", "Kohl"], "brand": ["OPI", ""]})
    >>> items, next(iter(items))
    (Items(2 items; title, brand), {'id': 'b', 'title': 'Red polish.', 'brand': 'OPI'})
    >>> list(items.texts()), list(items.sorted().ids), items.sorted().rows.tolist()
    (['Red polish. OPI', 'Kohl'], ['a', 'b'], [1, 0])
    """

    ids: Sequence[str]
    fields: Mapping[str, Sequence[str]]
    source: str = "items"
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    left_out: Mapping[str, str] = field(default_factory=dict)
    id_field: str = "id"

    def __post_init__(self) -> None:
        if not len(self.rows):
            object.__setattr__(self, "rows", np.arange(len(self.ids), dtype=np.int64))
        sizes = {name: len(column) for name, column in self.fields.items()} | {"rows": len(self.rows)}
        for name, size in sizes.items():
            if size != len(self.ids):
                raise InputError(f"{name}: {size} values for {len(self.ids)} ids; expected one each.")

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[dict[str, str]]:
        columns = [self.ids, *self.fields.values()]
        return (dict(zip(("id", *self.fields), values, strict=True)) for values in zip(*columns, strict=True))

    def __repr__(self) -> str:
        return f"Items({len(self)} items; {', '.join(self.fields) or 'no text'})"

    def texts(self) -> PackedStrings:
        """Return one string per item: its fields joined with ". ", without empty ones."""
        columns = list(self.fields.values())
        if not columns:
            return PackedStrings.pack([""] * len(self))
        if len(columns) == 1:
            return _packed(columns[0])
        return PackedStrings.pack(map(_sentences, zip(*columns, strict=True)))

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> Items:
        """Return the items at some positions (not rows of the source), in that order; or those of a mask."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        fields = {name: _packed(column).take(chosen) for name, column in self.fields.items()}
        return replace(self, ids=_packed(self.ids).take(chosen), fields=fields, rows=self.rows[chosen])

    def part(self, start: int, stop: int) -> Items:
        """Return the items from position `start` up to `stop`."""
        fields = {name: column[start:stop] for name, column in self.fields.items()}
        return replace(self, ids=self.ids[start:stop], fields=fields, rows=self.rows[start:stop])

    def order(self) -> npt.NDArray[np.int64]:
        """Return the positions sorted by the UTF-8 bytes of the ids: int64 [N]."""
        return _packed(self.ids).order

    def sorted(self) -> Items:
        """Return the items sorted by the UTF-8 bytes of their ids, whatever the order of the source."""
        return self.take(self.order())

    def require_text(self) -> None:
        """Raise InputError, which says what the catalog holds instead, if no item has any text."""
        if not len(self) or any(any(column) for column in self.fields.values()):
            return
        if self.fields:
            found = f"no item has text in {name_list(self.fields)}"
        else:
            numeric = sorted(name for name, reason in self.left_out.items() if reason == NUMBERS)
            others = {name: reason for name, reason in self.left_out.items() if reason != NUMBERS}
            found = "no text field"
            found += f"; numeric fields: {name_list(numeric)}" if numeric else ""
            found += f"; left out: {_reasons(others)}" if others else ""
        raise InputError(f"{self.source}: {found}. Name text fields with --text, or give vectors with --embeddings.")


def _packed(column: Sequence[str]) -> PackedStrings:
    return column if isinstance(column, PackedStrings) else PackedStrings.pack(column)


def _sentences(pieces: Iterable[str]) -> str:
    text = ""
    for piece in filter(None, pieces):
        text += ("" if not text else " " if text.endswith((".", "!", "?")) else ". ") + piece
    return text


def read_items(
    source: object,
    *,
    text: Sequence[str] | str | None = None,
    id_field: str = "id",
    keep: Collection[str] = (),
    on_warning: Callable[[str], None] | None = None,
) -> Items:
    """Read a catalog.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream, iterable of dicts, or Items
        JSONL, CSV, TSV, plain or gzipped, or Parquet. `iter_records` says how the format is detected. In a CSV every
        cell is a string; JSON inside a cell is not parsed.
    text : names, or one string "title,brand"
        The text fields, in this order. Numbers in them become text. By default well-known names (title, name, brand,
        categories, description, ...) first, then the others by name; see Notes.
    id_field : str
        The field with the item's id, a string or an integer. Ids are kept as strings.
    keep : names
        Fields that are text whatever they hold, wherever an item has them: the fields of an earlier choice. The others
        are chosen as by default.
    on_warning : callable, optional
        Called with each warning, a string. By default warnings are logged to "semid".

    Returns
    -------
    Items
        In the order of the source, with text cleaned by `clean_text`. Items without text are kept. `left_out` names
        the fields that were not taken, and one warning lists them.

    Notes
    -----
    A field of strings, or of nested lists of strings, is text if more than half of its filled values are words: not
    numbers, prices, dates, links, or yes and no. "N/A", "NA", "nan", "None", "null", "\\N", "-" and "unknown" count as
    empty here. In catalogs with at least eight values of the field, two kinds of words are left out: identifiers (at
    least 90 % of the values are numbers or one ASCII token with a digit, such as B004756YJA or sku-00017, and at least
    95 % of them differ), and a constant (every item has the same value). A well-known name is text unless all of its
    values are links or empty.

    Raises
    ------
    InputError
        The source cannot be read, or some of it is wrong: missing or duplicate ids, broken lines, a wrong
        type, a text field that no item has. Lists the first ten problems with their lines.
    ConfigError
        `text` names no field.
    DependencyError
        Parquet, when pyarrow is not installed.

    >>> items = read_items([{"id": 7, "title": "Fish &amp; chips", "tags": ["hot", ["fried", "hot"]]}])
    >>> items.ids, items.fields
    (PackedStrings(['7']), {'title': PackedStrings(['Fish & chips']), 'tags': PackedStrings(['hot, fried'])})
    """
    names = _field_names(text)
    if isinstance(source, Items):
        return source if names is None else _select(source, names)
    problems = Problems.of(source)
    reader = ColumnReader(problems, id_field, names, keep)
    named = {id_field, *(names or ()), *keep}
    records = iter_records(source, keep=named.__contains__, problems=problems)
    for line, record in track(records, f"reading {problems.name}", unit="record"):
        reader.add(line, record)
    ids, fields = reader.finish(on_warning or logger.warning)
    return Items(ids, fields, problems.name, left_out=reader.left_out, id_field=id_field)


def _field_names(text: Sequence[str] | str | None) -> list[str] | None:
    if text is None:
        return None
    names = text.split(",") if isinstance(text, str) else list(text)
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not names:
        raise ConfigError(f"text={text!r} names no field. Write for example title,brand.")
    return names


def _select(items: Items, names: list[str]) -> Items:
    for name in names:
        if name not in items.fields:
            raise InputError(f"{items.source}: {no_such_field(name, items.fields)}")
    return replace(items, fields={name: items.fields[name] for name in names})


# ---- Columns: records become ids and columns of clean text, one record at a time. No record is kept.


# Names of text fields in common catalogs, the most informative first; other fields follow by name.
WELL_KNOWN = (
    "title", "name", "product_title", "product_name", "brand", "author", "artist", "store",
    "categories", "category", "genres", "genre", "features", "description", "summary", "text",
    "tags", "keywords",
)  # fmt: skip


# The kinds of values; a field that is not text is left out for the kind that most of its values have.
WORDS, NUMBERS, DATES, LINKS, FLAGS, SIGNS = "words", "numbers", "dates", "links", "yes/no", "signs"
IDENTIFIERS, CONSTANT, EMPTY = "identifiers", "constant", "empty"

NO_VALUE = frozenset({"", "n/a", "na", "nan", "none", "null", "\\n", "-", "unknown"})  # casefolded
LINK = ("http://", "https://")
DATE = re.compile(r"(\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})(?!\d).*")
DIGIT = re.compile(r"\d")
CODE = re.compile(r"(?=.*[0-9])[!-~]{1,64}")  # one ASCII token with a digit
PUNCTUATION = re.compile(r"[^A-Za-z0-9]+")
FEW = 8  # with fewer values, neither a constant nor identifiers can be told from words
REFUSED = {"an object": "objects", "a list of numbers": "vectors"}


@lru_cache(maxsize=4096)  # brands and categories come again and again
def _kind(value: str) -> str:
    """Return the kind of a clean value that is not "".

    >>> [_kind(value) for value in ("red kohl", "9.99", "N/A", "B004756YJA", "red-nail-polish-15", "15 ml")]
    ['words', 'numbers', 'empty', 'identifiers', 'words', 'words']
    """
    if value.startswith(LINK):
        return LINKS
    if value.casefold() in NO_VALUE:
        return EMPTY
    if not is_wordy(value):
        if not DIGIT.search(value):
            return FLAGS if value[0].isalpha() else SIGNS
        return DATES if DATE.fullmatch(value) else NUMBERS
    if CODE.fullmatch(value) and sum(len(p) > 2 and p.isalpha() for p in PUNCTUATION.split(value)) < 2:
        return IDENTIFIERS
    return WORDS


@dataclass
class _Column:
    """One text field while it is being read."""

    values: StringPacker = field(default_factory=StringPacker)  # ends at the last item that has the field
    kinds: Counter[str] = field(default_factory=Counter)  # of the values so far, without "" and phrases
    n_phrases: int = 0  # values of several words
    first: str = ""
    same: bool = True  # whether all values so far are `first`
    refused: str | None = None  # the first value that cannot be text, and its place
    refused_kind: str = ""
    has_words: bool = False  # of a refused one: whether some value is text
    packed: PackedStrings | None = None  # all values, when the column is finished

    def put(self, row: int, value: str) -> None:
        self.values.pad(row)
        self.values.append(value)

    def count(self, value: str) -> None:
        """Note the kind of a value, for the choice of the fields."""
        if not value:
            return
        if self.same:
            self.first = self.first or value
            self.same = value == self.first
        if " " in value and value[0].isalpha() and not value.startswith(LINK):  # titles, descriptions: the fast path
            self.n_phrases += 1
        else:
            self.kinds[_kind(value)] += 1

    def refuse(self, kind: str, where: str) -> None:
        self.refused, self.refused_kind = f"{kind} at {where}", kind
        self.has_words = self.n_phrases + self.kinds[WORDS] + self.kinds[IDENTIFIERS] > 0
        self.values = StringPacker()

    def finish(self, n_items: int) -> PackedStrings:
        if self.packed is None:
            self.values.pad(n_items)
            self.packed = self.values.finish()
        return self.packed

    def not_text(self, n_items: int, well_known: bool) -> str | None:
        """Return why the field is not text; None if it is."""
        filled = self.n_phrases + self.kinds.total() - self.kinds[EMPTY]
        codes = self.kinds[IDENTIFIERS]
        words = self.n_phrases + self.kinds[WORDS] + codes
        if not filled:
            return EMPTY
        if well_known:
            return LINKS if self.kinds[LINKS] == filled else None
        tokens = codes + self.kinds[NUMBERS]  # the codes of a column may be digits alone, but not all of them
        if codes and filled >= FEW and 10 * tokens >= 9 * filled and 100 * self._distinct(n_items) >= 95 * filled:
            return IDENTIFIERS
        if 2 * words > filled:
            return CONSTANT if self.same and filled == n_items >= FEW else None
        others = {kind: count for kind, count in self.kinds.items() if kind not in (WORDS, IDENTIFIERS, EMPTY)}
        return max(sorted(others), key=others.__getitem__)

    def _distinct(self, n_items: int) -> int:
        """Return the number of different values that are not empty."""
        values = self.finish(n_items)
        first = np.ones(n_items, np.bool_)
        first[values.repeats()[0]] = False
        first &= np.diff(values.offsets) > 0
        longest = max(map(len, NO_VALUE))
        short = np.flatnonzero(first & (np.diff(values.offsets) <= longest))
        return int(first.sum()) - sum(values[int(row)].casefold() in NO_VALUE for row in short)


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
        self.columns: dict[str, _Column] = {name: _Column() for name in names or ()}
        self.found: set[str] = set()  # every field of every record, for the message about a misspelled one

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
            if not isinstance(name, str) or (name == self.id_field and name not in self.keep):
                continue
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = _Column()
            if column.refused:  # remember whether it has text, for the warning
                column.has_words = column.has_words or (isinstance(raw, str) and is_wordy(raw))
                continue
            if type(raw) is str:  # the fast path for nearly every value
                value = clean_text(raw)
            elif is_vector(raw) or (text := text_of(raw)) is None:
                column.refuse(kind_of(raw), self.problems.where(line))
                continue
            else:
                value = text
            column.put(row, value)
            column.count(value)

    def finish(self, warn: Callable[[str], None]) -> tuple[PackedStrings, dict[str, PackedStrings]]:
        """Return the ids and the text columns, or raise the error that lists everything wrong with the source."""
        for name in sorted(set(self.columns) - self.found) if self.names and self.lines else ():
            self.problems.add(None, no_such_field(name, map(str, self.found)))
        if not self.lines and not self.problems.total:
            self.problems.add(None, "no items. Expected one record per item.")
        ids = self.ids.finish()
        self._add_duplicates(ids)
        self.problems.finish()
        fields = {}
        for name in self.names if self.names is not None else self._text_fields(len(ids)):
            fields[name] = self.columns[name].finish(len(ids))
        self._warn(fields, len(ids), warn)
        return ids, fields

    def _add_duplicates(self, ids: PackedStrings) -> None:
        """Note duplicate ids. They are sorted for it: a dict of all ids would take more memory than the catalog."""
        for row, first in zip(*ids.repeats(), strict=True):
            place = self.problems.first_at(self.lines[first])
            self.problems.add(self.lines[row], f"duplicate id {quote(ids[row])} (first at {place}). Keep one of them.")

    def _text_fields(self, n_items: int) -> list[str]:
        """Return the names of the fields that are text, in an order that does not depend on the order of the rows."""
        rank = {name: i for i, name in enumerate(WELL_KNOWN)}
        chosen = []
        for name in sorted(self.columns):
            column = self.columns[name]
            if column.refused:  # holds nothing
                if not column.has_words:  # else a warning of its own
                    self.left_out[name] = REFUSED.get(column.refused_kind, "no text")
            elif column.values.n_bytes and not has_surrogate(name):
                reason = None if name in self.keep else column.not_text(n_items, name.casefold() in rank)
                if reason is None:
                    chosen.append(name)
                else:
                    self.left_out[name] = reason
        return sorted(chosen, key=lambda name: (rank.get(name.casefold(), len(rank)), name))

    def _warn(self, fields: dict[str, PackedStrings], n_items: int, warn: Callable[[str], None]) -> None:
        for name in sorted(self.columns):
            column = self.columns[name]
            if column.refused and column.has_words:
                warn(f"field {quote(name)} is left out: text in some items, but {column.refused}.")
        if not fields:  # `Items.require_text` says so where text is needed
            return
        if self.left_out and not self.keep:
            warn(f"left out: {_reasons(self.left_out)}; choose fields with --text")
        filled = np.zeros(n_items, np.bool_)
        for packed in fields.values():
            filled |= np.diff(packed.offsets) > 0
        empty = n_items - int(filled.sum())
        if empty == 1:
            warn(f"1 item of {n_items:,} has no text; it still gets an ID.")
        elif empty:
            warn(f"{empty:,} items of {n_items:,} have no text; they still get IDs.")


def _reasons(left_out: Mapping[str, str]) -> str:
    """Return fields and why they are no text, for a message: "isbn (identifiers), year (numbers)"."""
    shown = [f"{name if name.isprintable() else quote(name)} ({reason})" for name, reason in sorted(left_out.items())]
    return name_list(shown)


def no_such_field(name: str, found: Iterable[str]) -> str:
    """Return a message that names a missing field, near names, and the existing ones."""
    found = sorted(found)
    near = difflib.get_close_matches(name, found, n=3)
    guess = f" Did you mean {' or '.join(map(quote, near))}?" if near else ""
    return f"no item has the text field {quote(name)}.{guess} Fields found: {name_list(found)}."
