"""The learning half of a refit: codebooks for a changed catalog whose codes keep the meaning of the old ones.

Three things, each of which costs little distortion, let items keep their codes and codes their items: old centroids
move to where the items are now (`train/warm_start.py`), each new code gets the number of the old code that has most of
its items (`train/match_codes.py`), and an item keeps its code where another is hardly nearer (`train/keep_codes.py`).

Not here: items, encoders and artifacts (`refit.py`). N items, L levels, D dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.assign.stable import assign_stable, reuse_old_ids
from semid.assign.unique import Assignment
from semid.config import SemanticIDConfig
from semid.errors import ConfigError
from semid.pipeline.encode import Encoded, encode_vectors
from semid.pipeline.learn import SAMPLE, balance_last_level, exact_device, learn_codebooks, learning_device
from semid.quantize.codebooks import Codebooks
from semid.runtime.arrays import sample_rows
from semid.runtime.tables import RowTable, Tables
from semid.train.auxiliary import AuxiliaryTarget
from semid.train.keep_codes import NO_CODE, keep_old_codes
from semid.train.lloyd import lloyd_device
from semid.train.match_codes import in_order_among_equals, match_levels, permuted, renamed
from semid.train.warm_start import continue_codebooks, refit_tables

if TYPE_CHECKING:
    from semid.train.rqvae import Training

__all__ = ["RefitOptions", "RefitStep"]

Init = Literal["warm", "scratch"]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class RefitOptions:
    """How to refit; ConfigError for what does not go together.

    Parameters
    ----------
    init : "warm" or "scratch"
        warm: keep the encoder and continue from the old codebooks; scratch: train from scratch.
    match_codes : bool
        Give each new code the number of the old code with the most of its items, and let items keep their old code
        within the tolerance.
    keep_prefix : int
        Leading levels that stay as they are, with the codes that surviving items have there.
    keep_tolerance : float
        How much farther than the nearest code an old one may be and still be kept, as a share of the level's mean
        squared error.
    """

    init: Init = "warm"
    match_codes: bool = True
    keep_prefix: int = 0
    keep_tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.init not in get_args(Init):
            raise ConfigError(f"init={self.init!r} should be {' or '.join(get_args(Init))}.")
        if self.keep_prefix and self.init == "scratch":
            raise ConfigError(
                f"keep_prefix={self.keep_prefix} keeps codebooks, init='scratch' drops them. Use init='warm'."
            )
        if not 0 <= self.keep_tolerance < np.inf:
            raise ConfigError(f"keep_tolerance={self.keep_tolerance} should be a number from 0, such as 0.1.")

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
class RefitStep:
    """The learning half of a refit: codebooks, codes and IDs for the N items of the new catalog."""

    old_codes: Codes  # [N, L_old]; NO_CODE for new items
    old_sizes: tuple[int, ...]
    old: Codebooks | None  # to continue from; None: train from scratch
    config: SemanticIDConfig
    options: RefitOptions

    @property
    def survives(self) -> npt.NDArray[np.bool_]:
        """Which items had codes, bool [N]."""
        return self.old_codes[:, 0] != NO_CODE

    def learn(self, vectors: RowTable, targets: Sequence[AuxiliaryTarget] = ()) -> tuple[Codebooks, Training | None]:
        """Learn codebooks for vectors [N, D], from a sample of a large catalog, as in a first fit.

        Returns the codebooks, their codes not yet matched with the old ones, and what the training tells, if there was
        one. Auxiliary targets are for training from scratch.
        """
        if self.old is None:
            return learn_codebooks(vectors, self.config, targets)
        rows = self._sample(len(vectors))
        seen, frozen, fixed = vectors[rows], self.options.keep_prefix, None
        if frozen:
            shares = self._tolerances(self.old, 0.0)
            fixed = keep_old_codes(self.old.latents(seen), self.old, self.old_codes[rows], shares)[:, :frozen]
        with lloyd_device(learning_device(self.config)):
            codebooks = continue_codebooks(self.old, seen, fixed, seed=self.config.seed)
        if self.config.uniform == "catalog":
            codebooks = balance_last_level(codebooks, seen, exact_device(self.config.device))
        return codebooks, None

    def encode(self, codebooks: Codebooks, vectors: RowTable, tables: Tables) -> tuple[Codebooks, Encoded]:
        """Return the codebooks with their final numbers, and latents and codes of vectors [N, D], which may collide."""
        beam = self.config.encode_beam
        encoded = encode_vectors(codebooks, vectors, self.config, tables)
        if self.options.keep_prefix:
            encoded = self._kept(codebooks, encoded, tolerance=0.0)
        if not self.options.match_codes:
            return codebooks, encoded
        names = in_order_among_equals(codebooks, self._names(codebooks, encoded.codes))
        codebooks, encoded = permuted(codebooks, names), replace(encoded, codes=renamed(encoded.codes, names))
        if self.options.keep_tolerance and beam == 1:  # a beam does not choose level by level
            encoded = self._kept(codebooks, encoded, tolerance=self.options.keep_tolerance)
            rows = self._sample(len(vectors))
            codebooks = refit_tables(codebooks, vectors[rows], encoded.codes[rows])
        return codebooks, encoded

    def assign(self, codebooks: Codebooks, encoded: Encoded) -> Assignment:
        """Return an ID for every item; survivors keep the prefixes to keep, and among identical items their old IDs."""
        if self.config.assign == "global":
            from semid.assign.global_search import assign_global

            found = assign_global(encoded.latents, encoded.codes, codebooks.levels)
        else:
            depth = self.options.keep_prefix
            found = assign_stable(encoded.latents, encoded.codes, codebooks, self.survives, depth)
        if not self.options.match_codes:
            return found
        return reuse_old_ids(found, encoded.codes, self.old_codes, encoded.latents, codebooks)

    def _sample(self, n_items: int) -> npt.NDArray[np.int64]:
        """Return the rows to learn from."""
        rows = sample_rows(n_items, SAMPLE, self.config.seed)
        return np.arange(n_items) if rows is None else rows

    def _kept(self, codebooks: Codebooks, encoded: Encoded, *, tolerance: float) -> Encoded:
        codes = keep_old_codes(encoded.latents, codebooks, self.old_codes, self._tolerances(codebooks, tolerance))
        return replace(encoded, codes=codes)

    def _tolerances(self, codebooks: Codebooks, tolerance: float) -> list[float]:
        """Return the tolerance of each level: unbounded where codes are to be kept."""
        frozen = self.options.keep_prefix
        return [np.inf] * frozen + [tolerance] * (len(codebooks.levels) - frozen)

    def _names(self, codebooks: Codebooks, codes: Codes) -> list[npt.NDArray[np.int64]]:
        distances = None
        if self.old is not None:
            pairs = zip(self.old.levels, codebooks.levels, strict=True)
            distances = [_squared_distances(one, other) for one, other in pairs]
        old_codes, codes = self.old_codes[self.survives], codes[self.survives]
        names = match_levels(old_codes, codes, self.old_sizes, codebooks.sizes, distances=distances)
        for level in range(self.options.keep_prefix):
            names[level] = np.arange(codebooks.sizes[level])
        return names


def _squared_distances(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of centroids [K, d] and [M, d]: float64 [K, M]."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    squares = np.einsum("kd,kd->k", one, one)[:, None] + np.einsum("kd,kd->k", other, other)
    return np.maximum(squares - 2 * one @ other.T, 0)
