"""Codebooks for a changed catalog, and codes under names that the old codes gave: the learning half of a refit.

Three means, each of which costs little distortion, make items keep their codes and codes their items: old centroids
move to where the items are now (`train/warm_start.py`), new codes are named after the old ones with the same items
(`train/match_codes.py`), and an item keeps its code where another is hardly nearer (`train/keep_codes.py`).

Knows nothing of items, encoders and artifacts: vectors and codes in, codebooks and codes out. N items, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.assign.stable import assign_keeping, with_old_ids
from semid.assign.unique import Assignment
from semid.config import SemanticIDConfig
from semid.errors import ConfigError
from semid.pipeline.encode import Encoded, encode_table
from semid.pipeline.learn import SAMPLE, balanced, exact_device, learn_codebooks, learning_device
from semid.quantize.codebooks import Codebooks
from semid.runtime.arrays import sample_rows
from semid.runtime.tables import RowTable, Tables
from semid.train.auxiliary import Guide
from semid.train.keep_codes import NO_CODE, staying_codes
from semid.train.lloyd import rounds_on
from semid.train.match_codes import in_order_among_equals, match_levels, permuted, renamed
from semid.train.warm_start import go_on, with_tables

__all__ = ["Choices", "Relearning"]

Learn = Literal["warm", "fresh"]
Codes = npt.NDArray[np.int32]
Advance = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How to refit; ConfigError for what does not go together.

    Parameters
    ----------
    learn : "warm" keeps the encoder and goes on from the old codebooks; "fresh" learns everything again.
    align : name new codes after old ones, and let items keep their codes within the slack.
    keep_prefix : leading levels that stay as they are, with the codes that surviving items have there.
    slack : by what share of a level's mean squared error an old code may be farther than the nearest and be kept.
    """

    learn: Learn = "warm"
    align: bool = True
    keep_prefix: int = 0
    slack: float = 0.1

    def __post_init__(self) -> None:
        if self.learn not in get_args(Learn):
            raise ConfigError(f"learn={self.learn!r} should be {' or '.join(get_args(Learn))}.")
        if self.keep_prefix and self.learn == "fresh":
            raise ConfigError(
                f"keep_prefix={self.keep_prefix} keeps codebooks, learn=fresh drops them. Use learn=warm."
            )
        if not 0 <= self.slack < np.inf:
            raise ConfigError(f"slack={self.slack} should be a number from 0, such as 0.1.")

    def check(self, config: SemanticIDConfig) -> None:
        """ConfigError if IDs with these settings cannot be refitted like this."""
        depth = len(config.sizes)
        if not 0 <= self.keep_prefix < depth:
            raise ConfigError(
                f"keep_prefix={self.keep_prefix} should be 0 to {depth - 1}: there are {depth} levels. "
                "To keep all codes, use semid add."
            )
        if self.keep_prefix and (config.encode_beam > 1 or config.assign != "local"):
            raise ConfigError(
                f"keep_prefix={self.keep_prefix} does not go with encode_beam={config.encode_beam}, "
                f"assign={config.assign}: those choose prefixes anew. Leave it out."
            )


