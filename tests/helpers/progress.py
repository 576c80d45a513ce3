"""Progress bars, switched on for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from semid.runtime.progress import show_progress


@contextmanager
def shown_bars() -> Iterator[None]:
    """Show bars inside, though stderr is no terminal in a test."""
    show_progress(True)
    try:
        yield
    finally:
        show_progress(None)
