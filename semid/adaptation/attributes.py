"""Attribute views: the text of an item from some of its attributes, for supervised contrastive fine-tuning (SCFT).

Two views of one item should be near each other, so the model learns which items are alike whatever their sellers wrote.
A view lists the attributes that it keeps in a new order, in the form of `Items.texts`, which is what is encoded later.
LLMEmb (arXiv 2409.19925) draws two views of each item once and keeps them for the whole run; here they are drawn anew
for each epoch unless `frozen`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from semid.data.items import Items
from semid.errors import InputError
from semid.runtime.keyed_random import chance

__all__ = ["AttributeViews"]


@dataclass(frozen=True, eq=False)
class AttributeViews:
    """The views of a catalog's items.

    A view depends on the seed, the item's id, the epoch and the side, and on nothing else: not on the order of the
    items, and not on what was drawn before.

    Parameters
    ----------
    items : Items
        The catalog; its text fields are the attributes.
    dropout : float
        Chance of each attribute to be left out; one attribute always stays.
    seed : int
        Of the draws.
    frozen : bool
        As published: the same views in every epoch, each without exactly `int(n * dropout)` of n attributes.

    Raises
    ------
    InputError
        The catalog has one text field, or no item has text in two of them.

    >>> items = Items(["a"], {"title": ["red polish"], "brand": ["OPI"], "category": ["nails"]})
    >>> views = AttributeViews(items)
    >>> [views.texts([0], epoch=epoch, side=side) for epoch in (0, 1) for side in (0, 1)]
    [['OPI. nails'], ['OPI'], ['nails. OPI'], ['nails']]
    """

    items: Items
    dropout: float = 0.4
    seed: int = 0
    frozen: bool = False

    def __post_init__(self) -> None:
        names = list(self.items.fields)
        if len(names) < 2:
            found = f"one text field ({names[0]})" if names else "no text field"
            raise InputError(
                f"{self.items.source}: {found} gives no two views of an item. "
                "Name more fields with --text, or use --learn together."
            )
        if not len(self.rows()):
            raise InputError(
                f"{self.items.source}: no item has text in two of {', '.join(names)}, so there are no two views of an "
                "item. Name other fields with --text, or use --learn together."
            )

    def rows(self) -> npt.NDArray[np.int64]:
        """Return the rows of the items with text in at least two fields, int64 [n]; others have one view only."""
        filled = sum(np.array([bool(value) for value in column], np.int64) for column in self.items.fields.values())
        return np.flatnonzero(np.asarray(filled) >= 2)

    def texts(self, rows: Sequence[int] | npt.NDArray[np.integer], *, epoch: int, side: int) -> list[str]:
        """Return one view of each item at some rows.

        Parameters
        ----------
        rows : sequence of n ints
            Rows of the catalog.
        epoch : int
            Number of the pass over the catalog, from 0.
        side : int
            0 or 1: which view of a pair.
        """
        kept = [self._kept(int(row), epoch, side) for row in rows]
        columns = zip_longest(*kept, fillvalue="")
        return list(Items([""] * len(kept), {str(n): column for n, column in enumerate(columns)}).texts())

    def _kept(self, row: int, epoch: int, side: int) -> list[str]:
        """Return the attributes of one view, in its order; none for an item without text."""
        values = [column[row] for column in self.items.fields.values() if column[row]]
        draw = chance(self.seed, "view", self.items.ids[row], 0 if self.frozen else epoch, side)
        draw.shuffle(values)
        if self.frozen:
            return values[: max(1, len(values) - int(len(values) * self.dropout))]
        return [value for value in values if draw.random() >= self.dropout] or values[:1]

    def batches(self, size: int, steps: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """Yield the rows of `steps` batches, int64 [n], and their epoch; n is `size`, or all items if they are fewer.

        Each epoch takes every item of `rows` once, in a new order; those that fill no batch are left out of it.
        """
        rows, epoch = self.rows(), 0
        size = min(size, len(rows))
        done = 0
        while done < steps:
            order = np.random.default_rng([self.seed, 2, epoch]).permutation(rows)
            for start in range(0, len(rows) - size + 1, size):
                if done < steps:
                    yield order[start : start + size], epoch
                    done += 1
            epoch += 1
