"""The ID, title and description of each item, as records show them.

Titles and descriptions come from the catalog's file. Without one, the title is the artifact's text of the item, all
fields joined. Whatever reads as an ID is removed from texts: a model would learn it as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from semid.data.item_reader import no_such_field
from semid.data.items import Items, read_items
from semid.data.unknown_items import look_alike
from semid.errors import InputError
from semid.files.problems import quote
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.vocabulary import Vocabulary

__all__ = ["ItemTexts", "plain_text"]

CACHED = 1 << 16  # items whose texts are cached: popular ones come again and again


class ItemTexts:
    """The IDs and texts of a catalog's items, by row.

    `title(row)` is the title of an item, "" where it has none.

    Parameters
    ----------
    ids : SemanticIDTokenizer
        The artifact.
    items : source of `read_items`, optional
        The catalog, for titles and descriptions. By default the artifact's texts are the titles.
    id_field, title_field, description_field : str
        Fields of the catalog. By default the description is in `description`, if there is such a field.
    max_text : int
        Characters of a title or description.
    markers : bool
        Write the begin and end tokens of the template around IDs.
    """

    def __init__(
        self,
        ids: SemanticIDTokenizer,
        items: object = None,
        *,
        id_field: str = "id",
        title_field: str = "title",
        description_field: str | None = None,
        max_text: int = 1000,
        markers: bool = False,
    ) -> None:
        self.ids, self.max_text, self.markers = ids, max_text, markers
        self.codes = ids.codes
        self._semantic_id = lru_cache(CACHED)(self._text_of_id)
        self.title = lru_cache(CACHED)(self._title)
        self.titles: Sequence[str] | None = ids.texts if items is None else None
        self.descriptions: Sequence[str] | None = None
        self.places: npt.NDArray[np.int64] | None = None  # of each row in the file; None: the rows themselves
        if items is not None:
            wanted = (title_field, description_field or "description")
            read = read_items(items, id_field=id_field, keep=wanted, on_warning=lambda _: None)  # about other fields
            self.titles = _field(read, title_field)
            self.descriptions = _field(read, description_field or "description", needed=description_field is not None)
            self.places = np.full(len(ids), -1, np.int64)
            rows = ids.ledger.find_rows(read.ids)
            known = rows >= 0
            if not known.any():
                here, there = look_alike(read.ids, ids.item_ids)
                raise InputError(
                    f"{read.source}: none of its items is in the artifact: {quote(here)} here, for instance, and "
                    f"{quote(there)} there. Name the id field with --id-field."
                )
            self.places[rows[known]] = np.flatnonzero(known)

    def semantic_ids(self, rows: Sequence[int]) -> list[str]:
        """Return the IDs of some rows as text."""
        return [self._semantic_id(row) for row in rows]

    def _text_of_id(self, row: int) -> str:
        return self.ids.vocabulary.text(self.codes[row], markers=self.markers)

    def _title(self, row: int) -> str:
        return self._text(self.titles, row)

    def description(self, row: int) -> str:
        """Return the description of an item, "" where it has none."""
        return self._text(self.descriptions, row)

    def _text(self, column: Sequence[str] | None, row: int) -> str:
        place = row if self.places is None else int(self.places[row])
        if column is None or place < 0:
            return ""
        return plain_text(self.ids.vocabulary, column[place], self.max_text)


def plain_text(vocabulary: Vocabulary, text: str, longest: int) -> str:
    """Return a text without what reads as an ID, cut at a blank to at most `longest` characters.

    >>> plain_text(Vocabulary([4, 4]), "Kohl <s_a_1><s_b_2> pencil", 12)
    'Kohl pencil'
    """
    while found := vocabulary.find(text):
        for one in reversed(found):
            text = text[: one.start] + text[one.end :]
        text = " ".join(text.split())
    if len(text) <= longest:
        return text
    whole = text[: longest + 1].rpartition(" ")[0]
    return whole or text[:longest]


def _field(items: Items, name: str, *, needed: bool = True) -> Sequence[str] | None:
    if name not in items.fields and needed:
        raise InputError(f"{items.source}: {no_such_field(name, items.fields)}")
    return items.fields.get(name)
