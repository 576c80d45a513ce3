"""Check every invariant of a ledger by reading all of it, and report what is broken in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings
from semid.ledger.lookup import code_keys, hash_ids
from semid.ledger.segment import Notes, Segment, merged

__all__ = ["problems_of", "repeated_codes", "repeated_ids"]


def problems_of(segments: Sequence[Segment], sizes: Sequence[int] | None = None) -> list[str]:
    """Return every broken invariant, one sentence each; with `sizes`, codes out of range too."""
    strings = [("item_ids", one.item_ids) for one in segments] + [("revised", one.revisions) for one in segments]
    strings += [("text", one.texts) for one in segments if one.texts is not None]
    problems = [problem for name, table in strings for problem in _check_strings(name, table)]
    problems += [problem for segment in segments for problem in _check_segment(segment, sizes)]
    if problems:
        return problems  # the checks below read the segments together, and need each of them to be sound
    n_rows = 0
    for one in segments:
        if one.first != n_rows or one.codes.shape[1] != segments[0].codes.shape[1]:
            return ["codes: segments should be contiguous, with the same number of levels"]
        if (one.texts is None) != (segments[0].texts is None):
            return ["text: should be there for all items or for none"]
        n_rows += len(one)
    return _check_whole(segments)


def _check_strings(name: str, strings: PackedStrings) -> list[str]:
    data, offsets = strings.data, strings.offsets
    if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        return [f"{name}.offsets: should rise from 0 to the length of {name}.data"]
    inner = offsets[offsets < len(data)]
    try:
        data.tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        return [f"{name}.data: is not UTF-8 at byte {error.start}"]
    if ((data[inner] & 0xC0) == 0x80).any():  # a continuation byte begins no character
        return [f"{name}.offsets: cuts a character in two"]
    return []


def _check_segment(segment: Segment, sizes: Sequence[int] | None) -> list[str]:
    problems = []
    for level, size in enumerate(sizes or ()):
        if (highest := int(segment.codes[:, level].max(initial=0))) >= size:
            problems.append(f"codes: level {level} has code {highest}, expected below {size}")
    offsets = segment.item_ids.offsets
    if offsets[0] == 0 and offsets[-1] == len(segment.item_ids.data) and (np.diff(offsets) >= 0).all():
        hashes = hash_ids(segment.item_ids)
        if not _is_order(segment.id_order, hashes) or (hashes[segment.id_order] != segment.id_hashes).any():
            problems.append("id_hashes, id_order: should be the sorted hashes of the ids and their rows")
    if not _is_order(segment.code_order, code_keys(segment.codes)):
        problems.append("code_order: should be the rows in the order of their codes")
    for name, notes in (("retired", segment.retired), ("revised", segment.revised)):
        problems += _check_notes(name, notes, segment.first + len(segment))
    return problems


def _check_notes(name: str, notes: Notes, n_rows: int) -> list[str]:
    if len(notes) and (notes.rows[0] < 0 or notes.rows[-1] >= n_rows or (np.diff(notes.rows) <= 0).any()):
        return [f"{name}.rows: should be rows of the table, ascending"]
    if (notes.generation < 1).any():
        return [f"{name}.generation: should be 1 or more"]
    return []


def _check_whole(segments: Sequence[Segment]) -> list[str]:
    problems = []
    generation = np.concatenate([segment.generation for segment in segments])
    if (generation < 0).any() or (np.diff(generation) < 0).any():
        problems.append("generation: should be 0 or more and never fall from row to row")
    retired_in = np.zeros(len(generation), np.int32)
    for segment in segments:
        rows = segment.retired.rows
        if retired_in[rows].any():
            problems.append("retired.rows: an item should be retired once")
        retired_in[rows] = segment.retired.generation
    if ((retired_in != 0) & (retired_in <= generation)).any():
        problems.append("retired.generation: an item should be retired after the generation that added it")
    newest = 0
    for segment in segments:
        latest = max(int(one.max(initial=0)) for one in (segment.generation, segment.retired.generation))
        if int(segment.newest[0]) < max(latest, newest):
            problems.append("newest: should be the generation of the latest change")
        newest = int(segment.newest[0])
    whole = segments[0]
    for segment in segments[1:]:
        whole = merged(whole, segment)
    if repeated := repeated_ids(whole):
        problems.append(f"item_ids: {whole.item_ids[repeated[0]]!r} comes twice")
    for a, b in repeated_codes(whole):
        if not 0 < retired_in[a] < generation[b]:
            problems.append(f"codes: {whole.item_ids[a]!r} and {whole.item_ids[b]!r} have the same")
            break
    return problems


def repeated_ids(segment: Segment) -> list[int]:
    """Return the rows whose id an earlier row has; they are neighbors in the order of the hashes."""
    equal = segment.id_hashes[1:] == segment.id_hashes[:-1]
    places = np.flatnonzero(np.append(equal, False) | np.insert(equal, 0, False))
    seen: set[str] = set()
    repeated = []
    for row in sorted(segment.id_order[places].tolist()):
        item_id = segment.item_ids[row]
        if item_id in seen:
            repeated.append(row)
        seen.add(item_id)
    return repeated


def repeated_codes(segment: Segment) -> list[tuple[int, int]]:
    """Return pairs of rows with the same codes, the older row first; they are neighbors in the order of the codes."""
    order = segment.code_order
    keys = code_keys(segment.codes[order])
    places = np.flatnonzero(keys[1:] == keys[:-1])
    return [(int(order[place]), int(order[place + 1])) for place in places]


def _is_order(order: npt.NDArray[np.int32], keys: npt.NDArray[Any]) -> bool:
    """Return whether `order` has every row once, with ascending keys, and rows of equal keys ascending."""
    if not len(order):
        return True
    if order.min() < 0 or order.max() >= len(order) or np.bincount(order, minlength=len(order)).max() > 1:
        return False
    ordered = keys[order]
    equal = ordered[1:] == ordered[:-1]
    return bool((ordered[1:] >= ordered[:-1]).all() and (np.diff(order)[equal] > 0).all())
