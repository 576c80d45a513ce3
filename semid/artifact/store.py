"""The artifact: a folder of data, saved so that readers see the old one or the new one, and nothing between.

    semid.json                           the manifest (`manifest.py`)
    semid-<16 hex digits>.safetensors    arrays, under a name made from their checksum: one file or several
    ids.tsv, ids-1.tsv, ...              the IDs for people, and other tables; optional, and never read back

Files without a name of ours are never touched, so an artifact can live inside a model's folder.

Writing goes one way, whether it is all (`save`) or a change (`changing`), which leaves data files as they are whose
arrays have not changed. All new files are written under temporary names and synced; then the data files get their
names, which no older manifest mentions; then `semid.json` is renamed, and in that instant the artifact is the new
one; then the tables; last, old data files go. A reader whose data file vanishes between manifest and opening reads the
manifest again; arrays that are open stay readable. A crash leaves the old artifact or the new one, and perhaps litter,
which the next writer sweeps, or a stale table, which `verify` reports.

Not here: what the arrays mean. Nothing imports more than NumPy, nothing reads the clock.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semid.artifact.atomic import Draft, Written, check_folder, drafting, is_litter
from semid.artifact.manifest import (
    AGAIN,
    DATA,
    MANIFEST,
    PEOPLE,
    TABLE,
    as_text,
    complete,
    data_name,
    describe,
    read_manifest,
)
from semid.artifact.tensors import TensorFile, TensorFiles, plain, tensor_blocks
from semid.errors import ArtifactError, OutputExistsError

if TYPE_CHECKING:
    pass

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
    """A loaded folder: its manifest as written, and its arrays, mapped into memory when asked for."""

    folder: Path
    manifest: dict
    arrays: TensorFiles

    @property
    def fingerprint(self) -> str:
        """`sha256:` and 64 hex digits: what the artifact is, whoever wrote it (`manifest.py`)."""
        return self.manifest["fingerprint"]


def check_output(folder: str | Path, *, force: bool = False) -> None:
    """Refuse an output folder before any work is done, exactly where `save` would refuse it.

    OutputExistsError if it holds anything (but for what an interrupted save left) and `force` is not given,
    or if a file is in the way; ArtifactError if it cannot be written.
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
    """Write an artifact, in one step as readers see it, and return its fingerprint.

    Parameters
    ----------
    manifest
        JSON data. Keys of ours in it are ignored, so a loaded manifest can be changed and saved.
    parts
        Name -> array of bool, (u)int8 to 64 or float16 to 64; they may be mapped from this very folder. Each part goes
        into a file of its own, and no two have a name in common.
    tables
        Name of a .tsv file -> its lines without line ends: for `ids.tsv` see `tsv_rows`.
    force
        Allow a folder that holds something; only files with names of ours are replaced.

    Raises
    ------
    OutputExistsError
        The folder holds something and `force` is not given.
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
    """The artifact of a folder, and the only right to change it until the block ends.

    Raises ArtifactError as `load` does, or if another process is writing there.
    """
    load(folder)  # the error of a folder that is none, before a lock is made in it
    with drafting(folder) as draft:
        yield Change(draft, load(folder))


@dataclass(frozen=True)
class Change:
    """A change on its way: made by `changing`."""

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
        """Make the artifact one of these parts, of which the first `kept` are as they were; returns its fingerprint.

        Only the others are written, each into a file of its own. Of the tables, those named are replaced, or go
        where None stands for the lines.
        """
        tables = tables or {}
        old = self.artifact.manifest
        names = {name for part in parts[:kept] for name in part}
        homes = self.artifact.arrays.homes()
        files = {homes.get(name) for name in names}
        if {name for name, home in homes.items() if home in files} != names:
            files, names, kept = set(), set(), 0  # an older format: files hold more, or other arrays. Write everything
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
    """Open an artifact: reads the manifest and the header of the data, checks both, maps the rest.

    Everything but the bytes of the arrays is checked; `verify` checks those too.

    Raises
    ------
    ArtifactError
        No such folder, not a semid folder, damaged, or written by a newer semid.
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
            # A writer changed the artifact since we read the manifest: the new one names other files.
            if manifest == before:
                missing = Path(error.filename).name
                raise ArtifactError(f"{folder / missing}: missing, though {MANIFEST} names it. {AGAIN}") from None
            before = manifest
    for name, file in files.items():
        if file.n_bytes != (size := manifest["files"][name]["bytes"]):
            raise ArtifactError(f"{folder / name}: has {file.n_bytes} bytes, {MANIFEST} says {size}. {AGAIN}")
    arrays = TensorFiles(files)
    homes = arrays.homes()
    kinds = {key: [entry["dtype"], entry["shape"]] for key, entry in manifest["arrays"].items()}
    for key in sorted(kinds.keys() | arrays.keys()):
        have = list(arrays.kind(key)) if key in arrays else "missing"
        if have != kinds.get(key):
            where = folder / homes.get(key, names[0])
            raise ArtifactError(f"{where}: array {key} is {have}, {MANIFEST} says {kinds.get(key, 'none')}. {AGAIN}")
    return Artifact(folder, manifest, arrays)


