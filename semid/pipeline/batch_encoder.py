"""BatchEncoder: items to codes and tokens as a function of one batch, for engines that move batches between processes.

    encode = BatchEncoder("my-sid")
    encode({"id": ["B1", "new"], "title": ["Red polish", "Kohl"]})      # the same, with codes, tokens and known

It holds nothing but the folder's path and fingerprint and the names of columns, so it pickles into a few hundred
bytes; each process opens the folder once, when its first batch comes. A row's answer depends on that row alone, so
batches may be cut, repeated and moved at will.

An item of the catalog gets the ID that it has. Any other row gets its nearest codes: those of the item's place in
the codebooks, perhaps taken by other items; only adding it to the catalog gives it an ID of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semid.artifact.kinds import IDS, check_kind
from semid.artifact.manifest import read_manifest
from semid.artifact.store import load
from semid.data.columns import as_arrow, column_names, matrix, row_count, values, with_columns
from semid.data.items import Items
from semid.data.paths import find_field, roots
from semid.data.text_column import cell_text
from semid.data.values import id_fault, id_string, kind_of
from semid.errors import ArtifactError, ConfigError, InputError
from semid.files.problems import Problems, name_list, quote
from semid.quantize.checks import check_vectors
from semid.state import TokenizerState

if TYPE_CHECKING:
    import pyarrow

__all__ = ["BatchEncoder", "Encoded"]


class Encoded(NamedTuple):
    """What n rows come out as."""

    item_ids: list[str]  # empty without an id column
    codes: npt.NDArray[np.int32]  # (n, L)
    tokens: list[str]
    known: npt.NDArray[np.bool_]  # (n,) - is it an item of the catalog, live or retired?

    def columns(self) -> dict[str, Any]:
        """Everything but the ids, by name."""
        return {"codes": self.codes, "tokens": self.tokens, "known": self.known}


class BatchEncoder:
    """A picklable, stateless function from a batch to the same batch with columns `codes`, `tokens` and `known`.

    Parameters
    ----------
    folder : path of an artifact, which every worker sees under this path.
    id_field : the column with the items' ids; None if there is none, and then no row is known.
    vector_column : a column of ready vectors, to be used instead of the stored encoder.
    text : the text columns, in order. By default those that the IDs were learned from.

    Raises
    ------
    ArtifactError : no artifact there.
    InputError : one of another kind.
    ConfigError : the IDs were imported; they were learned from ready vectors and `vector_column` is not given; or it is
        not known which columns hold the text.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        id_field: str | None = "id",
        vector_column: str | None = None,
        text: Sequence[str] | None = None,
    ) -> None:
        self.folder = str(Path(folder).absolute())
        manifest = read_manifest(Path(self.folder))
        check_kind(folder, manifest, IDS)
        self.fingerprint: str = manifest["fingerprint"]
        if manifest.get("config") is None:
            raise ConfigError(f"{folder}: these IDs were imported, so nothing says what codes a new item would have.")
        self.id_field = id_field
        self.vector_column = vector_column
        self.text = () if vector_column is not None else _text_fields(self.folder, manifest, text)

    @property
    def ids(self) -> TokenizerState:
        """The artifact, opened once a process; ArtifactError if another one lies there by now."""
        return _opened(self.folder, self.fingerprint)

    @property
    def columns(self) -> list[str]:
        """The columns that are looked at; text columns may be missing, but not all of them."""
        heads = [head for name in self.text for head in roots(name)]  # of paths into objects
        used = [*self.text, *heads] if self.vector_column is None else [self.vector_column]
        return list(dict.fromkeys([*([] if self.id_field is None else [self.id_field]), *used]))

    def __call__(self, batch: Any) -> Any:
        """Return the batch (dict of columns, pyarrow Table or RecordBatch, or pandas DataFrame) with more columns.

        codes : int32 [n, L], as lists of int32 in Arrow. tokens : strings. known : is the row's id in the catalog,
        so that `codes` is its ID (a retired item keeps it), or are these the nearest codes of a new item?

        Raises
        ------
        InputError : a column is missing, or there already; an id that is none; text that is none; no vector.
        ArtifactError : the folder has changed since this was made.
        """
        return with_columns(batch, self.encode(batch).columns())

    def encode(self, batch: Any, problems: Problems | None = None, lines: Sequence[int] | None = None) -> Encoded:
        """Return the new columns alone. Messages name row `lines[i]` of the source of `problems`, or row i + 1."""
        problems = problems or Problems("batch", "row")
        lines = range(1, 1 + row_count(batch)) if lines is None else lines
        item_ids = self._item_ids(batch, problems, lines)
        codes = np.zeros((len(lines), len(self.ids.sizes)), np.int32)
        known = np.zeros(len(lines), bool)
        if item_ids:
            rows = self.ids.ledger.find_rows(item_ids)
            known = rows >= 0
            codes[known] = self.ids.ledger.codes[rows[known]]
        new = np.flatnonzero(~known)
        if len(new):
            codes[new] = self.ids.encode_vectors(self._vectors(batch, new, problems, lines))
        return Encoded(item_ids, codes, self.ids.vocabulary.texts(codes) if len(codes) else [], known)

    def fault(self, row: Mapping[str, Any]) -> str | None:
        """Return why a row of Python values has no id or no text; None if it has."""
        if self.id_field is not None and id_string(row.get(self.id_field)) is None:
            return f"{self.id_field} {id_fault(row.get(self.id_field))}"
        found = ((name, find_field(row, name)[1]) for name in self.text)
        return next((_not_text(name, value) for name, value in found if cell_text(value) is None), None)

    def answers(self, batch: Any, *place: Any) -> pyarrow.Table:
        """`encode`, as an Arrow table of item_id (unless there is no column of ids), codes, tokens and known."""
        import pyarrow

        found = self.encode(batch, *place)
        columns = {**({} if self.id_field is None else {"item_id": found.item_ids}), **found.columns()}
        return pyarrow.table({name: as_arrow(column) for name, column in columns.items()})

    def _item_ids(self, batch: Any, problems: Problems, lines: Sequence[int]) -> list[str]:
        if self.id_field is None:
            return []
        raw = values(batch, self.id_field)
        item_ids = [id_string(value) for value in raw]
        for value, item_id, line in zip(raw, item_ids, lines, strict=True):
            if item_id is None:
                problems.add(line, f"{self.id_field} {id_fault(value)}")
        problems.raise_if_any()
        return [item_id for item_id in item_ids if item_id is not None]  # all of them, as just checked

    def _vectors(
        self, batch: Any, rows: npt.NDArray[np.int64], problems: Problems, lines: Sequence[int]
    ) -> npt.NDArray[np.float32]:
        """float32 [len(rows), D] of some rows of the batch."""
        if self.vector_column is None:
            return self.ids.embed(self._items(batch, rows.tolist(), problems, lines))
        vectors = matrix(batch, self.vector_column)[rows]
        with np.errstate(over="ignore"):  # too large for float32 becomes infinity, which is no vector either
            bad = np.flatnonzero(~np.isfinite(vectors.astype(np.float32)).all(axis=1))
        for row in bad.tolist():
            problems.add(
                lines[rows[row]], f"{quote(self.vector_column)} holds NaN, infinity or numbers beyond float32."
            )
        problems.raise_if_any()
        return check_vectors(vectors)

    def _items(self, batch: Any, rows: list[int], problems: Problems, lines: Sequence[int]) -> Items:
        have = column_names(batch)
        fields: dict[str, list[str]] = {}
        for name in self.text:
            raw = _column_at(batch, name, have)
            if raw is None:
                continue
            fields[name] = column = []
            for row in rows:
                if (text := cell_text(raw[row])) is None:
                    problems.add(lines[row], _not_text(name, raw[row]))
                column.append(text or "")
        problems.raise_if_any()
        if self.text and not fields:
            raise InputError(
                f"{problems.name}: none of the text columns {name_list(self.text)}. It has: {name_list(have)}."
            )
        return Items([str(lines[row]) for row in rows], fields, problems.name)


