"""What may be generated besides the choice of items: text, markers, how many items.

Not here: which tokens that leaves (`token_masker.py`), which items (`semid/trie/filters.py`). Needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semid.errors import ConfigError
from semid.tokens.vocabulary import Vocabulary

__all__ = ["Constraints", "marker_ids"]


@dataclass(frozen=True)
class Constraints:
    """What may be generated in a row besides the choice of items: free text, markers, how many items.

    Raises
    ------
    ConfigError
        A value is out of range, or `min_items` exceeds `max_items`.

    >>> Constraints(max_items=3).counts, Constraints().counts            # three items, then end; items without end
    (True, False)
    >>> try:
    ...     Constraints(min_items=3, max_items=2)
    ... except ConfigError as error:
    ...     print(error)
    min_items=3 should be at most max_items=2.
    """

    text: bool = False  # allow free text before, between and after the items
    markers: tuple[int, int] | None = None  # token ids of begin and end (`marker_ids`), which enclose every item
    min_items: int | None = None  # no end of sequence before this many; None: 0 with text, else max_items
    max_items: int | None = None  # no further item after this many; None: no limit
    repeats: bool = True  # False: generate no item twice

    def __post_init__(self) -> None:
        for name, smallest in (("min_items", 0), ("max_items", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < smallest):
                raise ConfigError(f"{name}={value!r} should be None or an integer of at least {smallest}.")
        if self.min_items is not None and self.max_items is not None and self.min_items > self.max_items:
            raise ConfigError(f"min_items={self.min_items} should be at most max_items={self.max_items}.")
        if self.markers is not None:
            markers = self.markers if isinstance(self.markers, Sequence) else ()
            if len(markers) != 2 or not all(isinstance(each, int) for each in markers) or markers[0] == markers[1]:
                raise ConfigError(
                    f"markers={self.markers!r} should be None or two token ids. Get them with "
                    "marker_ids(ids.vocabulary, trie.base)."
                )
            object.__setattr__(self, "markers", tuple(markers))

    @property
    def least(self) -> int | None:
        """Number of items before the sequence may end; None if it may not end while there are items left."""
        if self.min_items is not None:
            return self.min_items
        return 0 if self.text else self.max_items

    @property
    def counts(self) -> bool:
        """Whether the items generated after the prompt matter; the masker then needs prompt lengths."""
        return bool(self.min_items) or self.max_items is not None or not self.repeats

    @property
    def ends(self) -> bool:
        """Whether a sequence may end by itself; the masker then needs the end-of-sequence token ids."""
        return self.text or self.min_items is not None or self.counts


def marker_ids(vocabulary: Vocabulary, base: int) -> tuple[int, int]:
    """Return the token ids of the begin and the end marker.

    Parameters
    ----------
    vocabulary
        The vocabulary of the IDs, `ids.vocabulary`.
    base
        Token id of the first code, `trie.base`.

    Raises
    ------
    ConfigError
        The vocabulary has no markers.

    >>> marker_ids(Vocabulary([256, 256]), base=1000)
    (1512, 1513)
    """
    if not (vocabulary.begin and vocabulary.end):
        raise ConfigError(
            f"begin={vocabulary.begin!r} end={vocabulary.end!r}: this vocabulary lacks a marker. Leave markers out."
        )
    begin = base + int(vocabulary.offsets[-1])
    return begin, begin + 1
