"""Continue from old codebooks: learn them again for a changed catalog in the same latent space.

The encoder stays, so old and new centroids can be compared, and a code keeps its meaning because its centroid only
moves to where its items are now. Level by level a few rounds of k-means follow the items; then all levels are refined
jointly; then the decoder's tables are solved again. The use of codes is not evened out as in a first fit: that moves
all centroids for a small gain. But if many new items are unlike the rest, a few codes would have to hold them all. So
the least used codes are moved beside the most crowded ones and take half of their items (`split_crowded`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from semid.quantize.codebooks import Codebooks
from semid.quantize.grid import snap_centroids
from semid.quantize.network import Network
from semid.quantize.residual import residual_codes
from semid.train.kmeans import improve_levels, lloyd
from semid.train.lloyd import assign_and_sum
from semid.train.residual_kmeans import fit_decoder, linear_decoder

__all__ = ["continue_codebooks", "refit_tables"]

ROUNDS = 3  # of k-means: 10 lower the error by at most 1 %, and a tenth fewer items keep their whole ID
REFINE = 1  # rounds of joint refinement: a second one lowers the error by 0.5 % and changes as many IDs
CROWDED = 32  # a code with this many times the items of another is split, and the other moves there
NUDGE = 0.01  # distance of the halves of a split centroid, relative to its mean size


def continue_codebooks(
    codebooks: Codebooks,
    vectors: npt.NDArray[np.float32],
    fixed: npt.NDArray[np.integer] | None = None,
    *,
    rounds: int = ROUNDS,
    refine: int = REFINE,
    seed: int = 0,
) -> Codebooks:
    """Learn codebooks for other vectors, starting from old ones. The prices of a balanced level are dropped.

    Parameters
    ----------
    codebooks : Codebooks
        The old ones.
    vectors : float32 [N, D]
    fixed : integer [N, P], optional
        Given first P codes of each item: the first P levels stay as they are, and the later ones learn the residuals of
        these codes.
    rounds : int
        Cap on the rounds of k-means at each level.
    refine : int
        Cap on the rounds of joint refinement.
    seed : int
        Of where codes without items go.
    """
    fixed = np.zeros((len(vectors), 0), np.int32) if fixed is None else fixed
    frozen = fixed.shape[1]
    left = codebooks.latents(vectors)
    if frozen:
        left -= dataclasses.replace(codebooks, levels=codebooks.levels[:frozen]).quantized(fixed)
    residual, moved = left.astype(np.float32), []
    for level, centroids in enumerate(codebooks.levels[frozen:]):
        rng = np.random.default_rng(seed + level)
        moved.append(snap_centroids(lloyd(residual, split_crowded(residual, centroids, rng), rounds, rng=rng)))
        residual = residual - moved[-1][residual_codes(residual.astype(np.float64), moved[-1:])[:, 0]]
    learned = improve_levels(left, moved, refine=refine, balance=0.0)
    codes = np.concatenate([fixed, residual_codes(left, learned)], axis=1)
    changed = Codebooks((*codebooks.levels[:frozen], *learned), codebooks.encoder, codebooks.decoder)
    return refit_tables(changed, vectors, codes)


def split_crowded(
    points: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Move the least used centroids [K, d] beside the most crowded ones, to share their points [N, d]."""
    counts = assign_and_sum(points, centroids).counts.astype(np.float64)
    centroids = centroids.copy()
    for code in np.argsort(counts, kind="stable"):
        crowded = int(counts.argmax())
        if counts[crowded] < CROWDED * max(counts[code], 1):
            break
        size = NUDGE * np.abs(centroids[crowded]).mean()
        nudge = size * rng.standard_normal(centroids.shape[1], np.float32)
        centroids[code] = centroids[crowded] + nudge
        centroids[crowded] -= nudge
        counts[[code, crowded]] = counts[crowded] / 2
    return centroids


def refit_tables(codebooks: Codebooks, vectors: npt.NDArray[np.float32], codes: npt.NDArray[np.integer]) -> Codebooks:
    """Solve the decoder's tables again for codes [N, L] of vectors [N, D], if it has tables.

    The linear decoder of residual k-means is solved again too: after a small first fit the old one does not fit the
    codes of other vectors. A trained decoder network stays.
    """
    if not codebooks.decoder.tables:
        return codebooks
    network, quantized = codebooks.decoder.network, codebooks.quantized(codes)
    if not network.mlp:
        network = Network(linear_decoder(quantized, vectors))
    decoder = fit_decoder(network, quantized, codes, vectors, codebooks.sizes)
    return dataclasses.replace(codebooks, decoder=decoder)
