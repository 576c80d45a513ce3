"""Index files of other systems, read into arrays: `{item id: [token, token, ...]}` in JSON.

LC-Rec, LETTER, MiniOneRec (`*.index.json`) and MIMIGenRec (`id2sid.json`) write tokens like `<a_1>`. META ID writes
`<CT79><1220>`, IDGenRec words, GRAM sub-words of varying number. All become codes that `semid.evaluate` can measure.
Needs NumPy alone.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.records import GZIP_MAGIC
from semid.errors import InputError

__all__ = ["IndexFile", "read_index", "read_json_object"]

logger = logging.getLogger("semid")

NUMBERED = re.compile(r"(.*?)(?<![0-9])(0|[1-9][0-9]{0,8})([^0-9]*)", re.DOTALL)  # the last number
SHAPE = '{"item id": ["<a_12>", "<b_7>", ...], ...}'


@dataclass(frozen=True, eq=False)
class IndexFile:
    """The content of an index file, in its order: N items, at most L tokens each."""

    path: Path
    item_ids: list[str]
    tokens: list[list[str]]  # N lists of 0 to L tokens, as written
    codes: npt.NDArray[np.int32]  # (N, L) - each token's number at its level; -1 past the end of a short ID
    sizes: list[int]  # codes per level: the highest code + 1
    templates: list[str | None]  # per level, such as "<a_{}>"; None if codes are ranks of the tokens

    def rows(self, item_ids: list[str]) -> npt.NDArray[np.int64]:
        """Return the row of each item id in this file, int64; -1 if the file does not have it.

        `index.codes[index.rows(ids)]` puts the codes in the order of a catalog, if no row is -1.
        """
        row = {item_id: number for number, item_id in enumerate(self.item_ids)}
        return np.array([row.get(item_id, -1) for item_id in item_ids], np.int64)


def read_index(path: str | os.PathLike[str]) -> IndexFile:
    """Read an index file, plain or gzipped, whatever its name.

    If all tokens of a level are the same text around a number (`<a_12>`), the code is that number. Otherwise the code
    is the token's rank among the level's distinct tokens, sorted. In both cases equal prefixes of tokens are equal
    prefixes of codes.

    Raises
    ------
    InputError
        The file is broken, not UTF-8, truncated or empty, has an item twice, or a value that is not a list of
        strings. Lists up to ten items.
    OSError
        The file cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "Beauty.index.json"
    ...     _ = path.write_text('{"B001": ["<a_5>", "<b_0>"], "B002": ["<a_5>", "<b_12>"]}')
    ...     index = read_index(path)
    >>> index.codes.tolist(), index.sizes, index.templates
    ([[5, 0], [5, 12]], [6, 13], ['<a_{}>', '<b_{}>'])
    """
    path = Path(path)
    entries = _token_lists(path, read_json_object(path, SHAPE))
    item_ids, tokens = list(entries), list(entries.values())
    n_levels = max(map(len, tokens))
    if n_levels == 0:
        raise InputError(f"{path}: no item has a token; expected {SHAPE}.")
    codes = np.full((len(tokens), n_levels), -1, np.int32)
    templates = [_number_level(tokens, level, codes[:, level]) for level in range(n_levels)]
    without = sum(not row for row in tokens)
    if without:
        logger.warning("%s: %d of %d items have no tokens at all", path, without, len(tokens))
    return IndexFile(path, item_ids, tokens, codes, [int(size) + 1 for size in codes.max(axis=0)], templates)


def read_json_object(path: Path, shape: str) -> dict[str, object]:
    """Read a JSON object by item id, plain or gzipped. InputError, which names the expected `shape`, otherwise."""
    return _parse(path, _text(path), shape)


def _text(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] == GZIP_MAGIC:
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: truncated or damaged gzip ({error}). Download or write it again.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 ({error.reason}). Convert it with: iconv -t utf-8") from error


def _parse(path: Path, text: str, shape: str) -> dict[str, object]:
    def without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated = [key for key, count in counts.items() for _ in range(count - 1)]
            problems = [f"{path}: item {key!r} appears twice; expected one ID per item" for key in repeated]
            raise InputError.listing(problems)
        return entries

    if not text.strip():
        raise InputError(f"{path}: the file is empty; expected {shape}.")
    try:
        entries = json.loads(text, object_pairs_hook=without_repeats)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: broken JSON, column {error.colno}: {error.msg}. Expected {shape}."
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise InputError(f"{path}: cannot be read as JSON ({error}). Expected {shape}.") from error
    if not isinstance(entries, dict) or not entries:
        found = "no items" if entries in ({}, []) else f"a JSON {type(entries).__name__}"
        raise InputError(f"{path}: {found}; expected {shape}.")
    return entries


def _token_lists(path: Path, entries: dict[str, object]) -> dict[str, list[str]]:
    """Return the entries; InputError unless every item has a list of strings that can be written as UTF-8."""
    problems, checked = [], dict[str, list[str]]()
    for item_id, tokens in entries.items():
        if not isinstance(tokens, list):
            problems.append(f"{path}: item {item_id!r} has {_named(tokens)}; expected a list of token strings")
        elif wrong := [token for token in tokens if not isinstance(token, str)]:
            problems.append(f'{path}: item {item_id!r} has the token {_named(wrong[0])}; expected "<a_12>"')
        elif not _encodable("".join([item_id, *tokens])):
            problems.append(f"{path}: item {item_id!r} holds half of a surrogate pair; expected valid Unicode")
        else:
            checked[item_id] = tokens
    if problems:
        raise InputError.listing(problems)
    return checked


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
