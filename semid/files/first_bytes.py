"""What a file of arrays, a table or text is by its first bytes, whatever its name says.

Kinds are named by a suffix: ".npy", ".npz", ".safetensors", ".pt", ".parquet", ".arrow", ".json", ".csv" (any text).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semid.errors import InputError
from semid.files.reading import AS_FOUND
from semid.files.signatures import packed_as, table_kind
from semid.files.sources import Opened, opened, read_fault

__all__ = ["file_kind", "open_unpacked"]

HEAD = 64  # bytes looked at
STARTS = {
    b"\x93NUMPY": ".npy",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": ".pt",  # torch before version 1.6
}  # fmt: skip


def file_kind(path: Path) -> str:
    """Return the kind of a file; of packed text, that of the text.

    Raises
    ------
    InputError
        It does not exist, is empty, or of a kind that is not read; the message names the kind and what to do.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
        kind = next((kind for start, kind in STARTS.items() if head.startswith(start)), None)
        if kind is None and packed_as(head) == "zip":
            kind = _zip_kind(path)
        if kind is None and len(head) > 8 and head[8:9] == b"{":
            kind = ".safetensors" if int.from_bytes(head[:8], "little") <= path.stat().st_size else None
    except OSError as error:
        raise InputError(f"{path}: {read_fault(error)}") from None
    table = table_kind(head)
    if table is not None:
        kind = ".parquet" if table == "parquet" else ".arrow"
    return kind or _text_kind(path)


def _zip_kind(path: Path) -> str | None:
    """Return the kind of arrays that a .zip file holds; None if it holds something else, or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return None
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return ".pt"
    return ".npz" if any(name.endswith(".npy") for name in names) else None


def _text_kind(path: Path) -> str:
    with open_unpacked(path) as file:
        if file.table is not None:
            raise InputError(f"{path}: a table that is packed as a whole. Unpack it first.")
        text = file.head.lstrip()
        if not text and not file.stream.read().strip():  # reading on tells whether it is damaged instead
            raise InputError(f"{path}: the file is empty.")
    return ".json" if text[:1] in (b"{", b"[") else ".csv"


@contextmanager
def open_unpacked(path: Path) -> Iterator[Opened]:
    """Open a file of text as UTF-8 without a byte order mark, unpacked; what makes it unreadable is an InputError."""
    try:
        with opened(str(path), AS_FOUND) as file:
            yield file
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: {read_fault(error)}") from None
