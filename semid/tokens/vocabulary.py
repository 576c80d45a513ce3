"""Codes as tokens: (level, code) <-> token string <-> token id.

The tokens of an artifact are one block, level-major: all codes of level 0, then of level 1, and so on, then the begin
and the end marker if the template has them. The block always has all codes of every level, so a new item never needs a
new token. Where the block starts in a language model's vocabulary (`base`) is for the caller to say.

Not here: which patterns are safe (`templates.py`), which IDs exist (`ledger/ledger.py`, `semid/trie/trie.py`), real
tokenizers (`tokenizer_exports`). N items, L levels, K codes in a level.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError
from semid.ledger.lookup import MAX_CODE, check_range
from semid.tokens.templates import TEMPLATES, as_regex, check_pattern, letters_of, level_of

__all__ = ["MAX_SIZE", "Found", "Vocabulary"]

MAX_SIZE = MAX_CODE + 1  # codes of a level
UNKNOWN, BEGIN, END = -1, -2, -3  # "levels" of pieces that are not a code of this vocabulary


@dataclass(frozen=True, slots=True)
class Found:
    """One ID, or one malformed attempt at an ID, in a text: `text == whole[start:end]`.

    In token ids, `start` and `end` are positions in the sequence, and `text` is its tokens as text. Exactly one of
    `codes` (the ID is well-formed) and `problem` (why it is not) is set.
    """

    start: int
    end: int
    codes: tuple[int, ...] | None
    text: str
    problem: str | None


class _Piece(NamedTuple):
    """A marker, or something that looks like a code's token."""

    start: int
    end: int
    level: int
    code: int
    problem: str | None


