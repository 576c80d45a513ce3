"""Interactions whose items are not in the catalog: counted and said in one line; no known item at all is an error."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Interactions
from semid.errors import InputError
from semid.files.problems import quote
from semid.runtime.checks import plural

__all__ = ["check_known_items", "known_items", "look_alike", "unknown_items"]

Kind = Literal["catalog", "artifact", "index file"]

logger = logging.getLogger("semid")

COMPARED = 100_000  # ids of each side that are searched for two that look alike
FIX = {
    "catalog": "Name the fields with --item-field or --id-field.",
    "artifact": "Name the item field with --item-field, or fit again with the right --id-field.",
    "index file": "Name the item field with --item-field.",
}


def known_items(log: Interactions, item_ids: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Return for each of `log.item_ids` whether it is one of `item_ids`: bool [n items].

    >>> log = Interactions(["u"], ["a", "b", "c"], np.array([0, 2]), np.array([0, 2], np.int32))
    >>> known_items(log, ["c", "d"]).tolist()
    [False, False, True]
    """
    place = {item_id: number for number, item_id in enumerate(log.item_ids)}
    known = np.zeros(len(log.item_ids), np.bool_)
    for item_id in item_ids:
        number = place.get(item_id)
        if number is not None:
            known[number] = True
    return known


def check_known_items(
    log: Interactions, item_ids: Sequence[str], *, kind: Kind = "catalog", fate: str = "they are left out"
) -> None:
    """Log the line of `unknown_items`, which see, where there is something to say."""
    if line := unknown_items(log, item_ids, kind=kind, fate=fate):
        logger.warning("%s", line)


def unknown_items(
    log: Interactions, item_ids: Sequence[str], *, kind: Kind = "catalog", fate: str = "they are left out"
) -> str | None:
    """Say in one line how many interactions are about items that are not in a catalog, and how many such items.

    Parameters
    ----------
    log : Interactions
        All of the interactions, held out or not.
    item_ids : sequence of str
        The ids of the catalog.
    kind : {"catalog", "artifact", "index file"}
        What the ids come from, for the advice.
    fate : str
        What becomes of these interactions, in words.

    Returns
    -------
    str or None
        None if all items are in the catalog.

    Raises
    ------
    InputError
        None of the items is in the catalog. Names an item of each side, two that look alike if there are any.

    >>> log = Interactions(["u"], ["7", "item_7"], np.array([0, 2]), np.array([0, 1], np.int32), "log.csv")
    >>> unknown_items(log, ["5", "7"])
    'log.csv: 1 of 2 events (50.0 %) are about 1 item that is not in the catalog; they are left out'
    >>> unknown_items(log, ["5", "item_5"])
    Traceback (most recent call last):
    semid.errors.InputError: log.csv: none of its items is in the catalog: "7" here, for instance, and "5" there. \
Name the fields with --item-field or --id-field.
    """
    known = known_items(log, item_ids)
    n_events = int(np.count_nonzero(~known[log.items]))
    if not n_events:
        return None
    if n_events == len(log.items):
        here, there = look_alike(log.item_ids, item_ids)
        raise InputError(
            f"{log.source}: none of its items is in the {kind}: {quote(here)} here, for instance, and {quote(there)} "
            f"there. {FIX[kind]}"
        )
    n_items = len(np.unique(log.items[~known[log.items]]))
    events = f"{n_events:,} of {len(log.items):,} events ({_share(n_events, len(log.items))})"
    items = f"{plural(n_items, 'item')} that {'is' if n_items == 1 else 'are'}"
    return f"{log.source}: {events} are about {items} not in the {kind}; {fate}"


def _share(part: int, whole: int) -> str:
    """Return a share in percent, one digit behind the point; never 0.0 % of something.

    >>> _share(12, 1000), _share(1, 10**6), _share(999_999, 10**6)
    ('1.2 %', 'under 0.1 %', 'over 99.9 %')
    """
    percent = 100 * part / whole
    return "under 0.1 %" if percent < 0.05 else "over 99.9 %" if percent >= 99.95 else f"{percent:.1f} %"


def look_alike(item_ids: Sequence[str], others: Sequence[str]) -> tuple[str, str]:
    """Return an id of each side; two that differ in zeros, a prefix or capitals alone, if there are such.

    >>> look_alike(["item_2", "item_17"], ["0017", "0018"]), look_alike(["7.0"], ["8", "7"]), look_alike(["a"], ["b"])
    (('item_17', '0017'), ('7.0', '7'), ('a', 'b'))
    """
    bare = {_bare(item_id): item_id for item_id in islice(item_ids, COMPARED)}
    for other in islice(others, COMPARED):
        if _bare(other) in bare:
            return bare[_bare(other)], other
    return item_ids[0], others[0]


def _bare(item_id: str) -> str:
    """Return an id without a prefix, leading zeros, a decimal of zeros and capitals."""
    text = re.sub(r"\.0+$", "", item_id.strip().casefold())
    return re.split(r"[\s_:/#-]", text)[-1].lstrip("0")
