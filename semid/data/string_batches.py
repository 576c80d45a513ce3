"""String batches: clean many strings of a field at once, and count their kinds.

Most strings of a catalog are clean as they stand, and most are phrases, numbers or codes: that is seen from their
bytes, all strings together. Only the others go through `clean_text` and `kind_of_text`, so the result is the same.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.text_fields import IDENTIFIERS, LINK, NUMBERS, Tally, kind_of_text

__all__ = ["bytes_of", "count_kinds", "not_plain", "strings_of"]

BYTES = np.arange(256)
ODD = (BYTES < 0x20) | (BYTES >= 0x7F) | np.isin(BYTES, list(b"&<"))  # control characters, not ASCII, HTML
CELL = np.isin(BYTES, list(b"[{"))
LETTER = np.isin(BYTES | 0x20, range(ord("a"), ord("z") + 1)) & (BYTES < 0x80)
DIGIT = np.isin(BYTES, list(b"0123456789"))
PLAIN_NUMBER = r"^[0-9]+(\.[0-9]+)?$"
PLAIN_CODE = r"^[A-Za-z0-9]*([A-DF-Za-df-z][A-Za-z0-9]*[0-9]|[0-9][A-Za-z0-9]*[A-DF-Za-df-z])[A-Za-z0-9]*$"
LONGEST_CODE = 64


def strings_of(values: list[Any]) -> Any:
    """Return values as an Arrow array of strings, numbers written out; None if some are neither strings nor numbers.

    >>> strings_of(["a", None, ""]).to_pylist(), strings_of([1, 2.5, None]).to_pylist(), strings_of([True])
    (['a', '', ''], ['1', '2.5', ''], None)
    """
    import pyarrow

    types = set(map(type, values)) - {type(None)}
    if not types <= {str} and not types <= {int, float}:
        return None
    with contextlib.suppress(ValueError):  # an integer too long to write out; a lone surrogate
        if not types <= {str}:
            values = [
                "" if value is None or (type(value) is float and not math.isfinite(value)) else str(value)
                for value in values
            ]
        return pyarrow.array(values, pyarrow.string()).fill_null("")
    return None


def bytes_of(strings: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return the bytes of an Arrow array of strings without nulls, and where each begins and ends, from 0."""
    _, bounds, text = strings.buffers()
    ends = np.frombuffer(bounds, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    data = np.zeros(0, np.uint8) if text is None else np.frombuffer(text, np.uint8)[ends[0] : ends[-1]]
    return data, ends - ends[0]


def not_plain(strings: Any) -> npt.NDArray[np.int64]:
    """Return the rows, ascending, that `clean_text` may change or that may be lists or objects: int64 [R].

    >>> import pyarrow
    >>> not_plain(pyarrow.array(["kohl", "", "a  b", " a", "a&b", "é", "[1]", "two words"])).tolist()
    [2, 3, 4, 5, 6]
    """
    data, ends = bytes_of(strings)
    if not len(data):
        return np.zeros(0, np.int64)
    odd = ODD[data]
    blank = data == ord(" ")
    odd[:-1] |= blank[:-1] & blank[1:]
    odd[:-1] |= (data[:-1] == ord("=")) & (data[1:] == ord('"'))  # perhaps a piece of a tag
    found = np.zeros(len(strings), np.bool_)
    found[np.searchsorted(ends, np.flatnonzero(odd), side="right") - 1] = True
    filled = np.flatnonzero(np.diff(ends))
    first, last = ends[filled], ends[filled + 1] - 1
    found[filled] |= blank[first] | blank[last] | CELL[data[first]]
    return np.flatnonzero(found)


def count_kinds(tally: Tally, strings: Any) -> None:
    """Count clean ASCII strings as `Tally.add` does one by one.

    >>> import pyarrow
    >>> tally = Tally()
    >>> count_kinds(tally, pyarrow.array(["red kohl", "", "9.99", "B004756YJA", "kohl", "N/A"]))
    >>> tally.n_phrases, sorted(tally.kinds.items())
    (1, [('empty', 1), ('identifiers', 1), ('numbers', 1), ('words', 1)])
    """
    import pyarrow
    import pyarrow.compute as pc

    strings = strings.filter(pc.not_equal(strings, ""))
    if not len(strings):
        return
    if tally.same:
        tally.first = tally.first or strings[0].as_py()
        tally.same = bool(pc.all(pc.equal(strings, tally.first)).as_py())
    data, ends = bytes_of(strings)
    phrases = LETTER[data[ends[:-1]]] & ~DIGIT[data[ends[1:] - 1]]
    phrases &= np.asarray(pc.find_substring(strings, " ")) >= 0
    for link in LINK:
        phrases &= ~pc.starts_with(strings, link).to_numpy(zero_copy_only=False)
    tally.n_phrases += int(phrases.sum())
    rest = strings.filter(pyarrow.array(~phrases))
    for pattern, kind in ((PLAIN_NUMBER, NUMBERS), (PLAIN_CODE, IDENTIFIERS)):
        if not len(rest):
            return
        fits = pc.match_substring_regex(rest, pattern)
        fits = pc.and_(fits, pc.less_equal(pc.binary_length(rest), LONGEST_CODE))
        tally.kinds += Counter({kind: pc.sum(fits).as_py() or 0})  # keeps no zeros
        rest = rest.filter(pc.invert(fits))
    for counted in rest.value_counts().to_pylist():
        tally.kinds[kind_of_text(counted["values"])] += counted["counts"]
