"""Auxiliary targets of RQ-VAE training: what the codes should agree with besides the vectors they are learned from.

    CoOccurrenceTarget   items that users met near each other      -> InfoNCE between them
    TextEmbeddingTarget  an LLM's input embeddings of each item's text -> centroids and codes near them

A target is plain arrays, one entry per row that `RQVAE.fit` learns from, and a weight. The losses are in
`auxiliary_losses.py`. N items, L levels, H dims of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError

__all__ = ["AuxiliaryTarget", "CoOccurrenceTarget", "TextEmbeddingTarget"]

WINDOW = 3  # two items of a history are neighbors up to this distance, as in the walks of `encoders/collaborative.py`


@dataclass(frozen=True, eq=False)
class CoOccurrenceTarget:
    """For each item, the items that users met near it, each as often as it was met.

    Parameters
    ----------
    offsets : int64 [N + 1]
        Item i was met near the items `rows[offsets[i]:offsets[i + 1]]`.
    rows : int64 [n]
    weight : float
        Of the loss relative to the RQ-VAE's own.
    temperature : float
        Of the cosines. A lower one asks for more distance to items that were not met nearby.
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
    ) -> CoOccurrenceTarget:
        """Return the target for histories (`data.interactions.Histories`).

        Parameters
        ----------
        offsets : int64 [U + 1]
            The history of user u is `rows[offsets[u]:offsets[u + 1]]`, oldest first.
        rows : int64 [n]
            Rows of the items; -1 for other items.
        n_items : int
            N.
        weight : float
            See the class.
        window : int
            Two items of a history are neighbors up to this distance.

        >>> target = CoOccurrenceTarget.of_histories(np.array([0, 3]), np.array([2, 0, 2]), 3, weight=1.0)
        >>> target.offsets.tolist(), target.rows.tolist()
        ([0, 2, 2, 4], [2, 2, 0, 0])
        """
        user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        pairs = []
        for apart in range(1, window + 1):
            before, after = rows[:-apart], rows[apart:]
            kept = (user[:-apart] == user[apart:]) & (before >= 0) & (after >= 0) & (before != after)
            pairs += [(before[kept], after[kept]), (after[kept], before[kept])]
        near, far = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return cls(*_grouped(near, far, n_items), weight)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, kept: npt.NDArray[np.integer]) -> CoOccurrenceTarget:
        """Return the target for some of the items, by ascending rows; pairs with other items are dropped."""
        number = np.full(len(self), -1, np.int64)
        number[kept] = np.arange(len(kept))
        near = np.repeat(number, np.diff(self.offsets))
        far = number[self.rows]
        both = (near >= 0) & (far >= 0)
        return CoOccurrenceTarget(*_grouped(near[both], far[both], len(kept)), self.weight, self.temperature)


@dataclass(frozen=True, eq=False)
class TextEmbeddingTarget:
    """For each item, the mean of a frozen language model's input embeddings over the tokens of its text.

    Parameters
    ----------
    vectors : float32 [N, H]
        From `encoders.mean_text_rows`.
    weight : float
        Of the loss relative to the RQ-VAE's own.
    temperature : float
        Of the cosines of the contrastive part.
    """

    vectors: npt.NDArray[np.float32]
    weight: float
    temperature: float = 0.5

    def __post_init__(self) -> None:
        _check_positive(weight=self.weight, temperature=self.temperature)

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, kept: npt.NDArray[np.integer]) -> TextEmbeddingTarget:
        """Return the target for some of the items."""
        return TextEmbeddingTarget(self.vectors[kept], self.weight, self.temperature)


AuxiliaryTarget = CoOccurrenceTarget | TextEmbeddingTarget


def _grouped(
    near: npt.NDArray[np.int64], far: npt.NDArray[np.int64], n_items: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Group pairs by their first side: offsets int64 [N + 1] and the second sides."""
    order = np.argsort(near, kind="stable")
    offsets = np.zeros(n_items + 1, np.int64)
    np.cumsum(np.bincount(near, minlength=n_items), out=offsets[1:])
    return offsets, far[order]


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < np.inf:
            raise ConfigError(f"{name}={value!r} should be a number above 0.")
