"""Verify an artifact: its checksums, its IDs, its codebooks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid.artifact import kinds
from semid.artifact import store as artifact
from semid.artifact.top_k_cache import TopKCache
from semid.clusters.tokens import ClusterTokens
from semid.errors import ArtifactError, ConfigError
from semid.tokenizer import SemanticIDTokenizer

__all__ = ["verify_artifact"]


def verify_artifact(folder: Path) -> tuple[list[str], str]:
    """Return everything wrong with an artifact of any kind, and its fingerprint ("" if it cannot be opened)."""
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
    """Return the broken invariants of the arrays, by the kind of artifact."""
    kind = loaded.manifest.get("kind")
    if kind == kinds.CLUSTERS:
        return ClusterTokens.open(loaded.folder).check()
    if kind == kinds.TOP_K:
        TopKCache.open(loaded.folder, None)  # raises an error that names what does not fit
        return []
    return _broken_ids(loaded)


def _broken_ids(loaded: artifact.Artifact) -> list[str]:
    ids = SemanticIDTokenizer.from_artifact(loaded)
    problems = ids.ledger.check(ids.sizes)
    if not problems:
        stated = {name: loaded.manifest.get(name) for name in ("counts", "generation")}
        true = {"counts": {"items": len(ids), "live": ids.ledger.n_live}, "generation": ids.ledger.last_generation}
        problems += [
            f"{name}={stated[name]}, but the table of items says {true[name]}. Restore the folder from a copy."
            for name in stated
            if stated[name] != true[name]
        ]
    return problems + (_wrong_codebooks(ids) if ids.is_fitted else [])


def _wrong_codebooks(ids: SemanticIDTokenizer) -> list[str]:
    books, problems = ids.codebooks, []
    if books.sizes != ids.sizes:
        problems.append(f"codebooks have {books.sizes} codes, but the vocabulary has {ids.sizes}. Run semid fit.")
    for level, centroids in enumerate(books.levels):
        if not np.array_equal(centroids, centroids.astype(np.float16)):
            problems.append(f"codebook {level} is not on the float16 grid. Run semid fit again.")
    return problems
