"""Vectors in text: CSV and TSV, word2vec's and GloVe's lines, packed or not.

id,embedding            a cell with a list            id,d0,d1       a column per dim
B1,"[0.1, 0.2]"                                       B1,0.1,0.2
2 3                     word2vec: rows, dims          B1 0.1 0.2     GloVe, or numpy.savetxt without names
B1 0.1 0.2 0.3
"""

from __future__ import annotations

import csv
import io
import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.strings import StringPacker
from semid.encoders.vector_rows import ID_NAMES, INDEX, FileVectors, Wanted, in_blocks, pick_ids, pick_vectors
from semid.errors import InputError
from semid.files.first_bytes import open_unpacked
from semid.files.problems import quote
from semid.files.sources import LINE_LIMIT
from semid.runtime.tables import Tables

__all__ = ["read_text"]

logger = logging.getLogger("semid")

SAMPLE = 4  # lines that tell the delimiter
LIST = re.compile(r"\s*[\[(].*[\])]\s*", re.DOTALL)
FRACTION = re.compile(r"[.eE,]|nan|inf", re.IGNORECASE)
SET_APART = re.compile(r'"[^"]*"|\[[^\]]*\]')  # cells that may hold delimiters
Row = tuple[str, npt.NDArray[np.float64]]  # place, numbers


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a file of text, packed or not; what makes it unreadable becomes an InputError, and so do endless lines."""
    with open_unpacked(path) as file:
        file.limit_lines()
        try:
            yield io.TextIOWrapper(file.stream, "utf-8", newline="")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise InputError(
                f"{path}: byte 0x{byte:02x} is not UTF-8. Save it as UTF-8. word2vec's binary format is not read: save "
                "such vectors with binary=False."
            ) from None


def read_text(path: Path, wanted: Wanted, tables: Tables) -> FileVectors:
    """Read the vectors of a text file, and its ids. The first line tells which layout it has."""
    ids = StringPacker()
    with _open_text(path) as stream:
        lines = enumerate(stream, 1)
        first = list(itertools.islice(((line, text) for line, text in lines if text.strip()), SAMPLE))
        if not first:
            raise InputError(f"{path}: the file is empty.")
        words = first[0][1].split()
        if len(words) == 2 and all(word.isdecimal() and len(word) < 16 for word in words):
            where = "the first column"
            rows = _word2vec(path, itertools.chain(first[1:], lines), int(words[0]), int(words[1]), ids)
        else:
            delimiter = _delimiter([text for _, text in first])
            where, rows = _separated(path, itertools.chain(first, lines), delimiter, wanted, ids)
        table = tables.collect(in_blocks(path, rows))
    return FileVectors(table, where, ids.finish()) if where else FileVectors(table)


# ---- word2vec ---------------------------------------------------------------------------------------------


def _word2vec(
    path: Path, lines: Iterator[tuple[int, str]], n_rows: int, width: int, ids: StringPacker
) -> Iterator[Row]:
    n_read = 0
    for line, text in lines:
        if not text.strip():
            continue
        name, *numbers = text.rstrip().rsplit(None, width)
        if len(numbers) != width:
            raise InputError(
                f"{path}:{line}: {len(numbers)} numbers after the name, expected {width} as the first line says."
            )
        ids.append(name)
        n_read += 1
        yield f":{line}", _numbers(path, f":{line}", numbers)
    if n_read != n_rows:
        raise InputError(f"{path}: {n_read:,} rows, the first line says {n_rows:,}. Is the file cut short?")


def _numbers(path: Path, place: str, cells: list[str], decimal: str = ".") -> npt.NDArray[np.float64]:
    if decimal == ",":
        cells = [cell.replace(",", ".") for cell in cells]
    try:
        return np.array(cells, np.float64)
    except ValueError:
        wrong = next((cell for cell in cells if not _is_number(cell)), "")
        what = "..., as NumPy shortens what it prints" if wrong.strip() == "..." else quote(wrong)
        raise InputError(f"{path}{place}: {what} among the numbers. Expected numbers alone.") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# ---- CSV, TSV and their like ------------------------------------------------------------------------------


def _delimiter(sample: list[str]) -> str:
    """Return the delimiter that cuts the first lines into the most numbers.

    >>> _delimiter(["id;d0;d1", "a;0,5;1,25"]), _delimiter(["i;,0.5,1.25"]), _delimiter(['B1\\t[0.5, 1.25]'])
    (';', ',', '\\t')
    """

    def n_numbers(delimiter: str) -> int:
        rows = [text.split() if delimiter == " " else next(csv.reader([text], delimiter=delimiter)) for text in sample]
        decimal = "," if delimiter == ";" else "."
        cells = [cell.replace(decimal, ".") for row in rows for cell in row]
        found = sum(len(cell.strip("[]() ").replace(",", " ").split()) for cell in cells if _is_list(cell))
        return found + sum(map(_is_number, cells)) if min(map(len, rows)) > 1 else -1

    best = max("\t;,", key=n_numbers)  # of equally good ones the first
    if n_numbers(best) > 0:
        return best
    bare = SET_APART.sub("", sample[0])
    return " " if n_numbers(" ") > 0 else next((one for one in "\t;, " if one in bare.strip()), ",")


def _separated(
    path: Path, lines: Iterator[tuple[int, str]], delimiter: str, wanted: Wanted, ids: StringPacker
) -> tuple[str, Iterator[Row]]:
    """Return where the ids are ("" for nowhere), and the rows, which add to `ids` as they are read."""
    cells = _cells(path, lines, delimiter)
    first = next(cells)
    names = first[1] if _is_header(first[1], wanted) else None
    if names is not None:
        if not (start := next(cells, None)):
            raise InputError(f"{path}: a header and no row below it.")
        first = start
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}: two columns are named {quote(twice)}. Rename one.")
    layout = _Layout(path, names, first[1], delimiter, wanted)
    return layout.ids_at, layout.rows(itertools.chain([first], cells), ids)


def _cells(path: Path, lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells of every line that is not blank."""
    if delimiter == " ":
        yield from ((line, text.split()) for line, text in lines if text.strip())
        return
    at = 0

    def texts() -> Iterator[str]:
        nonlocal at
        for at, text in lines:  # noqa: B007  of the last line of a row
            yield text

    csv.field_size_limit(LINE_LIMIT)
    try:
        for cells in csv.reader(texts(), delimiter=delimiter, strict=True):
            if any(cell.strip() for cell in cells):
                yield at, cells
    except csv.Error as error:
        raise InputError(f"{path}:{at}: {error}. Quote cells that hold {quote(delimiter)} or line ends.") from None


