"""import_index: make an artifact from another system's index file, {item id: ["<a_12>", "<b_7>", ...]}.

LC-Rec, LETTER, MiniOneRec and MIMIGenRec write `<a_12>`, UniGenRec `<L0_12>`, META ID `<CT12><1007>`: any file works in
which the tokens of each level are one text around a number, or that holds codes. The artifact holds what such a file
says: which item has which codes. It can be shown, evaluated, extended into a language model, decoded and exported. It
has no codebooks and no encoder, so it cannot encode a vector or a new item; trying to raises an error that says so.

    read -> codes -> no collisions -> ledger

Items are sorted by their ids, so the order of the file does not matter.

Not here: reading the file (`semid/data/index_files.py`), writing one (`exporter.py`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.data.index_files import NUMBERED, IndexFile, read_index
from semid.data.items import Items, read_items
from semid.data.strings import PackedStrings
from semid.errors import ConfigError, InputError
from semid.ledger.ledger import Ledger
from semid.ledger.lookup import code_keys
from semid.runtime.checks import check_choice
from semid.runtime.progress import log_step
from semid.state import IMPORTED
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.templates import TEMPLATES
from semid.tokens.vocabulary import MAX_SIZE, Vocabulary

__all__ = ["OnCollision", "import_index"]

logger = logging.getLogger("semid")

OnCollision = Literal["error", "add-level"]


def import_index(
    source: str | os.PathLike[str] | IndexFile,
    *,
    items: object = None,
    template: str | None = None,
    sizes: Sequence[int] | int | None = None,
    on_collision: OnCollision = "error",
) -> SemanticIDTokenizer:
    """Make an artifact from an index file.

    Parameters
    ----------
    source
        The index file, see `read_index`, or an `IndexFile` that it returned.
    items
        The catalog, for the items' text, and for the ids of an array of codes without ids: Items, or what `read_items`
        reads. Default: none; the items then have no text.
    template
        How the artifact writes its tokens: a name or a pattern, see `Vocabulary`. Default: as the file does; codes
        become "lcrec" tokens, `<a_1><b_2>`.
    sizes
        Codes per level, K, or one number for all levels. Default: the power of two that holds the highest code of the
        level, since the file shows only codes in use.
    on_collision
        What to do if items share an ID, since an artifact needs one ID per item. "error" (default) lists them.
        "add-level" appends a code to every ID: the item's place among those that share its ID, in the order of item
        ids, as in TIGER (arXiv 2305.05065). The level has as many codes as needed. Without collisions nothing is
        appended.

    Raises
    ------
    InputError
        The file is not an index file; IDs differ in length; a token has no number; items share an ID; or `sizes` do not
        hold the codes.
    ConfigError
        No vocabulary can have this template or these sizes.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "shop.index.json"
    ...     _ = path.write_text('{"B2": ["<a_5>", "<b_0>"], "B1": ["<a_5>", "<b_12>"]}')
    ...     ids = import_index(path, sizes=256)
    >>> ids.tokens(["B1", "B2"]), ids.decode("<a_5><b_0>"), ids.sizes
    (['<a_5><b_12>', '<a_5><b_0>'], 'B2', (256, 256))
    """
    check_choice("on_collision", on_collision, get_args(OnCollision))
    catalog = None if items is None else read_items(items)
    ids = None if catalog is None else catalog.ids
    index = _sorted(source if isinstance(source, IndexFile) else read_index(source, ids=ids))
    _check_ids(index)
    own_template = _template_of(index)
    level_sizes, codes = _codes(index, own_template, sizes, with_added=on_collision == "add-level")
    log_step("read", f"{len(codes):,} items with {codes.shape[1]} codes, like {_shown(index, 0)}")
    level_sizes, codes = _made_unique(index, codes, level_sizes, on_collision)
    vocabulary = Vocabulary(level_sizes, template or own_template)
    how = "; --template writes them otherwise" if index.is_codes and template is None else ""
    log_step("vocabulary", f"{' x '.join(map(str, level_sizes))} codes, like {vocabulary.text(codes[0])}{how}")
    return SemanticIDTokenizer(
        config=None,
        vocabulary=vocabulary,
        ledger=Ledger.create(index.item_ids, codes, None if catalog is None else _texts(catalog, index.item_ids)),
        learned=None,
        encoder_state=({}, {"kind": IMPORTED}),
        provenance={"imported_from": index.path.name},
    )


def _sorted(index: IndexFile) -> IndexFile:
    order = sorted(range(len(index.item_ids)), key=index.item_ids.__getitem__)
    item_ids, tokens = [index.item_ids[row] for row in order], [index.tokens[row] for row in order]
    return replace(index, item_ids=item_ids, tokens=tokens, codes=index.codes[order])


def _check_ids(index: IndexFile) -> None:
    lengths = (index.codes >= 0).sum(axis=1)
    if lengths.min() < lengths.max():
        shortest, longest = int(lengths.argmin()), int(lengths.argmax())
        raise InputError(
            f"{index.path}: IDs have {lengths.min()} to {lengths.max()} tokens (item {index.item_ids[shortest]!r} "
            f"{lengths.min()}, item {index.item_ids[longest]!r} {lengths.max()}); expected one length. An artifact "
            f"cannot hold them; evaluate them with: semid doctor {index.path}"
        )
    if "" in index.item_ids:
        raise InputError(f"{index.path}: an item id is empty. Give the item an id.")


# ---- which template, which codes


def _template_of(index: IndexFile) -> str:
    """Return the template that writes the file's tokens, "lcrec" for codes; InputError if there is none."""
    if index.is_codes:
        return "lcrec"
    worded = next((level for level, around in enumerate(index.templates) if around is None), None)
    if worded is None:
        around = [[match[1], match[3]] for match in map(NUMBERED.fullmatch, index.tokens[0]) if match]
        for template in _candidates(around):
            if _around(template, len(around)) == around:
                return template
    shown = "".join(index.tokens[0])
    level = "" if worded is None else f" at level {worded}"
    raise InputError(
        f"{index.path}: tokens like {shown} follow no template{level}: expected one text around a number at each level "
        f"that names the level, such as <a_12><b_7>. Evaluate such IDs with: semid doctor {index.path}"
    )


