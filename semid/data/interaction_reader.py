"""Read interactions: histories (`{"user": ..., "items": [...]}`) and logs (`user,item,time` rows), in one pass.

Which fields hold the users, items and times is found by `interaction_fields`. Ratings and other fields are ignored.
Times and held-out counts are kept where the source has them. A plain log is read by columns, all else by records.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypedDict

from semid.data.interaction_columns import read_columns
from semid.data.interaction_records import RecordReader
from semid.data.interactions import Interactions
from semid.files.problems import Problems
from semid.files.reading import Duplicates, Reading, reading_of
from semid.files.records import iter_records
from semid.runtime.progress import track

__all__ = ["FieldNames", "read_interactions"]


class FieldNames(TypedDict):
    """What the caller of `read_interactions` calls the fields; None: find them by their names."""

    user_field: str | None
    item_field: str | None
    time_field: str | None


def read_interactions(
    source: object,
    *,
    user_field: str | None = None,
    item_field: str | None = None,
    time_field: str | None = None,
    delimiter: str | None = None,
    columns: Sequence[str] | str | None = None,
    encoding: str | None = None,
    skip_bad_rows: bool | str | os.PathLike[str] = False,
    duplicates: Duplicates = "error",
) -> Interactions:
    """Read histories, or a log of single interactions.

    Parameters
    ----------
    source : path, "-", datasets.Dataset, Arrow stream, iterable of dicts, or Interactions
        Formats as in `iter_records`. A record is either a user's whole history, its item field a list with the oldest
        first and each user once, or one interaction. A log is ordered per user by time, equal times as they stand in
        the source; without a time field, as it stands in the source. A history may have a list of times, which do not
        fall, and the counts `n_valid` and `n_test` of items held out at its end. Interactions are returned as they are.
    user_field, item_field, time_field : str, optional
        Names of the fields. By default the usual names are found, such as user, user_id, reviewerID; items, item_id,
        asin, movieId; time, timestamp, date, created_at; one log line says which were taken. An empty `time_field`
        means the order of the source. Times are numbers, in any unit, or ISO dates (UTC unless they say otherwise).
    delimiter, columns, encoding, skip_bad_rows, duplicates
        How to read a file, where its content does not say it; see `Reading`. Of several histories of a user, "first"
        and "last" keep one.

    Rows with a column such as `history_item_id` beside the item are read as one history per user: the longest, with the
    row's item at its end. Naming `item_field` reads such rows as single interactions.

    Returns
    -------
    Interactions
        Users and items sorted. Missing or wrong times of histories and held-out counts are no error until a split
        needs them.

    Raises
    ------
    InputError
        The source cannot be read, or some of it is wrong: a missing user or item, two columns that could be it, a user
        with two histories, a time of a log that is none. Lists the first ten problems with their lines.
    ConfigError
        An option for reading is impossible.

    >>> log = read_interactions([{"user": 1, "item": "b", "time": 9}, {"user": 1, "item": "a", "time": 2}])
    >>> log.users, log.history(0), log.times.tolist()
    (['1'], ['a', 'b'], [2.0, 9.0])
    """
    if isinstance(source, Interactions):
        return source
    header = columns.split(",") if isinstance(columns, str) else columns
    given = Reading(delimiter, None if header is None else tuple(header), encoding, skip_bad_rows, duplicates)
    reading = reading_of(source, given)
    problems = Problems.of(source, reading)
    names = (user_field, item_field, time_field)
    found = read_columns(source, problems, names)
    if found is not None:
        return found.interactions()
    reader = RecordReader(problems, names)
    records = iter_records(source, keep=reader.wants, problems=problems, reading=reading)
    for line, record in track(records, f"reading {problems.name}", unit="record"):
        reader.add(line, record)
    return reader.interactions()
