"""Row batches: the cells of a CSV file as Arrow columns of strings, for readers that work on whole columns.

pyarrow parses what the csv module would parse alike, and nothing else: the bytes are checked on their way. Whatever is
odd (a stray quote, a row of another width, bytes that are not UTF-8, a line break inside a cell) raises `NotPlain`, and
the caller reads the file again record by record, which names the fault.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from semid.files.layout import Layout
from semid.files.sources import LINE_LIMIT, Opened

if TYPE_CHECKING:
    import pyarrow

__all__ = ["JSON_LINES", "NotPlain", "not_plain_if_unreadable", "row_batches"]

JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")  # not worth a look inside
BLOCK = 1 << 20  # bytes that are parsed at once


class NotPlain(Exception):
    """The source has something that only the reader of records handles; nothing was said or changed."""


@contextlib.contextmanager
def not_plain_if_unreadable() -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into NotPlain."""
    import pyarrow

    try:
        yield
    except (OSError, UnicodeError, csv.Error, pyarrow.ArrowException) as error:
        raise NotPlain(str(error)) from error


def row_batches(file: Opened, layout: Layout, names: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    """Yield batches of the rows of a plain file, with the columns `names`, all strings, none null.

    Parameters
    ----------
    file : Opened
        The open file, of which nothing was read yet.
    layout : Layout
        Its layout; `layout.is_plain` must be true.
    names : sequence of str
        The columns, in this order.

    Raises
    ------
    NotPlain
        The rows cannot be read so; batches that came before are void.
    """
    import pyarrow
    import pyarrow.csv as arrow_csv

    columns = [str(place) for place in range(len(layout.columns))]
    chosen = [str(layout.columns.index(name)) for name in names]
    checked = _Checked(file.stream, layout)
    checked.check_header(file.stream.readline(LINE_LIMIT))
    batches = arrow_csv.open_csv(
        pyarrow.PythonFile(checked, "r"),
        arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=columns),
        arrow_csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=False),
        arrow_csv.ConvertOptions(
            check_utf8=False,  # `_Checked` looks at all columns
            include_columns=chosen,
            column_types=dict.fromkeys(chosen, pyarrow.string()),
            strings_can_be_null=False,
        ),
    )
    n_rows = 0
    for batch in batches:
        n_rows += batch.num_rows
        yield batch.rename_columns(list(names))
    if checked.n_lines != n_rows:
        raise NotPlain("blank lines")


class _Checked(io.RawIOBase):
    """A stream whose bytes are looked at as they pass: NotPlain at whatever the csv module reads in another way."""

    def __init__(self, stream: io.BufferedReader, layout: Layout) -> None:
        self.stream, self.layout = stream, layout
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.n_lines = 0
        self.before = b"\n"  # the byte before the next one
        self.n_quotes = 0
        self.after_closing = False  # whether the byte before the next one was a quote that closed a cell

    def readable(self) -> bool:
        return True

    def check_header(self, line: bytes) -> None:
        """Raise NotPlain if the first line is not the header."""
        row = next(csv.reader([line.decode("utf-8")], delimiter=self.layout.delimiter, strict=True), [])
        if tuple(name.strip() for name in row) != self.layout.columns or len(set(self.layout.columns)) < len(row):
            raise NotPlain("the first line is not the header")

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, checked. NotPlain at odd ones."""
        data = self.stream.read(size)
        self._check(data)
        return data

    def _check(self, data: bytes) -> None:
        if not data:
            self.decoder.decode(b"", True)
            self.n_lines += self.before != b"\n"  # a last line without an end
            if self.n_quotes % 2:
                raise NotPlain("a quoted cell does not end")
            return
        if not data.isascii() or self.decoder.getstate()[0]:
            self.decoder.decode(data)
        self.n_lines += data.count(b"\n")
        if b"\r" in data or self.before == b"\r":
            joined = self.before + data
            if joined.count(b"\r") - joined.endswith(b"\r") != joined.count(b"\r\n"):
                raise NotPlain("a carriage return inside of a line")
        if b'"' in data or self.after_closing or self.n_quotes % 2:
            self._check_quotes(data)
        self.before = data[-1:]

    def _check_quotes(self, data: bytes) -> None:
        """Raise if quotes are elsewhere than around cells and, doubled, inside them.

        Quotes open and close in turn. One that opens stands behind a delimiter or a line end, or behind one that
        closes: together they are a quote inside a cell. One that closes stands before the like.
        """
        padded = np.frombuffer(self.before + data, np.uint8)
        places = np.flatnonzero(padded[1:] == ord('"')) + 1
        first_closes = self.n_quotes % 2
        opening, closing = places[first_closes::2], places[1 - first_closes :: 2]
        ends = np.frombuffer(b'\r\n"' + self.layout.delimiter.encode(), np.uint8)
        if self.after_closing and padded[1] not in ends:
            raise NotPlain("something behind a quoted cell")
        inner = closing[closing + 1 < len(padded)]
        if not np.isin(padded[opening - 1], ends[1:]).all() or not np.isin(padded[inner + 1], ends).all():
            raise NotPlain("a quote inside of a cell")
        line_ends = np.flatnonzero(padded[1:] == ord("\n")) + 1
        if ((np.searchsorted(places, line_ends) + self.n_quotes) % 2).any():
            raise NotPlain("a line break inside of a cell")
        self.n_quotes += len(places)
        self.after_closing = bool(len(closing)) and int(closing[-1]) == len(padded) - 1
