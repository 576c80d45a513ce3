"""PackedStrings: a list of strings as two arrays, which can be memory-mapped files.

`data` holds all strings in UTF-8, end to end; string i is `data[offsets[i]:offsets[i + 1]]`. Strings are decoded on
access, so opening ten million item ids takes no time, and they take a fraction of the memory of Python strings.
`StringPacker` builds one, string by string. `StringChain` reads several as one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt

from semid.runtime.arrays import WORD, byte_order

__all__ = ["PackedStrings", "StringChain", "StringPacker"]


BLOCK = 4096  # strings decoded, copied or compared at once
SHOWN = 6  # strings in a repr


class PackedStrings(Sequence[str]):
    """A read-only sequence of strings over two arrays, equal to any list of the same strings.

    Parameters
    ----------
    data : uint8 [bytes]
        All strings in UTF-8, end to end.
    offsets : int64 [N + 1]
        String i is `data[offsets[i]:offsets[i + 1]]`.

    >>> names = PackedStrings.pack(["nail polish", "", "crème"])
    >>> names[2], len(names), names.offsets.tolist()
    ('crème', 3, [0, 11, 11, 17])
    >>> names
    PackedStrings(['nail polish', '', 'crème'])
    """

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self.data = data
        self.offsets = offsets

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack strings; the inverse of `list(packed)`. UnicodeEncodeError for a lone surrogate."""
        packer = StringPacker()
        for string in strings:
            packer.append(string)
        return packer.finish()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...

    @overload
    def __getitem__(self, i: slice) -> list[str]: ...

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            start, stop, step = i.indices(len(self))
            return self._decoded(start, stop) if step == 1 else [self[j] for j in range(start, stop, step)]
        i = range(len(self))[i]  # handles negative numbers; IndexError past the end
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self._decoded(start, min(len(self), start + BLOCK))

    def _decoded(self, start: int, stop: int) -> list[str]:
        if stop <= start:
            return []
        offsets = self.offsets[start : stop + 1]
        bounds = (offsets - offsets[0]).tolist()
        raw = self.data[offsets[0] : offsets[-1]].tobytes()
        if raw.isascii():  # a character is a byte: decode once, then cut
            text = raw.decode("ascii")
            return [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
        return [raw[a:b].decode("utf-8") for a, b in zip(bounds, bounds[1:], strict=False)]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedStrings):
            return np.array_equal(self._ends(), other._ends()) and np.array_equal(self._bytes(), other._bytes())
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def _ends(self) -> npt.NDArray[np.int64]:
        ends: npt.NDArray[np.int64] = self.offsets[1:] - self.offsets[0]
        return ends

    def _bytes(self) -> npt.NDArray[np.uint8]:
        return self.data[self.offsets[0] : self.offsets[-1]]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:SHOWN])) + (f", and {len(self) - SHOWN:,} more" if len(self) > SHOWN else "")
        return f"PackedStrings([{shown}])"

    def take(self, rows: npt.NDArray[np.integer]) -> PackedStrings:
        """Return the strings of some rows, in that order."""
        rows = np.asarray(rows, np.int64)
        starts, ends = self.offsets[:-1][rows], self.offsets[1:][rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        data, source = np.empty(offsets[-1], np.uint8), self.data.data
        for first in range(0, len(rows), BLOCK):
            part = slice(first, first + BLOCK)
            bounds = zip(starts[part].tolist(), ends[part].tolist(), strict=True)
            piece = b"".join([source[a:b] for a, b in bounds])
            data[offsets[first] : offsets[first] + len(piece)] = np.frombuffer(piece, np.uint8)
        return PackedStrings(data, offsets)

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """Rows sorted by the UTF-8 bytes of their strings, equal ones in their order: int64 [N].

        >>> PackedStrings.pack(["b", "é", "ab", "a"]).order.tolist()
        [3, 2, 0, 1]
        """
        return self._order_and_repeats[0]

    def repeats(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows whose string an earlier row has, ascending, and the first row of each: two int64 [R].

        >>> [rows.tolist() for rows in PackedStrings.pack(["b", "a", "b", "b"]).repeats()]
        [[2, 3], [0, 0]]
        """
        order, again = self._order_and_repeats
        begins = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
        rows, firsts = order[again], order[begins[again]]
        by_row = np.argsort(rows)
        return rows[by_row], firsts[by_row]

    @cached_property
    def _order_and_repeats(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        return byte_order(np.diff(self.offsets), self._words)

    def _words(self, rows: npt.NDArray[np.int64], place: int) -> npt.NDArray[np.uint64]:
        words = np.zeros((len(rows), WORD), np.uint8)
        for first in range(0, len(rows), BLOCK):
            here = rows[first : first + BLOCK]
            starts, ends = self.offsets[:-1][here] + place, self.offsets[1:][here]
            places = starts[:, None] + np.arange(WORD)
            inside = places < ends[:, None]
            words[first : first + BLOCK][inside] = self.data[places[inside]]
        return words.view(">u8").astype(np.uint64)[:, 0]


class StringPacker:
    """Builds a PackedStrings, string by string.

    >>> packer = StringPacker()
    >>> packer.append("kohl")
    >>> packer.pad(2)
    >>> packer.finish()
    PackedStrings(['kohl', ''])
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def n_bytes(self) -> int:
        """Number of bytes of all strings so far."""
        return len(self._data)

    def append(self, string: str) -> None:
        """Add one string; UnicodeEncodeError for a lone surrogate."""
        self._data += string.encode("utf-8")
        self._ends.append(len(self._data))

    def extend(self, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.integer]) -> None:
        """Add strings: string i is `data[ends[i]:ends[i + 1]]` in UTF-8; `ends` begins with 0."""
        self._ends.frombytes((ends[1:].astype(np.int64) + len(self._data)).tobytes())
        self._data += data.data

    def pad(self, length: int) -> None:
        """Add empty strings until there are `length`."""
        if length > len(self):
            self._ends.extend([len(self._data)] * (length - len(self)))

    def finish(self) -> PackedStrings:
        """Return all strings. Nothing may be added afterwards."""
        return PackedStrings(np.frombuffer(self._data, np.uint8), np.frombuffer(self._ends, np.int64))


# ---- StringChain: several tables of strings read as one, with single strings replaced. Nothing is copied.
# A catalog grows by small pieces, each in its own file; joining them at every start would read all of them.


class StringChain(Sequence[str]):
    """A read-only sequence of the strings of several tables, one after the other.

    Parameters
    ----------
    parts : sequence of PackedStrings
        The tables.
    replaced : dict of int -> str, optional
        Place -> the string to read there instead.

    >>> chain = StringChain([PackedStrings.pack(["kohl", "polish"]), PackedStrings.pack(["soap"])], {1: "nail polish"})
    >>> list(chain), chain[-1], len(chain), chain.offsets.tolist()
    (['kohl', 'nail polish', 'soap'], 'soap', 3, [0, 4, 15, 19])
    """

    def __init__(self, parts: Sequence[PackedStrings], replaced: Mapping[int, str] | None = None) -> None:
        self.parts = list(parts)
        self.replaced = dict(replaced or {})
        self._starts = np.cumsum([0, *map(len, self.parts)]).tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, i: int) -> str: ...

    @overload
    def __getitem__(self, i: slice) -> list[str]: ...

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]  # negative numbers, and IndexError past the end
        if i in self.replaced:
            return self.replaced[i]
        part = bisect_right(self._starts, i) - 1  # skips empty parts that start at i
        return self.parts[part][i - int(self._starts[part])]

    def __iter__(self) -> Iterator[str]:
        i = 0
        for part in self.parts:
            for string in part:
                yield self.replaced.get(i, string)
                i += 1

    def take(self, rows: npt.NDArray[np.integer]) -> PackedStrings:
        """Return the strings of some rows, in that order, as one table."""
        return PackedStrings.pack(self[int(row)] for row in rows)

    @cached_property
    def packed(self) -> PackedStrings:
        """All strings as one table, made at first use."""
        if self.replaced:
            return PackedStrings.pack(self)
        return joined(self.parts)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The `data` of `packed`: uint8 [bytes]."""
        return self.packed.data

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """The `offsets` of `packed`: int64 [N + 1]."""
        return self.packed.offsets


def joined(parts: Sequence[PackedStrings]) -> PackedStrings:
    """Return one table of all strings of several, in order, whose offsets start at 0."""
    if len(parts) == 1 and parts[0].offsets[0] == 0 and parts[0].offsets[-1] == len(parts[0].data):
        return parts[0]
    pieces = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
    ends = np.cumsum([0, *map(len, pieces)])
    offsets = [part.offsets[1:] - part.offsets[0] + end for part, end in zip(parts, ends, strict=False)]
    return PackedStrings(np.concatenate(pieces), np.concatenate([np.zeros(1, np.int64), *offsets]))
