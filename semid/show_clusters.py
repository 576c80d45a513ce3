"""What `semid show` and `semid info` tell of cluster tokens, as plain data and as lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from semid.assign.lookup import near_ids
from semid.clusters import SIDES
from semid.errors import UnknownIDError

if TYPE_CHECKING:
    from semid.clusters import ClusterTokens, Members, Side

__all__ = ["cluster_info", "describe_member_lines", "describe_members"]


def cluster_info(clusters: ClusterTokens) -> dict[str, str]:
    """What cluster tokens are."""
    first, end = clusters.coarse_of["reserved"]
    used = np.concatenate([clusters.members(side).codes[:, 0] for side in SIDES])
    fullest = int(np.bincount(used, minlength=end)[:first].max()) if len(used) and first else 0
    shared = clusters.coarse_of["user"] == clusters.coarse_of["item"]
    balanced = {True: ", balanced", False: ", as they fell"}.get(clusters.config.get("balanced"), "")
    settings, walks = dict(clusters.config), clusters.config.get("walks", {})
    settings.pop("walks", None)
    return {
        "kind": "tokens of users and items",
        **{f"{side}s": _how_many(clusters, side) for side in SIDES},
        "clusters": f"{first:,}, {'shared by' if shared else 'apart for'} users and items{balanced}; "
        f"{end - first} reserved for those of whom nothing is known",
        "in a cluster": f"{fullest:,} at most; {clusters.sizes[1]:,} second tokens, "
        + ("by rank" if clusters.fine is None else "with vectors of their own"),
        "tokens": f"{clusters.n_tokens:,}, like {clusters.vocabulary.text([0, 0])}",
        "settings": _listed(settings) or f"none: imported from {_names(clusters.provenance.get('imported_from'))}",
        **({"walks": _listed(walks)} if walks else {}),
        "fingerprint": clusters.fingerprint,
    }


def describe_members(clusters: ClusterTokens, wanted: str, n_neighbours: int) -> list[dict[str, Any]]:
    """The user and the item of an id, whichever there are: tokens, who shares the cluster, and who is nearest in it.

    UnknownIDError, with near matches, if there is neither.
    """
    rows = {side: int(clusters.members(side).ledger.find_rows([wanted])[0]) for side in SIDES}
    found = [_describe(clusters, side, row, n_neighbours) for side, row in rows.items() if row >= 0]
    if not found:
        near = [one for side in SIDES for one in near_ids(wanted, clusters.members(side).ids)]
        hint = f" Did you mean {', '.join(map(repr, near[:3]))}?" if near else ""
        counts = f"{len(clusters.users):,} users nor the {len(clusters.items):,} items"
        raise UnknownIDError(f"id {wanted!r} is neither among the {counts}.{hint}")
    return found


def describe_member_lines(member: dict[str, Any]) -> list[str]:
    """One of `describe_members` for people."""
    known = "reserved for those of whom nothing is known, " if member["reserved"] else ""
    shared = ", ".join(f"{count:,} {side}" for side, count in member["sharing_cluster"].items())
    lines = [f"{member['id']} ({member['kind']})", f"  {member['tokens']}", f"  others in the cluster: {known}{shared}"]
    return lines + [
        f"    {other['tokens']}  {other['kind']} {other['id']}  cosine {other['cosine']:.2f}"
        for other in member["neighbours"]
    ]


def _describe(clusters: ClusterTokens, kind: Side, row: int, n_neighbours: int) -> dict[str, Any]:
    members = clusters.members(kind)
    codes = members.codes[row]
    inside = {side: np.flatnonzero(clusters.members(side).codes[:, 0] == codes[0]) for side in SIDES}
    inside[kind] = inside[kind][inside[kind] != row]
    own = members.vectors[row].astype(np.float32)
    near = [one for side in SIDES for one in _nearest(clusters.members(side), side, inside[side], own, n_neighbours)]
    return {
        "kind": kind,
        "id": members.ids[row],
        "tokens": clusters.vocabulary.text(codes),
        "codes": codes.tolist(),
        "reserved": int(codes[0]) >= clusters.coarse_of["reserved"][0],
        "sharing_cluster": {f"{side}s": len(rows) for side, rows in inside.items()},
        "neighbours": sorted(near, key=lambda other: -other["cosine"])[:n_neighbours],
    }


def _nearest(members: Members, kind: Side, rows: np.ndarray, own: np.ndarray, most: int) -> list[dict[str, Any]]:
    """Those of some rows whose vectors, of unit length, point most alike; none where nothing is known."""
    if not own.any():
        return []
    cosines = members.vectors[rows].astype(np.float32) @ own
    return [
        {
            "kind": kind,
            "id": members.ids[int(rows[place])],
            "tokens": members.vocabulary.text(members.codes[rows[place]]),
            "cosine": float(cosines[place]),
        }
        for place in np.argsort(-cosines, kind="stable")[:most].tolist()
    ]


def _how_many(clusters: ClusterTokens, side: Side) -> str:
    codes = clusters.members(side).codes
    cold = int((codes[:, 0] >= clusters.coarse_of["reserved"][0]).sum())
    return f"{len(codes):,} ({cold:,} of them with a reserved token)"


def _listed(choices: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in choices.items())


def _names(imported_from: object) -> str:
    """The names of files in a provenance, which no checksum guards."""
    return ", ".join(map(str, imported_from)) if isinstance(imported_from, list | tuple) else "elsewhere"
