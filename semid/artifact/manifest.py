"""The manifest of an artifact, `semid.json`: its keys, its fingerprint, and the checks on reading.

Format version 2 is a JSON object with the caller's keys and these:

    format_version   2
    semid_version    the version of semid that wrote it
    files            name -> {"sha256", "bytes"}: data files, named after their sha256, and tables for people
    arrays           name -> {"dtype", "shape", "sha256"}: the arrays in the data files
    fingerprint      "sha256:..." over the caller's keys (except `provenance`) and `arrays`

So equal artifacts have equal fingerprints, whoever wrote them. Library versions and the like, which must not change the
fingerprint, go under `provenance`. Reading recomputes it, so damage to those keys is noticed. Format 1, with one data
file, is read as well.

Not here: the folder around it (`store.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from semid._version import __version__
from semid.artifact.atomic import is_litter
from semid.artifact.tensors import plain
from semid.errors import ArtifactError

__all__ = [
    "DATA",
    "FORMAT_VERSION",
    "IDS_TABLE",
    "MANIFEST",
    "RESTORE",
    "TABLE",
    "ArrayEntry",
    "FileEntry",
    "as_text",
    "complete",
    "data_name",
    "describe",
    "fingerprint",
    "read_manifest",
]

FORMAT_VERSION = 2
MANIFEST = "semid.json"
IDS_TABLE = "ids.tsv"
DATA = re.compile(r"semid-[0-9a-f]{16}\.safetensors")
TABLE = re.compile(r"[a-z0-9-]+\.tsv")  # for people, never read back
OURS = ("format_version", "semid_version", "files", "arrays", "fingerprint")
RESTORE = "Restore the folder from a copy, or run semid fit again."


class FileEntry(TypedDict):
    """What `files` says of one file."""

    sha256: str
    bytes: int


class ArrayEntry(TypedDict):
    """What `arrays` says of one array."""

    dtype: str
    shape: list[int]
    sha256: str  # of its bytes


def data_name(sha256: str) -> str:
    """Return the name of the data file with this checksum, so that no two files with other data share a name."""
    return f"semid-{sha256[:16]}.safetensors"


def describe(arrays: Mapping[str, np.ndarray]) -> dict[str, ArrayEntry]:
    """Return the manifest's entry `arrays`; reads every byte."""
    described: dict[str, ArrayEntry] = {}
    for name, array in sorted(arrays.items()):
        array = plain(name, array)
        digest = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
        described[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": digest}
    return described


def fingerprint(manifest: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> str:
    """Return `sha256:` and 64 hex digits over the caller's keys and the names, dtypes and bytes of the arrays.

    >>> codes = np.array([[1, 2, 3]], np.uint16)
    >>> mark = fingerprint({"levels": 3}, {"codes": codes})
    >>> mark == fingerprint({"levels": 3, "provenance": "another machine"}, {"codes": codes})
    True
    >>> mark == fingerprint({"levels": 3}, {"codes": codes.astype(np.int32)})
    False
    """
    return _mark(manifest, describe(arrays))


def complete(
    manifest: Mapping[str, object], files: dict[str, FileEntry], described: dict[str, ArrayEntry]
) -> dict[str, Any]:
    """Return the caller's keys with semid's own, which replace any the caller gave."""
    own = {key: value for key, value in manifest.items() if key not in OURS}
    return own | {
        "format_version": FORMAT_VERSION,
        "semid_version": __version__,
        "files": files,
        "arrays": described,
        "fingerprint": _mark(own, described),
    }


def as_text(manifest: Mapping[str, object]) -> bytes:
    """Return the bytes of `semid.json`."""
    return (json.dumps(manifest, sort_keys=True, indent=2, allow_nan=False) + "\n").encode()


def _mark(manifest: Mapping[str, object], described: Mapping[str, ArrayEntry]) -> str:
    own = {key: value for key, value in manifest.items() if key not in (*OURS, "provenance")}
    own = json.loads(json.dumps(own, allow_nan=False))  # as it will be read: keys become strings
    text = json.dumps([own, described], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of a folder; ArtifactError names what is wrong and how to fix it."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_dir():
            what = f"no such folder. Make it with: semid fit items.jsonl -o {folder}"
        elif any(is_litter(child.name) or DATA.fullmatch(child.name) for child in folder.iterdir()):
            what = f"no {MANIFEST}: a save was interrupted here. Run the command that made it again."
        else:
            what = f"no {MANIFEST}, so not a semid folder. Make one with: semid fit items.jsonl -o FOLDER"
        raise ArtifactError(f"{folder}: {what}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}. Check its permissions.") from None
    try:
        manifest: dict[str, Any] = json.loads(content)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ArtifactError(f"{path}: is not JSON{where}: cut short or damaged. {RESTORE}") from None
    _check_version(path, manifest)
    _check_keys(path, manifest)
    return manifest


def _check_version(path: Path, manifest: object) -> None:
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version < 1:
        raise ArtifactError(f"{path}: format_version={version!r}: not a semid manifest, or damaged. {RESTORE}")
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format_version={version} is newer than this semid {__version__} reads "
            f"({FORMAT_VERSION}). Upgrade semid."
        )


def _check_keys(path: Path, manifest: dict[str, Any]) -> None:
    """Raise ArtifactError unless semid's keys are present, well formed and match the fingerprint."""
    types = {"semid_version": str, "fingerprint": str, "files": dict, "arrays": dict}
    for key, kind in types.items():
        if not isinstance(manifest.get(key), kind):
            found = repr(manifest.get(key))[:80]
            raise ArtifactError(f"{path}: {key}={found} should be a {kind.__name__}. {RESTORE}")
    files, arrays = manifest["files"], manifest["arrays"]
    data = [name for name in files if not TABLE.fullmatch(name)]
    if not (
        all(_has(entry, {"sha256": str, "bytes": int}) for entry in files.values())
        and all(_has(entry, {"sha256": str, "dtype": str, "shape": list}) for entry in arrays.values())
        and data
        and all(DATA.fullmatch(name) and name == data_name(files[name]["sha256"]) for name in data)
    ):
        raise ArtifactError(f"{path}: files and arrays are not in the form that semid writes. {RESTORE}")
    try:
        mark = _mark(manifest, arrays)
    except (ValueError, RecursionError):  # NaN, or nested too deeply: not written by semid
        mark = "none"
    if mark != manifest["fingerprint"]:
        raise ArtifactError(f"{path}: does not match its own fingerprint: edited or damaged. {RESTORE}")


def _has(entry: object, types: Mapping[str, type]) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == types.keys()
        and all(type(entry[key]) is kind for key, kind in types.items())
    )
