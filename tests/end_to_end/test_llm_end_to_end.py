"""The whole way with a real language model: catalog, IDs, SmolLM2 extended, fine-tuned by TRL, generating, reloaded.

Offline and on a CPU. The model sees each package's description and learns to write its ID.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from semid.tokenizer import SemanticIDTokenizer
from semid.trie import Trie

SAMPLE = Path(__file__).parents[2] / "semid/datasets/debian-3000.jsonl"
STEPS, BATCH, PACKAGES = 100, 4, 50
ASKED = 12

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ids() -> SemanticIDTokenizer:
    return SemanticIDTokenizer.fit(SAMPLE, method="rqkmeans", levels=3, codebook_size=64)


@pytest.fixture(scope="module")
def questions(ids) -> dict[str, str]:
    """Item id -> the prompt that asks for it."""
    lines = SAMPLE.read_text("utf-8").splitlines()[:PACKAGES]
    packages = (json.loads(line) for line in lines)
    return {package["id"]: f"Package: {package['description']}\nID: " for package in packages}


@pytest.fixture(scope="module")
def trained(ids, questions, tmp_path_factory) -> tuple[Path, list[float]]:
    """A folder with the trained model, and the loss of each step."""
    pytest.importorskip("trl", reason="needs trl and peft: pip install trl peft")
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from semid.tokenizer_exports.models.freeze import train_only_new_rows
    from semid.tokenizer_exports.models.on_disk import extend_folder
    from tests.helpers.real_models.smollm2 import smollm2_folder
    from tests.helpers.tiny_models import quiet_training

    home = tmp_path_factory.mktemp("smollm2")
    extended = extend_folder(smollm2_folder(), ids, home / "extended")
    model = AutoModelForCausalLM.from_pretrained(home / "extended", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(home / "extended")
    # Not LoraConfig(trainable_token_indices=...): TRL 1.16 reads the head's weight past PEFT's wrapper around it.
    model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train_only_new_rows(model.get_base_model(), extended)
    for parameter in adapter:
        parameter.requires_grad_(True)
    rows = [{"prompt": text, "completion": ids.tokens(item)} for item, text in questions.items()]
    trainer = SFTTrainer(
        model,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        args=SFTConfig(
            output_dir=str(home / "runs"),
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            **quiet_training(),
        ),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    trainer.model.merge_and_unload().save_pretrained(home / "trained")
    tokenizer.save_pretrained(home / "trained")
    return home / "trained", losses


def loaded(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logging.getLogger("transformers").setLevel(logging.ERROR)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def answers(ids, questions, trained):
    """What the trained model generates, by each scoring."""
    from semid.tokenizer_exports.generate.items import generate_items

    model, tokenizer = loaded(trained[0])
    trie = Trie.from_tokenizer(ids, tokenizer)
    asked = list(questions)[:ASKED]
    prompts = tokenizer([questions[item] for item in asked], return_tensors="pt", padding=True, padding_side="left")
    return {score: generate_items(model, prompts, trie, num_beams=20, num_return=10, score=score)
            for score in ("level", "vocab")}  # fmt: skip


def test_training_on_new_rows_and_lora_lowers_the_loss(trained):
    losses = trained[1]
    assert len(losses) == STEPS
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])


def test_every_generated_item_is_real_and_none_comes_twice(ids, answers):
    for generated in answers.values():
        assert [len(items) for items in generated.item_ids] == [10] * ASKED
        assert all(len(set(items)) == 10 for items in generated.item_ids)
        assert all(item in set(ids.item_ids) for items in generated.item_ids for item in items)


def test_what_was_learned_comes_out(questions, answers):
    """Better than chance by far: 10 of 3,000 items hold the right one by chance once in 300 times."""
    asked = list(questions)[:ASKED]
    right = sum(item in items for item, items in zip(asked, answers["level"].item_ids, strict=True))
    assert right >= 3


def test_both_scorings_agree_once_the_model_is_trained(answers):
    """Whatever the model has learned to put on tokens of the level is all it puts anywhere."""
    first = [[items[0] for items in answers[score].item_ids] for score in ("level", "vocab")]
    assert sum(a == b for a, b in zip(*first, strict=True)) >= ASKED - 2
    scored = (
        [dict(zip(*row, strict=True)) for row in zip(answer.item_ids, answer.scores.tolist(), strict=True)]
        for answer in (answers["level"], answers["vocab"])
    )
    # Of each item, not of each rank: which items the last beams hold differs.
    assert all(
        row[item] <= other[item] + 1e-4 for other, row in zip(*scored, strict=True) for item in row.keys() & other
    )


def test_the_reloaded_folder_gives_the_same_items(ids, questions, trained, answers):
    from semid.tokenizer_exports.generate.items import generate_items

    model, tokenizer = loaded(trained[0])
    prompts = tokenizer(
        [questions[item] for item in list(questions)[:ASKED]], return_tensors="pt", padding=True, padding_side="left"
    )
    again = generate_items(model, prompts, Trie.from_tokenizer(ids, tokenizer), num_beams=20, num_return=10)
    assert again.item_ids == answers["level"].item_ids
    np.testing.assert_allclose(again.scores, answers["level"].scores, atol=1e-5)
