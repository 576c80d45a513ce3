"""RQVAE: a residual-quantized autoencoder that starts where residual k-means ends.

Training from random weights takes thousands of epochs and may end below k-means. Here step 0 *is* residual k-means
(`residual_kmeans.py`): the encoder's linear path and hidden layer come from `starting_encoder`, the codebooks from
k-means over the whole catalog, the decoder's linear path from least squares, its MLP branch starts at zero. So
training can only improve on it: the epoch with the lowest error on held-out items is kept, and the start if no
epoch beats it.

    loss = |x - x^|^2 + w mean_l( |sg r_l - c_l|^2 + beta |r_l - sg c_l|^2 ) + anchor |z - z_0|^2

with the straight-through estimator z + sg(q - z) before the decoder (van den Oord et al. 2017; per level as in
LC-Rec), in units of the vectors' and latents' variance. The last level's codes are balanced within each training
batch (uniform semantic mapping); encoding is plain argmin. The anchor keeps latents near their start, where
neighbors share codes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.quantize.checks import check_sizes, check_vectors
from semid.quantize.codebooks import Codebooks
from semid.quantize.network import Encoder
from semid.quantize.residual import residual_codes
from semid.runtime.distributed import all_sum, place, world
from semid.train.auxiliary import Guide
from semid.train.base import Learner
from semid.train.kmeans import improve_levels
from semid.train.residual_kmeans import codebooks_from_encoder, fit_decoder, starting_encoder

__all__ = ["RQVAE", "Training"]

log = logging.getLogger("semid")

SMALLEST_TRAINING = 200  # below this many vectors there is nothing to hold out: the start is kept
HELD_OUT = 20  # one row in so many


@dataclass(frozen=True)
class Training:
    """What training did: errors are of held-out rows, relative to the vectors' variance.

    `kept_epoch` 0 means that the start was kept; NaN, that there were too few rows to hold any out.
    """

    start_error: float
    trained_error: float
    epochs: int
    kept_epoch: int


class RQVAE(Learner):
    """Warm-started RQ-VAE with uniform semantic mapping.

    Under torchrun each process gives `fit` its share of the vectors (`semid.runtime.distributed`), and all end with the
    same.

    Parameters
    ----------
    levels, codebook_size, dim, whiten, pull, landmarks, balance, refine, seed : see ResidualKMeans
    hidden : width of the decoder's MLP branch
    epochs : passes over the training rows; the best one is kept
    max_steps : most optimizer steps: large catalogs get fewer epochs, but at least 3; None = no limit
    batch_size, lr, weight_decay : of AdamW, with a one-cycle schedule
    beta : weight of the commitment term (LC-Rec uses the same)
    quant_weight : w above
    anchor : weight of staying near the starting latents
    epsilon : of the uniform mapping of the last level in training, 0 = off (LC-Rec uses the same)
    sample : most rows to learn from; a seeded sample of larger catalogs
    device : "auto", "cpu", "cuda", ...
    verbose : show a progress bar on stderr

    Attributes
    ----------
    codebooks_ : Codebooks
    training_ : Training
    n_features_in_ : D

    >>> points = np.random.default_rng(0).normal(size=(300, 8))
    >>> learner = RQVAE(levels=2, codebook_size=16, epochs=2, landmarks=32).fit(points)
    >>> learner.transform(points).shape
    (300, 2)
    """

    def __init__(
        self,
        *,
        levels: int = 4,
        codebook_size: int | Sequence[int] = 256,
        dim: int = 192,
        whiten: float = 0.6,
        pull: float = 0.75,
        landmarks: int = 2048,
        balance: float = 0.1,
        refine: int = 2,
        hidden: int = 512,
        epochs: int = 20,
        max_steps: int | None = 600,
        batch_size: int = 1024,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        beta: float = 0.25,
        quant_weight: float = 1.0,
        anchor: float = 3.0,
        epsilon: float = 0.003,
        sample: int = 200_000,
        device: str = "auto",
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.levels = levels
        self.codebook_size = codebook_size
        self.dim = dim
        self.whiten = whiten
        self.pull = pull
        self.landmarks = landmarks
        self.balance = balance
        self.refine = refine
        self.hidden = hidden
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.beta = beta
        self.quant_weight = quant_weight
        self.anchor = anchor
        self.epsilon = epsilon
        self.sample = sample
        self.device = device
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: npt.ArrayLike, y: object = None, *, guides: Sequence[Guide] = ()) -> RQVAE:
        """Learn from vectors [N, D]; y is ignored. Returns self.

        `guides` are what else the codes should agree with, one entry per vector; see `auxiliary.py`. What training ends
        with is then kept, whatever the error. ConfigError if one is of another length, or processes learn together.
        """
        vectors = check_vectors(X)
        _check_guides(guides, len(vectors))
        sizes = check_sizes(self.codebook_size, self.levels)
        self.n_features_in_ = vectors.shape[1]
        rng = np.random.default_rng(self.seed)
        n_items = place(len(vectors))[1]
        if n_items > self.sample:
            chosen = _own(rng.choice(n_items, self.sample, replace=False), vectors)
            vectors, guides = vectors[chosen], [guide.take(chosen) for guide in guides]
            n_items = self.sample
        held = np.zeros(len(vectors), bool)
        trains = n_items >= SMALLEST_TRAINING
        if trains:
            held[_own(rng.permutation(n_items)[: n_items // HELD_OUT], vectors)] = True

        # Held-out rows are unseen by the start as well, or the start would look better than it is.
        seen = vectors[~held]
        network = starting_encoder(
            seen, self.dim, whiten=self.whiten, pull=self.pull, landmarks=self.landmarks, seed=self.seed
        )
        chosen = codebooks_from_encoder(
            Encoder.from_float(network, seen),
            seen,
            sizes,
            balance=self.balance,
            refine=self.refine,
            seed=self.seed,
        )
        self.training_ = Training(float("nan"), float("nan"), 0, 0)
        mean = all_sum(vectors.sum(axis=0, dtype=np.float64)) / n_items
        variance = all_sum(float(np.square(vectors - mean).sum())) / n_items
        if guides and not (trains and self.epochs):
            log.warning("no training, so nothing aligned: %d vectors, %d epochs", n_items, self.epochs)
        if trains and self.epochs > 0 and variance > 0:
            chosen = self._improve(chosen, vectors, held, variance, guides)
        self.codebooks_ = self._fit_to_all(chosen, vectors) if trains else chosen
        return self

    def _improve(
        self,
        start: Codebooks,
        vectors: npt.NDArray[np.float32],
        held: npt.NDArray[np.bool_],
        variance: float,
        guides: Sequence[Guide] = (),
    ) -> Codebooks:
        """Train from `start`; return what reconstructs the held-out rows better, or with guides what was trained."""
        from semid.train.rqvae_training import train

        trained = train(self, start, vectors, held, guides=guides)
        seen = vectors[~held]
        on_grid = Codebooks.from_float(trained.encoder, trained.levels, trained.decoder, seen)
        refined = self._fit_to_all(on_grid, seen)
        # The start may have the same second helping of improvement, so that training alone makes the difference.
        starts = (start, self._fit_to_all(start, seen))
        start_error = min(_held_error(books, vectors[held], variance) for books in starts)
        trained_error = _held_error(refined, vectors[held], variance)
        better = trained.kept_epoch > 0 and (trained_error < start_error or bool(guides))
        log.info("held-out error %.4f at the start, %.4f after training", start_error, trained_error)
        self.training_ = Training(start_error, trained_error, trained.epochs, trained.kept_epoch if better else 0)
        return refined if better else start

    def _fit_to_all(self, books: Codebooks, vectors: npt.NDArray[np.float32]) -> Codebooks:
        """Improve the centroids for the latents as they are, and refit the decoder's tables."""
        latents = books.latents(vectors)
        levels = improve_levels(latents, books.levels, refine=self.refine, balance=self.balance)
        codes = residual_codes(latents, levels)
        moved = Codebooks(levels, books.encoder, books.decoder)
        decoder = fit_decoder(books.decoder.network, moved.quantized(codes), codes, vectors, books.sizes)
        return Codebooks(levels, books.encoder, decoder)


def _check_guides(guides: Sequence[Guide], n_items: int) -> None:
    if guides and world() > 1:
        raise ConfigError(f"guides={len(guides)}: several processes cannot learn with guides yet. Use one process.")
    for guide in guides:
        if len(guide) != n_items:
            raise ConfigError(f"{type(guide).__name__} has {len(guide)} entries; expected {n_items}, one per vector.")


def _own(rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Those of some rows of all that this process holds as `vectors`, sorted, as rows of `vectors`."""
    own = np.sort(rows) - place(len(vectors))[0]
    return own[(own >= 0) & (own < len(vectors))]


def _held_error(books: Codebooks, rows: npt.NDArray[np.float32], variance: float) -> float:
    """Mean squared error of rows that nothing was fitted to, relative to the variance."""
    left = rows - books.reconstruct(books.encode(rows))
    return all_sum(float(np.einsum("nd,nd->", left, left, dtype=np.float64))) / all_sum(len(rows)) / variance
