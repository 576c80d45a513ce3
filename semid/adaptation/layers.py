"""Layers on top of frozen vectors, learned from what a run has: behavior, attribute views, or both in turn.

N items, D dims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from semid.adaptation.adapter import Batch, Learned, learn_adapter
from semid.adaptation.attributes import AttributeViews
from semid.adaptation.behavior import Behavior
from semid.adaptation.config import AdaptConfig

__all__ = ["learn_layers"]

EPOCHS = 2  # of attribute views that an adapter learns from; each is embedded once

Floats = npt.NDArray[np.float32]


def learn_layers(
    frozen: Floats,
    config: AdaptConfig,
    *,
    behavior: Behavior | None = None,
    views: AttributeViews | None = None,
    embed: Callable[[list[str]], Floats] | None = None,
) -> Learned:
    """Learn layers on top of frozen vectors; every other batch is of views where both are learned.

    Parameters
    ----------
    frozen : float32 [N, D]
        Vectors of the items.
    config : AdaptConfig
        The settings.
    behavior : Behavior, optional
        What users met, and who judges.
    views : AttributeViews, optional
        Views of the items.
    embed : callable, optional
        Frozen vectors of N texts; needed with views.
    """
    if config.rat and behavior is not None:
        from semid.adaptation.rat import train_rat

        return train_rat(frozen, behavior, config)
    steps, size, _ = config.training()
    inputs, turns = [frozen], list[Iterator[Batch]]()
    if behavior is not None and "together" in config.learn:
        drawn = behavior.pairs.batches(size, steps, config.seed)
        turns.append(Batch(left, right, left, right) for left, right in drawn)
    if views is not None and embed is not None:
        rows = range(len(frozen))
        inputs += [embed(views.texts(rows, epoch=epoch, side=side)) for epoch in range(EPOCHS) for side in (0, 1)]
        turns.append(_of_views(views, len(frozen), size, steps))
    batches = (next(turns[step % len(turns)]) for step in range(steps))
    judge = None if behavior is None else behavior.judge(config.device)
    return learn_adapter(np.concatenate(inputs), batches, steps, config, catalog=frozen, judge=judge)


def _of_views(views: AttributeViews, n_items: int, size: int, steps: int) -> Iterator[Batch]:
    """Yield batches of two views of each item; views of epoch e lie behind the items' own rows, side by side."""
    for rows, epoch in views.batches(size, steps):
        first = (1 + 2 * (epoch % EPOCHS)) * n_items
        yield Batch(rows + first, rows + first + n_items, rows, rows)
