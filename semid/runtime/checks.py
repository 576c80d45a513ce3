"""Checks and words that many messages share."""

from __future__ import annotations

from collections.abc import Iterable

from semid.errors import ConfigError

__all__ = ["check_choice", "plural"]


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ConfigError unless the value of the parameter `name` is one of the choices.

    >>> check_choice("split", "half", ("own", "all"))
    Traceback (most recent call last):
    semid.errors.ConfigError: split='half' should be one of own, all.
    """
    allowed = list(choices)
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} should be one of {', '.join(allowed)}.")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless there is exactly one.

    >>> plural(1, "item"), plural(3000, "item")
    ('1 item', '3,000 items')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