def verify(folder: str | Path) -> list[str]:
    """What is wrong with a folder, one sentence each; empty if every checksum holds. Reads every byte."""
    folder = Path(folder)
    while True:
        try:
            artifact = load(folder)
        except ArtifactError as error:
            return [str(error)]
        problems = _problems(artifact)
        if not problems or _files_of(folder) == artifact.manifest["files"]:
            return problems  # else a writer came in between: look again


def tsv_name(part: int) -> str:
    """The name of the table for people of the fit (0) or of a later change."""
    return f"ids-{part}.tsv" if part else PEOPLE


def tsv_escape(text: str) -> str:
    r"""Return text as one cell of a tab-separated line.

    >>> tsv_escape("two\nlines")
    'two\\nlines'
    """
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def tsv_rows(item_ids: Iterable[str], tokens: Iterable[str], texts: Iterable[str]) -> Iterator[str]:
    r"""The lines of `ids.tsv`: item id, tokens and text, tab-separated under a header line.

    Tab, line feed, carriage return and backslash are written \t, \n, \r and \\; a long text is cut at 200
    characters and ends in an ellipsis.

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
    files: dict[str, dict],
    described: dict[str, dict],
) -> str:
    """Write what is new, beside the `files` and the arrays `described` that stay; returns the fingerprint."""
    parts = [part for part in parts if part] or ([] if files else [{}])  # there is always a data file
    data = [draft.write(tensor_blocks(part)) for part in parts]
    written = {name: draft.write(_text_blocks(lines)) for name, lines in tables.items()}
    named = {data_name(one.sha256): one for one in data} | written
    files = files | {name: {"sha256": one.sha256, "bytes": one.n_bytes} for name, one in named.items()}
    for part in parts:
        described = described | describe(part)
    whole = complete(manifest, files, dict(sorted(described.items())))
    _publish(draft, data, draft.write([as_text(whole)]), written, set(files))
    return whole["fingerprint"]


def _publish(
    draft: Draft, data: Sequence[Written], manifest: Written, tables: Mapping[str, Written], whole: set[str]
) -> None:
    """The commit: data first, the manifest decides, the rest is tidying. `whole` are the files that are true then.

    Old data goes only when all else is on the disk: after a failure the next save removes it.
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


def _files_of(folder: Path) -> dict[str, dict]:
    """`files` of the manifest that is there now; empty if none can be read."""
    try:
        return read_manifest(folder)["files"]
    except ArtifactError:
        return {}


def _problems(artifact: Artifact) -> list[str]:
    problems = []
    for name, entry in artifact.manifest["files"].items():
        path = artifact.folder / name
        fix = "It is a copy for people: save the artifact again." if TABLE.fullmatch(name) else AGAIN
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
            problems.append(f"{artifact.folder}: array {name} does not match its checksum. {AGAIN}")
    return problems


def _text_blocks(lines: Iterable[str]) -> Iterator[bytes]:
    lines = iter(lines)
    while block := list(islice(lines, 4096)):
        yield ("\n".join(block) + "\n").encode("utf-8", "backslashreplace")


def check_path(path: Path, force: bool) -> None:
    """Refuse a file to write: OutputExistsError if it is there, a folder, or named like a file of an artifact."""
    if path.is_dir():
        raise OutputExistsError(f"{path}: is a folder, expected a file to write. Add a name: {path / 'export'}.")
    if path.name in (MANIFEST, PEOPLE) or DATA.fullmatch(path.name) or is_litter(path.name):
        raise OutputExistsError(f"{path}: is the name of an artifact's own file. Choose another name.")
    if path.exists() and not force:
        raise OutputExistsError(f"{path}: exists. Choose another name, or use --force to replace it.")
    check_folder(path.parent)
