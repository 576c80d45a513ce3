"""Splits: which interactions are training data, and which are held out for validation and test.

`leave-one-out` holds out a user's last interaction for the test and the one before for validation. `own` goes by the
data: histories with `n_valid` and `n_test`, how many of the last items are held out for each. `all` holds out nothing,
for a system in production, which is not tested on its past.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Interactions
from semid.runtime.checks import check_choice

__all__ = [
    "Cut", "Split", "cut_by_time", "held_out_interactions", "leave_one_out", "own_split", "split_ends",
    "training_interactions",
]  # fmt: skip


Split = Literal["leave-one-out", "own", "all"]
Cut = Literal["leave-one-out", "time", "own"]


def training_interactions(
    log: Interactions, split: Split = "leave-one-out", *, include_valid: bool = False
) -> Interactions:
    """Return the interactions to learn from: the same users and items, shorter histories.

    Parameters
    ----------
    log : Interactions
        Everything that is known.
    split : {"leave-one-out", "own", "all"}
        What is held out; see above.
    include_valid : bool
        Learn from validation interactions too. A model that is tuned on them has then seen them. Test interactions
        are always left out.

    Raises
    ------
    ConfigError
        An unknown split.
    InputError
        `own`, and a record does not say how many of its items are held out.

    >>> from semid.data.interaction_reader import read_interactions
    >>> log = read_interactions([{"user": "u", "items": ["a", "b", "c", "d"]}])
    >>> training_interactions(log).history(0), training_interactions(log, include_valid=True).history(0)
    (['a', 'b'], ['a', 'b', 'c'])
    """
    check_choice("split", split, get_args(Split))
    if split == "all":
        return log
    held_out = log.require_held_out() if split == "own" else np.ones((len(log), 2), np.int64)
    cut = held_out[:, 1] + (0 if include_valid else held_out[:, 0])
    lengths = np.diff(log.offsets)
    return log.where(log.places() < np.repeat(np.maximum(lengths - cut, 0), lengths))


def held_out_interactions(log: Interactions, training: Interactions) -> Interactions:
    """Return the interactions that are not training data; `training` holds the first part of each history.

    >>> from semid.data.interaction_reader import read_interactions
    >>> log = read_interactions([{"user": "u", "items": ["a", "b", "c", "d"]}])
    >>> held_out_interactions(log, training_interactions(log)).history(0)
    ['c', 'd']
    """
    return log.where(log.places() >= np.repeat(np.diff(training.offsets), np.diff(log.offsets)))


def leave_one_out(log: Interactions) -> npt.NDArray[np.int64]:
    """Return where training and validation end in each history: int64 [U, 2].

    The last two interactions are held out, of users who have at least three.
    """
    lengths = np.diff(log.offsets)
    out = (lengths >= 3).astype(np.int64)
    return np.stack([lengths - 2 * out, lengths - out], axis=1)


def own_split(log: Interactions) -> npt.NDArray[np.int64]:
    """Return where training and validation end in each history, by its `n_valid` and `n_test`: int64 [U, 2].

    InputError lists the records that do not say so.

    >>> from semid.data.interaction_reader import read_interactions
    >>> own_split(read_interactions([{"user": "u", "items": ["a", "b", "c"], "n_valid": 0, "n_test": 1}])).tolist()
    [[2, 2]]
    """
    n_valid, n_test = log.require_held_out().T
    ends = np.diff(log.offsets) - n_test
    return np.stack([ends - n_valid, ends], axis=1)


def cut_by_time(log: Interactions, cuts: tuple[float, float]) -> npt.NDArray[np.int64]:
    """Return where training and validation end in each history, at the same two moments for all users: int64 [U, 2].

    The share `cuts[0]` of all interactions comes before the first moment, `cuts[1]` before the second. Equal times stay
    together. InputError lists the records without a time.
    """
    times = log.require_times()
    ordered = np.sort(times)
    moments = [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in cuts]
    counts = [np.concatenate(([0], np.cumsum(times < moment))) for moment in moments]
    return np.stack([np.diff(count[log.offsets]) for count in counts], axis=1)


def split_ends(
    log: Interactions, split: str = "leave-one-out", cuts: tuple[float, float] = (0.8, 0.9)
) -> npt.NDArray[np.int64]:
    """Return where training and validation end in each history, by the name of a split: int64 [U, 2].

    Parameters
    ----------
    log : Interactions
        All histories.
    split : {"leave-one-out", "time", "own"}
        The last two of each user, two moments for all, or as `n_valid` and `n_test` say.
    cuts : (float, float)
        Shares of all interactions before validation and before the test, for "time". Default: 0.8, 0.9.

    Raises
    ------
    ConfigError
        An unknown split.
    InputError
        "time" or "own", and the interactions do not say.

    >>> from semid.data.interaction_reader import read_interactions
    >>> split_ends(read_interactions([{"user": "u", "items": ["a", "b", "c", "d"]}])).tolist()
    [[2, 3]]
    """
    check_choice("split", split, get_args(Cut))
    if split == "time":
        return cut_by_time(log, cuts)
    return own_split(log) if split == "own" else leave_one_out(log)
