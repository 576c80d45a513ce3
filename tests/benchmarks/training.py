"""What training adds: reconstruction error of items that nothing was fitted to, and the effect of each ingredient.

    python -m tests.benchmarks.training --data DIR [--data DIR ...] [--seeds 3] [--ablation]

One item in ten is held out of everything: principal directions, codebooks, training, early stopping, decoder. The
first rows are residual k-means from outside (scikit-learn's PCA, faiss's k-means) of the same d, L and K. Errors are
mean squared distances relative to the variance of all vectors. DIR: see peers.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from semid.evaluation.metrics import evaluate
from semid.evaluation.neighbors import Neighbors, find_neighbors
from semid.evaluation.quality import Quality
from semid.quantize.codebooks import Codebooks
from semid.train import kmeans as semid_kmeans
from semid.train.residual_kmeans import ResidualKMeans
from semid.train.rqvae import RQVAE
from tests.benchmarks.common import (
    Catalog,
    joined,
    machine,
    markdown,
    mean_square,
    read_catalog,
    use_threads,
    versions,
)

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.integer]

HELD_OUT = 10  # one item in so many
TABLE_RIDGE = 10.0  # the same as semid's


@dataclass(frozen=True)
class Learned:
    """A fitted quantizer."""

    encode: Callable[[Floats], Codes]
    reconstruct: Callable[[Codes], Floats]


@dataclass(frozen=True)
class Figures:
    """Of one fit."""

    train_error: float
    held_error: float
    seconds: float
    quality: Quality | None = None


# ---- what is compared --------------------------------------------------------------------------------------


def pca_kmeans(seen: Floats, sizes: Sequence[int], dim: int, seed: int, *, tables: bool) -> Learned:
    """PCA, faiss's k-means on the residuals of each level, a linear decoder, and perhaps least-squares tables."""
    import faiss
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression

    pca = PCA(dim, random_state=seed).fit(seen)
    residual, books = pca.transform(seen).astype(np.float32), []
    for level, size in enumerate(sizes):
        learner = faiss.Kmeans(
            dim, size, niter=25, seed=seed + level, max_points_per_centroid=len(seen), min_points_per_centroid=1
        )
        learner.train(residual)
        books.append(learner.centroids.copy())
        residual = residual - books[-1][learner.index.search(residual, 1)[1][:, 0]]

    def encode(vectors: Floats) -> Codes:
        left, columns = pca.transform(vectors).astype(np.float32), []
        for book in books:
            columns.append(faiss.knn(left, book, 1)[1][:, 0])
            left = left - book[columns[-1]]
        return np.stack(columns, axis=1)

    def quantized(codes: Codes) -> Floats:
        return sum(book[codes[:, level]] for level, book in enumerate(books))

    codes = encode(seen)
    linear = LinearRegression().fit(quantized(codes), seen)
    added = [np.zeros((size, seen.shape[1]), np.float32) for size in sizes]
    if tables:
        left = seen - linear.predict(quantized(codes))
        added = semid_kmeans.least_squares_tables(codes, left, sizes, ridge=TABLE_RIDGE)

    def reconstruct(codes: Codes) -> Floats:
        return linear.predict(quantized(codes)) + sum(table[codes[:, level]] for level, table in enumerate(added))

    return Learned(encode, reconstruct)


def of_codebooks(books: Codebooks) -> Learned:
    return Learned(books.encode, books.reconstruct)


