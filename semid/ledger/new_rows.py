"""New rows for a ledger, checked in themselves: ids and codes each once, codes that can be stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings, joined
from semid.errors import CapacityError, InputError
from semid.ledger.checks import repeated_codes, repeated_ids
from semid.ledger.segment import Segment

__all__ = ["MAX_CODE", "MAX_ROWS", "new_segment"]

MAX_CODE = 65535  # codes are stored as uint16
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
    """The segment of a change: rows `first` and on, and revised texts of rows before (row -> text).

    InputError if an id or a row of codes comes twice or cannot be stored, CapacityError if there are too many.
    """
    packed = _packed(item_ids)
    codes = _stored(codes, len(packed))
    if len(codes) > MAX_ROWS:
        raise CapacityError(f"n_items={len(codes)} should be at most {MAX_ROWS}. Split the catalog.")
    if texts is not None:
        texts = joined([texts if isinstance(texts, PackedStrings) else PackedStrings.pack(texts)])
    if texts is not None and len(texts) != len(codes):
        raise InputError(f"texts: {len(texts)} texts for {len(codes)} items; expected one each.")
    segment = Segment.of(first, generation, packed, codes, texts, revised=revised)
    problems = [f"item id {packed[row]!r} comes twice. Keep one." for row in repeated_ids(segment)]
    problems += [
        f"items {packed[a]!r} and {packed[b]!r} have the same codes {codes[a].tolist()}. Assign again."
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
    wrong = np.argwhere((codes < 0) | (codes > MAX_CODE))
    if len(wrong):
        row, level = wrong[0].tolist()
        raise InputError(f"codes[{row}, {level}]={codes[row, level]} should be in 0..{MAX_CODE}.")
    return np.ascontiguousarray(codes, np.uint16)
