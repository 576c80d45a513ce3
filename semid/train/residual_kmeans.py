"""ResidualKMeans: residual quantization by k-means in a linear latent space.

    1. principal directions, their spread partly evened out              (latent.principal_map)
    2. optionally, a closed-form step of every item towards its neighbors (latent.neighbor_map)
    3. k-means on the residual of the levels so far, level by level        (kmeans.kmeans)
    4. joint least squares over all levels, then evening out their use     (kmeans.improve_levels)
    5. a decoder by least squares: linear in the quantized latent, plus a table per level

Also where RQ-VAE training starts (`rqvae.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from semid.quantize.checks import check_sizes, check_vectors
from semid.quantize.codebooks import Codebooks
from semid.quantize.grid import snap_centroids
from semid.quantize.network import Decoder, Encoder, FloatLayer, Network
from semid.quantize.residual import residual_codes
from semid.runtime.distributed import all_sum, from_writer, gather, place
from semid.train.base import Learner
from semid.train.kmeans import improve_levels, kmeans, least_squares_tables
from semid.train.latent import nearest_neighbors, neighbor_map, principal_map
from semid.train.settings import ResidualKMeansSettings

__all__ = ["ResidualKMeans", "codebooks_from_encoder", "fit_decoder", "linear_decoder", "starting_codebooks"]


NEIGHBORS = 10
MAX_NEIGHBOR_ROWS = 16_384  # enough rows to learn the step from; each is compared with the whole catalog
TABLE_RIDGE = 10.0  # of 0.001 to 30, the best on held-out items


@dataclass(kw_only=True, eq=False)
class ResidualKMeans(ResidualKMeansSettings, Learner):
    """Learn residual k-means with progressive starts, balanced use of codes and joint refinement.

    Under torchrun each process passes its share of the vectors to `fit` (`semid.runtime.distributed`), and all end with
    the same codebooks.

    Parameters
    ----------
    levels : int
        L.
    codebook_size : int or sequence of L ints
        K of every level, or of each.
    dim : int
        Width of the latents, d; the vectors' own width if that is smaller.
    whiten : float
        Share of the principal directions' spread that is evened out, 0 to 1.
    pull : float
        Weight of an item's neighbors against the item itself (`latent.neighbor_map`). 0 turns it off.
    landmarks : int
        Hidden units of the neighbor map.
    balance : float
        Price of crowded codes (`kmeans.even_out`). 0 turns it off.
    refine : int
        Cap on the rounds of joint refinement.
    seed : int

    Attributes
    ----------
    codebooks_ : Codebooks
    n_features_in_ : int
        D.

    >>> points = np.random.default_rng(0).normal(size=(200, 8))
    >>> ResidualKMeans(levels=2, codebook_size=16).fit_transform(points).shape
    (200, 2)
    """

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Learn from vectors [N, D] and return self; y is ignored."""
        vectors = check_vectors(X)
        self.codebooks_ = starting_codebooks(self, vectors)
        self.n_features_in_ = vectors.shape[1]
        return self


def starting_codebooks(settings: ResidualKMeansSettings, vectors: npt.NDArray[np.float32]) -> Codebooks:
    """Learn the codebooks of residual k-means from checked vectors [N, D] (steps 1 to 5)."""
    sizes = check_sizes(settings.codebook_size, settings.levels)
    network = starting_encoder(
        vectors,
        settings.dim,
        whiten=settings.whiten,
        pull=settings.pull,
        landmarks=settings.landmarks,
        seed=settings.seed,
    )
    return codebooks_from_encoder(
        Encoder.from_float(network, vectors),
        vectors,
        sizes,
        balance=settings.balance,
        refine=settings.refine,
        seed=settings.seed,
    )


def starting_encoder(
    vectors: npt.NDArray[np.float32], dim: int, *, whiten: float, pull: float, landmarks: int, seed: int
) -> Network[FloatLayer]:
    """Return the encoder as a float network, before any training (steps 1 and 2).

    Where several processes learn together, the first one does it with the rows of all.
    """
    every = gather(vectors)
    return from_writer(lambda: _starting_encoder(every, dim, whiten, pull, landmarks, seed))


