"""Items column by column: a catalog in a plain CSV file as Arrow columns, without a Python string per cell.

What is odd in any way raises `NotPlain`, as in `row_batches`, and the file is read by records.
"""

from __future__ import annotations

import logging
import os

from semid.data.item_reader import ColumnReader
from semid.files.layout import layout_of
from semid.files.problems import Problems
from semid.files.row_batches import JSON_LINES, NotPlain, not_plain_if_unreadable, row_batches
from semid.files.sources import opened
from semid.runtime.progress import track

__all__ = ["read_rows"]

logger = logging.getLogger("semid")

NO_ROWS = (*JSON_LINES, ".parquet", ".pq")  # not looked into


def read_rows(source: object, problems: Problems, reader: ColumnReader) -> bool:
    """Add the rows of a plain file to a reader; return False if records must be read, by a new reader.

    Parameters
    ----------
    source : object
        As for `read_items`.
    problems : Problems
        Where mistakes will be noted; none is noted here.
    reader : ColumnReader
        To which nothing was added yet.
    """
    if not isinstance(source, str | os.PathLike) or problems.skips or reader.paths:
        return False
    path = os.fsdecode(source)
    if path.lower().endswith(NO_ROWS) or not os.path.isfile(path):
        return False
    try:
        with not_plain_if_unreadable(), opened(path, problems.reading) as file:
            layout = layout_of(file, path, problems.reading)
            names = [name for name in layout.columns if name]  # an unnamed one is the row number of pandas
            if not layout.is_plain or reader.id_field not in names:
                return False
            batches = row_batches(file, layout, names)
            for batch in track(batches, f"reading {problems.name}", unit="block"):
                reader.add_rows(2 + len(reader.lines), dict(zip(names, batch.columns, strict=True)))
    except NotPlain:
        return False
    for said in layout.said:
        logger.warning("%s: %s", problems.name, said)
    return True
