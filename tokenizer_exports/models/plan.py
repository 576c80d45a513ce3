"""Which rows a matrix gets, what they are, and the report: what `extend` and `extend_folder` share.

V old rows, H dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.artifact import kinds
from semid.encoders.checkpoint import Blocks
from semid.errors import ConfigError
from semid.tokenizer_exports.models.add_tokens import add_tokens, highest_id
from semid.tokenizer_exports.models.cluster_rows import centroid_shifts, isometry
from semid.tokenizer_exports.models.init_rows import FROM_TEXTS, Init, init_rows, row_stats
from semid.tokenizer_exports.models.row_report import MatrixRows, report_rows
from semid.tokenizer_exports.models.text_shares import TextShares, text_token_shares
from semid.tokens.source import TokenSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Extended", "Initializer", "NewRows", "Plan"]

CLUSTER_SEED = 1 << 32  # added to the seed for clusters: in one model, theirs and the items' axes should differ


@dataclass(frozen=True)
class Extended:
    """What `extend` added, and where.

    Parameters
    ----------
    base : int
        Token id of the first code.
    n_tokens : int
        Codes of all levels, and markers.
    n_rows : int
        Rows of the embedding now, padding included.
    initialized : bool
        False if tokens and rows were there already, so that nothing was changed.
    init : str
        How the rows started.
    modules : tuple of str
        Names of the embedding, and of the head if it is a matrix of its own.
    matrices : tuple of MatrixRows
        Where the new rows lie in each of them.
    """

    base: int
    n_tokens: int
    n_rows: int
    initialized: bool
    init: str
    modules: tuple[str, ...]
    matrices: tuple[MatrixRows, ...]

    @property
    def token_ids(self) -> range:
        """All new token ids."""
        return range(self.base, self.base + self.n_tokens)

    @property
    def trainable_token_indices(self) -> list[int] | dict[str, list[int]]:
        """For `peft.LoraConfig(trainable_token_indices=...)`: a list of token ids.

        Where input embedding and head are untied it is a dict of both modules: a list alone would leave the new rows of
        the head as they are.
        """
        if len(self.modules) < 2:
            return list(self.token_ids)
        return {name: list(self.token_ids) for name in self.modules}

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {
            "base": self.base,
            "n_tokens": self.n_tokens,
            "n_rows": self.n_rows,
            "initialized": self.initialized,
            "init": self.init,
            "modules": list(self.modules),
            "matrices": [matrix.to_dict() for matrix in self.matrices],
        }

    def summary(self) -> list[str]:
        """Return the same as lines for people."""
        last = self.base + self.n_tokens - 1
        if not self.initialized:
            return [f"{self.n_tokens} tokens, ids {self.base} to {last}: already there, rows unchanged"]
        first = f"{self.n_tokens} tokens, ids {self.base} to {last}; {self.n_rows} rows; init {self.init}"
        return [first, *(line for matrix in self.matrices for line in matrix.summary())]


@dataclass(frozen=True)
class Plan:
    """Which rows a matrix of V rows gets; made once the tokens are in the tokenizer."""

    base: int
    n_tokens: int
    n_rows: int  # afterwards: never fewer than V
    fresh: bool  # the rows of the block are to be initialized
    known: npt.NDArray[np.bool_]  # (V,) - rows of the tokenizer's other tokens

    @classmethod
    def make(
        cls, tokenizer: PreTrainedTokenizerBase, source: TokenSource, n_old_rows: int, pad_to: int, model: str
    ) -> Plan:
        """Add the tokens to the tokenizer and plan the rows.

        Rows are new if their tokens are, or if the matrix ends before the block does. Otherwise the block was there
        and so were its rows: they may be trained, and stay as they are.

        Raises
        ------
        ConfigError
            Tokenizer and model do not belong together (nothing is added then); as `add_tokens`.
        """
        vocabulary = source.vocabulary
        highest, before = highest_id(tokenizer, vocabulary), len(tokenizer)
        if highest >= n_old_rows:
            raise ConfigError(
                f"wrong tokenizer for this model: it has token ids up to {highest}, {model} has {n_old_rows} rows. "
                "Load tokenizer and model from the same folder."
            )
        base = add_tokens(tokenizer, vocabulary)
        end = max(base + len(vocabulary), highest + 1)
        known = np.zeros(n_old_rows, bool)
        ours = range(base, base + len(vocabulary))
        known[[i for i in tokenizer.get_vocab().values() if i not in ours]] = True
        fresh = len(tokenizer) > before or n_old_rows < base + len(vocabulary)
        n_rows = max(n_old_rows, -(-end // pad_to) * pad_to) if fresh else n_old_rows
        return cls(base, len(vocabulary), n_rows, fresh, known)


@dataclass(frozen=True)
class NewRows:
    """What is written into a matrix: the rows of the block, and the one for padding after all tokens."""

    block: npt.NDArray[np.float32]  # (n_tokens, H)
    padding: npt.NDArray[np.float32]  # (H,) - the mean: its logit is never the largest
    report: MatrixRows


class Initializer:
    """Makes the new rows of any matrix of one model; the texts of the items are read once."""

    def __init__(
        self,
        source: TokenSource,
        tokenizer: PreTrainedTokenizerBase,
        plan: Plan,
        *,
        init: Init,
        alpha: float,
        seed: int,
    ) -> None:
        self.source, self.tokenizer, self.plan = source, tokenizer, plan
        self.init, self.alpha, self.seed = init, alpha, seed
        self.texts: TextShares | None = None
        if plan.fresh and init in FROM_TEXTS and source.ledger is not None:
            self.texts = text_token_shares(source.ledger, source.vocabulary, tokenizer, plan.known)

    def __call__(self, matrix: str, blocks: Blocks) -> NewRows:
        """Return the new rows of the matrix ("input" or "head") whose old rows are `blocks`."""
        stats = row_stats(blocks, self.plan.known)
        vocabulary, levels = self.source.vocabulary, self.source.level_vectors
        if levels is None:  # no geometry: codes without items get distinct random rows
            levels = [np.zeros((size, 0), np.float32) for size in vocabulary.sizes]
        seed = self.seed + (CLUSTER_SEED if self.source.kind == kinds.CLUSTERS else 0)
        rows = init_rows(vocabulary, levels, stats, init=self.init, seed=seed, texts=self.texts, blocks=blocks)
        if self.alpha and matrix == "input":  # as in META ID: where tokens are read, not where they are predicted
            projection = isometry(rows.shape[1], levels[0].shape[1], length=stats.norm, seed=self.seed)
            rows += centroid_shifts(self.source, projection, alpha=self.alpha)
        report = report_rows(matrix, rows, stats, vocabulary, blocks, self.plan.known, self._names)
        return NewRows(rows, stats.mean.astype(np.float32), report)

    def _names(self, token_ids: list[int]) -> list[str]:
        return [str(name) for name in self.tokenizer.convert_ids_to_tokens(token_ids)]
