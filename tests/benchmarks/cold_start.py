"""Items that come after the fit beside items that were there: the IDs of a cold start, as Markdown tables.

    python -m tests.benchmarks.cold_start --data DIR [--embeddings FILE] [--method rqvae] [--update docs/benchmarks.md]

A tenth of the items is held out when IDs are learned and added afterwards (`ids.add`); beside it, all items fitted at
once. Everything is learned from ready vectors. The figures of the first table are of the held-out items alone, those of
the second of all items. Distortion is relative to the variance of all vectors, with nearest codes and with the IDs.
Neighbor recall: the share of an item's ten nearest, among all items, that have its first 1, 2, 3 codes. Sequence
lift: how much oftener than by chance a consecutive pair shares them; for the held-out items, pairs that one of them
is in. DIR: see peers.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.evaluation.metrics import number_prefixes, sequence_lift
from semid.evaluation.neighbors import Neighbors, find_neighbors
from semid.evaluation.quality import Distortion
from semid.tokenizer import SemanticIDTokenizer
from tests.benchmarks.common import joined, machine, markdown, use_threads, versions
from tests.benchmarks.page import update
from tests.benchmarks.refit import Shop

HELD_OUT = 0.1
COLUMNS = [
    "IDs",
    "distortion, nearest codes",
    "distortion",
    "got their nearest ID",
    "neighbor recall",
    "sequence lift",
]


@dataclasses.dataclass(frozen=True)
class Judge:
    """What two sets of IDs for the same shop are held against; rows are those of the shop."""

    shop: Shop
    late: npt.NDArray[np.bool_]  # [N]
    near: Neighbors

    @classmethod
    def of(cls, shop: Shop, late: npt.NDArray[np.bool_]) -> Judge:
        return cls(shop, late, find_neighbors(shop.vectors))

    def line(self, name: str, ids: SemanticIDTokenizer, rows: npt.NDArray[np.bool_]) -> list[str]:
        """The figures of the items of `rows`."""
        codes = ids.encode(self.shop.item_ids).astype(np.int64)
        vectors = self.shop.vectors
        raw = ids.encode_vectors(vectors)
        variance = float(vectors.var(axis=0, dtype=np.float64).sum())
        books = ids.codebooks
        nearest, final = (
            Distortion.of(vectors[rows], final=books.reconstruct(some[rows])).final / variance for some in (raw, codes)
        )
        own = (raw[rows] == codes[rows]).all(axis=1).mean()
        inner = number_prefixes(codes)[:-1]
        found = [
            name, f"{nearest:.4f}", f"{final:.4f}", f"{own:.1%}", joined(self.recall(inner, rows), ".3f"),
            joined(self.lift(inner, rows), ".3g"),
        ]  # fmt: skip
        print(found, file=sys.stderr, flush=True)
        return found

    def recall(self, prefixes: npt.NDArray[np.int64], rows: npt.NDArray[np.bool_]) -> list[float]:
        """Neighbor recall of some items; of items with the same vector, the first ones stand for all."""
        asked = rows[np.argsort(self.near.groups, kind="stable")[self.near.positions]]
        near = dataclasses.replace(self.near, positions=self.near.positions[asked], nearest=self.near.nearest[asked])
        return near.recall(prefixes)

    def lift(self, prefixes: npt.NDArray[np.int64], rows: npt.NDArray[np.bool_]) -> list[float]:
        """Sequence lift of the pairs that some items are in: their share of agreement in units of chance."""
        histories = self.shop.interactions.map_to(self.shop.item_ids)
        before, after = histories.rows[:-1], histories.rows[1:]
        inside = np.ones(len(before), np.bool_)
        inside[histories.offsets[1:-1] - 1] = False
        pairs = inside & (before >= 0) & (after >= 0) & (before != after)
        touched = pairs & (rows[before] | rows[after])
        lifts, _ = sequence_lift(prefixes, histories.offsets, histories.rows)
        whole = [(prefix[before[pairs]] == prefix[after[pairs]]).mean() for prefix in prefixes]
        some = [(prefix[before[touched]] == prefix[after[touched]]).mean() for prefix in prefixes]
        return [lift * part / all_ for lift, part, all_ in zip(lifts, some, whole, strict=True)]


def compare(shop: Shop, method: str, seed: int) -> Iterator[str]:
    """The two tables."""
    rng = np.random.default_rng(seed)
    late = np.zeros(len(shop.item_ids), np.bool_)
    late[rng.permutation(len(late))[: round(HELD_OUT * len(late))]] = True
    early, held = np.flatnonzero(~late), np.flatnonzero(late)
    fitted = SemanticIDTokenizer.fit(shop.items(early), embeddings=shop.vectors[early], method=method)
    added, report = fitted.add(shop.items(held), embeddings=shop.vectors[held])
    at_once = SemanticIDTokenizer.fit(shop.items(np.arange(len(late))), embeddings=shop.vectors, method=method)
    judge = Judge.of(shop, late)
    drift = "" if report.drift is None else f" As `semid add` tells it: error {report.drift.ratio:.2f} times the fit's."
    yield f"{shop.name}, {method}: {len(early):,} items fitted, {len(held):,} held out and added.{drift}"
    ways = {"fitted at once": at_once, "held out, then added": added}
    yield "The held-out items:"
    yield markdown(COLUMNS, (judge.line(name, ids, late) for name, ids in ways.items()))
    yield "All items:"
    yield markdown(COLUMNS, (judge.line(name, ids, np.ones_like(late)) for name, ids in ways.items()))


def main() -> None:
    """Read the arguments, print the tables, put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--embeddings", type=Path, help="its vectors (default: the folder's first by name)")
    parser.add_argument("--method", default="rqvae", choices=["rqvae", "rqkmeans"])
    parser.add_argument("--seed", type=int, default=0, help="of the items held out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update", type=Path, help="a page with marks for `cold-start`")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    shop = Shop.read(arguments.data, arguments.embeddings)
    head = f"{machine(arguments.threads)}; {versions('torch', 'numpy', 'scikit-learn')}."
    text = "\n\n".join([head, *compare(shop, arguments.method, arguments.seed)])
    print(text)
    if arguments.update:
        update(arguments.update, "cold-start", text)


if __name__ == "__main__":
    main()
