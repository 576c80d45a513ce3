"""Where new tokens start, and what a language model then learns in 200 steps: loss curves, a table and a plot.

    python -m tests.benchmarks.initialization DATASET --llm FOLDER --curves curves.jsonl [--update docs/benchmarks.md]
    python -m tests.benchmarks.initialization --curves curves.jsonl --plot docs/initialization.svg

`semid fit` and `semid align` make IDs and alignment data of DATASET (see published.py); the model in FOLDER is extended
once for each start, and trained whole: the same batches in the same order, all tasks in equal shares, AdamW, loss on
the completion alone. The loss is then measured on records held out for validation, after the steps in `MEASURED`.
Beside the starts of `semid extend`, `transformers` is what `resize_token_embeddings` gives by itself. Curves that the
file has already are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semid import SemanticIDTokenizer, extend, write_alignment
from semid.tokenizer_exports.models.add_tokens import add_tokens
from tests.benchmarks.common import first_embeddings, machine, markdown, use_threads, versions
from tests.benchmarks.page import update

TASKS = ("next-item", "text-to-id", "id-to-text", "fusion", "negative")
STARTS = ("transformers", "default", "codebook", "text", "text+codebook")
MEASURED = (0, 10, 25, 50, 100, 150, 200)
BATCH = 5  # records a step
POOL = 10  # batches that are drawn together
MOST_TOKENS = 160  # of a record; longer ones are left out
EVALUATED = 30  # records of each task
LEARNING_RATE, WARM_UP = 5e-4, 10
PAGE_MARK = "initialization"


@dataclass(frozen=True)
class Example:
    """A record in token ids; the first `n_prompt` of them are given, the others are learned."""

    task: str
    token_ids: list[int]
    n_prompt: int


def prepare(dataset: Path, folder: Path) -> SemanticIDTokenizer:
    """IDs of the data set's first vectors, and alignment data in `folder/data`."""
    items = dataset / "items.jsonl.gz"
    ids = SemanticIDTokenizer.fit(items, embeddings=first_embeddings(dataset))
    write_alignment(ids, dataset / "sequences.jsonl.gz", folder / "data", items=items, tasks=",".join(TASKS))
    return ids


