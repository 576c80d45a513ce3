"""Interactions column by column: a log in a CSV or Parquet file as three Arrow columns, several times as fast.

Only what `interaction_records` reads to the same table, with the same words, is read here: a user, an item and a time
per row, none of them odd. Anything else raises `NotPlain`, and the file is read by records. Of a Parquet file no other
columns are looked at.
"""

from __future__ import annotations

import contextlib
import logging
import os
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.interaction_builder import HELD_OUT, NO_TIME, ROLES, InteractionBuilder, counts_fault
from semid.data.interaction_fields import Fields, find_fields
from semid.data.values import LARGEST_TIME
from semid.errors import SHOWN_PROBLEMS
from semid.files.arrow import chosen_columns, unread_columns
from semid.files.field_names import is_history
from semid.files.layout import layout_of
from semid.files.problems import Problems
from semid.files.row_batches import JSON_LINES, NotPlain, not_plain_if_unreadable, row_batches
from semid.files.sources import opened
from semid.runtime.progress import track

__all__ = ["read_columns"]

logger = logging.getLogger("semid")

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]

BATCH = 1 << 16  # rows of a Parquet file that are read at once
GROUP = 1 << 18  # rows whose ids are numbered at once
DIGITS = b"0123456789"
YEAR_1, YEAR_10000 = -62_135_596_800, 253_402_300_800  # in seconds since 1970


def read_columns(
    source: object, problems: Problems, names: tuple[str | None, str | None, str | None]
) -> InteractionBuilder | None:
    """Return the interactions of a plain log in a file; None if records must be read.

    Parameters
    ----------
    source : object
        As for `read_interactions`.
    problems : Problems
        Where mistakes will be noted; none is noted here.
    names : three of str or None
        What the caller calls the user, the item and the time.
    """
    if not isinstance(source, str | os.PathLike) or problems.skips:
        return None
    path = os.fsdecode(source)
    if path.lower().endswith(JSON_LINES) or not os.path.isfile(path):
        return None
    builder = InteractionBuilder(problems, names)
    try:
        _fill(path, builder)
    except NotPlain:
        return None
    return builder


def _fill(path: str, builder: InteractionBuilder) -> None:
    """Fill the builder. NotPlain if records must be read; nothing was said then."""
    reading = builder.problems.reading
    with not_plain_if_unreadable(), opened(path, reading) as file:
        layout = layout_of(file, path, reading)
        if layout.kind == "parquet" and layout.compression is None:
            _fill_from_parquet(path, builder)
        elif layout.is_plain:
            names = tuple(name for name in layout.columns if name)  # an unnamed one is the row number of pandas
            fields = _plain_fields(names, builder)
            _fill_from(row_batches(file, layout, _chosen(fields)), names, fields, builder, 2)
        else:
            raise NotPlain("neither rows nor Parquet")
    for said in layout.said:
        logger.warning("%s: %s", builder.problems.name, said)


def _fill_from_parquet(path: str, builder: InteractionBuilder) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
            raise NotPlain("two columns with one name")
        names = tuple(column.name for column in chosen_columns(file.schema_arrow, builder.wants))
        builder.problems.unread.update(unread_columns(file.schema_arrow, names))
        fields = _plain_fields(names, builder)
        builder.problems.style = "row"  # where records are read, it is set again
        _fill_from(file.iter_batches(BATCH, columns=_chosen(fields)), names, fields, builder, 1)


def _plain_fields(names: tuple[str, ...], builder: InteractionBuilder) -> Fields:
    """Return which columns are the user, the item and the time, of a log of single interactions."""
    fields = find_fields(names, builder.names)
    user, item, time = fields.user, fields.item, fields.time
    if user.name is None or item.name is None or is_history(item.name) or fields.history is not None:
        raise NotPlain("no log of single interactions")
    if time.among or (time.name is None and builder.names[2]) or not set(HELD_OUT).isdisjoint(names):
        raise NotPlain("an odd time, or held-out counts")
    if len({user.name, item.name, time.name}) < 3:
        raise NotPlain("one column with two roles")
    return fields


def _chosen(fields: Fields) -> list[str]:
    return [choice.name for choice in (fields.user, fields.item, fields.time) if choice.name is not None]


def _fill_from(
    batches: Iterable[Any], names: tuple[str, ...], fields: Fields, builder: InteractionBuilder, first_line: int
) -> None:
    """Fill the builder with batches of the chosen columns, whose rows are lines from `first_line` on."""
    import pyarrow

    numbered = (_Numbers(builder.users, builder.user_of), _Numbers(builder.items, builder.item_of))
    times: list[Numbers] = []
    dated = set()
    for batch in track(batches, f"reading {builder.problems.name}", unit="block"):
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for ids, choice in zip(numbered, (fields.user, fields.item), strict=True):
            ids.add(_as_ids(columns[str(choice.name)]))
        if fields.time.name is not None:
            found, are_dates = _as_times(columns[fields.time.name])
            times.append(found)
            dated.add(are_dates)
    for ids in numbered:
        ids.flush()
    if not builder.users or len(dated) > 1:
        raise NotPlain("no rows, or dates and numbers as times")
    if fields.time.name is not None:
        kind = np.result_type(*times)
        builder.times = array("q" if kind == np.int64 else "d")
        times.reverse()
        while times:  # each piece is freed as it is taken over
            builder.times.frombytes(times.pop().astype(kind).tobytes())
    pyarrow.default_memory_pool().release_unused()  # sorting needs it
    for role in ROLES:
        builder.take(role, getattr(fields, role))
    builder.columns = dict.fromkeys(names)
    _note_lacks(builder, fields.time.name is not None, len(builder.user_of), first_line)


