"""Known files: text files of the field's data sets that have no header, or a header of their own kind.

MovieLens' `u.data`, `u.item`, `u.user`, `ratings.dat`, `movies.dat`, `users.dat` and `tags.dat`, MiniOneRec's
`info.txt`, and the typed headers of RecBole's atomic files. Each is told by the shape of its first rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["TYPES", "KnownFile", "known_file", "typed_header"]

TYPES = ("token", "token_seq", "float", "float_seq")  # of RecBole's columns
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
WHOLE, NUMBER, MOMENT = r"\d+", r"\d+(\.\d+)?", r"\d{8,10}"
DATE, LINK, FLAG, ANY, WORD = r"(\d\d-\w{3}-\d{4})?", r"(http.*)?", r"[01]", r"[\s\S]*", r"[\s\S]*\D[\s\S]*"


@dataclass(frozen=True)
class KnownFile:
    """A kind of file without a header: its name, its columns, and those that are flags of genres."""

    name: str
    columns: tuple[str, ...]
    flags: tuple[str, ...] = ()


def known_file(delimiter: str, rows: Sequence[Sequence[str]]) -> KnownFile | None:
    """Return which known file begins with these rows; None if it is none.

    >>> known_file("::", [["1", "31", "2", "978300019"]]).columns
    ('user', 'item', 'rating', 'timestamp')
    """
    if not rows:
        return None
    if delimiter == "|" and len(rows[0]) > 6 and _all_match(rows, (WHOLE, ANY, DATE, DATE, LINK), FLAG):
        n_flags = len(rows[0]) - 5
        flags = GENRES if n_flags == len(GENRES) else ()
        columns = flags or tuple(f"flag_{number}" for number in range(n_flags))
        return KnownFile("MovieLens", ("id", "title", "release_date", "video_release_date", "url", *columns), flags)
    for among, patterns, found in SHAPES:
        if delimiter in among and _all_match(rows, patterns):
            return found
    return None


SHAPES: tuple[tuple[tuple[str, ...], tuple[str, ...], KnownFile], ...] = (
    (
        ("::", "\t"),
        (WHOLE, WHOLE, NUMBER, MOMENT),
        KnownFile("MovieLens", ("user", "item", "rating", "timestamp")),
    ),
    (("::",), (WHOLE, WHOLE, ANY, MOMENT), KnownFile("MovieLens", ("user", "item", "tag", "timestamp"))),
    (("::",), (WHOLE, WORD, ANY), KnownFile("MovieLens", ("id", "title", "genres"))),
    (("::",), (WHOLE, "[MF]", WHOLE, WHOLE, ANY), KnownFile("MovieLens", ("user", "gender", "age", "job", "zip"))),
    (("|",), (WHOLE, WHOLE, "[MF]", ANY, ANY), KnownFile("MovieLens", ("user", "age", "gender", "job", "zip"))),
    (("\t",), (r"(<\w+_\d+>){2,}", ANY, ANY), KnownFile("MiniOneRec", ("semantic_id", "title", "id"))),
)


def _all_match(rows: Sequence[Sequence[str]], patterns: tuple[str, ...], further: str | None = None) -> bool:
    """Return whether nine of ten rows match a pattern per cell, and `further` in all cells behind them."""
    width = len(rows[0])
    if width != len(patterns) and further is None:
        return False
    tests: list[Callable[[str], object]] = [re.compile(pattern).fullmatch for pattern in patterns]
    tests += [re.compile(further or "").fullmatch] * (width - len(patterns))
    good = sum(len(row) == width and all(test(cell) for test, cell in zip(tests, row, strict=True)) for row in rows)
    return 10 * good >= 9 * len(rows)


def typed_header(row: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the names and types of a RecBole header; None if some cell has no type.

    >>> typed_header(["user_id:token", "item_id_list:token_seq"])
    (('user_id', 'item_id_list'), ('token', 'token_seq'))
    """
    pairs = [cell.strip().rpartition(":") for cell in row]
    if not pairs or not all(name and kind in TYPES for name, _, kind in pairs):
        return None
    return tuple(name for name, _, _ in pairs), tuple(kind for _, _, kind in pairs)