def load(llm: Path, ids: SemanticIDTokenizer, start: str) -> tuple[Any, Any]:
    """Model in float32, and tokenizer, with the new tokens in both."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    model = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32, attn_implementation="eager")
    if start == "transformers":
        add_tokens(tokenizer, ids.vocabulary)
        torch.manual_seed(0)
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    else:
        extend(tokenizer, model, ids, init=start)
    return model, tokenizer


def examples(path: Path, tokenizer: Any) -> list[Example]:
    """The records of a file by the tokenizer's chat template, as TRL would read them."""
    found = []
    for line in path.open(encoding="utf-8"):
        record = json.loads(line)
        prompt = tokenizer.apply_chat_template(record["prompt"], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(record["prompt"] + record["completion"], tokenize=False)
        assert whole.startswith(prompt)
        given, learned = tokenizer([prompt, whole[len(prompt) :]], add_special_tokens=False)["input_ids"]
        if len(given) + len(learned) <= MOST_TOKENS:
            found.append(Example(record["task"], given + learned, len(given)))
    return found


def dealt(folder: Path, tokenizer: Any, part: str, most: int, seed: int) -> dict[str, list[Example]]:
    """So many records of each task at most, drawn at random."""
    draw, chosen = np.random.default_rng(seed), {}
    for task in TASKS:
        found = examples(folder / task / f"{part}.jsonl", tokenizer)
        chosen[task] = [found[i] for i in draw.permutation(len(found))[:most]]
    return chosen


def batches(chosen: dict[str, list[Example]], steps: int, seed: int) -> Iterator[list[Example]]:
    """One batch a step; tasks take turns, so that all have equal shares. Of some batches at a time, those of a length
    go together: little is padded."""
    draw = np.random.default_rng(seed)
    turns = [TASKS[i % len(TASKS)] for i in range(steps * BATCH)]
    for start in range(0, len(turns), POOL * BATCH):
        pool = [chosen[task][draw.integers(len(chosen[task]))] for task in turns[start : start + POOL * BATCH]]
        pool.sort(key=lambda example: len(example.token_ids))
        for batch in draw.permutation(len(pool) // BATCH):
            yield pool[batch * BATCH : (batch + 1) * BATCH]


def losses(model: Any, batch: list[Example]) -> Any:
    """Negative log-likelihood of every learned token, in nats: float32 [M]. The head runs on their places alone."""
    import torch

    longest = max(len(example.token_ids) for example in batch)
    token_ids, mask = torch.zeros((len(batch), longest), dtype=torch.long), torch.zeros((len(batch), longest))
    learned = torch.zeros((len(batch), longest), dtype=torch.bool)
    for row, example in enumerate(batch):
        end = len(example.token_ids)
        token_ids[row, :end] = torch.tensor(example.token_ids)
        mask[row, :end] = 1
        learned[row, example.n_prompt : end] = True
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.base_model(token_ids, attention_mask=mask).last_hidden_state
        logits = model.get_output_embeddings()(hidden[:, :-1][learned[:, 1:]])
    return torch.nn.functional.cross_entropy(logits.float(), token_ids[learned], reduction="none")


def evaluated(model: Any, chosen: dict[str, list[Example]]) -> dict[str, float]:
    """Mean loss of a learned token, by task."""
    import torch

    model.eval()
    found = {}
    with torch.inference_mode():
        for task, all_of_it in chosen.items():
            in_order = sorted(all_of_it, key=lambda example: len(example.token_ids))
            parts = [losses(model, in_order[i : i + BATCH]) for i in range(0, len(in_order), BATCH)]
            found[task] = float(torch.cat(parts).mean())
    model.train()
    return found


def curve(llm: Path, folder: Path, ids: SemanticIDTokenizer, start: str, seed: int) -> Iterator[dict[str, Any]]:
    """Train from one start; a line after each measured step."""
    import torch

    model, tokenizer = load(llm, ids, start)
    data = folder / "data"
    train = dealt(data, tokenizer, "train", sys.maxsize, seed)
    held_out = dealt(data, tokenizer, "validation", EVALUATED, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
    steps = batches(train, MEASURED[-1], seed)
    clock = time.perf_counter()
    for step in range(MEASURED[-1] + 1):
        if step in MEASURED:
            seconds = time.perf_counter() - clock
            yield {"start": start, "step": step, "seconds": seconds} | evaluated(model, held_out)
        if step < MEASURED[-1]:
            losses(model, next(steps)).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def table(lines: list[dict[str, Any]]) -> str:
    """Mean loss over the tasks by step, then each task's at the end."""
    rows = []
    for start in STARTS:
        of_start = [line for line in lines if line["start"] == start]
        if of_start:
            means = [f"{_mean(line):.2f}" for line in of_start]
            rows.append([start, *means, *(f"{of_start[-1][task]:.2f}" for task in TASKS)])
    return markdown(["start", *(f"step {step}" for step in MEASURED), *TASKS], rows)


def _mean(line: dict[str, Any]) -> float:
    return math.fsum(line[task] for task in TASKS) / len(TASKS)


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """All tasks together, then what the IDs are asked for most: curves of loss against steps."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "semid", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
    panels = {"mean of the five tasks": _mean} | {task: lambda line, task=task: line[task] for task in TASKS[:3]}
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        for number, start in enumerate(STARTS):
            points = [(line["step"], value(line)) for line in lines if line["start"] == start]
            if points:
                ours = start in ("codebook", "text", "text+codebook")
                axis.plot(*zip(*points, strict=True), color=f"C{number}", label=start, marker="o", markersize=3,
                          linewidth=2 if ours else 1.2, linestyle="-" if ours else "--")  # fmt: skip
        axis.set(title=title, xlabel="optimizer steps")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("loss on held-out records, nats a token")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STARTS), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The points of all curves; each was written whole."""
    return [json.loads(line) for line in path.open(encoding="utf-8")] if path.exists() else []


def main() -> None:
    """Read the arguments, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, nargs="?", help="without it, only the curves' file is read")
    parser.add_argument("--llm", type=Path, help="a language model's folder")
    parser.add_argument("--curves", type=Path, required=True, help="file of the curves' points; JSON lines")
    parser.add_argument("--only", action="append", choices=STARTS, help="starts; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="where to draw the curves, as SVG")
    parser.add_argument("--update", type=Path, help="page to write the table into")
    given = parser.parse_args()
    if given.dataset:
        if given.llm is None:
            parser.error("--llm FOLDER is needed to train")
        use_threads(given.threads)
        with tempfile.TemporaryDirectory() as name:
            ids = prepare(given.dataset, Path(name))
            for start in given.only or STARTS:
                if any(line["start"] == start for line in read_curves(given.curves)):
                    continue
                points = []
                for line in curve(given.llm, Path(name), ids, start, given.seed):
                    print(json.dumps(line), file=sys.stderr, flush=True)
                    points.append(json.dumps(line) + "\n")
                with given.curves.open("a", encoding="utf-8") as file:
                    file.writelines(points)
    lines = read_curves(given.curves)
    text = f"{machine(given.threads)}; {versions('torch', 'transformers', 'numpy')}.\n\n{table(lines)}"
    print(text)
    if given.plot:
        plot(lines, given.plot)
    if given.update:
        update(given.update, PAGE_MARK, text)


if __name__ == "__main__":
    main()
