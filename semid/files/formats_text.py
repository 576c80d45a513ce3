"""Rows of cells: CSV and its relatives, RecBole's atomic files, MovieLens' files, and `user item item ...` lines.

The csv module parses rows; lines are kept until their row is known to be sound, so that a quote which is never closed
costs one row, named, and not the rest of the file.
"""

from __future__ import annotations

import csv
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from semid.files.arrow import Record
from semid.files.delimiters import DECIMAL_COMMA, SHOWN_AS, cells_of
from semid.files.encodings import not_utf8
from semid.files.formats_json import stream_fault
from semid.files.layout import Layout
from semid.files.problems import Problems, quote
from semid.files.sources import LINE_LIMIT, Opened

__all__ = ["from_netflix", "from_rows", "from_sequences"]

logger = logging.getLogger("semid")

Convert = Callable[[dict[str, Any]], dict[str, Any]]
SWALLOWED = 3  # lines inside a cell that look like rows, from which the cell is taken for a mistake ...
SWALLOWED_PAIRS = 10  # ... and where rows have two cells, as lines of prose may have one comma each


class _Lines:
    """The lines of a file as text; those of the current row are remembered and can be put back."""

    def __init__(self, file: Opened, problems: Problems, lenient: bool) -> None:
        file.limit_lines()
        self.stream, self.problems, self.lenient = file.stream, problems, lenient
        self.number = 0  # of the line that was given out last
        self.row: list[str] = []  # the lines of the current row
        self.waiting: deque[str] = deque()
        self.undecoded: dict[int, bytes] = {}  # lines that are not UTF-8
        self.has_escapes = False  # whether a quote in a cell had a backslash, which was said
        self.message = ""  # what is wrong with them

    def texts(self) -> Iterator[str]:
        """Yield the next lines. A line that cannot be decoded is noted, and given out with signs in its place."""
        row, waiting = self.row, self.waiting
        while waiting:  # filled only while this generator is not the one that runs
            self.number += 1
            row.append(waiting.popleft())
            yield row[-1]
        try:
            for raw in self.stream:
                self.number += 1
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    text = self._undecoded(raw, error)
                row.append(text)
                yield text
        except (OSError, UnicodeError) as error:
            stream_fault(error, self.number + 1, self.problems)

    def _undecoded(self, raw: bytes, error: UnicodeDecodeError) -> str:
        if self.lenient:
            if not self.message:
                self.message = "lines that are not UTF-8 are read as Latin-1; change with --encoding"
                logger.warning("%s: %s", self.problems.name, self.message)
            return raw.decode("latin-1")
        self.message = self.message or not_utf8(error)  # one message for all lines
        self.undecoded[self.number] = raw
        return raw.decode("utf-8", "replace")

    def put_back(self, count: int) -> None:
        """Give out the last `count` lines of the row again."""
        if count:
            self.waiting.extendleft(reversed(self.row[-count:]))
            self.number -= count
            del self.row[-count:]

    def undecoded_in_row(self, first: int) -> bytes | None:
        """Return a line of the row that is not UTF-8, and forget it."""
        found = [self.undecoded.pop(line) for line in range(first, self.number + 1) if line in self.undecoded]
        return found[0] if found else None


def from_rows(file: Opened, layout: Layout, problems: Problems) -> Iterator[Record]:
    """Yield rows as dicts with the names of the columns. A quoted cell may span lines; the first one counts."""
    csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT))  # its own limit is 128 KiB
    names: list[str] | None = None if layout.header else list(layout.columns)
    lines = _Lines(file, problems, layout.lenient)
    convert = _converter(layout)
    unnamed = "" in layout.columns
    skips = problems.skips
    for line, row in _rows(lines, layout, problems):
        if names is None:
            names = list(layout.columns) if layout.types else [name.strip() for name in row]
            unnamed = "" in names
            problems.check_columns(line, names)
            continue
        if skips:
            problems.raw = "".join(lines.row)
        if len(row) != len(names):
            problems.reject(line, _uneven(row, names, layout, lines), "".join(lines.row))
            continue
        record: dict[str, Any] = dict(zip(names, row, strict=True))
        if unnamed:
            record.pop("", None)  # the row number that pandas wrote
        yield line, record if convert is None else convert(record)


def _uneven(row: list[str], names: list[str], layout: Layout, lines: _Lines) -> str:
    """Return what is wrong with a row of another width than the header."""
    by = "the header has" if layout.header else "there are names for"
    if not layout.quoted:
        return f"{len(row)} columns, but {by} {len(names)}. Name the delimiter with --delimiter."
    held = SHOWN_AS.get(layout.delimiter, quote(layout.delimiter))
    spans = f" A quoted cell of this row ends {len(lines.row) - 1} lines below." if len(lines.row) > 2 else ""
    return f"{len(row)} columns, but {by} {len(names)}. Quote cells that hold {held}, quotes or line breaks.{spans}"


