"""Signatures: what a file is, by its first bytes, and what to do with those that hold no records."""

from __future__ import annotations

import re

__all__ = ["foreign_kind", "packed_as", "table_kind"]

PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}  # fmt: skip
TABLES = {b"PAR1": "parquet", b"ARROW1\x00\x00": "arrow", b"\xff\xff\xff\xff": "arrow stream"}

SAVE = "Save the table as CSV, with a header."
FOREIGN = {
    b"SQLite format 3\x00": ("a SQLite database", "Export the table as CSV or Parquet."),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", SAVE),
    b"\x93NUMPY": ("a NumPy array, which holds vectors and no records", "Give it where vectors are expected."),
    b"\x89HDF": ("an HDF5 file", "Write the table as Parquet or CSV."),
    b"ORC": ("an ORC file", "Write the table as Parquet."),
    b"Obj\x01": ("an Avro file", "Write the table as Parquet or JSON lines."),
    b"FEA1": ("a Feather file of version 1", "Write it again as Feather version 2 or Parquet."),
    b"RDX": ("an R data file", "Write the table as CSV or Parquet."),
    b"%PDF": ("a PDF", "Pass a table of records."),
    b"\x89PNG": ("an image", "Pass a table of records."),
    b"\xff\xd8\xff": ("an image", "Pass a table of records."),
    b"GIF8": ("an image", "Pass a table of records."),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "Unpack it first."),
    b"Rar!": ("a RAR archive", "Unpack it first."),
    b"\x04\x22\x4d\x18": ("packed with lz4", "Unpack it first, e.g. lz4 -d FILE."),
    b"\x7fELF": ("a program", "Pass a table of records."),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "Fetch the file: git lfs pull."),
}
PICKLE = re.compile(rb"\x80[\x02-\x05][\x95\x8a}\](cX]")  # protocol 2 to 5, and the first instruction
PAGE = re.compile(rb"\s*(<!doctype html|<html|<head)", re.IGNORECASE)
XML = re.compile(rb"\s*<\?xml", re.IGNORECASE)
TAR = 257  # where "ustar" stands


def packed_as(head: bytes) -> str | None:
    """Return how a file is packed, by its first bytes.

    >>> packed_as(b"BZh91AY"), packed_as(b"{}")
    ('bzip2', None)
    """
    return next((kind for magic, kind in PACKED.items() if head.startswith(magic)), None)


def table_kind(head: bytes) -> str | None:
    """Return whether a file holds columns: "parquet", "arrow" or "arrow stream"."""
    return next((kind for magic, kind in TABLES.items() if head.startswith(magic)), None)


def foreign_kind(head: bytes) -> str | None:
    """Return what a file without records is and what to do, as a message; None if it may hold records.

    >>> foreign_kind(b"%PDF-1.7")
    'is a PDF. Pass a table of records.'
    """
    for magic, (what, fix) in FOREIGN.items():
        if head.startswith(magic):
            return f"is {what}. {fix}"
    if PICKLE.match(head):
        return "is a Python pickle, which may run code when it is read. Write the table as CSV, JSON lines or Parquet."
    if PAGE.match(head):
        return "looks like a web page. Was the download redirected? Download the file itself."
    if XML.match(head):
        return "is XML. Write the table as CSV or JSON lines."
    if head[TAR : TAR + 5] == b"ustar":
        return "is a tar archive. Unpack it, and pass one of its files."
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "is an image. Pass a table of records."
    return None