def methods(dim: int) -> dict[str, Callable[[Floats, Sequence[int], int], Learned]]:
    """The rows of the first table: (seen vectors, sizes, seed) -> learned."""

    def semid(learner: type, **choices: object) -> Callable[[Floats, Sequence[int], int], Learned]:
        def learn(seen: Floats, sizes: Sequence[int], seed: int) -> Learned:
            fitted = learner(levels=len(sizes), codebook_size=sizes, dim=dim, seed=seed, **choices).fit(seen)
            return of_codebooks(fitted.codebooks_)

        return learn

    def outside(tables: bool) -> Callable[[Floats, Sequence[int], int], Learned]:
        return lambda seen, sizes, seed: pca_kmeans(seen, sizes, dim, seed, tables=tables)

    return {
        "PCA + k-means, linear decoder (scikit-learn, faiss)": outside(tables=False),
        "the same + least-squares tables": outside(tables=True),
        "semid residual k-means, plain PCA": semid(ResidualKMeans, whiten=0.0, balance=0.0),
        "semid residual k-means, default": semid(ResidualKMeans),
        "semid RQ-VAE, its start (0 epochs)": semid(RQVAE, epochs=0),
        "**semid RQ-VAE, trained**": semid(RQVAE),
    }


ABLATION: dict[str, dict[str, object]] = {
    "default": {},
    "no training (0 epochs)": {"epochs": 0},
    "no whitening": {"whiten": 0.0},
    "no pull to neighbors (linear encoder)": {"pull": 0.0},
    "codes not evened out": {"balance": 0.0},
    "no joint refinement": {"refine": 0},
    "k-means not started progressively": {"progressive": False},
    "no MLP branch in the decoder (1 unit)": {"hidden": 1},
    "no anchor": {"anchor": 0.0},
    "no uniform last level": {"epsilon": 0.0},
    "no pull, no anchor": {"pull": 0.0, "anchor": 0.0},
}


def ablated(seen: Floats, sizes: Sequence[int], seed: int, choices: dict[str, object]) -> Learned:
    """The default RQ-VAE with some choices changed."""
    choices = dict(choices)
    with _plain_start() if not choices.pop("progressive", True) else _nothing():
        return of_codebooks(RQVAE(levels=len(sizes), codebook_size=sizes, seed=seed, **choices).fit(seen).codebooks_)


@contextmanager
def _plain_start() -> Iterator[None]:
    """k-means in full width at once, with as many rounds as the steps had together."""
    rounds = semid_kmeans.FINAL_ROUNDS + semid_kmeans.STEP_ROUNDS * len(semid_kmeans.WIDTHS)
    with (
        patch.object(semid_kmeans, "WIDTHS", ()),
        patch.object(semid_kmeans.kmeans, "__kwdefaults__", semid_kmeans.kmeans.__kwdefaults__ | {"rounds": rounds}),
    ):
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


# ---- measuring ---------------------------------------------------------------------------------------------


