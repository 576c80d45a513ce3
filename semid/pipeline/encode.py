"""Encoding a table of vectors block by block, and what the errors of a fit look like.

Latents lie on a grid that float32 holds exactly, and codes do not depend on the batch (`quantize/grid.py`), so the
size of a block changes nothing but the memory it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.assign.distances import squared_errors
from semid.config import SemanticIDConfig
from semid.pipeline.learn import exact_device
from semid.quantize.codebooks import Codebooks
from semid.runtime.progress import bar
from semid.runtime.tables import RowTable, Tables
from semid.train.fusion import from_text_alone

__all__ = ["BLOCK", "Encoded", "encode_table", "encode_vectors", "error_statistics", "text_only_codebooks"]


BLOCK = 1 << 15  # rows encoded at once: about 150 MB
QUANTILES = 101


@dataclass(frozen=True)
class Encoded:
    """N encoded rows."""

    latents: RowTable  # float32 [N, d]
    codes: npt.NDArray[np.int32]  # [N, L], which may collide


def encode_table(
    codebooks: Codebooks,
    vectors: RowTable,
    tables: Tables,
    *,
    beam: int = 1,
    device: str = "cpu",
    advance: Callable[[int], object] | None = None,
) -> Encoded:
    """Latents and nearest codes of vectors [N, D]; the latents go where there is room for them.

    Parameters
    ----------
    tables : Tables
        Makes the table of latents, which lives as long as they do.
    beam, device : see `Codebooks.encode`.
    advance : called with the number of rows done.
    """
    latents = tables.new(len(vectors), codebooks.latent_dim)
    codes = np.empty((len(vectors), len(codebooks.levels)), np.int32)
    for start in range(0, len(vectors), BLOCK):
        block = codebooks.latents(vectors[start : start + BLOCK])
        codes[start : start + BLOCK] = codebooks.encode_latents(block, beam=beam, device=device)
        latents.append(block)
        if advance is not None:
            advance(len(block))
    return Encoded(latents.finish(), codes)


def error_statistics(encoded: Encoded, codebooks: Codebooks) -> dict[str, npt.NDArray]:
    """Measure what the codes leave of the latents, to tell later whether new items fit the codebooks as well.

    The error of an item is the squared length of what all levels leave of its latent.

    Returns
    -------
    dict
        "fit.errors" float32 [K_0], the mean error of the items with each first code, NaN where there are none;
        "fit.counts" int64 [K_0], how many they are; "fit.quantiles" float32 [101], the quantiles of all errors.
    """
    levels = [centroids.astype(np.float64) for centroids in codebooks.levels]
    errors = squared_errors(encoded.latents, encoded.codes, levels)
    first = encoded.codes[:, 0]
    counts = np.bincount(first, minlength=len(levels[0]))
    sums = np.bincount(first, weights=errors, minlength=len(levels[0]))
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return {
        "fit.errors": means.astype(np.float32),
        "fit.counts": counts.astype(np.int64),
        "fit.quantiles": np.quantile(errors, np.linspace(0, 1, QUANTILES)).astype(np.float32),
    }


def encode_vectors(codebooks: Codebooks, vectors: RowTable, config: SemanticIDConfig, tables: Tables) -> Encoded:
    """Encode vectors [N, D] as the settings say, with a progress bar."""
    device = exact_device(config.device)
    with bar("encode", len(vectors)) as advance:
        return encode_table(codebooks, vectors, tables, beam=config.encode_beam, device=device, advance=advance)


def text_only_codebooks(
    codebooks: Codebooks,
    encoded: Encoded,
    inputs: RowTable,
    vectors: RowTable,
    config: SemanticIDConfig,
    tables: Tables,
) -> tuple[Codebooks, dict[str, np.ndarray]]:
    """Return the codebooks to keep, which take vectors of text alone, and the errors of the fit with them.

    Codebooks learned from other `inputs` than the vectors get an encoder that predicts their latents from text, so
    that items added later need nothing but their text.
    """
    if inputs is not vectors:
        codebooks = from_text_alone(codebooks, vectors, encoded.latents, seed=config.seed)
        encoded = encode_vectors(codebooks, vectors, config, tables)
    return codebooks, error_statistics(encoded, codebooks)
