"""Problems: the mistakes of a source, collected with their places, and the wording that messages share.

A mistake does not stop reading as long as later rows can be read. Equal mistakes are one message with a count and the
first ten places; one error lists the first ten messages. Where bad rows are to be skipped (`Reading.skip_bad_rows`), a
mistake of a row is a skipped row instead, counted, named and written to a file.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from semid.errors import SHOWN_PROBLEMS, ConfigError, InputError
from semid.files.reading import AS_FOUND, Reading, reading_of

__all__ = ["Problems", "is_dataset", "is_table", "name_list", "quote"]

logger = logging.getLogger("semid")

KEPT_CAUSES = 1000  # messages that are counted apart; of further ones only the number is kept
SPOOLED = 1 << 24  # bytes of skipped rows that are kept in memory


@dataclass
class _Cause:
    """One message: how often it came, and the first places."""

    count: int = 0
    lines: list[int] = field(default_factory=list)  # ascending, at most ten

    @property
    def first(self) -> float:
        return self.lines[0] if self.lines else -1  # what is wrong with the whole source comes first

    def add(self, line: int | None) -> None:
        self.count += 1
        if line is not None and (len(self.lines) < SHOWN_PROBLEMS or line < self.lines[-1]):
            self.lines = sorted([*self.lines, line])[:SHOWN_PROBLEMS]


@dataclass
class Problems:
    """The mistakes of one source: equal messages together, the first ten places of each, and how many there are.

    Parameters
    ----------
    name : str
        Name of the source; every message begins with it.
    style : {"line", "row", "index"}
        How places are written: `items.jsonl:7`, `items.parquet, row 7` or `items[6]`.
    reading : Reading
        Its `skip_bad_rows` tells whether mistakes of rows are skipped rows or errors.

    >>> problems = Problems("items.jsonl")
    >>> for line in (7, 9):
    ...     problems.add(line, "id is null.")
    >>> problems.add(8, "id is empty.")
    >>> problems.finish()
    Traceback (most recent call last):
    semid.errors.InputError: items.jsonl: 2 rows: id is null. Lines 7, 9.
    items.jsonl:8: id is empty.
    """

    name: str
    style: Literal["line", "row", "index"] = "line"
    reading: Reading = AS_FOUND
    total: int = 0  # mistakes, of rows that are skipped too
    n_rows: int = 0  # rows of the source so far, good or bad
    n_skipped: int = 0
    raw: Any = field(default=None, repr=False)  # the row that was read last, as it stands in the source
    unread: dict[str, str] = field(default_factory=dict)  # columns of a table that were not read, and what they hold
    offset: int = 0  # of the lines of the file of a folder that is being read
    last_line: int = 0  # of a folder so far
    _files: list[tuple[int, str]] = field(default_factory=list, repr=False)  # of a folder: offset and name
    _causes: dict[str, _Cause] = field(default_factory=dict, repr=False)
    _latest: float = field(default=-math.inf, repr=False)  # the last first place of a cause
    _n_errors: int = field(default=0, repr=False)  # mistakes that cannot be skipped
    _skipped: int | None = field(default=None, repr=False)  # the row that was skipped last
    _rows: IO[str] | None = field(default=None, repr=False)  # skipped rows, until `finish`

    @classmethod
    def of(cls, source: object, reading: Reading = AS_FOUND) -> Problems:
        """Return an empty collection with the name of a source."""
        reading = reading_of(source, reading)
        if isinstance(source, str | os.PathLike):
            path = os.fsdecode(source)
            _check_target(path, reading)
            return cls("<stdin>" if path == "-" else path, reading=reading)
        return cls("dataset" if is_table(source) else "items", "index", reading)

    @property
    def skips(self) -> bool:
        """Whether rows with mistakes are skipped."""
        return self.reading.skip_bad_rows is not False

    def where(self, line: int) -> str:
        """Return the place of record number `line`, counted from 1, with the name of the source."""
        name, line = self._file_at(line)
        places = {"line": f":{line}", "row": f", row {line}", "index": f"[{line - 1}]"}
        return name + places[self.style]

    def _file_at(self, line: int) -> tuple[str, int]:
        """Return the file of a record, and its number there."""
        if not self._files:
            return self.name, line
        offset, name = self._files[bisect_left(self._files, (line,)) - 1]
        return name, line - offset

    def next_file(self, name: str) -> None:
        """Let the lines behind `last_line` be those of a further file of a folder."""
        self.offset = self.last_line
        self._files.append((self.offset, name))

    def first_at(self, line: int) -> str:
        """Return the place of record number `line` for a message that has named the source already."""
        return self.where(line) if self.style == "index" or self._files else f"{self.style} {line}"

    def add(self, line: int | None, message: str) -> None:
        """Note a mistake of a row, or of the whole source (`line=None`).

        The mistake of a row is an error, or, where bad rows are skipped, a skipped row: the caller leaves it out.
        """
        if line is None or not self.skips:
            self._n_errors += 1
        elif line != self._skipped:
            self.n_skipped, self._skipped = self.n_skipped + 1, line
            self._write(line, message)
        self._count(line, message)

    def add_alike(self, lines: Iterable[int], count: int, message: str) -> None:
        """Note an error of `count` rows at once, of which `lines` are the first ones, ascending."""
        lines = list(lines)
        for line in lines:
            self.add(line, message)
        rest = count - len(lines)
        self.total, self._n_errors = self.total + rest, self._n_errors + rest
        self._causes[message].count += rest

    def reject(self, line: int, message: str, raw: object = None) -> None:
        """Note a mistake of a row that no caller gets to see. The readers of files count lines from 1 in each file."""
        self.n_rows += 1
        self.raw = raw
        self.last_line = line + self.offset
        self.add(self.last_line, message)

    def refuse(self, line: int, message: str) -> None:
        """Note a mistake at a line that cannot be skipped, such as a header without sense."""
        self._n_errors += 1
        self._count(line + self.offset, message)

    def check_columns(self, line: int | None, names: Iterable[str]) -> None:
        """Note every column whose name an earlier one has. Several columns may be unnamed."""
        seen: set[str] = set()
        for name in names:
            if name and name in seen:
                message = f"two columns are named {quote(name)}. Rename one."
                self.add(None, message) if line is None else self.refuse(line, message)
            seen.add(name)

    @property
    def shown(self) -> list[str]:
        """The first ten messages, by place."""
        return [self._message(text, cause) for text, cause in self._first_causes()]

    def raise_if_any(self) -> None:
        """Raise one InputError that lists the mistakes, if some are errors."""
        if self._n_errors:
            raise self.error()

    def finish(self) -> None:
        """Raise if some mistakes are errors or no row is left; otherwise say which rows were skipped, and write them.

        The file of the skipped rows appears whole, or not at all.
        """
        self.raise_if_any()
        if not self.n_skipped:
            return
        if self.n_skipped >= self.n_rows:
            raise self.error()
        text, cause = self._first_causes()[0]
        first = f"first: {self.first_at(cause.lines[0])}: {text}"
        path = self.reading.skip_bad_rows
        there = ""
        if not isinstance(path, bool):
            self._publish(path)
            there = f"; they are in {os.fsdecode(path)}"
        said = f"{self.name}: skipped {self.n_skipped:,} of {self.n_rows:,} rows ({first}){there}"
        more = self._listing() if self.n_skipped > 1 else []
        logger.warning("%s", "\n".join([said, *more]))

    def error(self) -> InputError:
        """Return the error that lists the mistakes."""
        return InputError("\n".join(self._listing()))

    def _listing(self) -> list[str]:
        shown = self._first_causes()
        rest = self.total - sum(cause.count for _, cause in shown)
        return [self._message(*one) for one in shown] + ([f"... and {rest:,} more"] if rest else [])

    def _first_causes(self) -> list[tuple[str, _Cause]]:
        return sorted(self._causes.items(), key=lambda one: one[1].first)[:SHOWN_PROBLEMS]

    def _count(self, line: int | None, message: str) -> None:
        self.total += 1
        cause = self._causes.get(message)
        place = -1 if line is None else line
        if cause is None:
            if len(self._causes) >= KEPT_CAUSES:
                if place >= self._latest:
                    return
                del self._causes[max(self._causes, key=lambda text: self._causes[text].first)]
                self._latest = max(kept.first for kept in self._causes.values())
            cause = self._causes[message] = _Cause()
            self._latest = max(self._latest, place)
        cause.add(line)

    def _message(self, text: str, cause: _Cause) -> str:
        if not cause.lines:
            return f"{self.name}: {text}"
        if cause.count == 1:
            return f"{self.where(cause.lines[0])}: {text}"
        bare = self.style != "index" and not self._files
        places = ", ".join(str(line) if bare else self.where(line) for line in cause.lines)
        what = f"{self.style.capitalize()}s" if bare else "At"
        more = ", ..." if cause.count > len(cause.lines) else "."
        return f"{self.name}: {cause.count:,} rows: {text} {what} {places}{more}"

    def _write(self, line: int, message: str) -> None:
        """Keep a skipped row for the file: its number, the mistake and the row itself, on one line."""
        if isinstance(self.reading.skip_bad_rows, bool):
            return
        if self._rows is None:
            self._rows = tempfile.SpooledTemporaryFile(SPOOLED, "w+", encoding="utf-8", newline="\n")  # noqa: SIM115
        place = self.where(line) if self._files else str(line)
        self._rows.write(f"{place}\t{message}\t{_one_line(self.raw)}\n")

    def _publish(self, path: str | os.PathLike[str]) -> None:
        """Write the skipped rows to their file, which appears whole."""
        part = f"{os.fsdecode(path)}.part"
        try:
            with open(part, "w", encoding="utf-8", newline="\n") as file:
                if self._rows is not None:
                    self._rows.seek(0)
                    shutil.copyfileobj(self._rows, file)
                    self._rows.close()
            os.replace(part, path)
        except OSError as error:
            raise ConfigError(f"--skip-bad-rows {os.fsdecode(path)}: cannot be written: {error.strerror}.") from None


def _check_target(source: str, reading: Reading) -> None:
    """Raise ConfigError if skipped rows cannot go where they should."""
    if isinstance(reading.skip_bad_rows, bool):
        return
    path = os.fsdecode(reading.skip_bad_rows)
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise ConfigError(f"--skip-bad-rows {path}: expected a file in a folder that exists.")
    if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise ConfigError(f"--skip-bad-rows {path}: this is the file that is read. Name another.")


def _one_line(raw: object) -> str:
    """Return a row as one line of text: bytes that are not UTF-8 and line breaks are escaped."""
    if isinstance(raw, bytes):
        text = raw.decode("utf-8", "backslashreplace")
    else:
        text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
    text = text.rstrip("\r\n").replace("\r", "\\r").replace("\n", "\\n")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_dataset(source: object) -> bool:
    """Return whether `source` is a `datasets.Dataset`, or behaves like one."""
    return hasattr(source, "with_format") and hasattr(source, "iter")


def is_table(source: object) -> bool:
    """Return whether `source` holds Arrow columns: a data set, or anything with `__arrow_c_stream__`."""
    return is_dataset(source) or hasattr(source, "__arrow_c_stream__")


def quote(text: object) -> str:
    """Return `text` in double quotes on one printable line of at most about 80 characters.

    >>> quote("B01"), quote("two\\nlines")
    ('"B01"', '"two\\\\nlines"')
    """
    text = str(text)
    text = text if len(text) <= 80 else text[:77] + "..."
    return f'"{text}"' if text.isprintable() and '"' not in text else json.dumps(text)


def name_list(names: Iterable[object]) -> str:
    """Return field names for a message, the first twenty.

    >>> name_list(["title", "brand"])
    'title, brand'
    """
    shown = [name if name.isprintable() else quote(name) for name in map(str, names)]
    return ", ".join(shown[:20]) + (f", and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"
