"""One pool of threads for work on rows, which does not fight with the threads of matrix products.

Many short products in a row are faster on one thread each, with as many rows in hand as there are threads, than one
by one on all threads: those meet at a barrier after each, and where something else runs on the machine, one late
thread keeps all the others spinning.
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
    """Threads to use: OMP_NUM_THREADS (what `semid --threads` sets), else the cores this process may run on."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdecimal() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[slice], object], parts: Sequence[slice], *, most: int | None = None) -> None:
    """Run `work` on every part. Parts write to disjoint rows, so the number of threads changes nothing.

    Matrix products inside are single-threaded. A worker's exception is raised here, and parts not yet begun are
    dropped; so does Ctrl-C.

    Parameters
    ----------
    most : int, optional
        Threads at most; `thread_count()` by default.
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
    """BLAS of NumPy and torch's own pool on one thread each, for threads that are started inside."""
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
    """The libraries with threads of their own that are loaded now.

    To look for them takes milliseconds, as long as a round of k-means; so again only when more has been imported.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
