"""Learning codebooks, semid's residual k-means beside faiss's trainers, as a Markdown table.

    python -m tests.benchmarks.codebooks [--items 10000,100000] [--dims 32,64,384] [--threads 1]

4 x 256 centroids for the mixture of `encode.py`, on semid's grid; judged by the mean squared error of greedy codes.
faiss trains with beam 1, plainly and with progressive widths (its default). "Joint" are two rounds of least squares
over all levels after semid's k-means. CPU seconds, relative figures to faiss's default.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from semid.quantize.grid import snap, snap_centroids
from semid.quantize.residual import residual_codes
from semid.train.residual_kmeans import learn_levels
from tests.benchmarks.common import machine, markdown, use_threads, versions
from tests.benchmarks.encode import LEVELS, SIZE, mixture

Levels = list[np.ndarray]


def with_faiss(latents: np.ndarray, *, progressive: bool) -> Levels:
    import faiss

    quantizer = faiss.ResidualQuantizer(latents.shape[1], LEVELS, 8)
    kind = "Train_progressive_dim" if progressive else "Train_default"
    quantizer.train_type = getattr(faiss.ResidualQuantizer, kind)
    quantizer.max_beam_size = 1
    quantizer.train(latents.astype(np.float32))
    tables = faiss.vector_to_array(quantizer.codebooks).reshape(LEVELS, SIZE, -1)
    return [snap_centroids(table) for table in tables]


def with_semid(latents: np.ndarray, *, refine: int) -> Levels:
    return list(learn_levels(latents, [SIZE] * LEVELS, balance=0.0, refine=refine, seed=0))


def error(latents: np.ndarray, levels: Levels) -> float:
    codes = residual_codes(latents, levels)
    quantized = sum(level[codes[:, number]].astype(np.float64) for number, level in enumerate(levels))
    return float(np.square(latents - quantized).sum(axis=1).mean())


WAYS: dict[str, Callable[[np.ndarray], Levels]] = {
    "faiss, progressive widths": lambda latents: with_faiss(latents, progressive=True),
    "faiss, plain": lambda latents: with_faiss(latents, progressive=False),
    "**semid**": lambda latents: with_semid(latents, refine=0),
    "**semid**, joint": lambda latents: with_semid(latents, refine=2),
}


def measure(n_items: int, dims: int) -> list[list[str]]:
    latents = snap(mixture(n_items, dims))
    lines, first = [], None
    for name, learn in WAYS.items():
        start = time.process_time()
        levels = learn(latents)
        seconds = time.process_time() - start
        found = error(latents, levels)
        first = first or (seconds, found)
        lines.append([
            f"{n_items:,}", str(dims), name, f"{seconds:.2f}", f"{seconds / first[0]:.2f}", f"{found:.4f}",
            f"{found / first[1] - 1:+.1%}",
        ])  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", default="10000,100000")
    parser.add_argument("--dims", default="32,64,384")
    parser.add_argument("--threads", type=int, default=1, help="set OMP_NUM_THREADS to the same")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    with_semid(snap(mixture(2000, 8)), refine=1)  # compiles
    print(f"{machine(arguments.threads)}; {versions('numpy', 'torch', 'faiss-cpu', 'numba')}\n")
    lines = [
        line
        for n_items in map(int, arguments.items.split(","))
        for dims in map(int, arguments.dims.split(","))
        for line in measure(n_items, dims)
    ]
    print(markdown(["items", "d", "way", "CPU s", "time", "error", "to faiss's default"], lines))


if __name__ == "__main__":
    main()
