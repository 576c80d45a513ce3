"""The step that reads: a source in, its items out, sorted by id, so that the order of the input cannot matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semid.data.items import Items, read_items
from semid.runtime.progress import log_step

__all__ = ["read_catalog"]


def read_catalog(source: Any, text: Sequence[str] | None, id_field: str) -> Items:
    """Read a whole catalog, log what was read, and return its items sorted by id.

    Parameters
    ----------
    source : path, "-", `datasets.Dataset`, iterable of dicts, or Items
        See `read_items`.
    text : sequence of str or None
        Text fields, in order; None: the ones that `read_items` finds.
    id_field : str
        Field with the item's id.
    """
    fields = list(text) if text else None
    items = read_items(source, text=fields, id_field=id_field).sorted()
    said = items.fields and items.left_out and not isinstance(source, Items)  # by the reader, with what is left out
    text_from = "" if said else f"; text from {', '.join(items.fields) or 'no field'}"
    log_step("read", f"{len(items):,} items{text_from}")
    return items
