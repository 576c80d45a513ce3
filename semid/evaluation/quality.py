"""The figures that describe a set of semantic IDs, what each means, and how they are printed.

`semid.evaluate` computes them, `advice.py` judges them. N items, L levels, K codes per level, D dims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.runtime.tables import RowTable

__all__ = ["Distortion", "LevelUse", "Quality", "percent"]

BLOCK = 1 << 14  # rows compared at a time
Rows = RowTable | Callable[[slice], npt.NDArray]


@dataclass(frozen=True)
class LevelUse:
    """How the items spread over the codes of one level."""

    size: int  # codes of the level, K
    used: int  # codes that at least one item has
    perplexity: float  # exp of the entropy of the codes: the number of evenly used codes with the same entropy
    largest_share: float  # share of the items with the most common code


@dataclass(frozen=True)
class Distortion:
    """Mean squared distance between vectors and their reconstructions.

    >>> Distortion.of(np.array([[0.0], [2.0]]), final=np.array([[0.5], [2.0]]))
    Distortion(raw=None, final=0.125, relative_to_variance=0.125)
    """

    raw: float | None  # from the raw codes, before assignment
    final: float  # from the assigned codes
    relative_to_variance: float | None  # final / mean squared distance to the mean vector; None if that is 0

    @classmethod
    def of(cls, vectors: RowTable, *, final: Rows, raw: Rows | None = None) -> Distortion:
        """Measure the distortion, a block of rows at a time.

        Parameters
        ----------
        vectors : float [N, D]
            An array, a memory map, or rows of a file.
        final, raw : float [N, D], or function from a slice of rows to floats [n, D]
            Reconstructions from the assigned and from the raw codes.
        """
        center = _mean(vectors)
        variance = _mean_square(vectors, lambda rows: center)
        moved = _mean_square(vectors, final)
        return cls(
            raw=None if raw is None else _mean_square(vectors, raw),
            final=moved,
            relative_to_variance=moved / variance if variance > 0 else None,
        )


@dataclass(frozen=True)
class Quality:
    """The figures of an ID set. None, or an empty list, where the data for them was not given."""

    n_items: int
    n_unique_ids: int
    collision_rate: float  # (N - distinct IDs) / N
    items_in_conflict: int  # items that share their ID with another
    largest_group: int  # most items with one ID
    raw_collision_rate: float | None  # collision rate of the raw codes, before assignment
    moved_items: int | None  # items whose ID differs from their raw codes
    identical_text_floor: float | None  # (N - distinct texts) / N: collisions that no text encoder can avoid
    identical_vector_floor: float | None  # (N - distinct vectors) / N: collisions that no quantizer can avoid
    distortion: Distortion | None
    levels: list[LevelUse]
    sizes_observed: bool  # whether the sizes of the levels are a guess, the highest code + 1
    max_prefix_fanout: int  # most items under one prefix of L - 1 codes (all items if L = 1)
    prefix_fanout: list[int]  # most items under one prefix of 1, 2, ... L - 1 codes
    neighbor_recall: list[float] | None  # share of the true 10 nearest items that share 1, 2, ... codes
    neighbor_queries: int | None  # items used as queries: all of up to 20,000, else a seeded sample
    sequence_lift: list[float | None] | None  # see `sequence_lift`; None where chance agreement is impossible
    sequence_pairs: int | None  # number of pairs of consecutive different items behind it

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON data."""
        return asdict(self)

    @staticmethod
    def kept_figures(noted: object) -> dict[str, Any]:
        """Return the figures of a `to_dict` without the levels; empty if it is damaged, since no checksum guards it."""
        if not isinstance(noted, dict):
            return {}
        kept = {name: value for name, value in noted.items() if name not in ("levels", "distortion")}
        values = [one for value in kept.values() for one in (value if isinstance(value, list) else [value])]
        distortion = noted.get("distortion")
        if distortion is not None:
            if not isinstance(distortion, dict) or set(distortion) != {one.name for one in fields(Distortion)}:
                return {}
            kept["distortion"] = Distortion(**distortion)
            values += distortion.values()
        return kept if all(value is None or isinstance(value, (int, float)) for value in values) else {}

    def summary(self) -> list[str]:
        """Return the figures as lines for people."""
        return [*self._id_lines(), *self._level_lines(), *self._meaning_lines()]

    def _id_lines(self) -> Iterable[str]:
        ids = f"{self.n_items:,} items, {self.n_unique_ids:,} distinct IDs"
        if self.items_in_conflict:
            yield (
                f"{ids}: collision rate {percent(self.collision_rate)}, {self.items_in_conflict:,} items in "
                f"conflict, largest group {self.largest_group:,}"
            )
        else:
            yield f"{ids}: no collisions"
        if self.raw_collision_rate is not None:
            moved = "" if self.moved_items is None else f"; {self.moved_items:,} items moved"
            yield f"before assignment: collision rate {percent(self.raw_collision_rate)}{moved}"
        if self.identical_text_floor is not None:
            yield f"unavoidable collisions: {percent(self.identical_text_floor)} (identical texts)"
        if self.identical_vector_floor is not None:
            yield f"unavoidable collisions: {percent(self.identical_vector_floor)} (identical vectors)"
        if self.distortion is not None:
            raw, share = self.distortion.raw, self.distortion.relative_to_variance
            yield (
                f"distortion {self.distortion.final:.5g}"
                + ("" if raw is None else f" (before assignment {raw:.5g})")
                + ("" if share is None else f", {percent(share)} of the variance")
            )

    def _level_lines(self) -> Iterable[str]:
        for number, level in enumerate(self.levels, 1):
            yield (
                f"level {number}: {level.used:,} of {level.size:,} codes used, "
                f"perplexity {level.perplexity:.1f}, largest share {percent(level.largest_share)}"
            )
        fanouts = ", ".join(f"{fanout:,}" for fanout in self.prefix_fanout or [self.max_prefix_fanout])
        yield f"most items per prefix, by prefix length {_lengths(self.prefix_fanout)}: {fanouts}"

    def _meaning_lines(self) -> Iterable[str]:
        if self.neighbor_recall:
            shares = ", ".join(percent(share) for share in self.neighbor_recall)
            yield (
                f"neighbor recall@10 by prefix length {_lengths(self.neighbor_recall)}: {shares} "
                f"({self.neighbor_queries:,} queries)"
            )
        if self.sequence_lift:
            lifts = ", ".join("-" if lift is None else f"{lift:.3g}" for lift in self.sequence_lift)
            yield (
                f"sequence lift by prefix length {_lengths(self.sequence_lift)}: {lifts} times chance "
                f"({self.sequence_pairs:,} pairs)"
            )


