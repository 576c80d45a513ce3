"""`import_index`: other systems' IDs as an artifact of ours, from an index file {item id: ["<a_12>", "<b_7>", ...]}.

LC-Rec, LETTER, MiniOneRec and MIMIGenRec write `<a_12>`, UniGenRec `<L0_12>`, META ID `<CT12><1007>`: any file in
which every level's tokens are one text around a number. The artifact has all that such a file says: which item has
which codes. It can be shown, judged, extended into a language model, decoded and exported. It has no codebooks and
no encoder, so it cannot give a vector or a new item its codes; asking raises an error that says so.

    read -> codes -> no collisions -> ledger

Items are put in the order of their ids, so the order of the file changes nothing.

Not here: reading the file (`semid/data/index_files.py`), writing one (`exporter.py`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.data.index_files import NUMBERED, IndexFile, read_index, read_json_object
from semid.data.items import Items, read_items
from semid.data.strings import PackedStrings
from semid.errors import ConfigError, InputError
from semid.ledger.ledger import Ledger
from semid.ledger.lookup import code_keys
from semid.state import IMPORTED
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.templates import TEMPLATES
from semid.tokens.vocabulary import MAX_SIZE, Vocabulary

__all__ = ["OnCollision", "import_index"]

log = logging.getLogger("semid")

OnCollision = Literal["error", "add-level"]
Say = Callable[[str], object]


def import_index(
    source: str | os.PathLike[str] | IndexFile,
    *,
    items: str | os.PathLike[str] | Items | None = None,
    template: str | None = None,
    sizes: Sequence[int] | int | None = None,
    on_collision: OnCollision = "error",
    say: Say = log.info,
) -> SemanticIDTokenizer:
    """An artifact from an index file.

    Parameters
    ----------
    items
        The catalog, for the items' text: Items, a file that `read_items` reads, or the `*.item.json` of LC-Rec and
        MiniOneRec, {item id: {"title": ..., ...}}.
    template
        How the artifact writes its tokens: a name or a pattern, see `Vocabulary`. By default as the file does.
    sizes
        Codes per level, K, or one number for all levels. The file shows only codes in use; by default a level gets
        the power of two that holds its highest code.
    on_collision
        What to do where items share an ID, since an artifact has one ID an item. "error" lists them; "add-level"
        appends a code to every ID, the item's place among those of its ID in the order of the item ids, as TIGER
        (arXiv 2305.05065) does. It has as many codes as needed. Without collisions nothing is appended.
    say
        Hears one line per step.

    Raises
    ------
    InputError
        Not an index file; IDs of several lengths; tokens without a number; items that share an ID; sizes that do not
        hold the codes.
    ConfigError
        A template or sizes that no vocabulary can have.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "shop.index.json"
    ...     _ = path.write_text('{"B2": ["<a_5>", "<b_0>"], "B1": ["<a_5>", "<b_12>"]}')
    ...     ids = import_index(path, sizes=256)
    >>> ids.tokens(["B1", "B2"]), ids.decode("<a_5><b_0>"), ids.sizes
    (['<a_5><b_12>', '<a_5><b_0>'], 'B2', (256, 256))
    """
    if on_collision not in get_args(OnCollision):
        raise ConfigError(f"on_collision={on_collision!r} should be one of {', '.join(get_args(OnCollision))}.")
    index = _sorted(source if isinstance(source, IndexFile) else read_index(source))
    _check_ids(index)
    own_template = _template_of(index)
    level_sizes, codes = _codes(index, own_template, sizes, with_added=on_collision == "add-level")
    say(f"read        {len(codes):,} items with {codes.shape[1]} codes, like {''.join(index.tokens[0])}")
    level_sizes, codes = _made_unique(index, codes, level_sizes, on_collision, say)
    vocabulary = Vocabulary(level_sizes, template or own_template)
    say(f"vocabulary  {' x '.join(map(str, level_sizes))} codes, like {vocabulary.text(codes[0])}")
    return SemanticIDTokenizer(
        config=None,
        vocabulary=vocabulary,
        ledger=Ledger.create(index.item_ids, codes, None if items is None else _texts(items, index.item_ids, say)),
        learned=None,
        encoder_state=({}, {"kind": IMPORTED}),
        provenance={"imported_from": index.path.name},
    )


def _sorted(index: IndexFile) -> IndexFile:
    order = sorted(range(len(index.item_ids)), key=index.item_ids.__getitem__)
    item_ids, tokens = ([column[row] for row in order] for column in (index.item_ids, index.tokens))
    return replace(index, item_ids=item_ids, tokens=tokens, codes=index.codes[order])


def _check_ids(index: IndexFile) -> None:
    lengths = (index.codes >= 0).sum(axis=1)
    if lengths.min() < lengths.max():
        shortest, longest = int(lengths.argmin()), int(lengths.argmax())
        raise InputError(
            f"{index.path}: IDs have {lengths.min()} to {lengths.max()} tokens (item {index.item_ids[shortest]!r} "
            f"{lengths.min()}, item {index.item_ids[longest]!r} {lengths.max()}); expected one length. Such IDs cannot "
            f"be an artifact; judge them with: semid doctor {index.path}"
        )
    if "" in index.item_ids:
        raise InputError(f"{index.path}: an item id is empty; expected a name. Give it one.")


# ---- which template, which codes


def _template_of(index: IndexFile) -> str:
    """The template that writes the file's tokens; InputError if there is none."""
    worded = next((level for level, around in enumerate(index.templates) if around is None), None)
    if worded is None:
        around = [[match[1], match[3]] for match in map(NUMBERED.fullmatch, index.tokens[0])]
        for template in _candidates(around):
            if _around(template, len(around)) == around:
                return template
    shown = "".join(index.tokens[0])
    level = "" if worded is None else f" at level {worded}"
    raise InputError(
        f"{index.path}: tokens like {shown} follow no template{level}: expected one text around a number at each level "
        f"that names the level, such as <a_12><b_7>. Judge such IDs with: semid doctor {index.path}"
    )


