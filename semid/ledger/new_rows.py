"""Make the segment of new rows, and check it: each id and each row of codes once, codes that can be stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings, joined
from semid.errors import CapacityError, InputError
from semid.ledger.checks import repeated_codes, repeated_ids
from semid.ledger.lookup import MAX_CODE, check_range
from semid.ledger.segment import Segment

__all__ = ["MAX_ROWS", "new_segment"]

MAX_ROWS = 2**31 - 1  # rows are stored as int32


def new_segment(
    first: int,
    generation: int,
    item_ids: Iterable[str],
    codes: npt.ArrayLike,
    texts: Iterable[str] | None,
    *,
    revised: Mapping[int, str] | None = None,
) -> Segment:
    """Return the segment of one change.

    Parameters
    ----------
    first : int
        Row of the ledger that the new rows begin at.
    generation : int
        Number of the change.
    item_ids : n strings
        New ids.
    codes : int [n, L]
        Their codes, 0 to 65535.
    texts : n strings, optional
        Their texts.
    revised : row -> text, optional
        Earlier rows that get another text.

    Raises
    ------
    InputError
        An id or a row of codes comes twice or cannot be stored; lengths that differ.
    CapacityError
        More than 2^31 - 1 rows.
    """
    packed = _packed(item_ids)
    stored = _stored(codes, len(packed))
    if len(stored) > MAX_ROWS:
        raise CapacityError(f"n_items={len(stored)} should be at most {MAX_ROWS}. Split the catalog.")
    packed_texts = None
    if texts is not None:
        packed_texts = joined([texts if isinstance(texts, PackedStrings) else PackedStrings.pack(texts)])
        if len(packed_texts) != len(stored):
            raise InputError(f"texts: {len(packed_texts)} texts for {len(stored)} items; expected one each.")
    segment = Segment.of(first, generation, packed, stored, packed_texts, revised=revised)
    problems = [f"item id {packed[row]!r} comes twice. Keep one." for row in repeated_ids(segment)]
    problems += [
        f"items {packed[a]!r} and {packed[b]!r} have the same codes {stored[a].tolist()}. Assign again."
        for a, b in repeated_codes(segment)
    ]
    if problems:
        raise InputError.listing(problems)
    return segment


def _packed(item_ids: Iterable[str]) -> PackedStrings:
    if isinstance(item_ids, PackedStrings):
        return joined([item_ids])
    if isinstance(item_ids, str):
        raise InputError(f"item_ids={item_ids!r} should be a list of ids. Write [{item_ids!r}].")
    try:
        return PackedStrings.pack(item_ids)
    except UnicodeEncodeError as error:
        raise InputError(f"item id {error.object!r:.80} cannot be written in UTF-8. Change it.") from None


def _stored(codes: npt.ArrayLike, n_items: int) -> npt.NDArray[np.uint16]:
    codes = np.asarray(codes)
    if codes.ndim != 2 or len(codes) != n_items or codes.dtype.kind not in "iu" or not codes.shape[1]:
        raise InputError(f"codes: shape={codes.shape} dtype={codes.dtype} should be integers [{n_items}, L].")
    check_range(codes, [MAX_CODE + 1] * codes.shape[1])
    return np.ascontiguousarray(codes, np.uint16)
