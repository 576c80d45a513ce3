"""What all formats of vectors share: what to read of a file, which column holds the ids, and rows in blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings
from semid.errors import InputError
from semid.files.problems import name_list
from semid.runtime.tables import RowTable

__all__ = ["BLOCK_BYTES", "FileVectors", "Wanted", "in_blocks", "pick_ids", "pick_vectors"]

BLOCK_BYTES = 1 << 25  # float32 bytes in memory at a time
ID_NAMES = ("id", "item_id")  # of columns of ids, after the name that the catalog gives them
INDEX = ("__index_level_0__", "", "Unnamed: 0")  # of a pandas table without a name for its index


@dataclass(frozen=True)
class Wanted:
    """What to read of a file of vectors."""

    name: str | None = None  # of the array, column or field that holds the vectors; None: the only one
    id_field: str = "id"  # name of the ids in the catalog
    id_name: str | None = None  # of the array, column or field that holds the ids, where the caller names it
    with_ids: bool = True


@dataclass(frozen=True)
class FileVectors:
    """The rows of a file, and their ids if it holds any."""

    rows: RowTable  # [rows of the file, D]
    ids_at: str = ""  # such as "column 'id'"
    ids: PackedStrings | None = None


def pick_ids(
    path: Path, fit: Sequence[str], kinds: dict[str, str], wanted: Wanted, *, what: str = "column"
) -> str | None:
    """Return which column holds the ids, None where no column can; InputError where it is unclear which does.

    Parameters
    ----------
    path : Path
        For messages.
    fit : sequence of str
        The columns of strings or integers.
    kinds : dict
        All columns, and what they hold: "strings", "double", ...
    wanted : Wanted
    what : str
        What the file calls a column, for messages.
    """
    if not wanted.with_ids:
        return None
    name = wanted.id_name
    if name is not None and name not in kinds:
        raise InputError(f"{path}: no {what} {name!r}. {what.capitalize()}s there: {name_list(sorted(kinds))}.")
    plain = [one for one in fit if one not in INDEX or not kinds[one].startswith(("int", "uint"))]  # old row numbers
    fit = plain or list(fit)
    if name is None:
        named = [one for one in ID_NAMES if one in kinds]
        name = wanted.id_field if wanted.id_field in kinds else named[0] if len(named) == 1 else None
    if name is None and len(fit) == 1:
        name = fit[0]
    if name is None and fit:
        raise InputError(
            f"{path}: several {what}s may hold the item ids: {name_list(sorted(fit))}. Rename that {what} to "
            f"{wanted.id_field!r}, or leave these {what}s out to use the order of the rows."
        )
    if name is not None and name not in fit:
        raise InputError(
            f"{path}: {what} {name!r} holds values of type {kinds[name]}; expected one {what} of item ids, strings or "
            "integers."
        )
    return name


def pick_vectors(path: Path, names: Collection[str], wanted: Wanted, *, what: str = "column") -> str:
    """Return which of the columns of lists of numbers holds the vectors: `wanted.name`, or the only one."""
    have = name_list(sorted(names))
    if wanted.name is not None and wanted.name not in names:
        raise InputError(f"{path}: no {what} {wanted.name!r} of lists of numbers. Such {what}s there: {have}.")
    if wanted.name is None and len(names) != 1:
        raise InputError(
            f"{path}: {len(names)} {what}s of lists of numbers; expected one. Choose one by its name after #, as in "
            f"{path.name}#{min(names, default='NAME')}: {have}."
        )
    return wanted.name if wanted.name is not None else next(iter(names))


def in_blocks(path: Path, rows: Iterable[tuple[str, npt.NDArray[np.floating]]]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield rows as blocks [n, D] of at most 32 MB; InputError for one of another length than the first.

    Parameters
    ----------
    path : Path
        For messages.
    rows : iterable of (place, float [D])
        The place is for messages, such as ":7".
    """
    block, filled = np.empty((0, 0), np.float32), 0
    for place, row in rows:
        if not block.size:
            if not len(row):
                raise InputError(f"{path}{place}: no numbers. Give every item a vector of one length.")
            block = np.empty((max(1, BLOCK_BYTES // (4 * len(row))), len(row)), np.float32)
        if len(row) != block.shape[1]:
            raise InputError(
                f"{path}{place}: {len(row)} numbers, expected {block.shape[1]} as in the first vector. Give every item "
                "a vector of one length."
            )
        with np.errstate(over="ignore"):  # too large for float32 becomes infinity, which is refused later
            block[filled] = row
        filled += 1
        if filled == len(block):
            yield block
            block, filled = np.empty_like(block), 0
    if filled:
        yield block[:filled]
