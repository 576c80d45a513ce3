"""Refit IDs that were fitted with collaborative fusion: which lift and which codes are left, as a Markdown table.

    python -m tests.benchmarks.refit_signals --data DIR [--embeddings FILE] [--method rqvae] [--update PAGE]

The catalog changes at random, as in refit.py. The weight of the fusion is 1.5. Each user's last two interactions are
held out, and the sequence lift is measured on them alone. CPU seconds include all steps. DIR: see peers.py.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from semid.data import Interactions, held_out_interactions, training_interactions
from semid.evaluation import Churn, number_prefixes, sequence_lift
from semid.pipeline.refit import refit
from semid.pipeline.signals import Signals
from semid.tokenizer import SemanticIDTokenizer
from tests.benchmarks.common import joined, machine, markdown, use_threads, versions
from tests.benchmarks.page import update
from tests.benchmarks.refit import Change, Shop, arrivals_last

FUSION = Signals(collaborative_fusion=1.5)
COLUMNS = ["way", "keep 1 / 2 / 3 / 4 codes", "lift, last two", "CPU s"]


def compare(shop: Shop, change: Change, method: str) -> Iterator[list[str]]:
    """A row of the table for the old IDs in the old catalog, then for each way in the new one."""
    again = {"signals": FUSION, "interactions": shop.interactions}
    now = {"embeddings": shop.vectors[change.new]}
    held_out = held_out_interactions(shop.interactions, training_interactions(shop.interactions))

    def line(name: str, ids: SemanticIDTokenizer, began: float) -> list[str]:
        kept = "" if ids is old else joined((100 * share for share in _kept(old, ids)), ".1f")
        found = [name, kept, joined(_lift(ids, held_out), ".3g"), f"{time.process_time() - began:.0f}"]
        print(found, file=sys.stderr, flush=True)
        return found

    began = time.process_time()
    old = SemanticIDTokenizer.fit(shop.items(change.old), embeddings=shop.vectors[change.old], method=method, **again)
    yield line("the old IDs, in the old catalog", old, began)
    scratch = {"init": "scratch"}
    ways = {"warm": {}, "scratch": scratch, "**scratch, same signals again**": {**scratch, **again}}
    for name, choices in ways.items():
        began = time.process_time()
        yield line(name, refit(old, shop.items(change.new), **now, **choices)[0], began)
    began = time.process_time()
    yield line(
        "new fit, same signals", SemanticIDTokenizer.fit(shop.items(change.new), method=method, **now, **again), began
    )


def _kept(old: SemanticIDTokenizer, new: SemanticIDTokenizer) -> list[float]:
    rows = old.ledger.find_rows(new.item_ids)
    return Churn.of(old.codes[rows[rows >= 0]], new.codes[rows >= 0], n_new=0, n_gone=0).kept_prefix


def _lift(ids: SemanticIDTokenizer, held_out: Interactions) -> list[float | None]:
    histories = held_out.map_to(ids.item_ids)
    return sequence_lift(number_prefixes(ids.codes)[:-1], histories.offsets, histories.rows)[0]


def main() -> None:
    """Read the arguments, print the table, put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--embeddings", type=Path, help="its vectors (default: the folder's first by name)")
    parser.add_argument("--method", default="rqvae", choices=["rqvae", "rqkmeans"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update", type=Path, help="a page with marks for `refit-signals`")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    logging.getLogger("semid").setLevel(logging.ERROR)  # dropped signals are the point here
    shop = Shop.read(arguments.data, arguments.embeddings)
    change = Change.drawn(arrivals_last(shop, arguments.data, "random", 0))
    both = len(np.intersect1d(change.old, change.new))
    text = "\n\n".join(
        [
            f"{machine(arguments.threads)}; {versions('torch', 'numpy', 'scikit-learn')}.",
            f"{shop.name}, {arguments.method}: {len(change.old):,} items, then {len(change.new):,}, of which {both:,} "
            "survive.",
            markdown(COLUMNS, compare(shop, change, arguments.method)),
        ]
    )
    print(text)
    if arguments.update:
        update(arguments.update, "refit-signals", text)


if __name__ == "__main__":
    main()
