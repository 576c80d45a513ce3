"""Describe items, artifacts and this installation, as plain data and as lines: `semid show` and `semid info`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from semid._version import __version__
from semid.clusters.tokens import SIDES
from semid.errors import UnknownIDError
from semid.ledger.lookup import near_ids
from semid.runtime.versions import NEWEST_TESTED, installed, newer_than_tested

if TYPE_CHECKING:
    from semid.clusters.tokens import ClusterTokens, Members, Side
    from semid.tokenizer import SemanticIDTokenizer

__all__ = [
    "artifact_info",
    "cluster_info",
    "describe_item",
    "describe_members",
    "item_summary",
    "member_summary",
    "system_info",
]


TEXT_WIDTH = 100


def describe_item(ids: SemanticIDTokenizer, item_id: str, n_neighbors: int) -> dict[str, Any]:
    """Return an item's ID, its text, how many items share each prefix, and the items that share the longest prefix."""
    row = int(ids.ledger.rows_of([item_id])[0])
    codes = ids.codes[row]
    shared = (ids.codes == codes).cumprod(axis=1).sum(axis=1)
    shared[row] = -1
    shared[~ids.ledger.live] = -1
    nearest = np.argsort(-shared, kind="stable")[:n_neighbors]
    return {
        "item_id": item_id,
        "tokens": ids.vocabulary.text(codes),
        "codes": codes.tolist(),
        "text": _text(ids, row),
        "retired": not bool(ids.ledger.live[row]),
        "sharing_prefix": [int((shared >= length).sum()) for length in range(1, len(codes))],
        "neighbors": [
            {
                "item_id": ids.item_ids[other],
                "tokens": ids.vocabulary.text(ids.codes[other]),
                "shared": int(shared[other]),
                "text": _text(ids, other),
            }
            for other in nearest.tolist()
            if shared[other] > 0
        ],
    }


def item_summary(item: dict[str, Any]) -> list[str]:
    """Return a `describe_item` as lines for people."""
    lines = [item["item_id"] + (" (retired)" if item["retired"] else "")]
    lines.append(f"  {item['tokens']}")
    if item["text"]:
        lines.append(f"  {_short(item['text'])}")
    counts = ", ".join(f"{count:,}" for count in item["sharing_prefix"])
    if counts:
        lengths = ", ".join(str(length) for length in range(1, len(item["sharing_prefix"]) + 1))
        lines.append(f"  other items that share the first {lengths} codes: {counts}")
    for other in item["neighbors"]:
        text = f"  {_short(other['text'])}" if other["text"] else ""
        lines.append(f"    {other['tokens']}  {other['item_id']}{text}")
    return lines


def artifact_info(ids: SemanticIDTokenizer) -> dict[str, str]:
    """Return the size, settings and fingerprint of an artifact, by name."""
    settings = f"none: imported from {ids.imported_from}"
    if ids.config is not None:
        settings = ", ".join(f"{name}={value}" for name, value in ids.config.to_dict().items() if value is not None)
    _, encoder = ids.encoder_state
    return {
        "items": f"{len(ids):,} ({int(ids.ledger.live.sum()):,} live)",
        "generation": str(ids.ledger.last_generation),
        "codes": " x ".join(map(str, ids.sizes)),
        "tokens": f"{len(ids.vocabulary):,}, like {ids.vocabulary.text(ids.codes[0])}",
        "encoder": ", ".join(f"{name}={value}" for name, value in encoder.items() if isinstance(value, (str, int))),
        "settings": settings,
        "fingerprint": ids.fingerprint,
    }


def system_info() -> dict[str, str]:
    """Return the versions of semid, Python and the packages it uses, which are untested, and torch's device."""
    versions = installed()
    newer = newer_than_tested(versions)
    told = {"semid": __version__, "python": platform.python_version(), **versions}
    told["newer than tested"] = (
        ", ".join(f"{name} {version} (tested up to {NEWEST_TESTED[name]})" for name, version in newer.items()) or "none"
    )
    import torch

    cuda = torch.cuda.is_available()
    told["device"] = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads (no GPU seen)"
    return told


def _text(ids: SemanticIDTokenizer, row: int) -> str:
    return ids.texts[row] if ids.texts is not None else ""


def _short(text: str) -> str:
    return text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + "…"


# ---- The same for cluster tokens.


