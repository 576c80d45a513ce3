"""What `semid show` and `semid info` tell, as plain data and as lines."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from semid._version import __version__
from semid.versions import NEWEST_TESTED, installed, newer_than_tested

if TYPE_CHECKING:
    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["artefact_info", "describe", "describe_lines", "system_info"]

TEXT_WIDTH = 100


def describe(ids: SemanticIDTokenizer, item_id: str, n_neighbours: int) -> dict[str, Any]:
    """One item: its ID, text, how many items share each prefix, and the items that share the longest ones."""
    row = int(ids.ledger.rows_of([item_id])[0])
    codes = ids.codes[row]
    shared = (ids.codes == codes).cumprod(axis=1).sum(axis=1)
    shared[row] = -1
    shared[~ids.ledger.live] = -1
    nearest = np.argsort(-shared, kind="stable")[:n_neighbours]
    return {
        "item_id": item_id,
        "tokens": ids.vocabulary.text(codes),
        "codes": codes.tolist(),
        "text": _text(ids, row),
        "retired": not bool(ids.ledger.live[row]),
        "sharing_prefix": [int((shared >= length).sum()) for length in range(1, len(codes))],
        "neighbours": [
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


def describe_lines(item: dict[str, Any]) -> list[str]:
    """`describe` for people."""
    lines = [item["item_id"] + (" (retired)" if item["retired"] else "")]
    lines.append(f"  {item['tokens']}")
    if item["text"]:
        lines.append(f"  {_short(item['text'])}")
    counts = ", ".join(f"{count:,}" for count in item["sharing_prefix"])
    if counts:
        lengths = ", ".join(str(length) for length in range(1, len(item["sharing_prefix"]) + 1))
        lines.append(f"  other items with the same first {lengths} codes: {counts}")
    for other in item["neighbours"]:
        text = f"  {_short(other['text'])}" if other["text"] else ""
        lines.append(f"    {other['tokens']}  {other['item_id']}{text}")
    return lines


def artefact_info(ids: SemanticIDTokenizer) -> dict[str, str]:
    """What an artefact is."""
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
    """Versions of semid, Python and the packages it uses, which of them are untested, and the devices torch sees."""
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
