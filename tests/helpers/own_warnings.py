"""Deprecations that semid's own calls cause are errors, wherever a library says that they come from.

A filter by module sees the frame that a library names, which is often one of its own or of torch's: this looks at who
called the library. What one library does to another (PEFT to transformers, say) is not semid's to mend, and passes.
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType

DEPRECATIONS = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)
BETWEEN = {"torch", "contextlib", "functools", "warnings", "typing_extensions"}
IMPORTING = {"importlib", "_frozen_importlib", "_frozen_importlib_external"}

_warn = warnings.warn


def watch_own_calls() -> None:
    """From now on, raise a deprecation warning that a call of semid's causes."""
    warnings.warn = _warn_or_raise


def _warn_or_raise(message, category=None, stacklevel=1, source=None, **more) -> None:
    kind = type(message) if isinstance(message, Warning) else category or UserWarning
    if issubclass(kind, DEPRECATIONS) and _package_at_fault(sys._getframe(1)) == "semid":
        raise kind(f"semid's own call causes: {message}")
    _warn(message, category, stacklevel + 1, source, **more)


def _package_at_fault(frame: FrameType | None) -> str:
    """The package that called the one which warns; "" if nobody did, or if that one is only being imported."""
    warner = _package(frame)
    while frame is not None and _package(frame) in {warner, *BETWEEN}:
        frame = frame.f_back
    return "" if _package(frame) in IMPORTING else _package(frame)


def _package(frame: FrameType | None) -> str:
    return "" if frame is None else frame.f_globals.get("__name__", "").partition(".")[0]
