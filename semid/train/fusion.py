"""Text and collaborative vectors in one, so that items that users meet together share codes too.

    fused = [text vector, weight * size * direction of the behavior vector]

with `size` the spread of the text vectors, so that a weight of 1 makes both count about equally. A layer of landmarks
(`latent.py`) predicts behavior from text; the less text tells, the shorter the prediction. An item without interactions
gets the prediction, an item that was met n times a mean of both,

    (n * own + PRIOR * predicted) / (n + PRIOR)

because few interactions are noisy: without the prior, similar items get different codes from the second level on.

Codebooks learned from fused vectors are stored as codebooks that take text alone (`from_text_alone`): new items have
nothing else, and an artifact need not store anyone's behavior. Their encoder predicts the fused latents from text, and
their decoder returns the text part.

N items, D dims of text, E of behavior, L levels, d dims of a latent.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from semid.errors import InputError
from semid.quantize.codebooks import Codebooks
from semid.quantize.network import Decoder, Encoder, FloatLayer, Network, grid_scales
from semid.runtime.arrays import divided_by_length, sample_rows
from semid.runtime.tables import RowTable, Tables
from semid.train.latent import landmark_map, principal_map

__all__ = ["from_text_alone", "fuse", "text_network"]

Floats = npt.NDArray[np.float32]

PRIOR = 8.0  # interactions at which an item's own behavior and the prediction count equally
SAMPLE = 65_536  # cap on the items that the prediction is learned from
LANDMARKS = 2048
WIDEST = 256  # principal directions of the text that the landmarks get
BLOCK = 1 << 14


def fuse(
    vectors: RowTable,
    behavior: Floats,
    met: npt.NDArray[np.integer],
    *,
    weight: float,
    tables: Tables,
    seed: int = 0,
) -> RowTable:
    """Return text and behavior as one vector per item, float32 [N, D + E].

    Parameters
    ----------
    vectors : float32 [N, D]
        Of the text.
    behavior : float32 [N, E]
        From interactions; rows of items without any are ignored.
    met : integer [N]
        Interactions of each item.
    weight : float
        Of behavior relative to text.
    tables : Tables
        Where the result is kept.
    seed : int
        Of the samples.

    Raises
    ------
    InputError
        No item has an interaction.
    """
    known = met > 0
    if not known.any():
        raise InputError("no item of the catalog was met in the training interactions. Are the ids the same?")
    behavior = np.where(known[:, None], divided_by_length(np.asarray(behavior, np.float32)), np.float32(0))
    seen = _some(np.flatnonzero(known), seed)
    predict = text_network(np.asarray(vectors[seen], np.float32), behavior[seen], seed=seed)
    trust = (met / (met + PRIOR)).astype(np.float32)[:, None]
    shown = np.asarray(vectors[_some(np.arange(len(vectors)), seed)], np.float64)
    size = float(np.sqrt(shown.var(axis=0).sum())) or 1.0
    table = tables.new(len(vectors), vectors.shape[1] + behavior.shape[1])
    for start in range(0, len(vectors), BLOCK):
        block = slice(start, start + BLOCK)
        text = np.asarray(vectors[block], np.float32)
        mixed = trust[block] * behavior[block] + (1 - trust[block]) * predict(text)
        table.append(np.concatenate([text, np.float32(weight * size) * mixed], axis=1))
    return table.finish()


def text_network(vectors: Floats, targets: npt.NDArray[np.floating], *, seed: int = 0) -> Network[FloatLayer]:
    """Fit a network of one hidden layer that predicts targets [n, e] from vectors [n, D], by ridge regression.

    >>> vectors = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    >>> left = text_network(vectors, vectors[:, :2])(vectors) - vectors[:, :2]
    >>> bool(np.square(left).mean() < 1e-3)
    True
    """
    principal = principal_map(vectors, WIDEST, seed=seed)
    learned = landmark_map(principal(vectors), np.asarray(targets, np.float32), units=LANDMARKS, seed=seed)
    directions, shift = principal.directions, -principal.mean @ principal.directions
    skip = FloatLayer.from_float(directions @ learned.linear, shift @ learned.linear + learned.bias)
    inner = FloatLayer.from_float(directions @ learned.inner, shift @ learned.inner + learned.inner_bias)
    return Network(skip, (inner, FloatLayer.from_float(learned.outer, np.zeros(len(learned.bias)))))


def from_text_alone(fused: Codebooks, vectors: RowTable, latents: RowTable, *, seed: int = 0) -> Codebooks:
    """Return the codebooks for text vectors [N, D] alone, given the latents [N, d] of the fused vectors."""
    rows = _some(np.arange(len(vectors)), seed)
    shown = np.asarray(vectors[rows], np.float32)
    network = text_network(shown, latents[rows], seed=seed)
    # The levels stay, so the latents must come out in their units, whose range has room for predictions.
    encoder = Encoder.scaled(network, [*grid_scales(network, shown)[:-1], 1.0])
    return dataclasses.replace(fused, encoder=encoder, decoder=_first_columns(fused.decoder, vectors.shape[1]))


def _first_columns(decoder: Decoder, width: int) -> Decoder:
    """Return a decoder that gives only the first columns."""

    def cut(layer: FloatLayer) -> FloatLayer:
        return FloatLayer.from_float(layer.weight[:, :width], layer.bias[:width])

    skip, mlp = decoder.network.skip, decoder.network.mlp
    network = Network(None if skip is None else cut(skip), (*mlp[:-1], cut(mlp[-1])) if mlp else ())
    return Decoder(network, tuple(np.ascontiguousarray(table[:, :width]) for table in decoder.tables))


def _some(rows: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Return the rows, or a seeded sample of SAMPLE of them."""
    chosen = sample_rows(len(rows), SAMPLE, seed)
    return rows if chosen is None else rows[chosen]
