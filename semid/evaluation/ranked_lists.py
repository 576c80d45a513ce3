"""Recommendation lists as arrays: which places each recommended item takes.

A list is what one test case is recommended, best first. Its entries are items, or IDs. An ID that g items share stands
for all of them: it takes g places, and each of its items is equally likely at each of them. So a set of IDs with
collisions is not credited for an item that it cannot tell from others ("Faithful Evaluation of Semantic-ID Tokenizers
for Generative Recommendation", arXiv 2605.25330).

R lists with E entries in all; G groups of items with one ID, each a single item where the entries are items.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from semid.errors import InputError

__all__ = ["RankedLists", "rank_lists", "read_lists"]


@runtime_checkable
class GeneratedItems(Protocol):
    """What `semid.generate_items` returns, as far as it is needed here."""

    @property
    def item_ids(self) -> list[list[str]] | None: ...

    @property
    def token_ids(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class RankedLists:
    """R lists of recommendations. Made by `rank_lists`."""

    offsets: npt.NDArray[np.int64]  # (R + 1,) - list r has the entries offsets[r]:offsets[r + 1]
    groups: npt.NDArray[np.int64]  # (E,) - -1 for an entry that is no item, or that the list had before
    sizes: npt.NDArray[np.int64]  # (E,) - places of each entry, at least 1
    first: npt.NDArray[np.int64]  # (E,) - the first of its places, from 1
    group_of: dict[str, int]  # item id -> group
    group_sizes: npt.NDArray[np.int64]  # (G,) - items of each group
    n_catalog: int  # groups below this number are of the catalog; 0 if none was given
    n_unknown: int  # entries that are no item of the catalog
    n_repeated: int  # entries that their list had before

    def __len__(self) -> int:
        """Return R."""
        return len(self.offsets) - 1

    def rows(self) -> npt.NDArray[np.int64]:
        """Return the list of each entry: int64 [E]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def places_within(self, k: int) -> npt.NDArray[np.int64]:
        """Return how many of each entry's places are among the first k: int64 [E]."""
        return np.clip(k + 1 - self.first, 0, self.sizes)


def read_lists(recommendations: object, catalog: object = None) -> tuple[list[Sequence[Any]], bool]:
    """Return lists of recommendations, and whether their entries are IDs.

    Parameters
    ----------
    recommendations : sequence of R lists, int [R, n, L], or Generated
        Each list best first. Negative numbers of an array are padding.
    catalog : collection of str, or mapping of str to ID, optional
        All items. A mapping says that the entries are IDs, unless a `Generated` names the items.

    Raises
    ------
    InputError
        Not a sequence of lists, or IDs without a catalog of IDs.

    >>> read_lists(np.array([[[1, 2], [1, 3], [-1, -1]]]), {"a": (1, 2), "b": (1, 3)})
    ([[[1, 2], [1, 3]]], True)
    """
    lists: Any = recommendations
    if isinstance(recommendations, GeneratedItems):
        if recommendations.item_ids is not None:
            return list(recommendations.item_ids), False
        lists = recommendations.token_ids
    if hasattr(lists, "tolist"):  # an array, or a tensor, without importing torch
        if getattr(lists, "ndim", 0) != 3:
            raise InputError("recommendations: an array should be integers [R, n, L]: the IDs of n items in each list.")
        if not isinstance(catalog, Mapping):
            raise InputError("recommendations: these are token ids. Say what they mean: catalog={item: token ids}.")
        lists = [[entry for entry in row if min(entry) >= 0] for row in lists.tolist()]
    if isinstance(lists, str | bytes) or not isinstance(lists, Sequence):
        raise InputError(f"recommendations: got a {type(lists).__name__}; expected a sequence of lists, best first.")
    for number, one in enumerate(lists):
        if isinstance(one, str | bytes) or not isinstance(one, Sequence):
            raise InputError(
                f"recommendations: entry {number} is a {type(one).__name__}; expected a list of items, best first."
            )
    return list(lists), isinstance(catalog, Mapping)


