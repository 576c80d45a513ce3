"""`semid doctor`: judge an artifact, or another system's index file, by its path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semid.data.interaction_reader import FieldNames, read_interactions
from semid.data.items import Items, read_items
from semid.data.unknown_items import check_known_items
from semid.errors import InputError
from semid.evaluation.advice import advise
from semid.evaluation.metrics import evaluate
from semid.evaluation.quality import Quality
from semid.tokenizer import SemanticIDTokenizer

__all__ = ["Judged", "judge"]

FILES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".npy", ".npz", ".pt", ".safetensors", ".gz")


@dataclass(frozen=True)
class Judged:
    """The quality of an ID set, and what to do about it."""

    quality: Quality
    advice: list[str]


def judge(
    source: str | os.PathLike[str],
    *,
    interactions: object = None,
    items: object = None,
    embeddings: str | Path | None = None,
    id_field: str = "id",
    user_field: str | None = None,
    item_field: str | None = None,
    time_field: str | None = None,
) -> Judged:
    """Return the quality of an ID set, and advice.

    Parameters
    ----------
    source : path
        The folder of an artifact, or an index file of another system, see `read_index`.
    interactions : source of `read_interactions`, optional
        User histories. Adds `sequence_lift`.
    items : source of `read_items`, optional
        The catalog, for the order of `embeddings`, and for the ids of an array of codes.
    embeddings : path, optional
        Vectors of the catalog. Adds `neighbor_recall`.
    id_field : str
        Field of `items` with the item's id.
    user_field, item_field, time_field : str, optional
        Fields of the interactions, as in `read_interactions`.

    Raises
    ------
    InputError
        A file is missing or wrong, or the ids are those of another catalog.
    """
    if embeddings is not None and items is None:
        raise InputError("--embeddings needs --items: the catalog says which row belongs to which item.")
    path = Path(source)
    if not path.exists() and path.suffix in FILES:
        raise InputError(f"{source}: no such file. Give an artifact's folder or an index file.")
    catalog = None
    if items is not None and (embeddings is not None or path.is_file()):
        catalog = read_items(items, id_field=id_field, on_warning=lambda _: None)  # no text of it is used
    ids = index = None
    item_ids: Sequence[str]
    if path.is_dir() or not path.exists():
        ids = SemanticIDTokenizer.from_pretrained(path)
        item_ids = ids.item_ids
    else:
        from semid.data.index_files import read_index

        index = read_index(source, ids=None if catalog is None else catalog.ids)
        item_ids = index.item_ids
    fields = FieldNames(user_field=user_field, item_field=item_field, time_field=time_field)
    histories = None
    if interactions is not None:
        log = read_interactions(interactions, **fields)
        check_known_items(log, item_ids, kind="index file" if ids is None else "artifact")
        histories = log.map_to(item_ids)
    vectors = None
    if catalog is not None and embeddings is not None:
        vectors = _vectors(catalog, embeddings, list(item_ids))
    if ids is not None:
        quality = ids.quality(histories=histories, vectors=vectors)
        return Judged(quality, advise(quality, ids))
    assert index is not None
    quality = evaluate(index.codes, vectors=vectors, histories=histories)
    return Judged(quality, advise(quality))


def _vectors(catalog: Items, embeddings: str | Path, item_ids: list[str]) -> np.ndarray:
    """Return vectors in the order of the IDs."""
    from semid.pipeline.embed import given_vectors

    place = {item_id: row for row, item_id in enumerate(catalog.ids)}
    missing = [item_id for item_id in item_ids if item_id not in place]
    if missing:
        raise InputError(f"{catalog.source}: lacks {len(missing):,} items that have IDs, for instance {missing[0]!r}.")
    return given_vectors(catalog, embeddings)[np.array([place[item_id] for item_id in item_ids])]
