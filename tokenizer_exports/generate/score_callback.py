"""ScoreCallback: recall and NDCG of a model as a recommender, at every evaluation of a transformers Trainer.

trainer.add_callback(ScoreCallback(ids, "data/next-item/validation.jsonl"))
TrainingArguments(..., metric_for_best_model="eval_ndcg@10", load_best_model_at_end=True)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from semid.errors import ConfigError
from semid.evaluation.intervals import Bootstrap
from semid.evaluation.recommendations import evaluate_recommendations
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.generate.eval_cases import read_cases
from semid.tokenizer_exports.generate.score_model import choose_cases, recommend_cases

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

__all__ = ["ScoreCallback"]


class ScoreCallback(TrainerCallback):
    """Add eval_recall@K, eval_ndcg@K and eval_mrr to the metrics of every evaluation.

    With several processes, each computes them; what they compute is the same.

    Parameters
    ----------
    ids : SemanticIDTokenizer
        The artifact.
    cases : path
        `next-item/validation.jsonl` of `semid align`.
    k : int or sequence of int
        Lengths of the lists to measure. Default: 5, 10.
    max_cases : int, optional
        Cases, drawn once at random. Default: 1,000; None for all.
    num_beams : int, optional
        Beam width, as in `generate_items`.
    batch_size : int
        Prompts per call of the model. Default: 16.
    seed : int
        Seed of the draw. Default: 0.

    Raises
    ------
    InputError
        The file is missing or wrong.
    ConfigError
        At an evaluation: the Trainer has no tokenizer, or as `generate_items`.
    """

    def __init__(
        self,
        ids: SemanticIDTokenizer,
        cases: str | Path,
        *,
        k: int | Sequence[int] = (5, 10),
        max_cases: int | None = 1000,
        num_beams: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        self.ids, self.k = ids, (k,) if isinstance(k, int) else tuple(k)
        self.cases = choose_cases(read_cases(cases), max_cases, seed)
        self.num_beams, self.batch_size = num_beams, batch_size

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Measure the model, and add the figures to the metrics and the log of this evaluation."""
        model: PreTrainedModel = kwargs["model"]
        tokenizer: PreTrainedTokenizerBase | None = kwargs["processing_class"]
        if tokenizer is None:
            raise ConfigError(
                "processing_class=None: give the Trainer the tokenizer, for the prompts of ScoreCallback."
            )
        lists = recommend_cases(
            model, tokenizer, self.ids, self.cases, n=max(self.k), num_beams=self.num_beams, batch_size=self.batch_size
        )
        relevant = [case.item_id for case in self.cases]
        found = evaluate_recommendations(lists, relevant, k=self.k, bootstrap=Bootstrap(resamples=0))
        figures = {f"eval_{name}": one.value for name, one in found.items()}
        kwargs["metrics"].update(figures)
        state.log_history.append({"step": state.global_step, **figures})
        return control
