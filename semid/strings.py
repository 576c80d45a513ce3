"""PackedStrings: a list of strings as two arrays, so that it can live in a memory-mapped file.

`data` is all strings in UTF-8, end to end; `offsets[i]:offsets[i + 1]` is string i. Nothing is decoded until
it is asked for, so ten million item ids open at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["PackedStrings"]


class PackedStrings(Sequence[str]):
    """A read-only sequence of strings over two arrays.

    Parameters
    ----------
    data : uint8 [bytes]
        All strings in UTF-8, end to end.
    offsets : int64 [N + 1]
        String i is `data[offsets[i]:offsets[i + 1]]`.

    >>> names = PackedStrings.pack(["nail polish", "", "crème"])
    >>> names[2], len(names), names.offsets.tolist()
    ('crème', 3, [0, 11, 11, 17])
    """

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self.data = data
        self.offsets = offsets

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack any strings; the inverse of `list(packed)`."""
        encoded = [string.encode("utf-8") for string in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(piece) for piece in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]  # negative numbers, and IndexError past the end
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        for start, end in zip(offsets, offsets[1:], strict=False):
            yield data[start:end].decode("utf-8")

    def take(self, rows: npt.NDArray[np.integer]) -> PackedStrings:
        """The strings of `rows`, in that order, as a new PackedStrings."""
        return PackedStrings.pack(self[int(row)] for row in rows)
