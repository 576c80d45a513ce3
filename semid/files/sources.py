"""Sources: a file or standard input, opened, unpacked and as UTF-8.

What a file is, is told by its first bytes; names only decide where bytes do not. `Opened.stream` is UTF-8 without a
byte order mark, whatever the file is packed with and written in; of Parquet and Arrow files it is the file itself.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from semid.files.encodings import Transcoder, encoding_of, utf16_without_mark
from semid.files.problems import name_list
from semid.files.reading import Reading
from semid.files.signatures import foreign_kind, packed_as, table_kind

__all__ = ["GZIP_MAGIC", "LINE_LIMIT", "LineFault", "Opened", "SourceFault", "copied", "opened", "read_fault"]

GZIP_MAGIC = b"\x1f\x8b"  # the first two bytes of a gzip file
HEAD = 1 << 18  # bytes that the layout of a file is found from
LINE_LIMIT = 1 << 26  # bytes of a line or of a JSON value; a longer one is no record
BUFFER = 1 << 20
DAMAGED = "the {} data are damaged ({}). Copy it again."
CUT = "the {} data end too early: the file is cut short. Copy it again."


class SourceFault(OSError):
    """Why a source cannot be read, as a sentence that follows its name."""


class LineFault(SourceFault):
    """A line that is too long, as a sentence that follows its place."""


@dataclass
class Opened:
    """A file that is open.

    Parameters
    ----------
    stream : io.BufferedReader
        Its unpacked bytes from the start; text as UTF-8.
    head : bytes
        The first bytes of `stream`, `HEAD` of them.
    whole : bool
        Whether `head` is all that there is.
    table : str or None
        "parquet", "arrow" or "arrow stream"; None: text.
    compression : str or None
        gzip, bzip2, xz, zstd or zip.
    encoding : str
        What the text is written in, as Python calls it.
    """

    stream: io.BufferedReader
    head: bytes
    whole: bool
    table: str | None
    compression: str | None
    encoding: str

    def limit_lines(self) -> None:
        """Let reading fail at a line of more than 64 MiB, which would fill the memory."""
        source = self.stream.raw
        if isinstance(source, _Rewound):
            source.limited = True


@contextlib.contextmanager
def opened(path: str, reading: Reading) -> Iterator[Opened]:
    """Open a file or, for "-", standard input, which is left open.

    Raises
    ------
    OSError
        It cannot be opened or unpacked, or it is something else than records: `read_fault` says what.
    """
    with contextlib.ExitStack() as stack:
        raw = _standard_input(stack) if path == "-" else stack.enter_context(_open_file(path))
        compression = packed_as(raw.peek(8)[:8])
        if compression:
            unpacked = _Unpacked(_unpack(raw, compression, stack), compression)
            raw = stack.enter_context(io.BufferedReader(unpacked, BUFFER))
        stream, head, whole = _peeked(raw, stack)
        table, encoding = table_kind(head), "utf-8"
        if table is None:
            foreign = foreign_kind(head)
            if foreign:
                raise SourceFault(foreign)
            encoding = encoding_of(head, reading.encoding)
            stream, head, whole = _as_utf8(stream, head, whole, encoding, reading, stack)
        yield Opened(stream, head, whole, table, compression, encoding)


def _standard_input(stack: contextlib.ExitStack) -> io.BufferedReader:
    raw: Any = sys.stdin.buffer
    if isinstance(raw, io.BufferedReader):
        return raw
    wrapped = io.BufferedReader(raw)  # a stand-in, as click's test runner puts there
    stack.callback(wrapped.detach)
    return wrapped


def _open_file(path: str) -> io.BufferedReader:
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a null byte, or characters that the file system cannot hold
        raise FileNotFoundError(path) from error
    piped = path == "/dev/stdin" or path.startswith("/dev/fd/")  # a shell's <(command)
    if stat.S_ISFIFO(mode) and not piped:
        raise SourceFault("is a named pipe. Pass - and pipe the data into standard input.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or piped):
        raise SourceFault("is a device or a socket. Pass a file, or - for standard input.")
    return open(path, "rb")


def _unpack(raw: io.BufferedReader, compression: str, stack: contextlib.ExitStack) -> Any:
    """Return a file-like object with the unpacked bytes."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if compression == "bzip2":
        return bz2.BZ2File(raw)
    if compression == "xz":
        return lzma.LZMAFile(raw)
    if compression == "zip":
        return _only_member(raw, stack)
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")


