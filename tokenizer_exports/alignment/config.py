"""The choices of a set of alignment data, and the draws that follow from its seed.

A draw depends on the seed and on what it is for (a task, a user, a place in a history), never on the draws before it:
so another user, task or shard changes nothing about the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from semid.config import as_json, check_names
from semid.errors import ConfigError

__all__ = ["SPLITS", "TASKS", "AlignmentConfig", "Format", "Negative", "Split"]


TASKS = ("next-item", "text-to-id", "id-to-text", "fusion", "search", "preference", "negative")
SPLITS = ("train", "validation", "test")

Split = Literal["leave-one-out", "time", "own"]
Format = Literal["trl", "messages", "alpaca"]
Negative = Literal["popularity", "uniform", "same-prefix"]

CHOICES = {"split": Split, "format": Format, "negatives": Negative}
LOWEST = {"candidates": 2, "max_history": 1, "max_text": 1, "most": 1, "wordings": 1, "shards": 1, "seed": 0}
MOST_SHARDS = 1000  # files open at once


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """The choices of `write_alignment`.

    >>> AlignmentConfig.from_dict({"tasks": "next-item,fusion"}).tasks
    ('next-item', 'fusion')
    >>> AlignmentConfig(negatives="hard")
    Traceback (most recent call last):
    semid.errors.ConfigError: negatives='hard' should be one of popularity, uniform, same-prefix.
    """

    tasks: tuple[str, ...] | None = None  # None: all that the given files allow
    split: Split = "leave-one-out"
    cuts: tuple[float, float] = (0.8, 0.9)  # of a split by time: the shares of interactions where a part ends
    format: Format = "trl"
    negatives: Negative = "popularity"
    candidates: int = 4  # items to choose among
    max_history: int = 20  # the latest items of a history, in a prompt
    max_text: int = 1000  # characters of a title, description, query or preference
    most: int | None = None  # training records of a task made from histories or items; None: all
    wordings: int = 1  # templates for each training record
    shards: int = 1  # files of a task's training part
    markers: bool = False  # IDs between the begin and the end token of the template
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name}={getattr(self, name)!r} should be one of {', '.join(get_args(kind))}.")
        for name, lowest in LOWEST.items():
            value = getattr(self, name)
            if not (value is None and name == "most") and (type(value) is not int or value < lowest):
                raise ConfigError(f"{name}={value!r} should be a whole number, {lowest} or more.")
        if self.shards > MOST_SHARDS:
            raise ConfigError(f"shards={self.shards} should be at most {MOST_SHARDS}.")
        if type(self.markers) is not bool:
            raise ConfigError(f"markers={self.markers!r} should be true or false.")
        object.__setattr__(self, "cuts", _checked_cuts(self.cuts))
        if self.tasks is not None:
            object.__setattr__(self, "tasks", _checked_tasks(self.tasks))

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> AlignmentConfig:
        """From keywords; an unknown one is an error that names near matches."""
        check_names(cls, choices, no="choice of alignment data", listed="There are")
        return cls(**choices)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return as_json(self)


def _checked_tasks(tasks: Sequence[str] | str) -> tuple[str, ...]:
    names = [name.strip() for name in (tasks.split(",") if isinstance(tasks, str) else tasks)]
    for name in names:
        if name not in TASKS:
            near = get_close_matches(name, TASKS, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(TASKS)}."
            raise ConfigError(f"tasks={name!r} is no task. {hint}")
    if not names:
        raise ConfigError(f"tasks={tasks!r} names no task. There are: {', '.join(TASKS)}.")
    return tuple(task for task in TASKS if task in names)


def _checked_cuts(cuts: Sequence[float] | str) -> tuple[float, float]:
    try:
        first, second = map(float, cuts.split(",") if isinstance(cuts, str) else cuts)
    except (TypeError, ValueError):
        first = second = 0.0
    if not 0 < first <= second < 1:
        raise ConfigError(f"cuts={cuts!r} should be two shares, ascending, between 0 and 1, such as 0.8,0.9.")
    return first, second
