"""The kinds of artifacts, and the error for a folder of the wrong kind.

Every artifact is a folder whose `semid.json` names its kind. It is easy to type the path of the wrong one, so the
message names what was found, what was expected, and which commands take what was found.
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

CLUSTERS_FOLDER = "semid-clusters"  # of cluster tokens inside a model's folder; semantic IDs lie in the folder itself

DESCRIPTIONS = {
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
    """Check that a manifest is of the kind `wanted`.

    Raises
    ------
    InputError
        It is of another kind.
    ArtifactError
        It is of a kind that this semid does not know.

    >>> check_kind("my-clusters", {"kind": CLUSTERS}, IDS)
    Traceback (most recent call last):
    semid.errors.InputError: my-clusters: holds tokens of users and items, made by semid clusters; expected semantic \
IDs, made by semid fit. These go into semid info, show, verify and extend, and into semid align --user-tokens.
    """
    found = manifest.get("kind")
    if found == wanted:
        return
    if not isinstance(found, str) or found not in DESCRIPTIONS:
        place = Path(folder) / MANIFEST
        raise ArtifactError(f"{place}: kind={found!r} should be {wanted!r}. Check the path, or upgrade semid.")
    raise InputError(f"{folder}: holds {DESCRIPTIONS[found]}; expected {DESCRIPTIONS[wanted]}.{TAKEN_BY[found]}")


def holds_artifact(folder: Path) -> bool:
    """Return whether a model's folder holds semantic IDs or cluster tokens."""
    return any((home / MANIFEST).is_file() for home in (folder, folder / CLUSTERS_FOLDER))
