"""Write files into a folder so that neither a crash nor a second writer can damage what is there.

Every file is first written completely under a temporary name in the same folder and synced to the disk; `publish` then
renames it, so a reader sees the old file or the new one. There is one writer at a time: a lock file is held through
`flock`, so the lock of a dead process is released by itself. The next writer removes the temporary files of dead
processes. If the work fails, its temporary files and the folders made for it are removed.

A folder may come from a stranger's archive or be shared with others, so no existing file is ever written into.
Temporary files are always new; renaming one replaces a link of that name, not the link's target; and the lock, the only
file that may exist before, is opened only if it can be nothing but a lock.

Not here: which file comes last and so decides which version readers see (`store.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from semid.errors import ArtifactError, OutputExistsError

__all__ = ["Draft", "Written", "check_folder", "drafting", "is_litter"]

logger = logging.getLogger("semid")

LOCK = ".semid.lock"
TEMPORARY = ".semid-tmp-"
HOLDER = re.compile(rb"[0-9\0]{0,20}")  # content of a lock: its last process, nothing yet, or zeros after a power cut


def is_litter(name: str) -> bool:
    """Return whether this is the name of a lock or a temporary file, which an interrupted writer may leave."""
    return name == LOCK or name.startswith(TEMPORARY)


@dataclass(frozen=True)
class Written:
    """A temporary file that is complete and synced to the disk."""

    path: Path
    sha256: str
    n_bytes: int


class Draft:
    """Write access to a folder; made by `drafting`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, blocks: Iterable[bytes | memoryview]) -> Written:
        """Write a temporary file and sync it; ArtifactError if that fails."""
        path = self.folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
        digest, n_bytes = hashlib.sha256(), 0
        with _explained(self.folder):
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            for block in blocks:  # errors in the caller's iterator pass through unchanged
                with _explained(self.folder):
                    _write_all(file, block)
                digest.update(block)
                n_bytes += len(block)
            with _explained(self.folder):
                os.fsync(file)
        finally:
            os.close(file)
        return Written(path, digest.hexdigest(), n_bytes)

    def publish(self, written: Written, name: str) -> None:
        """Rename a written file to its final name, replacing any file of that name, and sync the folder."""
        with _explained(self.folder):
            os.replace(written.path, self.folder / name)
            _sync_folder(self.folder)

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with _explained(self.folder):
            (self.folder / name).unlink(missing_ok=True)


def check_folder(folder: str | Path) -> None:
    """Check that a folder can be written, before any work is done; writes nothing.

    Raises
    ------
    OutputExistsError
        A file is in the way.
    ArtifactError
        The nearest existing folder is read-only.
    """
    folder = Path(folder).absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise OutputExistsError(f"{nearest}: is a file, expected a folder. Choose another output folder.")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise ArtifactError(f"{nearest}: cannot be written. Choose another folder, or change its permissions.")


@contextlib.contextmanager
def drafting(folder: str | Path) -> Iterator[Draft]:
    """Make the folder, lock it and remove what dead writers left; at the end only published files remain.

    Raises
    ------
    ArtifactError
        Another process is writing there, or the folder cannot be written.
    OutputExistsError
        A file is in the way.
    """
    folder = Path(folder)
    made: list[Path] = []
    lock = None
    try:
        with _explained(folder):
            lock = _locked(folder, made)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            for path in made:
                _sync_folder(path.parent)
            _sweep(folder)
        yield Draft(folder)
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                _sweep(folder)
            with contextlib.suppress(OSError):
                os.unlink(folder / LOCK)
            os.close(lock)
        for path in made:  # deepest first
            with contextlib.suppress(OSError):  # a folder that is not empty stays
                path.rmdir()


def _locked(folder: Path, made: list[Path]) -> int:
    """Return the open lock file of the folder; make folders as needed and append them to `made`, deepest first."""
    for _ in range(100):
        made.extend(path for path in (folder, *folder.parents) if not path.exists() and path not in made)
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another writer failed and removed its folder: try again
            lock = _opened(folder / LOCK)
            ours = False
            try:
                ours = _is_a_lock(folder / LOCK, lock) and _is_ours(folder, lock)
            finally:
                if not ours:
                    os.close(lock)
            if ours:
                return lock
    raise ArtifactError(f"{folder}: other processes keep writing here. Wait for them, then try again.")


def _opened(path: Path) -> int:
    """Open the lock file, making it if needed; never follow a link, never block on a pipe of that name."""
    try:
        return os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # a link, on Linux and on FreeBSD
            raise _no_lock(path, "is a link") from None
        if error.errno in (errno.EISDIR, errno.ENXIO, errno.ENODEV):  # a folder; a socket or a device
            raise _no_lock(path, "is no ordinary file") from None
        raise


def _is_a_lock(path: Path, lock: int) -> bool:
    """Return whether the open file is a lock; False if its last owner has just removed it.

    It may belong to another user: where two users share a folder, one may find the lock that the other's dead process
    left, and overwriting its number does no harm.

    Raises
    ------
    ArtifactError
        It is another kind of file.
    """
    found = os.fstat(lock)
    if not stat.S_ISREG(found.st_mode):
        raise _no_lock(path, "is no ordinary file")
    if found.st_nlink > 1:  # a hard link: it may be any of the user's files under a second name
        raise _no_lock(path, "is the same file as another")
    return found.st_nlink == 1


def _no_lock(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path}: {what}, so it is not a lock of semid. Check where it comes from, then remove it.")


def _is_ours(folder: Path, lock: int) -> bool:
    """Take the lock; return False if its last owner has just removed it; ArtifactError if another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), os.lstat(folder / LOCK)):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace")
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise ArtifactError(f"{folder}: {who} is writing here. Wait for it to finish, then try again.") from None
    if not HOLDER.fullmatch(os.pread(lock, 21, 0)):  # somebody's file was moved here; writing would destroy it
        raise _no_lock(folder / LOCK, "holds more than the number of a process")
    return True


def _sweep(folder: Path) -> None:
    """Remove temporary files. Only the holder of the lock may: nobody else is then writing them."""
    for path in folder.iterdir():
        if path.name.startswith(TEMPORARY):
            logger.debug("removing %s, left by an interrupted save", path)
            path.unlink(missing_ok=True)


def _write_all(file: int, block: bytes | memoryview) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(file, rest) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the folder and the fix."""
    try:
        yield
    except (ArtifactError, OutputExistsError):
        raise
    except (FileExistsError, NotADirectoryError):
        raise OutputExistsError(
            f"{folder}: a file is in the way, expected a folder. Choose another output folder."
        ) from None
    except OSError as error:
        fix = "Choose another folder, or change its permissions."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fix = "Make room there, or choose another folder."
        raise ArtifactError(f"{folder}: cannot be written: {error.strerror}. {fix}") from error
