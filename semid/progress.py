"""Progress bars for long work: on stderr, and only where a person is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar", "watched"]


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
