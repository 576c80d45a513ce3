"""Cluster tokens of users and items beside META ID's published ones, as a markdown table.

    python -m tests.benchmarks.clusters --data DIR [--include-valid] [--update docs/benchmarks.md]

DIR holds sequences.jsonl.gz, published_ids.metaid.users.json.gz, published_ids.metaid.items.json.gz and
metaid_centroids.npz. Ours learn from all but each user's last two
interactions; META ID's shipped vectors have seen all but the last.

Lift: how much oftener than by chance two consecutive items share a cluster, over all histories and over each user's
last two items alone. MS: correlation of the centroids' cosines with the cosines over co-raters, all interactions;
"shared" takes sharing a token for the cosine. DS: divergence of the centroids, by direction alone. Figures of users and
items are those of items / of users.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.clusters.fit import ClusterConfig, fit_clusters
from semid.clusters.metrics import adjusted_cosines, diversity, interaction_matrix, memorization
from semid.clusters.tokens import ClusterTokens
from semid.data.index_files import read_index
from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Interactions
from semid.data.splits import training_interactions
from semid.encoders.collaborative import learn_behavior
from semid.evaluation.metrics import number_prefixes, sequence_lift
from semid.tokenizer_exports.formats.metaid import metaid_lines, read_metaid
from tests.benchmarks.common import joined, machine, markdown, versions
from tests.benchmarks.page import update

SIDES = ("item", "user")
COLUMNS = [
    "IDs", "tokens", "clusters", "fullest", "collisions", "perplexity", "lift", "lift, last two", "MS", "MS, shared",
    "MS, both tokens", "DS", "CPU seconds",
]  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What the scores are measured against."""

    log: Interactions
    cosines: dict[str, object]  # kind -> sparse [N, N]

    @classmethod
    def of(cls, log: Interactions) -> Truth:
        return cls(log, {side: adjusted_cosines(interaction_matrix(log, of=f"{side}s")) for side in SIDES})


def perplexity(codes: npt.NDArray[np.integer]) -> float:
    """As good as this many codes used evenly."""
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def lifts(log: Interactions, coarse: npt.NDArray[np.integer]) -> tuple[float, float]:
    """Of all consecutive pairs, and of each user's last one."""
    prefixes = number_prefixes(coarse[:, None].astype(np.int64))
    whole = sequence_lift(prefixes, log.offsets, log.items)[0][0]
    ends = log.offsets[1:][np.diff(log.offsets) > 1]
    pairs = log.items[np.stack([ends - 2, ends - 1], axis=1)].ravel()
    return whole, sequence_lift(prefixes, np.arange(0, len(pairs) + 1, 2), pairs)[0][0]


def cells(name: str, clusters: ClusterTokens, truth: Truth, seconds: float | None) -> list[str]:
    """One row of the table."""
    codes = {"item": clusters.items.encode(truth.log.item_ids), "user": clusters.users.encode(truth.log.users)}
    whole = np.concatenate(list(codes.values()))
    coarse = {side: codes[side][:, 0].astype(np.int64) for side in SIDES}
    vectors = {side: clusters.centroids[coarse[side]] for side in SIDES}
    one_hot = np.eye(clusters.sizes[0])
    shared = [memorization(one_hot[coarse[side]], truth.cosines[side]) for side in SIDES]
    both = [None, None]
    if clusters.fine is not None:
        both = [memorization(vectors[side] + clusters.fine[codes[side][:, 1]], truth.cosines[side]) for side in SIDES]
    return [
        name,
        f"{clusters.n_tokens:,}",
        str(len(np.unique(whole[:, 0]))),
        f"{np.unique(whole[:, 0], return_counts=True)[1].max():,}",
        str(len(whole) - len(np.unique(whole, axis=0))),
        joined([perplexity(coarse[side]) for side in SIDES], ".1f"),
        *(f"{lift:.2f}" for lift in lifts(truth.log, coarse["item"])),
        joined([memorization(vectors[side], truth.cosines[side]) for side in SIDES], ".4f"),
        joined(shared, ".4f"),
        joined(both, ".4f"),
        joined([diversity(vectors[side]) for side in SIDES], ".3f"),
        "-" if seconds is None else f"{seconds:.1f}",
    ]


def published(folder: Path) -> ClusterTokens:
    """META ID's, checked: read, and written back token for token."""
    paths = [folder / f"published_ids.metaid.{side}s.json.gz" for side in ("user", "item")]
    clusters = read_metaid(*paths, folder / "metaid_centroids.npz")
    for path, members in zip(paths, (clusters.users, clusters.items), strict=True):
        index = read_index(path)
        wanted = [f"{one} {''.join(tokens)}" for one, tokens in zip(index.item_ids, index.tokens, strict=True)]
        assert list(metaid_lines(index.item_ids, members.tokens(index.item_ids))) == wanted, path
    return clusters


def ours(log: Interactions, *, include_valid: bool) -> Iterator[tuple[str, ClusterTokens, float]]:
    """Variants on the same vectors; the seconds of the processor are of walks, skip-gram and clusters together."""
    config = ClusterConfig(include_valid=include_valid)
    start = time.process_time()
    vectors = learn_behavior(training_interactions(log, include_valid=include_valid), config.walks)
    learned = time.process_time() - start
    variants = {
        "**semid**": config,
        "not balanced": replace(config, balanced=False),
        "fine codes with vectors": replace(config, second_token="residual"),
        "the same, twice the room": replace(config, second_token="residual", spare_codes=1.0),
    }
    for name, choices in variants.items():
        start = time.process_time()
        made = fit_clusters(log, choices, vectors=vectors)
        yield name, made, learned + time.process_time() - start


def main() -> None:
    """Read the arguments, print the table."""
    parser = argparse.ArgumentParser(description="Cluster tokens beside META ID's.")
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--include-valid", action="store_true", help="learn from what META ID's vectors have seen too")
    parser.add_argument("--update", type=Path, help="page to write the table into")
    arguments = parser.parse_args()
    log = read_interactions(arguments.data / "sequences.jsonl.gz")
    truth = Truth.of(log)
    theirs = published(arguments.data)
    rows = [cells("META ID", theirs, truth, None)]
    rows += [cells(name, made, truth, took) for name, made, took in ours(log, include_valid=arguments.include_valid)]
    text = (
        f"{machine(1)}; {versions('numpy', 'numba', 'faiss-cpu', 'torch')}. META ID's files: {len(theirs.users):,} "
        f"users, {len(theirs.items):,} items, {theirs.n_tokens:,} distinct tokens, {len(theirs.check())} faults, "
        f"written back as they were.\n\n{markdown(COLUMNS, rows)}"
    )
    print(text)
    if arguments.update:
        update(arguments.update, "clusters", text)


if __name__ == "__main__":
    main()
