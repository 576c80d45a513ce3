"""StringChain: several tables of strings read as one, with single strings replaced; nothing is copied to make it.

A catalogue grows by small pieces, each in a file of its own; joining them at every start would read all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from semid.strings import PackedStrings

__all__ = ["StringChain"]


class StringChain(Sequence[str]):
    """A read-only sequence of strings over tables that follow each other.

    Parameters
    ----------
    parts : sequence of PackedStrings
    replaced : mapping of int to str
        Place -> the string that stands there instead.

    >>> chain = StringChain([PackedStrings.pack(["kohl", "polish"]), PackedStrings.pack(["soap"])], {1: "nail polish"})
    >>> list(chain), chain[-1], len(chain), chain.offsets.tolist()
    (['kohl', 'nail polish', 'soap'], 'soap', 3, [0, 4, 15, 19])
    """

    def __init__(self, parts: Sequence[PackedStrings], replaced: Mapping[int, str] | None = None) -> None:
        self.parts = list(parts)
        self.replaced = dict(replaced or {})
        self._starts = np.cumsum([0, *map(len, self.parts)]).tolist()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]  # negative numbers, and IndexError past the end
        if i in self.replaced:
            return self.replaced[i]
        part = bisect_right(self._starts, i) - 1  # of empty parts that start at i, past them
        return self.parts[part][i - self._starts[part]]

    def __iter__(self) -> Iterator[str]:
        i = 0
        for part in self.parts:
            for string in part:
                yield self.replaced.get(i, string)
                i += 1

    def take(self, rows: npt.NDArray[np.integer]) -> PackedStrings:
        """The strings of `rows`, in that order, as one table."""
        return PackedStrings.pack(self[int(row)] for row in rows)

    @cached_property
    def packed(self) -> PackedStrings:
        """All of it as one table, made when first asked for."""
        if self.replaced:
            return PackedStrings.pack(self)
        return joined(self.parts)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """uint8 [bytes] of `packed`."""
        return self.packed.data

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 [N + 1] of `packed`."""
        return self.packed.offsets


def joined(parts: Sequence[PackedStrings]) -> PackedStrings:
    """One table of all strings of several, in order, its bytes from 0 on."""
    if len(parts) == 1 and parts[0].offsets[0] == 0 and parts[0].offsets[-1] == len(parts[0].data):
        return parts[0]
    pieces = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
    ends = np.cumsum([0, *map(len, pieces)])
    offsets = [part.offsets[1:] - part.offsets[0] + end for part, end in zip(parts, ends, strict=False)]
    return PackedStrings(np.concatenate(pieces), np.concatenate([np.zeros(1, np.int64), *offsets]))