@dataclass(frozen=True)
class Relearning:
    """What a refit starts from, for the N items of the new catalog."""

    old_codes: Codes  # [N, L_old]; NO_CODE for new items
    old_sizes: tuple[int, ...]
    old: Codebooks | None  # to go on from; None: learn afresh
    config: SemanticIDConfig
    choices: Choices

    @property
    def survives(self) -> npt.NDArray[np.bool_]:
        """bool [N]: the items that had codes."""
        return self.old_codes[:, 0] != NO_CODE

    def learn(self, vectors: RowTable, guides: Sequence[Guide] = (), *, verbose: bool = False) -> tuple[Codebooks, Any]:
        """Codebooks for vectors [N, D] under names of their own, and what the learner's training did, or None.

        Of a large catalog a sample is learned from, as in a first fit. Guides are for learning afresh.
        """
        if self.old is None:
            return learn_codebooks(vectors, self.config, verbose, guides)
        rows = self._sample(len(vectors))
        seen, frozen, fixed = vectors[rows], self.choices.keep_prefix, None
        if frozen:
            shares = self._shares(self.old, 0.0)
            fixed = staying_codes(self.old.latents(seen), self.old, self.old_codes[rows], shares)[:, :frozen]
        with rounds_on(learning_device(self.config)):
            codebooks = go_on(self.old, seen, fixed, seed=self.config.seed)
        if self.config.uniform == "catalog":
            codebooks = balanced(codebooks, seen, exact_device(self.config.device))
        return codebooks, None

    def encode(
        self, codebooks: Codebooks, vectors: RowTable, tables: Tables, *, advance: Advance | None = None
    ) -> tuple[Codebooks, Encoded]:
        """Codebooks under the names that they shall have; latents and codes of vectors [N, D], which may collide."""
        beam, device = self.config.encode_beam, exact_device(self.config.device)
        encoded = encode_table(codebooks, vectors, tables, beam=beam, device=device, advance=advance)
        if self.choices.keep_prefix:
            encoded = self._staying(codebooks, encoded, slack=0.0)
        if not self.choices.align:
            return codebooks, encoded
        names = in_order_among_equals(codebooks, self._names(codebooks, encoded.codes))
        codebooks, encoded = permuted(codebooks, names), replace(encoded, codes=renamed(encoded.codes, names))
        if self.choices.slack and beam == 1:  # a beam does not choose level by level
            encoded = self._staying(codebooks, encoded, slack=self.choices.slack)
            rows = self._sample(len(vectors))
            codebooks = with_tables(codebooks, vectors[rows], encoded.codes[rows])
        return codebooks, encoded

    def assign(self, codebooks: Codebooks, encoded: Encoded) -> Assignment:
        """An ID for every item; survivors keep the prefixes to keep, and among identical items their old IDs."""
        if self.config.assign == "global":
            from semid.assign.global_search import assign_global

            found = assign_global(encoded.latents, encoded.codes, codebooks.levels)
        else:
            depth = self.choices.keep_prefix
            found = assign_keeping(encoded.latents, encoded.codes, codebooks, self.survives, depth)
        if not self.choices.align:
            return found
        return with_old_ids(found, encoded.codes, self.old_codes, encoded.latents, codebooks)

    def _sample(self, n_items: int) -> npt.NDArray[np.int64]:
        """The rows to learn from."""
        rows = sample_rows(n_items, SAMPLE, self.config.seed)
        return np.arange(n_items) if rows is None else rows

    def _staying(self, codebooks: Codebooks, encoded: Encoded, *, slack: float) -> Encoded:
        codes = staying_codes(encoded.latents, codebooks, self.old_codes, self._shares(codebooks, slack))
        return replace(encoded, codes=codes)

    def _shares(self, codebooks: Codebooks, slack: float) -> list[float]:
        """The slack of each level: without bound where codes are to be kept."""
        frozen = self.choices.keep_prefix
        return [np.inf] * frozen + [slack] * (len(codebooks.levels) - frozen)

    def _names(self, codebooks: Codebooks, codes: Codes) -> list[npt.NDArray[np.int64]]:
        distances = None
        if self.old is not None:
            pairs = zip(self.old.levels, codebooks.levels, strict=True)
            distances = [_squared_distances(one, other) for one, other in pairs]
        old_codes, codes = self.old_codes[self.survives], codes[self.survives]
        names = match_levels(old_codes, codes, self.old_sizes, codebooks.sizes, distances=distances)
        for level in range(self.choices.keep_prefix):
            names[level] = np.arange(codebooks.sizes[level])
        return names


def _squared_distances(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of centroids [K, d] and [M, d]: float64 [K, M]."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    squares = np.einsum("kd,kd->k", one, one)[:, None] + np.einsum("kd,kd->k", other, other)
    return np.maximum(squares - 2 * one @ other.T, 0)
