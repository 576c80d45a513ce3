"""Compare two artifacts: their items, and the codes of the items in both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["Difference", "difference"]


@dataclass(frozen=True)
class Difference:
    """Two artifacts A and B side by side. A retired item is not live."""

    same: bool  # the same artifact: equal fingerprints
    n_first: int  # live items of A
    n_second: int
    gone: list[str]  # items live in A alone
    new: list[str]  # items live in B alone
    kept_codes: list[int]  # of the items live in both, how many keep at least the first 1, 2, ... codes
    renamed: list[tuple[str, str, str]]  # items live in both with another ID: item, tokens in A, tokens in B

    @property
    def n_both(self) -> int:
        """Number of items live in both."""
        return self.n_first - len(self.gone)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self) | {"n_both": self.n_both}

    def summary(self) -> list[str]:
        """Return the figures as lines for people, without the items."""
        if self.same:
            return ["the same artifact"]
        lines = [f"items    {self.n_first:,} -> {self.n_second:,}: {len(self.gone):,} gone, {len(self.new):,} new"]
        if self.n_both:
            shares = ", ".join(f"{count / self.n_both:.1%}" for count in self.kept_codes)
            lengths = ", ".join(str(length) for length in range(1, len(self.kept_codes) + 1))
            lines.append(f"IDs      {len(self.renamed):,} of the {self.n_both:,} items in both have another ID")
            lines.append(f"kept     the first {lengths} codes: {shares}")
        return lines

    def item_rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield a row per item that changed: "gone", "new" or "renamed", item, tokens in A, tokens in B."""
        yield from (("gone", item, "", "") for item in self.gone)
        yield from (("new", item, "", "") for item in self.new)
        yield from (("renamed", *one) for one in self.renamed)


def difference(first: SemanticIDTokenizer, second: SemanticIDTokenizer, *, same: bool = False) -> Difference:
    """Compare the items and IDs of two artifacts.

    Parameters
    ----------
    first, second : SemanticIDTokenizer
        A and B. Codes are compared as numbers, over the levels that both have.
    same : bool
        Whether their fingerprints are equal.
    """
    rows_a = np.flatnonzero(first.ledger.live)
    rows_b = second.ledger.find_rows(first.item_ids[row] for row in rows_a.tolist())
    here = (rows_b >= 0) & second.ledger.live[np.maximum(rows_b, 0)]
    gone = [first.item_ids[row] for row in rows_a[~here].tolist()]
    rows_a, rows_b = rows_a[here], rows_b[here]
    seen = np.zeros(len(second), np.bool_)
    seen[rows_b] = True
    new = [second.item_ids[row] for row in np.flatnonzero(second.ledger.live & ~seen).tolist()]

    codes_a, codes_b = first.codes[rows_a], second.codes[rows_b]
    shared = min(codes_a.shape[1], codes_b.shape[1])
    kept = (codes_a[:, :shared] == codes_b[:, :shared]).cumprod(axis=1).sum(axis=0).tolist()
    return Difference(
        same,
        int(first.ledger.n_live),
        int(second.ledger.n_live),
        gone,
        new,
        kept,
        list(_renamed(first, second, rows_a, codes_a, codes_b)),
    )


def _renamed(
    first: SemanticIDTokenizer,
    second: SemanticIDTokenizer,
    rows: npt.NDArray[np.int64],
    before: npt.NDArray[np.uint16],
    after: npt.NDArray[np.uint16],
) -> Iterator[tuple[str, str, str]]:
    texts = zip(first.vocabulary.texts(before), second.vocabulary.texts(after), strict=True)
    for row, (a, b) in zip(rows.tolist(), texts, strict=True):
        if a != b:
            yield first.item_ids[row], a, b
