"""Times in a log of interactions: finite numbers, or dates as microseconds since 1970.

One value at a time. Numbers keep whatever unit they are in, so they and dates are never compared with each other:
`interactions` refuses a log that holds both.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np

__all__ = ["as_microseconds", "as_number"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LARGEST_TIME = 1e300  # float64 holds it; more is no time


def as_number(value: object) -> int | float | None:
    """A time given as a finite number, or as a string that spells one; None for any other value.

    >>> as_number("7"), as_number(2.5), as_number("soon"), as_number(True)
    (7, 2.5, None, None)
    """
    if isinstance(value, str):
        for parse in (int, float):
            with contextlib.suppress(ValueError):
                return as_number(parse(value))
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Decimal):
        value = float(value)
    is_time = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_TIME
    return value if is_time else None


def as_microseconds(value: object) -> int | None:
    """A time given as a date, or as a string that spells one in ISO format: microseconds since 1970, UTC.

    >>> as_microseconds("1970-01-02"), as_microseconds("1970-01-01T01:00+01:00"), as_microseconds("soon")
    (86400000000, 0, None)
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if not isinstance(value, date):
        return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (moment - EPOCH) // MICROSECOND
