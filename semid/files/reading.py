"""Reading: how to read a file of records, where the content does not say it or says it wrongly.

The names of the fields are those of the options: `delimiter` is `--delimiter`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from semid.errors import ConfigError

__all__ = ["AS_FOUND", "Duplicates", "Reading", "RecordFile", "reading_of"]

Duplicates = Literal["error", "first", "last"]
DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "colons": "::"}


@dataclass(frozen=True)
class Reading:
    """How to read a file of records; None means: find it out from the content.

    Parameters
    ----------
    delimiter : str, optional
        What stands between two cells of a row: any string, or one of the words tab, comma, semicolon, pipe, space. A
        blank stands for any number of blanks.
    columns : names, or one string "id,title", optional
        The names of the columns, for a file without a header. If the first row is equal to them, it is skipped.
    encoding : str, optional
        An encoding that Python knows, such as latin-1. By default a byte order mark decides, without one UTF-8.
    skip_bad_rows : bool or path
        True counts rows that cannot be read and goes on; a path also writes them to that file. By default they are
        errors.
    duplicates : {"error", "first", "last"}
        Which of several items with one id to keep.

    Raises
    ------
    ConfigError
        A value is impossible; the message names the option.

    >>> Reading(delimiter="semicolon", columns="id, title")
    Reading(delimiter=';', columns=('id', 'title'), encoding=None, skip_bad_rows=False, duplicates='error')
    """

    delimiter: str | None = None
    columns: tuple[str, ...] | None = None
    encoding: str | None = None
    skip_bad_rows: bool | str | os.PathLike[str] = False
    duplicates: Duplicates = "error"

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            delimiter = DELIMITERS.get(self.delimiter.lower(), self.delimiter)
            if not delimiter or set(delimiter) & set('"\r\n'):
                raise ConfigError(
                    f"--delimiter {self.delimiter!r} cannot separate cells. Write a character such as ';' or '|', or "
                    "one of the words tab, comma, semicolon, pipe, space."
                )
            object.__setattr__(self, "delimiter", delimiter)
        if self.columns is not None:
            object.__setattr__(self, "columns", _names(self.columns))
        if self.encoding is not None:
            _check_encoding(self.encoding)
        if not isinstance(self.skip_bad_rows, bool) and not os.fspath(self.skip_bad_rows):
            raise ConfigError("--skip-bad-rows: the path is empty. Name a file for the rows that are skipped.")
        if self.duplicates not in get_args(Duplicates):
            raise ConfigError(f"--duplicates {self.duplicates!r}: expected error, first or last.")


AS_FOUND = Reading()  # everything is found out from the content, and every fault is an error


@dataclass(frozen=True)
class RecordFile(os.PathLike[str]):
    """A path together with how to read it, for functions that take the path of a catalog or of interactions.

    Parameters
    ----------
    path : str or path
        The file, or "-" for standard input.
    reading : Reading
        How to read it.

    >>> log = RecordFile("ratings.txt", Reading(delimiter="pipe"))
    >>> os.fspath(log), reading_of(log).delimiter, reading_of("ratings.txt").delimiter
    ('ratings.txt', '|', None)
    """

    path: str | os.PathLike[str]
    reading: Reading = AS_FOUND

    def __fspath__(self) -> str:
        return os.fsdecode(self.path)

    def __str__(self) -> str:
        return os.fsdecode(self.path)


def reading_of(source: object, given: Reading = AS_FOUND) -> Reading:
    """Return how to read a source: as `given`, or where that says nothing, as a `RecordFile` says."""
    return source.reading if isinstance(source, RecordFile) and given == AS_FOUND else given


def _names(given: tuple[str, ...] | str) -> tuple[str, ...]:
    """Return the names of columns without blanks around them."""
    columns = tuple(name.strip() for name in (given.split(",") if isinstance(given, str) else given))
    repeated = [name for name in columns if columns.count(name) > 1]
    if not columns or not all(columns):
        raise ConfigError(f"--columns {','.join(columns)!r}: a name is empty. Write for example id,title,genres.")
    if repeated:
        raise ConfigError(f"--columns {','.join(columns)!r}: {repeated[0]!r} is there twice. Give each column a name.")
    return columns


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except (LookupError, ValueError):  # not known, or an encoding of bytes such as zip; a null character
        raise ConfigError(
            f"--encoding {encoding!r} is not known. Write for example utf-8, utf-16, latin-1 or cp1252."
        ) from None
