"""Translate names that earlier versions of semid wrote into artifacts.

Nothing here changes a folder: an artifact keeps the names and the fingerprint with which it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semid.errors import ConfigError

__all__ = ["renew_config", "renew_provenance"]

UNIFORM = {"catalogue": "catalog"}
QUALITY = {"neighbour_recall": "neighbor_recall", "neighbour_queries": "neighbor_queries"}
SIGNALS = {
    "behaviour": "collaborative_fusion",
    "behavior": "collaborative_fusion",
    "collaborative": "collaborative_loss",
    "llm": "llm_loss",
    "llm_weight": "llm_loss_weight",
}


def renew_config(config: object) -> dict[str, Any]:
    """Return the settings of a fit under their present names; ConfigError if they are not an object.

    >>> renew_config({"method": "rqvae", "uniform": "catalogue"})
    {'method': 'rqvae', 'uniform': 'catalog'}
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"config={config!r:.200} should be an object")
    return {name: UNIFORM.get(str(value), value) if name == "uniform" else value for name, value in config.items()}


def renew_provenance(noted: object) -> dict[str, Any]:
    """Return the provenance under its present names; empty if it is not an object, since no checksum guards it.

    >>> renew_provenance({"guidance": {"behaviour": 1.5}, "quality": {"neighbour_recall": [0.5]}})
    {'signals': {'collaborative_fusion': 1.5}, 'quality': {'neighbor_recall': [0.5]}}
    """
    if not isinstance(noted, Mapping):
        return {}
    renewed = {}
    for name, value in noted.items():
        if name in ("guidance", "signals"):
            renewed["signals"] = _renamed(value, SIGNALS)
        elif name == "refit" and isinstance(value, Mapping) and "dropped_guidance" in value:
            kept = {key: one for key, one in value.items() if key != "dropped_guidance"}
            renewed["refit"] = kept | {"dropped_signals": _renamed(value["dropped_guidance"], SIGNALS)}
        else:
            renewed[name] = _renamed(value, QUALITY) if name == "quality" else value
    return renewed


def _renamed(value: object, names: Mapping[str, str]) -> object:
    return {names.get(name, name): one for name, one in value.items()} if isinstance(value, Mapping) else value
