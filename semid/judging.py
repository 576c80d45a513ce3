"""`semid doctor` and `semid verify`: from paths to a judgement."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid import artifact, kinds
from semid.catalog import read_items
from semid.clusters import ClusterTokens
from semid.errors import ArtifactError, ConfigError, InputError
from semid.evaluate import evaluate
from semid.interactions import Histories, read_interactions
from semid.quality import Quality
from semid.tokenizer import SemanticIDTokenizer
from semid.top_k_cache import TopKCache

__all__ = ["judge", "verify"]


def judge(
    source: Path,
    *,
    interactions: str | Path | None = None,
    items: str | Path | None = None,
    embeddings: str | Path | None = None,
) -> Quality:
    """The quality of an artefact, or of another system's index file (`{item: [tokens]}`)."""
    if embeddings is not None and items is None:
        raise InputError("--embeddings needs --items: the catalogue says which row belongs to which item.")
    if not source.exists() and source.suffix in (".json", ".gz"):
        raise InputError(f"{source}: no such file. Give an artefact's folder or an index file.")
    index = None
    if source.is_dir() or not source.exists():
        ids = SemanticIDTokenizer.from_pretrained(source)
        item_ids = ids.item_ids
    else:
        from semid.tokenizer_exports.files import read_index

        index = read_index(source)
        item_ids = index.item_ids
    histories = _histories(interactions, item_ids)
    vectors = _vectors(items, embeddings, list(item_ids)) if embeddings is not None and items is not None else None
    if index is None:
        return ids.quality(histories=histories, vectors=vectors)
    return evaluate(index.codes, vectors=vectors, histories=histories)


def verify(folder: Path) -> tuple[list[str], str]:
    """Everything wrong with an artefact of any kind, and its fingerprint ("" if it cannot be opened)."""
    problems = artifact.verify(folder)
    try:
        loaded = artifact.load(folder)
        broken = _broken(loaded)
    except (ArtifactError, ConfigError, KeyError) as error:
        if str(error) not in problems:
            problems.append(str(error))
        return problems, ""
    return problems + [f"{folder}: {problem}" for problem in broken], loaded.fingerprint


def _broken(loaded: artifact.Artifact) -> list[str]:
    """What the arrays promise and do not keep, by the kind of artefact."""
    kind = loaded.manifest.get("kind")
    if kind == kinds.CLUSTERS:
        return ClusterTokens.open(loaded.folder).check()
    if kind == kinds.TOP_K:
        TopKCache.open(loaded.folder, None)  # says what does not fit together
        return []
    return _broken_ids(loaded)


def _broken_ids(loaded: artifact.Artifact) -> list[str]:
    ids = SemanticIDTokenizer.from_artifact(loaded)
    problems = ids.ledger.check(ids.sizes)
    if not problems:
        told = {name: loaded.manifest.get(name) for name in ("counts", "generation")}
        true = {"counts": {"items": len(ids), "live": ids.ledger.n_live}, "generation": ids.ledger.last_generation}
        problems += [
            f"{name}={told[name]}, but the table of items says {true[name]}. Restore the folder from a copy."
            for name in told
            if told[name] != true[name]
        ]
    return problems + (_wrong_codebooks(ids) if ids.is_learnt else [])


def _wrong_codebooks(ids: SemanticIDTokenizer) -> list[str]:
    books, problems = ids.codebooks, []
    if books.sizes != ids.sizes:
        problems.append(f"codebooks of {books.sizes} codes, a vocabulary of {ids.sizes}. Run semid fit.")
    for level, centroids in enumerate(books.levels):
        if not np.array_equal(centroids, centroids.astype(np.float16)):
            problems.append(f"codebook {level} is not on the float16 grid. Run semid fit again.")
    return problems


def _histories(interactions: str | Path | None, item_ids) -> Histories | None:
    if interactions is None:
        return None
    histories = read_interactions(interactions).map_to(item_ids)
    if len(histories.rows) and histories.n_unknown == len(histories.rows):
        raise InputError(f"{interactions}: none of its items is in the catalogue. Are the ids the same?")
    return histories


def _vectors(items: str | Path, embeddings: str | Path, item_ids: list[str]) -> np.ndarray:
    """Vectors in the order of the IDs."""
    from semid.embed.vectors import read_vectors

    catalogue = read_items(items)
    place = {item_id: row for row, item_id in enumerate(catalogue.ids)}
    missing = [item_id for item_id in item_ids if item_id not in place]
    if missing:
        raise InputError(f"{items}: lacks {len(missing):,} items that have IDs, for instance {missing[0]!r}.")
    vectors = read_vectors(embeddings, ids=catalogue.ids, source=catalogue.source)
    return vectors.rows(np.array([place[item_id] for item_id in item_ids]))
