"""Which IDs make the better recommender? The same small generative model learns to speak each table of IDs.

    python -m tests.benchmarks.referee --items items.jsonl.gz --interactions sequences.jsonl.gz --results runs.jsonl
        --table semid=my-sid --table theirs=Beauty.index.json --table random=random
        [--seed N ...] [--beams N ...] [--split leave-one-out|time|own] [--reference NAME] [--update PAGE.md]

A table is an artifact's folder, an index file, `random` or `random:4x256` (unique IDs without meaning),
`shuffled:SOURCE` (the IDs of a source, dealt to the items at random: what its shape alone is worth), or `items` (one
token for each item: the same transformer over items, which is SASRec with a softmax over all of them).

Each user's last item is the test, the one before it validation; a model is told at most 20 items. All items are ranked,
those of the history too. Items that share an ID share its places (`semid.evaluate_recommendations`). Beside the tables:
popularity, last-item co-occurrence, item-kNN, EASE. Intervals are 95 %, over users, paired with the reference, the
first table by default; they do not include the seeds, whose standard deviation stands beside the mean.

Every run is a line of the results as soon as it is done. The same command goes on after the last one; runs of other
data, IDs or settings stay in the file and are left out of the table. Equal commands give equal figures.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

from semid.data import read_interactions, read_items
from semid.evaluation import RecommendationQuality
from tests.benchmarks.common import machine, use_threads, versions
from tests.benchmarks.page import update
from tests.benchmarks.referee_parts.baselines import BASELINES, recommend_baseline
from tests.benchmarks.referee_parts.recommender import Recommender, Settings, measure
from tests.benchmarks.referee_parts.results import NO_BEAMS, Run, append_run, read_runs, table
from tests.benchmarks.referee_parts.split import SplitLog
from tests.benchmarks.referee_parts.tables import IDTable, read_table

Measured = tuple[dict[str, RecommendationQuality], dict[str, object]]  # by beam width; how the training went


def judge(
    log: SplitLog,
    tables: dict[str, IDTable],
    results: Path,
    *,
    settings: Settings,
    seeds: Sequence[int] = (0, 1, 2),
    beams: Sequence[int] = (20, 50),
    device: str = "cpu",
) -> list[Run]:
    """Return the runs of all tables and seeds, then those of the baselines; make and keep what is missing."""
    planned = list[tuple[str, int, object, Callable[[], Measured]]]()
    for seed in seeds:  # all tables with the first seed, then with the next
        for name, ids in tables.items():
            depends: object = (ids.digest, seed, tuple(beams), sorted(asdict(settings).items()))
            planned.append((name, seed, depends, partial(_judge_ids, log, ids, settings, seed, beams, device)))
    planned += [(name, 0, numbers, partial(_judge_baseline, log, name)) for name, numbers in BASELINES.items()]
    done, runs = {run.key: run for run in read_runs(results)}, list[Run]()
    for name, seed, depends, make in planned:
        key = hashlib.sha256(repr((name, log.digest, depends)).encode()).hexdigest()[:16]
        if key not in done:
            start = time.process_time()
            qualities, about = make()
            done[key] = Run.of(name, seed, key, qualities, about, time.process_time() - start)
            append_run(results, done[key])
            print(done[key].summary(), file=sys.stderr, flush=True)
        runs.append(done[key])
    return runs


def _judge_ids(
    log: SplitLog, ids: IDTable, settings: Settings, seed: int, beams: Sequence[int], device: str
) -> Measured:
    model = Recommender(ids, log.item_ids, settings, seed, device)
    learned = model.learn(log)
    about = {"epoch": learned.index(max(learned)) + 1, "validation": learned, "distinct_ids": len(ids.distinct)}
    return {str(width): model.quality(log.test, width) for width in beams}, about


def _judge_baseline(log: SplitLog, name: str) -> Measured:
    lists, chosen = recommend_baseline(name, log)
    return {NO_BEAMS: measure(lists, log.test, log.item_ids)}, {"chosen": chosen}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, make the runs, print the table."""
    parser = argparse.ArgumentParser(description="Which IDs make the better recommender?")
    parser.add_argument("--items", type=Path, required=True, help="the catalog; only its ids are used")
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--split", choices=["leave-one-out", "time", "own"], default="leave-one-out")
    parser.add_argument("--table", action="append", required=True, metavar="NAME=SOURCE")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; the same command goes on with them")
    parser.add_argument("--reference", help="the table that others are compared with; default: the first")
    parser.add_argument("--seed", type=int, action="append", help="default: 0, 1 and 2")
    parser.add_argument("--beams", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update", type=Path, help="page to write the table into")
    for one in fields(Settings):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    given = parser.parse_args(arguments)
    use_threads(given.threads)
    item_ids = list(read_items(given.items).sorted().ids)
    log = SplitLog.of(item_ids, read_interactions(given.interactions), given.split)
    tables = {name: read_table(source, item_ids) for name, _, source in (one.partition("=") for one in given.table)}
    settings = Settings(**{one.name: getattr(given, one.name) for one in fields(Settings)})
    runs = judge(
        log, tables, given.results, settings=settings, seeds=given.seed or [0, 1, 2], beams=given.beams,
        device=given.device,
    )  # fmt: skip
    about = f"{machine(given.threads)}; {versions('torch', 'transformers', 'numpy')}; {settings}."
    size = f"{len(item_ids):,} items, {len(log.training):,} users, {len(log.test.users):,} test cases."
    text = "\n\n".join([about, size, table(runs, log.test.users, given.reference)])
    print(text)
    if given.update:
        update(given.update, f"referee-{given.items.parent.name}", text)


if __name__ == "__main__":
    main()
