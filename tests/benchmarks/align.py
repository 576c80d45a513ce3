"""Writing alignment data: seconds and memory of each task, and a search for leaks, as a Markdown table.

    python -m tests.benchmarks.align DATASET [--sid DIR] [--out DIR] [--update docs/benchmarks.md]

DATASET holds `items.jsonl.gz`, `sequences.jsonl.gz` and, where no artifact is given, `embeddings.NAME.npy`. Each task
is written by a process of its own, with all records: wall and CPU seconds of `write_alignment`, the most memory that
the process held, and before it began. Queries and preferences are made up from brands and categories, one of each a
user: they stand for texts of that length and number, no more. Then all training files are read back, and every item
that a record names, by ID or by a title that no other item has, is held against what is held out for the record's user.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from semid.data import Interactions, Items, read_interactions, read_items
from semid.runtime.memory import peak_memory, resident_memory
from semid.tokenizer import SemanticIDTokenizer
from tests.benchmarks.common import first_embeddings, machine, markdown, versions
from tests.benchmarks.page import update

TASKS = ("next-item", "text-to-id", "id-to-text", "fusion", "search", "preference", "negative")


def artifact(dataset: Path, folder: Path) -> Path:
    """An artifact of the data set's first vectors."""
    vectors = first_embeddings(dataset)
    ids = SemanticIDTokenizer.fit(dataset / "items.jsonl.gz", embeddings=vectors, method="rqkmeans")
    ids.save_pretrained(folder / "sid")
    return folder / "sid"


def made_up(dataset: Path, folder: Path) -> None:
    """`queries.jsonl` for the third last item of each user, and `preferences.jsonl`."""
    items = read_items(dataset / "items.jsonl.gz")
    log = read_interactions(dataset / "sequences.jsonl.gz")
    words = dict(zip(items.ids, _words(items), strict=True))
    with open(folder / "queries.jsonl", "w") as queries, open(folder / "preferences.jsonl", "w") as preferences:
        for number, user in enumerate(log.users):
            history = log.history(number)
            if len(history) >= 3:
                queries.write(json.dumps({"user": user, "item": history[-3], "query": words[history[-3]]}) + "\n")
                liked = "; ".join(dict.fromkeys(words[item] for item in history[:-2]))
                preferences.write(json.dumps({"user": user, "preference": f"Likes {liked}."}) + "\n")


def _words(items: Items) -> Iterator[str]:
    columns = [items.fields.get(name, [""] * len(items)) for name in ("brand", "categories")]
    for row in zip(*columns, strict=True):
        yield " ".join(filter(None, row))[:200]


def write_one(task: str, dataset: Path, sid: Path, given: Path, out: Path) -> None:
    """In a process of its own: write a task, print figures."""
    from semid import write_alignment

    ids = SemanticIDTokenizer.from_pretrained(sid)
    before, wall, cpu = resident_memory(), time.perf_counter(), time.process_time()
    done = write_alignment(
        ids,
        dataset / "sequences.jsonl.gz",
        out / task,
        tasks=task,
        items=dataset / "items.jsonl.gz",
        queries=given / "queries.jsonl",
        preferences=given / "preferences.jsonl",
    )
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    n_bytes = sum(path.stat().st_size for path in (out / task).rglob("*.jsonl"))
    figures = {"records": sum(done.counts[task].values()), "bytes": n_bytes, "before": before, "peak": peak_memory()}
    print(json.dumps(figures | seconds))


def leaks(dataset: Path, sid: Path, out: Path) -> tuple[int, int]:
    """Training records of users, and how many of them name an item that is held out for the user."""
    ids = SemanticIDTokenizer.from_pretrained(sid)
    items = read_items(dataset / "items.jsonl.gz")
    log: Interactions = read_interactions(dataset / "sequences.jsonl.gz")
    often = Counter(items.fields["title"])
    title_of = {item: title for item, title in zip(items.ids, items.fields["title"], strict=True) if often[title] == 1}
    held_out = {user: log.history(n)[-2:] for n, user in enumerate(log.users) if len(log.history(n)) >= 3}
    tokens = {user: ids.tokens(rows) for user, rows in held_out.items()}
    n_records = n_leaks = 0
    for path in sorted(out.glob("*/*/train*.jsonl")):
        for line in path.open(encoding="utf-8"):
            record = json.loads(line)
            if not (user := record["user"]):
                continue
            n_records += 1
            text = record["prompt"][0]["content"] + "\n" + record["completion"][0]["content"]
            named = any(token in text for token in tokens.get(user, ()))
            titled = record["task"] == "fusion" and any(
                _stands(title_of.get(item), text) for item in held_out.get(user, ())
            )
            n_leaks += named or titled
    return n_records, n_leaks


def _stands(title: str | None, text: str) -> bool:
    """Is a title there as a whole, and not inside a longer one?"""
    if not title or title not in text:
        return False
    before, _, after = text.partition(title)
    return before.endswith((": ", "; ", "\n")) and (not after or after.startswith((";", ".", "\n")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--sid", type=Path, help="an artifact; by default one is learned from the first vectors")
    parser.add_argument("--out", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--update", type=Path, help="page to write the table into")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "GIVEN"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        write_one(given.one[0], given.dataset, given.sid, Path(given.one[1]), given.out)
        return
    with tempfile.TemporaryDirectory(dir=given.out) as name:
        folder = Path(name)
        sid = given.sid or artifact(given.dataset, folder)
        made_up(given.dataset, folder)
        rows = []
        for task in TASKS:
            command = [sys.executable, "-m", "tests.benchmarks.align", str(given.dataset), "--sid", str(sid)]
            command += ["--out", str(folder), "--one", task, str(folder)]
            said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            sizes = [f"{said[key] / 1e6:.0f}" for key in ("bytes", "before", "peak")]
            rows.append(
                [task, f"{said['records']:,}", sizes[0], f"{said['wall']:.1f}", f"{said['cpu']:.1f}", *sizes[1:]]
            )
        head = ["task", "records", "MB written", "wall (s)", "CPU (s)", "memory before (MB)", "peak (MB)"]
        n_records, n_leaks = leaks(given.dataset, sid, folder)
    text = (
        f"{machine(1)}; {versions('numpy')}.\n\n{markdown(head, rows)}\n\n"
        f"{n_records:,} training records of users; {n_leaks:,} of them name an item that is held out for the user."
    )
    print(text)
    if given.update:
        update(given.update, "align", text)


if __name__ == "__main__":
    main()
