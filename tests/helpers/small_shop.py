"""A small shop whose IDs come from ready vectors, so that learning takes no time: for tests that change artifacts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from semid.artifact import store as artifact
from semid.tokenizer import SemanticIDTokenizer

DIM = 4


def names(count: int, first: int = 0) -> list[str]:
    """Item ids."""
    return [f"i{number:04d}" for number in range(first, first + count)]


def records(item_ids: Iterable[str], text: str = "thing") -> list[dict[str, str]]:
    """The items as a source for `fit` and `add`."""
    return [{"id": item_id, "title": f"{text} {item_id}"} for item_id in item_ids]


def vectors(item_ids: Iterable[str]) -> np.ndarray:
    """float32 [N, 4]: of an item always the same."""
    seeds = [zlib.crc32(item_id.encode()) for item_id in item_ids]
    return np.array([np.random.default_rng(seed).normal(size=DIM) for seed in seeds], np.float32).reshape(-1, DIM)


def learned(item_ids: list[str], *, levels: int = 3, codebook_size: int = 4) -> SemanticIDTokenizer:
    """Semantic IDs for these items."""
    return SemanticIDTokenizer.fit(
        records(item_ids),
        embeddings=vectors(item_ids),
        method="rqkmeans",
        levels=levels,
        codebook_size=codebook_size,
    )


def write_source(folder: Path, stem: str, item_ids: list[str]) -> tuple[Path, Path]:
    """The items and their vectors as files: `stem`.jsonl and `stem`.npy."""
    items, ready = folder / f"{stem}.jsonl", folder / f"{stem}.npy"
    items.write_text("".join(json.dumps(record) + "\n" for record in records(item_ids)))
    np.save(ready, vectors(item_ids))
    return items, ready


def contents(folder: Path) -> dict[str, bytes]:
    """File name -> bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def faults(folder: Path, *, tables: bool = True) -> list[str]:
    """All that is wrong with an artifact; without `tables`, but for the tables for people."""
    found = [line for line in artifact.verify(folder) if tables or ".tsv: " not in line]
    ids = SemanticIDTokenizer.from_pretrained(folder)
    return found + ids.ledger.check(ids.sizes)
