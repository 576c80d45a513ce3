"""Counts: words per item and field as sparse matrices, and the arithmetic on them that is the same on any machine.

Every sum here runs in the order of its rows and columns, and every logarithm is a scalar one: no vector unit and no
thread can change a bit. Which words are kept and what they weigh is up to `lexical`.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.embed.words import words_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["count_words", "empty_counts", "inverse_norms", "log_counts", "most_frequent", "parts_by_word"]


def empty_counts(n_rows: int, n_columns: int) -> csr_array:
    """int64 [n_rows, n_columns] without any count."""
    from scipy.sparse import csr_array

    return csr_array((n_rows, n_columns), dtype=np.int64)


def count_words(columns: dict[str, Sequence[str]]) -> tuple[list[str], dict[str, csr_array]]:
    """(words, {field: int64 [n, words]}): the distinct words, in order of appearance, and their counts.

    >>> words, counts = count_words({"title": ["red red kohl", ""], "brand": ["OPI", "red"]})
    >>> words, counts["title"].toarray().tolist(), counts["brand"].toarray().tolist()
    (['red', 'kohl', 'opi'], [[2, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]])
    """
    from scipy.sparse import csr_array

    place: defaultdict[str, int] = defaultdict()
    place.default_factory = place.__len__  # a new word gets the next number
    rows = {}
    for name, texts in columns.items():
        indices, starts = array("q"), [0]
        for text in texts:
            indices.extend(map(place.__getitem__, words_of(text)))
            starts.append(len(indices))
        rows[name] = np.frombuffer(indices, np.int64), np.array(starts, np.int64)
    counts = {}
    for name, (indices, starts) in rows.items():
        ones = np.ones(len(indices), np.int64)
        counts[name] = csr_array((ones, indices.copy(), starts), shape=(len(starts) - 1, len(place)))
        counts[name].sum_duplicates()
    return list(place), counts


def parts_by_word(
    words: list[str], parts_of: Callable[[str], Iterable], columns: Mapping[str, int] | range
) -> csr_array:
    """int64 [words, columns]: how often each column (a feature, or a subword by name) occurs in each word."""
    from scipy.sparse import csr_array

    indices, starts = [], [0]
    for word in words:
        parts = parts_of(word)
        indices.extend(parts if isinstance(columns, range) else (columns[p] for p in parts if p in columns))
        starts.append(len(indices))
    shape = (len(words), len(columns))
    found = csr_array((np.ones(len(indices), np.int64), np.array(indices, np.int64), starts), shape=shape)
    found.sum_duplicates()
    return found


def most_frequent(names: list[str], frequency: npt.NDArray[np.int64], least: int, most: int) -> npt.NDArray[np.int64]:
    """Indices of the `most` names of at least frequency `least`, sorted by name; first names win ties.

    >>> most_frequent(["b", "c", "a"], np.array([3, 1, 3]), 2, 1).tolist()
    [2]
    """
    ranked = sorted(np.flatnonzero(frequency >= least).tolist(), key=lambda i: (-frequency[i], names[i]))
    return np.array(sorted(islice(ranked, most), key=names.__getitem__), np.int64)


def log_counts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """1 + ln(count), from one scalar logarithm per distinct count, so that no vector unit can matter."""
    distinct, place = np.unique(counts, return_inverse=True)
    return np.array([1 + math.log(count) for count in distinct.tolist()], np.float32)[place]


def inverse_norms(rows: npt.NDArray[np.int64], values: npt.NDArray[np.float32], n_rows: int) -> npt.NDArray[np.float32]:
    """1 / the length of each row, 0 for a row of zeros; bincount adds in order, in float64."""
    squares = np.bincount(rows, np.square(values, dtype=np.float64), n_rows)
    return np.divide(1, np.sqrt(squares), out=np.zeros(n_rows), where=squares > 0).astype(np.float32)
