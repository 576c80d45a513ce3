"""Where the rows of new tokens lie: their lengths, how similar they are, and which old tokens are nearest.

Numbers for people and for `--json`; nothing here changes a row. V old rows, H dims, K codes in a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from semid.encoders.checkpoint import Blocks
from semid.runtime.arrays import unit_rows
from semid.tokenizer_exports.models.init_rows import RowStats
from semid.tokens.source import TokenBlock

__all__ = ["LevelRows", "MatrixRows", "report_rows"]

SAMPLED = 16  # codes of a level that are compared with all old rows
EXAMPLES = 3


@dataclass(frozen=True)
class LevelRows:
    """The rows of one level in one matrix."""

    level: int
    norm: float  # mean length of its rows
    likeness: float  # mean cosine between two of its rows; 1 for a level of one code
    nearest_cosine: float  # median cosine to the nearest old token
    examples: tuple[tuple[str, str, float], ...]  # (token, nearest old token, cosine)


@dataclass(frozen=True)
class MatrixRows:
    """The new rows of one matrix, `input` (perhaps tied to the head) or `head`."""

    matrix: str
    old_norm: float  # mean length of the old tokens' rows
    levels: tuple[LevelRows, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return asdict(self)

    def summary(self) -> list[str]:
        """Return a line for the matrix, and one for each level."""
        lines = [f"{self.matrix} rows: old tokens have norm {self.old_norm:.3g}"]
        for one in self.levels:
            shown = ", ".join(f"{token} near {old!r} {cosine:.2f}" for token, old, cosine in one.examples)
            lines.append(
                f"  level {one.level + 1}: norm {one.norm:.3g}, cosine to nearest token {one.nearest_cosine:.2f}, "
                f"to each other {one.likeness:.2f}  ({shown})"
            )
        return lines


def report_rows(
    matrix: str,
    rows: npt.NDArray[np.float32],
    stats: RowStats,
    vocabulary: TokenBlock,
    blocks: Blocks,
    known: npt.NDArray[np.bool_],
    name_of: Callable[[list[int]], Sequence[str]],
) -> MatrixRows:
    """Compare new rows with old ones.

    Parameters
    ----------
    matrix : str
        "input" or "head".
    rows : float32 [len(vocabulary), H]
        The new rows. At most 16 codes of a level, evenly spaced, are compared with the old rows.
    stats : RowStats
        Mean length of the old rows.
    vocabulary : TokenBlock
        Names and levels of the new tokens.
    blocks : Blocks
        The old rows.
    known : bool [V]
        Which old rows belong to a token; the others do not count.
    name_of : callable
        Names of token ids.
    """
    picked = [
        np.unique(np.linspace(start, stop - 1, min(SAMPLED, stop - start)).astype(int))
        for start, stop in zip(vocabulary.offsets[:-1].tolist(), vocabulary.offsets[1:].tolist(), strict=True)
    ]
    nearest, cosines = _nearest(rows[np.concatenate(picked)], blocks, known)
    names = name_of(nearest.tolist())
    levels, at = [], 0
    for level, codes in enumerate(picked):
        here = slice(at, at + len(codes))
        at += len(codes)
        own = rows[slice(*vocabulary.offsets[level : level + 2].tolist())]
        examples = zip(codes.tolist(), names[here], cosines[here].tolist(), strict=True)
        levels.append(
            LevelRows(
                level,
                float(np.linalg.norm(own, axis=1).mean()),
                _likeness(own),
                float(np.median(cosines[here])),
                tuple((vocabulary.tokens[code], name, cosine) for code, name, cosine in examples)[:EXAMPLES],
            )
        )
    return MatrixRows(matrix, stats.norm, tuple(levels))


def _nearest(
    rows: npt.NDArray[np.float32], blocks: Blocks, known: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return for each row the old token with the largest cosine, and the cosine."""
    rows = unit_rows(rows)
    best, nearest = np.full(len(rows), -2, np.float32), np.zeros(len(rows), np.int64)
    for start, block in blocks():
        cosines = rows @ unit_rows(block).T
        cosines[:, ~known[start : start + len(block)]] = -2
        at = cosines.argmax(1)
        found = cosines[np.arange(len(rows)), at]
        nearer = found > best
        best[nearer], nearest[nearer] = found[nearer], start + at[nearer]
    return nearest, best


def _likeness(rows: npt.NDArray[np.float32]) -> float:
    """Return the mean cosine over all pairs of different rows, from the length of the sum of the unit rows."""
    n_rows = len(rows)
    if n_rows == 1:
        return 1.0
    total = unit_rows(rows).astype(np.float64).sum(0)
    return float((total @ total - n_rows) / (n_rows * (n_rows - 1)))
