"""Folders: the files that together are one data set, and in which order they are read."""

from __future__ import annotations

import json
import os
import re

from semid.files.problems import name_list
from semid.files.sources import SourceFault

__all__ = ["PACKING", "files_of", "shards"]

NO_SHARD = re.compile(r"[._].*|.*\.(crc|md|lock|part)|readme.*|licen[cs]e.*|dataset_infos?\.json|state\.json", re.I)
FORMATS = {"ndjson": "jsonl", "pq": "parquet", "ipc": "arrow", "arrows": "arrow"}
PACKING = re.compile(r"\.(gz|bz2|xz|zst|zip)$", re.IGNORECASE)
SPLIT = re.compile(r"(train|test|valid|validation|val|dev)(?=[-_.\d])", re.IGNORECASE)
NATURAL = re.compile(r"(\d+)")


def files_of(folder: str) -> list[str]:
    """Return the files of a folder in order: those that `datasets` lists in its `state.json`, or all shards."""
    state = os.path.join(folder, "state.json")
    if os.path.isfile(state):
        try:
            with open(state, encoding="utf-8") as file:
                return [os.path.join(folder, one["filename"]) for one in json.load(file)["_data_files"]]
        except (ValueError, KeyError, TypeError):
            pass  # some other state
    return shards(folder)


def shards(folder: str) -> list[str]:
    """Return the files of a folder that together are one data set, `part-2` before `part-10`.

    Raises
    ------
    SourceFault
        The folder holds no readable file, files of several formats, or several splits.
    """
    names = sorted(os.listdir(folder), key=_natural)
    if "dataset_dict.json" in names:
        splits = [name for name in names if os.path.isdir(os.path.join(folder, name))]
        shown = " or ".join(os.path.join(folder, split) for split in splits)
        raise SourceFault(f"holds the splits {name_list(splits)}. Pass one of them: {shown}.")
    files = [name for name in names if not NO_SHARD.fullmatch(name) and os.path.isfile(os.path.join(folder, name))]
    if not files:
        folders = [name for name in names if os.path.isdir(os.path.join(folder, name)) and name[0] not in "._"]
        below = f" It holds the folders {name_list(folders)}; pass one of them." if folders else ""
        raise SourceFault(f"is a folder without a file of records.{below or ' Pass a file, or a folder of shards.'}")
    formats = {_format(name) for name in files}
    if len(formats) > 1:
        raise SourceFault(f"holds files of several formats ({name_list(sorted(formats))}). Pass one of its files.")
    parts = {match[1].lower() for name in files if (match := SPLIT.match(name))}
    if len(parts) > 1:
        raise SourceFault(f"holds several splits ({name_list(sorted(parts))}). Pass the files of one of them.")
    return [os.path.join(folder, name) for name in files]


def _format(name: str) -> str:
    suffix = os.path.splitext(PACKING.sub("", name.lower()))[1].removeprefix(".")
    return FORMATS.get(suffix, suffix) or "no suffix"


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts part-2 before part-10.

    >>> sorted(["part-10", "part-2"], key=_natural)
    ['part-2', 'part-10']
    """
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in NATURAL.split(name)]
