"""Iterate over the live items of an artifact in blocks, for every streamed export.

Blocks are in the order of the artifact's table, so equal artifacts give equal files, and a catalog of any size needs
little memory. N items, L levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings

if TYPE_CHECKING:
    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["LiveItems", "live_blocks"]

BLOCK = 65536  # rows of the table per block


@dataclass(frozen=True, slots=True, eq=False)
class LiveItems:
    """n consecutive live items."""

    item_ids: list[str]
    codes: npt.NDArray[np.uint16]  # (n, L)
    generation: npt.NDArray[np.int32]  # (n,) - the change that added each item


def live_blocks(ids: SemanticIDTokenizer) -> Iterator[LiveItems]:
    """Yield all live items in blocks, which may be empty."""
    packed, ledger = ids.item_ids, ids.ledger
    live = ledger.live
    for start in range(0, len(ids), BLOCK):
        rows = slice(start, min(start + BLOCK, len(ids)))
        chosen = live[rows]
        offsets = packed.offsets[rows.start : rows.stop + 1]
        part = PackedStrings(packed.data[offsets[0] : offsets[-1]], offsets - offsets[0])
        yield LiveItems(
            list(compress(part, chosen.tolist())), ledger.codes[rows][chosen], ledger.generation[rows][chosen]
        )
