"""What adding tokens to a language model needs to know of them: their names, and what their new rows start from.

Semantic IDs, cluster tokens and entity names are all such sources, so `extend` treats them alike.

N items, L levels, K codes in a level, d dims of a code's vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from semid.ledger.ledger import Ledger

__all__ = ["TokenBlock", "TokenSource"]


class TokenBlock(Protocol):
    """The names of the tokens: all codes of level 0, then of level 1, and so on, then the markers.

    `Vocabulary` is the usual one.
    """

    @property
    def OTHER_NAMES(self) -> str:  # noqa: N802
        """What errors advise where the names are taken."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each level."""

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 [L + 1]: where each level begins in `tokens`, and where the last one ends."""

    @property
    def tokens(self) -> list[str]:
        """All names in the order of their token ids."""

    def __len__(self) -> int:
        """Return the number of tokens, markers included."""

    def text(self, codes: Sequence[int], /) -> str:
        """One ID as text."""

    def token_ids(self, codes: npt.ArrayLike, base: int) -> npt.NDArray[np.int64]:
        """int64 [N, L]: the token ids of codes [N, L], where the first token has the id `base`."""


class TokenSource(Protocol):
    """Tokens that `extend` can add to a tokenizer and its model."""

    @property
    def kind(self) -> str:
        """What the tokens stand for; of artifacts, the `kind` in `semid.json`."""

    @property
    def vocabulary(self) -> TokenBlock:
        """The names of the tokens."""

    @property
    def ledger(self) -> Ledger | None:
        """The items under the codes, whose texts new rows can start from; None where the codes are not of items."""

    @property
    def level_vectors(self) -> Sequence[npt.NDArray[np.floating]] | None:
        """The vectors of the codes: L arrays float [K, d], with d = 0 for a level without any; None for no vectors."""
