"""Layout: how the records of a file are written, found from its first bytes.

Detection is apart from reading, so that a fast reader and the plain one agree on what a file is. Whatever is not as the
file's name promises is said in one line, with the option that changes it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Literal

from semid.files.delimiters import (
    CANDIDATES,
    SHOWN_AS,
    Split,
    best_split,
    decimal_columns,
    is_header,
    is_sure_header,
)
from semid.files.field_names import may_be_an_id, plain_name
from semid.files.folders import PACKING
from semid.files.json_layout import json_kind
from semid.files.known_files import known_file, typed_header
from semid.files.problems import name_list, quote
from semid.files.reading import AS_FOUND, Reading
from semid.files.sources import Opened, SourceFault, opened

__all__ = ["Kind", "Layout", "layout_of", "plain_layout"]

Kind = Literal[
    "jsonl", "json array", "json objects", "json map", "python", "rows", "sequences", "netflix", "parquet", "arrow"
]
JSON = (".jsonl", ".ndjson", ".json")
PREFERRED = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t"}
CONTROLS = tuple(bytes([value]) for value in range(32) if chr(value) not in "\t\n\r\f")
JSON_START = re.compile(r"""\{\s*(u?["'}]|$)|\[\s*[{\[]""")
SIGNS = tuple(",;|\"'{}[]()%#")  # of anything but ids
FITTING = 0.9  # share of rows of equal width from which a delimiter is believed
NETFLIX = re.compile(r"\d+:\r?\n\d+,\d,\d{4}-\d\d-\d\d\r?(\n|$)")
DIGIT = re.compile(r"\d")
COMMENT = re.compile(r"[#%]|sep=.$|sep=\\t$|//", re.IGNORECASE)
COMMON = frozenset({"utf-8", "utf-8-sig", "ascii"})


@dataclass(frozen=True)
class Layout:
    """How the records of a file are written.

    Parameters
    ----------
    kind : str
        jsonl; json array; json objects (one after another, indented or not); json map (one object, a member per
        record); python (a literal per line); rows (cells with a delimiter); sequences (`user item item ...`); netflix
        (`item:` above `user,rating,date`); parquet; arrow.
    delimiter : str
        Of rows. A blank stands for any number of blanks.
    columns : tuple of str
        Names of the columns of rows.
    header : bool
        Whether the first row is a header, which is no record.
    quoted : bool
        Whether cells may stand in double quotes.
    types : tuple of str
        Of each column, where the header tells them (RecBole).
    decimal_commas, flags : tuple of str
        Columns of numbers with decimal commas; columns of 0 and 1 whose names are an item's genres.
    lenient : bool
        Whether lines that are not UTF-8 are Latin-1.
    encoding, compression : as in `Opened`.
    said : tuple of str
        What is to be said about the choices, without the name of the file.
    """

    kind: Kind
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    header: bool = True
    quoted: bool = True
    types: tuple[str, ...] = ()
    decimal_commas: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    lenient: bool = False
    encoding: str = "utf-8"
    compression: str | None = None
    said: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether rows are cells as they are: one delimiter character, a header, nothing to convert."""
        special = (self.types, self.decimal_commas, self.flags, self.lenient)
        return self.kind == "rows" and self.header and self.quoted and len(self.delimiter) == 1 and not any(special)


def plain_layout(path: str, reading: Reading = AS_FOUND) -> Layout | None:
    """Return the layout of a file that can be opened again; None for all else, also where reading would fail."""
    if path == "-" or not os.path.isfile(path):
        return None
    try:
        with opened(path, reading) as file:
            return layout_of(file, path, reading)
    except (OSError, UnicodeError):
        return None


def layout_of(file: Opened, path: str, reading: Reading) -> Layout:
    """Return the layout of an open file.

    Raises
    ------
    SourceFault
        It cannot be told, or the first line is no header.
    """
    if file.table is not None:
        if reading.delimiter is not None or reading.columns is not None:
            given = "--delimiter" if reading.columns is None else "--columns"
            raise SourceFault(f"is a {file.table} file, whose columns have names. Leave out {given}.")
        return Layout("parquet" if file.table == "parquet" else "arrow", compression=file.compression)
    if _is_binary(file.head):
        first = file.head[:6].hex(" ")
        raise SourceFault(f"is not text (it begins with {first} ...). Is this the right file?")
    suffix = os.path.splitext(PACKING.sub("", path.lower()))[1]
    found = _text_layout(file, suffix, reading)
    said = list(found.said)
    if file.encoding not in COMMON and reading.encoding is None:
        said.append(f"encoding {file.encoding}, from the byte order mark; change with --encoding")
    return replace(found, encoding=file.encoding, compression=file.compression, said=tuple(said))


def _text_layout(file: Opened, suffix: str, reading: Reading) -> Layout:
    text = file.head.decode("utf-8", "replace")
    if not file.whole and "\n" in text:
        text = text[: text.rindex("\n") + 1]
    start = text.lstrip()
    told = reading.delimiter is not None or reading.columns is not None
    if not start and not told:
        return Layout("jsonl")
    if not told and start[0] in "{[" and (suffix not in PREFERRED or JSON_START.match(start)):
        kind, said = json_kind(start, file.whole)
        return Layout(kind, said=said)
    if not told and NETFLIX.match(start):
        return Layout("netflix", said=("read as a Netflix file: ratings below their movie",))
    if reading.columns is None:
        _refuse_comments(start)
    split = best_split(text, PREFERRED.get(suffix), reading.delimiter)
    if not told and (_cannot_be_rows(split) or suffix in JSON or suffix not in PREFERRED):
        other = _other_than_rows(text, split, suffix)
        if other is not None:
            return other
    return _row_layout(split, suffix, reading)


def _refuse_comments(text: str) -> None:
    """Refuse lines of comments above the rows, which are neither a header nor records.

    A line that begins with a sign of comments is a header where it has as many cells as the next one.
    """
    lines = [line.rstrip("\r") for line in text.split("\n", 100)[:100]]
    count = next((place for place, line in enumerate(lines) if not COMMENT.match(line)), 0)
    if not count:
        return
    last, row = lines[count - 1], lines[count]
    is_header = count == 1 and any(last.count(sign) == row.count(sign) > 0 for sign in CANDIDATES)
    if row and (not is_header or last.lower().startswith("sep=")):  # Excel writes sep=;
        n_lines = "line is no row" if count == 1 else f"{count} lines are no rows"
        raise SourceFault(
            f"the first {n_lines}: {quote(lines[0])}. Take out what stands above the header or the first row, e.g. "
            f"with tail -n +{count + 1}."
        )


def _is_binary(head: bytes) -> bool:
    """Return whether bytes are no text in any usual encoding: not UTF-8, and with many control characters."""
    signs = head.decode("utf-8", "replace")
    controls = sum(head.count(byte) for byte in CONTROLS)
    return signs.count("\ufffd") > 1 and controls > len(head) / 100


def _cannot_be_rows(split: Split) -> bool:
    return split.width < 2 or split.fitting < FITTING


def _other_than_rows(text: str, split: Split, suffix: str) -> Layout | None:
    """Return what a file without a usual name is, if not rows of cells. SourceFault if it cannot be told."""
    known = typed_header(split.rows[0]) or known_file(split.delimiter, split.rows) if split.rows else None
    if known and split.fitting >= FITTING:
        return None
    sure = bool(split.rows) and is_header(split.rows[0]) and is_sure_header(split.rows)
    is_table = sure and split.delimiter != " " and not _cannot_be_rows(split)  # words in its cells have blanks, too
    if suffix not in JSON and not is_table and _are_sequences(text):
        return Layout(
            "sequences", " ", said=("each line is read as a user and the user's items; change with --columns",)
        )
    if suffix in PREFERRED:
        return None
    if suffix in JSON or not suffix:
        if len(split.rows) > 1 and not _cannot_be_rows(split) and sure:
            return None
        if suffix in JSON:
            return Layout("jsonl")
    if split.width < 2 or (split.delimiter == " " and not sure):
        first = quote(text.strip().split("\n")[0].strip())
        if split.delimiter == " " and split.width > 1 and split.fitting >= FITTING and re.search(r"\d", first):
            histories = ", or if it is a user and items, with --columns user,items" if split.width > 2 else ""
            raise SourceFault(f"no header: the first line is {first}. Name its columns with --columns{histories}.")
        raise SourceFault(
            f"cannot tell the format; the first line is {first}. Name what separates the cells with --delimiter, such "
            "as semicolon, and the columns with --columns."
        )
    return None


def _are_sequences(text: str) -> bool:
    """Return whether all lines are a user and items between blanks: not equally many, no user twice, no signs.

    >>> _are_sequences("u1 5 6 7\\nu2 6 7\\n"), _are_sequences("u1 5\\nu2 6\\n"), _are_sequences("a b, c\\nd e\\n")
    (True, False, False)
    """
    lines = [line.split() for line in text.split("\n") if line.strip()]
    if len({len(tokens) for tokens in lines}) < 2 or min(map(len, lines)) < 2:
        return False
    if _split_by_tabs(text) or not all(map(DIGIT.search, (line for line in text.split("\n") if line.strip()))):
        return False  # cells with blanks in them, or prose
    return len({tokens[0] for tokens in lines}) == len(lines) and not any(sign in text for sign in SIGNS)


def _split_by_tabs(text: str) -> bool:
    """Return whether tabs cut all lines into three cells or more, equally many."""
    counts = {line.count("\t") for line in text.split("\n") if line.strip()}
    return len(counts) == 1 and min(counts) > 1


def _row_layout(split: Split, suffix: str, reading: Reading) -> Layout:
    """Return the layout of rows of cells."""
    delimiter, rows = split.delimiter, split.rows
    quoted = len(delimiter) == 1 and delimiter != " "
    first = tuple(cell.strip() for cell in rows[0]) if rows else ()
    layout = Layout("rows", delimiter, first, quoted=quoted)
    said = []
    shown = SHOWN_AS.get(delimiter, quote(delimiter))
    usual = delimiter == PREFERRED.get(suffix, delimiter) if delimiter in ",\t" else False
    typed = typed_header(first)
    known = known_file(delimiter, rows)
    if reading.columns is not None and _are_histories(delimiter, reading.columns):
        return Layout("sequences", delimiter)
    if reading.columns is not None:
        layout = _told_columns(layout, first, reading.columns)
    elif typed is not None:
        layout = replace(layout, columns=typed[0], types=typed[1])
    elif known is not None:
        layout = replace(layout, columns=known.columns, header=False, quoted=False, flags=known.flags, lenient=True)
        some = name_list(known.columns[:5]) + (", ..." if len(known.columns) > 5 else "")
        said.append(
            f"read as a {known.name} file without a header: cells separated by {shown}, columns {some}; change with "
            "--delimiter, --columns"
        )
    elif rows and not is_header(first):
        line = quote(delimiter.join(rows[0]))
        raise SourceFault(f"no header: the first line is {line}. Name its {len(first)} columns with --columns.")
    elif rows and suffix not in PREFERRED and not is_sure_header(rows):
        said.append(f"the first line is read as the header ({name_list(first)}); if it is none, use --columns")
    if reading.delimiter is None and not usual and known is None:
        said.append(f"cells are separated by {shown}; change with --delimiter")
    if delimiter == ";":
        names = layout.columns
        commas = tuple(names[at] for at in decimal_columns(rows[layout.header :]) if at < len(names))
        commas = tuple(name for name in commas if not may_be_an_id(name))  # ids stay as they are written
        layout = replace(layout, decimal_commas=commas)
        if commas:
            said.append(f"decimal commas in {name_list(commas)} are read as points")
    return replace(layout, said=tuple(said))


def _are_histories(delimiter: str, columns: tuple[str, ...]) -> bool:
    """Return whether the caller says that each line is a user and items between blanks."""
    return delimiter == " " and len(columns) == 2 and plain_name(columns[1]) == "items"


def _told_columns(layout: Layout, first: tuple[str, ...], columns: tuple[str, ...]) -> Layout:
    if first and len(first) != len(columns):
        raise SourceFault(
            f"--columns names {len(columns)} columns ({name_list(columns)}), but the first row has {len(first)}: "
            f"{quote(layout.delimiter.join(first))}. Name them all."
        )
    return replace(layout, columns=columns, header=first == columns)
