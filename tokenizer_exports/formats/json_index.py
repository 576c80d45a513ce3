"""Catalogs as one JSON object, one entry per line: LC-Rec's index and FlashRec's catalog.

    {"B001": ["<a_5>", "<b_0>"],        LC-Rec, LETTER, MiniOneRec: `*.index.json`
    {"5,0": "B001",                     FlashRec 0.1.2: `--sid-vocab-file`, whose name must end in .json

Not here: reading an index (`semid/data/index_files.py`, `importer.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from semid.errors import ConfigError
from semid.tokenizer_exports.formats.live_items import live_blocks
from semid.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["flashrec_blocks", "flashrec_notes", "lcrec_blocks", "lcrec_notes"]

LCREC_LEVELS = 5  # LC-Rec's scripts have names for the levels a to e
FLASHREC_TOKENS = 5  # FlashRec's default for --max-tokens; a whole ID of L codes needs L + 2


def lcrec_blocks(ids: SemanticIDTokenizer) -> Iterator[bytes]:
    """Yield the bytes of an index in LC-Rec's tokens, whatever the artifact's own look like."""
    vocabulary = Vocabulary(ids.sizes, "lcrec")
    quoted = [json.dumps(token) for token in vocabulary.tokens]
    tables = [quoted[start:stop] for start, stop in zip(vocabulary.offsets, vocabulary.offsets[1:], strict=False)]

    def entries() -> Iterator[Iterable[str]]:
        for items in live_blocks(ids):
            columns = [map(table.__getitem__, items.codes[:, level].tolist()) for level, table in enumerate(tables)]
            yield (
                f"{json.dumps(item_id)}: [{', '.join(tokens)}]"
                for item_id, tokens in zip(items.item_ids, zip(*columns, strict=True), strict=True)
            )

    return _json_object(entries())


def lcrec_notes(ids: SemanticIDTokenizer) -> list[str]:
    """Return notes on what LC-Rec's own scripts cannot read in the index."""
    if len(ids.sizes) <= LCREC_LEVELS:
        return []
    last = Vocabulary(ids.sizes, "lcrec").token(len(ids.sizes) - 1, 0)
    return [f"LC-Rec's own scripts name five levels, a to e; these IDs have {len(ids.sizes)}, the last like {last}."]


def flashrec_blocks(ids: SemanticIDTokenizer) -> Iterator[bytes]:
    """Yield the bytes of a catalog. FlashRec reads only the keys; the item ids serve to map its answers back."""

    def entries() -> Iterator[Iterable[str]]:
        for items in live_blocks(ids):
            yield (
                f'"{",".join(map(str, row))}": {json.dumps(item_id)}'
                for item_id, row in zip(items.item_ids, items.codes.tolist(), strict=True)
            )

    return _json_object(entries())


def flashrec_notes(ids: SemanticIDTokenizer, base: int | None) -> list[str]:
    """Return the flags to pass to FlashRec, following its sid_layout.py and config.py, version 0.1.2.

    Raises
    ------
    ConfigError
        FlashRec could not read the catalog.
    """
    sizes, vocabulary = ids.sizes, ids.vocabulary
    if len(sizes) == 1:
        raise ConfigError(
            "levels=1: FlashRec reads a key without commas as a packed number. It needs 2 levels or more."
        )
    notes, flags = [], []
    if Vocabulary(sizes, "onerec").tokens != vocabulary.tokens:
        notes.append(
            f"FlashRec looks for tokens like <s_a_0> and markers <|sid_begin|>, <|sid_end|> after them; these are like "
            f"{vocabulary.token(0, 0)}. So it needs flags that locate them, and takes the two token ids after the "
            f"codes for its markers. IDs with --template onerec need no flags."
        )
    elif len(sizes) == 4:
        notes.append("Without flags, FlashRec takes keys of four codes for three codes and an end marker.")
    if base is not None:
        flags.append(_layout_flags(sizes, base))
    elif notes:
        notes.append("To get the flags, export again with --tokenizer FOLDER or --base N.")
    if len(sizes) + 2 > FLASHREC_TOKENS:
        flags.append(f"--max-tokens {len(sizes) + 2}")
    return [*notes, f"Pass to flashrec: {' '.join(flags)}"] if flags else notes


def _layout_flags(sizes: tuple[int, ...], base: int) -> str:
    first, last = base, base + sum(sizes) - 1
    listed = ",".join(map(str, sizes))
    if sizes[-1] == 2:  # in the short form a last size of 2 means the markers
        markers = f"{last + 1},{last + 2}"
        return f"--sid-token-range {first}:{last} --sid-codebook-sizes {listed} --sid-boundary-tokens {markers}"
    return f"--sid {first}:{last}/{listed}"


def _json_object(entries: Iterable[Iterable[str]]) -> Iterator[bytes]:
    """Yield one JSON object, one entry per line, from blocks of `"key": value` texts."""
    before = "{\n"
    for block in entries:
        if text := ",\n".join(block):
            yield (before + text).encode()
            before = ",\n"
    yield b"\n}\n"
