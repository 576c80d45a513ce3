"""Negatives: items that a user never met, to be told from items that they did.

    popularity    drawn as often as users met them in training
    uniform       every live item alike
    same-prefix   items that share the first codes with the right one, so that only the last codes differ

A negative is never an item that the user met in any part of the split: a held-out one would be a wrong negative and
would leak. Popularity is counted in training interactions alone.
"""

from __future__ import annotations

from collections.abc import Set
from random import Random

import numpy as np
import numpy.typing as npt

from semid.assign.keys import run_starts
from semid.ledger.lookup import code_keys
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.alignment.config import Negative

__all__ = ["Negatives"]

TRIES = 50  # random draws before all free items are listed


class Negatives:
    """Draws negatives from one catalog.

    Parameters
    ----------
    ids : SemanticIDTokenizer
        The artifact.
    train_rows : int64 [n]
        The row of each training interaction.
    kind : {"popularity", "uniform", "same-prefix"}
        How to draw.
    """

    def __init__(self, ids: SemanticIDTokenizer, train_rows: npt.NDArray[np.int64], kind: Negative) -> None:
        ledger = ids.ledger
        order = ledger.code_order
        self.ordered = order[ledger.live[order]]  # live rows by their codes: those that share codes are neighbors
        self.rows = train_rows if kind == "popularity" and len(train_rows) else self.ordered
        self.same_prefix = kind == "same-prefix"
        if self.same_prefix:
            self.place = np.zeros(len(ledger), np.int64)  # of each row in `ordered`
            self.place[self.ordered] = np.arange(len(self.ordered))
            codes = ledger.codes[self.ordered]
            self.runs = [run_starts(code_keys(codes[:, :depth])) for depth in range(1, ids.vocabulary.n_levels)]

    def draw(self, chance: Random, right: int, met: Set[int], count: int) -> list[int]:
        """Return up to `count` different rows that are not in `met`; fewer only if the catalog has no more.

        Parameters
        ----------
        chance : random.Random
            The draws.
        right : int
            Row of the right item, for prefixes.
        met : set of int
            Rows of all items that the user met.
        count : int
            How many to draw.
        """
        found: list[int] = []
        taken = set(met)
        while len(found) < count:
            row = self._draw_one(chance, right, taken)
            if row is None:
                break
            found.append(row)
            taken.add(row)
        return found

    def _draw_one(self, chance: Random, right: int, taken: Set[int]) -> int | None:
        if self.same_prefix:
            for depth in range(chance.randint(1, max(1, len(self.runs))), 0, -1):
                start, stop = self._run(right, depth)
                row = _pick(chance, self.ordered, start, stop, taken)
                if row is not None:
                    return row
        row = _pick(chance, self.rows, 0, len(self.rows), taken)
        return row if row is not None else _pick(chance, self.ordered, 0, len(self.ordered), taken)

    def _run(self, row: int, depth: int) -> tuple[int, int]:
        """Return the places in `ordered` of the items that share the first `depth` codes with a row."""
        if depth > len(self.runs):
            return 0, 0
        runs = self.runs[depth - 1]
        at = int(np.searchsorted(runs, self.place[row], side="right"))
        return int(runs[at - 1]), int(runs[at])


def _pick(chance: Random, rows: npt.NDArray[np.integer], start: int, stop: int, taken: Set[int]) -> int | None:
    """Draw one of `rows[start:stop]` that is not taken; None if all are."""
    if start >= stop:
        return None
    if stop - start > TRIES:
        for _ in range(TRIES):
            row = int(rows[chance.randrange(start, stop)])
            if row not in taken:
                return row
    free = sorted(set(rows[start:stop].tolist()) - taken)
    return free[chance.randrange(len(free))] if free else None
