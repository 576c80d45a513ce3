"""LC-Rec's RQ-VAE as published, for comparison and for `--preset lc-rec`; `rqvae.RQVAE` is the one to use.

Zheng et al., "Adapting Large Language Models by Integrating Collaborative Semantics for Recommendation", 2024,
`index/run.sh`, `index/trainer.py` and `index/models/`. Random weights, k-means on the first training batch,
thousands of epochs, uniform semantic mapping by a Sinkhorn plan of each batch's last level; the checkpoint with the
fewest collisions is kept. What it learns is put on the grid and becomes ordinary `Codebooks`, so encoding is as
exact and as fast as with every other learner.

Where the original stops with an error, this goes on: a first batch smaller than a codebook, and a batch of a single
row under BatchNorm. Its repair loop for collisions is `assign.lcrec.lcrec_repair`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy.typing as npt

from semid.errors import ConfigError
from semid.quantize.checks import check_sizes, check_vectors
from semid.quantize.codebooks import Codebooks
from semid.runtime.distributed import one_process_only
from semid.train.base import Learner

__all__ = ["LCRecRQVAE", "LCRecTraining"]

log = logging.getLogger("semid")

RANGE_ROWS = 16384  # rows that show the ranges of the hidden layers when the encoder is put on the grid


@dataclass(frozen=True)
class LCRecTraining:
    """What training did. Loss (mean of the epoch's batches) and collision rate are those of the kept epoch."""

    epochs: int
    kept_epoch: int
    loss: float
    collision_rate: float


class LCRecRQVAE(Learner):
    """LC-Rec's RQ-VAE: the published recipe, with its defaults.

    Parameters
    ----------
    levels : int, L
    codebook_size : int, or one int per level
    dim : latent width d
    layers : widths of the encoder's hidden layers; the decoder mirrors them
    batch_norm : BatchNorm after each hidden layer. The published script says `--bn False`, which its parser
        (`type=bool`) reads as True: what it trains has BatchNorm, hence the default. False is what it meant.
    epochs : passes over all rows; most are needed, the loss falls slowly
    batch_size, lr, weight_decay : of AdamW, over all parameters; gradients are clipped to norm 1
    warmup_epochs : epochs of linear warm-up, before linear decay to 0
    beta : weight of the commitment term
    quant_weight : weight of the quantization losses against reconstruction
    epsilon : of the Sinkhorn plan of the last level in training batches, 0 = off; earlier levels take the nearest
    iterations : of that plan
    eval_every : epochs between two looks at the collision rate of nearest codes
    keep : the epoch to keep of those looked at: fewest collisions, or lowest training loss
    device : "auto", "cpu", "cuda", ...
    seed : int
    verbose : show a progress bar on stderr

    Attributes
    ----------
    codebooks_ : Codebooks
    training_ : LCRecTraining
    n_features_in_ : D

    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(64, 8))
    >>> learner = LCRecRQVAE(levels=2, codebook_size=8, dim=4, layers=(16,), epochs=2)
    >>> learner.fit(points).transform(points).shape
    (64, 2)
    """

    def __init__(
        self,
        *,
        levels: int = 4,
        codebook_size: int | Sequence[int] = 256,
        dim: int = 32,
        layers: Sequence[int] = (2048, 1024, 512, 256, 128, 64),
        batch_norm: bool = True,
        epochs: int = 10_000,
        batch_size: int = 1024,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: int = 50,
        beta: float = 0.25,
        quant_weight: float = 1.0,
        epsilon: float = 0.003,
        iterations: int = 50,
        eval_every: int = 50,
        keep: Literal["collision", "loss"] = "collision",
        device: str = "auto",
        seed: int = 2024,
        verbose: bool = False,
    ) -> None:
        self.levels = levels
        self.codebook_size = codebook_size
        self.dim = dim
        self.layers = layers
        self.batch_norm = batch_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.beta = beta
        self.quant_weight = quant_weight
        self.epsilon = epsilon
        self.iterations = iterations
        self.eval_every = eval_every
        self.keep = keep
        self.device = device
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: npt.ArrayLike, y: object = None) -> LCRecRQVAE:
        """Learn from vectors [N, D]; y is ignored. Returns self.

        Raises
        ------
        InputError
            The vectors are not a matrix of finite numbers.
        ConfigError
            A choice is impossible, or the loss became NaN.
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
        log.info("kept epoch %d: %s", trained.kept_epoch, self.training_)
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
