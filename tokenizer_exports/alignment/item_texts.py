"""What a record can say about an item: its ID, its title, its description.

Titles and descriptions come from the catalog's file where it is given; the artifact itself keeps one text an item,
all fields joined, which then stands as the title. A text must not hold anything that reads as an ID: a model would be
taught it as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from semid.data.items import Items, read_items
from semid.data.problems import name_list
from semid.errors import InputError
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.vocabulary import Vocabulary

__all__ = ["ItemTexts", "plain_text"]

KEPT = 1 << 16  # items whose texts are kept ready: the popular ones come again and again


class ItemTexts:
    """The IDs and texts of a catalog's items, by row.

    Parameters
    ----------
    items : as `read_items` takes it, or None for the texts of the artifact
    title_field, description_field : names of its fields; the second may be missing unless it is named

    `title(row)` is the title of an item, "" where there is none.
    """

    def __init__(
        self,
        ids: SemanticIDTokenizer,
        items: Any = None,
        *,
        id_field: str = "id",
        title_field: str = "title",
        description_field: str | None = None,
        max_text: int = 1000,
        markers: bool = False,
    ) -> None:
        self.ids, self.max_text, self.markers = ids, max_text, markers
        self.codes = ids.codes
        self._semantic_id = lru_cache(KEPT)(self._made_id)
        self.title = lru_cache(KEPT)(self._title)
        self.titles: Sequence[str] | None = ids.texts if items is None else None
        self.descriptions: Sequence[str] | None = None
        self.places: np.ndarray | None = None  # of each row in the file; None: rows themselves
        if items is not None:
            read = read_items(items, id_field=id_field)
            self.titles = _field(read, title_field)
            self.descriptions = _field(read, description_field or "description", needed=description_field is not None)
            self.places = np.full(len(ids), -1, np.int64)
            rows = ids.ledger.find_rows(read.ids)
            known = rows >= 0
            if not known.any():
                raise InputError(f"{read.source}: none of its items is in the artifact. Are the ids the same?")
            self.places[rows[known]] = np.flatnonzero(known)

    def semantic_ids(self, rows: Sequence[int]) -> list[str]:
        """The IDs as text."""
        return [self._semantic_id(row) for row in rows]

    def _made_id(self, row: int) -> str:
        return self.ids.vocabulary.text(self.codes[row], markers=self.markers)

    def _title(self, row: int) -> str:
        return self._text(self.titles, row)

    def description(self, row: int) -> str:
        """The description; "" where there is none."""
        return self._text(self.descriptions, row)

    def _text(self, column: Sequence[str] | None, row: int) -> str:
        place = row if self.places is None else int(self.places[row])
        if column is None or place < 0:
            return ""
        return plain_text(self.ids.vocabulary, column[place], self.max_text)


def plain_text(vocabulary: Vocabulary, text: str, longest: int) -> str:
    """A text without anything that reads as an ID, cut at a blank to at most `longest` characters.

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
        raise InputError(f"{items.source}: no item has the text field {name!r}. Fields found: {_names(items.fields)}.")
    return items.fields.get(name)


def _names(fields: Iterable[str]) -> str:
    return name_list(sorted(fields))
