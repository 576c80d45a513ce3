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
from semid.state import State, TokenizerState

if TYPE_CHECKING:
    from semid.pipeline.add import Added

__all__ = ["Retired", "add", "retire", "retire_items"]

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

    def work(ids: TokenizerState) -> tuple[TokenizerState, Retired]:
        changed = retire_items(ids, wanted, date=date)
        n_retired = ids.ledger.n_live - changed.ledger.n_live
        return changed, Retired(changed.ledger.last_generation, n_retired, len(wanted) - n_retired)

    return _change(folder, work)


def retire_items(ids: State, item_ids: Iterable[str], *, date: str | None = None) -> State:
    """Return the same state with these items retired; `ids` itself if all of them were already.

    Raises UnknownIDError with near matches for an id that the catalog does not hold.
    """
    ledger = ids.ledger.retire(item_ids)
    if ledger is ids.ledger:
        return ids
    noted = {"generation": ledger.last_generation, "retired": ids.ledger.n_live - ledger.n_live}
    return ids.changed(ledger, noted, date=date)


def _change(folder: str | Path, work: Callable[[TokenizerState], tuple[TokenizerState, Report]]) -> Report:
    with artifact.changing(folder) as change:
        ids = TokenizerState.from_artifact(change.artifact)
        changed, report = work(ids)
        if changed is not ids:
            old, new = ids.ledger.segments, changed.ledger.segments
            same = [a is b for a, b in zip(old, new, strict=False)]
            kept = same.index(False) if False in same else len(same)
            tables = dict.fromkeys(map(artifact.tsv_name, range(kept, max(len(new), len(old)))))
            tables |= changed.tsv_tables(range(kept, len(new)))  # the others go
            change.commit(changed.manifest(), changed.parts(), kept=1 + kept, tables=tables)  # 1: what was learned
    return report