def _candidates(around: list[list[str]]) -> Iterator[str]:
    """Yield named templates, then patterns in which an "a" or a "0" of level 0 names the level, then one long count."""
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
    """Return the text before and after the number in each level's tokens; None if the template is impossible."""
    try:
        vocabulary = Vocabulary((1,) * n_levels, template)
    except ConfigError:
        return None
    parts = [NUMBERED.fullmatch(vocabulary.token(level, 0)) for level in range(n_levels)]
    return [[match[1], match[3]] if match else [] for match in parts]


def _codes(
    index: IndexFile, template: str, sizes: Sequence[int] | int | None, *, with_added: bool
) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
    """Return the sizes of the levels, and codes int64 [N, L]: the numbers minus the number of code 0."""
    n_levels = index.codes.shape[1]
    wanted = _wanted_sizes(sizes, n_levels, with_added=with_added)
    chosen: list[int] = []
    codes = index.codes.astype(np.int64)
    for level in range(n_levels):
        zero = NUMBERED.fullmatch(Vocabulary((*chosen, 1), template).token(level, 0))
        assert zero is not None, template  # it was found by the numbers in the file's tokens
        codes[:, level] -= int(zero[2])
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
        raise ConfigError(f"sizes={','.join(map(str, wanted))} is for {len(wanted)} levels; the IDs have {n_levels}.")
    return Vocabulary(wanted, "lcrec").sizes  # the vocabulary checks them


# ---- collisions


def _made_unique(
    index: IndexFile, codes: npt.NDArray[np.int64], sizes: tuple[int, ...], on_collision: OnCollision
) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
    """Return sizes and distinct codes: unchanged, or with a level that tells equal ones apart."""
    n_items, n_levels = codes.shape
    keys = code_keys(codes.astype(np.uint16))
    order = np.argsort(keys, kind="stable")  # equal codes stay in the order of the item ids
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
        problems = [f"{_shown(index, rows[0])}: {_names(index, rows)}" for rows in groups]
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
    log_step("collisions", f"{summary}, up to {largest} per ID: one more code tells them apart")
    place = np.empty((n_items, 1), np.int64)
    place[order, 0] = np.arange(n_items) - np.repeat(starts, lengths)
    return (*sizes[:n_levels], size), np.hstack([codes, place])


def _shown(index: IndexFile, row: int) -> str:
    return (", " if index.is_codes else "").join(index.tokens[row])


def _names(index: IndexFile, rows: npt.NDArray[np.int64]) -> str:
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return ", ".join(repr(index.item_ids[row]) for row in rows[:3]) + more


# ---- texts


def _texts(items: Items, item_ids: list[str]) -> PackedStrings:
    """Return the texts of the items, "" for those that the catalog lacks; InputError if it has none of them."""
    place = {item_id: row for row, item_id in enumerate(items.ids)}
    texts = items.texts()
    found = [place.get(item_id, -1) for item_id in item_ids]
    missing = found.count(-1)
    if missing == len(found):
        raise InputError(f"{items.source}: has none of the items, for instance {item_ids[0]!r}. Are the ids the same?")
    log_step("texts", f"of {len(found) - missing:,} items, from {', '.join(items.fields) or 'no field'}")
    if missing:
        logger.warning("%s: lacks %d of the %d items; they have no text", items.source, missing, len(found))
    return PackedStrings.pack("" if row < 0 else texts[row] for row in found)