def _only_member(raw: io.BufferedReader, stack: contextlib.ExitStack) -> Any:
    """Return the only file of a zip archive, open."""
    file: Any = raw
    if not raw.seekable():  # the list of files is at the end
        file = stack.enter_context(copied(raw))
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
        members = [one for one in archive.infolist() if not one.is_dir()]
        names = [one.filename for one in members]
        if "[Content_Types].xml" in names:
            raise SourceFault("is an Excel or Word file. Save the table as CSV, with a header.")
        if any(name.endswith((".npy", "data.pkl")) for name in names):
            raise SourceFault("holds arrays (.npz or .pt), and no records. Give it where vectors are expected.")
        members = [one for one in members if not re.search(r"(^|/)(\.|__MACOSX/)", one.filename)]
        if len(members) != 1:
            held = f"{len(members)} files: {name_list(one.filename for one in members)}" if members else "no file"
            raise SourceFault(f"is a zip archive with {held}. Unpack it, and pass one file.")
        if members[0].flag_bits & 1:
            raise SourceFault("is an encrypted zip archive. Unpack it first.")
        return archive.open(members[0])
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise SourceFault(DAMAGED.format("zip", error)) from None


def copied(stream: io.BufferedReader) -> IO[bytes]:
    """Return what is left of a stream as a temporary file, which can be read in any order.

    Raises
    ------
    SourceFault
        It would take more than half of what is free on the disk of temporary files, as a packed file of zeros can.
    """
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    left = shutil.disk_usage(tempfile.gettempdir()).free // 2
    while piece := stream.read(BUFFER):
        left -= len(piece)
        if left < 0:
            copy.close()
            raise SourceFault(
                f"takes more than half of the free disk space in {tempfile.gettempdir()} when it is unpacked. Unpack "
                "it yourself, or set TMPDIR to a folder with more space."
            )
        copy.write(piece)
    copy.seek(0)
    return copy


class _Unpacked(io.RawIOBase):
    """A decompressor as a raw stream: whatever goes wrong in it is a SourceFault."""

    def __init__(self, file: Any, compression: str) -> None:
        self.file, self.compression = file, compression

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read(len(buffer))
        except EOFError:
            raise SourceFault(CUT.format(self.compression)) from None
        except (OSError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise SourceFault(DAMAGED.format(self.compression, error)) from None
        buffer[: len(data)] = data
        return len(data)


class _Rewound(io.RawIOBase):
    """A stream of which the first bytes were read already; they come again, and what broke it then breaks it again."""

    def __init__(self, head: bytes, rest: io.BufferedReader, fault: OSError | UnicodeError | None) -> None:
        self.head, self.rest, self.fault = head, rest, fault
        self.limited = False  # whether a line of more than LINE_LIMIT bytes is a fault
        self.unended = 0  # bytes since the last line end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.head:
            data, self.head = self.head[: len(buffer)], self.head[len(buffer) :]
        elif self.fault is not None:
            raise self.fault
        else:
            data = self.rest.read(len(buffer))
        buffer[: len(data)] = data
        if self.limited:
            end = data.rfind(b"\n")
            self.unended = len(data) - end - 1 if end >= 0 else self.unended + len(data)
            if self.unended > LINE_LIMIT:
                raise LineFault(
                    f"more than {LINE_LIMIT >> 20} MiB in one line, which is no record. Is this the right file?"
                )
        return len(data)


def _peeked(raw: io.BufferedReader, stack: contextlib.ExitStack) -> tuple[io.BufferedReader, bytes, bool]:
    """Return a stream with the same bytes, the first of them, and whether these are all."""
    pieces: list[bytes] = []
    size, fault = 0, None
    try:
        while size < HEAD and (piece := raw.read1(HEAD - size)):
            pieces.append(piece)
            size += len(piece)
    except (OSError, UnicodeError) as error:
        fault = error
    head = b"".join(pieces)
    return stack.enter_context(io.BufferedReader(_Rewound(head, raw, fault), BUFFER)), head, size < HEAD


def _as_utf8(
    stream: io.BufferedReader, head: bytes, whole: bool, encoding: str, reading: Reading, stack: contextlib.ExitStack
) -> tuple[io.BufferedReader, bytes, bool]:
    if encoding in ("utf-8", "utf-8-sig"):
        unmarked = utf16_without_mark(head) if reading.encoding is None else None
        if unmarked:
            raise SourceFault(f"looks like UTF-16 without a byte order mark. Use --encoding {unmarked}.")
        if encoding == "utf-8-sig":
            mark = stream.read(3)
            head = head[len(mark) :]
    else:
        stream = stack.enter_context(io.BufferedReader(Transcoder(stream, encoding), BUFFER))
        stream, head, whole = _peeked(stream, stack)
    if b"\r" in head.strip() and b"\n" not in head:
        stream, head, whole = _peeked(stack.enter_context(io.BufferedReader(_NewLines(stream), BUFFER)), stack)
    return stream, head, whole


class _NewLines(io.RawIOBase):
    """A text whose lines end as on old Macintoshes, with line ends as elsewhere."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)


def read_fault(error: Exception) -> str:
    """Return why a source cannot be read, as a sentence that follows its name."""
    if isinstance(error, FileNotFoundError):
        return "no such file. Check the path."
    if isinstance(error, SourceFault):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f"not {error.encoding}: byte 0x{byte:02x} ({error.reason}). Correct --encoding."
    if isinstance(error, UnicodeError):
        return f"cannot be decoded: {error}. Correct --encoding."
    return f"cannot be read: {getattr(error, 'strerror', None) or error}."
