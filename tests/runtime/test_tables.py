"""Tables: in memory or in a file, the rows are the same, and the process does not grow by reading them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.runtime.tables import MappedRows, Tables


def filled(tables: Tables, rows: np.ndarray, step: int = 3):
    table = tables.new(*rows.shape, rows.dtype)
    for start in range(0, len(rows), step):
        table.append(rows[start : start + step])
    return table.finish()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 40), width=st.integers(1, 5), piece=st.integers(1, 50))
def test_rows_of_a_file_are_those_of_an_array(data, n, width, piece):
    rows = np.random.default_rng(n).normal(size=(n, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch, Tables(room=0) as tables:
        patch.setattr("semid.runtime.tables.PIECE_ROWS", piece)
        patch.setattr("semid.runtime.tables.PIECE_BYTES", 4 * width * piece)
        table = filled(tables, rows)
        assert isinstance(table, MappedRows) and table.shape == rows.shape and table.ndim == 2
        ends = st.none() | st.integers(-n - 2, n + 2)
        part = slice(data.draw(ends), data.draw(ends), data.draw(st.none() | st.sampled_from([1, 2, -1, -3])))
        numbers = np.array(data.draw(st.lists(st.integers(-n, n - 1), max_size=60)), np.int64)
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        for wanted in (part, numbers, mask, numbers.reshape(-1, 1)):
            assert np.array_equal(table[wanted], rows[wanted])
        assert np.array_equal(np.asarray(table), rows)


def test_there_is_room_for_what_fits_and_a_file_for_the_rest(tmp_path):
    rows = np.ones((10, 4), np.float32)
    with Tables(room=200, folder=tmp_path) as tables:
        assert isinstance(filled(tables, rows), np.ndarray)  # 160 bytes
        assert tables.on_disk == 0
        assert isinstance(filled(tables, rows), MappedRows)  # 40 left
        assert tables.on_disk == 160
        assert isinstance(filled(tables, rows[:1]), np.ndarray)
        assert list(tmp_path.iterdir()) == []  # the file has no name that could be left behind


def test_a_table_that_is_not_full_is_a_defect():
    with Tables(room=0) as tables, pytest.raises(ValueError, match=r"filled=1 should be 2 rows"):
        table = tables.new(2, 1)
        table.append(np.zeros((1, 1)))
        table.finish()


def test_reading_a_file_does_not_fill_memory_with_it():
    code = """
import numpy as np
from semid.runtime.memory import peak_memory
from semid.runtime.tables import Tables
n, d = 100_000, 256  # 100 MB
with Tables(room=0) as tables:
    table = tables.new(n, d)
    for start in range(0, n, 1000):
        table.append(np.full((1000, d), start, np.float32))
    table = table.finish()
    before = peak_memory()
    total = sum(float(table[start : start + 1000].sum()) for start in range(0, n, 1000))
    rows = np.random.default_rng(0).permutation(n)
    again = sum(float(table[rows[start : start + 1000]].sum()) for start in range(0, n, 1000))
    assert total == again
    print(peak_memory() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60e6
