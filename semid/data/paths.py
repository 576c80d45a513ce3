"""Paths: the names of fields inside objects, such as `details.Material`, and what stands for an object in a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from semid.data.cells import DEPTH, parse_cell

__all__ = ["find_field", "label_of", "named_inside", "roots"]


LABELS = ("name", "title", "label", "text", "value")  # what an object in a list is called, the first that it has


def find_field(record: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Return whether a record has a field, and its value. A dot in the name goes into objects and lists of objects.

    A key that is the name itself wins over a path, at every depth. Of a list, the values of all objects that have the
    field are a list. Objects and lists may be written in a string.

    >>> record = {"details": {"Material": "copper"}, "genres": [{"name": "Drama"}, {"name": "War"}], "a.b": 1}
    >>> find_field(record, "details.Material"), find_field(record, "genres.name"), find_field(record, "a.b")
    ((True, 'copper'), (True, ['Drama', 'War']), (True, 1))
    >>> find_field(record, "details.Color")
    (False, None)
    """
    if name in record:
        return True, record[name]
    for head, rest in _cuts(name):
        if head in record:
            found = _inside(record[head], rest)
            if found[0]:
                return found
    return False, None


def _cuts(name: str) -> Iterable[tuple[str, str]]:
    """Yield the ways to cut a name at a dot, the longest head first."""
    at = name.rfind(".")
    while at > 0:
        yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)


def _inside(value: object, name: str, depth: int = 0) -> tuple[bool, Any]:
    if isinstance(value, str):
        value = parse_cell(value)
    if isinstance(value, Mapping):
        return find_field(value, name)
    if not isinstance(value, list | tuple | np.ndarray) or depth == DEPTH:
        return False, None
    values = [found for has, found in (_inside(inner, name, depth + 1) for inner in value) if has]
    return bool(values), values


def roots(name: str) -> list[str]:
    """Return the names of the fields in which a path may begin, besides the name itself.

    >>> roots("details.size.cm")
    ['details.size', 'details']
    """
    return [head for head, _ in _cuts(name)]


def label_of(value: Mapping[Any, Any]) -> Any:
    """Return what an object in a list is called: its name, title, label, text or value; None if it has none of them.

    >>> label_of({"id": 28, "name": "Drama"}), label_of({"Label": "War", "Type": "G"}), label_of({"id": 28})
    ('Drama', 'War', None)
    """
    if LABELS[0] in value:  # nearly always
        return value[LABELS[0]]
    by_name = {str(name).casefold(): inside for name, inside in value.items()}
    return next((by_name[name] for name in LABELS if name in by_name), None)


def named_inside(value: Mapping[Any, Any]) -> str | None:
    """Return a field of an object to show as an example of a path: a label, else the first by name that holds words.

    >>> named_inside({"Size": 3, "Material": "copper"}), named_inside({"Size": 3}), named_inside({})
    ('Material', 'Size', None)
    """
    names = [name for name in value if isinstance(name, str) and name.isprintable() and name]
    if not names:
        return None
    return min(names, key=lambda name: (name.casefold() not in LABELS, not isinstance(value[name], str), name))