def _candidates(around: list[list[str]]) -> Iterator[str]:
    """Named templates, then patterns: a letter a or a 0 of level 0's text made the level's name, or one long count."""
    yield from TEMPLATES
    halves = around[0]
    for name, field in (("a", "{letter}"), ("0", "{level}")):
        for side, text in enumerate(halves):
            for place, character in enumerate(text):
                if character == name:
                    parts = [_escaped(half) for half in halves]
                    parts[side] = _escaped(text[:place]) + field + _escaped(text[place + 1 :])
                    yield "{code}".join(parts)
    yield "{offset}".join(map(_escaped, halves))


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _around(template: str, n_levels: int) -> list[list[str]] | None:
    """What the template writes before and after a token's number at each level; None if no vocabulary can have it."""
    try:
        vocabulary = Vocabulary((1,) * n_levels, template)
    except ConfigError:
        return None
    parts = [NUMBERED.fullmatch(vocabulary.token(level, 0)) for level in range(n_levels)]
    return [[match[1], match[3]] if match else [] for match in parts]


def _codes(
    index: IndexFile, template: str, sizes: Sequence[int] | int | None, *, with_added: bool
) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
    """Sizes of the levels, and codes int64 [N, L]: numbers, less the number that code 0 is written as."""
    n_levels = index.codes.shape[1]
    wanted = _wanted_sizes(sizes, n_levels, with_added=with_added)
    chosen: list[int] = []
    codes = index.codes.astype(np.int64)
    for level in range(n_levels):
        zero = Vocabulary((*chosen, 1), template).token(level, 0)
        codes[:, level] -= int(NUMBERED.fullmatch(zero)[2])
        lowest, highest = int(codes[:, level].min()), int(codes[:, level].max())
        size = wanted[level] if wanted else 1 << highest.bit_length()
        if lowest < 0 or highest >= min(size, MAX_SIZE):
            row = int(codes[:, level].argmin() if lowest < 0 else codes[:, level].argmax())
            raise InputError(
                f"{index.path}: item {index.item_ids[row]!r} has {index.tokens[row][level]} at level {level}, code "
                f"{lowest if lowest < 0 else highest}; expected 0 to {min(size, MAX_SIZE) - 1}. Give the sizes of the "
                f"levels that the IDs were made with: --sizes {','.join(['256'] * n_levels)}"
            )
        chosen.append(size)
    return (*chosen, *wanted[n_levels:]), codes


