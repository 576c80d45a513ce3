"""Refitting for a changed catalog: what surviving items keep, and what that costs, as a Markdown table.

    python -m tests.benchmarks.refit --data DIR [--embeddings FILE] [--method rqvae] [--update docs/benchmarks.md]

The old catalog are items such that a tenth of it goes and a fifth of its size comes new: drawn at random, or with
`--arrivals together` the new ones from as few of the categories as it takes, so that they are unlike the old ones.
Everything is learned from ready vectors. Distortions are relative to the variance of the new catalog's vectors,
with nearest codes and with the IDs; the sequence lift is of pairs of consecutive items that are both in it.
"Added" are the old IDs with what is gone retired and what is new added. CPU seconds are of learning, encoding and
assigning. DIR: see peers.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.items import Items
from semid.evaluation.churn import Churn
from semid.evaluation.metrics import number_prefixes, sequence_lift
from semid.evaluation.quality import Distortion
from semid.files.records import iter_records
from semid.pipeline.relearn import RefitOptions, RefitStep
from semid.quantize.codebooks import Codebooks
from semid.runtime.tables import Tables
from semid.tokenizer import SemanticIDTokenizer
from semid.train.keep_codes import NO_CODE
from tests.benchmarks.common import Catalog, joined, machine, markdown, read_catalog, use_threads, versions
from tests.benchmarks.page import update

GONE, NEW = 0.1, 0.2  # shares of the old catalog's size
PLAIN = {"align": False}
WAYS = [
    ("fresh", "plain fit, not aligned", PLAIN),
    ("fresh", "fresh, aligned by names alone", {"slack": 0.0}),
    ("fresh", "fresh, aligned", {}),
    ("warm", "warm, not aligned", PLAIN),
    ("warm", "warm, aligned by names alone", {"slack": 0.0}),
    ("warm", "**warm, aligned (default)**", {}),
    ("warm", "warm, aligned, slack 0.2", {"slack": 0.2}),
    ("warm", "warm, aligned, first level kept", {"keep_prefix": 1}),
]
COLUMNS = ["way", "keep 1 / 2 / 3 / 4 codes", "codes that keep their meaning", "distortion, nearest codes",
           "distortion", "perplexity", "sequence lift", "CPU s"]  # fmt: skip


class Shop(Catalog):
    """All items of a data set, of which some come and some go."""

    @classmethod
    def read(cls, folder: Path, embeddings: Path | None) -> Shop:
        found = read_catalog(folder, embeddings)
        return cls(found.folder, found.item_ids, found.vectors)

    def items(self, rows: npt.NDArray[np.integer]) -> Items:
        """Some items by id alone: their text is in the vectors."""
        return Items([self.item_ids[row] for row in rows.tolist()], {})

    def lift(self, rows: npt.NDArray[np.integer], codes: npt.NDArray[np.integer]) -> list[float | None]:
        """Sequence lift of codes [N, L] of the items of `rows`."""
        histories = self.interactions.map_to(self.items(rows).ids)
        return sequence_lift(number_prefixes(codes)[:-1], histories.offsets, histories.rows)[0]


@dataclass(frozen=True)
class Change:
    """Rows of a shop, ascending."""

    old: npt.NDArray[np.int64]
    new: npt.NDArray[np.int64]

    @classmethod
    def drawn(cls, order: npt.NDArray[np.int64]) -> Change:
        """From all rows in some order: gone ones first, new ones last."""
        n_old = round(len(order) / (1 + NEW))
        return cls(np.sort(order[:n_old]), np.sort(order[round(n_old * GONE) :]))


def arrivals_last(shop: Shop, folder: Path, how: str, seed: int) -> npt.NDArray[np.int64]:
    """All rows in the order of their coming: at random, or category by category."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(shop.item_ids))
    if how == "random":
        return order
    categories = {str(record["id"]): record["categories"][-1] for _, record in iter_records(folder / "items.jsonl.gz")}
    of_row = np.array([categories[item_id] for item_id in shop.item_ids])
    names = rng.permutation(np.unique(of_row))
    rank = {name: place for place, name in enumerate(names)}
    coming = np.array([rank[name] for name in of_row])
    n_old = round(len(order) / (1 + NEW))
    by_category = order[np.argsort(coming[order], kind="stable")]
    return np.concatenate([rng.permutation(by_category[:n_old]), by_category[n_old:]])


