"""Progress bars for long work: on stderr, and only where a person is looking."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from semid.runtime.memory import in_words, peak_memory

__all__ = ["Stages", "bar", "batch_starts", "watched"]

log = logging.getLogger("semid")


def watched() -> bool:
    """True if stderr is a terminal."""
    return sys.stderr.isatty()


@contextmanager
def bar(label: str, total: int, *, unit: str = "item", shown: bool) -> Iterator[Callable[[int], object]]:
    """A bar of `total` units; yields the function that moves it on. Silent if not `shown`."""
    if not shown:
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=f" {unit}", unit_scale=True, leave=False) as shown_bar:
        yield shown_bar.update


def batch_starts(n_rows: int, size: int, *, progress: bool) -> Iterable[int]:
    """Where each batch of `size` rows begins; with a bar on standard error where `progress`.

    >>> list(batch_starts(5, 2, progress=False))
    [0, 2, 4]
    """
    starts = range(0, n_rows, size)
    if not progress:
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc="embed", unit="batch", leave=False)


# ---- Stages: how long each step of a long work took and how much memory it came to, for `-v` and benchmarks.


class Stages:
    """A stopwatch; each `lap` ends a stage and logs it: "stage read: 1.24 s, 1.19 s of CPU, peak 84 MB".

    >>> stages = Stages()
    >>> stages.lap("read")
    >>> list(stages.seconds)
    ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        """The time since the last lap belongs to this stage."""
        now, cpu = time.perf_counter(), time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._start
        peak = in_words(peak_memory())
        log.info("stage %s: %.2f s, %.2f s of CPU, peak %s", name, now - self._start, cpu - self._cpu, peak)
        self._start, self._cpu = now, cpu
