"""Writing into a folder so that neither a crash nor a second writer can spoil what is there.

Every file is first written whole under a temporary name in the same folder and synced to the disk; `publish`
then renames it, which a reader sees at once or not at all. One writer at a time: a lock file, held through
`flock`, so the lock of a dead process is free by itself. Temporary files of dead processes are swept by the
next writer. If the work fails, temporary files and the folders made for it are removed.

A folder may come from a stranger's archive, or be shared with others, so nothing that lies there is written into.
Temporary files are always new; giving one its final name replaces a link of that name, not what the link points to;
and the lock, the one file that may be there before, is opened only if it can be nothing but a lock.

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
HOLDER = re.compile(rb"[0-9\0]{0,20}")  # what a lock holds: its last process, or nothing yet; zeros, after a power cut


def is_litter(name: str) -> bool:
    """Is this the name of a lock or of a temporary file, which an interrupted writer may leave behind?"""
    return name == LOCK or name.startswith(TEMPORARY)


@dataclass(frozen=True)
class Written:
    """A temporary file, complete and on the disk."""

    path: Path
    sha256: str
    n_bytes: int


class Draft:
    """Files on their way into a folder; made by `drafting`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, blocks: Iterable[bytes | memoryview]) -> Written:
        """Write a temporary file and sync it; ArtifactError names the folder if the disk refuses."""
        path = self.folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
        digest, n_bytes = hashlib.sha256(), 0
        with _explained(self.folder):
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            for block in blocks:  # an error in the caller's iterator is the caller's: explain only ours
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
        """Give a written file its final name, in place of any file of that name, for good."""
        with _explained(self.folder):
            os.replace(written.path, self.folder / name)
            _sync_folder(self.folder)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with _explained(self.folder):
            (self.folder / name).unlink(missing_ok=True)


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that could not be written into, before any work is done; writes nothing.

    OutputExistsError if a file is in the way, ArtifactError if the nearest folder that exists is read-only.
    """
    folder = Path(folder).absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise OutputExistsError(f"{nearest}: is a file, expected a folder. Choose another output folder.")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise ArtifactError(f"{nearest}: cannot be written. Choose another folder, or change its permissions.")


@contextlib.contextmanager
def drafting(folder: str | Path) -> Iterator[Draft]:
    """Make the folder, take its lock, sweep what dead writers left; afterwards leave only published files.

    Raises
    ------
    ArtifactError
        Another process is writing there, or the disk refuses; the message names the folder.
    OutputExistsError
        A file is in the place of the folder.
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
            with contextlib.suppress(OSError):  # a folder with content refuses, and so stays
                path.rmdir()


def _locked(folder: Path, made: list[Path]) -> int:
    """The open lock file of the folder, which is made if needed; folders made are noted, deepest first."""
    for _ in range(100):
        made.extend(path for path in (folder, *folder.parents) if not path.exists() and path not in made)
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another writer failed and removed its folder: again
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
    """The lock file, made if needed; never through a link, and without waiting where a pipe has its name."""
    try:
        return os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # a link, as Linux and as FreeBSD say it
            raise _no_lock(path, "is a link") from None
        if error.errno in (errno.EISDIR, errno.ENXIO, errno.ENODEV):  # a folder; a socket or a device
            raise _no_lock(path, "is no ordinary file") from None
        raise


def _is_a_lock(path: Path, lock: int) -> bool:
    """Is this the lock's own file? False if its last owner has just removed it, ArtifactError if it is another file.

    Whose file it is does not matter: where two users share a folder, one finds the lock that the other's dead process
    left, and a number over a number does no harm.
    """
    found = os.fstat(lock)
    if not stat.S_ISREG(found.st_mode):
        raise _no_lock(path, "is no ordinary file")
    if found.st_nlink > 1:  # a hard link: it may be any file of the user under a second name
        raise _no_lock(path, "is the same file as another")
    return found.st_nlink == 1


def _no_lock(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path}: {what}, so it is no lock of semid's. Look where it comes from, and remove it.")


def _is_ours(folder: Path, lock: int) -> bool:
    """Take the lock; False if its last owner has just removed the file, ArtifactError if it is held, or no lock."""
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
    if not HOLDER.fullmatch(os.pread(lock, 21, 0)):  # somebody moved a file of theirs here: it would be lost
        raise _no_lock(folder / LOCK, "holds something else than the number of a process")
    return True


def _sweep(folder: Path) -> None:
    """Remove temporary files; only the holder of the lock may, for then nobody else is writing them."""
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
    """Turn what the operating system says into an error that names the folder and the fix."""
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
