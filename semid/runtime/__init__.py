"""What runs the rest: memory, tables, threads, devices, processes, progress.

memory.py        how much memory there is, and budgets
tables.py        tables that need not fit into memory
threads.py       one pool of threads
devices.py       which torch device to use
distributed.py   several processes that learn together
progress.py      progress bars, lines about finished steps, stage timings
arrays.py        small functions on arrays
checks.py        checks and words that many messages share
keyed_random.py  random numbers by key
versions.py      installed packages, and which are newer than tested
"""

from semid.runtime.devices import check_device, pick_device
from semid.runtime.memory import Budget
from semid.runtime.progress import Stages, bar, bars_shown, log_step, show_progress, track
from semid.runtime.tables import MappedRows, RowTable, Tables
from semid.runtime.threads import in_threads, thread_count

__all__ = [
    "Budget",
    "MappedRows",
    "RowTable",
    "Stages",
    "Tables",
    "bar",
    "bars_shown",
    "check_device",
    "in_threads",
    "log_step",
    "pick_device",
    "show_progress",
    "thread_count",
    "track",
]
