"""Split a log into training histories and test cases, all as rows of the catalog."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from semid.data import Interactions
from semid.data.splits import split_ends

HISTORY = 20  # the most items that a recommender is told

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cases:
    """R moments at which the next item is asked for."""

    histories: list[Rows]  # R arrays of at most HISTORY rows, oldest first
    wanted: Rows  # (R,) - the item that came next
    users: list[str]  # (R,)

    def sample(self, most: int) -> Cases:
        """Return so many cases, always the same ones; all if there are no more."""
        if len(self.users) <= most:
            return self
        kept = np.sort(np.random.default_rng(0).choice(len(self.users), most, replace=False)).tolist()
        return Cases([self.histories[row] for row in kept], self.wanted[kept], [self.users[row] for row in kept])


@dataclass(frozen=True)
class SplitLog:
    """The catalog and the three parts of a log."""

    item_ids: list[str]  # (N,), sorted
    training: list[Rows]  # of each user
    validation: Cases
    test: Cases

    @classmethod
    def of(cls, item_ids: list[str], log: Interactions, split: str = "leave-one-out") -> SplitLog:
        """Split by user or by time, see `split_ends`. Each held-out item is a case, told what came before it."""
        mapped = log.map_to(item_ids)
        if mapped.n_unknown:
            raise SystemExit(f"{log.source}: {mapped.n_unknown:,} interactions with items that the catalog lacks.")
        whole = [mapped.rows[start:end] for start, end in zip(log.offsets[:-1], log.offsets[1:], strict=True)]
        ends = [(train, valid, len(rows)) for (train, valid), rows in zip(split_ends(log, split), whole, strict=True)]
        parts = []
        for part in (0, 1):
            at = [(user, place) for user, end in enumerate(ends) for place in range(end[part], end[part + 1]) if place]
            histories = [whole[user][max(0, place - HISTORY) : place] for user, place in at]
            wanted = np.array([whole[user][place] for user, place in at], np.int64)
            parts.append(Cases(histories, wanted, [log.users[user] for user, _ in at]))
        return cls(item_ids, [rows[: end[0]] for rows, end in zip(whole, ends, strict=True)], *parts)

    @cached_property
    def digest(self) -> str:
        """A hash of everything that figures depend on."""
        found = hashlib.sha256("\0".join(self.item_ids).encode())
        for rows in (*self.training, *self.validation.histories, *self.test.histories):
            found.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
        for cases in (self.validation, self.test):
            found.update(cases.wanted.astype("<i8").tobytes())
        return found.hexdigest()
