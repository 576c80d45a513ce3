"""Compare training signals with the plain fit and with published ID sets, as Markdown tables.

    python -m tests.benchmarks.training_signals --data DIR [--data DIR ...] --llm FOLDER [--update docs/benchmarks.md]

Each row is a fit of the same vectors, 4 x 256, measured on its unique IDs. Each user's last two items are held out from
everything that learns from histories, and the lift is measured on these pairs alone; what published sets have seen is
unknown. Distortion: mean squared error of reconstructions from unique IDs, relative to the variance of the vectors.
Cold: share of items that get the same first code, and the same first two, from their text alone. DIR: see published.py;
FOLDER: a small language model, for the LLM loss.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data import Histories, held_out_interactions, training_interactions
from semid.evaluation import Neighbors, evaluate, find_neighbors
from semid.pipeline.signals import Signals
from semid.tokenizer import SemanticIDTokenizer
from tests.benchmarks.common import first_embeddings, joined, machine, markdown, read_catalog, use_threads, versions
from tests.benchmarks.page import update
from tests.benchmarks.published import published

SHOWN = 3  # prefix lengths
COLUMNS = [
    "IDs", "distortion", "perplexity", "lift, last two", "lift, all pairs", "neighbor recall", "cold", "CPU seconds",
]  # fmt: skip


@dataclass(frozen=True)
class World:
    """One data set."""

    folder: Path
    item_ids: list[str]
    vectors: npt.NDArray[np.float32]
    near: Neighbors
    whole: Histories
    last_two: Histories

    @classmethod
    def read(cls, folder: Path) -> World:
        found = read_catalog(folder)
        unseen = held_out_interactions(found.interactions, training_interactions(found.interactions))
        return cls(
            folder, found.item_ids, found.vectors, find_neighbors(found.vectors), found.histories,
            unseen.map_to(found.item_ids),
        )  # fmt: skip

    @property
    def embeddings(self) -> Path:
        """Their file."""
        return first_embeddings(self.folder)


def variants(llm: str | None) -> dict[str, Signals]:
    """Return the rows of the table."""
    found = {
        "**semid**, plain": Signals(),
        "fusion 1": Signals(collaborative_fusion=1.0),
        "fusion 1.5": Signals(collaborative_fusion=1.5),
        "fusion 3": Signals(collaborative_fusion=3.0),
        "collaborative loss 10": Signals(collaborative_loss=10.0),
        "fusion 1.5, collaborative loss 10": Signals(collaborative_fusion=1.5, collaborative_loss=10.0),
    }
    if llm is not None:
        found["LLM loss 1"] = Signals(llm_loss=llm, llm_loss_weight=1.0)
    return found


def judged(name: str, codes: npt.NDArray[np.integer], sizes: list[int] | None, world: World) -> list[str]:
    """Return the cells that any ID set has; the others are dashes."""
    quality = evaluate(codes, sizes=sizes, vectors=world.near, histories=world.last_two)
    whole = evaluate(codes, sizes=sizes, histories=world.whole)
    levels = [level.perplexity for level in quality.levels]
    return [
        name,
        "-",
        joined(levels[:4], ".0f") + (" / ..." if len(levels) > 4 else ""),
        joined(quality.sequence_lift[:SHOWN], ".3g"),
        joined(whole.sequence_lift[:SHOWN], ".3g"),
        joined(quality.neighbor_recall[:SHOWN], ".3f"),
        "-",
        "-",
    ]


def measured(name: str, signals: Signals, world: World) -> list[str]:
    """Fit and return the row."""
    start = time.process_time()
    ids = SemanticIDTokenizer.fit(
        world.folder / "items.jsonl.gz",
        embeddings=world.embeddings,
        signals=signals,
        interactions=world.folder / "sequences.jsonl.gz",
    )
    took = time.process_time() - start
    codes = ids.encode(world.item_ids).astype(np.int64)
    cells = judged(name, codes, list(ids.sizes), world)
    left = world.vectors - ids.codebooks.reconstruct(codes)
    cells[1] = f"{np.square(left).sum(1).mean() / world.vectors.var(0, dtype=np.float64).sum():.3f}"
    same = np.logical_and.accumulate(ids.codebooks.encode(world.vectors) == codes, axis=1)
    cells[-2] = joined(same[:, :2].mean(0), ".2f")
    cells[-1] = f"{took:.0f}"
    return cells


def main() -> None:
    """Read the arguments, print the tables."""
    parser = argparse.ArgumentParser(description="Compare training signals.")
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of one data set")
    parser.add_argument("--llm", help="a language model's folder; without one its rows are left out")
    parser.add_argument("--only", action="append", help="variants by name; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update", type=Path, help="page to write the tables into")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    parts = [f"{machine(arguments.threads)}; {versions('torch', 'numpy', 'faiss-cpu')}."]
    for folder in arguments.data:
        world = World.read(folder)
        rows = [judged(ids.name, ids.codes, ids.sizes, world) for ids in published(folder, world.item_ids)]
        for name, signals in variants(arguments.llm).items():
            if arguments.only and name not in arguments.only:
                continue
            rows.append(measured(name, signals, world))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        n_pairs = len(world.last_two.rows) // 2
        parts += [f"{folder.name}, {n_pairs:,} last pairs:", markdown(COLUMNS, rows)]
    text = "\n\n".join(parts)
    print(text)
    if arguments.update:
        update(arguments.update, "training-signals", text)


if __name__ == "__main__":
    main()
