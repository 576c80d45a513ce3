"""Small worlds for the tests of clusters: groups of users who meet the items of their group."""

from __future__ import annotations

import random

from semid.data import Interactions, read_interactions

__all__ = ["histories", "lines"]


def lines(n_groups: int = 4, users: int = 12, items: int = 10, met: int = 7, seed: int = 0) -> list[dict]:
    """Records: user g3-u1 met `met` items such as g3-i4."""
    draw = random.Random(seed)
    return [
        {"user": f"g{group}-u{user}", "items": [f"g{group}-i{item}" for item in draw.sample(range(items), met)]}
        for group in range(n_groups)
        for user in range(users)
    ]


def histories(**choices: int) -> Interactions:
    """The same, read."""
    return read_interactions(lines(**choices))
