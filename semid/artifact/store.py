"""Load, save and change an artifact: a folder of data whose readers see the old version or the new one.

    semid.json                           the manifest (`manifest.py`)
    semid-<16 hex digits>.safetensors    arrays, one file or several, named after their checksum
    ids.tsv, ids-1.tsv, ...              tables for people: the IDs and others; optional, never read back

Files with other names are never touched, so an artifact can live inside a model's folder.

`save` writes everything; `changing` keeps the data files whose arrays have not changed. Both follow the same steps:

1. write all new files under temporary names and sync them;
2. give the data files their names, which no older manifest mentions;
3. rename `semid.json`: from this instant on, readers see the new artifact;
4. rename the tables;
5. remove old data files.

A reader whose data file vanishes between reading the manifest and opening it reads the manifest again; open arrays stay
readable. A crash leaves the old artifact or the new one, and perhaps leftover files, which the next writer removes, or
an outdated table, which `verify` reports.

Not here: what the arrays mean. Nothing imports more than NumPy, nothing reads the clock.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semid.artifact.atomic import Draft, Written, check_folder, drafting, is_litter
from semid.artifact.manifest import (
    DATA,
    IDS_TABLE,
    MANIFEST,
    RESTORE,
    TABLE,
    ArrayEntry,
    FileEntry,
    as_text,
    complete,
    data_name,
    describe,
    read_manifest,
)
from semid.artifact.tensors import TensorFile, TensorFiles, plain, tensor_blocks
from semid.errors import ArtifactError, OutputExistsError

__all__ = [
    "Artifact",
    "Change",
    "changing",
    "check_output",
    "check_path",
    "load",
    "save",
    "tsv_escape",
    "tsv_name",
    "tsv_rows",
    "verify",
]


@dataclass(frozen=True)
class Artifact:
    """A loaded folder: its manifest as written, and its arrays, memory-mapped on access."""

    folder: Path
    manifest: dict[str, Any]
    arrays: TensorFiles

    @property
    def fingerprint(self) -> str:
        """`sha256:` and 64 hex digits; equal for equal artifacts, whoever wrote them (`manifest.py`)."""
        return str(self.manifest["fingerprint"])


def check_output(folder: str | Path, *, force: bool = False) -> None:
    """Check an output folder before any work is done, as `save` will.

    Raises
    ------
    OutputExistsError
        The folder holds anything other than leftovers of an interrupted save and `force` is not given, or it is a file.
    ArtifactError
        The folder cannot be written.
    """
    check_folder(folder)
    folder = Path(folder)
    if force or not folder.is_dir():
        return
    names = sorted(path.name for path in folder.iterdir() if not is_litter(path.name))
    left_by_us = all(DATA.fullmatch(name) for name in names)  # data without a manifest: a save was killed
    if not left_by_us:
        raise OutputExistsError(
            f"{folder}: exists and holds {names[0]}{' and more' if len(names) > 1 else ''}. "
            f"Choose another folder, or use --force to replace the artifact in it."
        )


def save(
    folder: str | Path,
    manifest: Mapping[str, object],
    *parts: Mapping[str, np.ndarray],
    tables: Mapping[str, Iterable[str]] | None = None,
    force: bool = False,
) -> str:
    """Write an artifact atomically and return its fingerprint.

    Parameters
    ----------
    folder
        Where to write; made if needed.
    manifest
        JSON data. semid's own keys in it are ignored, so a loaded manifest can be changed and saved.
    parts
        Name -> array of bool, (u)int8 to 64 or float16 to 64; the arrays may be mapped from this very folder. Each part
        becomes one file; no two parts may share a name.
    tables
        Name of a .tsv file -> its lines without line ends; for `ids.tsv` see `tsv_rows`. Default: no tables.
    force
        Allow a folder that is not empty; only files that belong to the artifact are replaced. Default: False.

    Raises
    ------
    OutputExistsError
        The folder is not empty and `force` is not given.
    ArtifactError
        The folder cannot be written, the disk is full, or another process is writing there.
    """
    folder = Path(folder)
    check_output(folder, force=force)
    plain_parts = [{name: plain(name, array) for name, array in part.items()} for part in parts]
    with drafting(folder) as draft:
        check_output(folder, force=force)  # again, now that nobody else is writing
        return _write(draft, manifest, plain_parts, tables or {}, {}, {})


@contextlib.contextmanager
def changing(folder: str | Path) -> Iterator[Change]:
    """Lock the artifact of a folder for a change, until the block ends.

    Raises
    ------
    ArtifactError
        As `load`, or another process is writing there.
    """
    load(folder)  # before a lock is made in a folder that is not an artifact
    with drafting(folder) as draft:
        yield Change(draft, load(folder))


@dataclass(frozen=True)
class Change:
    """An artifact that is locked for a change; made by `changing`."""

    draft: Draft
    artifact: Artifact

    def commit(
        self,
        manifest: Mapping[str, object],
        parts: Sequence[Mapping[str, np.ndarray]],
        *,
        kept: int,
        tables: Mapping[str, Iterable[str] | None] | None = None,
    ) -> str:
        """Replace the artifact and return its fingerprint.

        Parameters
        ----------
        manifest
            The new manifest, as in `save`.
        parts
            All arrays, as in `save`. Only those after the first `kept` parts are written.
        kept
            How many parts are unchanged.
        tables
            Tables to replace, or to remove where the lines are None. Default: keep all.
        """
        tables = tables or {}
        old = self.artifact.manifest
        names = {name for part in parts[:kept] for name in part}
        homes = self.artifact.arrays.homes()
        files = {homes[name] for name in names if name in homes}
        if {name for name, home in homes.items() if home in files} != names:
            files, names, kept = set(), set(), 0  # an older format grouped arrays otherwise: write everything
        files |= {name for name in old["files"] if TABLE.fullmatch(name) and name not in tables}
        fresh = [{name: plain(name, array) for name, array in part.items()} for part in parts[kept:]]
        return _write(
            self.draft,
            manifest,
            fresh,
            {name: lines for name, lines in tables.items() if lines is not None},
            {name: old["files"][name] for name in files},
            {name: old["arrays"][name] for name in names},
        )


def load(folder: str | Path) -> Artifact:
    """Open an artifact: read and check the manifest and the headers of the data files, and map the arrays.

    The bytes of the arrays are not checked here; `verify` does that.

    Raises
    ------
    ArtifactError
        The folder is missing, not a semid folder, damaged, or written by a newer semid.
    """
    folder = Path(folder)
    before = None
    while True:
        manifest = read_manifest(folder)
        names = [name for name in manifest["files"] if DATA.fullmatch(name)]
        try:
            files = {name: TensorFile(folder / name) for name in names}
            break
        except FileNotFoundError as error:
            # A writer changed the artifact since the manifest was read; the new manifest names other files.
            if manifest == before:
                missing = Path(error.filename).name
                raise ArtifactError(f"{folder / missing}: missing, though {MANIFEST} names it. {RESTORE}") from None
            before = manifest
    for name, file in files.items():
        if file.n_bytes != (size := manifest["files"][name]["bytes"]):
            raise ArtifactError(f"{folder / name}: has {file.n_bytes} bytes, {MANIFEST} says {size}. {RESTORE}")
    arrays = TensorFiles(files)
    homes = arrays.homes()
    kinds = {key: [entry["dtype"], entry["shape"]] for key, entry in manifest["arrays"].items()}
    for key in sorted(kinds.keys() | arrays.keys()):
        have = list(arrays.kind(key)) if key in arrays else "missing"
        if have != kinds.get(key):
            where = folder / homes.get(key, names[0])
            raise ArtifactError(f"{where}: array {key} is {have}, {MANIFEST} says {kinds.get(key, 'none')}. {RESTORE}")
    return Artifact(folder, manifest, arrays)


def verify(folder: str | Path) -> list[str]:
    """Check every byte of a folder against its checksums. Return the problems, one sentence each."""
    folder = Path(folder)
    while True:
        try:
            artifact = load(folder)
        except ArtifactError as error:
            return [str(error)]
        problems = _problems(artifact)
        if not problems or _files_of(folder) == artifact.manifest["files"]:
            return problems  # otherwise a writer came in between: check again


def tsv_name(part: int) -> str:
    """Return the name of the table of IDs that the fit (0) or a later change (1, 2, ...) wrote."""
    return f"ids-{part}.tsv" if part else IDS_TABLE


def tsv_escape(text: str) -> str:
    r"""Return text as one cell of a tab-separated line.

    >>> tsv_escape("two\nlines")
    'two\\nlines'
    """
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def tsv_rows(item_ids: Iterable[str], tokens: Iterable[str], texts: Iterable[str]) -> Iterator[str]:
    r"""Yield the lines of `ids.tsv`: item id, tokens and text, tab-separated, after a header line.

    Tab, line feed, carriage return and backslash are written \t, \n, \r and \\; a text of more than 200 characters is
    cut and ends in an ellipsis.

    >>> list(tsv_rows(["B1"], ["<s_a_1>"], ["two\nlines"]))
    ['item_id\ttokens\ttext', 'B1\t<s_a_1>\ttwo\\nlines']
    """
    yield "item_id\ttokens\ttext"
    for item_id, words, text in zip(item_ids, tokens, texts, strict=True):
        shown = text if len(text) <= 200 else text[:199] + "…"
        yield f"{tsv_escape(item_id)}\t{words}\t{tsv_escape(shown)}"


def _write(
    draft: Draft,
    manifest: Mapping[str, object],
    parts: Sequence[Mapping[str, np.ndarray]],
    tables: Mapping[str, Iterable[str]],
    files: dict[str, FileEntry],
    described: dict[str, ArrayEntry],
) -> str:
    """Write new parts and tables beside the `files` and arrays (`described`) that stay; return the fingerprint."""
    parts = [part for part in parts if part] or ([] if files else [{}])  # there is always a data file
    data = [draft.write(tensor_blocks(part)) for part in parts]
    written = {name: draft.write(_text_blocks(lines)) for name, lines in tables.items()}
    named = {data_name(one.sha256): one for one in data} | written
    files = files | {name: {"sha256": one.sha256, "bytes": one.n_bytes} for name, one in named.items()}
    for part in parts:
        described = described | describe(part)
    whole = complete(manifest, files, dict(sorted(described.items())))
    _publish(draft, data, draft.write([as_text(whole)]), written, set(files))
    return str(whole["fingerprint"])


def _publish(
    draft: Draft, data: Sequence[Written], manifest: Written, tables: Mapping[str, Written], whole: set[str]
) -> None:
    """Publish data, then the manifest, which makes the change visible; then tidy up. `whole` are the files that remain.

    Old data is removed last, when everything else is on the disk; after a failure the next save removes it.
    """
    before = _files_of(draft.folder)
    fresh = [data_name(one.sha256) for one in data if not (draft.folder / data_name(one.sha256)).exists()]
    try:
        for one in data:
            draft.publish(one, data_name(one.sha256))
        draft.publish(manifest, MANIFEST)
    finally:
        now = _files_of(draft.folder)
        for name in fresh:
            if name not in now:
                draft.remove(name)
    for name, table in tables.items():
        draft.publish(table, name)
    for name in before:
        if TABLE.fullmatch(name) and name not in whole:
            draft.remove(name)
    for path in draft.folder.iterdir():
        if DATA.fullmatch(path.name) and path.name not in whole:
            draft.remove(path.name)


def _files_of(folder: Path) -> dict[str, FileEntry]:
    """Return `files` of the present manifest; empty if none can be read."""
    try:
        files: dict[str, FileEntry] = read_manifest(folder)["files"]
    except ArtifactError:
        return {}
    return files


def _problems(artifact: Artifact) -> list[str]:
    problems = []
    for name, entry in artifact.manifest["files"].items():
        path = artifact.folder / name
        fix = "It is a table for people: save the artifact again." if TABLE.fullmatch(name) else RESTORE
        try:
            with open(path, "rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}. {fix}")
            continue
        if not same:
            problems.append(f"{path}: does not match its checksum in {MANIFEST}. {fix}")
    described = describe(artifact.arrays)
    for name, entry in artifact.manifest["arrays"].items():
        if described[name]["sha256"] != entry["sha256"]:
            problems.append(f"{artifact.folder}: array {name} does not match its checksum. {RESTORE}")
    return problems


def _text_blocks(lines: Iterable[str]) -> Iterator[bytes]:
    lines = iter(lines)
    while block := list(islice(lines, 4096)):
        yield ("\n".join(block) + "\n").encode("utf-8", "backslashreplace")


def check_path(path: Path, force: bool) -> None:
    """Raise OutputExistsError if a file to write exists, is a folder, or has the name of an artifact's own file."""
    if path.is_dir():
        raise OutputExistsError(f"{path}: is a folder, expected a file to write. Add a name: {path / 'export'}.")
    if path.name in (MANIFEST, IDS_TABLE) or DATA.fullmatch(path.name) or is_litter(path.name):
        raise OutputExistsError(f"{path}: this name is reserved for a file of an artifact. Choose another name.")
    if path.exists() and not force:
        raise OutputExistsError(f"{path}: exists. Choose another name, or use --force to replace it.")
    check_folder(path.parent)
