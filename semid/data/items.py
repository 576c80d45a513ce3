"""Items: the catalog as ids and cleaned text fields, whatever it is stored in.

Columns of strings are packed into arrays (`strings.py`), so a million items take little more memory than their text.
`text_fields.py` decides which fields are text, `values.py` what clean text is, `item_reader.py` reads.

The order of the rows changes neither the fields nor their order, and `Items.sorted()` puts the items into one canonical
order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from semid.data.item_columns import read_rows
from semid.data.item_reader import ColumnReader, no_such_field, reasons
from semid.data.strings import PackedStrings
from semid.data.text_fields import NUMBERS
from semid.errors import ConfigError, InputError
from semid.files.problems import Problems, name_list
from semid.files.reading import Duplicates, Reading, reading_of
from semid.files.records import iter_records
from semid.runtime.progress import track

__all__ = ["Items", "read_items"]


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
            found += f"; left out: {reasons(others)}" if others else ""
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
    delimiter: str | None = None,
    columns: Sequence[str] | str | None = None,
    encoding: str | None = None,
    skip_bad_rows: bool | str | os.PathLike[str] = False,
    duplicates: Duplicates = "error",
) -> Items:
    """Read a catalog.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream, iterable of dicts, or Items
        JSONL, CSV, TSV, plain or gzipped, or Parquet. `iter_records` says how the format is detected. In a CSV every
        cell is a string; where most filled cells of a column are lists in JSON or Python, they are read as lists.
    text : names, or one string "title,brand"
        The text fields, in this order. Numbers in them become text. A dot goes into objects and lists of objects:
        details.Material; a field whose own name has the dot wins. By default well-known names (title, name, brand,
        categories, description, ...; also as the last word, as in movie_title) first, then the others by name; see
        Notes.
    id_field : str
        The field with the item's id, a string or an integer. Ids are kept as strings.
    keep : names
        Fields that are text whatever they hold, wherever an item has them: the fields of an earlier choice. The others
        are chosen as by default.
    on_warning : callable, optional
        Called with each warning, a string. By default warnings are logged to "semid".
    delimiter, columns, encoding, skip_bad_rows, duplicates
        How to read a file, where its content does not say it; see `Reading`. Of items with the same id, "first" and
        "last" keep one.

    Returns
    -------
    Items
        In the order of the source, with text cleaned by `clean_text`. Items without text are kept. `left_out` names
        the fields that were not taken, and one warning lists them.

    Notes
    -----
    A field of strings, or of nested lists of strings, is text if more than half of its filled values are words: not
    numbers, prices, dates, links, ranks (#3,000 in Toys), or yes and no. "N/A", "NA", "nan", "None", "null", "\\N", "-"
    and "unknown" count as empty here. Objects in a list give their name, title, label, text or value; a field that is
    an object is left out.

    Three kinds of words are left out: the ids of other items (most values of a sample are ids of the catalog, or the
    field is called also_buy, similar_items, ... and holds codes; lists of codes, most of them different); in catalogs
    with at least eight values of the field, identifiers (at least 90 % of the values are numbers or one ASCII token
    with a digit, such as B004756YJA or sku-00017, and at least 95 % of them differ), and a constant (every item has the
    same value). A well-known name is text unless all of its values are links or empty.

    Raises
    ------
    InputError
        The source cannot be read, or some of it is wrong: missing or duplicate ids, broken lines, a wrong
        type, a text field that no item has. Lists the first ten problems with their lines.
    ConfigError
        `text` names no field, or an option for reading is impossible.

    >>> items = read_items([{"id": 7, "title": "Fish &amp; chips", "tags": ["hot", ["fried", "hot"]]}])
    >>> items.ids, items.fields
    (PackedStrings(['7']), {'title': PackedStrings(['Fish & chips']), 'tags': PackedStrings(['hot, fried'])})
    """
    names = _field_names(text)
    if isinstance(source, Items):
        return source if names is None else _select(source, names)
    header = columns.split(",") if isinstance(columns, str) else columns
    given = Reading(delimiter, None if header is None else tuple(header), encoding, skip_bad_rows, duplicates)
    reading = reading_of(source, given)
    problems = Problems.of(source, reading)
    reader = ColumnReader(problems, id_field, names, keep)
    if not read_rows(source, problems, reader):
        reader = ColumnReader(problems, id_field, names, keep)
        records = iter_records(source, keep=reader.reads, problems=problems, reading=reading, key_field=id_field)
        for line, record in track(records, f"reading {problems.name}", unit="record"):
            reader.add(line, record)
    ids, fields = reader.finish(on_warning or logger.warning)
    return Items(ids, fields, problems.name, reader.rows, reader.left_out, id_field)


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
