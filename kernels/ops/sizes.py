"""Block sizes: Triton's are powers of two."""

from __future__ import annotations

__all__ = ["power_of_two_at_least"]


def power_of_two_at_least(number: int) -> int:
    """Return the least power of two that is >= number >= 1.

    >>> [power_of_two_at_least(number) for number in (1, 2, 3, 64, 65)]
    [1, 2, 4, 64, 128]
    """
    return 1 << (number - 1).bit_length()
