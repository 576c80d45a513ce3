"""The artefact: a folder of data, saved so that readers see the old one or the new one, and nothing between.

    semid.json                           the manifest (`manifest.py`)
    semid-<16 hex digits>.safetensors    the arrays, under a name made from their checksum
    ids.tsv                              the IDs for people; optional, and never read back

Files without a name of ours are never touched, so an artefact can live inside a model's folder.

Saving goes one way, new or over an old artefact. All files are written under temporary names and synced;
then the data file gets its name, which no older manifest mentions; then `semid.json` is renamed, and in that
instant the artefact is the new one; then `ids.tsv`; last, old data files go. A reader whose data file
vanishes between manifest and opening reads the manifest again; arrays that are open stay readable. A crash
leaves the old artefact or the new one, and perhaps litter, which the next save sweeps, or a stale `ids.tsv`,
which `verify` reports.

Not here: what the arrays mean. Nothing imports more than NumPy, nothing reads the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from semid.atomic import Draft, Written, check_folder, drafting, is_litter
from semid.errors import ArtifactError, OutputExistsError
from semid.manifest import (
    AGAIN,
    DATA,
    FORMAT_VERSION,
    MANIFEST,
    PEOPLE,
    as_text,
    complete,
    data_name,
    describe,
    fingerprint,
    read_manifest,
)
from semid.tensors import TensorFile, plain, tensor_blocks

__all__ = [
    "FORMAT_VERSION",
    "Artifact",
    "check_output",
    "fingerprint",
    "load",
    "people_lines",
    "save",
    "verify",
]


@dataclass(frozen=True)
class Artifact:
    """A loaded folder: its manifest as written, and its arrays, mapped into memory when asked for."""

    folder: Path
    manifest: dict
    arrays: Mapping[str, np.ndarray]

    @property
    def fingerprint(self) -> str:
        """`sha256:` and 64 hex digits: what the artefact is, whoever wrote it (`manifest.py`)."""
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
            f"Choose another folder, or use --force to replace the artefact in it."
        )


def save(
    folder: str | Path,
    manifest: Mapping[str, object],
    arrays: Mapping[str, np.ndarray],
    *,
    people: Iterable[str] | None = None,
    force: bool = False,
) -> str:
    """Write an artefact, in one step as readers see it, and return its fingerprint.

    Parameters
    ----------
    manifest
        JSON data. Keys of ours in it are ignored, so a loaded manifest can be changed and saved.
    arrays
        Name -> array of bool, (u)int8 to 64 or float16 to 64; they may be mapped from this very folder.
    people
        The lines of `ids.tsv`, without line ends: see `people_lines`. None for no such file.
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
    arrays = {name: plain(name, array) for name, array in arrays.items()}
    described = describe(arrays)
    with drafting(folder) as draft:
        check_output(folder, force=force)  # again, now that nobody else is writing
        data = draft.write(tensor_blocks(arrays))
        files = {data_name(data.sha256): {"sha256": data.sha256, "bytes": data.n_bytes}}
        table = None if people is None else draft.write(_text_blocks(people))
        if table:
            files[PEOPLE] = {"sha256": table.sha256, "bytes": table.n_bytes}
        whole = complete(manifest, files, described)
        _publish(draft, data, draft.write([as_text(whole)]), table)
    return whole["fingerprint"]


def load(folder: str | Path) -> Artifact:
    """Open an artefact: reads the manifest and the header of the data, checks both, maps the rest.

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
        (name,) = (name for name in manifest["files"] if DATA.fullmatch(name))
        try:
            tensors = TensorFile(folder / name)
            break
        except FileNotFoundError:
            # A writer replaced the artefact since we read the manifest: the new one names another file.
            if manifest == before:
                raise ArtifactError(f"{folder / name}: missing, though {MANIFEST} names it. {AGAIN}") from None
            before = manifest
    size = manifest["files"][name]["bytes"]
    if (have := tensors.n_bytes) != size:
        raise ArtifactError(f"{folder / name}: has {have} bytes, {MANIFEST} says {size}. {AGAIN}")
    kinds = {key: [entry["dtype"], entry["shape"]] for key, entry in manifest["arrays"].items()}
    for key in sorted(kinds.keys() | tensors.keys()):
        have = list(tensors.kind(key)) if key in tensors else "missing"
        if have != kinds.get(key):
            raise ArtifactError(
                f"{folder / name}: array {key} is {have}, {MANIFEST} says {kinds.get(key, 'none')}. {AGAIN}"
            )
    return Artifact(folder, manifest, tensors)


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


def people_lines(item_ids: Iterable[str], tokens: Iterable[str], texts: Iterable[str]) -> Iterator[str]:
    r"""The lines of `ids.tsv`: item id, tokens and text, tab-separated under a header line.

    Tab, line feed, carriage return and backslash are written \t, \n, \r and \\; a long text is cut at 200
    characters and ends in an ellipsis.

    >>> list(people_lines(["B1"], ["<s_a_1>"], ["two\nlines"]))
    ['item_id\ttokens\ttext', 'B1\t<s_a_1>\ttwo\\nlines']
    """
    yield "item_id\ttokens\ttext"
    escapes = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
    for item_id, words, text in zip(item_ids, tokens, texts, strict=True):
        shown = text if len(text) <= 200 else text[:199] + "…"
        yield f"{item_id.translate(escapes)}\t{words}\t{shown.translate(escapes)}"


def _publish(draft: Draft, data: Written, manifest: Written, table: Written | None) -> None:
    """The commit: data first, the manifest decides, the rest is tidying.

    Old data goes only when all else is on the disk: after a failure the next save removes it.
    """
    name = data_name(data.sha256)
    before = _files_of(draft.folder)
    fresh = not (draft.folder / name).exists()
    try:
        draft.publish(data, name)
        draft.publish(manifest, MANIFEST)
    finally:
        if fresh and name not in _files_of(draft.folder):
            draft.remove(name)
    if table:
        draft.publish(table, PEOPLE)
    elif PEOPLE in before:
        draft.remove(PEOPLE)
    for path in draft.folder.iterdir():
        if DATA.fullmatch(path.name) and path.name != name:
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
        fix = "It is a copy for people: save the artefact again." if name == PEOPLE else AGAIN
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
