"""Published ID sets of one catalog, and ours, side by side as a markdown table.

    python -m tests.benchmarks.published --data DIR [--ours ARTIFACT ...] [--advice]

DIR holds items.jsonl.gz, and as far as there are any: published_ids.NAME.json.gz (index files),
embeddings.NAME.npy (row i = line i of the items) and sequences.jsonl.gz (histories).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Histories
from semid.data.items import read_items
from semid.evaluation.advice import advise
from semid.evaluation.metrics import evaluate
from semid.evaluation.neighbors import Neighbors, find_neighbors
from semid.evaluation.quality import Quality, percent
from semid.tokenizer_exports import read_index

SHOWN = 4  # levels; textual IDs and those of product quantizers have up to 17
COLUMNS = [
    "IDs", "levels", "collision rate", "in conflict", "largest group", "codes used", "perplexity",
    "largest share", "fan-out",
]  # fmt: skip


@dataclass(frozen=True)
class IDSet:
    """IDs in the order of the catalog."""

    name: str
    codes: npt.NDArray[np.integer]  # (N, L)
    sizes: list[int] | None  # codes per level, where they are known


def published(folder: Path, item_ids: Sequence[str]) -> Iterator[IDSet]:
    """Every index file of the folder that covers the catalog."""
    for path in sorted(folder.glob("published_ids.*.json*")):
        index = read_index(path)
        rows = index.rows(list(item_ids))
        name = path.name.removeprefix("published_ids.").split(".json")[0]
        if (rows < 0).any():
            print(f"Left out: {name} ({int((rows < 0).sum()):,} of {len(rows):,} items have no ID in it).\n")
            continue
        yield IDSet(name, index.codes[rows], None)


def ours(folder: Path, item_ids: Sequence[str]) -> IDSet:
    """The IDs of a semid artifact, as `semid fit` wrote it."""
    from semid.tokenizer import SemanticIDTokenizer

    tokenizer = SemanticIDTokenizer.from_pretrained(folder)
    return IDSet(f"**semid** {folder.name}", tokenizer.encode(item_ids), list(tokenizer.sizes))


def cells(ids: IDSet, quality: Quality, recalls: Sequence[list[float]]) -> list[str]:
    """One row of the table."""
    levels = quality.levels[:SHOWN]
    return [
        ids.name,
        str(len(quality.levels)),
        percent(quality.collision_rate),
        f"{quality.items_in_conflict:,}",
        f"{quality.largest_group:,}",
        _joined([f"{level.used:,}" for level in levels], len(quality.levels)),
        _joined([f"{level.perplexity:.0f}" for level in levels], len(quality.levels)),
        percent(max(level.largest_share for level in levels)),
        f"{quality.max_prefix_fanout:,}",
        *(_joined([f"{share:.3f}" for share in recall[:SHOWN]], len(recall)) for recall in recalls),
        *([_lifts(quality.sequence_lift)] if quality.sequence_lift is not None else []),
    ]


def _lifts(lifts: list[float | None]) -> str:
    return _joined(["-" if lift is None else f"{lift:.3g}" for lift in lifts[:SHOWN]], len(lifts))


def _joined(shown: list[str], total: int) -> str:
    return " / ".join(shown) + (" / ..." if total > len(shown) else "")


def table(folder: Path, artifacts: Sequence[Path], *, with_advice: bool) -> None:
    """Print the table, and the advice for each set below it."""
    items = read_items(folder / "items.jsonl.gz")
    histories = _histories(folder, items.ids)
    near = _neighbors(folder)
    print(f"{folder.name}: {_about(items.texts(), near, histories)}\n")
    sets = [*published(folder, items.ids), *(ours(path, items.ids) for path in artifacts)]
    recall_names = [f"neighbor recall, {name}" for name in near]
    columns = [*COLUMNS, *recall_names, *(["sequence lift"] if histories else [])]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    said = []
    for ids in sets:
        # The first vectors stand for all of them in the advice.
        first, *others = near.values() or [None]
        quality = evaluate(ids.codes, sizes=ids.sizes, vectors=first, histories=histories)
        recalls = [quality.neighbor_recall] if near else []
        recalls += [evaluate(ids.codes, vectors=other).neighbor_recall for other in others]
        print(f"| {' | '.join(cells(ids, quality, recalls))} |")
        said.extend(f"- {ids.name}: {sentence}" for sentence in advise(quality))
    if with_advice:
        print("\n" + "\n".join(said))


def _about(texts: Sequence[str], near: dict[str, Neighbors], histories: Histories | None) -> str:
    parts = [f"{len(texts):,} items", f"{percent(1 - len(set(texts)) / len(texts))} repeat a text"]
    parts += [
        f"{percent(1 - len(found.sizes) / len(texts))} repeat a vector of {name} ({len(found.positions):,} "
        "asked for their 10 nearest)"
        for name, found in near.items()
    ]
    if histories is not None:
        parts.append(f"{len(histories.offsets) - 1:,} histories with {len(histories.rows):,} items")
    return ", ".join(parts) + f". Figures of a level or prefix are those of the first {SHOWN}."


def _neighbors(folder: Path) -> dict[str, Neighbors]:
    paths = sorted(folder.glob("embeddings.*.npy"))
    names = [path.name.removeprefix("embeddings.").removesuffix(".npy") for path in paths]
    return {name: find_neighbors(np.load(path, mmap_mode="r")) for name, path in zip(names, paths, strict=True)}


def _histories(folder: Path, item_ids: Sequence[str]) -> Histories | None:
    path = folder / "sequences.jsonl.gz"
    return read_interactions(path).map_to(item_ids) if path.exists() else None


def main() -> None:
    """Read the arguments, print the table."""
    parser = argparse.ArgumentParser(description="Published ID sets, and ours, side by side.")
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--ours", type=Path, action="append", default=[], help="folder that semid fit wrote")
    parser.add_argument("--advice", action="store_true", help="say below the table what is unhealthy")
    arguments = parser.parse_args()
    table(arguments.data, arguments.ours, with_advice=arguments.advice)


if __name__ == "__main__":
    main()