def _note_lacks(builder: InteractionBuilder, has_times: bool, n_rows: int, first_line: int) -> None:
    """Note that there are no held-out counts, and perhaps no times, as the reader of records does row by row."""
    users = np.asarray(builder.user_of)
    firsts = [first_line + int((users == user).argmax()) for user in range(min(len(builder.users), SHOWN_PROBLEMS))]
    builder.no_counts.style = builder.no_times.style = builder.problems.style
    builder.no_counts.add_alike(firsts, len(builder.users), counts_fault([None, None]))
    if not has_times:
        builder.first["no time"] = first_line
        lines = range(first_line, first_line + min(n_rows, SHOWN_PROBLEMS))
        builder.no_times.add_alike(lines, n_rows, NO_TIME)


def _as_ids(column: Any) -> Any:
    """Return a column as strings or integers; NotPlain if one is null or of another type."""
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if column.null_count or not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
        raise NotPlain("an id that is null or no string")
    return column


class _Numbers:
    """Ids as numbers in order of appearance. Many rows are taken at once, so that Python sees few of the strings."""

    def __init__(self, known: dict[str, int], numbers: array[int]) -> None:
        self.known, self.numbers = known, numbers
        self.waiting: list[Any] = []
        self.n_waiting = 0

    def add(self, column: Any) -> None:
        self.waiting.append(column)
        self.n_waiting += len(column)
        if self.n_waiting >= GROUP:
            self.flush()

    def flush(self) -> None:
        """Give numbers to the ids that wait. NotPlain if one cannot be an id."""
        import pyarrow

        if not self.n_waiting:
            return
        encoded = pyarrow.chunked_array(self.waiting).dictionary_encode()
        self.waiting, self.n_waiting = [], 0
        ids = encoded.chunks[-1].dictionary.to_pylist()
        if "" in ids:
            raise NotPlain("an empty id")
        known = self.known
        table = np.fromiter((known.setdefault(str(one), len(known)) for one in ids), np.int32, len(ids))
        for piece in encoded.chunks:
            self.numbers.frombytes(table[piece.indices.to_numpy()].tobytes())


# ---- times


def _as_times(column: Any) -> tuple[Numbers, bool]:
    """Return a column as numbers, and whether they are microseconds of dates; NotPlain if one is neither."""
    import pyarrow
    import pyarrow.types as types

    kind = column.type
    if column.null_count:
        raise NotPlain("a time that is null")
    if types.is_string(kind) or types.is_large_string(kind):
        return _times_of_strings(column)
    if types.is_integer(kind) and not types.is_uint64(kind):
        return column.cast(pyarrow.int64()).to_numpy(), False
    if types.is_float32(kind) or types.is_float64(kind):
        return _finite(column.cast(pyarrow.float64()).to_numpy()), False
    if types.is_date32(kind) or types.is_timestamp(kind):
        return _microseconds(column), True
    raise NotPlain("a time of another type")


def _times_of_strings(column: Any) -> tuple[Numbers, bool]:
    """Return the times that strings spell; NotPlain unless their signs are ones that Arrow and Python read alike."""
    import pyarrow

    _, bounds, text = column.buffers()
    wide = pyarrow.types.is_large_string(column.type)
    ends = np.frombuffer(bounds, np.int64 if wide else np.int32)[column.offset : column.offset + len(column) + 1]
    used = np.zeros(256, np.bool_)
    if text is not None and len(ends):
        used[np.frombuffer(text, np.uint8)[ends[0] : ends[-1]]] = True
    signs = set(np.flatnonzero(used).tolist()) - set(DIGITS)
    with contextlib.suppress(pyarrow.ArrowInvalid):
        if signs <= set(b"-"):
            return column.cast(pyarrow.int64()).to_numpy(), False
    with contextlib.suppress(pyarrow.ArrowInvalid):
        if signs <= set(b"-+.eE"):
            return _finite(column.cast(pyarrow.float64()).to_numpy()), False
    with contextlib.suppress(pyarrow.ArrowInvalid):
        if ord("-") in signs and signs <= set(b"-:T .Z"):
            zone = "UTC" if ord("Z") in signs else None
            return _microseconds(column.cast(pyarrow.timestamp("us", zone))), True
    raise NotPlain("a time that is not plain")


def _finite(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not (np.abs(times) <= LARGEST_TIME).all():
        raise NotPlain("a time that is no number")
    return times


def _microseconds(column: Any) -> npt.NDArray[np.int64]:
    """Return dates as microseconds since 1970, what is finer cut off; NotPlain outside of the years 1 to 9999."""
    import pyarrow

    unit = "s" if pyarrow.types.is_date32(column.type) else column.type.unit
    moments = column.cast(pyarrow.timestamp(unit)).to_numpy(zero_copy_only=False).view(np.int64)
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    if len(moments) and not YEAR_1 * ticks <= int(moments.min()) <= int(moments.max()) < YEAR_10000 * ticks:
        raise NotPlain("a date that Python has not")
    found: npt.NDArray[np.int64] = moments // 1000 if unit == "ns" else moments * (10**6 // ticks)
    return found
