"""Codebooks that go on from where they are: learned again for a changed catalog in the same latent space.

The encoder stays, so old and new centroids can be compared, and an index keeps its meaning because its centroid only
moves to where its items are now. Level by level a few rounds of k-means follow the items; then all levels are refined
together; then the decoder's tables are solved again. Their use is not evened out as in a first fit: that moves all
centroids, for little. But where much has come that is unlike the rest, a few codes would have to hold it all: so the
codes with the fewest items give up theirs and take half of the most crowded ones' (`relieved`).
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

__all__ = ["go_on", "with_tables"]

ROUNDS = 3  # of k-means: 10 lower the error by 1 % at most, and a tenth fewer items keep their whole ID
REFINE = 1  # rounds for all levels together: a second one lowers the error by 0.5 % at the same price
CROWDED = 32  # times the items of another code: it is split, and the other one given up
NUDGE = 0.01  # of a centroid's mean size, for the halves of a split one to part


def go_on(
    codebooks: Codebooks,
    vectors: npt.NDArray[np.float32],
    fixed: npt.NDArray[np.integer] | None = None,
    *,
    rounds: int = ROUNDS,
    refine: int = REFINE,
    seed: int = 0,
) -> Codebooks:
    """Codebooks for other vectors, float32 [N, D], that start from old ones. Prices of a balanced level are dropped.

    Parameters
    ----------
    fixed : integer [N, P], optional
        The first P codes of each item, which are given: the first P levels stay as they are, and the later ones
        learn what these codes leave.
    rounds, refine : most rounds of k-means at each level, and of joint refinement.
    seed : of where codes go that no item is near.
    """
    fixed = np.zeros((len(vectors), 0), np.int32) if fixed is None else fixed
    frozen = fixed.shape[1]
    left = codebooks.latents(vectors)
    if frozen:
        left -= dataclasses.replace(codebooks, levels=codebooks.levels[:frozen]).quantized(fixed)
    residual, moved = left.astype(np.float32), []
    for level, centroids in enumerate(codebooks.levels[frozen:]):
        rng = np.random.default_rng(seed + level)
        moved.append(snap_centroids(lloyd(residual, relieved(residual, centroids, rng), rounds, rng=rng)))
        residual = residual - moved[-1][residual_codes(residual.astype(np.float64), moved[-1:])[:, 0]]
    learned = improve_levels(left, moved, refine=refine, balance=0.0)
    codes = np.concatenate([fixed, residual_codes(left, learned)], axis=1)
    changed = Codebooks((*codebooks.levels[:frozen], *learned), codebooks.encoder, codebooks.decoder)
    return with_tables(changed, vectors, codes)


def relieved(
    points: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Centroids [K, d] of which the least used stand beside the most crowded ones, to share their points [N, d]."""
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


def with_tables(codebooks: Codebooks, vectors: npt.NDArray[np.float32], codes: npt.NDArray[np.integer]) -> Codebooks:
    """With the decoder's tables solved for codes [N, L] of vectors [N, D], if its recipe has tables.

    A decoder that was solved itself, residual k-means' linear map, is solved again too: after a small first fit the old
    one knows nothing of where other vectors' codes lie. What training learned stays.
    """
    if not codebooks.decoder.tables:
        return codebooks
    network, quantized = codebooks.decoder.network, codebooks.quantized(codes)
    if not network.mlp:
        network = Network(linear_decoder(quantized, vectors))
    decoder = fit_decoder(network, quantized, codes, vectors, codebooks.sizes)
    return dataclasses.replace(codebooks, decoder=decoder)
