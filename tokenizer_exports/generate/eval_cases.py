"""Test cases for a language model: the records of `semid align` for next-item, and what its training records tell.

    cases = read_cases("data/next-item/test.jsonl")
    counts = count_training(Path("data/next-item"), ids)

Records have the layout of any `--format`. The last ID of a prompt is the user's last item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from semid.errors import InputError
from semid.files.problems import Problems
from semid.files.records import iter_records
from semid.runtime.progress import track
from semid.tokenizer import SemanticIDTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EvalCase", "TrainingCounts", "count_training", "read_cases"]

Messages = tuple[Mapping[str, str], ...]
LAYOUTS = "prompt, messages or instruction"


@dataclass(frozen=True)
class EvalCase:
    """One prompt, and the item that should come next."""

    user: str
    item_id: str
    messages: Messages  # role and content of each; without the answer

    def text(self) -> str:
        """Return what the messages say."""
        return "\n".join(message["content"] for message in self.messages)

    def prompt(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the prompt as the model reads it: in its chat template, or as plain text if there is none."""
        if not getattr(tokenizer, "chat_template", None):
            return self.text()
        asked = [dict(message) for message in self.messages]
        return str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))

    def last_item(self, ids: SemanticIDTokenizer) -> str:
        """Return the item id of the last ID in the prompt; "" if there is none."""
        found = [parsed.item_id for parsed in ids.parse(self.text()) if parsed.item_id]
        return found[-1] if found else ""


@dataclass(frozen=True)
class TrainingCounts:
    """What the training records tell about the items."""

    popularity: Counter[str] = field(default_factory=Counter)  # item id -> training interactions
    pairs: list[tuple[str, str]] = field(default_factory=list)  # an item and the one after it


def read_cases(path: str | Path) -> list[EvalCase]:
    """Read the records of a next-item file.

    Parameters
    ----------
    path : path
        `next-item/test.jsonl` or `validation.jsonl` of `semid align`.

    Raises
    ------
    InputError
        The file is missing or empty, or records are not of next-item. Lists the first ten with their lines.
    """
    problems = Problems.of(path)
    records = iter_records(path, problems=problems)
    cases = []
    for line, record in track(records, f"reading {problems.name}", unit="record"):
        messages, item_id = _messages(record), record.get("item_id")
        if messages is None or not isinstance(item_id, str) or not item_id:
            problems.add(line, f"should have {LAYOUTS}, and item_id. Give next-item/test.jsonl of `semid align`.")
        elif record.get("task", "next-item") != "next-item":
            problems.add(line, f"is of the task {record['task']}. Give next-item/test.jsonl of `semid align`.")
        else:
            cases.append(EvalCase(str(record.get("user", "")), item_id, messages))
    problems.raise_if_any()
    if not cases:
        raise InputError(f"{path}: holds no record. Give next-item/test.jsonl of `semid align`.")
    return cases


def _messages(record: Mapping[str, object]) -> Messages | None:
    """Return the messages of a record up to the answer; None if it has none."""
    given = record.get("prompt", record.get("messages"))
    if given is None and isinstance(record.get("instruction"), str):
        return ({"role": "user", "content": str(record["instruction"])},)
    if not isinstance(given, list) or not all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in given
    ):
        return None
    asked = tuple(one for one in given if one["role"] != "assistant")
    return asked or None


def count_training(folder: Path, ids: SemanticIDTokenizer) -> TrainingCounts:
    """Count items and pairs of successive items in the training records of a folder; nothing if it has none.

    A user's first item is in no record as an answer. It is counted where a prompt shows nothing but it.
    """
    counts, begun = TrainingCounts(), set[str]()
    for case in _training_cases(folder):
        shown = [parsed.item_id for parsed in ids.parse(case.text()) if parsed.item_id]
        counts.popularity[case.item_id] += 1
        if shown:
            counts.pairs.append((shown[-1], case.item_id))
        if len(shown) == 1 and case.user not in begun:
            begun.add(case.user)
            counts.popularity[shown[0]] += 1
    return counts


def _training_cases(folder: Path) -> Iterator[EvalCase]:
    for path in sorted(folder.glob("train*.jsonl")):
        yield from read_cases(path)


def users_of(cases: Sequence[EvalCase]) -> list[str]:
    """Return the user of each case; cases without one are each a user's own."""
    return [case.user or f"case {number}" for number, case in enumerate(cases)]
