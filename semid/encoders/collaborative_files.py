"""Collaborative vectors made elsewhere: word2vec's text format, and META ID's table of users and items.

    34464 64                            word2vec: rows and dims, then a name and its numbers on each line
    A1YJEY40YUW4SE 0.12 -0.05 ...

    user,item,emb                       META ID: a user's row has is_user under item, an item's row is_item
    A1YJEY40YUW4SE,is_user,0.12 ...     under user
    is_item,B004756YJA,0.31 ...

Word2vec has one name space. A name that is both a user and an item is refused there, unless all names are written
`user:NAME` and `item:NAME`. Two files, one of users and one of items, are read by `semid.encoders.read_vectors`.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Interactions
from semid.encoders.collaborative import BehaviorVectors
from semid.files.problems import Problems, quote
from semid.files.records import GZIP_MAGIC

__all__ = ["read_behavior"]

METAID = ["user", "item", "emb"]
IS_USER, IS_ITEM = "is_user", "is_item"
KINDS = ("user", "item")
Row = tuple[int, str, str, str]  # line number, kind ("" if the file does not say), name, numbers


def read_behavior(path: str | Path, log: Interactions) -> BehaviorVectors:
    """Read vectors of the users and items of `log` from one file, plain or gzipped.

    The first line tells the format. Names that `log` does not have are ignored; users and items that the file does not
    have are marked as not known.

    Parameters
    ----------
    path : str or path
    log : Interactions

    Raises
    ------
    InputError
        The file has another format, a row without a vector, a repeated name, a name that could be a user or an item,
        vectors of several lengths, or no vector of any user or item.
    OSError
        The file cannot be opened.
    """
    path = Path(path)
    problems = Problems(str(path))
    places = {"user": {name: row for row, name in enumerate(log.users)}}
    places["item"] = {name: row for row, name in enumerate(log.item_ids)}
    found: dict[str, dict[int, npt.NDArray[np.float32]]] = {"user": {}, "item": {}}
    width: int | None = None
    for line, kind, name, numbers in _rows(path, problems):
        owners = [one for one in ([kind] if kind else KINDS) if name in places[one]]
        if not owners:
            continue
        vector = _vector(numbers)
        width = width or (0 if vector is None else len(vector))
        if vector is None or len(vector) != width or not width:
            problems.add(line, f"{quote(name)}: expected {width or 'some'} finite numbers, apart by blanks.")
        elif len(owners) > 1:
            problems.add(line, f"{quote(name)} is a user and an item. Write user:{name} or item:{name}, for all names.")
        elif places[owners[0]][name] in found[owners[0]]:
            problems.add(line, f"{owners[0]} {quote(name)} again. Keep one vector.")
        else:
            found[owners[0]][places[owners[0]][name]] = vector
    if not problems.total and not (found["user"] or found["item"]):
        problems.add(None, f"has no vector of a user or an item of {log.source}. Are the names the same?")
    problems.raise_if_any()
    users, users_known = _table(found["user"], len(log.users), width)
    items, items_known = _table(found["item"], len(log.item_ids), width)
    return BehaviorVectors(users, items, users_known, items_known)


def _rows(path: Path, problems: Problems) -> Iterator[Row]:
    with open(path, "rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
    try:
        with (gzip.open if zipped else open)(path, "rt", encoding="utf-8-sig", newline="") as stream:
            head = stream.readline().strip()
            if head.split(",") == METAID:
                yield from _metaid_rows(stream, problems)
            elif len(head.split()) == 2 and all(part.isdecimal() for part in head.split()):
                yield from _word2vec_rows(stream)
            else:
                problems.add(1, "expected user,item,emb or the two numbers of word2vec's text format.")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, csv.Error) as error:
        problems.add(None, f"damaged, or not text in UTF-8 ({error}). Write it again.")


def _metaid_rows(stream: Iterable[str], problems: Problems) -> Iterator[Row]:
    for line, cells in enumerate(csv.reader(stream), 2):
        if len(cells) != 3 or (cells[1] == IS_USER) == (cells[0] == IS_ITEM):
            problems.add(line, f"expected NAME,{IS_USER},NUMBERS or {IS_ITEM},NAME,NUMBERS.")
        elif cells[1] == IS_USER:
            yield line, "user", cells[0], cells[2]
        else:
            yield line, "item", cells[1], cells[2]


def _word2vec_rows(stream: Iterable[str]) -> Iterator[Row]:
    for line, text in enumerate(stream, 2):
        name, _, numbers = text.strip().partition(" ")
        kind, colon, rest = name.partition(":")
        if name:
            yield (line, kind, rest, numbers) if colon and kind in KINDS else (line, "", name, numbers)


def _vector(numbers: str) -> npt.NDArray[np.float32] | None:
    try:
        vector = np.array(numbers.split(), np.float32)
    except ValueError:
        return None
    return vector if np.isfinite(vector).all() else None


def _table(
    found: dict[int, npt.NDArray[np.float32]], n_rows: int, width: int | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    table, known = np.zeros((n_rows, width or 0), np.float32), np.zeros(n_rows, bool)
    for row, vector in found.items():
        table[row], known[row] = vector, True
    return table, known
