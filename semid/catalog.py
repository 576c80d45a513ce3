"""Items: the catalogue as ids and cleaned text fields, whatever it was stored in.

Reading ends in columns of strings, packed into arrays (`semid.strings`): a million items take little more than
their text. Which fields are text is decided in `semid.text_columns`; what clean text is, in `semid.text`; turning
text into vectors is the business of `semid.embed`.

Two runs over the same items in another row order read the same fields in the same order, and
`Items.sorted()` puts the items themselves into one canonical order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError
from semid.problems import Problems
from semid.records import iter_records, with_progress
from semid.strings import PackedStrings
from semid.text import clean_text, id_fault, id_string
from semid.text_columns import ColumnReader, no_such_field

__all__ = ["Items", "clean_text", "id_fault", "id_string", "read_items"]

logger = logging.getLogger("semid")


@dataclass(frozen=True, eq=False)
class Items:
    """A catalogue of N items: their ids and their text, in columns.

    Parameters
    ----------
    ids : sequence of N strings
        Unique, never empty, kept exactly as written. Readers give PackedStrings, which equal a list.
    fields : dict of field name -> sequence of N strings
        Clean text, "" where an item has none. The order of the dict is the order of the text.
    source : str
        What messages call this catalogue.
    rows : int64 [N], optional
        The place of each item in the source, from 0: `vectors[items.rows]` brings rows that lie in source
        order into the order of the items. By default 0 .. N - 1.

    >>> items = Items(["b", "a"], {"title": ["Red polish.", "Kohl"], "brand": ["OPI", ""]})
    >>> list(items.texts()), list(items.sorted().ids), items.sorted().rows.tolist()
    (['Red polish. OPI', 'Kohl'], ['a', 'b'], [1, 0])
    """

    ids: Sequence[str]
    fields: dict[str, Sequence[str]]
    source: str = "items"
    rows: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self.ids), dtype=np.int64))
        for name, column in [*self.fields.items(), ("rows", self.rows)]:
            if len(column) != len(self.ids):
                raise InputError(f"{name}: {len(column)} values for {len(self.ids)} ids; expected one each.")

    def __len__(self) -> int:
        return len(self.ids)

    def texts(self) -> PackedStrings:
        """One string per item: its fields joined with ". ", skipping empty ones."""
        columns = list(self.fields.values())
        if not columns:
            return PackedStrings.pack([""] * len(self))
        if len(columns) == 1:
            return _packed(columns[0])
        return PackedStrings.pack(map(_sentences, zip(*columns, strict=True)))

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> Items:
        """The items at positions `rows` (not places in the source), in that order; or those of a mask."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        fields = {name: _packed(column).take(chosen) for name, column in self.fields.items()}
        return Items(_packed(self.ids).take(chosen), fields, self.source, self.rows[chosen])

    def part(self, start: int, stop: int) -> Items:
        """The items at positions `start` to `stop`."""
        fields = {name: column[start:stop] for name, column in self.fields.items()}
        return Items(self.ids[start:stop], fields, self.source, self.rows[start:stop])

    def order(self) -> npt.NDArray[np.int64]:
        """int64 [N]: positions by the UTF-8 bytes of the ids."""
        return _packed(self.ids).order

    def sorted(self) -> Items:
        """The items by the UTF-8 bytes of their ids: one order, however the source was ordered."""
        return self.take(self.order())


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
    progress: bool = False,
    on_warning: Callable[[str], None] | None = None,
) -> Items:
    """Read a catalogue.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream, iterable of dicts, or Items
        JSONL, CSV, TSV, plain or gzipped, or Parquet. How the format is found: `semid.records.iter_records`.
        In a CSV every cell is a string; JSON inside a cell is not parsed.
    text : names, or one string "title,brand"
        The text fields, in this order. Numbers in them become text. By default every field that holds
        strings or nested lists of strings and that is more than numbers, dates or links; well-known names
        (title, name, brand, categories, description, ...) first, the others by name.
    id_field : str
        The field with the item's id: a string or an integer, kept as a string.
    progress : bool
        Count the records on standard error.
    on_warning : callable, optional
        Receives each warning as a string; by default they go to the logger "semid".

    Returns
    -------
    Items
        In the order of the source, text cleaned by `clean_text`. Items with no text are kept.

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
    reader = ColumnReader(problems, id_field, names)
    named = {id_field, *(names or ())}
    records = iter_records(source, keep=named.__contains__, problems=problems)
    for line, record in with_progress(records, problems.name, shown=progress):
        reader.add(line, record)
    ids, fields = reader.finish(on_warning or logger.warning)
    return Items(ids, fields, problems.name)


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
    return Items(items.ids, {name: items.fields[name] for name in names}, items.source, items.rows)
