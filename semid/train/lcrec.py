"""LC-Rec's RQ-VAE as published, for comparison and for `--preset lc-rec`; `rqvae.RQVAE` is the one to use.

Zheng et al., "Adapting Large Language Models by Integrating Collaborative Semantics for Recommendation", 2024,
`index/run.sh`, `index/trainer.py` and `index/models/`. Random weights, k-means on the first training batch,
thousands of epochs, uniform semantic mapping by a Sinkhorn plan of each batch's last level; the checkpoint with the
fewest collisions is kept. What it learns is put on the grid and becomes ordinary `Codebooks`, so encoding is as
exact and as fast as with every other learner.

Where the original stops with an error, this goes on: a first batch smaller than a codebook, and a batch of a single
row under BatchNorm. Not here: its repair loop for collisions, which may fail (`tests/benchmarks/lcrec_repair.py`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Self

import numpy.typing as npt

from semid.errors import ConfigError
from semid.quantize.checks import check_sizes, check_vectors
from semid.quantize.codebooks import Codebooks
from semid.runtime.distributed import one_process_only
from semid.train.base import Learner
from semid.train.settings import LCRecSettings

__all__ = ["LCRecRQVAE", "LCRecTraining"]

logger = logging.getLogger("semid")

RANGE_ROWS = 16384  # rows that show the ranges of the hidden layers when the encoder is put on the grid


@dataclass(frozen=True)
class LCRecTraining:
    """Result of the training; loss (mean over the epoch's batches) and collision rate are those of the kept epoch."""

    epochs: int
    kept_epoch: int
    loss: float
    collision_rate: float


@dataclass(kw_only=True, eq=False)
class LCRecRQVAE(LCRecSettings, Learner):
    """Learn LC-Rec's RQ-VAE by the published recipe, with its defaults.

    Parameters
    ----------
    levels : int
        L.
    codebook_size : int or sequence of L ints
        K of every level, or of each.
    dim : int
        Width of the latents, d.
    layers : sequence of int
        Widths of the encoder's hidden layers; the decoder mirrors them.
    batch_norm : bool
        BatchNorm after each hidden layer. The published script says `--bn False`, which its parser (`type=bool`) reads
        as True: what it trains has BatchNorm, hence the default. False is what it meant.
    epochs : int
        Passes over all rows. Most are needed: the loss falls slowly.
    batch_size, lr, weight_decay : int, float, float
        Of AdamW, over all parameters; gradients are clipped to norm 1.
    warmup_epochs : int
        Epochs of linear warm-up, before linear decay to 0.
    beta : float
        Weight of the commitment term.
    quant_weight : float
        Weight of the quantization losses against reconstruction.
    epsilon : float
        Entropy of the Sinkhorn plan of the last level in training batches; 0 turns it off. Earlier levels take the
        nearest code.
    iterations : int
        Of that plan.
    eval_every : int
        Epochs between two measurements of the collision rate of nearest codes.
    keep : "collision" or "loss"
        Which of the measured epochs to keep: fewest collisions, or lowest training loss.
    device : str
        "auto", "cpu", "cuda" or another device of torch.
    seed : int

    Attributes
    ----------
    codebooks_ : Codebooks
    training_ : LCRecTraining
    n_features_in_ : int
        D.

    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(64, 8))
    >>> learner = LCRecRQVAE(levels=2, codebook_size=8, dim=4, layers=(16,), epochs=2)
    >>> learner.fit(points).transform(points).shape
    (64, 2)
    """

    training_: LCRecTraining = field(init=False, repr=False)

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Learn from vectors [N, D] and return self; y is ignored.

        Raises
        ------
        InputError
            The vectors are not a matrix of finite numbers.
        ConfigError
            A parameter is out of range, or the loss is not finite.
        """
        one_process_only("LC-Rec's recipe")
        vectors = check_vectors(X)
        sizes = check_sizes(self.codebook_size, self.levels)
        self._check()
        from semid.train.lcrec_training import train

        trained = train(self, vectors, sizes)
        shown = vectors[:: -(-len(vectors) // RANGE_ROWS)]
        self.codebooks_ = Codebooks.from_float(trained.encoder, trained.levels, trained.decoder, shown)
        self.training_ = LCRecTraining(self.epochs, trained.kept_epoch, trained.loss, trained.collision_rate)
        self.n_features_in_ = vectors.shape[1]
        logger.info("kept epoch %d: %s", trained.kept_epoch, self.training_)
        return self

    def _check(self) -> None:
        if self.keep not in ("collision", "loss"):
            raise ConfigError(f'keep={self.keep!r} should be "collision" or "loss".')
        for name in ("dim", "epochs", "eval_every", "iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} should be at least 1.")
        if self.batch_size < 1 + bool(self.batch_norm):
            raise ConfigError(
                f"batch_size={self.batch_size} should be at least {1 + bool(self.batch_norm)}"
                f" with batch_norm={self.batch_norm}: one row has no variance."
            )
