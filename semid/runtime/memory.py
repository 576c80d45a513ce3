"""Memory: how much there is, how much this process holds, and whether a step fits a budget.

A budget covers the whole process, Python and its libraries included: the resident memory that `ps` shows. It never
changes a result, only whether tables are in memory or in files (`tables.py`).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sys
from pathlib import Path

from semid.errors import ConfigError

__all__ = ["Budget", "in_words", "machine_memory", "parse_memory", "peak_memory", "resident_memory"]

SHARE = 0.6  # of the machine's memory, where no budget is given
UNITS = {"": 1, "B": 1, **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}}
UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}
UNITS |= {prefix: 1000**power for power, prefix in enumerate("KMGT", 1)}
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def parse_memory(text: str | int) -> int:
    """Return the bytes of a size such as "4GB", "300 MB", "1.5GiB" or a number; ConfigError for anything else.

    >>> parse_memory("1.5GB"), parse_memory("2 MiB"), parse_memory(1000)
    (1500000000, 2097152, 1000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if not found or found[2].upper() not in UNITS or not float(found[1]):
        raise ConfigError(f"memory={text!r} should be a size such as 4GB or 800MB.")
    return int(float(found[1]) * UNITS[found[2].upper()])


def in_words(n_bytes: float) -> str:
    """Return a number of bytes as text: megabytes, or gigabytes to three digits.

    >>> in_words(812_000_000), in_words(4_240_000_000)
    ('812 MB', '4.24 GB')
    """
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.3g} GB"


def machine_memory() -> int:
    """Return the bytes of memory of the machine, or of the container if its limit is lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such limit; "max"
            total = min(total, int(Path(path).read_text()))
    return total


def resident_memory() -> int:
    """Return the bytes that this process holds now; its peak where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return peak_memory()


def peak_memory() -> int:
    """Return the most bytes that this process has held."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Linux: unlike the figure of getrusage, this one starts with the program, whatever its parent held
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Budget:
    """Bytes that the whole process may hold.

    Parameters
    ----------
    memory : str or int, optional
        As in `parse_memory`; by default 60 % of the machine's memory.

    >>> Budget("4GB").n_bytes
    4000000000
    """

    def __init__(self, memory: str | int | None = None) -> None:
        self.n_bytes = int(SHARE * machine_memory()) if memory is None else parse_memory(memory)

    def room(self, need: int, what: str) -> int:
        """Return the bytes left for tables after what is held and `need`; ConfigError, naming `what`, if none are."""
        held = resident_memory()
        if held + need > self.n_bytes:
            raise ConfigError(
                f"memory={in_words(self.n_bytes)} is too small: {what} needs {in_words(held + need)}. "
                f"Use --memory {_rounded_up(held + need)}, or a machine with more."
            )
        return self.n_bytes - held - need


def _rounded_up(n_bytes: int) -> str:
    """Return a size of at least so many bytes, as one would type it.

    >>> _rounded_up(812_300_000), _rounded_up(4_210_000_000)
    ('900MB', '4.3GB')
    """
    if n_bytes < 1e9:
        return f"{-(-n_bytes // 10**8) * 100}MB"
    return f"{-(-n_bytes // 10**8) / 10:g}GB"
