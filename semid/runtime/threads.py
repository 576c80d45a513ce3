"""One pool of threads for work on rows, which does not compete with the threads of matrix products.

Many short products are faster on one thread each, several at a time, than one by one on all threads: those wait for
each other after every product, and if something else runs on the machine, one late thread keeps the others spinning.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = ["in_threads", "single_threaded_products", "thread_count"]


def thread_count() -> int:
    """Return the number of threads to use: OMP_NUM_THREADS (set by `semid --threads`), else the cores available."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdecimal() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[slice], object], parts: Sequence[slice], *, most: int | None = None) -> None:
    """Run `work` on every part. Parts write to disjoint rows, so the number of threads changes no result.

    Matrix products inside are single-threaded. A worker's exception, or Ctrl-C, is raised here; parts that have not
    started are dropped.

    Parameters
    ----------
    work : callable
        Called with each part.
    parts : sequence of slices
    most : int, optional
        Cap on the threads; `thread_count()` by default.
    """
    workers = min(len(parts), most or thread_count())
    if workers <= 1:
        for part in parts:
            work(part)
        return
    with single_threaded_products():
        pool = ThreadPoolExecutor(workers)
        try:
            for _ in pool.map(work, parts):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Limit NumPy's BLAS and torch to one thread each, for threads that are started inside."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    with _libraries(len(sys.modules)).limit(limits=1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> ThreadpoolController:
    """Return the loaded libraries that have threads of their own.

    Looking for them takes milliseconds, as long as a round of k-means, so it is done again only after more imports.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
