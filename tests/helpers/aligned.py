"""A small artifact with unmistakable titles, and alignment data read back: shared by the tests of `write_alignment`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from semid.ledger.ledger import Ledger
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.vocabulary import Vocabulary

SIZES = (3, 4, 5)
N_ITEMS = 30


def title(item_id: str) -> str:
    """No title is part of another."""
    return f"[the {item_id} thing]"


@cache
def catalog(retired: tuple[str, ...] = ()) -> SemanticIDTokenizer:
    """30 items i0 ... i29 with titles as texts; nothing learned."""
    codes = np.stack(np.unravel_index(np.arange(0, 2 * N_ITEMS, 2), SIZES), axis=1)
    names = [f"i{row}" for row in range(N_ITEMS)]
    ledger = Ledger.create(names, codes, list(map(title, names)))
    return SemanticIDTokenizer(
        config=None,
        vocabulary=Vocabulary(SIZES),
        ledger=ledger.retire(retired) if retired else ledger,
        learned=None,
        encoder_state=({}, {"kind": "none"}),
        provenance={},
    )


ITEMS = [{"id": f"i{n}", "title": title(f"i{n}"), "description": f"words on number {n}."} for n in range(N_ITEMS)]


def histories(*rows: Sequence[int]) -> list[dict]:
    return [{"user": f"u{user}", "items": [f"i{row}" for row in one]} for user, one in enumerate(rows) if one]


def records(folder: Path, split: str = "train", task: str = "*") -> Iterator[dict]:
    for path in sorted(Path(folder).glob(f"{task}/{split}*.jsonl")):
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def texts(record: dict) -> tuple[str, str]:
    """Prompt and completion of a record in TRL's form."""
    return record["prompt"][-1]["content"], record["completion"][0]["content"]


def items_in(text: str) -> set[str]:
    """Items that a text names, by ID or by title."""
    ids = catalog()
    found = {parsed.item_id for parsed in ids.parse(text) if parsed.item_id}
    return found | {item for item in ids.item_ids if title(item) in text}