def _not_text(name: str, value: object) -> str:
    return f"field {quote(name)} holds {kind_of(value)}; expected text."


def _column_at(batch: Any, name: str, have: Sequence[str]) -> list[Any] | None:
    """Return the values of a text field, which may be a path into objects; None if the batch has no such column."""
    if name in have:
        return values(batch, name)
    head = next((head for head in roots(name) if head in have), None)
    return None if head is None else [find_field({head: value}, name)[1] for value in values(batch, head)]


@lru_cache(maxsize=2)  # the last one and its successor
def _opened(folder: str, fingerprint: str) -> TokenizerState:
    ids = TokenizerState.from_artifact(load(folder))
    found = read_manifest(Path(folder))["fingerprint"]  # afterwards: a folder never goes back to an older state
    if found != fingerprint:
        raise ArtifactError(
            f"{folder}: its fingerprint is {found}, expected {fingerprint}: it is not the artifact that this encoder "
            "was made for, or has changed since. Make the BatchEncoder anew, or copy the folder here again."
        )
    return ids


def _text_fields(folder: str, manifest: dict, text: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns to embed, in order."""
    if text is not None:
        return (text,) if isinstance(text, str) else tuple(text)
    encoder, noted = manifest["encoder"], manifest.get("text_fields")
    if encoder["kind"] == "vectors":
        raise ConfigError(
            f"{folder}: these IDs were learned from ready vectors, so semid cannot embed items. "
            "Name the column of vectors: vector_column=, or --vector-column."
        )
    if noted is None and encoder["kind"] == "lexical":  # an older artifact; the order is all one to this encoder
        noted = encoder["field_weights"]
    if noted is None:
        raise ConfigError(
            f"{folder}: does not say which text fields its IDs were learned from. Name them in order: text=, or --text."
        )
    return tuple(noted)
