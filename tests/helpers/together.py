"""What tests/runtime/test_distributed.py runs as one process and as several: learn from a share of the rows.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/helpers/together.py OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from semid.kernels.sinkhorn import balanced_codes
from semid.runtime.distributed import (
    all_max,
    all_sum,
    broadcast,
    end_together,
    from_writer,
    gather,
    is_writer,
    place,
    rank,
    share,
    world,
)
from semid.train import rqvae_training
from semid.train.kmeans import kmeans
from semid.train.lloyd import assign_and_sum
from semid.train.residual_kmeans import ResidualKMeans
from semid.train.rqvae import RQVAE
from semid.train.sinkhorn import codes_balanced_together

N, D, K = 3000, 24, 32
SIZES = {"levels": 3, "codebook_size": K, "dim": 16}
TRAINING = {"epochs": 3, "batch_size": 512, "landmarks": 64, "pull": 0.75}


def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(60, D))
    return (centers[rng.integers(60, size=N)] + 0.5 * rng.normal(size=(N, D))).astype(np.float32)


def uneven(n_rows: int) -> slice:
    """Nearly all rows to the last process."""
    return slice(0 if rank() == 0 else 10, n_rows if rank() == world() - 1 else 10)


def results() -> dict[str, np.ndarray]:
    """Name -> array, the same in every process."""
    every = vectors()
    rows = every[share(N)]
    found = collectives(rows)
    passed = assign_and_sum(rows, every[:K], np.linspace(0, 1, K, dtype=np.float32))
    found |= {"sums": passed.sums, "counts": passed.counts, "scores": np.array(passed.scores)}
    found["codes"] = gather(passed.codes)
    found["kmeans"] = kmeans(rows, K)
    found["few"] = kmeans(np.repeat(every[:5], 2, axis=0)[share(10)], 8)  # fewer distinct points than codes
    found["balanced"] = gather(balanced(rows[::3], every[:K]))
    for name, part in (("", share), ("uneven.", uneven)):
        found |= learners(every, every[part(N)], name)
    return found


def collectives(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "sum": all_sum(rows.astype(np.float64).sum(axis=0)),
        "max": all_max(rows.max(axis=0)),
        "gathered": gather(rows),
        "gathered numbers": gather(np.arange(*share(9).indices(9)[:2], dtype=np.uint64)),
        "place": np.array([all_sum(place(len(rows))[0]), place(len(rows))[1]]),
        "broadcast": np.array(broadcast([rank(), "first"]), str),
        "alone": np.array(from_writer(lambda: (world(), float(all_sum(1.0))))),
        "number": np.array(all_sum(2) // world()),
    }


def balanced(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    own, codes = torch.from_numpy(rows), torch.from_numpy(centroids)
    if world() > 1:
        return codes_balanced_together(own, codes, place(len(rows))[1]).numpy()
    return balanced_codes(own, codes).numpy()


def learners(every: np.ndarray, rows: np.ndarray, name: str) -> dict[str, np.ndarray]:
    found, trained = {}, []
    real = rqvae_training.train

    def train(*arguments, **choices):
        trained.append(real(*arguments, **choices))
        return trained[-1]

    rqvae_training.train = train
    try:
        made = {
            "residual_kmeans": ResidualKMeans(**SIZES),
            "rqvae": RQVAE(**SIZES, **TRAINING, balance=0.0),
            "rqvae_even": RQVAE(**SIZES, **TRAINING),
            "rqvae_sample": RQVAE(**SIZES, **TRAINING, balance=0.0, sample=1000),
        }
        for kind, learner in made.items():
            learner.fit(rows)
            found[f"{name}{kind}.codes"] = learner.transform(every)
            found[f"{name}{kind}.levels"] = np.stack(learner.codebooks_.levels)
            if kind != "residual_kmeans":
                done = learner.training_
                found[f"{name}{kind}.errors"] = np.array([done.start_error, done.trained_error])
                found[f"{name}{kind}.trained"] = np.stack(trained[-1].levels)
                found[f"{name}{kind}.decoder"] = trained[-1].decoder.skip.weight
    finally:
        rqvae_training.train = real
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    kept = results()
    if is_writer():
        np.savez(sys.argv[1], **kept)
    end_together()