def rank_lists(
    lists: Sequence[Sequence[Any]], catalog: Collection[str] | None = None, *, of_ids: bool = False
) -> RankedLists:
    """Give the items of lists numbers, and find the places that each entry takes.

    Parameters
    ----------
    lists : sequence of R sequences
        Item ids, or IDs: texts, or sequences of tokens, codes or token ids.
    catalog : collection of str, or mapping of str to ID, optional
        All items, with their IDs if the lists hold IDs.
    of_ids : bool
        Whether the lists hold IDs. Default: False.

    Raises
    ------
    InputError
        No entry of any list is in the catalog.

    >>> ids = {"a": "<a_0><b_0>", "b": "<a_0><b_0>", "c": "<a_1><b_0>"}
    >>> lists = rank_lists([["<a_0><b_0>", "<a_1><b_0>"]], ids, of_ids=True)
    >>> lists.first.tolist(), lists.sizes.tolist()
    ([1, 3], [2, 1])
    """
    return _of_ids(lists, catalog) if of_ids and isinstance(catalog, Mapping) else _of_items(lists, catalog or ())


def _of_items(lists: Sequence[Sequence[str]], catalog: Collection[str]) -> RankedLists:
    group_of = {item_id: row for row, item_id in enumerate(catalog)}
    n_catalog = len(group_of)
    groups = _numbered(lists, lambda item_id: group_of.setdefault(item_id, len(group_of)))
    return _ranked(lists, groups, group_of, np.ones(len(group_of), np.int64), n_catalog)


def _of_ids(lists: Sequence[Sequence[object]], catalog: Mapping[str, object]) -> RankedLists:
    number = dict[Hashable, int]()
    group_of = {item_id: number.setdefault(_key(one), len(number)) for item_id, one in catalog.items()}
    sizes = np.bincount(np.fromiter(group_of.values(), np.int64), minlength=len(number))
    groups = _numbered(lists, lambda one: number.get(_key(one), -1))
    return _ranked(lists, groups, group_of, sizes.astype(np.int64), len(number))


def _key(one: object) -> Hashable:
    """Return an ID as something to look up: a text, or a tuple of numbers.

    >>> _key("<a_1><b_2>") == _key(["<a_1>", "<b_2>"]), _key(np.array([3, 4]))
    (True, (3, 4))
    """
    if isinstance(one, str):
        return one
    parts: list[Any] = one.tolist() if isinstance(one, np.ndarray) else list(one) if isinstance(one, Iterable) else []
    return "".join(parts) if parts and isinstance(parts[0], str) else tuple(parts)


def _numbered(lists: Iterable[Sequence[Any]], number: Callable[[Any], int]) -> npt.NDArray[np.int64]:
    return np.fromiter((number(entry) for one in lists for entry in one), np.int64)


def _ranked(
    lists: Sequence[Sequence[object]],
    groups: npt.NDArray[np.int64],
    group_of: dict[str, int],
    group_sizes: npt.NDArray[np.int64],
    n_catalog: int,
) -> RankedLists:
    unknown = (groups < 0) | (groups >= n_catalog) if n_catalog else np.zeros(len(groups), np.bool_)
    if len(groups) and unknown.all():
        example = next(entry for one in lists for entry in one)
        raise InputError(f"recommendations: no entry is in the catalog, such as {example!r}. Are the ids the same?")
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists], dtype=np.int64)]).astype(np.int64)
    rows = np.repeat(np.arange(len(lists)), np.diff(offsets))
    sizes = np.where(groups < 0, 1, group_sizes[groups] if len(group_sizes) else 1)
    _, kept = np.unique(rows * (len(group_sizes) + 1) + groups, return_index=True)  # the first of equal entries
    repeated = groups >= 0
    repeated[kept] = False
    sizes = np.where(repeated, 1, sizes)
    before = np.concatenate([[0], np.cumsum(sizes)])
    first = before[:-1] - np.repeat(before[offsets[:-1]], np.diff(offsets)) + 1
    counts = (int(unknown.sum()), int(repeated.sum()))
    return RankedLists(offsets, np.where(repeated, -1, groups), sizes, first, group_of, group_sizes, n_catalog, *counts)
