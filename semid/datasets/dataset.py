"""Dataset: the items and the interactions of a public set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semid.data import Interactions, Items

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """A catalog and who interacted with it.

    Parameters
    ----------
    items : Items
        Ids and text fields.
    interactions : Interactions, optional
        Histories of all users. None if the set has none. They may be about items that are not in `items`.

    >>> from semid.data import read_items
    >>> Dataset(read_items([{"id": "a", "title": "Red lamp"}]))
    Dataset(items=Items(1 items; title), interactions=None)
    """

    items: Items
    interactions: Interactions | None = None
