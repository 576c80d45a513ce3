"""Where artifacts lie in a model's folder, and which ones may be there together.

    my-llm/semid.json, semid-*.safetensors, ids.tsv     semantic IDs: among the model's files
    my-llm/semid-clusters/                              tokens of users and items

A model may hold both, each with a block of tokens of its own, added in either order. The names of the tokens must not
be mistaken for each other, and rows that are there already must belong to the same code vectors.

Not here: the folder around them (`on_disk.py`), rows (`init_rows.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from semid.artifact import kinds
from semid.artifact import store as artifact
from semid.artifact.kinds import CLUSTERS_FOLDER
from semid.artifact.manifest import DATA, IDS_TABLE, MANIFEST, describe, read_manifest
from semid.artifact.token_artifact import TokenArtifact
from semid.clusters.tokens import check_distinguishable
from semid.errors import ConfigError
from semid.tokens.source import TokenSource
from semid.tokens.vocabulary import Vocabulary

__all__ = ["check_placement", "files_of", "save_in_model"]

HOMES = {kinds.IDS: Path("."), kinds.CLUSTERS: Path(CLUSTERS_FOLDER)}
VECTORS = {kinds.IDS: re.compile(r"codebook\.\d+"), kinds.CLUSTERS: re.compile("centroids|fine")}  # names of arrays


def check_placement(folder: Path, tokens: TokenSource) -> TokenArtifact:
    """Check that tokens can go into a model's folder, beside the artifacts that are there; return them.

    Raises
    ------
    ConfigError
        The tokens are no artifact, such as `EntityNames`; the model was extended with other code vectors under the same
        token names; tokens of the other kind are there, and the names could be mistaken for each other.
    InputError
        Something else lies where an artifact should.
    """
    if not isinstance(tokens, TokenArtifact):
        raise ConfigError(
            f"{type(tokens).__name__} is not an artifact, so it cannot be saved in a model's folder. Load the model, "
            "call extend on it, and save it with save_pretrained."
        )
    manifests = {kind: _manifest(folder, kind) for kind in HOMES}
    same = manifests.pop(tokens.kind)
    if same is not None:
        _check_same_vectors(folder, tokens, same)
    (other,) = manifests.values()
    if other is not None:
        pair = tokens.vocabulary, Vocabulary.from_dict(other["vocabulary"])
        check_distinguishable(*(pair if tokens.kind == kinds.CLUSTERS else reversed(pair)))
    return tokens


def files_of(folder: Path, kind: str) -> set[Path]:
    """Return the files of a model's folder that `save_in_model` would replace, relative to it."""
    if kind == kinds.CLUSTERS:
        return {path.relative_to(folder) for path in (folder / CLUSTERS_FOLDER).rglob("*")}
    manifest = _manifest(folder, kind)
    names = {MANIFEST, IDS_TABLE, *(manifest["files"] if manifest else ())}
    return {Path(name) for name in names | {path.name for path in folder.iterdir() if DATA.fullmatch(path.name)}}


def save_in_model(folder: Path, tokens: TokenArtifact, base: int) -> None:
    """Write an artifact into a model's folder, and record in it the token id of its first code."""
    manifest = tokens.manifest()
    manifest["provenance"] = {**manifest["provenance"], "base": base}
    artifact.save(folder / HOMES[tokens.kind], manifest, *tokens.parts(), tables=tokens.tsv_tables(), force=True)


def _manifest(folder: Path, kind: str) -> dict[str, Any] | None:
    """Return the manifest of the artifact of this kind in a model's folder; None if there is none."""
    home = folder / HOMES[kind]
    if not (home / MANIFEST).is_file():
        return None
    manifest = read_manifest(home)
    kinds.check_kind(home, manifest, kind)
    return manifest


def _check_same_vectors(folder: Path, tokens: TokenArtifact, manifest: dict[str, Any]) -> None:
    """Refuse other code vectors under the same token names: the rows in the model belong to the old ones."""
    if tokens.level_vectors is None or manifest.get("vocabulary") != tokens.vocabulary.to_dict():
        return
    is_vector = VECTORS[tokens.kind].fullmatch
    here = describe({name: one for part in tokens.parts() for name, one in part.items() if is_vector(name)})
    if here != {name: one for name, one in manifest["arrays"].items() if is_vector(name)}:
        raise ConfigError(
            f"{folder}: was extended with other codebooks under the same tokens, so its rows belong to other codes. "
            "Extend the original model, or use other names: --template 'my_{letter}_{code}' of semid fit or clusters."
        )
