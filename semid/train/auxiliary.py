"""Guides: what else the RQ-VAE's codes should agree with, besides the vectors they are learned from.

    CoOccurrence : items that users met near each other      -> InfoNCE between them
    SpokenText   : how a language model spells each item's text -> centroids and codes near it

A guide is plain arrays, one entry per item of what `RQVAE.fit` learns from, and a weight. The losses themselves are in
`auxiliary_losses.py`. N items, L levels, H dims of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError

__all__ = ["CoOccurrence", "Guide", "SpokenText"]

WINDOW = 3  # how far apart two items of a history are neighbors at most, as in the walks of `embed.behavior`


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """For each item the items that were met near it, as often as they were.

    Parameters
    ----------
    offsets : int64 [N + 1]
        Item i was met near `rows[offsets[i]:offsets[i + 1]]`.
    rows : int64 [n]
    weight : of the loss against the RQ-VAE's own
    temperature : of the cosines; lower asks for more distance to items that were not met near
    """

    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    weight: float
    temperature: float = 0.5

    def __post_init__(self) -> None:
        _check_positive(weight=self.weight, temperature=self.temperature)

    @classmethod
    def of_histories(
        cls,
        offsets: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        n_items: int,
        *,
        weight: float,
        window: int = WINDOW,
    ) -> CoOccurrence:
        """From histories in rows of the items, -1 for others; see `interactions.Histories`.

        >>> guide = CoOccurrence.of_histories(np.array([0, 3]), np.array([2, 0, 2]), 3, weight=1.0)
        >>> guide.offsets.tolist(), guide.rows.tolist()
        ([0, 2, 2, 4], [2, 2, 0, 0])
        """
        user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        pairs = []
        for apart in range(1, window + 1):
            before, after = rows[:-apart], rows[apart:]
            kept = (user[:-apart] == user[apart:]) & (before >= 0) & (after >= 0) & (before != after)
            pairs += [(before[kept], after[kept]), (after[kept], before[kept])]
        return cls(*_grouped(*(np.concatenate(side) for side in zip(*pairs, strict=True)), n_items), weight)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, kept: npt.NDArray[np.integer]) -> CoOccurrence:
        """The same for some of the items, by ascending rows; pairs with others are dropped."""
        number = np.full(len(self), -1, np.int64)
        number[kept] = np.arange(len(kept))
        near = np.repeat(number, np.diff(self.offsets))
        far = number[self.rows]
        both = (near >= 0) & (far >= 0)
        return CoOccurrence(*_grouped(near[both], far[both], len(kept)), self.weight, self.temperature)


@dataclass(frozen=True, eq=False)
class SpokenText:
    """For each item the mean of a frozen language model's input embeddings over the tokens of its text.

    Parameters
    ----------
    vectors : float32 [N, H]; see `tokenizer_exports.text_rows`
    weight : of the loss against the RQ-VAE's own
    temperature : of the cosines of the contrastive part
    """

    vectors: npt.NDArray[np.float32]
    weight: float
    temperature: float = 0.5

    def __post_init__(self) -> None:
        _check_positive(weight=self.weight, temperature=self.temperature)

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, kept: npt.NDArray[np.integer]) -> SpokenText:
        """The same for some of the items."""
        return SpokenText(self.vectors[kept], self.weight, self.temperature)


Guide = CoOccurrence | SpokenText


def _grouped(
    near: npt.NDArray[np.int64], far: npt.NDArray[np.int64], n_items: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets and rows of pairs, by their first side."""
    order = np.argsort(near, kind="stable")
    offsets = np.zeros(n_items + 1, np.int64)
    np.cumsum(np.bincount(near, minlength=n_items), out=offsets[1:])
    return offsets, far[order]


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < np.inf:
            raise ConfigError(f"{name}={value!r} should be a number above 0.")
