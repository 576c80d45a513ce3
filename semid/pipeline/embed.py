"""Vectors for a catalog, whatever they come from: an encoder that is learned here, a model, or ready ones.

They are written into a table a block at a time, in the order of the items; only the table may have the size of the
catalog, and that lies in a file where memory is short.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.config import SemanticIDConfig
from semid.data.items import Items
from semid.errors import InputError
from semid.runtime.tables import RowTable, Tables
from semid.state import EncoderState, TokenizerState

__all__ = ["embed", "embed_as_before", "encoder_name", "given_vectors"]

BLOCK = 1 << 14  # rows of a given array copied at once
Prepare = Callable[..., object]


def embed(
    items: Items,
    config: SemanticIDConfig,
    embeddings: Any,
    *,
    tables: Tables | None = None,
    prepare: Prepare = lambda dim, fitting=0: None,
) -> tuple[RowTable, EncoderState]:
    """Return vectors in the items' order, float32 [N, D], and the encoder's arrays and description.

    Parameters
    ----------
    embeddings : path, array, or None
        Ready vectors in the order of the items' source; None for the config's encoder.
    tables : Tables, optional
        Where the vectors go; into memory by default.
    prepare : callable
        Told D before the vectors are made, and before an encoder is fitted the most that D will be, and the bytes
        that fitting takes.
    """
    if embeddings is not None:
        vectors = given_vectors(items, embeddings, tables=tables, prepare=prepare)
        return vectors, ({}, {"kind": "vectors", "dim": vectors.shape[1]})
    items.require_text()
    from semid.encoders import LexicalEncoder, make_encoder

    options = {}
    if config.encoder != "lexical":
        options = {"pooling": config.pooling, "prompt": config.prompt, "device": config.device}
    encoder = make_encoder(config.encoder, **options)
    if isinstance(encoder, LexicalEncoder):
        prepare(encoder.dim, encoder.memory_to_fit(items))
    encoder.fit(items)
    prepare(encoder.dim_)
    vectors = _filled(tables, len(items), encoder.dim_, encoder.blocks(items))
    arrays, meta = encoder.state()
    return vectors, (arrays, dict(meta))


def embed_as_before(
    old: TokenizerState, items: Items, embeddings: Any, *, tables: Tables, prepare: Prepare
) -> tuple[RowTable, EncoderState]:
    """Return vectors in the items' order by the encoder of an artifact, and that encoder; or ready ones, if given."""
    if embeddings is not None:
        return given_vectors(items, embeddings, tables=tables, prepare=prepare), old.encoder_state
    items.require_text()
    prepare(old.codebooks.input_dim)
    return _filled(tables, len(items), old.codebooks.input_dim, old.encoder.blocks(items)), old.encoder_state


def given_vectors(
    items: Items, embeddings: Any, *, tables: Tables | None = None, prepare: Prepare = lambda dim, fitting=0: None
) -> RowTable:
    """Ready vectors in the items' order, float32 [N, D], from a path or an array in the order of their source.

    InputError if there is not one vector for each item, or one holds NaN or infinity.
    """
    if isinstance(embeddings, (str, Path)):
        from semid.encoders.vectors import read_vectors

        by_row = np.argsort(items.rows)
        in_source_order = Items(items.ids, {}, items.source, items.rows).take(by_row).ids
        file = read_vectors(
            embeddings, ids=in_source_order, source=items.source, tables=tables, id_field=items.id_field
        )
        if not file.by_id and len(items) and int(items.rows.max()) >= len(items):
            raise InputError(
                f"{embeddings}: {items.source} has rows that are left out, so the order of the rows does not say which "
                f"vector is whose. Write the id of each row to {Path(embeddings).with_suffix('.ids.txt').name}."
            )
        prepare(file.shape[1])
        return _filled(tables, len(items), file.shape[1], file.chunks(np.argsort(by_row)))
    given = np.asarray(embeddings) if hasattr(embeddings, "dtype") else np.asarray(embeddings, np.float32)
    if given.ndim != 2 or len(given) != len(items):
        raise InputError(f"embeddings.shape={given.shape} should be ({len(items)}, D): one row per item.")
    if (last := int(items.rows.max(initial=-1))) >= len(given):
        raise InputError(
            f"embeddings.shape={given.shape}: the items are {len(items)} of a source with {last + 1} rows or more, and "
            "vectors go by the rows of the source. Give Items(ids, fields) of these items alone."
        )
    prepare(given.shape[1])
    return _filled(tables, len(items), given.shape[1], _checked(given, items))


def _checked(given: np.ndarray, items: Items) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the rows in the items' order, in blocks; InputError at the end names the items whose row is not finite."""
    bad: list[str] = []
    for start in range(0, len(items), BLOCK):
        block = np.asarray(given[items.rows[start : start + BLOCK]], np.float32)
        bad += [items.ids[start + i] for i in np.flatnonzero(~np.isfinite(block).all(axis=1)).tolist()]
        yield block
    if bad:
        raise InputError.listing([f"embeddings: the vector of item {item!r} holds NaN or inf." for item in bad])


def encoder_name(meta: dict[str, Any]) -> str:
    """Return the name of the encoder for messages."""
    return {"vectors": "ready vectors"}.get(meta["kind"], str(meta.get("name", meta["kind"])))


def _filled(tables: Tables | None, n_rows: int, width: int, blocks: Iterable[npt.NDArray[np.float32]]) -> RowTable:
    table = (tables or Tables(room=sys.maxsize)).new(n_rows, width)
    for block in blocks:
        table.append(block)
    return table.finish()
