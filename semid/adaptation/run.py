"""adapt: items, interactions and a language model in; a model whose vectors know behavior out.

    texts -> frozen vectors -> an adapter learned from pairs of items      seconds; or
    texts -> the language model itself is trained (`language_model.py`)    -> vectors
    -> the best step, judged by the next items of some users -> a folder, a report, perhaps vectors in a file

Learned from are training interactions only, without the last one of the users who judge. N items, D dims.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid._version import __version__
from semid.adaptation.adapter import Learned, apply_layers
from semid.adaptation.attributes import AttributeViews
from semid.adaptation.behavior import Behavior
from semid.adaptation.config import AdaptConfig
from semid.adaptation.folder import add_layers, check_adapted_output, sentence_folder, write_report
from semid.adaptation.layers import learn_layers
from semid.adaptation.report import Scores, neighbors_kept, whitened
from semid.adaptation.vectors import check_vectors_output, write_vectors
from semid.adaptation.workspace import opened_workspace, run_identity
from semid.artifact.staging import staged_folder
from semid.data.interaction_reader import read_interactions
from semid.data.items import Items, read_items
from semid.encoders.language_models import model_folder, sha256_of_model
from semid.encoders.neural import NeuralEncoder
from semid.errors import ConfigError
from semid.runtime.distributed import from_writer, one_process_only
from semid.runtime.progress import log_step

if TYPE_CHECKING:
    from semid.adaptation.language_model import TrainedModel

__all__ = ["Adapted", "adapt"]


KEPT = 0.6  # of the nearest items, below which IDs lost over 5 % of their neighbor recall (docs/benchmarks.md)
LOSS = 0.95  # of the plain vectors' Recall@10, below which adapting did harm

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adapted:
    """What `adapt` did.

    Parameters
    ----------
    folder : Path
        The sentence-transformers model that was written.
    better : bool
        Whether any step was judged better than the start. If not, the folder gives the base model's vectors.
    scores : dict of str to Scores
        Next-item figures of plain, whitened and adapted vectors, by name; empty without interactions.
    report : dict
        The content of `semid_adapt.json`.
    vectors : Path, optional
        The file of item vectors that was written.
    """

    folder: Path
    better: bool
    scores: dict[str, Scores]
    report: dict[str, Any] = field(repr=False)
    vectors: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data for programs: the report and where things are."""
        vectors = None if self.vectors is None else str(self.vectors)
        return {"folder": str(self.folder), "vectors": vectors, "better": self.better} | self.report

    def lines(self) -> list[str]:
        """Return the figures and what they say, as lines to print."""
        lines = []
        if self.scores:
            kinds = next(iter(self.scores.values()))
            head = "".join(f"{f'{kind} ({count:,})':>16}" for kind, count in kinds.n.items())
            lines += [f"{'R@10 / NDCG@10, %':20}{head}"]
            lines += [f"{name:20}{scores.line()}" for name, scores in self.scores.items()]
        lines += self.warnings()
        return lines

    def warnings(self) -> list[str]:
        """Return what one should know before using the vectors, in sentences."""
        lines = []
        recall = {name: found.recall["all"] or 0.0 for name, found in self.scores.items()}
        if recall and self.better and recall["adapted"] < LOSS * recall["plain"]:
            lines.append(
                f"Adapted vectors predict held-out items worse than plain ones ({recall['adapted']:.2%} against "
                f"{recall['plain']:.2%}): use the base model, or give more interactions."
            )
        if recall and recall["whitened"] >= recall["adapted"]:
            lines.append(
                f"Whitening alone reaches {recall['whitened']:.2%}: for search by cosine write vectors with --vectors, "
                "which are whitened. For semantic IDs use the folder; whitened vectors make worse ones."
            )
        kept = self.report["neighbors_kept"]
        if kept < KEPT:
            lines.append(
                f"Adapted vectors keep {kept:.0%} of the items that are nearest by plain ones, so IDs will follow the "
                "text less. Use fewer --steps if they should follow it."
            )
        if not self.better:
            lines.append("No step was better than the start, so the folder gives the vectors of the base model.")
        return lines


