"""What a refit changed: figures about items and codes, and a table of old and new IDs.

N items in both catalogs, L levels in both artifacts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from semid.artifact.store import tsv_rows
from semid.evaluation.quality import percent
from semid.state import TokenizerState

__all__ = ["Churn", "kept_codes", "remap_lines"]

HEADER = "item_id\told\tnew\tkept"
NEW, GONE = "new", "gone"  # in place of the number of kept codes

Codes = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Churn:
    """How many items keep their codes, and how many codes keep their items.

    >>> Churn.of(np.array([[0, 1], [0, 2]]), np.array([[0, 1], [3, 2]]), n_new=1, n_gone=0).kept_prefix
    [0.5, 0.5]
    """

    surviving: int  # items in both catalogs
    new: int
    gone: int
    kept_prefix: list[float]  # share of the surviving items that keep at least their first 1, 2, ... L codes
    kept_meaning: list[float]  # per level: share of the old codes that more than half of their surviving items keep
    distortion_before: float | None = None  # raw distortion of the new catalog with the old codebooks ...
    distortion_after: float | None = None  # ... and with the new ones, relative to the variance of the vectors

    @classmethod
    def of(
        cls,
        old_codes: Codes,
        new_codes: Codes,
        *,
        n_new: int,
        n_gone: int,
        distortion_before: float | None = None,
        distortion_after: float | None = None,
    ) -> Churn:
        """Measure the churn of N >= 1 surviving items.

        Parameters
        ----------
        old_codes : int [N, L_old], new_codes : int [N, L_new]
            Codes of the surviving items, in the same order.
        n_new, n_gone : int
            Number of items that only the new, and only the old catalog has.
        distortion_before, distortion_after : float, optional
            See the class.
        """
        depth = min(old_codes.shape[1], new_codes.shape[1])
        kept = kept_codes(old_codes, new_codes)
        return cls(
            surviving=len(kept),
            new=n_new,
            gone=n_gone,
            kept_prefix=[float((kept > level).mean()) for level in range(depth)],
            kept_meaning=[_kept_meaning(old_codes[:, level], new_codes[:, level]) for level in range(depth)],
            distortion_before=distortion_before,
            distortion_after=distortion_after,
        )

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON data."""
        return asdict(self)

    def summary(self) -> list[str]:
        """Return the figures as lines for people."""
        lengths = ", ".join(map(str, range(1, len(self.kept_prefix) + 1)))
        found = [
            f"{self.surviving:,} items survive, {self.new:,} are new, {self.gone:,} are gone",
            f"items that keep their prefix, by prefix length {lengths}: {_shares(self.kept_prefix)}",
            f"codes that keep most of their items, by level {lengths}: {_shares(self.kept_meaning)}",
        ]
        if self.distortion_after is not None:
            before = (
                "" if self.distortion_before is None else f"{percent(self.distortion_before)} with the old codebooks, "
            )
            found.append(f"distortion of the new catalog: {before}{percent(self.distortion_after)} with the new ones")
        return found


def kept_codes(old_codes: Codes, new_codes: Codes) -> npt.NDArray[np.int64]:
    """Return how many of its first codes each item keeps, int64 [N].

    >>> kept_codes(np.array([[1, 2, 3], [1, 2, 3]]), np.array([[1, 0, 3], [1, 2, 3]])).tolist()
    [1, 3]
    """
    depth = min(old_codes.shape[1], new_codes.shape[1])
    return np.logical_and.accumulate(old_codes[:, :depth] == new_codes[:, :depth], axis=1).sum(axis=1)


def remap_lines(old: TokenizerState, new: TokenizerState) -> Iterator[str]:
    """Yield the lines of `remap.tsv`: item, old ID, new ID, and how many of its first codes are the same.

    Items of the new catalog come first, in its order; a new item has no old ID, and "new" instead of a number. Then
    come items that are gone, without a new ID, and "gone" instead of a number. Ids are escaped as in `ids.tsv`.
    """
    rows = old.ledger.find_rows(new.item_ids)
    survives = rows >= 0
    before = np.asarray(old.ledger.codes_of(rows[survives]))
    kept = iter(kept_codes(before, new.codes[survives]).tolist())
    names = iter(old.vocabulary.texts(before))
    tokens = (
        f"{next(names) if known else ''}\t{text}"
        for known, text in zip(survives.tolist(), new.vocabulary.texts(new.codes), strict=True)
    )
    marks = (str(next(kept)) if known else NEW for known in survives.tolist())
    yield HEADER
    yield from _without_header(tsv_rows(new.item_ids, tokens, marks))
    gone = gone_rows(old, rows)
    ids = (old.item_ids[row] for row in gone.tolist())
    texts = (f"{text}\t" for text in old.vocabulary.texts(old.ledger.codes_of(gone)))
    yield from _without_header(tsv_rows(ids, texts, (GONE for _ in gone)))


def gone_rows(old: TokenizerState, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the rows of live items that are not among `rows`, int64 [G]. Entries of -1 are ignored."""
    gone = old.ledger.live.copy()
    gone[rows[rows >= 0]] = False
    return np.flatnonzero(gone)


def _without_header(lines: Iterable[str]) -> Iterator[str]:
    lines = iter(lines)
    next(lines)
    return lines


def _kept_meaning(old: Codes, new: Codes) -> float:
    """Return the share of the codes in `old` [N] that more than half of their items have in `new` [N] too."""
    had = np.bincount(old)
    have = np.bincount(old[old == new], minlength=len(had))
    return float((2 * have > had)[had > 0].mean())


def _shares(shares: Iterable[float]) -> str:
    return ", ".join(map(percent, shares))