def _rows(lines: _Lines, layout: Layout, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of every row that is not blank, with `lines.row` as it stands in the file."""
    return _quoted_rows(lines, layout, problems) if layout.quoted else _literal_rows(lines, layout, problems)


def _literal_rows(lines: _Lines, layout: Layout, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    for text in lines.texts():
        line = lines.number
        if lines.undecoded and (raw := lines.undecoded_in_row(line)) is not None:
            problems.reject(line, lines.message, raw)
        elif not text.isspace():
            yield line, cells_of(text.rstrip("\r\n"), layout.delimiter)
        lines.row.clear()


def _quoted_rows(lines: _Lines, layout: Layout, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    kept, undecoded, delimiter = lines.row, lines.undecoded, layout.delimiter
    reader = csv.reader(lines.texts(), delimiter=delimiter, strict=True)
    width = 0  # of the first row
    while True:
        kept.clear()
        line = lines.number + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            row = _mended(lines, layout, problems, line, error, width)
            reader = csv.reader(lines.texts(), delimiter=delimiter, strict=True)
            if row is None and not width:
                return  # without a header, every row would be a problem of the same cause
            row = row or []
        if row is None:
            return
        if undecoded and (raw := lines.undecoded_in_row(line)) is not None:
            problems.reject(line, lines.message, raw)
        elif len(kept) > 2 and width and _swallows(kept[1:-1], delimiter, width):
            _reject_opening(lines, problems, line, f"runs over {len(kept) - 2} lines that look like rows")
            reader = csv.reader(lines.texts(), delimiter=delimiter, strict=True)
        elif row:  # else a blank line
            width = width or len(row)
            yield line, row


def _swallows(inside: list[str], delimiter: str, width: int) -> bool:
    """Return whether the lines inside a quoted cell are rows, so that its quote is a mistake."""
    if len(inside) < (SWALLOWED if width > 2 else SWALLOWED_PAIRS) or width < 2:
        return False
    return all(line.count(delimiter) == width - 1 and line[:1] not in (delimiter, "") for line in inside)


def _mended(
    lines: _Lines, layout: Layout, problems: Problems, line: int, error: csv.Error, width: int
) -> list[str] | None:
    """Return the cells of a row that is no strict CSV, if it has a meaning; otherwise note it and go on behind it."""
    row = lines.row
    if '\\"' in row[0]:  # as Spark and MySQL write quotes
        cells = _escaped(row[0], layout.delimiter)
        if len(cells) == width:
            lines.put_back(len(row) - 1)
            if not lines.has_escapes:
                logger.warning('%s: \\" in a quoted cell is read as a quote', problems.name)
            lines.has_escapes = True
            return cells
    if layout.delimiter == "\t":  # written without quoting, as most TSV is
        literal = row[0].rstrip("\r\n").split("\t")
        if len(literal) == width:
            lines.put_back(len(row) - 1)
            return literal
    if "unexpected end of data" in str(error):
        _reject_opening(lines, problems, line, "never ends, and would swallow the rest of the file")
    elif len(row) > 1:
        _reject_opening(lines, problems, line, f"ends wrongly in line {lines.number} ({error})")
    else:
        message = f"broken CSV: {error}. Quote the cell, and double the quotes inside it."
        problems.reject(line, message.replace("..", "."), "".join(row))
    return None


def _escaped(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line whose quotes have a backslash before them; none if it has others.

    >>> _escaped('7,"say \\\\"hi, you\\\\""', ","), _escaped('7,"a"b', ",")
    (['7', 'say "hi, you"'], [])
    """
    try:
        return next(csv.reader([line.replace('\\"', '""')], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []


def _reject_opening(lines: _Lines, problems: Problems, line: int, what: str) -> None:
    """Note the line in which the last quote opened; reading goes on behind it."""
    opening, is_open = 0, False
    for place, text in enumerate(lines.row):
        if text.count('"') % 2:
            is_open = not is_open
            opening = place if is_open else opening
    lines.put_back(len(lines.row) - opening - 1)
    message = f"broken CSV: a quoted cell opens here and {what}. Close the quote, or double it inside the cell."
    problems.reject(line + opening, message, "".join(lines.row))


# ---- cells with a meaning of their own


def _converter(layout: Layout) -> Convert | None:
    """Return what turns the cells of a record into values; None if they are what they are."""
    if layout.types:
        # token_seq are words, which stay a string; readers of histories take it apart
        lists = [name for name, kind in zip(layout.columns, layout.types, strict=True) if kind == "float_seq"]

        def split_lists(record: dict[str, Any]) -> dict[str, Any]:
            for name in lists:
                record[name] = record[name].split()
            return record

        return split_lists if lists else None
    if layout.flags:
        flags = layout.flags

        def name_genres(record: dict[str, Any]) -> dict[str, Any]:
            record["genres"] = [name for name in flags if record.pop(name) == "1"]
            return record

        return name_genres
    if layout.decimal_commas:
        names = layout.decimal_commas

        def points(record: dict[str, Any]) -> dict[str, Any]:
            for name in names:
                if DECIMAL_COMMA.fullmatch(record[name].strip()):
                    record[name] = record[name].strip().replace(".", "").replace(",", ".")
            return record

        return points
    return None


def from_netflix(file: Opened, problems: Problems) -> Iterator[Record]:
    """Yield the ratings of the Netflix Prize: a line `item:`, and below it lines `user,rating,date`."""
    item = ""
    for line, (text,) in _literal_rows(_Lines(file, problems, False), Layout("netflix", "\n"), problems):
        cells = text.split(",")
        if len(cells) == 1 and text.rstrip().endswith(":"):
            item = text.strip()[:-1]
        elif len(cells) == 3 and item:
            problems.raw = text
            yield line, {"user": cells[0], "item": item, "rating": cells[1], "date": cells[2]}
        else:
            problems.reject(line, "expected user,rating,date below a line such as 7: with the item.", text)


def from_sequences(file: Opened, problems: Problems) -> Iterator[Record]:
    """Yield {"user": first, "items": others} for each line of ids between blanks."""
    lines = _Lines(file, problems, False)
    for line, cells in _literal_rows(lines, Layout("sequences", " "), problems):
        if len(cells) < 2:
            problems.reject(line, "a user without items; expected a user and the user's items.", lines.row[0])
        else:
            problems.raw = lines.row[0]
            yield line, {"user": cells[0], "items": cells[1:]}
