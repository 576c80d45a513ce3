"""Changing an artifact where it lies: items come and go, published IDs stand.

The folder is locked from reading to writing, so no change is lost; readers go on with the generation that they opened,
or open the new one. Only what is new is written (`store.changing`), so a change takes as long with ten million items
as with a thousand. If anything fails, the folder is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from semid.artifact import store as artifact
from semid.tokenizer import SemanticIDTokenizer

if TYPE_CHECKING:
    from semid.pipeline.add import Added

__all__ = ["Retired", "add", "retire"]

Report = TypeVar("Report")


@dataclass(frozen=True)
class Retired:
    """What retiring did."""

    generation: int  # that retired the items, or the latest one if nothing changed
    retired: int
    already: int  # were retired before


def add(folder: str | Path, source: Any, **choices: Any) -> Added:
    """Give the new items of `source` IDs in the artifact of a folder; `choices` as for `semid.pipeline.add.add`.

    Raises what that does, and ArtifactError if another process is writing there. Nothing is written then.
    """
    from semid.pipeline import add as adding

    return _change(folder, lambda ids: adding.add(ids, source, **choices))


def retire(folder: str | Path, item_ids: Iterable[str], *, date: str | None = None) -> Retired:
    """Retire items in the artifact of a folder; all or, if an id is unknown, none.

    Raises UnknownIDError, and ArtifactError if another process is writing there.
    """
    wanted = list(dict.fromkeys(item_ids))

    def work(ids: SemanticIDTokenizer) -> tuple[SemanticIDTokenizer, Retired]:
        changed = ids.retire(wanted, date=date)
        n_retired = ids.ledger.n_live - changed.ledger.n_live
        return changed, Retired(changed.ledger.last_generation, n_retired, len(wanted) - n_retired)

    return _change(folder, work)


def _change(folder: str | Path, work: Callable[[SemanticIDTokenizer], tuple[SemanticIDTokenizer, Report]]) -> Report:
    with artifact.changing(folder) as change:
        ids = SemanticIDTokenizer.from_artifact(change.artifact)
        changed, report = work(ids)
        if changed is not ids:
            old, new = ids.ledger.segments, changed.ledger.segments
            same = [a is b for a, b in zip(old, new, strict=False)]
            kept = same.index(False) if False in same else len(same)
            tables = dict.fromkeys(map(artifact.people_table, range(kept, max(len(new), len(old)))))
            tables |= changed.people(range(kept, len(new)))  # the others go
            change.commit(changed.manifest(), changed.parts(), kept=1 + kept, tables=tables)  # 1: what was learned
    return report