def compare(shop: Shop, change: Change, method: str) -> Iterator[list[str]]:
    """A row of the table for each way, and one for adding without a refit."""
    old = SemanticIDTokenizer.fit(shop.items(change.old), embeddings=shop.vectors[change.old], method=method)
    vectors = shop.vectors[change.new]
    rows = old.ledger.find_rows(shop.items(change.new).ids)
    old_codes = np.full((len(rows), len(old.sizes)), NO_CODE, np.int32)
    old_codes[rows >= 0] = old.codes[rows[rows >= 0]]
    yield added(shop, change, old, old_codes)
    learned: dict[tuple[str, int], tuple[Codebooks, float]] = {}
    for learn, name, choices in WAYS:
        wanted = RefitOptions(learn=learn, **choices)
        start = RefitStep(old_codes, old.sizes, old.codebooks if learn == "warm" else None, old.config, wanted)
        key = learn, wanted.keep_prefix
        clock = time.process_time()
        if key not in learned:
            learned[key] = start.learn(vectors)[0], time.process_time() - clock
        codebooks, seconds = learned[key]
        clock = time.process_time()
        codebooks, encoded = start.encode(codebooks, vectors, Tables(room=sys.maxsize))
        codes = start.assign(codebooks, encoded).codes
        seconds += time.process_time() - clock
        yield line(name, shop, change.new, old_codes, codebooks, encoded.codes, codes, seconds)


def added(shop: Shop, change: Change, old: SemanticIDTokenizer, old_codes: npt.NDArray[np.int32]) -> list[str]:
    """The old IDs, changed as far as they can be without learning."""
    gone = np.setdiff1d(change.old, change.new)
    coming = np.setdiff1d(change.new, change.old)
    clock = time.process_time()
    ids, _ = old.retire(shop.items(gone).ids).add(shop.items(coming), embeddings=shop.vectors[coming])
    seconds = time.process_time() - clock
    codes = ids.encode(shop.items(change.new).ids)
    raw = ids.encode_vectors(shop.vectors[change.new])
    return line("added, no refit", shop, change.new, old_codes, ids.codebooks, raw, codes, seconds)


def line(
    name: str,
    shop: Shop,
    rows: npt.NDArray[np.int64],
    old_codes: npt.NDArray[np.int32],
    codebooks: Codebooks,
    raw: npt.NDArray[np.integer],
    codes: npt.NDArray[np.integer],
    seconds: float,
) -> list[str]:
    """One row of the table."""
    vectors, known = shop.vectors[rows], old_codes[:, 0] != NO_CODE
    churn = Churn.of(old_codes[known], codes[known], n_new=int((~known).sum()), n_gone=0)
    nearest, final = (Distortion.of(vectors, final=codebooks.reconstruct(some)) for some in (raw, codes))
    shares = [np.bincount(column) / len(codes) for column in codes.T]
    perplexity = [float(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())) for share in shares]
    found = [
        name, joined((100 * share for share in churn.kept_prefix), ".1f"),
        joined((100 * share for share in churn.kept_meaning), ".0f"), f"{nearest.relative_to_variance:.4f}",
        f"{final.relative_to_variance:.4f}", joined(perplexity, ".0f"), joined(shop.lift(rows, codes), ".3g"),
        f"{seconds:.1f}",
    ]  # fmt: skip
    print(found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Read the arguments, print the table, put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--embeddings", type=Path, help="its vectors (default: the folder's first by name)")
    parser.add_argument("--method", default="rqvae", choices=["rqvae", "rqkmeans"])
    parser.add_argument("--arrivals", default="random,together", help="how the new items are chosen, one table each")
    parser.add_argument("--seed", type=int, default=0, help="of the change")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update", type=Path, help="a page with marks for `refit`")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    shop = Shop.read(arguments.data, arguments.embeddings)
    parts = [f"{machine(arguments.threads)}; {versions('torch', 'numpy', 'scikit-learn')}."]
    for how in arguments.arrivals.split(","):
        change = Change.drawn(arrivals_last(shop, arguments.data, how, arguments.seed))
        both = len(np.intersect1d(change.old, change.new))
        parts.append(
            f"{shop.name}, {arguments.method}, arrivals {how}: {len(change.old):,} items, then {len(change.new):,}, of "
            f"which {both:,} survive."
        )
        parts.append(markdown(COLUMNS, compare(shop, change, arguments.method)))
    text = "\n\n".join(parts)
    print(text)
    if arguments.update:
        update(arguments.update, "refit", text)


if __name__ == "__main__":
    main()
