"""Two recommenders without a model, to stand beside those with one.

Popularity recommends the same items to everybody. Co-occurrence recommends what came next most often after the user's
last item, in training, and then the most popular items.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["recommend_next", "recommend_popular"]


def recommend_popular(popularity: Mapping[str, float], n: int) -> list[str]:
    """Return the n most popular items, equal ones by id.

    >>> recommend_popular({"a": 1, "c": 2, "b": 1}, 2)
    ['c', 'a']
    """
    return sorted(popularity, key=lambda item: (-popularity[item], item))[:n]


def recommend_next(
    pairs: Iterable[tuple[str, str]], last_items: Sequence[str], popularity: Mapping[str, float], n: int
) -> list[list[str]]:
    """Return n items for each last item: what followed it most often, then the most popular ones.

    Parameters
    ----------
    pairs : iterable of (str, str)
        An item and the one after it, for all training histories.
    last_items : sequence of R str
        The last item of each history to continue; "" for none.
    popularity : mapping of str to number
        Training interactions of each item. Decides between equal counts, and fills up the lists.
    n : int
        Items of each list.

    >>> recommend_next([("a", "b"), ("a", "c"), ("a", "c")], ["a", "x"], {"a": 5, "b": 1, "c": 2}, 3)
    [['c', 'b', 'a'], ['a', 'c', 'b']]
    """
    popular = recommend_popular(popularity, n)
    wanted = set(last_items)
    after = defaultdict[str, Counter[str]](Counter)
    for before, item in pairs:
        if before in wanted:
            after[before][item] += 1
    lists = dict[str, list[str]]()
    for last, counts in after.items():
        ranked = sorted((-count, -popularity.get(item, 0), item) for item, count in counts.items())[:n]
        lists[last] = [*(item for _, _, item in ranked), *(item for item in popular if item not in counts)][:n]
    return [lists.get(last, popular) for last in last_items]
