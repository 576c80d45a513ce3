"""Add new users and items: they get free tokens of the nearest cluster that has any.

A new user is placed at the mean of the items of his history, a new item at the mean of its users. One without a known
partner gets a reserved code. Assigned tokens never change, and there is never a new token: when the fine codes of a
cluster are used up, the next nearest cluster is taken.

Not here: fitting clusters (`fit.py`). C coarse codes, F fine codes, D dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from semid.clusters.tokens import SIDES, ClusterTokens, Members, Side
from semid.errors import CapacityError, InputError
from semid.runtime.arrays import divided_by_length

__all__ = ["add_members"]

Floats = npt.NDArray[np.float32]


def add_members(
    clusters: ClusterTokens,
    *,
    users: Mapping[str, Sequence[str]] | None = None,
    items: Mapping[str, Sequence[str]] | None = None,
) -> ClusterTokens:
    """Return the same clusters with new users and items; the old ones keep their tokens.

    Parameters
    ----------
    clusters : ClusterTokens
        The clusters, which stay as they are.
    users : new user id -> item ids, optional
        The history of each new user, in any order; unknown items are ignored.
    items : new item id -> user ids, optional
        The users of each new item. New users and items do not place each other.

    Raises
    ------
    InputError
        An id exists, or has a string instead of a list of ids.
    CapacityError
        All pairs of tokens are assigned.

    >>> from semid.clusters.fit import ClusterConfig, fit_clusters
    >>> from semid.encoders.collaborative import WalkConfig
    >>> from semid.data.interaction_reader import read_interactions
    >>> lines = [{"user": f"u{n}", "items": [f"i{(n + k) % 6}" for k in range(4)]} for n in range(6)]
    >>> config = ClusterConfig(clusters=2, spare_codes=1, walks=WalkConfig(dim=4))
    >>> clusters = add_members(fit_clusters(read_interactions(lines), config), users={"u9": ["i1", "i2"]})
    >>> len(clusters.users), clusters.decode(clusters.users.tokens("u9")).id
    (7, 'u9')
    """
    new = {"user": dict(users or {}), "item": dict(items or {})}
    taken = np.zeros(clusters.sizes, bool)
    for side in SIDES:
        taken[tuple(clusters.members(side).codes.T.astype(np.int64))] = True
    grown = {}
    for side in SIDES:
        members, partners = clusters.members(side), clusters.members(SIDES[side == "user"])
        ids = sorted(new[side])
        points = _mean_directions([new[side][one] for one in ids], ids, partners)
        codes = np.array([_free_codes(clusters, side, point, taken) for point in points], np.int64).reshape(-1, 2)
        grown[side] = Members(
            members.ledger.append(ids, codes) if ids else members.ledger,
            members.vocabulary,
            np.concatenate([members.vectors, points.astype(np.float16)]),
        )
    return replace(clusters, users=grown["user"], items=grown["item"])


def _mean_directions(histories: Sequence[Sequence[str]], ids: Sequence[str], partners: Members) -> Floats:
    """Return the mean direction of the known partners in each history, float32 [M, D]; zeros if there is none."""
    points = np.zeros((len(ids), partners.vectors.shape[1]), np.float32)
    for row, (one, met) in enumerate(zip(ids, histories, strict=True)):
        if isinstance(met, str):
            raise InputError(f"{one!r} has {met!r}; expected a list of ids. Write [{met!r}].")
        rows = partners.ledger.find_rows(met)
        points[row] = np.asarray(partners.vectors[rows[rows >= 0]], np.float32).sum(axis=0)
    return divided_by_length(points)


def _free_codes(clusters: ClusterTokens, side: Side, point: Floats, taken: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the nearest cluster with a free fine code, and the best one there; mark the pair as taken."""
    (first, end), (reserved, last) = clusters.coarse_of[side], clusters.coarse_of["reserved"]
    nearest = first + np.argsort(-(clusters.centroids[first:end] @ point), kind="stable")
    spare = np.arange(reserved, last)
    order = np.concatenate([nearest, spare] if point.any() else [spare, nearest])
    for coarse in order.tolist():
        free = np.flatnonzero(~taken[coarse])
        if len(free):
            fine = int(free[0])
            if clusters.fine is not None and point.any():
                left = point - clusters.centroids[coarse]
                fine = int(free[((clusters.fine[free] - left) ** 2).sum(axis=1).argmin()])
            taken[coarse, fine] = True
            return coarse, fine
    raise CapacityError(
        f"no tokens are left for another {side}: all {taken.sum()} pairs are assigned. Fit clusters again, with more "
        "--spare-codes."
    )
