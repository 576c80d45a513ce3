"""Sets as other systems prepare them: RecBole's atomic files, LC-Rec's JSON files, MiniOneRec's tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from semid.data import read_interactions, read_items
from semid.datasets.dataset import Dataset
from semid.datasets.files import Files
from semid.files import Reading, iter_records

__all__ = ["lcrec", "minionerec", "recbole"]

SPLITS = ("train", "valid", "test")


def recbole(files: Files) -> Dataset:
    """RecBole: `X.item` and `X.inter`, with typed headers."""
    items = read_items(files.of_items("*.item"), id_field="item_id")
    for path in files.of_interactions("{part}.inter"):
        return Dataset(items, read_interactions(path))
    return Dataset(items)


def lcrec(files: Files) -> Dataset:
    """LC-Rec, LETTER and others of the family: `X.item.json` and `X.inter.json`, by the numbers of items and users."""
    items = read_items(files.of_items("*.item.json"))
    for path in files.of_interactions("{part}.inter.json"):
        return Dataset(items, read_interactions(path))
    return Dataset(items)


def minionerec(files: Files) -> Dataset:
    """MiniOneRec: `X.item.json`, or the titles in `info/X.txt`, and the tables of its three splits, joined again."""
    path = files.of_items("*.item.json", "*.txt")
    if path.name.endswith(".json"):
        items = read_items(path)
    else:
        columns = ("semantic_id", "title", "item_id")
        items = read_items(path, text="title", id_field="item_id", delimiter="tab", columns=columns)
    tables = {table.parent.name: table for table in files.of_interactions("{part}.csv", "{part}_*.csv")}
    if not tables:
        return Dataset(items)
    paths = [tables.pop(split) for split in SPLITS if split in tables] or list(tables.values())
    log = read_interactions(_histories(paths))
    return Dataset(items, replace(log, source=str(paths[0].parent.parent)))


def _histories(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows of several tables: a user, an item, and the items before it."""
    for path in paths:
        for _, row in iter_records(path, reading=Reading(delimiter=",")):
            yield {name: row[name] for name in ("user_id", "history_item_id", "item_id") if name in row}