def _starting_encoder(
    vectors: npt.NDArray[np.float32], dim: int, whiten: float, pull: float, landmarks: int, seed: int
) -> Network[FloatLayer]:
    principal = principal_map(vectors, dim, whiten=whiten, seed=seed)
    directions, gain = principal.directions, principal.gain
    shift = -principal.mean @ directions
    if pull <= 0 or len(vectors) <= 4 * NEIGHBORS:
        return Network(FloatLayer(directions * gain, shift * gain))
    rows = np.arange(len(vectors))
    if len(rows) > MAX_NEIGHBOR_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), MAX_NEIGHBOR_ROWS, replace=False))
    neighbors = nearest_neighbors(vectors, rows, NEIGHBORS)
    step = neighbor_map(principal(vectors), rows, neighbors, pull=pull, units=landmarks, seed=seed)
    linear = np.eye(len(gain)) + step.linear
    skip = FloatLayer(directions @ linear * gain, (shift @ linear + step.bias) * gain)
    inner = FloatLayer(directions @ step.inner, shift @ step.inner + step.inner_bias)
    outer = FloatLayer(step.outer * gain, np.zeros(len(gain)))
    return Network(skip, (inner, outer))


def learn_levels(
    latents: npt.NDArray[np.float64], sizes: Sequence[int], *, balance: float, refine: int, seed: int
) -> tuple[npt.NDArray[np.float32], ...]:
    """Return centroids on the grid for each level, from latents on the grid (steps 3 and 4)."""
    residual, levels = latents.astype(np.float32), []
    for level, size in enumerate(sizes):
        centroids = snap_centroids(kmeans(residual, size, seed=seed + level))
        residual = residual - centroids[residual_codes(residual.astype(np.float64), [centroids])[:, 0]]
        levels.append(centroids)
    return improve_levels(latents, levels, refine=refine, balance=balance)


def codebooks_from_encoder(
    encoder: Encoder,
    vectors: npt.NDArray[np.float32],
    sizes: Sequence[int],
    *,
    balance: float,
    refine: int,
    seed: int,
) -> Codebooks:
    """Learn levels and a decoder in the latent space of an encoder (steps 3 to 5)."""
    latents = encoder(vectors)
    levels = learn_levels(latents, sizes, balance=balance, refine=refine, seed=seed)
    codes = residual_codes(latents, levels)
    quantized = np.zeros(latents.shape)
    for level, centroids in enumerate(levels):
        quantized += centroids[codes[:, level]]
    network = Network(linear_decoder(quantized, vectors))
    return Codebooks(levels, encoder, fit_decoder(network, quantized, codes, vectors, sizes))


def linear_decoder(quantized: npt.NDArray[np.float64], vectors: npt.NDArray[np.float32]) -> FloatLayer:
    """Fit the affine map from quantized latents [N, d] to the vectors [N, D], by least squares."""
    n_items = place(len(vectors))[1]
    mean = all_sum(vectors.sum(axis=0, dtype=np.float64)) / n_items
    center = all_sum(quantized.sum(axis=0)) / n_items
    centered = quantized - center
    normal = all_sum(centered.T @ centered)
    normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal) + 1e-12
    weight = np.linalg.solve(normal, all_sum(centered.T @ (vectors - mean)))
    return FloatLayer.from_float(weight, mean - center @ weight)


def fit_decoder(
    network: Network[FloatLayer],
    quantized: npt.NDArray[np.float64],
    codes: npt.NDArray[np.integer],
    vectors: npt.NDArray[np.float32],
    sizes: Sequence[int],
) -> Decoder:
    """Add tables to a decoder network: per code, the mean part of its residual, by least squares."""
    left = vectors - Decoder(network)(quantized, codes)
    return Decoder(network, tuple(least_squares_tables(codes, left, sizes, ridge=TABLE_RIDGE)))
