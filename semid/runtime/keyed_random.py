"""Random numbers by key: the same key gives the same numbers, whatever was drawn before."""

from __future__ import annotations

import hashlib
from random import Random

__all__ = ["chance", "share"]


def chance(seed: int, *key: object) -> Random:
    """Return a generator of random numbers for a key.

    >>> chance(0, "fusion", "u1", 3).random() == chance(0, "fusion", "u1", 3).random()
    True
    """
    return Random(_number(seed, key))


def share(seed: int, *key: object) -> float:
    """Return a number in [0, 1) for a key, uniform over the keys.

    >>> 0 <= share(0, "split", "u1") < 1
    True
    """
    return _number(seed, key) / 2**64


def _number(seed: int, key: tuple[object, ...]) -> int:
    words = "\0".join(map(str, (seed, *key))).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")
