"""Every error semid raises on purpose.

Each message says where (file, line, field or `name=value`), what was expected, and the fix, as something
to type. Each class is also the built-in error that a caller would expect, so `except ValueError` works.

    SemidError
    ├── InputError        (ValueError)       the user's data is wrong
    ├── ConfigError       (ValueError)       a choice is impossible or misspelt
    ├── CapacityError     (ValueError)       more items than IDs
    ├── UnknownIDError    (KeyError)         an item id or a semantic ID that the catalog does not hold
    ├── ArtifactError     (OSError)          a folder is damaged, foreign, or from a newer semid
    ├── OutputExistsError (FileExistsError)  the output is there already
    └── DependencyError   (ImportError)      an optional package is missing
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CapacityError",
    "ConfigError",
    "DependencyError",
    "InputError",
    "OutputExistsError",
    "SemidError",
    "UnknownIDError",
]

SHOWN_PROBLEMS = 10


class SemidError(Exception):
    """Base of all errors that semid raises on purpose."""


class InputError(SemidError, ValueError):
    """The user's data is wrong: says which file, line and field, and the fix.

    >>> print(InputError.listing(["a.jsonl:1: no id", "a.jsonl:7: no id"]))
    a.jsonl:1: no id
    a.jsonl:7: no id
    """

    @classmethod
    def listing(cls, problems: list[str], total: int | None = None) -> InputError:
        """One error for many problems: the first ten, then how many more there are."""
        total = len(problems) if total is None else total
        shown = problems[:SHOWN_PROBLEMS]
        if total > len(shown):
            shown = [*shown, f"... and {total - len(shown)} more"]
        return cls("\n".join(shown))


class ConfigError(SemidError, ValueError):
    """A choice is impossible or misspelt."""


class CapacityError(SemidError, ValueError):
    """There are more items than distinct IDs."""


class UnknownIDError(SemidError, KeyError):
    """The catalog does not hold this item id or this semantic ID."""

    def __str__(self) -> str:  # KeyError would show repr() of the message
        return str(self.args[0]) if self.args else ""


class ArtifactError(SemidError, OSError):
    """A semid folder is damaged, foreign, or written by a newer semid."""


class OutputExistsError(SemidError, FileExistsError):
    """The output is there already; nothing was written."""


class DependencyError(SemidError, ImportError):
    """An optional package is missing; the message is the command that installs it."""

    @classmethod
    def missing(cls, what: str, package: str, extra: str) -> DependencyError:
        """Return the error for `what`, which needs `package` from the extra `extra`."""
        return cls(f'{what} needs {package}. Install it with: pip install "semid[{extra}]"')
