"""One catalog and one log come back equal from every format: ids, text, histories and times."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from semid.data import read_interactions, read_items
from semid.data.values import clean_text
from tests.helpers.record_formats import (
    BREAKS,
    FORMATS,
    Format,
    Records,
    arrow,
    by_key,
    joined,
    json_lines,
    parquet,
    separated,
)

# ---- One small catalog, one small log

ODD = st.sampled_from(
    ["007", "1e5", "NA", "nan", "null", '"', "'", ",;", "a\tb", "x\r\ny", "Ö\u00a0ß", "\ufeff", "日本", "a::b|c"]
)
TEXT = st.one_of(ODD, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
ROWS = st.lists(
    st.tuples(TEXT, st.text(st.characters(exclude_categories=["Cs"]), max_size=12), TEXT), min_size=1, max_size=6
)
EVENTS = st.lists(
    st.tuples(TEXT, TEXT, st.integers(0, 2**40)), min_size=1, max_size=12, unique_by=lambda event: event[2]
)
HARD = [("007", 'Ann "the" lamp, new; red', "O'Hara"), ("b\nc", "l'été", "Lux|Ö"), ("1e5", "", "NA")]
LOG = [("u,1", "007", 30), ("u,1", "b\nc", 20), ("nan", "1e5", 10), ("u,1", "007", 5)]
some = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors])


def catalog(rows: list[tuple[str, str, str]], form: Format) -> Records:
    kept = {form.fits(row[0]): row for row in rows}
    return [
        {"id": key, "title": form.fits(title), "brand": form.fits(brand)} for key, (_, title, brand) in kept.items()
    ]


def log(events: list[tuple[str, str, int]], form: Format) -> Records:
    return [{"user": form.fits(user), "item": form.fits(item), "time": time} for user, item, time in events]


def check_items(source: object, records: Records, **options: Any) -> None:
    items = read_items(source, text="title,brand", on_warning=str, **options)
    assert items.ids == [record["id"] for record in records]
    for name in ("title", "brand"):
        assert items.fields[name] == [clean_text(record[name]) for record in records]


def histories(records: Records) -> dict[str, list[str]]:
    """Return what a log says, oldest first."""
    found: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda record: record["time"]):
        found.setdefault(record["user"], []).append(record["item"])
    return found


def check_log(source: Path, records: Records, **options: Any) -> None:
    read = read_interactions(source, **options)
    assert dict(read) == histories(records)
    assert sorted(read.require_times()) == sorted(record["time"] for record in records)


def in_a_file(name: str, data: bytes, check: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        check(path)


@pytest.mark.parametrize("name", FORMATS)
@some
@given(rows=ROWS)
@example(rows=HARD)
def test_a_catalog_comes_back(name, rows):
    form = FORMATS[name]
    records = catalog(rows, form)
    in_a_file(form.name, form.write(records), lambda path: check_items(path, records, **form.options(records)))


@pytest.mark.parametrize("name", FORMATS)
@some
@given(events=EVENTS)
@example(events=LOG)
def test_a_log_comes_back(name, events):
    form = FORMATS[name]
    records = log(events, form)
    in_a_file(form.name, form.write(records), lambda path: check_log(path, records, **form.options(records)))


# ---- Formats of catalogs or of logs alone


@some
@given(rows=ROWS)
@example(rows=HARD)
def test_one_object_by_id_comes_back(rows):
    """LC-Rec's `.item.json`."""
    records = catalog(rows, FORMATS["json lines"])
    in_a_file("a.item.json", by_key(records), lambda path: check_items(path, records))


@some
@given(rows=ROWS)
@example(rows=HARD)
def test_a_recbole_catalog_comes_back(rows):
    form = Format("a.item", joined("\t", (":token", ":token_seq", ":token_seq")), without='\t"' + BREAKS)
    records = [{"item_id": record.pop("id"), **record} for record in catalog(rows, form)]
    wanted = [{"id": record["item_id"], "title": record["title"], "brand": record["brand"]} for record in records]
    in_a_file("a.item", form.write(records), lambda path: check_items(path, wanted, id_field="item_id"))


@some
@given(events=EVENTS)
@example(events=LOG)
def test_a_recbole_log_comes_back(events):
    form = Format("a.inter", joined("\t", (":token", ":token", ":float")), without='\t"' + BREAKS)
    records = log(events, form)
    renamed = [{"user_id": r["user"], "item_id": r["item"], "timestamp": r["time"]} for r in records]
    in_a_file("a.inter", form.write(renamed), lambda path: check_log(path, records))


@some
@given(events=EVENTS)
@example(events=LOG)
def test_one_object_by_user_comes_back(events):
    """LC-Rec's `.inter.json`."""
    found = histories(log(events, FORMATS["json lines"]))

    def check(path: Path) -> None:
        assert dict(read_interactions(path)) == found

    in_a_file("a.inter.json", json.dumps(found).encode(), check)


WORD = st.builds("{}{}".format, st.sampled_from(["", "i", "é", "0", "B-"]), st.integers(0, 999))  # each with a digit


@some
@given(found=st.dictionaries(WORD, st.lists(WORD, min_size=1, max_size=5), min_size=2, max_size=5))
@example(found={"1": ["05", "6", "7"], "2": ["6", "7"]})
def test_lines_of_a_user_and_items_come_back(found):
    if len({len(items) for items in found.values()}) < 2:
        found[min(found)].append("99999")  # lines of one width are a table
    data = "".join(" ".join([user, *items]) + "\n" for user, items in found.items()).encode()

    def check(path: Path) -> None:
        assert dict(read_interactions(path)) == found

    in_a_file("a.txt", data, check)


# ---- Folders

SHARDS = {"jsonl": json_lines, "csv": separated(","), "parquet": parquet, "arrow": arrow(pa.ipc.new_stream)}


@pytest.mark.parametrize("suffix", SHARDS)
@some
@given(rows=ROWS, events=EVENTS)
@example(rows=HARD, events=LOG)
def test_shards_come_back_in_the_order_of_their_numbers(suffix, rows, events):
    form = FORMATS["json lines"]
    for records, check in ((catalog(rows, form), check_items), (log(events, form), check_log)):
        with tempfile.TemporaryDirectory() as folder:
            middle = (len(records) + 1) // 2
            for number, part in ((2, records[:middle]), (10, records[middle:])):
                if part:
                    Path(folder, f"part-{number}.{suffix}").write_bytes(SHARDS[suffix](part))
            Path(folder, "_SUCCESS").touch()
            check(Path(folder), records)


@settings(some, max_examples=5)
@given(rows=ROWS, events=EVENTS)
@example(rows=HARD, events=LOG)
def test_a_data_set_saved_to_disk_comes_back(rows, events):
    datasets = pytest.importorskip("datasets")
    form = FORMATS["json lines"]
    for records, check in ((catalog(rows, form), check_items), (log(events, form), check_log)):
        with tempfile.TemporaryDirectory() as folder:
            datasets.Dataset.from_list(records).save_to_disk(Path(folder, "saved"))
            check(Path(folder, "saved"), records)
