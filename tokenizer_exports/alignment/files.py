"""The files of alignment data: records as JSON lines, one folder per task, and a dataset card.

    OUT/README.md                     the card; `datasets.load_dataset("OUT", "next-item")` reads its header
    OUT/next-item/train.jsonl         or train-00000-of-00004.jsonl and so on, with several shards
    OUT/next-item/validation.jsonl
    OUT/next-item/test.jsonl

Records of all tasks have the same keys, so that their files can be read together:

    trl         prompt, completion: lists of messages
    messages    messages
    alpaca      instruction, input (empty), output
    all         task, user, item_id; "" where the record is about none
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from semid.tokenizer_exports.alignment.config import Format

__all__ = ["TaskFiles", "as_record", "task_files"]

MEGABYTE = 1 << 20


def as_record(form: Format, prompt: str, completion: str, system: str | None) -> dict[str, Any]:
    """Return a record with its wording.

    Parameters
    ----------
    form : {"trl", "messages", "alpaca"}
        Layout of the record.
    prompt, completion : str
        The question and the answer.
    system : str or None
        System prompt.

    >>> as_record("alpaca", "What is next?", "<s_a_1>", None)
    {'instruction': 'What is next?', 'input': '', 'output': '<s_a_1>'}
    """
    if form == "alpaca":
        instruction = prompt if system is None else f"{system}\n{prompt}"
        return {"instruction": instruction, "input": "", "output": completion}
    asked = [] if system is None else [{"role": "system", "content": system}]
    asked.append({"role": "user", "content": prompt})
    answered = [{"role": "assistant", "content": completion}]
    if form == "messages":
        return {"messages": asked + answered}
    return {"prompt": asked, "completion": answered}


class TaskFiles:
    """The open files of one task. Made by `task_files`."""

    def __init__(self, folder: Path, shards: int, stack: contextlib.ExitStack) -> None:
        self.folder, self.shards, self.stack = folder, shards, stack
        self.counts: Counter[str] = Counter()
        self._open: dict[str, list[IO[str]]] = {}

    def write(self, split: str, record: dict[str, Any]) -> None:
        """Write a record. Training records go to the shards in turn."""
        files = self._open.get(split) or self._opened(split)
        files[self.counts[split] % len(files)].write(json.dumps(record, ensure_ascii=False) + "\n")
        self.counts[split] += 1

    def _opened(self, split: str) -> list[IO[str]]:
        """Open the files of a part, at its first record."""
        names = [f"{split}.jsonl"]
        if split == "train" and self.shards > 1:
            names = [f"train-{shard:05}-of-{self.shards:05}.jsonl" for shard in range(self.shards)]
        buffer = max(1 << 13, MEGABYTE // len(names))
        paths = [self.folder / name for name in names]
        files = (path.open("x", buffer, encoding="utf-8", newline="\n") for path in paths)
        opened: list[IO[str]] = [self.stack.enter_context(file) for file in files]
        self._open[split] = opened
        return opened


@contextlib.contextmanager
def task_files(folder: Path, shards: int) -> Iterator[TaskFiles]:
    """Make the folder of a task and yield its files."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        yield TaskFiles(folder, shards, stack)
