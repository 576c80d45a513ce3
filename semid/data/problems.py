"""Problems: the mistakes of a source, collected with their places, and the wording that messages share.

A mistake does not stop reading as long as later lines can be read. One error lists the first ten mistakes and counts
the rest.
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from semid.errors import SHOWN_PROBLEMS, InputError

__all__ = ["Problems", "is_dataset", "is_table", "name_list", "quote"]


@dataclass
class Problems:
    """The mistakes of one source: the first ten messages, and how many there are.

    Parameters
    ----------
    name : str
        Name of the source; every message begins with it.
    style : {"line", "row", "index"}
        How places are written: `items.jsonl:7`, `items.parquet, row 7` or `items[6]`.

    >>> problems = Problems("items.jsonl")
    >>> problems.add(7, "id is null.")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
    semid.errors.InputError: items.jsonl:7: id is null.
    """

    name: str
    style: Literal["line", "row", "index"] = "line"
    total: int = 0
    shown: list[str] = field(default_factory=list)
    _lines: list[float] = field(default_factory=list, repr=False)  # of the shown messages, ascending

    @classmethod
    def of(cls, source: object) -> Problems:
        """Return an empty collection with the name of a source."""
        if isinstance(source, str | os.PathLike):
            path = os.fsdecode(source)
            return cls("<stdin>" if path == "-" else path)
        return cls("dataset" if is_table(source) else "items", "index")

    def where(self, line: int) -> str:
        """Return the place of record number `line`, counted from 1, with the name of the source."""
        places = {"line": f":{line}", "row": f", row {line}", "index": f"[{line - 1}]"}
        return self.name + places[self.style]

    def first_at(self, line: int) -> str:
        """Return the place of record number `line` for a message that has named the source already."""
        return self.where(line) if self.style == "index" else f"{self.style} {line}"

    def add(self, line: int | None, message: str) -> None:
        """Note a problem of a record, or of the whole source (`line=None`). The first ten by place are shown."""
        self.total += 1
        at = bisect_right(self._lines, math.inf if line is None else line)
        if at < SHOWN_PROBLEMS:
            self._lines.insert(at, math.inf if line is None else line)
            self.shown.insert(at, f"{self.name if line is None else self.where(line)}: {message}")
            del self._lines[SHOWN_PROBLEMS:], self.shown[SHOWN_PROBLEMS:]

    def check_columns(self, line: int | None, names: Iterable[str]) -> None:
        """Note every column whose name an earlier one has. Several columns may be unnamed."""
        seen: set[str] = set()
        for name in names:
            if name and name in seen:
                self.add(line, f"two columns are named {quote(name)}. Rename one.")
            seen.add(name)

    def raise_if_any(self) -> None:
        """Raise one InputError that lists the problems, if there are any."""
        if self.total:
            raise InputError.listing(self.shown, self.total)


def is_dataset(source: object) -> bool:
    """Return whether `source` is a `datasets.Dataset`, or behaves like one."""
    return hasattr(source, "with_format") and hasattr(source, "iter")


def is_table(source: object) -> bool:
    """Return whether `source` holds Arrow columns: a data set, or anything with `__arrow_c_stream__`."""
    return is_dataset(source) or hasattr(source, "__arrow_c_stream__")


def quote(text: object) -> str:
    """Return `text` in double quotes on one printable line of at most about 80 characters.

    >>> quote("B01"), quote("two\\nlines")
    ('"B01"', '"two\\\\nlines"')
    """
    text = str(text)
    text = text if len(text) <= 80 else text[:77] + "..."
    return f'"{text}"' if text.isprintable() and '"' not in text else json.dumps(text)


def name_list(names: Iterable[object]) -> str:
    """Return field names for a message, the first twenty.

    >>> name_list(["title", "brand"])
    'title, brand'
    """
    shown = [name if name.isprintable() else quote(name) for name in map(str, names)]
    return ", ".join(shown[:20]) + (f", and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"
