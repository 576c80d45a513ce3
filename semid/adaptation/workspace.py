"""Where a run keeps what it needs until it is done: `OUTPUT.part`, beside the output.

A language model's checkpoints are there, so an interrupted run can go on. `run.json` says which run they belong to:
going on with other settings, items or pairs would give a model that no one asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from semid.adaptation.config import AdaptConfig
from semid.adaptation.pairs import Pairs
from semid.data.items import Items
from semid.errors import ConfigError, OutputExistsError
from semid.runtime.distributed import from_writer, is_writer

__all__ = ["opened_workspace", "run_identity"]

RUN = "run.json"


def run_identity(config: AdaptConfig, base_sha256: str, items: Items, pairs: Pairs | None) -> dict[str, object]:
    """Return what makes two runs the same, as JSON data."""
    digest = hashlib.sha256()
    for item_id, text in zip(items.ids, items.texts(), strict=True):
        digest.update(json.dumps([item_id, text]).encode())
    return {
        "config": config.to_dict(),
        "base": base_sha256,
        "items": digest.hexdigest(),
        "pairs": None if pairs is None else pairs.sha256,
    }


@contextlib.contextmanager
def opened_workspace(output: Path, identity: dict[str, object], *, resume: bool, force: bool) -> Iterator[Path]:
    """Yield the folder `OUTPUT.part`; remove it at the end, keep it where the work fails.

    Raises
    ------
    OutputExistsError
        An interrupted run lies there, and neither `resume` nor `force` is given.
    ConfigError
        `resume` without such a run, or one with other settings, items or pairs.
    """
    place = output.with_name(f"{output.name}.part")
    from_writer(lambda: _prepare(place, identity, resume, force))
    yield place
    if is_writer():
        shutil.rmtree(place)


def _prepare(place: Path, identity: dict[str, object], resume: bool, force: bool) -> None:
    found = place / RUN
    if resume:
        if not found.is_file():
            raise ConfigError(f"{place}: no interrupted run there. Leave --resume out to start one.")
        noted = json.loads(found.read_text("utf-8"))
        plain = json.loads(json.dumps(identity))
        if other := [name for name, value in plain.items() if noted.get(name) != value]:
            raise ConfigError(
                f"{place}: the interrupted run has another {', another '.join(other)}. Call with what it had, or use "
                "--force instead of --resume to start over."
            )
        return
    if place.exists():
        if not force:
            raise OutputExistsError(
                f"{place}: an interrupted run. Use --resume to go on with it, or --force to start over."
            )
        shutil.rmtree(place)
    place.mkdir(parents=True)
    found.write_text(json.dumps(identity, indent=2), "utf-8")