def _is_header(cells: list[str], wanted: Wanted) -> bool:
    if any(_is_list(cell) for cell in cells):
        return False
    known = {wanted.id_field, wanted.id_name, *ID_NAMES}
    if cells == _dims(len(cells)):
        return True
    return cells[0] in known | set(INDEX) or any(not _is_number(cell) for cell in cells[1:]) or not any(cells[1:])


def _dims(n_dims: int) -> list[str]:
    return [str(dim) for dim in range(n_dims)]


def _is_list(cell: str) -> bool:
    return bool(LIST.fullmatch(cell)) or (len(words := cell.split()) > 1 and all(map(_is_number, words)))


class _Layout:
    """Which cells of a row are the id and the numbers, as the header and the first row tell."""

    def __init__(self, path: Path, names: list[str] | None, row: list[str], delimiter: str, wanted: Wanted) -> None:
        self.path, self.n_cells = path, len(names or row)
        self.decimal = "," if delimiter == ";" else "."
        self.names = names or [f"column {number}" for number in range(1, len(row) + 1)]
        if len(row) != self.n_cells:
            raise InputError(f"{path}, row 1: {len(row)} cells, expected {self.n_cells} as in the header.")
        lists = [name for name, cell in zip(self.names, row, strict=True) if _is_list(cell)]
        self.vector: int | None = None
        if lists or wanted.name is not None:
            self.vector = self.names.index(pick_vectors(path, lists, wanted))
        self.id = self._id_cell(row, has_names=names is not None, lists=lists, wanted=wanted)
        self.ids_at = (
            ""
            if self.id is None or not wanted.with_ids
            else f"column {self.names[self.id]!r}"
            if names
            else "the first column"
        )
        left_out = {self.id} | {place for place, name in enumerate(self.names) if name in INDEX and place != self.id}
        self.dims = [place for place in range(self.n_cells) if place not in left_out]

    def _id_cell(self, row: list[str], *, has_names: bool, lists: list[str], wanted: Wanted) -> int | None:
        kinds = {
            name: "numbers" if FRACTION.search(cell) and self._is_number(cell) else "integers" if self._is_number(cell)
            else "strings" for name, cell in zip(self.names, row, strict=True) if name not in lists
        }  # fmt: skip
        known = [name for name in kinds if name in {wanted.id_field, wanted.id_name, *ID_NAMES}]
        fit = [name for name, kind in kinds.items() if kind == "strings" or name in known]
        if lists:
            fit = [name for name, kind in kinds.items() if kind != "numbers"]
        if not fit and not lists and self._first_is_id(row, list(kinds.values()), has_names):
            fit = self.names[:1]
        kinds = {name: "int" if kind == "integers" else kind for name, kind in kinds.items()}
        name = pick_ids(self.path, fit, kinds, wanted if lists else replace(wanted, with_ids=True))
        return None if name is None else self.names.index(name)

    def _is_number(self, cell: str) -> bool:
        return _is_number(cell.replace(",", ".") if self.decimal == "," else cell)

    def _first_is_id(self, row: list[str], kinds: list[str], has_names: bool) -> bool:
        """Return whether the first of several columns of numbers holds ids; InputError where nothing tells."""
        is_sure = self.names != _dims(len(row)) or "numbers" in kinds  # a first line of 0,1,2 may be numbers too
        if has_names and is_sure:
            shapes = [re.sub(r"\d+", "#", name) for name in self.names]
            if len(set(shapes[1:])) == 1:
                return shapes[0] != shapes[1]
        if kinds[0] != "integers":
            return False
        if all(kind == "integers" for kind in kinds):
            raise InputError(
                f"{self.path}: all columns hold integers: the first one may be ids or a dim. Give it a header line: "
                "id,d0,d1,... or d0,d1,..."
            )
        logger.warning(
            "%s: the first column holds integers and others do not: it is read as the item ids. If it is a dim, name "
            "the columns in a header line: d0,d1,...",
            self.path,
        )
        return True

    def rows(self, cells: Iterator[tuple[int, list[str]]], ids: StringPacker) -> Iterator[Row]:
        """Yield the place and the numbers of each row, and add its id to `ids`."""
        for line, row in cells:
            place = f":{line}"
            if len(row) != self.n_cells:
                raise InputError(f"{self.path}{place}: {len(row)} cells, expected {self.n_cells} as in the first line.")
            if self.id is not None:
                if not row[self.id]:
                    raise InputError(f"{self.path}{place}: the id is empty. Give every vector the id of its item.")
                ids.append(row[self.id])
            if self.vector is None:
                numbers = [row[place] for place in self.dims]
            else:
                numbers = row[self.vector].strip().strip("[]()").replace(",", " ").split()
            yield place, _numbers(self.path, place, numbers, self.decimal if self.vector is None else ".")
