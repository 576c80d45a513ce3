"""Values: the value of a field as clean text, as an id, or as a time.

Handles one value at a time: strings, numbers, dates, lists at any depth. `items.py` and `interactions.py` decide which
fields are read, and what happens to other values.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from semid.data.markup import is_tag_piece, strip_tags, unescape
from semid.data.paths import label_of
from semid.files.problems import quote

__all__ = [
    "as_microseconds",
    "as_number",
    "clean_text",
    "has_surrogate",
    "id_fault",
    "id_string",
    "is_vector",
    "is_wordy",
    "kind_of",
    "text_of",
]


UNESCAPE_ROUNDS = 3  # "&amp;amp;lt;" is the deepest escaping seen in scraped catalogs
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")
MARKS = 30  # combining marks in a row that are kept (UAX 15, section 13): composing takes time quadratic in them
MADE_OF_MARKS = "\u0f73\u0f75\u0f81"  # no combining marks by their class, but made of two
MAY_BE_MARKS = re.compile(  # every combining mark of Unicode is in these ranges
    "[\u0300-\u036f\u0483-\u0487\u0591-\u108d\u135d-\u135f\u1714-\u193b\u1a17-\u1dff\u20d0-\u20f0\u2cef-\u2dff"
    "\u302a-\u302f\u3099\u309a\ua66f-\ua6f1\ua806-\uabed\ufb1e\ufe20-\ufe2f\U000101fd-\U0001efff]"
    f"{{{MARKS + 1},}}"
)
LETTER = re.compile(r"[^\W\d_]")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z|[+-][\d:]+)?")
NOT_WORDS = frozenset({"true", "false", "yes", "no", "null", "none"})


def clean_text(text: str) -> str:
    """Take out HTML, decode entities (also doubly escaped), collapse blanks and control characters, compose to NFC.

    Escaped tags are tags: "&lt;br&gt;" is taken out, too. A string that begins inside a tag (`class="a-bordered">...`)
    is a piece of a page and becomes "". A lone surrogate, which no UTF-8 file can hold, becomes U+FFFD. Of more than 30
    combining marks in a row, 30 are kept.

    >>> clean_text("<b>Fish</b> &amp;amp; chips<br>\\n\\x00 caf\\u0065\\u0301"), clean_text("a < b, List<int>")
    ('Fish & chips café', 'a < b, List<int>')
    """
    plain = text.isascii() and text.isprintable() and "&" not in text and "<" not in text and '="' not in text
    if plain and "  " not in text and text[:1] != " " and text[-1:] != " ":
        return text
    if is_tag_piece(text):
        return ""
    for _ in range(UNESCAPE_ROUNDS):
        text = strip_tags(text)
        unescaped = unescape(text) if "&" in text else text
        if unescaped == text:
            break
        text = unescaped
    else:
        text = strip_tags(text)
    text = " ".join(CONTROL.sub(" ", text).split())
    return text if text.isascii() else unicodedata.normalize("NFC", _few_marks(SURROGATE.sub("\ufffd", text)))


def _few_marks(text: str) -> str:
    return MAY_BE_MARKS.sub(_first_marks, text)


def _first_marks(found: re.Match[str]) -> str:
    kept, n_marks = [], 0
    for character in found[0]:
        is_mark = unicodedata.combining(character) or character in MADE_OF_MARKS
        n_marks = n_marks + 1 if is_mark else 0
        if n_marks <= MARKS:
            kept.append(character)
    return "".join(kept)


def text_of(value: object) -> str | None:
    """Return the clean text of a field's value: "" for null, None if the value cannot be text.

    Lists are flattened at any depth and joined with ", ", each string once. An object in a list gives its name, title,
    label, text or value, or nothing. Numbers are written out; NaN and infinities give "".

    >>> text_of(["Makeup", ["Makeup", "Nails"]]), text_of(4.5), text_of(None), text_of({"a": 1})
    ('Makeup, Nails', '4.5', '', None)
    >>> text_of([{"id": 28, "name": "Drama"}, {"id": 10}])
    'Drama'
    """
    if not isinstance(value, list | tuple | np.ndarray):
        return _scalar_text(value)
    pieces: dict[str, None] = {}  # an ordered set
    stack = [_leaves(value)]  # not recursion: nesting may be as deep as the JSON parser allows
    while stack:
        for leaf in stack[-1]:
            if type(leaf) is str:  # the fast path for nearly every leaf
                pieces[clean_text(leaf)] = None
                continue
            while isinstance(leaf, dict):
                leaf = label_of(leaf)
            if isinstance(leaf, list | tuple | np.ndarray):
                stack.append(_leaves(leaf))
                break
            piece = _scalar_text(leaf)
            if piece is None:
                return None
            pieces[piece] = None
        else:
            stack.pop()
    pieces.pop("", None)
    return ", ".join(pieces)


def _leaves(value: list[Any] | tuple[Any, ...] | np.ndarray) -> Iterator[Any]:
    return iter(value.ravel().tolist() if isinstance(value, np.ndarray) else value)


def _scalar_text(value: object) -> str | None:
    if isinstance(value, str):
        return clean_text(value)
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, numbers.Real | Decimal):
        with contextlib.suppress(ValueError, OverflowError):  # an integer too long to write out
            return str(value) if isinstance(value, numbers.Integral) or math.isfinite(value) else ""
        return None
    return str(value) if isinstance(value, date) else None  # datetime is a date


def is_vector(value: object) -> bool:
    """Return whether a value is a list of fractional numbers: an embedding, which is text only where asked for."""
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind == "f")
    while isinstance(value, list | tuple) and value:
        value = value[0]
        if isinstance(value, float):
            return True
    return False


def is_wordy(text: str) -> bool:
    """Whether a clean text is more than a number, a price, a date or a truth value."""
    if not LETTER.search(text) or text.casefold() in NOT_WORDS or TIMESTAMP.fullmatch(text):
        return False
    try:
        float(text)  # 1e-5, nan
    except ValueError:
        return True
    return False


def has_surrogate(text: str) -> bool:
    """Whether a lone surrogate, which no UTF-8 file can hold, is in the text."""
    return not text.isascii() and SURROGATE.search(text) is not None


def kind_of(value: object) -> str:
    """Return the kind of a value in words, for a message."""
    if isinstance(value, list | tuple | np.ndarray):
        return "a list of numbers" if is_vector(value) else "a list with something else than strings in it"
    return "an object" if isinstance(value, dict) else f"a value of type {type(value).__name__}"


def id_string(value: object) -> str | None:
    """Return an id as a string; None if it is wrong, and `id_fault` says why.

    >>> id_string(7), id_string("B01"), id_string(True), id_string("")
    ('7', 'B01', None, None)
    """
    if isinstance(value, str):
        valid = value and not has_surrogate(value)
        return str(value) if valid else None
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):  # too long to write out
            return str(int(value))
    return None


def id_fault(value: object) -> str:
    """Return why `value` cannot be an id, to follow the name of the field in a message."""
    if value is None:
        return "is null; expected a string or an integer."
    if isinstance(value, str) and not value:
        return "is empty; expected a string or an integer."
    if isinstance(value, str):
        return f"{quote(value)} holds a lone surrogate, which is not valid Unicode. Correct the id."
    if isinstance(value, int) and not isinstance(value, bool):
        return "is an integer too long to write out. Write it as a string."
    kind = str(value).lower() if isinstance(value, bool | float) else kind_of(value)
    return f"is {kind}; expected a string or an integer."


# ---- Times of interactions: finite numbers, or dates as microseconds since 1970.
# Numbers keep their unit, so they are never compared with dates: `interactions.py` refuses a log that holds both.


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AMAZON_DATE = re.compile(r"(\d\d?) (\d\d?), (\d{4})")  # 09 3, 2009
TWITTER_DATE = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d\d) (\d\d:\d\d:\d\d) ([+-]\d{4}) (\d{4})")
YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d\d?)[-/.](\d\d?)(?!\d)(.*)")  # 2020/1/31
DOTTED = re.compile(r"(\d\d?)\.(\d\d?)\.(\d{4})(?!\d)(.*)")  # 31.1.2020
CLOCK = re.compile(r"(?:, *| +|T)(\d\d?):(\d\d(?::\d\d(?:\.\d+)?)?)(?: ?([AP])M)?( ?[-+Z].*)?", re.IGNORECASE)
MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
MICROSECOND = timedelta(microseconds=1)
LARGEST_TIME = 1e300  # fits into float64; a larger number is no time


def as_number(value: object) -> int | float | None:
    """Return a time that is a finite number, or a string that spells one; None for any other value.

    >>> as_number("7"), as_number(2.5), as_number("soon"), as_number(True)
    (7, 2.5, None, None)
    """
    if isinstance(value, str):
        for parse in (int, float):
            with contextlib.suppress(ValueError):
                return as_number(parse(value))
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= LARGEST_TIME else None


def as_microseconds(value: object) -> int | None:
    """Return a time that is a date, or a string that spells one, in microseconds since 1970, UTC; None for any other.

    Strings are ISO dates; also with slashes or dots, without zeros, with AM or PM or UTC at the end, with dots and the
    year last (31.1.2020), or as Amazon's reviews and Twitter write them. Dates such as 01/02/2020 are none: the month
    could be either, see `ShortDates`.

    >>> as_microseconds("1970-01-02"), as_microseconds("1970-01-01T01:00+01:00"), as_microseconds("soon")
    (86400000000, 0, None)
    >>> [as_microseconds(text) for text in ("1970/01/02", "01 2, 1970", "1970-01-02 00:00:00 UTC")]
    [86400000000, 86400000000, 86400000000]
    >>> [as_microseconds(text) for text in ("1970-1-2", "2.1.1970 00:00", "1970/1/2 12:00 AM", "1/2/1970")]
    [86400000000, 86400000000, 86400000000, None]
    """
    if isinstance(value, str):
        value = _date_of(value.strip())
    if not isinstance(value, date):
        return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (moment - EPOCH) // MICROSECOND


def _date_of(text: str) -> datetime | None:
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text)
    if found := AMAZON_DATE.fullmatch(text):
        month, day, year = found.groups()
        text = f"{year}-{month:0>2}-{day:0>2}"
    elif found := TWITTER_DATE.fullmatch(text):
        month, day, clock, zone, year = found.groups()
        text = f"{year}-{MONTHS.find(month) // 3 + 1:02}-{day}T{clock}{zone}"
    else:
        text = text.removesuffix("UTC").removesuffix("GMT").rstrip()
        if found := YEAR_FIRST.fullmatch(text):
            year, month, day, clock = found.groups()
        elif found := DOTTED.fullmatch(text):
            day, month, year, clock = found.groups()
        else:
            return None
        text = f"{year}-{month:0>2}-{day:0>2}{_clock(clock)}"
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text)
    return None


def _clock(text: str) -> str:
    """Return a time of day behind a date as ISO has it.

    >>> _clock(" 8:26"), _clock(", 9:05:58 PM"), _clock("")
    ('T08:26', 'T21:05:58', '')
    """
    found = CLOCK.fullmatch(text)
    if found is None:
        return text
    hour, rest, half, zone = found.groups()
    if half and not 1 <= int(hour) <= 12:
        return text
    number = int(hour) if not half else int(hour) % 12 + 12 * (half.upper() == "P")
    return f"T{number:02}:{rest}{(zone or '').strip()}"
