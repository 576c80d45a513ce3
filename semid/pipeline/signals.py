"""What IDs should agree with besides the text: behavior, and a language model's words. All off by default.

- `behavior`: vectors of who met what (`encoders/collaborative.py`) beside the text vectors, see
  `semid/train/fusion.py`.
- `collaborative`: items that users met near each other are drawn together while the RQ-VAE trains.
- `llm`: centroids and codes are drawn to a frozen language model's input embeddings of the items' texts.

The last two are losses, see `train/auxiliary.py`. Only training interactions are learned from: `split` says which.

Not here: the command, and reading the model (`semid/encoders/input_embeddings.py`).
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
from semid.data.interactions import Interactions, read_interactions
from semid.data.items import Items
from semid.data.splits import Split, training_edges
from semid.encoders.collaborative import BehaviorVectors, WalkConfig, learn_behavior
from semid.errors import ConfigError, InputError
from semid.runtime.distributed import one_process_only
from semid.runtime.tables import RowTable, Tables
from semid.train.auxiliary import CoOccurrence, Guide, SpokenText
from semid.train.fusion import fuse

__all__ = ["Guidance", "options_of", "unseen_interactions"]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """The choices; weights of 0 are off.

    Parameters
    ----------
    behavior : of behavior against text; 1 lets both say as much
    collaborative : of the loss on items that were met near each other
    llm : folder of a language model, of which the tokenizer and the input embedding are read
    llm_weight : of the loss towards it
    split : what is not learned from, see `training_edges`
    walks : how behavior vectors are learned; their seed is that of the config

    >>> Guidance(behavior=-1)
    Traceback (most recent call last):
    semid.errors.ConfigError: behavior=-1 should be a number, 0 (off) or above.
    """

    behavior: float = 0.0
    collaborative: float = 0.0
    llm: str | None = None
    llm_weight: float = 0.3
    split: Split = "leave-one-out"
    walks: WalkConfig = field(default_factory=WalkConfig)

    def __post_init__(self) -> None:
        for name in ("behavior", "collaborative", "llm_weight"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < np.inf:
                raise ConfigError(f"{name}={value!r} should be a number, 0 (off) or above.")
        if self.split not in get_args(Split):
            raise ConfigError(f"split={self.split!r} should be one of {', '.join(get_args(Split))}.")
        if self.llm is not None and not isinstance(self.llm, str):
            raise ConfigError(f"llm={self.llm!r} should be a string, the folder of a language model.")

    @property
    def uses_interactions(self) -> bool:
        """Whether anything is learned from interactions."""
        return self.behavior > 0 or self.collaborative > 0

    @property
    def losses(self) -> bool:
        """Whether anything is added to the loss."""
        return self.collaborative > 0 or (self.llm is not None and self.llm_weight > 0)

    def __bool__(self) -> bool:
        return self.uses_interactions or self.losses

    @property
    def extra_dims(self) -> int:
        """E, how much wider vectors get."""
        return self.walks.dim if self.behavior > 0 else 0

    def edges(self, config: SemanticIDConfig, interactions: Any) -> Interactions | None:
        """The interactions to learn from, of a path or Interactions; None where there are none to learn from.

        ConfigError for choices that do not go together, or lack interactions; InputError for a folder without a model.
        """
        if not self:
            return None
        one_process_only("Alignment")
        if self.losses and (config.method != "rqvae" or config.epochs == 0):
            raise ConfigError(
                f"method={config.method!r}, epochs={config.epochs}: collaborative and llm are losses of the RQ-VAE's "
                "training. Use method='rqvae' and at least one epoch, or behavior alone."
            )
        if self.llm is not None and not (Path(self.llm) / "config.json").is_file():  # or it shows only after embedding
            raise InputError(f"llm={self.llm!r}: no config.json there; expected a language model's folder.")
        if not self.uses_interactions:
            return None
        if interactions is None:
            name = "behavior" if self.behavior > 0 else "collaborative"
            raise ConfigError(f"{name}={getattr(self, name)} needs interactions to learn from. Give them too.")
        if self.split == "own" and isinstance(interactions, Interactions):
            raise ConfigError("split='own' needs the file itself, which says what is held out. Give its path.")
        return training_edges(read_interactions(interactions), self.split, source=interactions)

    def prepare(
        self,
        items: Items,
        vectors: RowTable,
        edges: Interactions | None,
        tables: Tables,
        *,
        seed: int = 0,
        progress: bool = False,
    ) -> tuple[RowTable, list[Guide]]:
        """What to learn from instead of the vectors [N, D], and the guides; both as they were where all is off.

        Parameters
        ----------
        edges : the interactions to learn from
        tables : makes the table of fused vectors
        """
        inputs, guides = vectors, []
        if self.behavior > 0:
            learned = learn_behavior(edges, replace(self.walks, seed=seed))
            behavior, met = _of_catalog(learned, edges, items.ids)
            inputs = fuse(vectors, behavior, met, weight=self.behavior, tables=tables, seed=seed)
        if self.collaborative > 0:
            met, weight = edges.map_to(items.ids), float(self.collaborative)
            guides.append(CoOccurrence.of_histories(met.offsets, met.rows, len(items), weight=weight))
        if self.llm is not None and self.llm_weight > 0:
            from semid.encoders.input_embeddings import mean_text_rows

            rows = mean_text_rows(self.llm, items.texts())
            guides.append(SpokenText(rows, float(self.llm_weight)))
        return inputs, guides

    def in_words(self, edges: Interactions | None) -> str:
        """For a line to people."""
        parts = [] if edges is None else [f"{len(edges.items):,} training interactions"]
        if self.llm is not None and self.llm_weight > 0:
            parts.append(f"the words of {self.llm}")
        return " and ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self) | {"walks": self.walks.to_dict()}


def options_of(noted: Mapping[str, Any]) -> str:
    """The options of the command line that ask for the same again, of `Guidance.to_dict` as an artifact noted it.

    >>> options_of(Guidance(behavior=1.5).to_dict())
    '--interactions HISTORIES --fuse-behavior 1.5'
    """
    given = {
        "--fuse-behavior": noted.get("behavior"),
        "--align-collaborative": noted.get("collaborative"),
        "--align-llm": noted.get("llm"),
        "--align-llm-weight": noted.get("llm_weight") if noted.get("llm") else None,
    }
    words = [f"{option} {shlex.quote(str(value))}" for option, value in given.items() if value]
    if noted.get("behavior") or noted.get("collaborative"):
        split = noted.get("split", "leave-one-out")
        words = ["--interactions HISTORIES", *words, *([] if split == "leave-one-out" else [f"--split {split}"])]
    return " ".join(words)


def unseen_interactions(log: Interactions, edges: Interactions) -> Interactions:
    """What of each history does not belong to the training edges, which are its first part.

    >>> from semid.data.interactions import read_interactions
    >>> log = read_interactions([{"user": "u", "items": ["a", "b", "c", "d"]}])
    >>> unseen_interactions(log, training_edges(log)).history(0)
    ['c', 'd']
    """
    lengths = np.diff(log.offsets)
    place = np.arange(len(log.items)) - np.repeat(log.offsets[:-1], lengths)
    seen = np.diff(edges.offsets)
    offsets = np.concatenate([[0], np.cumsum(lengths - seen)])
    return Interactions(log.users, log.item_ids, offsets, log.items[place >= np.repeat(seen, lengths)], log.source)


def _of_catalog(
    learned: BehaviorVectors, edges: Interactions, item_ids: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Behavior vectors in the order of `item_ids`, and how often each item was met."""
    place = {item_id: row for row, item_id in enumerate(edges.item_ids)}
    rows = np.array([place.get(item_id, -1) for item_id in item_ids], np.int64)
    met = np.where(rows >= 0, np.bincount(edges.items, minlength=len(edges.item_ids))[rows], 0)
    return np.where((met > 0)[:, None], learned.items[rows], np.float32(0)), met
