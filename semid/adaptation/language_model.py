"""Train a language model itself on pairs of texts: with low-rank changes (LoRA) that are merged at the end, or whole.

Libraries do the work: sentence-transformers' trainer and losses, peft for LoRA, accelerate for devices and processes.
Here are the choice of the best step and the model that leaves; how training is set up is in `trainer.py`. The batches
are drawn before it starts (`text_pairs.py`), so a run that is resumed goes on with the next one and ends with the same
bits as one that was never interrupted.

A model's last layers that only scale vectors to unit length are left out while it learns: InfoNCE compares cosines, and
LLMEmb's loss wants lengths. N items, D dims.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.adaptation.config import AdaptConfig
from semid.adaptation.text_pairs import TextPairs
from semid.encoders.language_models import usable_device
from semid.errors import DependencyError
from semid.runtime.arrays import unit_rows
from semid.runtime.distributed import local_rank, one_process_only, world
from semid.runtime.progress import bar, log_step

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer

__all__ = ["TrainedModel", "train_language_model"]

LORA_DROPOUT = 0.1  # as published
ENCODED = 64  # texts of a forward pass when the items are judged

Floats = npt.NDArray[np.float32]
Judge = Callable[[Floats], float]


@dataclass(frozen=True)
class TrainedModel:
    """A language model after training, and how it went.

    Parameters
    ----------
    folder : Path
        A sentence-transformers model, of the step with the best score; the given one if that is the start.
    step : int
        That step; 0 is the start.
    scores : list of (step, loss, score)
        What was measured, from the start on; the loss is the mean since the last line, NaN at the start. Scores are NaN
        where nothing judges.
    """

    folder: Path
    step: int
    scores: list[tuple[int, float, float]] = field(default_factory=list)


def train_language_model(
    model: Path,
    texts: Sequence[str],
    pairs: TextPairs,
    config: AdaptConfig,
    workspace: Path,
    *,
    judge: Judge | None = None,
    resume: bool = False,
) -> TrainedModel:
    """Train a sentence-transformers model on pairs of texts.

    Parameters
    ----------
    model : Path
        Folder of the model, as `sentence_folder` fills it.
    texts : sequence of N strings
        The text of each item, to judge by.
    pairs : TextPairs
        The batches, one for each step.
    config : AdaptConfig
        What is trained (`lora` or `all`), the loss and the learning rate.
    workspace : Path
        A folder for checkpoints and for the result.
    judge : callable, optional
        Takes the vectors of all items, float32 [N, D] of unit length, and returns a score; the step with the highest
        one is kept. By default the last step is.
    resume : bool
        Go on from the last checkpoint in the workspace, if there is one.

    Returns
    -------
    TrainedModel
        Equal inputs, settings and seed give the same model on one machine, resumed or not.

    Raises
    ------
    ConfigError
        The loss is not finite, or several processes would learn a loss that only one can.
    DependencyError
        A package of the extra `adapt` is missing.
    """
    _check_packages()
    import torch

    from semid.adaptation.trainer import last_checkpoint, new_trainer, step_of

    if config.loss != "infonce":
        one_process_only(f"loss={config.loss!r}")
    checkpoint = last_checkpoint(workspace) if resume else None
    done = 0 if checkpoint is None else step_of(checkpoint)
    if checkpoint is not None:
        log_step("resume", f"after step {done:,} of {len(pairs):,}")
    with torch.random.fork_rng(), _quiet_libraries(), bar("train", len(pairs), unit="step") as advance:
        advance(done)
        torch.manual_seed(config.seed)  # of the first low-rank matrices
        trained, matrices = _model_to_train(model, config)

        def score() -> float:
            return math.nan if judge is None else judge(_vectors(trained, texts))

        scores = [(0, math.nan, score())]
        trainer = new_trainer(trained, pairs, config, workspace, score, advance, matrices, checkpoint)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        scores += _measured(trainer.state.log_history)
        best = scores[-1] if judge is None else max(scores, key=lambda line: line[2])  # the first of equal ones
        if best[0] == 0:
            return TrainedModel(model, 0, scores)
        folder = workspace / "model"
        if trainer.is_world_process_zero():
            whole = _whole_model(model, workspace / f"checkpoint-{best[0]}", config)
            whole.save_pretrained(str(folder), create_model_card=False)
            for path in folder.rglob("*.safetensors"):  # which are written for their owner alone
                shutil.copymode(folder / "modules.json", path)
        trainer.accelerator.wait_for_everyone()
    return TrainedModel(folder, best[0], scores)


def _check_packages() -> None:
    for module, package in (("sentence_transformers", "sentence-transformers"), ("peft", "peft"),
                            ("datasets", "datasets"), ("accelerate", "accelerate")):  # fmt: skip
        try:
            __import__(module)
        except ImportError:
            raise DependencyError.missing("Training a language model", package, "adapt") from None


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep libraries from showing bars and notes of their own; errors and warnings of Python stay."""
    from transformers.utils import logging as transformers_logging

    others = logging.getLogger("sentence_transformers")
    shows_bars, levels = (
        transformers_logging.is_progress_bar_enabled(),
        (transformers_logging.get_verbosity(), others.level),
    )
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    others.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        others.setLevel(levels[1])
        if shows_bars:
            transformers_logging.enable_progress_bar()


