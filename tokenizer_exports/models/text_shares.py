"""What the items under each code say, as shares of a language model's tokens; rows can start from it.

N items, L levels, K codes in a level, V old rows of the model, H dims of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.encoders.checkpoint import Blocks
from semid.encoders.input_embeddings import TEXT_BATCH, first_tokens
from semid.ledger.ledger import Ledger
from semid.runtime.progress import bar
from semid.tokens.source import TokenBlock

if TYPE_CHECKING:
    from scipy.sparse import csc_array
    from transformers import PreTrainedTokenizerBase

__all__ = ["TextShares", "text_token_shares"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_TEXTS = 200_000  # items that are read; of more, so many at even distances: some hundred per code say what it means
PENDING_SHARES = 1 << 21  # (code, token) pairs that are collected before they are summed


@dataclass(frozen=True)
class TextShares:
    """The share of each token in the texts of the items under each code."""

    shares: csc_array  # (sum of K, V) float64 - one row per code; it sums to 1, or to 0 without items
    n_items: Ints  # (sum of K,) - live items with a text under the code

    def mean_rows(self, blocks: Blocks, width: int) -> Floats:
        """Return the mean of the old rows over what the items under each code say: float64 [sum of K, H]."""
        means = np.zeros((self.shares.shape[0], width))
        for start, block in blocks():
            means += self.shares[:, start : start + len(block)] @ block.astype(np.float64)
        return means


def text_token_shares(
    ledger: Ledger, vocabulary: TokenBlock, tokenizer: PreTrainedTokenizerBase, known: npt.NDArray[np.bool_]
) -> TextShares:
    """Tokenize the texts of the live items, and return the shares of the tokens under each code.

    Each item counts once under each of its L codes, and each of its tokens equally.

    Parameters
    ----------
    ledger : Ledger
        The items with their texts. Of more than 200,000 live ones, so many at even distances are read.
    vocabulary : TokenBlock
        Sizes of the levels.
    tokenizer : PreTrainedTokenizerBase
        The model's. It reads the first 64 tokens of each text.
    known : bool [V]
        Tokens with an old row; the others do not count.
    """
    texts = ledger.texts
    assert texts is not None, "check_choices has seen to it"
    live = np.flatnonzero(ledger.live)
    if len(live) > MAX_TEXTS:
        live = live[np.linspace(0, len(live) - 1, MAX_TEXTS).astype(np.int64)]
    codes = vocabulary.token_ids(ledger.codes[live], 0)
    n_codes = sum(vocabulary.sizes)
    shares, counts = _SparseSum(n_codes, len(known)), np.zeros(n_codes, np.int64)
    with bar("reading texts", len(live)) as advance:
        for start in range(0, len(live), TEXT_BATCH):
            batch = live[start : start + TEXT_BATCH].tolist()
            tokens = first_tokens(tokenizer, [texts[row] for row in batch], known)
            lengths = np.array([len(row) for row in tokens])
            of_item = np.repeat(np.arange(len(batch)), lengths)
            flat = np.array([token for row in tokens for token in row], np.int64)
            for of_level in codes[start : start + len(batch)].T:
                shares.add(of_level[of_item], flat, 1 / lengths[of_item])
                counts += np.bincount(of_level[lengths > 0], minlength=len(counts))
            advance(len(batch))
    return TextShares(shares.divided(np.maximum(counts, 1)), counts)


class _SparseSum:
    """A sparse sum [n_codes, V] of many small pieces, added up when they have grown as large as the sum itself."""

    def __init__(self, n_codes: int, n_rows: int) -> None:
        from scipy.sparse import csc_array

        self.total = csc_array((n_codes, n_rows))
        self.pieces: list[tuple[Ints, Ints, Floats]] = []
        self.pending = 0

    def add(self, codes: Ints, tokens: Ints, weights: Floats) -> None:
        self.pieces.append((codes, tokens, weights))
        self.pending += len(codes)
        if self.pending > max(PENDING_SHARES, self.total.nnz):
            self._collect()

    def divided(self, by: Ints) -> csc_array:
        """Return the sum with each row divided by a number."""
        self._collect()
        self.total.data /= by[self.total.indices]
        return self.total

    def _collect(self) -> None:
        from scipy.sparse import coo_array

        if self.pieces:
            codes, tokens, weights = map(np.concatenate, zip(*self.pieces, strict=True))
            self.total = self.total + coo_array((weights, (codes, tokens)), self.total.shape).tocsc()
            self.pieces, self.pending = [], 0
