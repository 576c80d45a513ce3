"""Centroids in the rows of cluster tokens: row + alpha W centroid, added once, when a model is extended.

META ID (arXiv 2406.08477) adds alpha W centroid to the embedding of a token in a forward pass that `generate` bypasses,
so its trained model is served without it. Here the sum *is* the row: whatever reads the embedding (generation, an
engine, a quantizer) sees the same numbers.

    extend(tokenizer, model, clusters, init="default", alpha=0.1)    # at the start, W an isometry
    bake_centroids(model, clusters, clusters.base, projection=W)     # or at the end, with a W that was trained

Not here: what rows start as in general (`init_rows.py`). H dims of the model, D of a centroid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.tokens.source import TokenSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["bake_centroids", "centroid_shifts", "isometry"]

ALPHA = 0.1  # META ID's


def isometry(width: int, dims: int, *, length: float = 1.0, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return a random W, float32 [width, dims], that keeps angles and multiplies lengths by `length`.

    Angles and ratios of lengths are exact for dims <= width; a centroid with more dims than a row keeps them about.

    Parameters
    ----------
    width : int
        H, dims of a row.
    dims : int
        D, dims of a centroid.
    length : float
        Length of a projected unit vector, 1 by default.
    seed : int
        Of the draw.
    """
    draw = np.random.default_rng([seed, dims]).standard_normal((max(width, dims), min(width, dims)))
    columns, triangle = np.linalg.qr(draw)
    columns *= np.where(np.diag(triangle) < 0, -1, 1)  # the sign of a column is the QR routine's choice
    rotation = columns if width >= dims else columns.T * np.sqrt(dims / width)
    return (rotation * length).astype(np.float32)


def centroid_shifts(
    clusters: TokenSource, projection: npt.NDArray[np.floating], *, alpha: float = ALPHA
) -> npt.NDArray[np.float32]:
    """Return what is added to the rows of the tokens, float32 [n_tokens, H]: alpha W v, v the vector of the code.

    Reserved clusters have zeros, and so have fine codes that are ranks.

    Parameters
    ----------
    clusters : ClusterTokens
        The tokens.
    projection : float [H, D]
        W.
    alpha : float
        Weight of the centroid, 0.1 by default as in META ID.

    Raises
    ------
    ConfigError
        A projection of another shape; clusters without vectors.
    """
    levels = clusters.level_vectors or ()
    dims = levels[0].shape[1] if levels else 0
    projection = np.asarray(projection, np.float64)
    if not dims:
        raise ConfigError("these clusters have no centroids. Import them with their centroid file.")
    if projection.ndim != 2 or projection.shape[1] != dims:
        raise ConfigError(f"projection has shape {projection.shape}; expected (H, {dims}): centroids have {dims} dims.")
    shifts = np.zeros((len(clusters.vocabulary), len(projection)), np.float64)
    for start, vectors in zip(clusters.vocabulary.offsets.tolist(), levels, strict=False):
        if vectors.shape[1]:
            shifts[start : start + len(vectors)] = vectors @ projection.T
    return (alpha * shifts).astype(np.float32)


def bake_centroids(
    model: PreTrainedModel,
    clusters: TokenSource,
    base: int,
    *,
    projection: npt.NDArray[np.floating] | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> None:
    """Add alpha W centroid to the rows of the cluster tokens in a model's input embedding, in place.

    Call it once: every call adds. A tied head gets the same rows; a separate one stays as it is.

    Parameters
    ----------
    model : PreTrainedModel
        A model that has the tokens.
    clusters : ClusterTokens
        The tokens.
    base : int
        Token id of the first code, `extend(...).base`.
    projection : float [H, D], optional
        W. By default a random isometry that makes a centroid as long as the mean row of the model's other tokens.
    alpha : float
        Weight of the centroid, 0.1 by default as in META ID.
    seed : int
        Of the random isometry.

    Raises
    ------
    ConfigError
        The model has no rows for the tokens; as `centroid_shifts`.
    """
    import torch

    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    end = base + len(clusters.vocabulary)
    if not 0 <= base < end <= len(weight):
        raise ConfigError(f"the model has {len(weight)} rows; expected {end} or more. Call extend first.")
    if projection is None:
        length = float(weight.detach()[:base].float().norm(dim=1).mean()) if base else 1.0
        levels = clusters.level_vectors or (np.zeros((0, 0)),)
        projection = isometry(weight.shape[1], levels[0].shape[1], length=length, seed=seed)
    if len(projection) != weight.shape[1]:
        raise ConfigError(f"projection has {len(projection)} rows; expected {weight.shape[1]}, the model's dims.")
    shifts = torch.from_numpy(centroid_shifts(clusters, projection, alpha=alpha))
    with torch.no_grad():
        rows = weight[base:end].float().cpu() + shifts
        weight[base:end] = rows.to(weight)
