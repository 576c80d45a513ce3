"""`semid fit` at growing sizes: time, CPU time, peak memory and the share of each stage, as a Markdown table.

    python -m tests.benchmarks.scale packages.jsonl [--items 10000,100000,1000000] [--threads 2] [--memory 6GB]
    python -m tests.benchmarks.scale semid/datasets/debian-3000.jsonl --vary
    python -m tests.benchmarks.scale packages.jsonl --update

Takes the first so many lines of any JSONL, which should be in no order that matters (`shuf`). `--vary` makes as many
rows as are wanted out of fewer: of each row's text, one word in five is another of the same field, drawn by a seed.
Every size is a process of its own, the command as anyone runs it; its memory is what the system says was the most it
held. `--update` puts the table into docs/benchmarks.md, between its `scale` marks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random

from tests.benchmarks.common import machine, markdown, versions

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- scale: written by tests/benchmarks/scale.py -->", "<!-- /scale -->"
STAGE = re.compile(r"semid: stage (\w+): ([\d.]+) s, ([\d.]+) s of CPU")
REPLACED = 0.2  # of the words


@dataclass(frozen=True)
class Run:
    """One call of `semid fit`."""

    n_items: int
    seconds: float
    cpu: float
    peak: int  # bytes
    stages: dict[str, tuple[float, float]]  # name -> seconds, seconds of CPU
    moved: int


def varied(lines: list[str], seed: int = 0) -> Iterator[str]:
    """Endless JSONL: rows of a catalog with some words of their text replaced; ids are numbers."""
    rng = Random(seed)
    records = [json.loads(line) for line in lines]
    words: dict[str, list[str]] = {}
    for record in records:
        for name, value in record.items():
            if isinstance(value, str):
                words.setdefault(name, []).extend(value.split())
    for number in count():
        record = dict(records[number % len(records)])
        for name, value in record.items():
            if isinstance(value, str) and words[name]:
                changed = [rng.choice(words[name]) if rng.random() < REPLACED else word for word in value.split()]
                record[name] = " ".join(changed)
        yield json.dumps(record | {"id": number}, ensure_ascii=False) + "\n"


def write_items(source: Path, n_items: int, path: Path, *, vary: bool) -> None:
    with open(source, encoding="utf-8") as lines, open(path, "w", encoding="utf-8") as out:
        out.writelines(islice(varied(list(lines)) if vary else lines, n_items))


def run(path: Path, n_items: int, folder: Path, options: list[str], threads: int) -> Run:
    """Call the command and wait for it."""
    command = [sys.executable, "-m", "semid", "fit", str(path), "-o", str(folder), "-v", "--json", *options]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as talk, tempfile.TemporaryFile("w+") as data:
        child = subprocess.Popen([*command, "--threads", str(threads)], stdout=data, stderr=talk)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        talk.seek(0)
        said = talk.read()
        if child.returncode:
            raise SystemExit(said)
        data.seek(0)
        quality = json.load(data)
    stages = {name: (float(wall), float(cpu)) for name, wall, cpu in STAGE.findall(said)}
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(n_items, seconds, usage.ru_utime + usage.ru_stime, peak, stages, quality["moved_items"])


def table(runs: list[Run]) -> str:
    """A row a size; stages as seconds by the clock and, where others use the machine too, of CPU."""
    names = list(dict.fromkeys(name for one in runs for name in one.stages))
    columns = ["items", "time", "CPU", "peak memory", "us of CPU an item", *names]
    rows = [
        [
            f"{one.n_items:,}",
            f"{one.seconds:.0f} s",
            f"{one.cpu:.0f} s",
            f"{one.peak / 1e9:.2f} GB",
            f"{1e6 * one.cpu / one.n_items:.0f}",
            *(_share(one, name) for name in names),
        ]
        for one in runs
    ]
    return markdown(columns, rows)


def _share(one: Run, name: str) -> str:
    wall, _ = one.stages.get(name, (0.0, 0.0))
    return f"{wall:.1f} s, {wall / one.seconds:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", type=Path, help="JSONL")
    parser.add_argument("--items", default="10000,100000,1000000", help="sizes")
    parser.add_argument("--vary", action="store_true", help="make rows by varying those there are")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--update", action="store_true", help="write the table into docs/benchmarks.md")
    arguments, options = parser.parse_known_args()
    runs = []
    with tempfile.TemporaryDirectory() as name:
        for n_items in map(int, arguments.items.split(",")):
            items = Path(name) / "items.jsonl"
            write_items(arguments.catalog, n_items, items, vary=arguments.vary)
            runs.append(run(items, n_items, Path(name) / f"ids-{n_items}", options, arguments.threads))
            print(table(runs[-1:]), file=sys.stderr, flush=True)
    text = f"{machine(arguments.threads)}; {versions('numpy', 'torch', 'scikit-learn', 'faiss-cpu')}.\n\n{table(runs)}"
    if not arguments.update:
        print(text)
        return
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE}: no marks {BEGIN} ... {END} there.")
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
