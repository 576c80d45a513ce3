"""export: write the IDs of the live items in the format of another system.

    lcrec      LC-Rec's index, {item id: ["<a_1>", "<b_2>", ...]}, whatever the artifact's own tokens look like;
               LETTER, MiniOneRec and others read it too          (json_index.py)
    flashrec   FlashRec's catalog, {"1,2,3": item id}            (json_index.py)
    static     STATIC's transition table, as safetensors           (static.py)
    parquet    a table for everything else                         (parquet.py)
    ebnf       a grammar for xgrammar                              (grammar.py)
    lark       a grammar for llguidance                            (grammar.py)

Items are in the order of the artifact's table (grammars and STATIC sort by codes), so equal artifacts give equal files.
A file appears whole or not at all. JSON and Parquet are written in blocks of items, so a catalog of any size needs
little memory. N items, L levels.

Not here: reading such files (`importer.py`), Hugging Face folders (`tokenizer_exports/models/in_memory.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy.typing as npt

from semid.artifact.atomic import drafting
from semid.artifact.store import check_path
from semid.artifact.tensors import tensor_blocks
from semid.errors import ConfigError
from semid.runtime.checks import check_choice, plural
from semid.tokenizer_exports.formats.grammar import grammar_lines
from semid.tokenizer_exports.formats.json_index import flashrec_blocks, flashrec_notes, lcrec_blocks, lcrec_notes
from semid.tokenizer_exports.formats.parquet import parquet_blocks
from semid.tokenizer_exports.formats.static import static_arrays
from semid.tokens.block import TokenTable, find_base
from semid.trie import Trie

if TYPE_CHECKING:
    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["Exported", "Format", "export"]


Format = Literal["lcrec", "flashrec", "static", "parquet", "ebnf", "lark"]


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, and notes on using the file."""

    path: Path
    to: Format
    n_items: int
    n_bytes: int
    notes: tuple[str, ...]

    def summary(self) -> list[str]:
        """Return lines for people: what was written, then the notes."""
        return [f"exported    {self.n_items:,} items to {self.path} ({self.to}, {_size(self.n_bytes)})", *self.notes]


def export(
    ids: SemanticIDTokenizer,
    path: str | Path,
    *,
    to: Format,
    base: int | None = None,
    tokenizer: TokenTable | None = None,
    dense_levels: int | None = None,
    force: bool = False,
) -> Exported:
    """Write the IDs of the live items in another system's format; the file appears whole or not at all.

    Parameters
    ----------
    ids
        The artifact.
    path
        The file to write; its folder is made if needed. A link is replaced, its target stays as it is.
    to
        The format: "lcrec", "flashrec", "static", "parquet", "ebnf" or "lark".
    base, tokenizer
        Where the tokens of `ids` are in a language model: the token id of the first code, or the extended tokenizer.
        Default: what `semid extend` wrote into the artifact. Used by `flashrec`, `static`, `ebnf` and `lark`.
    dense_levels
        Levels that `static` stores as dense tables, 1 or 2. Default: 2 where the tables take at most 256 MB.
    force
        Replace an existing file. Default: False.

    Raises
    ------
    OutputExistsError
        The file exists and `force` is not given, or it is a folder or a file of an artifact.
    ConfigError
        There is no live item, the tokenizer lacks the tokens, or the format cannot hold these IDs.
    ArtifactError
        The file cannot be written.

    >>> import tempfile
    >>> from semid import SemanticIDTokenizer
    >>> items = [{"id": str(n), "title": f"{color} {thing}"} for n, (color, thing) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> ids = SemanticIDTokenizer.fit(items, levels=2, codebook_size=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = export(ids, f"{folder}/shop.index.json", to="lcrec")
    ...     done.n_items, done.path.read_text()[:15]
    (9, '{\\n"0": ["<a_2>"')
    """
    path = Path(path)
    check_choice("to", to, get_args(Format))
    check_path(path, force)
    n_live = int(ids.ledger.live.sum())
    if not n_live:
        raise ConfigError("the catalog has no live item, so there is nothing to export. Add items first.")
    base = _base(ids, base, tokenizer)
    if to == "flashrec" and path.suffix != ".json":
        raise ConfigError(f"{path}: FlashRec reads a catalog only from a file whose name ends in .json. Rename it.")
    if dense_levels is not None and to != "static":
        raise ConfigError(f"dense_levels={dense_levels} applies only to to='static'. Leave it out for {to!r}.")
    blocks, notes = _blocks(ids, to, base, dense_levels)
    if n_gone := len(ids) - n_live:
        notes = [f"Without {plural(n_gone, 'retired item')}.", *notes]
    with drafting(path.parent) as draft:
        check_path(path, force)  # again, now that nobody else is writing
        written = draft.write(blocks)
        draft.publish(written, path.name)
    return Exported(path, to, n_live, written.n_bytes, tuple(notes))


def _base(ids: SemanticIDTokenizer, base: int | None, tokenizer: TokenTable | None) -> int | None:
    if tokenizer is not None:
        if base is not None:
            raise ConfigError("base and tokenizer were both given. Give one of them: the tokenizer implies the base.")
        return find_base(ids.vocabulary, tokenizer)
    if base is not None and base < 0:
        raise ConfigError(f"base={base} should be a token id, 0 or more.")
    return ids.base if base is None else base


def _blocks(
    ids: SemanticIDTokenizer, to: Format, base: int | None, dense_levels: int | None
) -> tuple[Iterable[bytes | memoryview], list[str]]:
    """Return the bytes of the file, and notes. Refuses what the format cannot hold before anything is written."""
    if to == "lcrec":
        return lcrec_blocks(ids), lcrec_notes(ids)
    if to == "flashrec":
        return flashrec_blocks(ids), flashrec_notes(ids, base)
    if to == "parquet":
        return parquet_blocks(ids), []
    trie = Trie.from_ledger(ids.ledger, ids.sizes, base=base)
    if to == "static":
        arrays = static_arrays(trie, len(ids.vocabulary), base=base, dense_levels=dense_levels)
        return tensor_blocks(arrays), [_static_note(arrays, base)]
    return ["".join(grammar_lines(trie, ids.vocabulary, to)).encode()], _grammar_notes(to, base)


def _static_note(arrays: dict[str, npt.NDArray], base: int | None) -> str:
    width, dense = len(arrays["start_mask"]), arrays["dense_mask"].ndim
    cut = f"token ids are the model's: cut its logits to [..., :{width}]"
    if base is None:
        cut = f"token ids count from 0 in the block of the IDs: cut the model's logits to [..., base : base + {width}]"
    return f"STATIC with vocab_size={width}, d_dense={dense}; {cut}."


def _grammar_notes(to: Format, base: int | None) -> list[str]:
    if base is not None or to == "lark":
        return []
    return [
        "Written as text: the engine also accepts an ID spelled by other tokens, for instance <, s, _a_1>. "
        "With --tokenizer FOLDER or --base N the grammar is in token ids and exact."
    ]


def _size(n_bytes: int) -> str:
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    size = n_bytes / 1000
    for unit in ("KB", "MB"):
        if size < 1000:
            return f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
