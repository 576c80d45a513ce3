"""ScoreCallback: an evaluation of a Trainer also tells recall and NDCG, and the best model can be chosen by them."""

from __future__ import annotations

import pytest
import torch
from transformers import Trainer, TrainingArguments

from semid.errors import ConfigError
from semid.evaluation import evaluate_recommendations
from semid.tokenizer_exports import ScoreCallback, extend, write_alignment
from semid.tokenizer_exports.generate.eval_cases import read_cases
from semid.tokenizer_exports.generate.score_model import recommend_cases
from tests.helpers.aligned import catalog, histories
from tests.helpers.tiny_models import new_model, new_tokenizer

LOG = histories(*([(user + step) % 30 for step in range(5)] for user in range(12)))


@pytest.fixture
def parts(tmp_path):
    ids, tokenizer, model = catalog(), new_tokenizer(), new_model("qwen3 tied")
    extend(tokenizer, model, ids)
    write_alignment(ids, LOG, tmp_path / "data", tasks="next-item")
    return ids, tokenizer, model, tmp_path


def test_an_evaluation_tells_recall_and_the_best_model_is_kept(parts):
    ids, tokenizer, model, folder = parts
    cases = folder / "data" / "next-item" / "validation.jsonl"
    callback = ScoreCallback(ids, cases, k=(5, 10), num_beams=30)
    rows = [{"input_ids": torch.arange(4), "labels": torch.arange(4)}] * 4
    arguments = TrainingArguments(
        str(folder / "out"), max_steps=2, eval_strategy="steps", eval_steps=1, save_steps=1,
        metric_for_best_model="eval_ndcg@10", load_best_model_at_end=True, report_to="none", use_cpu=True,
        disable_tqdm=True, learning_rate=1e-2,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=rows, eval_dataset=rows[:1], processing_class=tokenizer, callbacks=[callback]
    )
    trainer.train()
    logged = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert len(logged) == 2 and trainer.state.best_metric == max(logged)
    told = trainer.evaluate()
    read = read_cases(cases)
    lists = recommend_cases(model.eval(), tokenizer, ids, read, n=10, num_beams=30, batch_size=3)
    expected = evaluate_recommendations(lists, [case.item_id for case in read], k=(5, 10))
    assert len(read) == 12
    for name in ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr"):
        assert told[f"eval_{name}"] == pytest.approx(expected[name].value)
    assert told["eval_ndcg@10"] == pytest.approx(max(logged))


def test_a_trainer_without_a_tokenizer_is_told(parts):
    ids, _, model, folder = parts
    callback = ScoreCallback(ids, folder / "data" / "next-item" / "validation.jsonl")
    rows = [{"input_ids": torch.arange(4), "labels": torch.arange(4)}]
    arguments = TrainingArguments(str(folder / "out"), report_to="none", use_cpu=True, disable_tqdm=True)
    trainer = Trainer(model, arguments, eval_dataset=rows, callbacks=[callback])
    with pytest.raises(ConfigError, match="give the Trainer the tokenizer"):
        trainer.evaluate()


def test_cases_are_drawn_once_in_their_order(parts):
    ids, _, _, folder = parts
    cases = folder / "data" / "next-item" / "validation.jsonl"
    drawn = [ScoreCallback(ids, cases, max_cases=5, seed=seed).cases for seed in (0, 0, 1)]
    every = read_cases(cases)
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 5
    assert [every.index(case) for case in drawn[0]] == sorted(every.index(case) for case in drawn[0])
    assert ScoreCallback(ids, cases).cases == every
