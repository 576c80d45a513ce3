"""Stages: how long each step of a long work took and how much memory it came to, for `-v` and benchmarks."""

from __future__ import annotations

import logging
import time

from semid.memory import in_words, peak_memory

__all__ = ["Stages"]

log = logging.getLogger("semid")


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
