"""A folder that appears whole or not at all: written beside its place under a hidden name, then renamed.

Not here: what is written (`tokenizer_exports/models/on_disk.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from semid.artifact.atomic import check_folder
from semid.artifact.kinds import holds_artifact
from semid.artifact.manifest import MANIFEST
from semid.errors import OutputExistsError

__all__ = ["check_output", "staging"]

logger = logging.getLogger("semid")

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW  # no link, and no pipe, at which opening would wait


def check_output(output: Path, force: bool) -> None:
    """OutputExistsError if the output holds something that may not be replaced; ArtifactError if it is read-only."""
    check_folder(output)
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not force:
        raise OutputExistsError(f"{output}: exists. Choose another folder, or use --force to replace it.")
    if not (holds_artifact(output) and (output / "config.json").is_file()):
        raise OutputExistsError(
            f"{output}: is not a model with semantic IDs (no {MANIFEST} and config.json), so --force does not replace "
            "it. Choose another folder, or remove it yourself."
        )


@contextlib.contextmanager
def staging(output: Path, force: bool) -> Iterator[Path]:
    """A folder beside the output, which gets its name at the end; removed if anything fails.

    It is locked while its process lives, so the next writer can tell, and sweeps, what a killed one left.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{output.name}.semid-tmp-"
    _sweep(output.parent, stem)
    draft = output.parent / f"{stem}{secrets.token_hex(6)}"
    draft.mkdir()
    lock = os.open(draft, FOLDER)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield draft
        _sync(draft)
        check_output(output, force)
        _replace(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)


def _replace(draft: Path, output: Path) -> None:
    """Give the draft its name. An old folder is moved aside just before, and put back if that fails.

    An output that is a link gives way as a link: what it points to stays as it is.
    A machine that stops in between leaves the old folder as `.NAME.semid-old-...`, which nobody sweeps.
    """
    old = output.parent / f".{output.name}.semid-old-{secrets.token_hex(6)}"
    try:
        if output.is_symlink() or (output.is_dir() and any(output.iterdir())):
            os.rename(output, old)
        os.rename(draft, output)
    finally:
        if old.is_symlink() and output.is_dir():
            old.unlink()
        elif old.is_dir() and output.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        elif old.is_dir():
            os.rename(old, output)


def _sweep(parent: Path, stem: str) -> None:
    for path in parent.iterdir():  # no pattern: a name may hold the signs of one, as out[1] does
        if not path.name.startswith(stem):
            continue
        with contextlib.suppress(OSError):
            lock = os.open(path, FOLDER)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                logger.debug("removing %s, left by an interrupted run", path)
                shutil.rmtree(path)
            finally:
                os.close(lock)


def _sync(folder: Path) -> None:
    """All files and folders onto the disk; network file systems that sync no folders are let be."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