def _mean(vectors: RowTable) -> npt.NDArray[np.float64]:
    sums = [vectors[part].sum(axis=0, dtype=np.float64) for part in _blocks(len(vectors))]
    return np.sum(sums, axis=0) / len(vectors)


def _mean_square(vectors: RowTable, others: Rows) -> float:
    """Return the mean squared distance between rows, in float64, a block of rows at a time."""
    total = 0.0
    for part in _blocks(len(vectors)):
        gap = np.asarray(vectors[part], np.float64) - (others(part) if callable(others) else others[part])
        total += float(np.einsum("nd,nd->", gap, gap))
    return total / len(vectors)


def _blocks(n_rows: int) -> Iterator[slice]:
    return (slice(start, min(n_rows, start + BLOCK)) for start in range(0, n_rows, BLOCK))


def percent(share: float) -> str:
    """Return a share as text.

    >>> percent(0.00107), percent(0.25), percent(0)
    ('0.11 %', '25.0 %', '0 %')
    """
    return "0 %" if share == 0 else f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


def _lengths(values: Sequence[object]) -> str:
    """Return the prefix lengths of a list of figures: "1", "1, 2, 3", "1-16"; "0" for an empty list."""
    n = len(values)
    return ", ".join(map(str, range(1, n + 1))) or "0" if n <= 4 else f"1-{n}"
