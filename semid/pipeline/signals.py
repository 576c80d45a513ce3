"""Training signals besides the text: user interactions and LLM embeddings. All off by default.

- `collaborative_fusion`: vectors learned from interactions (`encoders/collaborative.py`) are put beside the text
  vectors, see `train/fusion.py`.
- `collaborative_loss`: a loss pulls items together that users met near each other.
- `llm_loss`: a loss pulls centroids and codes towards a frozen language model's input embeddings of the items' texts.

The losses are part of RQ-VAE training, see `train/auxiliary.py`. Only training interactions are learned from: `split`
says what is held out. N items, D dims.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from semid.config import SemanticIDConfig
from semid.data.interactions import Interactions
from semid.data.items import Items
from semid.data.splits import Split, training_interactions
from semid.encoders.collaborative import BehaviorVectors, WalkConfig, learn_behavior
from semid.errors import ConfigError, InputError
from semid.runtime.checks import check_choice
from semid.runtime.distributed import one_process_only
from semid.runtime.tables import RowTable, Tables
from semid.train.auxiliary import AuxiliaryTarget, CoOccurrenceTarget, TextEmbeddingTarget
from semid.train.fusion import fuse

__all__ = ["Signals", "options_of"]


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The training signals of a fit. A weight of 0 turns a signal off.

    Parameters
    ----------
    collaborative_fusion : float
        Weight of collaborative embeddings relative to text embeddings; at 1 both have the same variance.
    collaborative_loss : float
        Weight of the loss on items that were met near each other, relative to the RQ-VAE's own.
    llm_loss : str, optional
        Folder of a language model, for a loss towards its input embeddings. Its tokenizer and input embedding are read.
    llm_loss_weight : float
        Weight of that loss, relative to the RQ-VAE's own.
    split : {"leave-one-out", "own", "all"}
        Which interactions are held out; see `training_interactions`.
    walks : WalkConfig
        How collaborative embeddings are learned. The seed is that of the fit.

    >>> Signals(collaborative_fusion=-1)
    Traceback (most recent call last):
    semid.errors.ConfigError: collaborative_fusion=-1 should be a number, 0 (off) or above.
    """

    collaborative_fusion: float = 0.0
    collaborative_loss: float = 0.0
    llm_loss: str | None = None
    llm_loss_weight: float = 0.3
    split: Split = "leave-one-out"
    walks: WalkConfig = field(default_factory=WalkConfig)

    def __post_init__(self) -> None:
        for name in ("collaborative_fusion", "collaborative_loss", "llm_loss_weight"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < np.inf:
                raise ConfigError(f"{name}={value!r} should be a number, 0 (off) or above.")
        check_choice("split", self.split, get_args(Split))
        if self.llm_loss is not None and not isinstance(self.llm_loss, str):
            raise ConfigError(f"llm_loss={self.llm_loss!r} should be a string, the folder of a language model.")

    @property
    def uses_interactions(self) -> bool:
        """Whether anything is learned from interactions."""
        return self.collaborative_fusion > 0 or self.collaborative_loss > 0

    @property
    def uses_llm(self) -> bool:
        """Whether there is a loss towards a language model."""
        return self.llm_loss is not None and self.llm_loss_weight > 0

    def __bool__(self) -> bool:
        return self.uses_interactions or self.uses_llm

    @property
    def extra_dims(self) -> int:
        """Dimensions that fusion adds to the vectors."""
        return self.walks.dim if self.collaborative_fusion > 0 else 0

    def check(self, config: SemanticIDConfig, *, interactions: bool) -> None:
        """Check what can be checked before anything is read.

        Parameters
        ----------
        config : SemanticIDConfig
            The settings of the fit.
        interactions : bool
            Whether there are interactions.

        Raises
        ------
        ConfigError
            Settings that do not go together, or missing interactions.
        InputError
            `llm_loss` is not the folder of a model.
        """
        if not self:
            return
        one_process_only("Training with signals")
        if (self.collaborative_loss > 0 or self.uses_llm) and (config.method != "rqvae" or config.epochs == 0):
            raise ConfigError(
                f"method={config.method!r}, epochs={config.epochs}: collaborative_loss and llm_loss are losses of "
                "RQ-VAE training. Use method='rqvae' and at least one epoch, or collaborative_fusion alone."
            )
        if self.llm_loss is not None and not (Path(self.llm_loss) / "config.json").is_file():  # before embedding
            raise InputError(f"llm_loss={self.llm_loss!r}: no config.json there; expected a language model's folder.")
        if self.uses_interactions and not interactions:
            name = "collaborative_fusion" if self.collaborative_fusion > 0 else "collaborative_loss"
            raise ConfigError(f"{name}={getattr(self, name)} needs interactions to learn from. Give them too.")

    def training_interactions(self, log: Interactions | None) -> Interactions | None:
        """Return the interactions to learn from, those that `split` does not hold out; None if no signal uses any."""
        return training_interactions(log, self.split) if log is not None and self.uses_interactions else None

    def inputs(
        self, items: Items, vectors: RowTable, interactions: Interactions | None, tables: Tables, *, seed: int = 0
    ) -> tuple[RowTable, list[AuxiliaryTarget]]:
        """Return the vectors to learn from, and the targets of the losses.

        Parameters
        ----------
        items : Items
            The catalog, N items.
        vectors : float [N, D]
            Vectors of their text. Without fusion these are returned.
        interactions : Interactions, optional
            Those that `training_interactions` returns.
        tables : Tables
            Makes the table of fused vectors.
        seed : int
            Of the collaborative embeddings.
        """
        inputs, targets = vectors, list[AuxiliaryTarget]()
        if interactions is not None and self.collaborative_fusion > 0:
            learned = learn_behavior(interactions, replace(self.walks, seed=seed))
            behavior, met = _of_catalog(learned, interactions, items.ids)
            inputs = fuse(vectors, behavior, met, weight=self.collaborative_fusion, tables=tables, seed=seed)
        if interactions is not None and self.collaborative_loss > 0:
            known, weight = interactions.map_to(items.ids), float(self.collaborative_loss)
            targets.append(CoOccurrenceTarget.of_histories(known.offsets, known.rows, len(items), weight=weight))
        if self.llm_loss is not None and self.uses_llm:
            from semid.encoders.input_embeddings import mean_text_rows

            rows = mean_text_rows(self.llm_loss, items.texts())
            targets.append(TextEmbeddingTarget(rows, float(self.llm_loss_weight)))
        return inputs, targets

    def describe(self, interactions: Interactions | None) -> str:
        """Return the signals in words, for a log line."""
        parts = []
        if interactions is not None and self.collaborative_fusion > 0:
            parts.append(f"collaborative embeddings of {len(interactions.items):,} training interactions")
        if interactions is not None and self.collaborative_loss > 0:
            parts.append(f"collaborative loss on {len(interactions.items):,} training interactions")
        if self.uses_llm:
            parts.append(f"LLM loss towards the input embeddings of {self.llm_loss}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self) | {"walks": self.walks.to_dict()}


def options_of(noted: Mapping[str, Any]) -> str:
    """Return the command line options that ask for the same signals again.

    Parameters
    ----------
    noted : dict
        `Signals.to_dict` as an artifact notes it, under "signals" in its provenance.

    >>> options_of(Signals(collaborative_fusion=1.5).to_dict())
    '--interactions HISTORIES --collaborative-fusion 1.5'
    """
    given = {
        "--collaborative-fusion": noted.get("collaborative_fusion"),
        "--collaborative-loss": noted.get("collaborative_loss"),
        "--llm-loss": noted.get("llm_loss"),
        "--llm-loss-weight": noted.get("llm_loss_weight") if noted.get("llm_loss") else None,
    }
    words = [f"{option} {shlex.quote(str(value))}" for option, value in given.items() if value]
    if noted.get("collaborative_fusion") or noted.get("collaborative_loss"):
        split = noted.get("split", "leave-one-out")
        words = ["--interactions HISTORIES", *words, *([] if split == "leave-one-out" else [f"--split {split}"])]
    return " ".join(words)


def _of_catalog(
    learned: BehaviorVectors, interactions: Interactions, item_ids: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return collaborative embeddings [N, E] in the order of `item_ids`, and how often each item was met [N]."""
    place = {item_id: row for row, item_id in enumerate(interactions.item_ids)}
    rows = np.array([place.get(item_id, -1) for item_id in item_ids], np.int64)
    met = np.where(rows >= 0, np.bincount(interactions.items, minlength=len(interactions.item_ids))[rows], 0)
    return np.where((met > 0)[:, None], learned.items[rows], np.float32(0)), met