@dataclass(frozen=True, init=False)
class Vocabulary:
    """The tokens of L levels.

    Parameters
    ----------
    sizes : sequence of int
        Codes per level, each 1 to 65536.
    template : str
        A name in `semid.tokens.TEMPLATES` ("onerec" by default), or a pattern with {letter}, {level}, {code}, {offset}.
    begin, end : str, optional
        Markers around an ID, "" for none. By default those of the named template, none with a pattern.

    Raises
    ------
    ConfigError
        A size out of range; a pattern whose tokens would be equal, or could be mistaken for each other or for the text
        around them.

    >>> vocabulary = Vocabulary([256, 256, 256])
    >>> vocabulary.text([12, 7, 255])
    '<s_a_12><s_b_7><s_c_255>'
    >>> vocabulary.token_ids([[12, 7, 255]], base=1000).tolist()
    [[1012, 1263, 1767]]
    >>> for found in vocabulary.find("Try <s_a_12><s_b_7><s_c_255> or <s_a_1><s_b_2>."):
    ...     print(found.codes, found.problem)
    (12, 7, 255) None
    None has 2 of 3 codes
    """

    # what errors advise if a tokenizer cannot take the names
    OTHER_NAMES = "Learn IDs with other names: --template 'my_{letter}_{code}' (or another name or pattern)."

    sizes: tuple[int, ...]
    template: str
    begin: str
    end: str

    def __init__(
        self, sizes: Sequence[int], template: str = "onerec", begin: str | None = None, end: str | None = None
    ) -> None:
        checked = _checked_sizes(sizes)
        preset = TEMPLATES.get(template)
        if preset is None:
            check_pattern(template, len(checked))
        own = ("", "") if preset is None else (preset.begin, preset.end)
        markers = (own[0] if begin is None else begin, own[1] if end is None else end)
        for name, value in zip(("sizes", "template", "begin", "end"), (checked, template, *markers), strict=True):
            object.__setattr__(self, name, value)
        if preset is None or markers != own:
            self._check_markers()

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> Vocabulary:
        """Return the vocabulary that `to_dict` wrote; ConfigError for a missing or unknown key or a wrong type."""
        if not isinstance(record, Mapping) or set(record) != {"sizes", "template", "begin", "end"}:
            raise ConfigError(f"vocabulary={record!r:.200} should have the keys sizes, template, begin, end.")
        sizes, template, begin, end = (record[key] for key in ("sizes", "template", "begin", "end"))
        if (
            not isinstance(sizes, (list, tuple))
            or not isinstance(template, str)
            or not isinstance(begin, str)
            or not isinstance(end, str)
        ):
            raise ConfigError(f"vocabulary={record!r:.200}: sizes should be a list, the others strings.")
        return cls(sizes, template, begin, end)

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {"sizes": list(self.sizes), "template": self.template, "begin": self.begin, "end": self.end}

    # ---- the block of tokens

    @property
    def n_levels(self) -> int:
        """Codes per ID, L."""
        return len(self.sizes)

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where the levels begin, int64 [L + 1]: level l is `tokens[offsets[l]:offsets[l + 1]]`; then the markers."""
        return np.array([0, *accumulate(self.sizes)], np.int64)

    def __len__(self) -> int:
        """Return the number of tokens in the block, markers included."""
        return sum(self.sizes) + bool(self.begin) + bool(self.end)

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens of the block in order: level-major, then the begin and the end marker."""
        markers = [marker for marker in (self.begin, self.end) if marker]
        return [token for table in self._tables for token in table] + markers

    def token(self, level: int, code: int) -> str:
        """Return the token of one code; IndexError if there is no such code."""
        if not (0 <= level < self.n_levels and 0 <= code < self.sizes[level]):
            raise IndexError(f"level={level} code={code} should be inside sizes={list(self.sizes)}.")
        offset = int(self.offsets[level]) + int(code)
        return self._patterns[min(level, 1)].format(
            letter=letters_of(level),
            level=level,
            code=int(code),
            offset=offset,
            rank=1001 + offset - self.sizes[0],
        )

    @property
    def _patterns(self) -> tuple[str, str]:
        """Pattern of level 0, pattern of the other levels."""
        preset = TEMPLATES.get(self.template)
        return (preset.first, preset.others) if preset else (self.template, self.template)

    @cached_property
    def _tables(self) -> list[list[str]]:
        return [[self.token(level, code) for code in range(size)] for level, size in enumerate(self.sizes)]

    # ---- codes to text and token ids

    def text(self, codes: Sequence[int] | npt.NDArray[np.integer], *, markers: bool = False) -> str:
        """Return the ID of one item as text: L tokens, with `markers` between the begin and the end marker.

        InputError if a code is out of range.
        """
        return self.texts(np.asarray(codes).reshape(1, -1), markers=markers)[0]

    def texts(self, codes: npt.ArrayLike, *, markers: bool = False) -> list[str]:
        """Return the IDs of many items as text, from codes int [N, L]; InputError if a code is out of range."""
        checked = self._checked_codes(codes)
        tables = list(self._tables)  # a look-up per code, which is faster than formatting
        if markers:
            tables[0] = [self.begin + token for token in tables[0]]
            tables[-1] = [token + self.end for token in tables[-1]]
        columns = [map(table.__getitem__, checked[:, level].tolist()) for level, table in enumerate(tables)]
        return list(map("".join, zip(*columns, strict=True)))

    def token_ids(self, codes: npt.ArrayLike, base: int) -> npt.NDArray[np.int64]:
        """Return the token ids of codes [N, L], int64: base + offset of the level + code. Markers are left out."""
        return base + self.offsets[:-1] + self._checked_codes(codes).astype(np.int64)

    def codes_of_token_ids(self, token_ids: npt.ArrayLike, base: int) -> npt.NDArray[np.int64]:
        """Return the codes of token ids [N, L], int64; -1 where an id is not a code of its level."""
        codes = self._shaped(token_ids, "token_ids").astype(np.int64) - base - self.offsets[:-1]
        return np.where((codes >= 0) & (codes < np.array(self.sizes)), codes, -1)

    def codes_of_texts(self, texts: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the codes of texts, int64 [N, L]; -1 for every level of a text that is not one well-formed ID.

        Blanks around an ID do not count. For IDs inside other text see `find`.

        >>> Vocabulary([4, 2]).codes_of_texts(["<s_a_3><s_b_1>", "a <s_a_3><s_b_1>", "<s_a_3>"]).tolist()
        [[3, 1], [-1, -1], [-1, -1]]
        """
        rows = []
        for text in texts:
            found = self.find(text)
            good = len(found) == 1 and found[0].text == text.strip()
            rows.append((found[0].codes if good else None) or (-1,) * self.n_levels)
        return np.array(rows, np.int64).reshape(-1, self.n_levels)

    def _shaped(self, values: npt.ArrayLike, name: str) -> npt.NDArray[np.integer]:
        array = np.asarray(values)
        if array.shape in ((0,), (0, self.n_levels)):
            return np.zeros((0, self.n_levels), np.int64)
        if array.ndim != 2 or array.shape[1] != self.n_levels or array.dtype.kind not in "iu":
            raise InputError(
                f"{name}: shape={array.shape} dtype={array.dtype} should be integers [N, {self.n_levels}]."
            )
        return array

    def _checked_codes(self, codes: npt.ArrayLike) -> npt.NDArray[np.integer]:
        checked = self._shaped(codes, "codes")
        check_range(checked, self.sizes)
        return checked

    # ---- text to codes

    def find(self, text: str) -> list[Found]:
        """Find every ID in a text, and every malformed attempt at one, in order.

        A well-formed ID is one token of each level, in the order of the levels. Blanks and tabs are allowed between its
        tokens (some tokenizers write them when they decode), nothing else is; either marker may be missing. A new
        attempt starts at a begin marker and at a token of level 0, and ends at an end marker or at any other text, line
        breaks included. An attempt with too few or too many codes, a skipped or repeated level, a code out of range or
        one spelled differently (`<s_a_012>`) is reported as one piece with the problem, never repaired. Takes time
        linear in the text.
        """
        pieces = map(self._piece, self._scanner.finditer(text))
        attempts = _attempts(pieces, lambda start, end: not text[start:end].strip(" \t"))
        return [self._judge(attempt, text[attempt[0].start : attempt[-1].end]) for attempt in attempts]

    def find_token_ids(self, token_ids: Sequence[int] | npt.NDArray[np.integer], base: int) -> list[Found]:
        """Find every ID in token ids int [T], and every malformed attempt at one, as `find` does in text.

        All token ids outside the block count as other text, and nothing is allowed between the tokens of an ID.
        InputError if it is not one row of integers.

        >>> [found.codes for found in Vocabulary([4, 2]).find_token_ids([7, 103, 105, 7, 100], base=100)]
        [(3, 1), None]
        """
        try:
            places = np.asarray(token_ids)
        except ValueError:  # rows of unequal length
            raise InputError("token_ids: should be integers [T], one sequence. Parse each row separately.") from None
        if places.ndim != 1 or (places.size and places.dtype.kind not in "iu"):
            raise InputError(
                f"token_ids: shape={places.shape} dtype={places.dtype} should be integers [T], one sequence. "
                "Parse each row separately."
            )
        places = places.astype(np.int64) - base
        words = self.tokens
        return [
            self._judge(attempt, "".join(words[place] for place in places[attempt[0].start : attempt[-1].end].tolist()))
            for attempt in _attempts(self._block_pieces(places), operator.eq)
        ]

    def _block_pieces(self, places: npt.NDArray[np.int64]) -> Iterator[_Piece]:
        """Yield the tokens of the block among places int64 [T], which count from the first code; the rest is text."""
        starts = np.flatnonzero((places >= 0) & (places < len(self)))
        levels = np.searchsorted(self.offsets, places[starts], side="right") - 1
        codes = places[starts] - self.offsets[levels]
        markers = [level for level, marker in ((BEGIN, self.begin), (END, self.end)) if marker]
        for start, level, code in zip(starts.tolist(), levels.tolist(), codes.tolist(), strict=True):
            piece_level, piece_code = (level, code) if level < self.n_levels else (markers[code], 0)
            yield _Piece(start, start + 1, piece_level, piece_code, None)

    @cached_property
    def _scanner(self) -> re.Pattern[str]:
        first, others = self._patterns
        markers = [re.escape(marker) for marker in (self.begin, self.end) if marker]
        codes = [as_regex(first)] + ([as_regex(others, "_")] if others != first else [])
        return re.compile("|".join(markers + codes))

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Token -> (level, code); the markers have levels of their own."""
        places = {self.begin: (BEGIN, 0), self.end: (END, 0)}
        for level, table in enumerate(self._tables):
            places.update((token, (level, code)) for code, token in enumerate(table))
        return places

    def _piece(self, match: re.Match[str]) -> _Piece:
        token = match.group()
        if token in self._places:
            level, code = self._places[token]
            return _Piece(match.start(), match.end(), level, code, None)
        shown = token if len(token) <= 40 else token[:37] + "..."
        level = UNKNOWN
        letters, number = (match.groupdict().get(field) for field in ("letter", "level"))
        if letters and len(letters) < 4:
            level = level_of(letters)
        elif number and len(number) < 4:
            level = int(number)
        if 0 <= level < self.n_levels:
            problem = f"{shown} is not among the codes {self.token(level, 0)} to {self._tables[level][-1]}"
        else:
            level = UNKNOWN
            problem = f"{shown} is not one of the {sum(self.sizes)} codes of {self.n_levels} levels"
        return _Piece(match.start(), match.end(), level, -1, problem)

    def _judge(self, attempt: list[_Piece], text: str) -> Found:
        codes = [piece for piece in attempt if piece.level > BEGIN]
        problem = next((piece.problem for piece in codes if piece.problem), None)
        problem = problem or self._disorder([piece.level for piece in codes])
        good = None if problem else tuple(piece.code for piece in codes)
        return Found(attempt[0].start, attempt[-1].end, good, text, problem)

    def _disorder(self, levels: list[int]) -> str | None:
        for due, level in enumerate(levels[: self.n_levels]):
            if level != due:
                return f"has a code of level {level} where level {due} is expected"
        if len(levels) > self.n_levels:
            return f"has {len(levels)} codes, more than {self.n_levels}"
        return None if len(levels) == self.n_levels else f"has {len(levels)} of {self.n_levels} codes"

    def _check_markers(self) -> None:
        for name, marker, other in (("begin", self.begin, self.end), ("end", self.end, self.begin)):
            if any(character.isspace() for character in marker):
                raise ConfigError(f"{name}={marker!r} should not contain blanks, which tokenizers change.")
            rivals = [token for table in self._tables for token in table] + ([other] if other else [])
            if marker and any(rival.startswith(marker) or marker.startswith(rival) for rival in rivals):
                raise ConfigError(f"{name}={marker!r} should not start like another token. Choose another.")


def _attempts(pieces: Iterable[_Piece], adjoin: Callable[[int, int], bool]) -> Iterator[list[_Piece]]:
    """Group pieces into attempts at an ID; `adjoin(end, start)` says whether what is between two pieces is allowed."""
    attempt: list[_Piece] = []
    for piece in pieces:
        if attempt:
            last = attempt[-1]
            starts = last.level == END or piece.level == BEGIN or (piece.level == 0 and last.level != BEGIN)
            if starts or not adjoin(last.end, piece.start):
                yield attempt
                attempt = []
        attempt.append(piece)
    if attempt:
        yield attempt


def _checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if isinstance(sizes, str) or not len(sizes):
        raise ConfigError(f"sizes={sizes!r} should be a list: the number of codes of each level.")
    for size in sizes:
        whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
        if not whole or not 1 <= size <= MAX_SIZE:
            raise ConfigError(f"sizes={list(sizes)} should be integers from 1 to {MAX_SIZE}.")
    return tuple(int(size) for size in sizes)
