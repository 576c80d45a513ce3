"""Ranking a whole catalogue with an item head, beside popularity, item-kNN and EASE, as a Markdown table.

    python -m tests.benchmarks.item_head --data DIR [--seeds 3] [--epochs 30] [--update docs/benchmarks.md]

DIR holds sequences.jsonl.gz. Of each user a random fifth of the items is the test, a tenth validation; all methods
learn from the rest alone, choose their settings by NDCG@100 on validation, and are given training and validation items
as the history when the test comes. All items compete but those of the history. The transformer and the figures are
those of docs/examples/item_head.py.

popularity   how many users met an item
item-kNN     sum, over an item's nearest items that are in the history, of shrunken cosines
EASE         the closed-form linear model (Steck 2019), through a matrix of users, as there are fewer of them
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import nn

from semid.catalog import Items
from semid.interactions import read_interactions
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.item_head import CodeRows, TokenRows
from tests.benchmarks.common import machine, markdown, use_threads, versions
from tests.benchmarks.page import update

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / "item_head.py"), run_name="example")
Ranker, Split, figures = EXAMPLE["Ranker"], EXAMPLE["Split"], EXAMPLE["figures"]
Scores = npt.NDArray[np.float32]  # (U, N)

SHRINK, NEIGHBOURS, PENALTIES = (0, 10, 50), (50, 100, 200), (50, 100, 200, 400)
CHUNK = 1024  # items whose neighbours are looked for at once
COLUMNS = ["method", "item rows", "choice", "Recall@20, validation", "NDCG@100, validation", "Recall@20", "NDCG@100",
           "CPU s"]  # fmt: skip


def popularity(met: csr_array, history: csr_array) -> Iterator[tuple[str, Scores]]:
    """The same scores for everybody."""
    yield "-", np.tile(met.sum(0), (history.shape[0], 1))


def nearest(met: csr_array, history: csr_array) -> Iterator[tuple[str, Scores]]:
    """item-kNN with every setting."""
    counts = met.sum(0)
    columns = csr_array(met.T)
    found = {(s, k): np.zeros(history.shape, np.float32) for s in SHRINK for k in NEIGHBOURS}
    for start in range(0, len(counts), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(counts)))
        common = (columns[rows] @ met).toarray()
        common[rows - start, rows] = 0
        for shrink in SHRINK:
            cosines = common / (np.sqrt(np.outer(counts[rows], counts)) + shrink + 1e-9)
            for k in NEIGHBOURS:
                least = -np.partition(-cosines, k - 1, axis=1)[:, k - 1 : k]
                near = csr_array(np.where((cosines >= least) & (cosines > 0), cosines, 0))
                found[shrink, k][:, rows] = (history @ near.T).toarray()
    for (shrink, k), scores in found.items():
        yield f"{k} neighbours, shrunk by {shrink}", scores


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
    """Rows of semantic IDs learnt from the training interactions; the codes' rows start as their centroids."""
    vectors = EXAMPLE["behaviour_vectors"](split.matrix(split.train))
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


def plain_rows(split: Any, seed: int) -> nn.Module:
    """A row for each item, random at first."""
    torch.manual_seed(seed)
    embedding = nn.Embedding(split.n_items, EXAMPLE["WIDTH"])
    nn.init.normal_(embedding.weight, std=EXAMPLE["FIRST_LENGTH"])
    return TokenRows(embedding, range(split.n_items))


def shown(values: list[float]) -> str:
    """Mean, and the deviation over seeds where there are several."""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


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
    test = next(figures(scores, split.known, split.test) for choice, scores in method(met, known) if choice == best)
    return line(name, "-", best, [(*valid[best], *test)], time.process_time() - clock)


def head(name: str, split: Any, rows_of: Any, epochs: int, n_seeds: int) -> list[str]:
    """The transformer, over seeds; seconds of one."""
    results, clock = [], time.process_time()
    for seed in range(n_seeds):
        ranker = Ranker(split, rows_of(seed), seed=seed)
        ranker.learn(epochs)
        valid = figures(ranker.scores(split.train), split.train, split.valid)
        results.append((*valid, *figures(ranker.scores(split.known), split.known, split.test)))
    rows = ranker.head.rows
    n_rows = len(rows.used) if isinstance(rows, CodeRows) else rows.n_items
    return line(name, f"{n_rows:,}", f"{epochs} epochs", results, (time.process_time() - clock) / n_seeds)


def main() -> None:
    """Read the arguments, print the table, put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--seeds", type=int, default=3, help="of the transformer; the split stays")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update", type=Path, help="a page with marks for `item-head`")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    log = read_interactions(arguments.data / "sequences.jsonl.gz")
    split = Split.at_random(log)
    rows = [baseline(*one, split) for one in (("popularity", popularity), ("item-kNN", nearest), ("EASE", ease))]
    for name, rows_of in (
        ("item head, random start", lambda seed: plain_rows(split, seed)),
        ("**item head**", lambda seed: None),
        ("**item head**, rows of semantic IDs", lambda seed: code_rows(split, log.item_ids)),
    ):
        rows.append(head(name, split, rows_of, arguments.epochs, arguments.seeds))
    text = (
        f"{machine(arguments.threads)}; {versions('torch', 'transformers', 'numpy', 'scipy')}.\n\n"
        f"{arguments.data.name}: {len(log):,} users, {len(log.item_ids):,} items, {len(log.items):,} interactions; "
        f"{arguments.seeds} seeds.\n\n{markdown(COLUMNS, rows)}"
    )
    print(text)
    if arguments.update:
        update(arguments.update, "item-head", text)


if __name__ == "__main__":
    main()