def adapt(
    items: Items | str | os.PathLike[str] | Iterable[Mapping[str, object]],
    model: str | os.PathLike[str],
    *,
    interactions: Any = None,
    config: AdaptConfig | None = None,
    output: str | os.PathLike[str],
    vectors: str | os.PathLike[str] | None = None,
    pad_row: bool = False,
    force: bool = False,
    resume: bool = False,
) -> Adapted:
    """Adapt a language model to a catalog, and write it as an ordinary sentence-transformers folder.

    Parameters
    ----------
    items : Items, or a source
        The catalog, as `read_items` takes it.
    model : str or path
        The model's folder or Hub id: a sentence-transformers model, or any other of transformers, whose states are
        pooled.
    interactions : Interactions, or a source, optional
        Who met what, as `read_interactions` takes it; needed to learn `together`.
    config : AdaptConfig, optional
        What is learned and how.
    output : path
        The folder to write. It appears when all is done.
    vectors : path, optional
        Also write the items' vectors, whitened, for other recommenders: `.npy` or `.safetensors`, one row per item in
        the order of the source.
    pad_row : bool
        Put a row of zeros before the first item in that file, so that item i of the source, from 1, is row i.
    force : bool
        Replace what an earlier call wrote.
    resume : bool
        Continue training of a language model that was interrupted.

    Returns
    -------
    Adapted
        Equal inputs, settings and seed give the same folder on one machine.

    Raises
    ------
    InputError
        No interaction with an item of the catalog, too few pairs, items without text or without two attributes, a
        model that cannot be loaded.
    ConfigError
        Settings that do not go together; the lexical encoder, which has nothing to adapt.
    OutputExistsError, DependencyError
        The output exists; a package is missing.
    """
    config, output = config or AdaptConfig(), Path(output)
    _check(model, config, with_interactions=interactions is not None, resume=resume)
    check_adapted_output(output, force)
    target = check_vectors_output(vectors, force)
    base, commit = model_folder(model, None)
    catalog = (items if isinstance(items, Items) else read_items(items)).sorted()
    catalog.require_text()
    log_step("read", f"{len(catalog):,} items; text from {', '.join(catalog.fields)}")
    views = None
    if "attributes" in config.learn:
        views = AttributeViews(catalog, config.attribute_dropout, config.seed, frozen=config.loss == "llmemb")
    behavior = None if interactions is None else Behavior.of(read_interactions(interactions), catalog, config)
    run = _Run(catalog, config, behavior, views)
    sha256 = sha256_of_model(base)
    named = {"name": base.name if commit is None else str(model), "commit": commit, "sha256": sha256}
    with ExitStack() as kept:
        folder, trained = base, None
        if config.train != "adapter":
            identity = run_identity(config, sha256, catalog, None if behavior is None else behavior.pairs)
            workspace = kept.enter_context(opened_workspace(output, identity, resume=resume, force=force))
            folder, trained = run.train(base, workspace, resume)
        return from_writer(lambda: run.write(folder, trained, named, output, target, pad_row=pad_row, force=force))


