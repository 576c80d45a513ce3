"""Batches of pairs of texts, all drawn before a language model learns from them: step n has the same pairs in any run.

A pair is two items that users met near each other, or two attribute views of one item; where both are learned, every
other batch is of views. In a batch no text is on two sides of different pairs, as it would be its own negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from semid.adaptation.attributes import AttributeViews
from semid.adaptation.pairs import Pairs, first_uses
from semid.errors import ConfigError

__all__ = ["TextPairs"]

TOGETHER = -1  # instead of an epoch: the pair is of two items, not of two views

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TextPairs:
    """The pairs of all batches, n in all; it turns rows of a batch into texts when the batch is needed.

    Parameters
    ----------
    texts : sequence of N strings
        The text of each item.
    views : AttributeViews or None
        Views of the items.
    left, right : int64 [n]
        Rows of the catalog.
    epochs : int64 [n]
        Epoch of the two views of the item; -1 for a pair of two items.
    ends : int64 [steps]
        The pairs of batch b are those from `ends[b - 1]` to `ends[b]`.
    """

    texts: Sequence[str]
    views: AttributeViews | None
    left: Ints
    right: Ints
    epochs: Ints
    ends: Ints

    @classmethod
    def drawn(
        cls,
        texts: Sequence[str],
        size: int,
        steps: int,
        seed: int,
        *,
        pairs: Pairs | None = None,
        views: AttributeViews | None = None,
    ) -> TextPairs:
        """Draw the batches.

        Parameters
        ----------
        texts : sequence of N strings
            The text of each item.
        size : int
            Pairs in a batch; fewer where the catalog does not have that many that fit together.
        steps : int
            How many batches.
        seed : int
            Of the draws.
        pairs, views
            What is learned; at least one.

        >>> from semid.adaptation.pairs import pairs_of_histories
        >>> from semid.data.interactions import Histories
        >>> met = pairs_of_histories(Histories(np.array([0, 2, 4]), np.array([0, 1, 2, 3]), 0), 4)
        >>> drawn = TextPairs.drawn(["a", "b", "c", "d"], 2, 3, seed=0, pairs=met)
        >>> len(drawn), sorted(drawn.left.tolist()[:2] + drawn.right.tolist()[:2]), drawn.epochs.tolist()
        (3, [0, 1, 2, 3], [-1, -1, -1, -1, -1, -1])
        """
        of_items = 0 if pairs is None else steps if views is None else (steps + 1) // 2
        turns: list[Iterator[tuple[Ints, Ints, int]]] = []
        if pairs is not None:
            turns.append(_of_items(pairs, texts, size, of_items, seed))
        if views is not None:
            turns.append((rows, rows, epoch) for rows, epoch in views.batches(size, steps - of_items))
        batches = [batch for turn in zip_longest(*turns) for batch in turn if batch is not None]
        left, right = (np.concatenate([batch[side] for batch in batches]) for side in (0, 1))
        lengths = [len(rows) for rows, _, _ in batches]
        return cls(
            texts, views, left, right, np.repeat([epoch for _, _, epoch in batches], lengths), np.cumsum(lengths)
        )

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.ends)

    def shares(self, n_processes: int) -> list[range]:
        """Return which pairs each process takes in each step: its numbers, step by step, process by process.

        The shares of a step have one length, so a batch may lose a few pairs.

        Raises
        ------
        ConfigError
            A batch has fewer pairs than there are processes.

        >>> TextPairs([], None, *[np.zeros(7, int)] * 3, np.array([3, 7])).shares(2)
        [range(0, 1), range(1, 2), range(3, 5), range(5, 7)]
        """
        shares = []
        for start, end in zip([0, *self.ends[:-1].tolist()], self.ends.tolist(), strict=True):
            length = (end - start) // n_processes
            if not length:
                raise ConfigError(
                    f"a batch of {end - start} pairs cannot be shared by {n_processes} processes. Use fewer processes."
                )
            starts = (start + length * number for number in range(n_processes))
            shares += [range(first, first + length) for first in starts]
        return shares

    def __call__(self, rows: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
        """Return the texts of pairs of one batch, given by their numbers: the transform of a `datasets.Dataset`."""
        numbers = np.asarray(rows["pair"])
        left, right, epoch = self.left[numbers], self.right[numbers], int(self.epochs[numbers[0]])
        if epoch == TOGETHER or self.views is None:
            sides = ([self.texts[row] for row in side.tolist()] for side in (left, right))
        else:
            sides = (self.views.texts(left, epoch=epoch, side=side) for side in (0, 1))
        return dict(zip(("anchor", "positive"), sides, strict=True))


def _of_items(pairs: Pairs, texts: Sequence[str], size: int, steps: int, seed: int) -> Iterator[tuple[Ints, Ints, int]]:
    """Yield batches of pairs of items whose texts are all different."""
    numbers = {text: number for number, text in enumerate(texts)}
    same = np.array([numbers[text] for text in texts], np.int64)
    for left, right in pairs.batches(size, steps, seed):
        kept = first_uses(same[left], same[right], size)
        yield left[kept], right[kept], TOGETHER
