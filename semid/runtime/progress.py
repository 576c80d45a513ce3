"""Progress of long work: bars on stderr, a log line per finished step, and how long each step took.

Bars appear where stderr is a terminal; `show_progress` turns them on or off for the whole process. With several
training processes only the first one shows them.

A finished step logs one line to the logger `semid.steps`, which the command line prints unless `--quiet`. A library
user sees these lines with `logging.getLogger("semid").setLevel(logging.INFO)` and a handler.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from semid.runtime.distributed import is_writer
from semid.runtime.memory import in_words, peak_memory

__all__ = ["Stages", "bar", "bars_shown", "log_step", "show_progress", "track"]

logger = logging.getLogger("semid")
steps = logging.getLogger("semid.steps")

T = TypeVar("T")
_switch: bool | None = None  # None: show bars where stderr is a terminal


def show_progress(shown: bool | None = True) -> None:
    """Turn the progress bars of this process on or off.

    Parameters
    ----------
    shown : bool or None
        True shows bars, False hides them, None (the setting at import) shows them where stderr is a terminal.

    >>> show_progress(False)
    >>> bars_shown()
    False
    >>> show_progress(None)
    """
    global _switch
    _switch = shown


def bars_shown() -> bool:
    """Return whether this process shows progress bars now."""
    return is_writer() and (sys.stderr.isatty() if _switch is None else _switch)


@contextmanager
def bar(label: str, total: int, *, unit: str = "item") -> Iterator[Callable[[int], object]]:
    """Show a progress bar and yield the function that advances it by a number of units.

    Parameters
    ----------
    label : str
        What the bar is called.
    total : int
        Units until it is full.
    unit : str
        Name of a unit.

    >>> with bar("encode", 10) as advance:
    ...     _ = advance(10)
    """
    if not bars_shown():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=f" {unit}", unit_scale=True, leave=False) as shown_bar:
        yield shown_bar.update


def track(items: Iterable[T], label: str, *, total: int | None = None, unit: str = "item") -> Iterable[T]:
    """Return the items, with a progress bar that advances as they are taken.

    Parameters
    ----------
    items : iterable
        Anything one can loop over.
    label : str
        What the bar is called.
    total : int, optional
        How many items there are, where `len(items)` does not say.
    unit : str
        Name of an item.

    >>> list(track(range(0, 5, 2), "embed", unit="batch"))
    [0, 2, 4]
    """
    if not bars_shown():
        return items
    from tqdm import tqdm

    shown: Iterable[T] = tqdm(items, desc=label, total=total, unit=f" {unit}", unit_scale=True, leave=False)
    return shown


def log_step(name: str, result: str) -> None:
    """Log one line about a finished step, such as `read        1,204 items; text from title`.

    Parameters
    ----------
    name : str
        What was done, in one word of at most 11 letters.
    result : str
        What came of it.
    """
    steps.info("%-11s %s", name, result)


class Stages:
    """Measure the stages of long work: each `lap` ends one and logs its time and the memory that was reached.

    The line is logged to `semid` as `stage read: 1.24 s, 1.19 s of CPU, peak 84 MB`; `semid -v` shows it.

    Attributes
    ----------
    seconds : dict of str to float
        Wall-clock seconds of each stage.

    >>> stages = Stages()
    >>> stages.lap("read")
    >>> list(stages.seconds)
    ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        """End the stage that began with the last lap, and log it under this name."""
        now, cpu = time.perf_counter(), time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._start
        peak = in_words(peak_memory())
        logger.info("stage %s: %.2f s, %.2f s of CPU, peak %s", name, now - self._start, cpu - self._cpu, peak)
        self._start, self._cpu = now, cpu
