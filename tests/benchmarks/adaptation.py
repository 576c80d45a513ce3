"""Compare adapted vectors with plain and whitened ones, as a retriever and as what semantic IDs are learned from.

    python -m tests.benchmarks.adaptation --data DIR [--data DIR ...] --model FOLDER --cache DIR
        [--seed N ...] [--only NAME ...] [--method rqkmeans|rqvae] [--update docs/benchmarks.md]

Each user's last two items are held out, and all interactions of a tenth of the items, drawn at random, are removed:
these items are cold. Adapters learn from what is left.

- Next item: Recall@10 in percent of each user's last item, predicted by the mean of the three vectors before it, among
  all items not met before.
- IDs: 4 x 256, the lift of the last two items of each user (1 / 2 / 3 codes), that of pairs with a cold item, neighbor
  recall in plain vectors (1 / 2 codes), perplexity of the first code, collision rate.

Every figure is the worst of the seeds, which draw the cold items, the adapter and the IDs. DIR: see published.py;
FOLDER: a sentence-transformers model, whose vectors of a set are kept in the cache.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.adaptation import AdaptConfig
from semid.adaptation.adapter import apply_layers
from semid.adaptation.attributes import AttributeViews
from semid.adaptation.behavior import Behavior
from semid.adaptation.layers import learn_layers
from semid.adaptation.report import NextItems, whitened
from semid.config import SemanticIDConfig
from semid.data import Histories, Interactions, Items, read_interactions, read_items, training_interactions
from semid.encoders import NeuralEncoder
from semid.encoders.language_models import sha256_of_model
from semid.evaluation import Neighbors, evaluate, find_neighbors, number_prefixes, sequence_lift
from semid.pipeline.signals import Signals
from semid.tokenizer import SemanticIDTokenizer
from tests.benchmarks.common import SEQUENCES, joined, machine, markdown, use_threads, versions
from tests.benchmarks.page import update

Floats = npt.NDArray[np.float32]
RETRIEVAL = ["vectors", "all", "head", "tail", "cold", "whitened: all", "tail", "cold", "CPU seconds"]
IDS = ["IDs", "lift, last two", "lift, one cold", "neighbor recall", "perplexity", "collisions", "CPU seconds"]
FUSION = 1.5
USERS = 100_000  # next items of all users

ADAPTERS = {  # what is learned, by the name of its row
    "adapter": AdaptConfig(),
    "MLP adapter": AdaptConfig(adapter="mlp"),
    "adapter, attributes": AdaptConfig(learn=("attributes",)),
    "adapter, together and attributes": AdaptConfig(learn=("together", "attributes")),
    "adapter, LLMEmb's loss": AdaptConfig(loss="llmemb"),
    "adapter, LLMEmb's loss, detached": AdaptConfig(loss="llmemb-detached"),
    "RAT": AdaptConfig(rat=True),
}


@dataclass(frozen=True)
class World:
    """One data set and one draw of cold items."""

    items: Items
    plain: Floats
    near: Neighbors
    training: Interactions  # without cold items
    last_two: Histories
    tests: NextItems
    cold: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, folder: Path, model: Path, cache: Path, seed: int) -> World:
        items = read_items(folder / "items.jsonl.gz").sorted()
        items = replace(items, rows=np.arange(len(items)))  # vectors go by this order
        plain = cached(cache / f"{folder.name}-{sha256_of_model(model)[:12]}.npy", partial(embedded, model, items))
        log = read_interactions(folder / SEQUENCES)
        places = np.diff(log.offsets).repeat(np.diff(log.offsets)) - log.places()  # 1 is the last
        drawn = np.random.default_rng(seed).choice(len(items), len(items) // 10, replace=False)
        cold = np.zeros(len(items), bool)
        cold[drawn] = True
        cold_ids = {items.ids[row] for row in drawn.tolist()}
        is_cold = np.array([item_id in cold_ids for item_id in log.item_ids])[log.items]
        training = training_interactions(log)
        learned = training.where(~is_cold[places > 2])
        known = learned.map_to(items.ids).rows
        met = np.bincount(known[known >= 0], minlength=len(items))
        before, last = log.where(places > 1).map_to(items.ids), log.where(places == 1).map_to(items.ids)
        tests = NextItems.of(before, last, met, most=USERS, seed=0)
        last_two = log.where(places <= 2).map_to(items.ids)
        return cls(items, plain, find_neighbors(plain), learned, last_two, tests, cold)

    def learned(self, config: AdaptConfig, embed: Callable[[list[str]], Floats]) -> Floats:
        """Return adapted vectors."""
        behavior = Behavior.of(self.training, self.items, replace(config, split="all"))
        views = None
        if "attributes" in config.learn:
            published = config.loss == "llmemb"
            views = AttributeViews(self.items, config.attribute_dropout, config.seed, frozen=published)
        found = learn_layers(self.plain, config, behavior=behavior, views=views, embed=embed)
        scores = ", ".join(f"{step}: {100 * score:.2f}" for step, _, score in found.scores)
        print(f"  kept step {found.step}; {scores}", file=sys.stderr, flush=True)
        return apply_layers(found.layers, self.plain)

    def retrieval(self, vectors: Floats) -> list[float]:
        """Return Recall@10 of vectors (all, head, tail, cold), then of whitened ones (all, tail, cold), in percent."""
        plain, white = (self.tests.scores(rows).recall for rows in (vectors, whitened(vectors)))
        values = [*plain.values(), white["all"], white["tail"], white["cold"]]
        return [100 * (value or 0.0) for value in values]

    def ids(self, vectors: Floats, method: str, seed: int, fused: bool) -> list[list[float]]:
        """Return the figures of IDs of vectors."""
        signals = Signals(collaborative_fusion=FUSION, split="all") if fused else Signals()
        config = SemanticIDConfig(method=method, seed=seed)
        made = SemanticIDTokenizer.fit(
            self.items, config, embeddings=vectors, signals=signals, interactions=self.training if fused else None
        )
        codes = made.encode(list(self.items.ids)).astype(np.int64)
        quality = evaluate(codes, sizes=list(made.sizes), vectors=self.near, histories=self.last_two)
        pairs = self.last_two.rows.reshape(-1, 2)
        one_cold = pairs[((pairs >= 0).all(1)) & self.cold[pairs].any(1)]
        offsets = np.arange(0, 2 * len(one_cold) + 1, 2)
        cold_lift, _ = sequence_lift(number_prefixes(codes)[:2], offsets, one_cold.ravel())
        lifts = quality.sequence_lift or []
        return [
            [value or 0.0 for value in lifts[:3]],
            [value or 0.0 for value in cold_lift],
            list(quality.neighbor_recall or [])[:2],
            [quality.levels[0].perplexity],
            [-quality.collision_rate],
        ]


def embedded(model: Path, items: Items, texts: list[str] | None = None) -> Floats:
    """Return the model's vectors of the items, or of one text for each of them."""
    return NeuralEncoder(model).transform(items if texts is None else Items(items.ids, {"text": texts}))


