"""Encodings: bytes as UTF-8, by byte order mark or by the caller's word.

Latin-1 reads any bytes, so it is never guessed; the message about bytes that are not UTF-8 names it.
"""

from __future__ import annotations

import codecs
import io
from typing import Any

__all__ = ["Transcoder", "encoding_of", "not_utf8", "utf16_without_mark"]

MARKS = {  # UTF-32 before UTF-16, whose mark its own begins with
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
CHUNK = 1 << 20
CP1252 = frozenset(range(0x80, 0xA0)) - {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # curly quotes and such, which Latin-1 lacks


def encoding_of(head: bytes, given: str | None) -> str:
    """Return the encoding of a file by its byte order mark, unless the caller gives one; else "utf-8".

    A UTF-8 file with a mark is "utf-8-sig", also where UTF-8 is given.

    >>> encoding_of("x".encode("utf-16"), None), encoding_of(b"x", None), encoding_of(b"x", "latin1")
    ('utf-16', 'utf-8', 'iso8859-1')
    """
    marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")
    if given is None:
        return marked
    name = codecs.lookup(given).name
    return marked if name == "utf-8" and marked == "utf-8-sig" else name


def utf16_without_mark(head: bytes) -> str | None:
    """Return "utf-16-le" or "utf-16-be" for ASCII text in UTF-16 without a mark; None otherwise.

    >>> utf16_without_mark("id,title".encode("utf-16-le"))
    'utf-16-le'
    """
    pairs = len(head[:1024]) // 2
    odd, even = head[1:1024:2].count(0), head[0:1024:2].count(0)
    if pairs >= 2 and max(odd, even) >= 0.7 * pairs and min(odd, even) <= 0.1 * pairs:
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def not_utf8(error: UnicodeDecodeError) -> str:
    """Return the message about bytes that are not UTF-8."""
    byte = error.object[error.start]
    likely = "cp1252" if any(value in CP1252 for value in error.object) and _reads(error.object) else "latin-1"
    return f"not UTF-8: byte 0x{byte:02x}. Name the encoding, e.g. --encoding {likely}."


def _reads(data: bytes) -> bool:
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


class Transcoder(io.RawIOBase):
    """A stream of bytes in another encoding, read as UTF-8.

    Bytes that do not fit raise UnicodeError, after all that comes before them was read.
    """

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.waiting = b""
        self.fault: UnicodeError | None = None
        self.ended = False

    def readable(self) -> bool:
        """Return True: it is read, never written."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with UTF-8 and return the number of bytes; 0 at the end."""
        while not self.waiting:
            if self.fault is not None:
                raise self.fault
            if self.ended:
                return 0
            self.waiting = self._next().encode("utf-8")
        size = min(len(buffer), len(self.waiting))
        buffer[:size], self.waiting = self.waiting[:size], self.waiting[size:]
        return size

    def _next(self) -> str:
        data = self.stream.read(CHUNK)
        self.ended = not data
        before = self.decoder.getstate()
        try:
            return self.decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            self.fault = error
            self.decoder.setstate(before)
            pending = len(error.object) - len(data)  # bytes of a character that the last chunk began
            return self.decoder.decode(data[: max(error.start - pending, 0)])
        except UnicodeError as error:  # such as UTF-16 without a mark
            self.fault = error
            return ""
