"""Ranking a whole catalog with an item head, beside popularity, item-kNN and EASE, as a Markdown table.

    python -m tests.benchmarks.item_head --data DIR [--seeds 3] [--epochs 20] [--update docs/benchmarks.md]

DIR holds sequences.jsonl.gz and items.jsonl.gz. Of each user a random fifth of the items is the test, a tenth
validation; all methods learn from the rest alone, choose their settings by NDCG@100 on validation, and are given
training and validation items as the history when the test comes. All items compete but those of the history. The
transformer and the figures are those of docs/examples/item_head.py.

popularity   how many users met an item
item-kNN     sum, over an item's nearest items that are in the history, of shrunken cosines
EASE         the closed-form linear model (Steck 2019), through a matrix of users, as there are fewer of them
item head    the transformer: with rows from behavior, at random or of semantic IDs; with a token of the user in the
             prompt; with a second table that learns the items' texts (twin_tables.py), for several prices of distance
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import nn

from semid.data.interaction_reader import read_interactions
from semid.data.items import Items, read_items
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.entities.item_head import CodeRows, TokenRows
from tests.benchmarks.common import machine, markdown, use_threads, versions
from tests.benchmarks.page import update
from tests.benchmarks.twin_tables import EXAMPLE, Twins

Ranker, Split, figures = EXAMPLE["Ranker"], EXAMPLE["Split"], EXAMPLE["figures"]
Make = Callable[["Data", int], Any]  # a ranker of a seed
Scores = npt.NDArray[np.float32]  # (U, N)

SHRINK, NEIGHBORS, PENALTIES = (0, 10, 50), (50, 100, 200), (50, 100, 200, 400)
CHUNK = 1024  # items whose neighbors are looked for at once
RARE = 5  # users that met an item in training, at most
COLUMNS = ["method", "item rows", "choice", "Recall@20, validation", "NDCG@100, validation", "Recall@20", "NDCG@100",
           "NDCG@100 among rare", "CPU s"]  # fmt: skip


def popularity(met: csr_array, history: csr_array) -> Iterator[tuple[str, Scores]]:
    """The same scores for everybody."""
    yield "-", np.tile(met.sum(0), (history.shape[0], 1))


def nearest(met: csr_array, history: csr_array) -> Iterator[tuple[str, Scores]]:
    """item-kNN with every setting."""
    counts = met.sum(0)
    columns = csr_array(met.T)
    found = {(s, k): np.zeros(history.shape, np.float32) for s in SHRINK for k in NEIGHBORS}
    for start in range(0, len(counts), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(counts)))
        common = (columns[rows] @ met).toarray()
        common[rows - start, rows] = 0
        for shrink in SHRINK:
            cosines = common / (np.sqrt(np.outer(counts[rows], counts)) + shrink + 1e-9)
            for k in NEIGHBORS:
                least = -np.partition(-cosines, k - 1, axis=1)[:, k - 1 : k]
                near = csr_array(np.where((cosines >= least) & (cosines > 0), cosines, 0))
                found[shrink, k][:, rows] = (history @ near.T).toarray()
    for (shrink, k), scores in found.items():
        yield f"{k} neighbors, shrunk by {shrink}", scores


def ease(met: csr_array, history: csr_array) -> Iterator[tuple[str, Scores]]:
    """EASE with every penalty: P = (X'X + p)^-1 = (1 - X'(XX' + p)^-1 X) / p, and B = -P / its diagonal."""
    likeness = (met @ met.T).toarray().astype(np.float64)
    for penalty in PENALTIES:
        inverse = np.linalg.inv(likeness + penalty * np.eye(len(likeness)))
        spread = inverse @ met.toarray()  # (U, N)
        diagonal = 1 - np.asarray(met.multiply(spread).sum(0)).ravel()
        scores = (history @ met.T).toarray() @ spread - history.toarray()
        yield f"penalty {penalty}", (scores / diagonal).astype(np.float32)


def code_rows(split: Any, log_items: list[str]) -> CodeRows:
    """Rows of semantic IDs learned from the training interactions; the codes' rows start as their centroids."""
    _, vectors = EXAMPLE["behavior_vectors"](split.matrix(split.train))
    items = Items(log_items, {})
    ids = SemanticIDTokenizer.fit(items, embeddings=vectors, method="rqkmeans", store_text=False)
    assert list(ids.ledger.item_ids) == log_items
    embedding = nn.Embedding(sum(ids.sizes), vectors.shape[1])
    rows = CodeRows(embedding, ids.vocabulary.token_ids(ids.codes, base=0))
    with torch.no_grad():
        embedding.weight.copy_(torch.from_numpy(np.concatenate(ids.codebooks.levels)))
        composed = rows.rows().numpy()  # the codebooks are of vectors that were scaled as a whole: scale them back
        embedding.weight.mul_(float((composed * vectors).sum() / (composed**2).sum()))
    return rows


def random_rows(split: Any, seed: int) -> TokenRows:
    """A row for each item, random at first."""
    torch.manual_seed(seed)
    embedding = nn.Embedding(split.n_items, EXAMPLE["WIDTH"])
    nn.init.normal_(embedding.weight, std=EXAMPLE["FIRST_LENGTH"])
    return TokenRows(embedding, range(split.n_items))


def twins(price: float) -> Make:
    """With user tokens, and a second table whose distance costs `price`."""
    return lambda data, seed: Twins(data.split, data.texts, price=price, seed=seed)


HEADS: dict[str, Make] = {
    "item head, random start": lambda data, seed: Ranker(data.split, random_rows(data.split, seed), seed=seed),
    "**item head**": lambda data, seed: Ranker(data.split, seed=seed),
    "**item head**, rows of semantic IDs": lambda data, seed: Ranker(
        data.split, code_rows(data.split, data.item_ids), seed=seed
    ),
    "item head, user tokens": lambda data, seed: Ranker(data.split, users=True, seed=seed),
    "item head, user tokens, texts at price 1": twins(1.0),  # at price 0 it is the row before, number for number
    "item head, user tokens, texts at price 10": twins(10.0),
}


@dataclass(frozen=True)
class Data:
    """A folder's interactions, split, and the items' texts in the order of their numbers."""

    split: Any
    item_ids: list[str]
    texts: list[str]

    @classmethod
    @cache
    def read(cls, folder: Path) -> Data:
        log, items = read_interactions(folder / "sequences.jsonl.gz"), read_items(folder / "items.jsonl.gz")
        texts = dict(zip(items.ids, items.texts(), strict=True))
        return cls(Split.at_random(log), log.item_ids, [texts.get(item_id, "") for item_id in log.item_ids])


def shown(values: list[float]) -> str:
    """Mean, and the deviation over seeds where there are several."""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def tested(split: Any, scores: Scores) -> tuple[float, float, float]:
    """Recall@20 and NDCG@100 on the test, and NDCG@100 where rare items alone compete and are wanted."""
    rare = split.matrix(split.train).sum(0) <= RARE
    wanted, alone = [items[rare[items]] for items in split.test], np.where(rare, scores, -np.inf)
    return *figures(scores, split.known, split.test), figures(alone, split.known, wanted)[1]


def line(name: str, n_rows: str, choice: str, results: list[tuple[float, ...]], seconds: float) -> list[str]:
    """One row of the table; results are validation's figures, then the test's, of each seed."""
    cells = [shown(list(column)) for column in zip(*results, strict=True)]
    found = [name, n_rows, choice, *cells, f"{seconds:.0f}"]
    print(found, file=sys.stderr, flush=True)
    return found


def baseline(name: str, method: Any, split: Any) -> list[str]:
    """The setting that does best on validation, on the test."""
    clock, met, known = time.process_time(), split.matrix(split.train), split.matrix(split.known)
    valid = {choice: figures(scores, split.train, split.valid) for choice, scores in method(met, met)}
    best = max(valid, key=lambda choice: valid[choice][1])
    test = next(tested(split, scores) for choice, scores in method(met, known) if choice == best)
    return line(name, "-", best, [(*valid[best], *test)], time.process_time() - clock)


def train(name: str, folder: Path, epochs: int, seed: int) -> tuple[list[float], int, float]:
    """One transformer: figures of validation and test, rows of items, CPU seconds. Runs in a process of its own."""
    use_threads(1)
    data, clock = Data.read(folder), time.process_time()
    ranker, split = HEADS[name](data, seed), data.split
    ranker.learn(epochs)
    valid = figures(ranker.scores(split.train), split.train, split.valid)
    test = tested(split, ranker.scores(split.known))
    rows = ranker.head.rows
    n_rows = len(rows.used) if isinstance(rows, CodeRows) else rows.n_items
    return [*valid, *test], n_rows, time.process_time() - clock


def heads(folder: Path, epochs: int, n_seeds: int, n_processes: int) -> list[list[str]]:
    """A row of the table for each kind of transformer, over seeds; seconds of one."""
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        runs = {name: [pool.submit(train, name, folder, epochs, seed) for seed in range(n_seeds)] for name in HEADS}
        found = []
        for name, futures in runs.items():
            results, rows, seconds = zip(*(future.result() for future in futures), strict=True)
            found.append(line(name, f"{rows[0]:,}", f"{epochs} epochs", list(results), float(np.mean(seconds))))
        return found


def main() -> None:
    """Read the arguments, print the table, put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--seeds", type=int, default=3, help="of the transformer; the split stays")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--update", type=Path, help="a page with marks for `item-head`")
    arguments = parser.parse_args()
    use_threads(1)
    clock, split = time.perf_counter(), Data.read(arguments.data).split
    rows = [baseline(*one, split) for one in (("popularity", popularity), ("item-kNN", nearest), ("EASE", ease))]
    rows += heads(arguments.data, arguments.epochs, arguments.seeds, arguments.processes)
    text = (
        f"{machine(1)}; {versions('torch', 'transformers', 'numpy', 'scipy')}.\n\n"
        f"{arguments.data.name}: {len(split.train):,} users, {split.n_items:,} items, "
        f"{sum(map(len, split.known + split.test)):,} interactions; {arguments.seeds} seeds, "
        f"processes: {arguments.processes}, {(time.perf_counter() - clock) / 60:.0f} minutes in all.\n\n"
        f"{markdown(COLUMNS, rows)}"
    )
    print(text)
    if arguments.update:
        update(arguments.update, "item-head", text)


if __name__ == "__main__":
    main()