def cluster_info(clusters: ClusterTokens) -> dict[str, str]:
    """Return the size, settings and fingerprint of cluster tokens, by name."""
    first, end = clusters.coarse_of["reserved"]
    used = np.concatenate([clusters.members(side).codes[:, 0] for side in SIDES])
    fullest = int(np.bincount(used, minlength=end)[:first].max()) if len(used) and first else 0
    shared = clusters.coarse_of["user"] == clusters.coarse_of["item"]
    balanced = (
        "" if "balanced" not in clusters.config else ", balanced" if clusters.config["balanced"] else ", unbalanced"
    )
    settings = clusters.settings
    walks = settings.pop("walks", {})
    return {
        "kind": "tokens of users and items",
        **{f"{side}s": _how_many(clusters, side) for side in SIDES},
        "clusters": f"{first:,}, {'shared by' if shared else 'separate for'} users and items{balanced}; "
        f"{end - first} reserved for members without vectors",
        "in a cluster": f"{fullest:,} at most; {clusters.sizes[1]:,} second tokens, "
        + ("by rank" if clusters.fine is None else "with vectors of their own"),
        "tokens": f"{clusters.n_tokens:,}, like {clusters.vocabulary.text([0, 0])}",
        "settings": _listed(settings) or f"none: imported from {_names(clusters.provenance.get('imported_from'))}",
        **({"walks": _listed(walks)} if walks else {}),
        "fingerprint": clusters.fingerprint,
    }


def describe_members(clusters: ClusterTokens, wanted: str, n_neighbors: int) -> list[dict[str, Any]]:
    """Return the user and the item of an id: tokens, size of the cluster, and the nearest members of it.

    UnknownIDError, with near matches, if there is neither.
    """
    rows = {side: int(clusters.members(side).ledger.find_rows([wanted])[0]) for side in SIDES}
    found = [_describe(clusters, side, row, n_neighbors) for side, row in rows.items() if row >= 0]
    if not found:
        near = [one for side in SIDES for one in near_ids(wanted, clusters.members(side).ids.packed)]
        hint = f" Did you mean {', '.join(map(repr, near[:3]))}?" if near else ""
        counts = f"{len(clusters.users):,} users nor the {len(clusters.items):,} items"
        raise UnknownIDError(f"id {wanted!r} is neither among the {counts}.{hint}")
    return found


def member_summary(member: dict[str, Any]) -> list[str]:
    """Return one of `describe_members` as lines for people."""
    known = "reserved for members without vectors, " if member["reserved"] else ""
    shared = ", ".join(f"{count:,} {side}" for side, count in member["sharing_cluster"].items())
    lines = [f"{member['id']} ({member['kind']})", f"  {member['tokens']}", f"  others in the cluster: {known}{shared}"]
    return lines + [
        f"    {other['tokens']}  {other['kind']} {other['id']}  cosine {other['cosine']:.2f}"
        for other in member["neighbors"]
    ]


def _describe(clusters: ClusterTokens, kind: Side, row: int, n_neighbors: int) -> dict[str, Any]:
    members = clusters.members(kind)
    codes = members.codes[row]
    inside = {side: np.flatnonzero(clusters.members(side).codes[:, 0] == codes[0]) for side in SIDES}
    inside[kind] = inside[kind][inside[kind] != row]
    own = members.vectors[row].astype(np.float32)
    near = [one for side in SIDES for one in _nearest(clusters.members(side), side, inside[side], own, n_neighbors)]
    return {
        "kind": kind,
        "id": members.ids[row],
        "tokens": clusters.vocabulary.text(codes),
        "codes": codes.tolist(),
        "reserved": int(codes[0]) >= clusters.coarse_of["reserved"][0],
        "sharing_cluster": {f"{side}s": len(rows) for side, rows in inside.items()},
        "neighbors": sorted(near, key=lambda other: -other["cosine"])[:n_neighbors],
    }


def _nearest(members: Members, kind: Side, rows: np.ndarray, own: np.ndarray, most: int) -> list[dict[str, Any]]:
    """Return the rows with the highest cosine to `own`, whose vectors have unit length; none if `own` is zero."""
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
    """Return the names of files in a provenance, which no checksum guards."""
    return ", ".join(map(str, imported_from)) if isinstance(imported_from, list | tuple) else "elsewhere"
