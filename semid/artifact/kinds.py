"""The kinds of artifacts, and what is said where one is given in place of another.

All are folders with a `semid.json`, which says of what kind it is. A path of the wrong one is easily typed, so the
message names what was found, what was meant, and what takes the one that was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from semid.artifact.manifest import MANIFEST
from semid.errors import ArtifactError, InputError

__all__ = ["CLUSTERS", "CLUSTERS_FOLDER", "IDS", "TOP_K", "check_kind", "holds_artifact"]

IDS = "semantic-id tokenizer"
CLUSTERS = "cluster tokens"
TOP_K = "top-k cache"

CLUSTERS_FOLDER = "semid-clusters"  # where cluster tokens lie in a model's folder; semantic IDs lie in it directly

IN_WORDS = {
    IDS: "semantic IDs, made by semid fit",
    CLUSTERS: "tokens of users and items, made by semid clusters",
    TOP_K: "recommendations computed ahead of time, made by save_top_k",
}
TAKEN_BY = {
    IDS: "",
    CLUSTERS: " These go into semid info, show, verify and extend, and into semid align --user-tokens.",
    TOP_K: " These are read with TopKCache.open.",
}


def check_kind(folder: str | Path, manifest: Mapping[str, object], wanted: str) -> None:
    """InputError if the manifest is of another kind than `wanted`; ArtifactError if of none that this semid knows.

    >>> check_kind("my-clusters", {"kind": CLUSTERS}, IDS)
    Traceback (most recent call last):
    semid.errors.InputError: my-clusters: holds tokens of users and items, made by semid clusters; expected semantic \
IDs, made by semid fit. These go into semid info, show, verify and extend, and into semid align --user-tokens.
    """
    found = manifest.get("kind")
    if found == wanted:
        return
    if not isinstance(found, str) or found not in IN_WORDS:
        place = Path(folder) / MANIFEST
        raise ArtifactError(f"{place}: kind={found!r} should be {wanted!r}. Check the path, or upgrade semid.")
    raise InputError(f"{folder}: holds {IN_WORDS[found]}; expected {IN_WORDS[wanted]}.{TAKEN_BY[found]}")


def holds_artifact(folder: Path) -> bool:
    """Whether a model's folder holds an artifact of either kind."""
    return any((home / MANIFEST).is_file() for home in (folder, folder / CLUSTERS_FOLDER))
