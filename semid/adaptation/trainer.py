"""How sentence-transformers' trainer is set up to train a language model on batches that are drawn beforehand.

Every few steps the model is judged and saved. A checkpoint is complete when its last file is there, `semid.json`, which
also holds the temperature of LLMEmb's loss: it learns, and the trainer keeps only what belongs to the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semid.adaptation.config import AdaptConfig
from semid.adaptation.losses import FIRST_TAU, soft_target_loss
from semid.adaptation.text_pairs import TextPairs
from semid.errors import ConfigError
from semid.runtime.distributed import world
from semid.runtime.progress import log_step

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from transformers import TrainerCallback

__all__ = ["SCORE", "last_checkpoint", "new_trainer", "step_of"]

JUDGED = 6  # times that the model is judged and saved
WARM_UP = 0.1  # share of the steps
SHORT_OF_MEMORY = 32  # texts in a forward pass then
COMPLETE = "semid.json"
SCORE = "eval_score"  # in the trainer's log


def new_trainer(
    model: SentenceTransformer,
    pairs: TextPairs,
    config: AdaptConfig,
    workspace: Path,
    score: Callable[[], float],
    advance: Callable[[int], object],
    matrices: PeftModel | None = None,
    checkpoint: Path | None = None,
) -> SentenceTransformerTrainer:
    """Return a trainer of a model on batches of pairs.

    Parameters
    ----------
    model : SentenceTransformer
        What learns.
    pairs : TextPairs
        The batches.
    config : AdaptConfig
        Loss, learning rate, precision and device.
    workspace : Path
        Where checkpoints go.
    score : callable
        Judges the model as it is.
    advance : callable
        Is called with 1 after each step.
    matrices : PeftModel, optional
        The low-rank matrices in the model, if these are all that learns; checkpoints then hold nothing else.
    checkpoint : Path, optional
        What training will go on from.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
    from torch.utils.data import BatchSampler
    from transformers import PrinterCallback, ProgressCallback

    class Evaluator(SentenceEvaluator):
        def __call__(self, *arguments: Any, **options: Any) -> dict[str, float]:
            return {"score": score()}

    class Batches(BatchSampler):
        def __init__(self) -> None:
            self.shares = pairs.shares(world())
            super().__init__(range(len(pairs.left)), max(map(len, self.shares)), drop_last=False)

        def __iter__(self) -> Any:
            return iter(list(share) for share in self.shares)

        def __len__(self) -> int:
            return len(self.shares)

    class Trainer(SentenceTransformerTrainer):
        def get_batch_sampler(self, *arguments: Any, **options: Any) -> BatchSampler:
            return Batches()

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Do without a card, which would tell texts and the time."""

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            if matrices is None:
                super()._save(output_dir, state_dict)
            else:
                matrices.save_pretrained(output_dir or str(workspace))

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if matrices is None:
                super()._load_from_checkpoint(resume_from_checkpoint)
            else:
                matrices.load_adapter(resume_from_checkpoint, "default", is_trainable=True)

    if config.gradient_checkpointing:
        inner: Any = model.transformers_model
        new = "activation_checkpointing_enable"  # its name in newer transformers, which trainers cannot ask for yet
        getattr(inner, new if hasattr(inner, new) else "gradient_checkpointing_enable")({"use_reentrant": False})
    loss = _loss(model, config)
    if checkpoint is not None:
        _restore(_own(loss, model), checkpoint)
    dataset = Dataset.from_dict({"pair": range(len(pairs.left))})
    dataset.set_transform(pairs)
    trainer = Trainer(
        model=model,
        args=_arguments(pairs, config, workspace),
        train_dataset=dataset,
        loss=loss,
        evaluator=Evaluator(),
        callbacks=[_watcher(len(pairs), _own(loss, model), advance)],
    )
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    return trainer


def _arguments(pairs: TextPairs, config: AdaptConfig, workspace: Path) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    if ":" in config.device:
        raise ConfigError(
            f"device={config.device!r}: a language model trains on auto, cpu, cuda or mps. "
            "Choose one of several GPUs with CUDA_VISIBLE_DEVICES."
        )
    steps, (_, batch_size, rate) = len(pairs), config.training()
    every = math.ceil(steps / JUDGED)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(workspace),
        max_steps=steps,
        per_device_train_batch_size=max(1, batch_size // world()),
        learning_rate=rate,
        lr_scheduler_type="linear",
        warmup_steps=int(WARM_UP * steps),
        seed=config.seed,
        bf16=config.bfloat16,
        use_cpu=config.device == "cpu",
        dataloader_pin_memory=config.device != "cpu",
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,  # the last and the best one
        metric_for_best_model=SCORE,
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )
    _ = arguments.device  # finds the GPUs; several would each get a part of a batch, and lack the others' negatives
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _loss(model: SentenceTransformer, config: AdaptConfig) -> torch.nn.Module:
    """Return the loss on the vectors of the two columns of texts."""
    import torch
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    if config.loss == "infonce":
        both: dict[str, Any] = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
        both |= {"scale": 1 / config.temperature, "gather_across_devices": world() > 1}
        if config.gradient_checkpointing:
            return CachedMultipleNegativesRankingLoss(model, mini_batch_size=SHORT_OF_MEMORY, **both)
        return MultipleNegativesRankingLoss(model, **both)

    class SoftTargets(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.tau = torch.nn.Parameter(torch.tensor(FIRST_TAU))

        def forward(self, sentence_features: Any, labels: Any) -> torch.Tensor:
            left, right = (self.model(features)["sentence_embedding"].float() for features in sentence_features)
            return soft_target_loss(left, right, self.tau, detached=config.loss == "llmemb-detached")

    return SoftTargets()


def _watcher(n_steps: int, own: dict[str, torch.nn.Parameter], advance: Callable[[int], object]) -> TrainerCallback:
    """Return what advances the bar, tells scores, stops at a loss that is not finite, and completes checkpoints."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        loss = math.nan

        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            advance(1)
            for value in own.values():
                value.grad = None  # older trainers reset the model's only

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
            self.loss = logs.get("loss", self.loss)
            if not math.isfinite(self.loss) and "loss" in logs:
                raise ConfigError(
                    f"the loss is {self.loss} at step {state.global_step}. Lower rate, raise temperature, or leave "
                    "bfloat16 out."
                )
            if SCORE in logs:
                judged = f", validation R@10 {100 * logs[SCORE]:.2f} %" if math.isfinite(logs[SCORE]) else ""
                log_step("train", f"step {state.global_step:,} of {n_steps:,}: loss {self.loss:.3f}{judged}")

        def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            if state.is_world_process_zero:
                kept = {name: value.item() for name, value in own.items()}
                place = Path(args.output_dir, f"checkpoint-{state.global_step}", COMPLETE)
                place.write_text(json.dumps(kept), "utf-8")

    return Watcher()


def _own(loss: torch.nn.Module, model: SentenceTransformer) -> dict[str, torch.nn.Parameter]:
    """Return the numbers of a loss that learn and are not the model's."""
    of_model = {id(parameter) for parameter in model.parameters()}
    return {name: value for name, value in loss.named_parameters() if id(value) not in of_model}


def _restore(own: dict[str, torch.nn.Parameter], checkpoint: Path) -> None:
    """Set the numbers of a loss to what they were at a checkpoint."""
    kept = json.loads((checkpoint / COMPLETE).read_text("utf-8"))
    for name, value in own.items():
        value.data.fill_(kept[name])


def last_checkpoint(workspace: Path) -> Path | None:
    """Return the last complete checkpoint in a workspace; None if there is none."""
    return max((path.parent for path in workspace.glob(f"checkpoint-*/{COMPLETE}")), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps before a checkpoint.

    >>> step_of(Path("out.part/checkpoint-34"))
    34
    """
    return int(checkpoint.name.rpartition("-")[2])
