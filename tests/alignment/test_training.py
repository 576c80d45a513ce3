"""The files in other people's hands: TRL trains on them with the loss on the completion, `datasets` reads the card."""

from __future__ import annotations

from pathlib import Path

import pytest

import semid
from tests.helpers.tiny_models import ITEMS, ids_of, new_model, new_tokenizer, quiet_training

pytestmark = pytest.mark.slow

TASKS = ["next-item", "text-to-id", "id-to-text", "fusion", "search", "preference", "negative"]
STEPS = 6


def people() -> list[dict]:
    names = [item["id"] for item in ITEMS]
    return [{"user": f"u{n}", "items": [names[(n + step * 7) % len(names)] for step in range(6)]} for n in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    queries = [{"query": f"something {item['title']}", "item": item["id"]} for item in ITEMS]
    preferences = [{"user": f"u{n}", "preference": "likes what is warm"} for n in range(40)]
    output = tmp_path_factory.mktemp("aligned") / "data"
    semid.write_alignment(
        ids_of(), people(), output, items=ITEMS, queries=queries, preferences=preferences, shards=2, max_records=60
    )
    return output


@pytest.fixture(scope="module")
def records(folder):
    """All training files of all tasks as one data set."""
    datasets = pytest.importorskip("datasets")
    files = sorted(str(path) for path in folder.glob("*/train-*.jsonl"))
    assert len(files) == 2 * len(TASKS)
    return datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(folder.parent / "cache"))


@pytest.fixture(scope="module")
def trainer(records, folder):
    trl = pytest.importorskip("trl", reason="needs trl: pip install trl")
    tokenizer, model = new_tokenizer(), new_model("qwen3 tied")
    semid.extend(tokenizer, model, ids_of())
    arguments = trl.SFTConfig(
        output_dir=str(folder.parent / "runs"),
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        max_length=None,
        **quiet_training(),
    )
    return trl.SFTTrainer(model, train_dataset=records, processing_class=tokenizer, args=arguments)


def test_trl_trains_on_all_tasks_together(trainer):
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == STEPS and losses[-1] < losses[0]


def test_the_loss_is_on_the_completion_and_nothing_else(trainer, records):
    """What TRL hands to the model, decoded: labels are there for the answer's message alone."""
    tokenizer = trainer.processing_class
    seen = set()
    for number, entry in enumerate(trainer.train_dataset):
        batch = trainer.data_collator([entry])
        labels, input_ids = batch["labels"][0], batch["input_ids"][0]
        asked, answered = (tokenizer.decode(input_ids[mask]) for mask in (labels == -100, labels != -100))
        record = records[number]
        assert record["completion"][0]["content"] in answered
        assert record["prompt"][0]["content"] in asked and record["prompt"][0]["content"] not in answered
        seen.add(record["task"])
    assert seen == set(TASKS)


def test_datasets_reads_tasks_by_the_card(folder):
    datasets = pytest.importorskip("datasets")
    assert set(datasets.get_dataset_config_names(str(folder))) == set(TASKS)
    read = datasets.load_dataset(str(folder), "next-item", cache_dir=str(folder.parent / "cache"))
    assert set(read) == {"train", "validation", "test"}
    assert len(read["test"]) == 40 and len(read["train"]) == 60


def test_messages_and_alpaca_have_one_shape_for_all_tasks(tmp_path):
    datasets = pytest.importorskip("datasets")
    for form, columns in (("messages", {"messages"}), ("alpaca", {"instruction", "input", "output"})):
        done = semid.write_alignment(ids_of(), people(), tmp_path / form, format=form)
        files = sorted(str(path) for path in done.folder.glob("*/*.jsonl"))
        read = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert set(read.column_names) == columns | {"task", "user", "item_id"}
        assert len(read) == sum(sum(parts.values()) for parts in done.counts.values())
