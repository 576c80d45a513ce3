"""Recall, NDCG, MRR, coverage and popularity the plain way: every order of every colliding set, list by list."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations, product


def orders(entries: Sequence[object], catalog: Mapping[str, object]) -> Iterator[list[str | None]]:
    """Yield every list of items that a list of IDs may stand for, all equally likely; None for an unknown ID."""
    sets, seen = [], set()
    for entry in entries:
        items = [item for item, one in catalog.items() if one == entry]
        sets.append([None] if entry in seen or not items else items)
        seen.add(entry)
    for choice in product(*(permutations(items) for items in sets)):
        yield [item for items in choice for item in items]


def figures_of_items(items: Sequence[str | None], relevant: set[str], k: int) -> tuple[float, float, float]:
    """Return recall@k, ndcg@k and mrr of one list of items."""
    hits = [place for place, item in enumerate(items, 1) if item in relevant]
    gain = sum(1 / math.log2(1 + place) for place in hits if place <= k)
    ideal = sum(1 / math.log2(1 + place) for place in range(1, min(k, len(relevant)) + 1))
    return sum(place <= k for place in hits) / len(relevant), gain / ideal, 1 / hits[0] if hits else 0.0


def mean_figures(lists: Sequence, relevant: Sequence[set[str]], catalog: Mapping[str, object], k: int) -> list[float]:
    """Return recall@k, ndcg@k and mrr: the mean over lists of the mean over their orders."""
    rows = []
    for entries, wanted in zip(lists, relevant, strict=True):
        each = [figures_of_items(items, wanted, k) for items in orders(entries, catalog)]
        rows.append([sum(column) / len(each) for column in zip(*each, strict=True)])
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def coverage(lists: Sequence, catalog: Mapping[str, object], k: int) -> float:
    """Return the expected share of the catalog in the first k places of some list, lists being independent."""
    missed = dict.fromkeys(catalog, 1.0)
    for entries in lists:
        each = [set(items[:k]) for items in orders(entries, catalog)]
        for item in catalog:
            missed[item] *= sum(item not in items for items in each) / len(each)
    return sum(1 - one for one in missed.values()) / len(missed)


def popularity_ratio(
    lists: Sequence, relevant: Sequence[set[str]], catalog: Mapping[str, object], counts: Mapping[str, int], k: int
) -> float:
    """Return the mean over lists of the mean popularity of their items, divided by that of the relevant items."""
    means = []
    for entries in lists:
        each = [[counts.get(item, 0) for item in items[:k] if item] for items in orders(entries, catalog)]
        if shown := sum(map(len, each)):
            means.append(sum(map(sum, each)) / shown)
    asked = [counts.get(item, 0) for wanted in relevant for item in wanted]
    if not means:
        return math.nan
    return sum(means) / len(means) / (sum(asked) / len(asked))
