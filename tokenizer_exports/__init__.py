"""semid's IDs in other systems' formats, and theirs in ours.

Every name loads on first use: reading a published index file needs NumPy alone, not transformers.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {  # public name -> the file that holds it
    "IndexFile": "files",
    "read_index": "files",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
