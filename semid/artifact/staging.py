"""Write a folder that appears whole or not at all: built beside its place under a hidden name, then renamed.

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
from collections.abc import Callable, Iterator
from pathlib import Path

from semid.artifact.atomic import check_folder
from semid.artifact.kinds import holds_artifact
from semid.artifact.manifest import MANIFEST
from semid.errors import OutputExistsError

__all__ = ["check_model_output", "staged_folder"]

logger = logging.getLogger("semid")

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW  # refuses links, and pipes, on which opening would block


def check_model_output(output: Path, force: bool) -> None:
    """Check the output folder of a model before any work is done.

    Raises
    ------
    OutputExistsError
        The folder is not empty and `force` is not given, or it is not a model with semantic IDs.
    ArtifactError
        The folder cannot be written.
    """
    check_folder(output)
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not force:
        raise OutputExistsError(f"{output}: exists. Choose another folder, or use --force to replace it.")
    if not (holds_artifact(output) and (output / "config.json").is_file()):
        raise OutputExistsError(
            f"{output}: is not a model with semantic IDs (no {MANIFEST} and config.json), so --force does not replace "
            "it. Choose another folder, or remove this one."
        )


@contextlib.contextmanager
def staged_folder(
    output: Path, force: bool, *, check: Callable[[Path, bool], None] = check_model_output
) -> Iterator[Path]:
    """Yield a folder beside the output, which gets the output's name at the end; remove it if anything fails.

    The folder is locked while its process lives, so the next writer can recognize and remove what a killed one left.

    Parameters
    ----------
    output : Path
        The folder to make.
    force : bool
        Replace an existing one.
    check : callable
        `check(output, force)` raises if the output must not be written. It runs at the end, and before the work by the
        caller.
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
        check(output, force)
        _replace(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)


def _replace(draft: Path, output: Path) -> None:
    """Rename the draft to the output. An old folder is moved aside just before, and back if that fails.

    If the output is a link, the link is replaced and its target stays as it is. If the machine stops in between, the
    old folder remains as `.NAME.semid-old-...`; no writer removes it.
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
    for path in parent.iterdir():  # no glob: a name such as out[1] is a pattern itself
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
    """Sync all files and folders to the disk; skip folders that a network file system cannot sync."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