def _wanted_sizes(sizes: Sequence[int] | int | None, n_levels: int, *, with_added: bool) -> tuple[int, ...]:
    if sizes is None:
        return ()
    wanted = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if len(wanted) == 1:
        wanted *= n_levels
    if len(wanted) != n_levels and not (with_added and len(wanted) == n_levels + 1):
        raise ConfigError(f"sizes={','.join(map(str, wanted))} names {len(wanted)} levels; the IDs have {n_levels}.")
    return Vocabulary(wanted, "lcrec").sizes  # which checks them


# ---- collisions


def _made_unique(
    index: IndexFile, codes: npt.NDArray[np.int64], sizes: tuple[int, ...], on_collision: OnCollision, say: Say
) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
    """Sizes and distinct codes: as they are, or with the level that tells equal ones apart."""
    n_items, n_levels = codes.shape
    keys = code_keys(codes.astype(np.uint16))
    order = np.argsort(keys, kind="stable")  # equal codes stay in the order of the ids
    first = np.ones(n_items, np.bool_)
    first[1:] = keys[order][1:] != keys[order][:-1]
    starts = np.flatnonzero(first)
    lengths = np.diff(starts, append=n_items)
    if (largest := int(lengths.max())) == 1:
        return sizes[:n_levels], codes
    shared = lengths > 1
    summary = f"{shared.sum():,} IDs are shared by {lengths[shared].sum():,} of {n_items:,} items"
    if on_collision == "error":
        groups = [order[start : start + length] for start, length in zip(starts[shared], lengths[shared], strict=True)]
        problems = [f"{''.join(index.tokens[rows[0]])}: {_names(index, rows)}" for rows in groups]
        raise InputError(
            f"{index.path}: {summary}; expected one ID for each. Append a code that tells them apart with: "
            f"--on-collision add-level\n{InputError.listing(problems)}"
        )
    size = sizes[n_levels] if len(sizes) > n_levels else largest
    if size < largest:
        raise InputError(
            f"{index.path}: {largest} items share one ID, more than the {size} codes of the added level. "
            f"Give it {largest} in --sizes."
        )
    say(f"collisions  {summary}, up to {largest} with one ID: told apart by one more code")
    place = np.empty((n_items, 1), np.int64)
    place[order, 0] = np.arange(n_items) - np.repeat(starts, lengths)
    return (*sizes[:n_levels], size), np.hstack([codes, place])


def _names(index: IndexFile, rows: npt.NDArray[np.int64]) -> str:
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return ", ".join(repr(index.item_ids[row]) for row in rows[:3]) + more


# ---- texts


def _texts(source: str | os.PathLike[str] | Items, item_ids: list[str], say: Say) -> PackedStrings:
    """The items' texts, "" for those that the catalog lacks; InputError if it has none of them."""
    items = source if isinstance(source, Items) else _read_items(Path(source))
    place = {item_id: row for row, item_id in enumerate(items.ids)}
    texts = items.texts()
    found = [place.get(item_id, -1) for item_id in item_ids]
    missing = found.count(-1)
    if missing == len(found):
        raise InputError(f"{items.source}: has none of the items, for instance {item_ids[0]!r}. Are the ids the same?")
    say(f"texts       of {len(found) - missing:,} items, from {', '.join(items.fields) or 'no field'}")
    if missing:
        log.warning("%s: lacks %d of the %d items; they have no text", items.source, missing, len(found))
    return PackedStrings.pack("" if row < 0 else texts[row] for row in found)


def _read_items(path: Path) -> Items:
    """Items of a file of ours, or of LC-Rec's {item id: {field: text}}."""
    if not path.name.endswith((".json", ".json.gz")):
        return read_items(path)
    entries = read_json_object(path, '{"item id": {"title": "...", ...}, ...}')
    problems = [
        f"{path}: item {item_id!r} has {json.dumps(fields)[:40]}; expected an object of text fields"
        for item_id, fields in entries.items()
        if not isinstance(fields, dict)
    ]
    if problems:
        raise InputError.listing(problems)
    items = read_items([{**fields, "id": item_id} for item_id, fields in entries.items()])
    return Items(items.ids, items.fields, str(path), items.rows)
