"""Where a cluster lies, written into the rows of its tokens: row + alpha W centroid, once, when a model is made.

META ID (arXiv 2406.08477) adds alpha W centroid to the embedding of a token while it trains. Its code does so in a
forward pass that `generate` goes around, so the trained model is served without. Here the sum *is* the row: whatever
reads the embedding, generation, an engine, a quantizer, sees the same numbers.

    extend(tokenizer, model, clusters, init="default", alpha=0.1)    # at the start, W an isometry
    bake_centroids(model, clusters, clusters.base, projection=W)     # or at the end, with a W that was trained beside

Not here: first rows in general (`init_rows.py`). H dims of the model, D of a centroid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from semid.clusters.tokens import ClusterTokens

__all__ = ["bake_centroids", "centroid_shifts", "isometry"]

ALPHA = 0.1  # META ID's


def isometry(width: int, dims: int, *, length: float = 1.0, seed: int = 0) -> npt.NDArray[np.float32]:
    """A random W [width, dims] that keeps angles and makes lengths `length` times as long; for dims <= width.

    Where a centroid has more dims than a row, distances are kept about, not exactly.
    """
    draw = np.random.default_rng([seed, dims]).standard_normal((max(width, dims), min(width, dims)))
    columns, triangle = np.linalg.qr(draw)
    columns *= np.where(np.diag(triangle) < 0, -1, 1)  # so that one draw gives one result everywhere
    turned = columns if width >= dims else columns.T * np.sqrt(dims / width)
    return (turned * length).astype(np.float32)


def centroid_shifts(
    clusters: ClusterTokens, projection: npt.NDArray[np.floating], *, alpha: float = ALPHA
) -> npt.NDArray[np.float32]:
    """What is added to the rows of the tokens, float32 [n_tokens, H]: alpha W v, v the vector of the token's code.

    Zero for reserved clusters, and for fine codes that are ranks.

    Raises
    ------
    ConfigError
        A projection of another shape; clusters without vectors.
    """
    dims = clusters.centroids.shape[1]
    projection = np.asarray(projection, np.float64)
    if not dims:
        raise ConfigError("these clusters have no centroids. Import them with their centroid file.")
    if projection.ndim != 2 or projection.shape[1] != dims:
        raise ConfigError(f"projection has shape {projection.shape}; expected (H, {dims}): centroids have {dims} dims.")
    shifts = np.zeros((clusters.n_tokens, len(projection)), np.float64)
    shifts[: clusters.sizes[0]] = clusters.centroids @ projection.T
    if clusters.fine is not None:
        shifts[clusters.sizes[0] : sum(clusters.sizes)] = clusters.fine @ projection.T
    return (alpha * shifts).astype(np.float32)


def bake_centroids(
    model: PreTrainedModel,
    clusters: ClusterTokens,
    base: int,
    *,
    projection: npt.NDArray[np.floating] | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> None:
    """Add alpha W centroid to the rows of the cluster tokens in a model's input embedding, in place.

    To be called once: every call adds. A head that is tied gets the same rows; one of its own stays as it is.

    Parameters
    ----------
    base
        Token id of the first code, `extend(...).base`.
    projection : float [H, D], optional
        W. By default a random isometry that makes a centroid as long as the mean row of the model's other tokens.

    Raises
    ------
    ConfigError
        The model has no rows for the tokens; as `centroid_shifts`.
    """
    import torch

    weight = model.get_input_embeddings().weight
    end = base + clusters.n_tokens
    if not 0 <= base < end <= len(weight):
        raise ConfigError(f"the model has {len(weight)} rows; expected {end} or more. Call extend first.")
    if projection is None:
        length = float(weight.detach()[:base].float().norm(dim=1).mean()) if base else 1.0
        projection = isometry(weight.shape[1], clusters.centroids.shape[1], length=length, seed=seed)
    if len(projection) != weight.shape[1]:
        raise ConfigError(f"projection has {len(projection)} rows; expected {weight.shape[1]}, the model's dims.")
    shifts = torch.from_numpy(centroid_shifts(clusters, projection, alpha=alpha))
    with torch.no_grad():
        rows = weight[base:end].float().cpu() + shifts
        weight[base:end] = rows.to(weight)
