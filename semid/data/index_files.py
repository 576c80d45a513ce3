"""Index files of other systems, read into arrays: which item has which tokens or codes.

LC-Rec, LETTER, MiniOneRec (`*.index.json`) and MIMIGenRec (`id2sid.json`) write tokens like `<a_1>`. META ID writes
`<CT79><1220>`, IDGenRec words, GRAM sub-words of varying number, others integers. All become codes that
`semid.evaluate` can measure. Not here: the file formats (`index_entries.py`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.index_entries import SHAPE, read_entries
from semid.errors import InputError
from semid.files.reading import reading_of

__all__ = ["NUMBERED", "IndexFile", "read_index"]

logger = logging.getLogger("semid")

NUMBERED = re.compile(r"(.*?)(?<![0-9])(0|[1-9][0-9]{0,8})([^0-9]*)", re.DOTALL)  # the last number
TOKENS = re.compile(r"\s*(<[^<>]*>\s*)+")
TOKEN = re.compile(r"<[^<>]*>")
CODES = re.compile(r"\s*\d+([\s,;_-]+\d+)*\s*")
MAX_CODE = 2**31 - 1
MAX_DIGITS = 4000  # in one string; Python converts no more at once


@dataclass(frozen=True, eq=False)
class IndexFile:
    """The content of an index file, in its order: N items, at most L tokens each."""

    path: Path
    item_ids: list[str]
    tokens: list[list[str]]  # N lists of 0 to L tokens, as written; codes as strings
    codes: npt.NDArray[np.int32]  # (N, L) - each token's number at its level; -1 past the end of a short ID
    sizes: list[int]  # codes per level: the highest code + 1
    templates: list[str | None]  # per level, such as "<a_{}>"; None if codes are ranks of the tokens
    is_codes: bool = False  # whether the file holds codes, not tokens

    def rows(self, item_ids: list[str]) -> npt.NDArray[np.int64]:
        """Return the row of each item id in this file, int64; -1 if the file does not have it.

        `index.codes[index.rows(ids)]` puts the codes in the order of a catalog, if no row is -1.
        """
        row = {item_id: number for number, item_id in enumerate(self.item_ids)}
        return np.array([row.get(item_id, -1) for item_id in item_ids], np.int64)


def read_index(
    path: str | os.PathLike[str], *, ids: Sequence[str] | None = None, id_field: str = "item_id"
) -> IndexFile:
    """Read an index file, packed or not, whatever its name.

    If all tokens of a level are the same text around a number (`<a_12>`), the code is that number. Otherwise the code
    is the token's rank among the level's distinct tokens, sorted. In both cases equal prefixes of tokens are equal
    prefixes of codes. Integers are codes already.

    Parameters
    ----------
    path : path
        JSON `{item: tokens}`, JSON lines, CSV, Parquet and other records with an item and its tokens or codes, or an
        array of codes [N, L]: `.npy`, `.npz`, `.pt`, `.safetensors`. Tokens may stand in a list or in one string.
    ids : sequence of str, optional
        The items of the catalog in its order, which arrays without ids belong to. By default their row numbers are
        their ids.
    id_field : str
        The field of the ids in records; `item_id`, `id` and similar names are known, else it is the first one.

    Raises
    ------
    InputError
        The file is broken, not UTF-8, truncated or empty, has an item twice, or a value that is no ID. Lists up to ten
        items.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "Beauty.index.json"
    ...     _ = path.write_text('{"B001": ["<a_5>", "<b_0>"], "B002": ["<a_5>", "<b_12>"]}')
    ...     index = read_index(path)
    >>> index.codes.tolist(), index.sizes, index.templates
    ([[5, 0], [5, 12]], [6, 13], ['<a_{}>', '<b_{}>'])
    """
    reading, path = reading_of(path), Path(path)
    item_ids, values = read_entries(path, ids, id_field, reading)
    rows = _id_lists(path, item_ids, values)
    n_levels = max(map(len, rows))
    if n_levels == 0:
        raise InputError(f"{path}: no item has a token; expected {SHAPE}.")
    codes = np.full((len(rows), n_levels), -1, np.int32)
    is_codes = any(isinstance(row[0], int) for row in rows if row)
    if is_codes:
        templates: list[str | None] = ["{}"] * n_levels
        for level in range(n_levels):
            having = [number for number, row in enumerate(rows) if len(row) > level]
            codes[having, level] = [rows[number][level] for number in having]
        tokens = [list(map(str, row)) for row in rows]
    else:
        tokens = rows
        templates = [_number_level(tokens, level, codes[:, level]) for level in range(n_levels)]
    without = sum(not row for row in tokens)
    if without:
        logger.warning("%s: %d of %d items have no tokens at all", path, without, len(tokens))
    sizes = [int(size) + 1 for size in codes.max(axis=0)]
    return IndexFile(path, item_ids, tokens, codes, sizes, templates, is_codes)


def _id_lists(path: Path, item_ids: list[str], values: list[Any]) -> list[list[Any]]:
    """Return the tokens (strings) or the codes (integers) of every item; InputError for values that are neither."""
    problems, rows = [], list[list[Any]]()
    kinds: dict[type, str] = {}
    for item_id, value in zip(item_ids, values, strict=True):
        row = _split(value) if isinstance(value, str) else value
        if not isinstance(row, list):
            problems.append(
                f"{path}: item {item_id!r} has {_named(row)}; expected a list of tokens or codes, or a string of them, "
                'such as "<a_1><b_2>"'
            )
            continue
        wrong = [part for part in row if not (isinstance(part, str) or _is_code(part))]
        if wrong:
            problems.append(f'{path}: item {item_id!r} has the token {_named(wrong[0])}; expected "<a_12>" or a code')
        elif not _encodable("".join([item_id, *(part for part in row if isinstance(part, str))])):
            problems.append(f"{path}: item {item_id!r} holds half of a surrogate pair; expected valid Unicode")
        else:
            for part in row:
                kinds.setdefault(type(part), item_id)
        rows.append(row)
    if len(kinds) > 1:
        problems.append(
            f"{path}: item {kinds[str]!r} has tokens and item {kinds[int]!r} has codes; expected one kind for all items"
        )
    if problems:
        raise InputError.listing(problems)
    return rows


def _split(text: str) -> list[Any] | str:
    """Return the tokens or codes that a string spells; the string if it spells none, since it may be a title.

    >>> _split("<a_1> <b_2>"), _split("12,7"), _split("nail polish")
    (['<a_1>', '<b_2>'], [12, 7], 'nail polish')
    """
    if TOKENS.fullmatch(text):
        return TOKEN.findall(text)
    if CODES.fullmatch(text) and len(text) < MAX_DIGITS:
        return [int(code) for code in re.findall(r"\d+", text)]
    return text


def _is_code(part: object) -> bool:
    return isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= MAX_CODE


def _named(value: object) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _number_level(tokens: list[list[str]], level: int, codes: npt.NDArray[np.int32]) -> str | None:
    """Fill `codes` [N] for one level, and return the template that its tokens share, or None if there is none."""
    rows = [row for row, item in enumerate(tokens) if len(item) > level]
    column = [tokens[row][level] for row in rows]
    distinct = sorted(set(column))
    matches = [match for token in distinct if (match := NUMBERED.fullmatch(token))]
    around = {(match[1], match[3]) for match in matches}
    if len(matches) < len(distinct) or len(around) != 1:
        number = {token: rank for rank, token in enumerate(distinct)}
        codes[rows] = [number[token] for token in column]
        return None
    number = {match[0]: int(match[2]) for match in matches}
    codes[rows] = [number[token] for token in column]
    before, after = around.pop()
    return f"{before}{{}}{after}"
