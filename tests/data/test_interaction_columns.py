"""Logs read by columns equal the same logs read by records: tables, messages, faults."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import logging
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semid.data import Interactions, interaction_columns, read_interactions
from semid.data.interaction_builder import interaction_order
from semid.data.interaction_columns import read_columns
from semid.errors import InputError
from semid.files import Problems, row_batches

untimed = settings(deadline=None, max_examples=300)
FIELDS = ("user_field", "item_field", "time_field")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.levelno, record.getMessage()))


def outcome(path: Path, by_columns: bool, names: dict[str, str]) -> list[object]:
    """Everything that a caller can see of a reading."""
    logger, lines = logging.getLogger("semid"), Lines()
    logger.addHandler(lines)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        if by_columns:
            found: object = read_interactions(path, **names)
        else:
            with mock.patch("semid.data.interaction_reader.read_columns", return_value=None):
                found = read_interactions(path, **names)
    except InputError as error:
        found = str(error)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    return [*table(found), lines.said]


def table(found: object) -> list[object]:
    if not isinstance(found, Interactions):
        return [found]
    faults: list[object] = []
    for require in (found.require_times, found.require_held_out):
        try:
            faults.append(require().tolist())
        except InputError as error:
            faults.append(str(error))
    dtypes = (found.offsets.dtype, found.items.dtype, None if found.times is None else found.times.dtype)
    rows = (found.offsets.tolist(), found.items.tolist())
    return [
        found.users,
        found.item_ids,
        *rows,
        *faults,
        dtypes,
        found.source,
        {k: f.total for k, f in found.faults.items()},
    ]


def both_alike(name: str, data: bytes, block: int = 1 << 20, **names: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        with mock.patch.object(row_batches, "BLOCK", block), mock.patch.object(interaction_columns, "GROUP", 3):
            columns = outcome(path, True, names)
        assert columns == outcome(path, False, names)


def is_fast(path: Path, **names: str) -> bool:
    fields = (names.get("user_field"), names.get("item_field"), names.get("time_field"))
    return read_columns(path, Problems.of(path), fields) is not None


int64 = st.integers(-(2**63), 2**63 - 1)


@untimed
@given(st.lists(st.tuples(st.integers(0, 2**20), int64 | st.integers(0, 3))))
@example([(0, 2**63 - 1), (0, -(2**63)), (1, 0), (0, 5)])
@example([(2**20, 2**43), (1, 0), (2**20, 1), (0, 2**43)])
def test_one_number_per_user_and_time_sorts_as_both_do(pairs):
    users = np.array([user for user, _ in pairs], np.int32)
    times = np.array([time for _, time in pairs], np.int64)
    assert interaction_order(users, times).tolist() == np.lexsort((times, users)).tolist()
    assert interaction_order(users, times / 2).tolist() == np.lexsort((times / 2, users)).tolist()
    assert interaction_order(users, None).tolist() == np.lexsort((users,)).tolist()


# ---- values


ids = st.sampled_from([
    "u", "v", "a", "b", "007", "7", "1e5", "NA", "nan", "null", "None", "", " a ", "é", "a,b", 'a"b', '"', "a\nb",
    "[1]", "\ufeff", "a\r", "日本", "x\x00", "<NA>", "-", "true",
])  # fmt: skip
plain_ids = st.sampled_from(["u", "v", "007", "7", "1e5", "NA", "nan", "null", "é", " a ", "a,b", "#x", "'q'"])
whole = st.integers(-(10**12), 10**12).map(str) | st.sampled_from(["007", "-0", "9223372036854775807"])
fractions = st.floats(-1e12, 1e12).map(repr) | st.sampled_from(["1.", ".5", "-.5", "1E5", "1e+05", "1e-400", "9" * 25])
dates = st.datetimes().map(str) | st.dates().map(str) | st.sampled_from([
    "2024-02-30", "2024-01-01T10:00:00Z", "2024-01-01 10:00", "2024-01-01 10:00:00.5", "0000-01-01", "0001-01-01",
    "9999-12-31 23:59:59.999999", "2024-01-01T24:00:00", "2024-01-01T23:59:60", "2024-01", "2024-01-01T10", "2024-1-1",
    "2024-01-01 10:00:00.1234567", "2024-01-01T10:00:00-05:00", "20240101T101010", "2024-01-01 ", "2024-01-01T10:00Z",
])  # fmt: skip
odd = st.sampled_from([
    "", "soon", "nan", "inf", "1e400", "0x1F", "1_000", " 7 ", "+5", "9223372036854775808", "-", "1e", "5-3", "--5",
    "1.2.3", "12:30:00", "2024/01/02", "01 2, 2020", ".", "e5", "1e301",
])  # fmt: skip
moments = st.datetimes().map(str)
times = st.sampled_from([
    whole, fractions, whole | fractions, moments, dates, whole | odd, moments | odd, whole | moments,
])  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """A header and rows, most of them sound."""
    columns = draw(st.sampled_from([
        ["user", "item", "time"], ["user_id", "item_id", "timestamp"], ["", "userId", "movieId", "rating", "date"],
        ["user", "item"], ["item", "time", "user"], ["user", "items", "time"], ["id", "user", "asin", "sku"],
        ["user", "history", "item"], ["user", "item", "n_valid", "n_test"], ["user", "item", "item"], ["a", "b", "c"],
        [" user", "item ", "time"], ["user", "item", "startTime", "endTime"],
    ]))  # fmt: skip
    cells = draw(st.sampled_from([plain_ids, plain_ids, plain_ids, ids]))
    spelt = draw(times)
    kinds = [spelt if any(word in name.lower() for word in ("time", "date")) else cells for name in columns]
    return columns, draw(st.lists(st.tuples(*kinds).map(list), min_size=draw(st.sampled_from([0, 3, 6])), max_size=12))


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A log as a file of rows, perhaps damaged."""
    header, rows = draw(logs())
    delimiter = draw(st.sampled_from([",", ",", ",", "\t", ";", "|"]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    if draw(st.integers(0, 3)):
        text = io.StringIO(newline="")
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([header, *rows])
        written = text.getvalue()
    else:
        written = "".join(delimiter.join(row) + end for row in [header, *rows])
    data = written.encode()
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(data)))
        damage = draw(st.sampled_from([b"\xff", b"\n", b"\r", b'"', b"\0", b",", b'""', b"\n\n"]))
        data = data[:place] + damage + data[place:]
    data = data[: len(data) - draw(st.sampled_from([0, 0, 0, 1, 3]))]
    data = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\n"])) + data
    suffix = draw(st.sampled_from([".csv", ".csv", ".tsv", ".txt", ".csv.gz"]))
    return f"log{suffix}", gzip.compress(data) if suffix.endswith("gz") else data


