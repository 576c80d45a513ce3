"""The options of a request to a server, and the catalog with its filters. Shared by all serving engines.

A request carries flat options, `semid_mode`, `semid_without` and so on (`RequestOptions`), because engines pass on only
strings, numbers and lists of them. Filters too long to send are files on the server: `NAME.txt` with one item id per
line, in the folder that `SEMID_FILTERS` names. A replaced file takes effect with the next request.

A request must never stop the server. One that is wrong when it arrives is refused (`check`); one that turns out later
to be impossible ends at once (`batch_masks.py`). Item ids that the catalog lacks are ignored, because clients and
artifacts are rarely updated at the same moment.

Not here: torch, engines. N items.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.block import find_base
from semid.trie import Filter, Trie

__all__ = ["Catalog", "RequestOptions", "open_catalog"]

PREFIX = "semid_"
Mode = Literal["text", "items", "off"]
MODES: tuple[Mode, ...] = ("text", "items", "off")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # cannot leave the folder of filters
ARTIFACT, FILTERS = "SEMID_ARTIFACT", "SEMID_FILTERS"  # environment variables


@dataclass(frozen=True)
class RequestOptions:
    """The checked `semid_...` options of one request; the fields are named without the prefix.

    >>> RequestOptions.of({"semid_mode": "items", "semid_without": ["B1"], "temperature": 1})
    RequestOptions(mode='items', filter=(), only=None, without=('B1',), min_items=None, max_items=None, repeats=True, \
markers=False)
    >>> try:
    ...     RequestOptions.of({"semid_witout": ["B1"]})
    ... except ConfigError as error:
    ...     print(str(error)[:58])
    semid_witout is not an option. Did you mean semid_without?
    """

    mode: Mode = "text"  # free text with items in it, items alone, or unconstrained
    filter: tuple[str, ...] = ()  # names of the server's filters; an item must pass all of them
    only: tuple[str, ...] | None = None  # item ids to admit; None: all
    without: tuple[str, ...] = ()  # item ids to ban
    min_items: int | None = None
    max_items: int | None = None  # None: no limit in the mode "text", one item in the mode "items"
    repeats: bool = True  # False: no item twice in one answer
    markers: bool = False  # enclose every item in the begin and the end marker

    @classmethod
    def of(cls, arguments: Mapping[str, object] | None) -> RequestOptions:
        """Read the options among the arguments of a request; arguments without the prefix `semid_` are ignored.

        Raises
        ------
        ConfigError
            An option is unknown, or its value has the wrong type or is out of range.
        """
        known = {PREFIX + field.name: field.name for field in fields(cls)}
        given = {name: value for name, value in (arguments or {}).items() if name.startswith(PREFIX)}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name.removeprefix(PREFIX), known.values(), n=1)
                hint = f" Did you mean {PREFIX}{near[0]}?" if near else ""
                raise ConfigError(f"{name} is not an option.{hint} The options are {', '.join(known)}.")
        mode = given.get("semid_mode", "text")
        known_mode = next((one for one in MODES if one == mode), None)
        if known_mode is None:
            raise ConfigError(f"semid_mode={mode!r} should be one of {', '.join(MODES)}.")
        return cls(
            mode=known_mode,
            filter=_strings(given, "semid_filter") or (),
            only=_strings(given, "semid_only"),
            without=_strings(given, "semid_without") or (),
            min_items=_count(given, "semid_min_items", 0),
            max_items=_count(given, "semid_max_items", 1),
            repeats=_flag(given, "semid_repeats", cls.repeats),
            markers=_flag(given, "semid_markers", cls.markers),
        )

    @property
    def filters(self) -> bool:
        """Whether the options restrict the items."""
        return bool(self.filter or self.without) or self.only is not None


def _strings(given: Mapping[str, object], name: str) -> tuple[str, ...] | None:
    if name not in given:
        return None
    value = given[name]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
        raise ConfigError(f"{name}={value!r:.100} should be a string or a list of strings.")
    return tuple(values)


def _flag(given: Mapping[str, object], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if value not in (0, 1):  # True and False are equal to them
        raise ConfigError(f"{name}={value!r} should be 0 or 1.")
    return bool(value)


def _count(given: Mapping[str, object], name: str, smallest: int) -> int | None:
    if name not in given:
        return None
    value = given[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigError(f"{name}={value!r} should be an integer of at least {smallest}.")
    return value


def open_catalog(model: str | None = None, *, tokenizer: str | None = None) -> Catalog:
    """Return the catalog that this process serves; it is opened once.

    The environment variable `SEMID_ARTIFACT` names the artifact, `SEMID_FILTERS` the folder of filters.

    Parameters
    ----------
    model
        The model's folder or Hub repository, which is opened if `SEMID_ARTIFACT` is not set. Default: none.
    tokenizer
        Name of the language model's tokenizer. It is loaded only if the artifact does not know the token ids of its
        codes. Default: none.

    Raises
    ------
    ConfigError
        There is neither `SEMID_ARTIFACT` nor `model`, or the tokenizer lacks the tokens.
    ArtifactError
        There is no artifact, or it is damaged.
    """
    folder = os.environ.get(ARTIFACT) or model
    if not folder:
        raise ConfigError(f"{ARTIFACT} is not set. Set it to the model folder that semid extend wrote.")
    return _open(folder, tokenizer, os.environ.get(FILTERS) or None)


@lru_cache(maxsize=4)
def _open(folder: str, tokenizer: str | None, filters: str | None) -> Catalog:
    ids = SemanticIDTokenizer.from_pretrained(folder)
    base = ids.base
    if base is None and tokenizer is not None:
        from transformers import AutoTokenizer

        base = find_base(ids.vocabulary, AutoTokenizer.from_pretrained(tokenizer))
    return Catalog(ids, base=base, filters=filters)


class Catalog:
    """An artifact's trie, and the filters that requests ask for.

    Parameters
    ----------
    ids
        The artifact.
    base
        Token id of the first code. Default: None, enough to check requests.
    filters
        The folder of the server's own filters. Default: no such filters.
    """

    def __init__(self, ids: SemanticIDTokenizer, *, base: int | None = None, filters: str | Path | None = None) -> None:
        self.ids = ids
        self.trie = Trie.from_ledger(ids.ledger, ids.sizes, base=base)
        self._folder = None if filters is None else Path(filters)
        self._named: dict[
            str, tuple[tuple[int, int, int], Filter]
        ] = {}  # name -> its file's times and size, the filter
        self._made: WeakValueDictionary[object, Filter] = WeakValueDictionary()

    def check(self, options: RequestOptions) -> None:
        """Raise ConfigError if the request's filter cannot be made or admits nothing."""
        if options.mode != "off":
            self.filter(options)

    def filter(self, options: RequestOptions) -> Filter | None:
        """Return the filter of a request, None for the whole catalog; running requests with equal options share one.

        Raises
        ------
        ConfigError
            The filter cannot be made or admits nothing.
        """
        return self._filter(options) if options.filters else None

    @cached_property
    def nothing(self) -> Filter:
        """A filter that admits no item."""
        return Filter(len(self.trie), np.zeros(len(self.trie) + 1, np.int32), origin=self.trie.origin)

    def _filter(self, options: RequestOptions) -> Filter:
        named = [self._of_file(name) for name in options.filter]
        if len(named) == 1 and options.only is None and not options.without:
            return named[0]
        key = (*(self._named[name][0] for name in options.filter), options)
        made = self._made.get(key)
        if made is None:
            for each in named:
                made = each if made is None else made.narrowed(np.flatnonzero(each.mask()), None)
            only = None if options.only is None else self._rows(options.only)
            made = self.trie.filter(only, without=self._rows(options.without), within=made)
            self._made[key] = made
        return made

    def _of_file(self, name: str) -> Filter:
        """Return the filter of a file, which is read again when the file has changed."""
        if self._folder is None:
            raise ConfigError(f"semid_filter={name!r}: this server has no filters. Start it with {FILTERS}=FOLDER.")
        path = self._folder / f"{name}.txt"
        if not NAME.fullmatch(name) or not path.is_file():
            there = ", ".join(sorted(each.stem for each in self._folder.glob("*.txt"))) or "none"
            raise ConfigError(f"semid_filter={name!r} is not a filter of this server. It has: {there}.")
        try:
            stat = path.stat()
            stamp = stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size  # a copy may keep the first and the last of these
            if name not in self._named or self._named[name][0] != stamp:
                self._named[name] = stamp, self.trie.filter(self._rows(_lines(path)))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}. Write one item id per line, in UTF-8.") from error
        return self._named[name][1]

    def _rows(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the rows of the ids that the catalog holds; other ids are ignored."""
        rows = self.ids.ledger.find_rows(item_ids)
        return rows[rows >= 0]


def _lines(path: Path) -> list[str]:
    """Return the item ids of a file, one per line. An id may hold other separators (a form feed, U+2028)."""
    content = path.read_bytes().decode("utf-8-sig")  # Windows writes a byte order mark before the first id
    return [line for line in content.replace("\r\n", "\n").split("\n") if line]