def _loaded(folder: Path, device: str, dtype: torch.dtype | str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    options = {"use_safetensors": True, "dtype": dtype}
    return SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=options)


def _model_to_train(folder: Path, config: AdaptConfig) -> tuple[SentenceTransformer, PeftModel | None]:
    """Return the model without its last normalization, and the low-rank matrices in it if these are what learns."""
    import torch
    from sentence_transformers import SentenceTransformer

    device = usable_device(config.device)
    if device == "cuda" and world() > 1:
        device = f"cuda:{local_rank()}"
    # Low-rank matrices are float32 in any case; the model below them then takes half the memory.
    half = config.train == "lora" and config.bfloat16
    whole = _loaded(folder, device, torch.bfloat16 if half else torch.float32)
    modules = list(whole)
    while type(modules[-1]).__name__ == "Normalize":
        modules.pop()
    model = SentenceTransformer(modules=modules, device=device)
    model.max_seq_length = min(config.max_length, whole.max_seq_length or config.max_length)
    if config.train != "lora":
        return model, None
    # By peft alone: the adapters of transformers ask for a release of peft that may not be out yet.
    from peft import LoraConfig, get_peft_model

    inner: Any = model.transformers_model  # its layers are changed in place
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=LORA_DROPOUT, target_modules="all-linear"
    )
    matrices: Any = get_peft_model(inner, lora)
    return model, matrices


def _vectors(model: SentenceTransformer, texts: Sequence[str]) -> Floats:
    """Return the vectors of texts as `NeuralEncoder` gives them, float32 [N, D]: zeros where there is no text."""
    was_training = model.training
    distinct = sorted({text for text in texts if text.strip()})
    found = model.encode(distinct, batch_size=ENCODED, prompt="", show_progress_bar=False, convert_to_tensor=True)
    model.train(was_training)
    vectors = np.zeros((len(distinct) + 1, found.shape[1]), np.float32)
    vectors[:-1] = unit_rows(found.float().cpu().numpy())
    place = {text: row for row, text in enumerate(distinct)}
    return vectors[[place.get(text, -1) for text in texts]]


def _measured(history: Iterable[Mapping[str, Any]]) -> list[tuple[int, float, float]]:
    """Return (step, mean loss since the last line, score) for each step that was judged, from the trainer's log."""
    from semid.adaptation.trainer import SCORE

    lines, losses = [], []
    for entry in history:
        if "loss" in entry:
            losses.append(float(entry["loss"]))
        if SCORE in entry:
            lines.append((int(entry["step"]), float(np.mean(losses)), float(entry[SCORE])))
            losses = []
    return lines


def _whole_model(folder: Path, checkpoint: Path, config: AdaptConfig) -> SentenceTransformer:
    """Return the given model with the weights of a checkpoint, stored as precisely as the given one."""
    model = _loaded(folder, "cpu", "auto")
    stored = next(model.parameters()).dtype
    model.float()
    if config.train == "lora":
        from peft import PeftModel

        inner: Any = model.transformers_model  # its layers are changed in place
        PeftModel.from_pretrained(inner, str(checkpoint)).merge_and_unload()
    else:
        model.load_state_dict(_loaded(checkpoint, "cpu", "auto").state_dict())
    return model.to(stored)
