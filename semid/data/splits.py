"""Which interactions may be learned from: histories cut where validation and test begin.

`leave-one-out` keeps a user's last interaction for the test and the one before for validation. `own` goes by what the
data say: histories with `n_valid` and `n_test`, how many of the last items are for either. `all` keeps everything,
for a system in production, which is not tested on its past.

Not here: reading the interactions themselves (`interactions.py`).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.data.interactions import USER_FIELDS, Interactions
from semid.data.problems import Problems
from semid.data.records import iter_records
from semid.data.values import id_string
from semid.errors import ConfigError, InputError

__all__ = ["Split", "cut_by_time", "first_of_each", "leave_one_out", "own_split", "training_edges"]


Split = Literal["leave-one-out", "own", "all"]
HELD_OUT = ("n_valid", "n_test")


def training_edges(
    log: Interactions, split: Split = "leave-one-out", *, source: object = None, include_valid: bool = False
) -> Interactions:
    """The interactions to learn from: the same users and items, shorter histories.

    Parameters
    ----------
    split
        Where a history is cut, see above.
    source
        What `log` was read from; for "own".
    include_valid
        Learn from validation interactions too, though a model that is tuned on them has then seen them. Never from
        those of the test.

    Raises
    ------
    ConfigError
        An unknown split.
    InputError
        `own`, and a record does not say how many of its items are held out.

    >>> from semid.data.interactions import read_interactions
    >>> log = read_interactions([{"user": "u", "items": ["a", "b", "c", "d"]}])
    >>> training_edges(log).history(0), training_edges(log, include_valid=True).history(0)
    (['a', 'b'], ['a', 'b', 'c'])
    """
    if split not in get_args(Split):
        raise ConfigError(f"split={split!r} should be one of {', '.join(get_args(Split))}.")
    if split == "all":
        return log
    held_out = own_split(log, source) if split == "own" else np.ones((len(log), 2), np.int64)
    cut = held_out[:, 1] + (0 if include_valid else held_out[:, 0])
    return first_of_each(log, np.maximum(np.diff(log.offsets) - cut, 0))


def first_of_each(log: Interactions, lengths: npt.NDArray[np.int64]) -> Interactions:
    """The first `lengths[u]` interactions of each user; all users and items stay, some perhaps without any."""
    before = np.diff(log.offsets)
    place = np.arange(len(log.items)) - np.repeat(log.offsets[:-1], before)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Interactions(log.users, log.item_ids, offsets, log.items[place < np.repeat(lengths, before)], log.source)


def own_split(log: Interactions, source: object) -> npt.NDArray[np.int64]:
    """int64 [U, 2]: how many of each user's last items the data keep for validation and for the test.

    >>> from semid.data.interactions import read_interactions
    >>> lines = [{"user": "u", "items": ["a", "b", "c"], "n_valid": 0, "n_test": 1}]
    >>> own_split(read_interactions(lines), lines).tolist()
    [[0, 1]]
    """
    problems = Problems.of(source)
    place = {user: number for number, user in enumerate(log.users)}
    held_out = np.full((len(log), 2), -1, np.int64)
    for line, record in iter_records(source, problems=problems):
        user = next((id_string(value) for name, value in record.items() if _is_user(name)), None)
        numbers = [record.get(name) for name in HELD_OUT]
        if user not in place:
            problems.add(line, "no user of the interactions.")
        elif not all(type(number) is int and number >= 0 for number in numbers):
            shown = ", ".join(f"{name}={number!r:.40}" for name, number in zip(HELD_OUT, numbers, strict=True))
            problems.add(line, f"{shown}: expected two whole numbers, of items held out at the end.")
        else:
            held_out[place[user]] = numbers
    problems.raise_if_any()
    if (unsaid := np.flatnonzero(held_out[:, 0] < 0)).size:  # as where standard input was read already
        raise InputError(
            f"{problems.name}: does not say what {len(unsaid)} users hold out, {log.users[unsaid[0]]!r} for one. Give "
            "the file that the interactions are from."
        )
    lengths = np.diff(log.offsets)
    if (over := np.flatnonzero(held_out.sum(axis=1) > lengths)).size:
        user = log.users[over[0]]
        raise InputError(
            f"{log.source}: user {user!r} has {lengths[over[0]]} items and holds out {held_out[over[0]].sum()}. "
            "Correct n_valid and n_test."
        )
    return held_out


def _is_user(name: object) -> bool:
    return str(name).casefold().replace("_", "") in USER_FIELDS


def leave_one_out(log: Interactions) -> npt.NDArray[np.int64]:
    """int64 [U, 2]: the places of the last two of each user, of whoever has three."""
    lengths = np.diff(log.offsets)
    out = (lengths >= 3).astype(np.int64)
    return np.stack([lengths - 2 * out, lengths - out], axis=1)


def cut_by_time(log: Interactions, times: npt.NDArray[np.float64], cuts: tuple[float, float]) -> npt.NDArray[np.int64]:
    """int64 [U, 2]: how many of each user's interactions came before each moment; equal times stay together."""
    ordered = np.sort(times)
    moments = [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in cuts]
    counts = [np.concatenate(([0], np.cumsum(times < moment))) for moment in moments]
    return np.stack([np.diff(count[log.offsets]) for count in counts], axis=1)
