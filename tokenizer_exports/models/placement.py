"""Where an artifact lies in a model's folder, and which ones go together there.

    my-llm/semid.json, semid-*.safetensors, ids.tsv     semantic IDs: the model's folder is theirs too
    my-llm/semid-clusters/                              tokens of users and items

A model may hold both, each with a block of tokens of its own, whichever came first. The names of the tokens must not
be mistaken for each other's, and rows that are there already must mean what the artifact says.

Not here: the folder around them (`on_disk.py`), rows (`init_rows.py`).
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np

from semid.artifact import kinds
from semid.artifact.kinds import CLUSTERS_FOLDER
from semid.artifact.manifest import DATA, MANIFEST, PEOPLE, describe, read_manifest
from semid.clusters.tokens import ClusterTokens, check_apart
from semid.errors import ConfigError
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.vocabulary import Vocabulary

__all__ = ["Tokens", "check_beside", "files_of", "save_beside"]

Tokens = SemanticIDTokenizer | ClusterTokens


def check_beside(folder: Path, tokens: Tokens) -> None:
    """Refuse tokens that do not go with the rows that a model's folder says it has.

    Raises
    ------
    ConfigError
        Tokens that are no artifact, such as `EntityNames`; the model was extended with other codebooks under the same
        tokens, or with tokens of the other kind that these could be mistaken for.
    InputError
        Something else lies where an artifact should.
    """
    if not isinstance(tokens, Tokens):
        raise ConfigError(
            f"{type(tokens).__name__} is no artifact that could lie beside a model. Load the model, call extend on it, "
            "and save it with save_pretrained."
        )
    there = {kind: _manifest(folder, kind) for kind in (kinds.IDS, kinds.CLUSTERS)}
    own, other = kinds.IDS, kinds.CLUSTERS
    if isinstance(tokens, ClusterTokens):
        own, other = other, own
    if there[own] is not None:
        _check_same(folder, tokens, there[own])
    if there[other] is not None:
        pair = tokens.vocabulary, Vocabulary.from_dict(there[other]["vocabulary"])
        check_apart(*(pair if own == kinds.CLUSTERS else reversed(pair)))


def files_of(folder: Path, tokens: Tokens) -> set[Path]:
    """What `save_beside` would replace in a model's folder, as names relative to it."""
    if isinstance(tokens, ClusterTokens):
        return {path.relative_to(folder) for path in (folder / CLUSTERS_FOLDER).rglob("*")}
    manifest = _manifest(folder, kinds.IDS)
    names = {MANIFEST, PEOPLE, *(manifest["files"] if manifest else ())}
    return {Path(name) for name in names | {path.name for path in folder.iterdir() if DATA.fullmatch(path.name)}}


def save_beside(folder: Path, tokens: Tokens, base: int) -> None:
    """Write the artifact into a model's folder, with a note of the token id of its first code."""
    provenance = {**tokens.provenance, "base": base}
    if isinstance(tokens, ClusterTokens):
        dataclasses.replace(tokens, provenance=provenance).save(folder / CLUSTERS_FOLDER)
        return
    own = copy.copy(tokens)
    own.provenance = provenance
    own.save_pretrained(folder, force=True)


def _manifest(folder: Path, kind: str) -> dict | None:
    """The manifest of what lies in a model's folder, in the place of this kind; None if there is nothing."""
    home = folder / CLUSTERS_FOLDER if kind == kinds.CLUSTERS else folder
    if not (home / MANIFEST).is_file():
        return None
    manifest = read_manifest(home)
    kinds.check_kind(home, manifest, kind)
    return manifest


def _check_same(folder: Path, tokens: Tokens, manifest: dict) -> None:
    """Refuse other codebooks under the same tokens: the rows mean something else."""
    if not tokens.is_fitted or manifest.get("vocabulary") != tokens.vocabulary.to_dict():
        return
    vectors = _vectors(tokens)
    here = describe({name: one for name, one in vectors.items() if one is not None})
    if any(manifest["arrays"].get(name) != here.get(name) for name in vectors):
        raise ConfigError(
            f"{folder}: was extended with other codebooks under the same tokens, so its rows mean other codes. Extend "
            "the model it was made from, or use other names: --template 'my_{letter}_{code}' of semid fit or clusters."
        )


def _vectors(tokens: Tokens) -> dict[str, np.ndarray | None]:
    """The vectors of the codes, by the names that they have in the artifact; None for ranks, which have none."""
    if isinstance(tokens, ClusterTokens):
        return {"centroids": tokens.centroids, "fine": tokens.fine}
    return {f"codebook.{level}": one for level, one in enumerate(tokens.codebooks.levels)}
