"""What is known of behavior: pairs to learn from, and next items that nothing is learned from.

    all interactions
      held out by the split        -> the report: the first of them after each user's training interactions
      training interactions
        the last one of some users -> the judges, who choose the best step
        all others                 -> pairs, popularity

Where the split holds out nothing, the judges' next items are reported. N items, U users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.adaptation.config import AdaptConfig
from semid.adaptation.pairs import Pairs, pairs_of_histories
from semid.adaptation.report import NextItems
from semid.data.interactions import Histories, Interactions
from semid.data.items import Items
from semid.data.splits import held_out_interactions, training_interactions
from semid.data.unknown_items import check_known_items
from semid.errors import InputError
from semid.runtime.checks import plural
from semid.runtime.progress import log_step

__all__ = ["Behavior"]

FEWEST_PAIRS = 1000
SHARE, FEWEST, MOST = 0.1, 1000, 2000  # users who judge: this share, but at least and at most so many
REPORTED = 5000  # users of the report
ENOUGH = 3  # training interactions of a user who judges: two to go by, and the next item


@dataclass(frozen=True, eq=False)
class Behavior:
    """Interactions with the items of a catalog, for learning, for judging and for the report.

    Parameters
    ----------
    learned : Histories
        What is learned from.
    pairs : Pairs
        Items met near each other there.
    judges, reported : NextItems
        Next items that choose the best step, and those of the report.
    counts : dict of str to int
        How many there are of what.
    """

    learned: Histories
    pairs: Pairs
    judges: NextItems
    reported: NextItems
    counts: dict[str, int]

    @classmethod
    def of(cls, log: Interactions, items: Items, config: AdaptConfig) -> Behavior:
        """Return what interactions tell about a catalog.

        Raises
        ------
        InputError
            No interaction with an item of the catalog, or too few pairs to learn `together` from.
        """
        ids = items.ids
        training = training_interactions(log, config.split)
        check_known_items(log, ids)
        known = training.map_to(ids)
        if not (known.rows >= 0).any():
            raise InputError(
                f"{log.source}: split={config.split} leaves no training interaction with an item of the catalog. "
                "Use --split all, unless the vectors will be tested on these interactions."
            )
        judging = _judging(known, config.seed)
        learned, asked = training.where(~judging), training.where(judging)
        histories = learned.map_to(ids)
        pairs = pairs_of_histories(histories, len(items))
        if "together" in config.learn and len(pairs) < FEWEST_PAIRS:
            raise InputError(
                f"{log.source}: {plural(len(pairs), 'pair')} of items met near each other in training interactions, "
                f"too few to learn from; {FEWEST_PAIRS:,} are needed. Use --learn attributes, which needs none."
            )
        met = np.bincount(histories.rows[histories.rows >= 0], minlength=len(items))
        judges = NextItems.of(histories, asked.map_to(ids), met, most=MOST, seed=config.seed)
        validation = held_out_interactions(training_interactions(log, config.split, include_valid=True), training)
        after = validation if len(validation.items) else asked
        before = known if len(validation.items) else histories
        reported = NextItems.of(before, after.map_to(ids), met, most=REPORTED, seed=config.seed)
        log_step(
            "split",
            f"{len(histories.rows):,} of {len(log.items):,} interactions to learn from, {len(pairs):,} pairs",
        )
        counts = {
            "users": len(log),
            "interactions": len(log.items),
            "learned_from": int((histories.rows >= 0).sum()),
            "with_unknown_items": known.n_unknown,
            "pairs": len(pairs),
            "judging_users": len(judges),
            "items_met": int((met > 0).sum()),
        }
        return cls(histories, pairs, judges, reported, counts)

    def judge(self, device: str) -> Callable[[npt.NDArray[np.float32]], float] | None:
        """Return the function that gives Recall@10 of vectors at the judges' next items; None where nobody judges."""
        if not len(self.judges):
            return None
        return lambda vectors: self.judges.scores(vectors, device).recall["all"] or 0.0


def _judging(known: Histories, seed: int) -> npt.NDArray[np.bool_]:
    """Return which interactions are the last one of a user who judges, bool [n]."""
    lengths = np.diff(known.offsets)
    users = np.flatnonzero(lengths >= ENOUGH)
    number = min(max(int(SHARE * len(users)), min(FEWEST, len(users) // 2)), MOST)
    chosen = np.random.default_rng([seed, 3]).choice(users, number, replace=False) if number else users[:0]
    judging = np.zeros(len(known.rows), bool)
    judging[known.offsets[chosen + 1] - 1] = True
    return judging
