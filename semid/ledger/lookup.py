"""Find rows of a ledger by bisection over arrays that may be mapped from a file.

Item ids are found by a 64-bit hash (blake2b, little-endian), which is the same on every machine and hard to collide on
purpose; ids with equal hashes are compared themselves. Codes are found by their order. A look-up reads a few pages of
each array, never all of it.

Not here: what a row means (`ledger.py`). N rows, M ids or codes to find, L levels.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semid.assign.keys import pack
from semid.data.strings import PackedStrings, StringChain
from semid.errors import InputError

__all__ = ["MAX_CODE", "check_range", "code_keys", "find_codes", "find_ids", "hash_ids", "hashes_of", "near_ids"]

MAX_CODE = 65535  # codes are stored as uint16
BLOCK = 1 << 20  # ids hashed at once, which bounds the memory for them
NEAR_POOL = 2000  # ids compared letter by letter, about 20 ms
LONGEST_NEAR = 64  # bytes; longer ids get no suggestions


def hash_ids(item_ids: PackedStrings) -> npt.NDArray[np.uint64]:
    """Return the hash of each id, uint64 [N]: blake2b with a digest of 8 bytes, read as a little-endian number.

    >>> hex(hash_ids(PackedStrings.pack(["B1"]))[0])
    '0xde98a85b60329e02'
    """
    hashes = np.empty(len(item_ids), np.uint64)
    for first in range(0, len(item_ids), BLOCK):
        offsets = item_ids.offsets[first : first + BLOCK + 1]
        data = item_ids.data[offsets[0] : offsets[-1]].tobytes()
        bounds = (offsets - offsets[0]).tolist()
        pieces = [data[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
        hashes[first : first + len(pieces)] = hashes_of(pieces)
    return hashes


def hashes_of(encoded: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """Return the hash of each id, uint64 [M], from its UTF-8 bytes."""
    digests = b"".join([hashlib.blake2b(piece, digest_size=8).digest() for piece in encoded])
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def find_ids(
    encoded: Sequence[bytes],
    sought: npt.NDArray[np.uint64],
    item_ids: PackedStrings,
    hashes: npt.NDArray[np.uint64],
    order: npt.NDArray[np.integer],
) -> npt.NDArray[np.int64]:
    """Return the row of each id, int64 [M], or -1 if there is none.

    Parameters
    ----------
    encoded : M byte strings
        The ids to find, in UTF-8.
    sought : uint64 [M]
        Their hashes.
    item_ids : PackedStrings
        The ids of the table.
    hashes : uint64 [N]
        Hashes of `item_ids` in ascending order.
    order : int [N]
        The row of each hash.
    """
    rows = np.full(len(encoded), -1, np.int64)
    if not len(encoded) or not len(hashes):
        return rows
    places = np.empty(len(sought), np.int64)
    ascending = np.argsort(sought)  # neighbors in the order share pages and cache lines
    places[ascending] = np.searchsorted(hashes, sought[ascending])
    places[places == len(hashes)] = 0  # past the end: the hash at any place differs
    known = np.flatnonzero(hashes[places] == sought)
    firsts = order[places[known]].astype(np.int64)
    starts, ends = item_ids.offsets[firsts].tolist(), item_ids.offsets[firsts + 1].tolist()
    data = item_ids.data.data
    for i, row, start, end in zip(known.tolist(), firsts.tolist(), starts, ends, strict=True):
        if data[start:end] != encoded[i]:
            row = _row_past(int(places[i]), encoded[i], item_ids, hashes, order)
        rows[i] = row
    return rows


def _row_past(
    place: int,
    wanted: bytes,
    item_ids: PackedStrings,
    hashes: npt.NDArray[np.uint64],
    order: npt.NDArray[np.integer],
) -> int:
    """Return the row of `wanted` among the ids with the same hash after `place`, or -1."""
    for other in range(place + 1, len(hashes)):
        if hashes[other] != hashes[place]:
            break
        row = int(order[other])
        if item_ids.data[item_ids.offsets[row] : item_ids.offsets[row + 1]].tobytes() == wanted:
            return row
    return -1


def near_ids(wanted: str, item_ids: PackedStrings | StringChain) -> list[str]:
    """Return up to three ids similar to `wanted`, the most similar first; for error messages, so fast, not complete.

    Candidates are ids whose length differs by at most two bytes. While there are too many, only those that agree with
    `wanted` in the first byte, the second, and so on, are kept.

    >>> near_ids("B33", PackedStrings.pack(["B1", "B3", "soap"]))
    ['B3']
    """
    encoded = wanted.encode("utf-8", "surrogatepass")
    if not 0 < len(encoded) <= LONGEST_NEAR:
        return []
    rows = np.flatnonzero(np.abs(np.diff(item_ids.offsets) - len(encoded)) <= 2)
    for place, byte in enumerate(encoded[:-2]):
        if len(rows) <= NEAR_POOL:
            break
        alike = rows[item_ids.data[item_ids.offsets[rows] + place] == byte]
        rows = alike if len(alike) else rows  # no id has this byte here: it may be the typo
    pool = [item_ids[row] for row in rows[:NEAR_POOL].tolist()]
    return difflib.get_close_matches(wanted, pool, n=3, cutoff=0.75)


def check_range(codes: npt.NDArray[np.integer], sizes: Sequence[int]) -> None:
    """Raise InputError for the first of the codes [N, L] that is not in 0..size - 1 of its level.

    >>> check_range(np.array([[1, 1], [0, 2]]), [2, 2])
    Traceback (most recent call last):
    semid.errors.InputError: codes[1, 1]=2 should be in 0..1, the codes of level 1.
    """
    wrong = np.argwhere((codes < 0) | (codes >= np.array(sizes)))
    if len(wrong):
        row, level = wrong[0].tolist()
        raise InputError(
            f"codes[{row}, {level}]={codes[row, level]} should be in 0..{sizes[level] - 1}, the codes of level {level}."
        )


def code_keys(codes: npt.NDArray[np.uint16]) -> npt.NDArray[Any]:
    """Return one sortable key for each row of codes [N, L], whatever the sizes of the levels."""
    return pack(codes, [MAX_CODE + 1] * codes.shape[1])


def find_codes(
    keys: npt.NDArray[Any],
    codes: npt.NDArray[np.uint16],
    order: npt.NDArray[np.integer],
    *,
    side: Literal["left", "right"] = "right",
) -> npt.NDArray[np.int64]:
    """Return for each key the first place in `order` with a larger key, int64 [M]; with "left", one not smaller.

    Parameters
    ----------
    keys : [M]
        `code_keys` to find.
    codes : uint16 [N, L]
        The codes of the table.
    order : int [N]
        Rows of `codes` in lexicographic order.
    side : "left" or "right"
        As in `numpy.searchsorted`; "right" by default. All M searches advance together.
    """
    low = np.zeros(len(keys), np.int64)
    high = np.full(len(keys), len(order), np.int64)
    for _ in range(len(order).bit_length()):
        middle = (low + high) // 2
        unsettled = low < high
        found = code_keys(codes[order[np.minimum(middle, len(order) - 1)]])
        below = unsettled & ((found < keys) | ((found == keys) if side == "right" else False))
        low = np.where(below, middle + 1, low)
        high = np.where(unsettled & ~below, middle, high)
    return low
