"""SASRec (arXiv 1808.09781): a causal transformer over a user's items that predicts the next one; and its batches.

Histories are padded on the right, behind their items, and a position sees only itself and those before it, so what
stands in the padding changes nothing. B users, T positions, N items, d dims.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from semid.data.interactions import Histories

__all__ = ["FIRST_SCALE", "SASRec", "Sequences", "Steps"]

LONGEST = 200  # items of a history that are read, as in LLMEmb
BLOCKS, HEADS, DROPOUT = 2, 1, 0.5
FIRST_SCALE = 0.02  # standard deviation of learned vectors at the start

Ints = npt.NDArray[np.int64]


class SASRec(nn.Module):
    """States of a user after each item, from the vectors of the items.

    Parameters
    ----------
    dim : int
        d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.places = nn.Parameter(torch.randn(LONGEST, dim) * FIRST_SCALE)
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(_Block(dim) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(dim, eps=1e-8)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the states, float [B, T, d], where `vectors` [B, T, d] are the items; T is at most 200."""
        states = self.dropout(vectors * self.scale + self.places[: vectors.shape[1]])
        width = vectors.shape[1]
        later = torch.ones(width, width, dtype=torch.bool, device=vectors.device).triu(1)
        for block in self.blocks:
            states = block(states, later)
        return self.norm(states)


class _Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.attention = nn.MultiheadAttention(dim, HEADS, DROPOUT, batch_first=True)
        self.inner = nn.Sequential(
            nn.Linear(dim, dim), nn.Dropout(DROPOUT), nn.ReLU(), nn.Linear(dim, dim), nn.Dropout(DROPOUT)
        )

    def forward(self, states: torch.Tensor, later: torch.Tensor) -> torch.Tensor:
        queries = self.before(states)
        found, _ = self.attention(queries, states, states, attn_mask=later, need_weights=False)
        states = self.after(queries + found)
        return states + self.inner(states)


@dataclass(frozen=True, eq=False)
class Steps:
    """A batch: after `items[b, t]` user b met `wanted[b, t]` and not `others[b, t]`, where `filled` [b, t] is true."""

    items: Ints
    wanted: Ints
    others: Ints
    filled: npt.NDArray[np.bool_]


class Sequences:
    """Training sequences of the users with at least two known items.

    Parameters
    ----------
    histories : Histories
        Rows of the catalog; -1 is left out.
    n_items : int
        N.

    >>> sequences = Sequences(Histories(np.array([0, 3, 4]), np.array([4, 2, 0, 1]), 0), 5)
    >>> batch = next(sequences.batches(8, seed=0))
    >>> batch.items.tolist(), batch.wanted.tolist(), set(batch.others.ravel()) <= {1, 3}
    ([[4, 2]], [[2, 0]], True)
    """

    def __init__(self, histories: Histories, n_items: int) -> None:
        known = histories.rows >= 0
        users = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))[known]
        self.rows = histories.rows[known]
        self.offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(histories)))])
        self.users = np.flatnonzero(np.diff(self.offsets) >= 2)
        self.n_items = n_items
        self.met = np.unique(users * n_items + self.rows)  # pairs of user and item, as one number

    def padded(self, users: Ints, most: int = LONGEST) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Return the last known items of users, int64 [B, T] with 0 behind them, and where items are, bool [B, T].

        T is at most `most`.
        """
        ends = self.offsets[users + 1]
        lengths = np.minimum(ends - self.offsets[users], most)
        places = np.arange(max(1, int(lengths.max(initial=0))))
        filled = places < lengths[:, None]
        found = np.zeros(filled.shape, np.int64)
        found[filled] = self.rows[((ends - lengths)[:, None] + places)[filled]]
        return found, filled

    def batches(self, size: int, seed: int) -> Iterator[Steps]:
        """Yield batches of at most `size` users without end, in a new order each time all have been taken."""
        rng = np.random.default_rng([seed, 4])
        while True:
            order = rng.permutation(self.users)
            for start in range(0, len(order), size):
                users = order[start : start + size]
                items, filled = self.padded(users, LONGEST + 1)
                yield Steps(items[:, :-1], items[:, 1:], self._others(users, filled[:, 1:], rng), filled[:, 1:])

    def _others(self, users: Ints, filled: npt.NDArray[np.bool_], rng: np.random.Generator) -> Ints:
        """Return an item for each position that the user never met, where there is one."""
        owners = np.repeat(users, filled.shape[1]).reshape(filled.shape)
        others = rng.integers(self.n_items, size=filled.shape)
        for _ in range(100):  # only a user who met nearly everything needs that many
            keys = owners * self.n_items + others
            wrong = self.met[np.minimum(np.searchsorted(self.met, keys), len(self.met) - 1)] == keys
            if not (wrong & filled).any():
                break
            others[wrong] = rng.integers(self.n_items, size=int(wrong.sum()))
        return others
