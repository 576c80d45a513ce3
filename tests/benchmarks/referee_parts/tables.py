"""Tables of IDs: which codes each item of a catalog has, wherever they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data import read_index
from semid.ledger import Ledger
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens import Vocabulary

RANDOM_SHAPE = "3x256"


@dataclass(frozen=True)
class IDTable:
    """The IDs of N items. Several items may share one. Also a source of tokens for `extend`, without vectors."""

    codes: npt.NDArray[np.int64]  # (N, L)
    sizes: tuple[int, ...]  # K of each level

    kind = "items"
    ledger: Ledger | None = None
    level_vectors = None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.sizes, begin="", end="")

    @cached_property
    def distinct(self) -> npt.NDArray[np.int64]:
        """The IDs without repetition, [G, L]."""
        return np.unique(self.codes, axis=0)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.sizes}".encode() + self.codes.astype("<i8").tobytes()).hexdigest()

    def shuffled(self) -> IDTable:
        """Return the same IDs, dealt to the items at random: what is left is the shape of the table."""
        return replace(self, codes=np.random.default_rng(0).permutation(self.codes))


def random_table(n_items: int, shape: str = RANDOM_SHAPE) -> IDTable:
    """Return unique IDs drawn at random, such as "4x256"."""
    levels, size = map(int, shape.split("x"))
    if n_items > size**levels:
        raise SystemExit(f"random:{shape} has {size**levels:,} IDs, for {n_items:,} items. Give it more codes.")
    numbers = np.random.default_rng(0).choice(size**levels, n_items, replace=False)
    return IDTable(np.stack(np.unravel_index(numbers, (size,) * levels), axis=1), (size,) * levels)


def read_table(source: str, item_ids: list[str]) -> IDTable:
    """Read a table.

    source : an artifact's folder; an index file; "items"; "random" or "random:LxK"; "shuffled:" before another source.
    item_ids : the catalog, which decides the order. Other items of the source are left out.

    Where IDs differ in length, one more code of a level says that the ID has ended.
    """
    kind, _, rest = source.partition(":")
    if kind == "shuffled":
        return read_table(rest, item_ids).shuffled()
    if source == "items":
        return IDTable(np.arange(len(item_ids))[:, None], (len(item_ids),))
    if kind == "random":
        return random_table(len(item_ids), rest or RANDOM_SHAPE)
    written: npt.NDArray[np.integer]
    if Path(source).is_dir():
        ids = SemanticIDTokenizer.from_pretrained(source)
        written, sizes, rows = np.asarray(ids.ledger.codes), list(ids.sizes), ids.ledger.find_rows(item_ids)
    else:
        index = read_index(source)
        written, sizes, rows = index.codes, index.sizes, index.rows(item_ids)
    missing = [item_ids[row] for row in np.flatnonzero(rows < 0).tolist()]
    if missing:
        raise SystemExit(f"{source}: lacks {len(missing):,} of the catalog's {len(item_ids):,} items: {missing[:5]}")
    codes = written[rows].astype(np.int64)
    short = codes.min(axis=0) < 0
    return IDTable(codes + short, tuple(size + int(one) for size, one in zip(sizes, short.tolist(), strict=True)))
