"""Head, mid, tail and cold items, by how often they occur in the training data.

    head   the most popular items, which together have a fifth of all training interactions
    tail   the least popular items, which together have a fifth
    mid    those between
    cold   items without a training interaction

Shares of interactions, as in Abdollahpouri et al., "The Connection Between Popularity Bias, Calibration, and Fairness
in Recommendation" (RecSys 2020). Items with the same count are in the same stratum: their order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

__all__ = ["STRATA", "assign_strata"]

STRATA = ("head", "mid", "tail", "cold")
SHARE = 0.2  # of the training interactions, for head and for tail


def assign_strata(item_ids: Iterable[str], popularity: Mapping[str, float]) -> dict[str, str]:
    """Return the stratum of each item.

    Parameters
    ----------
    item_ids : iterable of str
        The items to assign, those of `popularity` or others.
    popularity : mapping of str to number
        Training interactions of each item. Items that it lacks have none.

    >>> strata = assign_strata("abcdex", {"a": 60, "b": 20, "c": 10, "d": 5, "e": 5})
    >>> "".join(item for item in strata if strata[item] == "head"), strata["b"], strata["c"], strata["e"], strata["x"]
    ('a', 'mid', 'tail', 'tail', 'cold')
    """
    counts = np.array([count for count in popularity.values() if count > 0], np.float64)
    values, items = np.unique(counts, return_counts=True)
    mass = values * items
    below = np.cumsum(mass) - mass  # interactions of the less popular items
    above = mass.sum() - below - mass
    limit = SHARE * mass.sum()
    head, tail = above < limit, below < limit
    names = np.select([head & ~tail, tail & ~head], ["head", "tail"], "mid").tolist()
    of_count = dict(zip(values.tolist(), names, strict=True)) | {0.0: "cold"}
    return {item_id: of_count[max(float(popularity.get(item_id, 0)), 0.0)] for item_id in item_ids}
