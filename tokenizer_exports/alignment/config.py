"""The settings of alignment data.

Every random draw depends on the seed and on what it is for (a task, a user, a place in a history), never on earlier
draws: another user, task or shard changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from semid.config import as_json, check_names
from semid.errors import ConfigError
from semid.runtime.checks import check_choice

__all__ = ["SPLITS", "TASKS", "AlignmentConfig", "Format", "Negative", "Split"]


TASKS = ("next-item", "text-to-id", "id-to-text", "fusion", "search", "preference", "negative")
SPLITS = ("train", "validation", "test")

Split = Literal["leave-one-out", "time", "own"]
Format = Literal["trl", "messages", "alpaca"]
Negative = Literal["popularity", "uniform", "same-prefix"]

CHOICES = {"split": Split, "format": Format, "negatives": Negative}
LOWEST = {
    "candidates": 2, "max_history": 1, "max_text": 1, "max_records": 1, "templates_per_record": 1, "shards": 1,
    "seed": 0,
}  # fmt: skip
MAX_SHARDS = 1000  # files open at once


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """The settings of `write_alignment`.

    Parameters
    ----------
    tasks : tuple of str, optional
        Tasks to write, of `TASKS`. By default all that the given files allow.
    split : {"leave-one-out", "time", "own"}
        How histories are cut into training, validation and test.
    cuts : (float, float)
        For a split by time: shares of all interactions that come before validation, and before the test.
    format : {"trl", "messages", "alpaca"}
        Layout of a record.
    negatives : {"popularity", "uniform", "same-prefix"}
        How items that a user never met are drawn.
    candidates : int
        Items to choose among, in the task `negative`.
    max_history : int
        Items of a history in a prompt, the latest ones.
    max_text : int
        Characters of a title, description, query or preference.
    max_records : int, optional
        Training records of each task made from histories or items, drawn at random. By default all.
    templates_per_record : int
        Different wordings of each training record.
    shards : int
        Training files of each task.
    markers : bool
        Write the begin and end tokens of the template around IDs.
    seed : int
        Of all random draws.

    >>> AlignmentConfig.from_dict({"tasks": "next-item,fusion"}).tasks
    ('next-item', 'fusion')
    >>> AlignmentConfig(negatives="hard")
    Traceback (most recent call last):
    semid.errors.ConfigError: negatives='hard' should be one of popularity, uniform, same-prefix.
    """

    tasks: tuple[str, ...] | None = None
    split: Split = "leave-one-out"
    cuts: tuple[float, float] = (0.8, 0.9)
    format: Format = "trl"
    negatives: Negative = "popularity"
    candidates: int = 4
    max_history: int = 20
    max_text: int = 1000
    max_records: int | None = None
    templates_per_record: int = 1
    shards: int = 1
    markers: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            check_choice(name, getattr(self, name), get_args(kind))
        for name, lowest in LOWEST.items():
            value = getattr(self, name)
            if not (value is None and name == "max_records") and (type(value) is not int or value < lowest):
                raise ConfigError(f"{name}={value!r} should be a whole number, {lowest} or more.")
        if self.shards > MAX_SHARDS:
            raise ConfigError(f"shards={self.shards} should be at most {MAX_SHARDS}.")
        if type(self.markers) is not bool:
            raise ConfigError(f"markers={self.markers!r} should be true or false.")
        object.__setattr__(self, "cuts", _checked_cuts(self.cuts))
        if self.tasks is not None:
            object.__setattr__(self, "tasks", _checked_tasks(self.tasks))

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> AlignmentConfig:
        """Return the settings of a dict. ConfigError for an unknown name, with near matches."""
        check_names(cls, choices, no="setting of alignment data", listed="There are")
        return cls(**choices)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
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