def _check(model: object, config: AdaptConfig, *, with_interactions: bool, resume: bool) -> None:
    """Raise ConfigError for what does not go together."""
    if str(model) == "lexical":
        raise ConfigError(
            "model='lexical': adapt needs a language model. Use semid fit --collaborative-fusion with lexical vectors."
        )
    if config.train == "adapter":
        one_process_only("An adapter")
        if resume:
            raise ConfigError("resume: an adapter learns in one go, so there is nothing to resume. Leave it out.")
    if "together" in config.learn and not with_interactions:
        raise ConfigError("learn='together' needs interactions. Give them, or learn='attributes'.")
    if config.rat and not with_interactions:
        raise ConfigError("rat=True needs interactions to train a recommender on. Give them.")


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run learns from, and its steps."""

    items: Items
    config: AdaptConfig
    behavior: Behavior | None
    views: AttributeViews | None

    @property
    def judge(self) -> Callable[[Floats], float] | None:
        """Recall@10 of vectors at the judges' next items; None where nobody judges."""
        return None if self.behavior is None else self.behavior.judge(self.config.device)

    def embed(self, folder: Path, texts: list[str] | None = None) -> Floats:
        """Return vectors of the items, or of one text for each of them."""
        items = self.items if texts is None else Items(self.items.ids, {"text": texts})
        return NeuralEncoder(folder, device=self.config.device).transform(items)

    def train(self, base: Path, workspace: Path, resume: bool) -> tuple[Path, TrainedModel]:
        """Train the language model; return the folder that it started from, and what came of it."""
        from semid.adaptation.language_model import train_language_model
        from semid.adaptation.text_pairs import TextPairs

        start = workspace / "start"
        from_writer(lambda: self._start(base, start))
        steps, size, _ = self.config.training()
        texts = self.items.texts()
        pairs = self.behavior.pairs if self.behavior is not None and "together" in self.config.learn else None
        drawn = TextPairs.drawn(texts, size, steps, self.config.seed, pairs=pairs, views=self.views)
        trained = train_language_model(start, texts, drawn, self.config, workspace, judge=self.judge, resume=resume)
        return start, trained

    def _start(self, base: Path, start: Path) -> None:
        shutil.rmtree(start, ignore_errors=True)  # of an interrupted run
        start.mkdir()
        sentence_folder(base, start, self.config)

    def write(
        self,
        start: Path,
        trained: TrainedModel | None,
        base: dict[str, str | None],
        output: Path,
        target: Path | None,
        *,
        pad_row: bool,
        force: bool,
    ) -> Adapted:
        """Embed the items, learn layers on top of the model, and write everything."""
        with staged_folder(output, force, check=check_adapted_output) as draft:
            if trained is None:
                sentence_folder(start, draft, self.config)
            else:
                sentence_folder(trained.folder, draft, replace(self.config, pooling="auto"))
            frozen = self.embed(draft)
            plain = frozen if trained is None or not trained.step else self.embed(start)
            log_step("embed", f"{len(frozen):,} items, {frozen.shape[1]} dims")
            learned = self.learn(draft, frozen) if trained is None or self.config.rat else Learned([], 0)
            adapted = apply_layers(learned.layers, frozen)
            add_layers(draft, learned.layers)
            scores = self.compare(plain, adapted) | learned.others
            better = bool(learned.step or (trained is not None and trained.step))
            stages = {"language model": trained, "adapter": learned if trained is None or self.config.rat else None}
            report = self.report(base, stages, scores) | {"neighbors_kept": round(neighbors_kept(plain, adapted), 3)}
            write_report(draft, report)
            if target is not None:
                made = whitened(adapted)
        if target is not None:
            write_vectors(target, made[np.argsort(self.items.rows)], pad_row=pad_row)
            log_step("vectors", f"{len(made):,} items, {made.shape[1]} dims, whitened: {target}")
        log_step("saved", str(output))
        return Adapted(output, better, scores, report, target)

    def learn(self, folder: Path, frozen: Floats) -> Learned:
        """Learn layers on top of frozen vectors."""
        embed = partial(self.embed, folder)
        return learn_layers(frozen, self.config, behavior=self.behavior, views=self.views, embed=embed)

    def compare(self, plain: Floats, adapted: Floats) -> dict[str, Scores]:
        """Return next-item figures of plain, whitened and adapted vectors; none without interactions."""
        if self.behavior is None or not len(self.behavior.reported):
            return {}
        made = {"plain": plain, "whitened": whitened(plain), "adapted": adapted, "adapted, whitened": whitened(adapted)}
        reported = self.behavior.reported
        return {name: reported.scores(vectors, self.config.device) for name, vectors in made.items()}

    def report(
        self,
        base: dict[str, str | None],
        stages: Mapping[str, TrainedModel | Learned | None],
        scores: Mapping[str, Scores],
    ) -> dict[str, Any]:
        """Return the content of `semid_adapt.json`: no path, no user, no time."""
        done = {
            name: {
                "kept_step": stage.step,
                "steps": [
                    {"step": step, "loss": _finite(loss), "recall@10": _finite(score) if self.judge else None}
                    for step, loss, score in stage.scores
                ],
            }
            for name, stage in stages.items()
            if stage is not None
        }
        counts = {"items": len(self.items)} | ({} if self.behavior is None else self.behavior.counts)
        return {
            "semid": __version__,
            "base": base,
            "config": self.config.to_dict(),
            "counts": counts,
            "pairs_sha256": None if self.behavior is None else self.behavior.pairs.sha256,
            "training": done,
            "next_item": {name: found.to_dict() for name, found in scores.items()},
        }


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
