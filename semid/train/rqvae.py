"""RQVAE: a residual-quantized autoencoder whose training starts from residual k-means.

Training from random weights takes thousands of epochs and may end with a higher error than k-means. Here step 0 *is*
residual k-means (`residual_kmeans.py`): the encoder's linear path and hidden layer come from there, the
codebooks from k-means over the whole catalog, the decoder's linear path from least squares; its MLP branch starts at
zero. The epoch with the lowest error on held-out items is kept, or the start if no epoch beats it, so training cannot
make the codebooks worse.

    loss = |x - x^|^2 + w mean_l( |sg r_l - c_l|^2 + beta |r_l - sg c_l|^2 ) + anchor |z - z_0|^2

with the straight-through estimator z + sg(q - z) before the decoder (van den Oord et al. 2017; per level as in
LC-Rec), in units of the vectors' and latents' variance. The last level's codes are balanced within each training
batch (uniform semantic mapping); encoding takes the nearest code. The anchor keeps latents near their start, where
neighbors share codes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.quantize.checks import check_sizes, check_vectors
from semid.quantize.codebooks import Codebooks
from semid.quantize.residual import residual_codes
from semid.runtime.distributed import all_sum, place, world
from semid.train.auxiliary import AuxiliaryTarget
from semid.train.base import Learner
from semid.train.kmeans import improve_levels
from semid.train.residual_kmeans import fit_decoder, starting_codebooks
from semid.train.settings import RQVAESettings

__all__ = ["RQVAE", "Training"]

logger = logging.getLogger("semid")

SMALLEST_TRAINING = 200  # below this many vectors there is nothing to hold out: the start is kept
HELD_OUT = 20  # one row in so many


@dataclass(frozen=True)
class Training:
    """Result of the training: errors of held-out rows, relative to the vectors' variance.

    The errors are NaN where there were too few rows to hold any out.
    """

    start_error: float
    trained_error: float
    epochs: int  # trained
    kept_epoch: int  # 0: the start was kept


@dataclass(kw_only=True, eq=False)
class RQVAE(RQVAESettings, Learner):
    """Learn an RQ-VAE from a residual k-means start, with uniform semantic mapping.

    Under torchrun each process passes its share of the vectors to `fit` (`semid.runtime.distributed`), and all end with
    the same codebooks.

    Parameters
    ----------
    levels, codebook_size, dim, whiten, pull, landmarks, balance, refine, seed
        As in `ResidualKMeans`; `pull` is 0.75 by default.
    hidden : int
        Width of the decoder's MLP branch.
    epochs : int
        Passes over the training rows. The best epoch is kept.
    max_steps : int or None
        Cap on optimizer steps: a large catalog gets fewer epochs, but at least 3. None: no cap.
    batch_size, lr, weight_decay : int, float, float
        Of AdamW with a one-cycle schedule.
    beta : float
        Weight of the commitment term (as in LC-Rec).
    quant_weight : float
        w above: weight of the quantization terms against reconstruction.
    anchor : float
        Weight of the distance between latents and their start.
    epsilon : float
        Entropy of the balanced mapping of the last level in training batches (as in LC-Rec). 0 turns it off.
    sample : int
        Cap on the rows to learn from; of more, a seeded sample is drawn.
    device : str
        "auto", "cpu", "cuda" or another device of torch.

    Attributes
    ----------
    codebooks_ : Codebooks
    training_ : Training
    n_features_in_ : int
        D.

    >>> points = np.random.default_rng(0).normal(size=(300, 8))
    >>> learner = RQVAE(levels=2, codebook_size=16, epochs=2, landmarks=32).fit(points)
    >>> learner.transform(points).shape
    (300, 2)
    """

    training_: Training = field(init=False, repr=False)

    def fit(self, X: npt.ArrayLike, y: object = None, *, targets: Sequence[AuxiliaryTarget] = ()) -> Self:
        """Learn from vectors [N, D] and return self; y is ignored.

        Parameters
        ----------
        targets : sequence of AuxiliaryTarget
            What else the codes should agree with, one entry per vector (`auxiliary.py`). With targets the last epoch is
            kept, whatever its error.

        Raises
        ------
        InputError
            The vectors are not a matrix of finite numbers.
        ConfigError
            A target has another length than the vectors, or several processes learn with targets.
        """
        vectors = check_vectors(X)
        _check_targets(targets, len(vectors))
        check_sizes(self.codebook_size, self.levels)
        self.n_features_in_ = vectors.shape[1]
        rng = np.random.default_rng(self.seed)
        n_items = place(len(vectors))[1]
        if n_items > self.sample:
            rows = _own(rng.choice(n_items, self.sample, replace=False), vectors)
            vectors, targets = vectors[rows], [target.take(rows) for target in targets]
            n_items = self.sample
        held = np.zeros(len(vectors), bool)
        trains = n_items >= SMALLEST_TRAINING
        if trains:
            held[_own(rng.permutation(n_items)[: n_items // HELD_OUT], vectors)] = True

        # Held-out rows are unseen by the start as well, or the start would look better than it is.
        seen = vectors[~held]
        books = starting_codebooks(self, seen)
        self.training_ = Training(float("nan"), float("nan"), 0, 0)
        mean = all_sum(vectors.sum(axis=0, dtype=np.float64)) / n_items
        variance = all_sum(float(np.square(vectors - mean).sum())) / n_items
        if targets and not (trains and self.epochs):
            logger.warning(
                "auxiliary targets have no effect without training: %d vectors, %d epochs", n_items, self.epochs
            )
        if trains and self.epochs > 0 and variance > 0:
            books = self._improve(books, vectors, held, variance, targets)
        self.codebooks_ = self._fit_to_all(books, vectors) if trains else books
        return self

    def _improve(
        self,
        start: Codebooks,
        vectors: npt.NDArray[np.float32],
        held: npt.NDArray[np.bool_],
        variance: float,
        targets: Sequence[AuxiliaryTarget] = (),
    ) -> Codebooks:
        """Train from `start`; return the codebooks with the lower held-out error, or with targets the trained ones."""
        from semid.train.rqvae_training import train

        trained = train(self, start, vectors, held, targets=targets)
        seen = vectors[~held]
        on_grid = Codebooks.from_float(trained.encoder, trained.levels, trained.decoder, seen)
        refined = self._fit_to_all(on_grid, seen)
        # The start gets the same second improvement, so that training alone makes the difference.
        starts = (start, self._fit_to_all(start, seen))
        start_error = min(_held_error(books, vectors[held], variance) for books in starts)
        trained_error = _held_error(refined, vectors[held], variance)
        better = trained.kept_epoch > 0 and (trained_error < start_error or bool(targets))
        logger.info("held-out error %.4f at the start, %.4f after training", start_error, trained_error)
        self.training_ = Training(start_error, trained_error, trained.epochs, trained.kept_epoch if better else 0)
        return refined if better else start

    def _fit_to_all(self, books: Codebooks, vectors: npt.NDArray[np.float32]) -> Codebooks:
        """Improve the centroids for the latents of these vectors, and refit the decoder's tables."""
        latents = books.latents(vectors)
        levels = improve_levels(latents, books.levels, refine=self.refine, balance=self.balance)
        codes = residual_codes(latents, levels)
        moved = Codebooks(levels, books.encoder, books.decoder)
        decoder = fit_decoder(books.decoder.network, moved.quantized(codes), codes, vectors, books.sizes)
        return Codebooks(levels, books.encoder, decoder)


def _check_targets(targets: Sequence[AuxiliaryTarget], n_items: int) -> None:
    if targets and world() > 1:
        raise ConfigError(f"targets={len(targets)}: several processes cannot learn with targets yet. Use one process.")
    for target in targets:
        if len(target) != n_items:
            raise ConfigError(f"{type(target).__name__} has {len(target)} entries; expected {n_items}, one per vector.")


def _own(rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Of these rows of all processes, the ones that this process holds, ascending, as rows of `vectors`."""
    own = np.sort(rows) - place(len(vectors))[0]
    return own[(own >= 0) & (own < len(vectors))]


def _held_error(books: Codebooks, rows: npt.NDArray[np.float32], variance: float) -> float:
    """Mean squared error of rows that nothing was fitted to, relative to the variance."""
    left = rows - books.reconstruct(books.encode(rows))
    return all_sum(float(np.einsum("nd,nd->", left, left, dtype=np.float64))) / all_sum(len(rows)) / variance