def held_out(n_items: int, seed: int) -> npt.NDArray[np.bool_]:
    """One item in ten, drawn by the seed."""
    held = np.zeros(n_items, bool)
    held[np.random.default_rng([seed, 1]).permutation(n_items)[: n_items // HELD_OUT]] = True
    return held


def measure(
    learn: Callable[[Floats], Learned],
    catalog: Catalog,
    seed: int,
    sizes: Sequence[int],
    near: Neighbors | None = None,
) -> Figures:
    """Fit to nine tenths; errors of both parts. With `near`, also judge the raw codes of the whole catalog."""
    vectors, held = catalog.vectors, held_out(len(catalog.vectors), seed)
    variance = mean_square(vectors, vectors.mean(axis=0, dtype=np.float64))
    start = time.perf_counter()
    learned = learn(vectors[~held])
    seconds = time.perf_counter() - start
    codes = learned.encode(vectors)
    decoded = learned.reconstruct(codes)
    quality = None
    if near is not None:
        quality = evaluate(codes, sizes=sizes, vectors=near, histories=catalog.histories)
    train, unseen = (mean_square(vectors[part], decoded[part]) / variance for part in (~held, held))
    return Figures(train, unseen, seconds, quality)


def compare(catalog: Catalog, seeds: int, sizes: Sequence[int], dim: int) -> str:
    """The first table: every method over all seeds, and its held-out error relative to the first and the third."""
    found: dict[str, list[Figures]] = {}
    for name, learn in methods(dim).items():
        found[name] = []
        for seed in range(seeds):
            found[name].append(measure(lambda seen, s=seed, f=learn: f(seen, sizes, s), catalog, seed, sizes))
            _say(f"{catalog.name}, seed {seed}: {name}: held-out {found[name][-1].held_error:.4f}")
    base = np.array([figures.held_error for figures in next(iter(found.values()))])
    start = np.array([figures.held_error for figures in found["semid RQ-VAE, its start (0 epochs)"]])
    rows = []
    for name, runs in found.items():
        held = np.array([figures.held_error for figures in runs])
        rows.append([
            name,
            _spread([figures.train_error for figures in runs], ".4f"),
            _spread(held, ".4f"),
            _spread(100 * (held / base - 1), "+.1f") + " %",
            _spread(100 * (held / start - 1), "+.1f") + " %",
            f"{np.median([figures.seconds for figures in runs]):.0f}",
        ])  # fmt: skip
    columns = ["method", "error, seen items", "error, held-out items", "held-out against PCA + k-means",
               "held-out against semid's start", "fit, s"]  # fmt: skip
    return markdown(columns, rows)


def ablate(catalog: Catalog, seeds: int, sizes: Sequence[int]) -> str:
    """The second table: the default with one ingredient changed, mean over the seeds."""
    near = find_neighbors(catalog.vectors)
    rows = []
    for name, choices in ABLATION.items():
        runs = []
        for seed in range(seeds):
            runs.append(measure(lambda seen, s=seed, c=choices: ablated(seen, sizes, s, c), catalog, seed, sizes, near))
            _say(f"{catalog.name}, seed {seed}: {name}: held-out {runs[-1].held_error:.4f}")
        judged = [figures.quality for figures in runs]
        lifts = [quality.sequence_lift for quality in judged if quality.sequence_lift is not None]
        rows.append([
            name,
            f"{np.mean([figures.train_error for figures in runs]):.4f}",
            f"{np.mean([figures.held_error for figures in runs]):.4f}",
            f"{np.mean([quality.collision_rate for quality in judged]):.2%}",
            joined(np.mean([[level.perplexity for level in quality.levels] for quality in judged], axis=0), ".0f"),
            joined(np.mean([quality.neighbor_recall for quality in judged], axis=0), ".3f"),
            joined(np.mean(np.array(lifts, float), axis=0), ".3g") if lifts else "",
        ])  # fmt: skip
    columns = ["RQ-VAE", "error, seen items", "error, held-out items", "raw collisions", "perplexity",
               "neighbor recall", "sequence lift"]  # fmt: skip
    return markdown(columns, rows)


def _spread(values: Sequence[float] | npt.NDArray[np.floating], form: str) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):{form}} ± {deviation:{form.removeprefix('+')}}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Read the arguments, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of one data set")
    parser.add_argument("--embeddings", type=Path, help="its vectors (default: the folder's first by name)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of split and learner")
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--codebook-size", type=int, default=256)
    parser.add_argument("--ablation", action="store_true", help="measure each ingredient instead")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, help="the first so many items alone, for a quick look")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    sizes, dim = [arguments.codebook_size] * arguments.levels, RQVAE().dim
    print(f"{machine(arguments.threads)}; {versions('torch', 'numpy', 'faiss-cpu', 'scikit-learn')}.\n")
    for folder in arguments.data:
        catalog = read_catalog(folder, arguments.embeddings, rows=arguments.rows)
        if arguments.ablation:
            table = ablate(catalog, arguments.seeds, sizes)
        else:
            table = compare(catalog, arguments.seeds, sizes, dim)
        items, width = catalog.vectors.shape
        of = f"{arguments.levels}x{arguments.codebook_size}"
        print(f"{catalog.name}: {items:,} vectors of {width} dims, {of}, d = {dim}, {arguments.seeds} seeds.\n")
        print(f"{table}\n", flush=True)


if __name__ == "__main__":
    main()
