"""The step that learns: vectors in, codebooks out, on a device and in memory that suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.config import SemanticIDConfig
from semid.errors import ConfigError
from semid.quantize.codebooks import Codebooks, chosen_backend
from semid.runtime import devices
from semid.runtime.arrays import sample_rows
from semid.runtime.distributed import share
from semid.runtime.memory import Budget
from semid.runtime.tables import RowTable, Tables
from semid.train.lloyd import lloyd_device

if TYPE_CHECKING:
    from semid.train.auxiliary import AuxiliaryTarget
    from semid.train.base import Learner
    from semid.train.rqvae import Training

__all__ = [
    "balance_last_level",
    "check_device",
    "exact_device",
    "learn_codebooks",
    "learned_in_words",
    "learner_for",
    "reserve_memory",
]

log = logging.getLogger("semid")

SAMPLE = 200_000  # items to learn from, at most
LATENT_DIM = 192  # of the learners, unless the config names another
# Bytes that learning takes at its peak: libraries and networks, and per number of a vector and of a latent.
LEARNING = 900_000_000
LEARNING_PER_INPUT = 24
LEARNING_PER_LATENT = 30
CODES_PER_ITEM = 500  # of all items: keys while they are made unique, and their text while it is written


def reserve_memory(
    tables: Tables, budget: Budget, n_items: int, config: SemanticIDConfig, extra_dims: int = 0
) -> Callable[..., None]:
    """Return a function that `embed` calls with the width of the vectors, before it makes them.

    It gives the tables the memory that the budget leaves beside learning; ConfigError if there is none.
    """

    def prepare(dim: int, to_fit: int = 0) -> None:
        need = max(to_fit, memory_to_learn(n_items, dim + extra_dims, config))
        tables.room = budget.room(need, f"learning from {min(n_items, SAMPLE):,} items")

    return prepare


def learn_codebooks(
    vectors: RowTable, config: SemanticIDConfig, targets: Sequence[AuxiliaryTarget] = ()
) -> tuple[Codebooks, Training | None]:
    """Learn codebooks from vectors [N, D], of more than 200,000 rows from a seeded sample.

    Returns
    -------
    codebooks : Codebooks
    training : Training or None
        Errors and epochs of the training; None for a learner without any (residual k-means).
    """
    rows = sample_rows(len(vectors), SAMPLE, config.seed)
    seen = vectors[:] if rows is None else vectors[rows]
    with lloyd_device(learning_device(config)):
        learner = learner_for(config)
        if targets:
            from semid.train.rqvae import RQVAE

            if not isinstance(learner, RQVAE):
                raise ConfigError(f"method={config.method!r} has no losses for signals. Use method='rqvae'.")
            learner.fit(seen, targets=targets if rows is None else [target.take(rows) for target in targets])
        else:
            learner.fit(seen[share(len(seen))])
    codebooks = learner.codebooks_
    if config.uniform == "catalog":
        codebooks = balance_last_level(codebooks, seen, exact_device(config.device))
    return codebooks, getattr(learner, "training_", None)


def memory_to_learn(n_items: int, dim: int, config: SemanticIDConfig) -> int:
    """Bytes that the steps after reading take at most beside what is held already and the tables; measured."""
    n_sampled = min(n_items, SAMPLE)
    latent = min(dim, config.dim or LATENT_DIM)
    learning = LEARNING + n_sampled * (dim * LEARNING_PER_INPUT + latent * LEARNING_PER_LATENT)
    return max(learning, CODES_PER_ITEM * n_items)


def learner_for(config: SemanticIDConfig) -> Learner:
    """Return the learner that a config asks for, with every choice that the config makes."""
    chosen: dict[str, Any] = {
        "levels": len(config.sizes),
        "codebook_size": config.codebook_size,
        "seed": config.seed,
    }
    if config.dim is not None:
        chosen["dim"] = config.dim
    if config.method == "rqkmeans":
        from semid.train.residual_kmeans import ResidualKMeans

        return ResidualKMeans(**chosen)
    if config.epochs is not None:
        chosen["epochs"] = config.epochs
    chosen["device"] = config.device
    if config.uniform == "off":
        chosen["epsilon"] = 0.0
    if config.method == "lc-rec":
        from semid.train.lcrec import LCRecRQVAE

        return LCRecRQVAE(**chosen)
    from semid.train.rqvae import RQVAE

    if config.epochs is not None:
        chosen["max_steps"] = None  # who names a number of epochs gets that number
    return RQVAE(**chosen)


def learning_device(config: SemanticIDConfig) -> str:
    """Where rounds of k-means run: where the training does, or for k-means alone on a GPU that was named."""
    if config.method == "rqkmeans":
        return exact_device(config.device)
    return devices.pick_device(config.device)


def exact_device(name: str) -> str:
    """Of all steps but training. A GPU if one was named: copying there gains nothing for what is small already."""
    return "cpu" if name == "auto" else name


def check_device(name: str) -> None:
    """ConfigError if torch cannot use the device, or what SEMID_BACKEND names cannot run there."""
    devices.check_device(name)
    chosen_backend("auto", exact_device(name))


def balance_last_level(codebooks: Codebooks, vectors: npt.NDArray[np.float32], device: str) -> Codebooks:
    """Add the prices that spread the catalog evenly over the last level's codes."""
    from semid.train.sinkhorn import catalog_prices

    latents = codebooks.latents(vectors)
    codes = codebooks.encode_latents(latents, device=device)
    last = codebooks.levels[-1]
    left = latents - codebooks.quantized(codes) + last[codes[:, -1]]
    prices, error = catalog_prices(left, last, device=device)
    log.info("catalog-wide balance of the last level: largest column error %.3f", error)
    return Codebooks(
        codebooks.levels, codebooks.encoder, codebooks.decoder, (None,) * (len(codebooks.levels) - 1) + (prices,)
    )


def learned_in_words(config: SemanticIDConfig, training: Training | None, n_items: int) -> str:
    """Return what was learned, for a line to people: sizes, learner, held-out error before and after training."""
    sizes = config.sizes
    said = f"{len(sizes)} x {sizes[0]} codes" if len(set(sizes)) == 1 else " x ".join(map(str, sizes)) + " codes"
    said += f", {config.method}"
    start, trained = (getattr(training, name, float("nan")) for name in ("start_error", "trained_error"))
    if np.isfinite(start) and np.isfinite(trained):
        said += f"; held-out error {start:.3f} -> {min(start, trained):.3f}"
    return said + (f"; from {SAMPLE:,} of the items" if n_items > SAMPLE else "")
