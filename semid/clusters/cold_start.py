"""Newcomers among clusters: users and items that came later get the tokens of the nearest cluster with room.

Nearest by partial history: a new user is where the items are that he met, a new item where its users are. Whoever met
nobody that is known gets a reserved code. Tokens that were given out stay as they are, and there is never a new token:
when the fine codes of a cluster are used up, the next nearest one takes the newcomer.

Not here: learning clusters (`fit.py`). C coarse codes, F fine codes, D dims.
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
    """The same clusters with new users and items; those that were there keep their tokens.

    Parameters
    ----------
    users
        New user id -> the items met, in any order; unknown items are passed over.
    items
        New item id -> the users who met it. New users and items do not place each other.

    Raises
    ------
    InputError
        An id exists, or comes with a string where a list of ids is expected.
    CapacityError
        All pairs of tokens are given out.

    >>> from semid.clusters.fit import ClusterConfig, fit_clusters
    >>> from semid.encoders.collaborative import WalkConfig
    >>> from semid.data.interactions import read_interactions
    >>> lines = [{"user": f"u{n}", "items": [f"i{(n + k) % 6}" for k in range(4)]} for n in range(6)]
    >>> config = ClusterConfig(clusters=2, room=1, walks=WalkConfig(dim=4))
    >>> clusters = add_members(fit_clusters(read_interactions(lines), config), users={"u9": ["i1", "i2"]})
    >>> len(clusters.users), clusters.decode(clusters.users.tokens("u9")).id
    (7, 'u9')
    """
    newcomers = {"user": dict(users or {}), "item": dict(items or {})}
    taken = np.zeros(clusters.sizes, bool)
    for side in SIDES:
        taken[tuple(clusters.members(side).codes.T.astype(np.int64))] = True
    grown = {}
    for side in SIDES:
        members, partners = clusters.members(side), clusters.members(SIDES[side == "user"])
        ids = sorted(newcomers[side])
        points = _places([newcomers[side][one] for one in ids], ids, partners)
        codes = np.array([_free_codes(clusters, side, point, taken) for point in points], np.int64).reshape(-1, 2)
        grown[side] = Members(
            members.ledger.append(ids, codes) if ids else members.ledger,
            members.vocabulary,
            np.concatenate([members.vectors, points.astype(np.float16)]),
        )
    return replace(clusters, users=grown["user"], items=grown["item"])


def _places(histories: Sequence[Sequence[str]], ids: Sequence[str], partners: Members) -> Floats:
    """The mean direction of the known ones in each history, zero where there is none: float32 [len(ids), D]."""
    points = np.zeros((len(ids), partners.vectors.shape[1]), np.float32)
    for row, (one, met) in enumerate(zip(ids, histories, strict=True)):
        if isinstance(met, str):
            raise InputError(f"{one!r} comes with {met!r}; expected a list of ids. Write [{met!r}].")
        rows = partners.ledger.find_rows(met)
        points[row] = np.asarray(partners.vectors[rows[rows >= 0]], np.float32).sum(axis=0)
    return divided_by_length(points)


def _free_codes(clusters: ClusterTokens, side: Side, point: Floats, taken: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The nearest cluster with room and the best free fine code there; marks them as taken."""
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
        f"no tokens are left for another {side}: {taken.sum()} pairs are given out. Learn clusters again, with more "
        "--room."
    )
