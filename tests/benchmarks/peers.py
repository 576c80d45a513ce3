"""semid beside the libraries that learn residual codes, on one catalog, in one process, as a Markdown table.

    python -m tests.benchmarks.peers --data DIR [--peers NAME,...] [--json]

DIR holds items.jsonl.gz, embeddings.NAME.npy (row i = line i of the items) and, for the lift, sequences.jsonl.gz.
The peers come with `pip install "semid[bench]"`; one that is missing says so in its row. Recipes: recipes.py.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.evaluation.metrics import evaluate
from semid.evaluation.neighbors import Neighbors, find_neighbors
from semid.evaluation.quality import Distortion, Quality
from tests.benchmarks.common import Catalog, joined, machine, markdown, read_catalog, use_threads, versions
from tests.benchmarks.recipes import RECIPES, Learned, Recipe, Task

PACKAGES = ("torch", "numpy", "faiss-cpu", "scikit-learn", "rectokens", "semantic-id", "vector-quantize-pytorch")
COLUMNS = [
    "system", "recipe", "colliding IDs: raw", "final", "perplexity", "largest share", "distortion: raw", "final",
    "÷ first", "neighbor recall", "sequence lift", "fit, s", "fit, CPU s", "÷ first", "encode, s", "unique, s",
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One recipe's figures."""

    peer: str
    fit_seconds: float
    fit_cpu_seconds: float  # of all threads together: what a busy machine does not blur
    encode_seconds: float
    unique_seconds: float | None  # None: the system leaves collisions as they are
    raw: Quality  # of the codes as encoded
    final: Quality | None  # of the codes after the system's own resolution
    raw_distortion: float  # relative to the vectors' variance
    final_distortion: float | None


def run(name: str, task: Task, catalog: Catalog, near: Neighbors) -> Result:
    """Learn, encode, make unique, judge. Raises ImportError if the package is missing."""
    recipe = RECIPES[name]
    _import(recipe)
    start, start_cpu = time.perf_counter(), time.process_time()
    with _silenced():
        learned = recipe.learn(task)
    fitted, cpu = time.perf_counter(), time.process_time() - start_cpu
    with _silenced():
        codes = learned.encode(task.vectors)
    encoded = time.perf_counter()
    raw, raw_distortion = _judge(codes, learned, task, catalog, near)
    times = (fitted - start, cpu, encoded - fitted)
    if learned.unique is None:
        return Result(name, *times, None, raw, None, raw_distortion, None)
    before = time.perf_counter()
    with _silenced():
        final_codes = learned.unique(task.vectors, codes)
    unique_seconds = time.perf_counter() - before
    final, final_distortion = _judge(final_codes, learned, task, catalog, near)
    return Result(name, *times, unique_seconds, raw, final, raw_distortion, final_distortion)


def _judge(
    codes: npt.NDArray[np.integer], learned: Learned, task: Task, catalog: Catalog, near: Neighbors
) -> tuple[Quality, float]:
    sizes = [task.codebook_size] * task.levels
    quality = evaluate(codes, sizes=sizes, vectors=near, histories=catalog.histories)
    distortion = Distortion.of(task.vectors, final=learned.reconstruct(codes))
    return quality, float(distortion.relative_to_variance)


def _import(recipe: Recipe) -> None:
    """Import before the clock starts, and undo what a package changes for everybody while it is imported."""
    for module in recipe.modules:
        importlib.import_module(module)
    import torch

    torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep the progress of peers out of the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def cells(result: Result, first: Result) -> list[str]:
    """One row of the table. Perplexity, share, recall and lift are those of the final IDs, where there are any."""
    recipe, shown = RECIPES[result.peer], result.final or result.raw
    final, reference = result.final_distortion, first.final_distortion or first.raw_distortion
    return [
        recipe.title,
        recipe.what,
        f"{shown.n_items - result.raw.n_unique_ids:,}",
        "as raw" if result.final is None else f"{shown.n_items - shown.n_unique_ids:,}",
        joined((level.perplexity for level in shown.levels), ".0f"),
        f"{max(level.largest_share for level in shown.levels):.1%}",
        f"{result.raw_distortion:.4f}",
        "as raw" if final is None else f"{final:.4f}",
        f"{(final or result.raw_distortion) / reference:.2f}",
        joined(shown.neighbor_recall, ".3f"),
        "" if shown.sequence_lift is None else joined(shown.sequence_lift, ".3g"),
        f"{result.fit_seconds:.1f}",
        f"{result.fit_cpu_seconds:.1f}",
        f"{result.fit_cpu_seconds / first.fit_cpu_seconds:.2f}",
        f"{result.encode_seconds:.2f}",
        "" if result.unique_seconds is None else f"{result.unique_seconds:.2f}",
    ]


def missing(recipe: Recipe) -> list[str]:
    """The row of a recipe whose package is not there."""
    return [recipe.title, f"not installed: pip install {recipe.install}", *[""] * (len(COLUMNS) - 2)]


def main() -> None:
    """Read the arguments, print the table row by row on stderr and whole on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--embeddings", type=Path, help="its vectors (default: the folder's first by name)")
    parser.add_argument("--peers", default=",".join(RECIPES), help=f"which, of {', '.join(RECIPES)}")
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--codebook-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, help="the first so many items alone, for a quick look")
    parser.add_argument("--epochs", type=int, help="so many epochs or passes for everybody, for a quick look")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    names = arguments.peers.split(",")
    if unknown := set(names) - set(RECIPES):
        parser.error(f"--peers: no {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}.")
    use_threads(arguments.threads)
    catalog = read_catalog(arguments.data, arguments.embeddings, rows=arguments.rows)
    task = Task(catalog.vectors, arguments.levels, arguments.codebook_size, arguments.seed, epochs=arguments.epochs)
    near = find_neighbors(catalog.vectors)
    results, rows = [], []
    for name in names:
        try:
            results.append(run(name, task, catalog, near))
            rows.append(cells(results[-1], results[0]))
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
            rows.append(missing(RECIPES[name]))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
        return
    items, width = catalog.vectors.shape
    print(f"{catalog.name}: {items:,} vectors of {width} dims, {task.levels}x{task.codebook_size}, seed {task.seed}.")
    print(f"{machine(arguments.threads)}; {versions(*PACKAGES)}.\n")
    print(markdown(COLUMNS, rows))


if __name__ == "__main__":
    main()
