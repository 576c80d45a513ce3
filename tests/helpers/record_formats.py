"""Records in every format that semid reads: how a file of each is written, and what cannot stand in it."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

Records = list[dict[str, Any]]


# ---- Writers: records, all with the same keys, to the bytes of a file


def json_lines(records: Records) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def by_key(records: Records) -> bytes:
    """One object: the first field of each record is the key of the others."""
    whole: dict[str, dict[str, Any]] = {}
    for record in records:
        key, *rest = record
        whole[record[key]] = {name: record[name] for name in rest}
    return json.dumps(whole).encode()


def python_lines(records: Records) -> bytes:
    return "".join(f"{record!r}\n" for record in records).encode()


def separated(delimiter: str, encoding: str = "utf-8", header: bool = True) -> Callable[[Records], bytes]:
    """As the csv module writes it, cells quoted where they need it."""

    def write(records: Records) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter)
        writer.writerows([list(records[0])] * header + [list(record.values()) for record in records])
        return text.getvalue().encode(encoding)

    return write


def joined(delimiter: str, types: tuple[str, ...] = (), header: bool = True) -> Callable[[Records], bytes]:
    """Cells as they are, without quotes; `types` follow the names of the header."""

    def write(records: Records) -> bytes:
        names = [name + kind for name, kind in zip(records[0], types or [""] * len(records[0]), strict=True)]
        rows = [names] * header + [[str(cell) for cell in record.values()] for record in records]
        return "".join(delimiter.join(row) + "\n" for row in rows).encode()

    return write


def table(records: Records) -> pa.Table:
    return pa.Table.from_pylist(records)


def parquet(records: Records) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table(records), sink, row_group_size=2)
    return sink.getvalue()


def arrow(opened: Callable[..., Any]) -> Callable[[Records], bytes]:
    def write(records: Records) -> bytes:
        sink, rows = io.BytesIO(), table(records)
        with opened(sink, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=2)
        return sink.getvalue()

    return write


def feather(records: Records) -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(table(records), sink)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def zipped(data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.csv", data)
    return sink.getvalue()


# ---- Formats: the name of a file, how it is written, what cannot stand in it, what must be said


@dataclass(frozen=True)
class Format:
    name: str
    write: Callable[[Records], bytes]
    without: str = ""  # characters that the format has no room for
    encoding: str = "utf-8"  # which has no room for others
    said: dict[str, Any] = field(default_factory=dict)  # options; `columns` are those of the records
    headed: bool = True

    def fits(self, text: str) -> str:
        """Return a text with "x" for every character that the format has no room for."""
        text = text.encode(self.encoding, "replace").decode(self.encoding)
        return "".join("x" if char in self.without else char for char in text)

    def options(self, records: Records) -> dict[str, Any]:
        return self.said | ({} if self.headed else {"columns": tuple(records[0])})


SIGNS = ",;|:\t\"'\r\n"  # with none of them in a cell, the delimiter shows in the first lines
BREAKS = "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # what Python calls the end of a line
MARK = "\ufeff"  # at the beginning of a file it is no part of the first cell
FORMATS = {
    "json lines": Format("a.jsonl", json_lines),
    "json lines, another name": Format("a.data", json_lines),
    "json array": Format("a.json", lambda records: json.dumps(records).encode()),
    "json array, indented": Format("a.json", lambda records: json.dumps(records, indent=2).encode()),
    "python lines": Format("a.json", python_lines),
    "csv": Format("a.csv", separated(",")),
    "csv, no header": Format("a.csv", separated(",", header=False), MARK, headed=False, said={"delimiter": "comma"}),
    "tsv": Format("a.tsv", separated("\t")),
    "semicolons": Format("a.csv", separated(";"), said={"delimiter": ";"}),
    "semicolons, found": Format("a.csv", separated(";"), without=SIGNS),
    "pipes": Format("a.txt", separated("|"), said={"delimiter": "pipe"}),
    "pipes, found": Format("a.txt", separated("|"), without=SIGNS),
    "double colons": Format("a.dat", joined("::"), without=':"' + BREAKS, said={"delimiter": "::"}),
    "double colons, no header": Format(
        "a.dat", joined("::", header=False), without=MARK + ':"' + BREAKS, said={"delimiter": "::"}, headed=False
    ),
    "utf-8 with a mark": Format("a.csv", separated(",", "utf-8-sig")),
    "utf-16": Format("a.csv", separated(",", "utf-16")),
    "latin-1": Format("a.csv", separated(",", "latin-1"), encoding="latin-1", said={"encoding": "latin-1"}),
    "gzip": Format("a.csv.gz", lambda records: gzip.compress(separated(",")(records))),
    "bzip2": Format("a.jsonl.bz2", lambda records: bz2.compress(json_lines(records))),
    "xz": Format("a.csv.xz", lambda records: lzma.compress(separated(",")(records))),
    "zstd": Format("a.jsonl.zst", lambda records: zstd(json_lines(records))),
    "zip": Format("a.zip", lambda records: zipped(separated(",")(records))),
    "gzip, another name": Format("a", lambda records: gzip.compress(json_lines(records))),
    "parquet": Format("a.parquet", parquet),
    "parquet, another name": Format("a.bin", parquet),
    "arrow stream": Format("a.arrow", arrow(pa.ipc.new_stream)),
    "arrow file": Format("a.arrow", arrow(pa.ipc.new_file)),
    "feather": Format("a.feather", feather),
}