def cached(path: Path, make: Callable[[], Floats]) -> Floats:
    """Return the vectors of a file, made and kept if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    found: Floats = np.load(path)
    return found


def worst(rows: list[list[list[float]]]) -> list[list[float]]:
    """Return the lowest of each figure over the seeds."""
    return [[min(values) for values in zip(*cell, strict=True)] for cell in zip(*rows, strict=True)]


def cells(figures: list[list[float]]) -> list[str]:
    """Return the figures of IDs as text."""
    formats = (".3g", ".3g", ".3f", ".0f")
    shown = [joined(values, form) for values, form in zip(figures, formats, strict=False)]
    return [*shown, f"{abs(figures[-1][0]):.3g}"]


def measured(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Return the tables of one data set."""
    retrieval: dict[str, list[list[list[float]]]] = {}
    ids: dict[str, list[list[list[float]]]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in arguments.seed or [0, 1, 2]:
        world = World.read(folder, arguments.model, arguments.cache, seed)
        plain, white = world.plain, whitened(world.plain)
        made: dict[str, Callable[[], Floats]] = {
            "plain": lambda plain=plain: plain,
            "whitened": lambda white=white: white,
        }
        embed = partial(embedded, arguments.model, world.items)
        for name, config in ADAPTERS.items():
            made[name] = partial(world.learned, replace(config, seed=seed, device="cpu"), embed)
        for name, make in made.items():
            if arguments.only and name not in arguments.only:
                continue
            start = time.process_time()
            vectors = make()
            seconds.setdefault(name, []).append(time.process_time() - start)
            retrieval.setdefault(name, []).append([[value] for value in world.retrieval(vectors)])
            for fused in (False, True) if name in ("plain", "adapter") else (False,):
                row = f"{name}, fusion {FUSION}" if fused else name
                start = time.process_time()
                ids.setdefault(row, []).append(world.ids(vectors, arguments.method, seed, fused))
                seconds.setdefault(row + " ids", []).append(time.process_time() - start)
                print(seed, row, " | ".join(cells(ids[row][-1])), file=sys.stderr, flush=True)
            print(seed, name, joined(sum(retrieval[name][-1], []), ".2f"), file=sys.stderr, flush=True)
    first = [[name, *(f"{cell[0]:.2f}" for cell in worst(rows)), f"{max(seconds[name]):.0f}"]
             for name, rows in retrieval.items()]  # fmt: skip
    second = [[name, *cells(worst(rows)), f"{max(seconds[name + ' ids']):.0f}"] for name, rows in ids.items()]
    seeds = len(arguments.seed or [0, 1, 2])
    return [
        f"{folder.name}, next item, Recall@10 in percent, worst of {seeds} seeds:",
        markdown(RETRIEVAL, first),
        f"{folder.name}, IDs by {arguments.method}, worst of {seeds} seeds:",
        markdown(IDS, second),
    ]


def main() -> None:
    """Read the arguments, print the tables."""
    parser = argparse.ArgumentParser(description="Compare adapted vectors with plain and whitened ones.")
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of one data set")
    parser.add_argument("--model", type=Path, required=True, help="a sentence-transformers model")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the model's vectors of each set")
    parser.add_argument("--seed", type=int, action="append", help="default: 0, 1 and 2")
    parser.add_argument("--only", action="append", help="rows by name; default: all")
    parser.add_argument("--method", choices=["rqkmeans", "rqvae"], default="rqkmeans")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update", type=Path, help="page to write the tables into")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    parts = [f"{machine(arguments.threads)}; {versions('torch', 'numpy', 'sentence-transformers')}."]
    for folder in arguments.data:
        parts += measured(folder, arguments)
    text = "\n\n".join(parts)
    print(text)
    if arguments.update:
        update(arguments.update, f"adaptation-{arguments.method}", text)


if __name__ == "__main__":
    main()
