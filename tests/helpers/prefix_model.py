"""A catalog as a set of tuples: what tries are tested against, and catalogs to test them with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from semid.trie import Trie

__all__ = ["Model", "catalogs", "prefixes"]

Codes = tuple[int, ...]


class Model:
    """The oracle: items are tuples, and every question is answered by looking at all of them."""

    def __init__(self, items: list[Codes], sizes: list[int]) -> None:
        self.items = items  # row i is item i
        self.sizes = tuple(sizes)
        self.ranked = sorted(items)
        self.prefixes = {item[:depth] for item in items for depth in range(len(sizes) + 1)}

    @property
    def codes(self) -> npt.NDArray[np.int64]:
        return np.array(self.items, np.int64).reshape(-1, len(self.sizes))

    def trie(self, base: int | None = None) -> Trie:
        return Trie.from_codes(self.codes, self.sizes, base=base)

    def children(self, prefix: Codes) -> list[int]:
        return sorted({item[len(prefix)] for item in self.items if item[: len(prefix)] == prefix != item})

    def ranks(self, prefix: Codes) -> list[int]:
        return [rank for rank, item in enumerate(self.ranked) if item[: len(prefix)] == prefix]

    def matched(self, codes: Codes) -> int:
        return max(depth for depth in range(len(codes) + 1) if codes[:depth] in self.prefixes)


@st.composite
def catalogs(draw: st.DrawFn, max_items: int = 40) -> Model:
    """One item to all ∏K; one to eight levels; K from 1 to 60,000; prefixes shared by many."""
    kind = draw(st.sampled_from(["any", "any", "long", "wide", "full", "skew"]))
    if kind == "wide":
        sizes = draw(st.lists(st.sampled_from([1, 255, 256, 257, 1000, 60_000, 65_536]), min_size=1, max_size=4))
    elif kind == "long":
        sizes = draw(st.lists(st.integers(1, 3), min_size=8, max_size=8))
    else:
        sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4 if kind == "any" else 3))
    if kind == "full":
        items = list(np.ndindex(*sizes))
        return Model(draw(st.permutations(items)), sizes)
    columns = [st.integers(0, size - 1) for size in sizes]
    if kind == "skew":  # nearly all share their first codes
        columns = [st.sampled_from([0] * 9 + [size - 1]) for size in sizes[:-1]] + columns[-1:]
    most = min(max_items, math.prod(sizes))
    items = draw(st.lists(st.tuples(*columns), min_size=1, max_size=most, unique=True))
    return Model(items, sizes)


def prefixes(model: Model, depth: int) -> st.SearchStrategy[Codes]:
    """Codes of some depth: true prefixes, those with one code changed, and any, out of range too."""
    true = st.sampled_from(sorted(prefix for prefix in model.prefixes if len(prefix) == depth))
    code = st.integers(-2, max(model.sizes) + 1)
    changed = st.tuples(true, st.integers(0, max(depth - 1, 0)), code).map(
        lambda drawn: (*drawn[0][: drawn[1]], drawn[2], *drawn[0][drawn[1] + 1 :])[:depth]
    )
    return true | changed | st.tuples(*[code] * depth)