@untimed
@given(file=files(), block=st.sampled_from([90, 200, 1 << 20]), named=st.sampled_from([{}, {}, {"time_field": ""}]))
@example(file=("log.csv", b'user,item,x\nu,b,"1\nv,c",2\n'), block=1 << 20, named={})
@example(file=("log.csv", b'user,item,x\nu,b,"1\nv,c"",2\n'), block=40, named={})
@example(file=("log.csv", b"user,item,time\nu,a,1\r\nu,b,2\r\n"), block=1 << 20, named={})
@example(file=("log.csv", b"user,item,time\nu,a,1\n\nu,b,2\n"), block=1 << 20, named={})
def test_rows_read_by_columns_equal_rows_read_by_records(file, block, named):
    both_alike(*file, block=block, **named)


@untimed
@given(
    rows=st.sampled_from([whole.filter(lambda text: len(text) < 19), st.floats(-1e9, 1e9).map(repr), moments]).flatmap(
        lambda times: st.lists(st.tuples(plain_ids, plain_ids, times), min_size=2, max_size=20)
    ),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    block=st.sampled_from([150, 1 << 20]),
)
def test_sound_logs_are_read_by_columns_and_equal_those_read_by_records(rows, quoting, end, block):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([("user", "item", "time"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.csv")
        path.write_bytes(text.getvalue().encode())
        assert is_fast(path)
    both_alike("log.csv", text.getvalue().encode(), block=block)


@pytest.mark.parametrize("size", range(1, 40))
def test_the_place_where_blocks_end_changes_nothing(size):
    data = b'user,item,time\r\n"u","a""b",1\r\n"v","c,d",2\r\nu,"",3\r\n'
    both_alike("log.csv", data, block=size + 20)
    both_alike("log.csv", data.replace(b',"",', b',"x",'), block=size + 20)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_every_short_cell_is_read_alike(place, tmp_path):
    """Also in a column that is not read (3)."""
    for size in range(1, 5):
        for signs in itertools.product(b'a,"\n\r', repeat=size):
            rows = [[b"u", b"x", b"2", b"q"], [b"v", b"y", b"1", b"q"], [b"w", b"x", b"3", b"q"]]
            rows[1][place] = bytes(signs)
            data = b"\n".join(map(b",".join, [[b"user", b"item", b"time", b"other"], *rows]))
            path = tmp_path / "log.csv"
            path.write_bytes(data)
            if is_fast(path):
                assert outcome(path, True, {}) == outcome(path, False, {}), data


@pytest.mark.parametrize(
    "rows",
    [
        b"u,a,1\n\nv,b,2\n",
        b"u,a,1\nv,b,2\n\n",
        b"u,a,1\nv,b\x00,2\n",
        b"u,a,1\nv,b\xff,2\n",
        b"u,a,1\nv,b,2\n" * 20 + b"u,a,2020-01-01\n" * 20,
        b"u,a,1\nv,b,2\n" * 20 + b"u,a,soon\n",
        b"u,a,2020-01-01\n" * 20 + b"u,a,nan\n",
        b"u,a,9223372036854775807\n" * 9 + b"u,a,-9223372036854775808\nv,b,0\n",
        "u,é,1\nv,日本,2\n".encode() * 20,
        b'u,"a\n',
        b'u,"a",1\nv,"b',
        b'u,"a",1\nv,"b" ,2\n',
        b'u,"a",1\nv,"b"c,2\nu,b,3\n',
    ],
)
def test_odd_rows_are_read_alike_wherever_blocks_end(rows):
    for block in (*range(8, 44), 80, 1 << 20):
        both_alike("log.csv", b"user,item,time\n" + rows, block=block)


def test_bytes_that_are_not_utf8_are_found_in_columns_that_are_not_read(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"user,item,time,other\nu,a,1,x\nv,b,2,\xff\n")
    with pytest.raises(InputError, match="not UTF-8: byte 0xff"):
        read_interactions(tmp_path / "log.csv")


# ---- Parquet


COLUMNS = {
    "strings": pa.array(["u", "NA", "u", "é"]),
    "large": pa.array(["u", "NA", "u", "é"], pa.large_string()),
    "whole": pa.array([3, -1, 3, 2**40]),
    "small": pa.array([3, 1, 3, 2], pa.uint8()),
    "huge": pa.array([3, 1, 3, 2**64 - 1], pa.uint64()),
    "words": pa.array(["u", "v", "u", "w"]).dictionary_encode(),
    "numbered": pa.array([5, 6, 5, 7]).dictionary_encode(),
    "null": pa.array(["u", None, "u", "w"]),
    "empty": pa.array(["u", "", "u", "w"]),
    "fraction": pa.array([1.5, 0.25, 1.5, -3.0]),
    "single": pa.array(np.array([1.1, 0.25, 1.5, -3.0], np.float32)),
    "nan": pa.array([1.5, float("nan"), 1.5, 2.0]),
    "infinite": pa.array([1.5, float("inf"), 1.5, 2.0]),
    "bool": pa.array([True, False, True, True]),
    "dates": pa.array([3, -5, 9, 9], pa.date32()),
    "far": pa.array([3, -5, 10**7, 9], pa.date32()),
    "seconds": pa.array([3, -5, 9, 9], pa.timestamp("s")),
    "nanoseconds": pa.array([3, -5_000_001, 9_999, 10**18], pa.timestamp("ns")),
    "zone": pa.array([3, -5, 9, 9], pa.timestamp("ms", "Europe/Paris")),
    "clock": pa.array([3, 5, 9, 9], pa.time32("s")),
    "spelt": pa.array(["2024-01-02", "2024-01-01", "2023-01-01", "2024-01-01"]),
    "numerals": pa.array(["10", "9", "8", "8"]),
    "bytes": pa.array([b"u", b"\xff", b"u", b"v"]).view(pa.string()),
    "binary": pa.array([b"u", b"\xff", b"u", b"v"]),
    "lists": pa.array([["a"], ["b"], [], ["c"]]),
}

a_column = st.sampled_from(sorted(COLUMNS))


@untimed
@given(user=a_column, item=a_column, time=a_column, group=st.sampled_from([1, 3, 100]), timed=st.booleans())
@example(user="strings", item="whole", time="nanoseconds", group=3, timed=True)
@example(user="bytes", item="whole", time="whole", group=3, timed=True)
def test_parquet_read_by_columns_equals_parquet_read_by_records(user, item, time, group, timed):
    columns = {"user": COLUMNS[user], "item_id": COLUMNS[item], "rating": COLUMNS["fraction"]}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns | ({"ts": COLUMNS[time]} if timed else {})), sink, row_group_size=group)
    both_alike("log.parquet", sink.getvalue())


# ---- which logs are read by columns


@pytest.mark.parametrize(
    "times", [["10", "9", "8"], ["7.5", "1e3", "7"], ["2024-01-02", "2023-01-01 10:00:00", "2024-01-01T05:00:00.25"]]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plain_logs_are_read_by_columns(tmp_path, times, end):
    path = tmp_path / "log.csv"
    rows = [f'"u","NA",{times[0]}', f"v,007,{times[1]}", f'u,"a,""b""",{times[2]}']
    path.write_bytes(("\ufeff" + end.join(["user_id,item_id,timestamp", *rows])).encode())
    assert is_fast(path)
    read = read_interactions(path)
    assert (read.users, read.item_ids) == (["u", "v"], ["007", "NA", 'a,"b"'])
    assert read.history(0) == ['a,"b"', "NA"]


def test_plain_parquet_is_read_by_columns(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(
        pa.table({"user": [7, 7, 10], "item": ["b", "a", "b"], "time": pa.array([3, 1, 2], pa.timestamp("s"))}), path
    )
    assert is_fast(path)
    assert list(read_interactions(path)) == [("10", ["b"]), ("7", ["a", "b"])]


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "log.jsonl.gz", "none.csv"])
def test_other_files_are_read_by_records(tmp_path, name):
    if name.startswith("log"):
        (tmp_path / name).write_bytes(b'{"user": 1, "items": ["a"]}\n')
    assert not is_fast(tmp_path / name)


def test_rows_that_are_skipped_are_read_by_records(tmp_path):
    from semid.files.reading import Reading, RecordFile

    path = tmp_path / "log.csv"
    path.write_text("user,item,time\nu,a,1\n")
    source = RecordFile(path, Reading(skip_bad_rows=True))
    assert read_columns(source, Problems.of(source), (None, None, None)) is None
