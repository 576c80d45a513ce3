"""The arithmetic of TF-IDF and SVD: words, counts, components. The weights are chosen in `lexical.py`.

Every sum runs in the order of its rows and columns, and every logarithm is a scalar one, so no vector unit and no
thread can change a bit.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from semid.data.items import Items

__all__ = [
    "components_of",
    "count_words",
    "empty_counts",
    "inverse_norms",
    "is_number",
    "is_year",
    "log_counts",
    "memory_to_fit",
    "most_frequent",
    "parts_by_word",
    "subwords_of",
    "words_of",
]


def empty_counts(n_rows: int, n_columns: int) -> csr_array:
    """Return a sparse int64 matrix [n_rows, n_columns] without entries."""
    from scipy.sparse import csr_array

    return csr_array((n_rows, n_columns), dtype=np.int64)


def count_words(columns: dict[str, Sequence[str]]) -> tuple[list[str], dict[str, csr_array]]:
    """Return the distinct words, in order of appearance, and their counts per field, {field: int64 [n, words]}.

    >>> words, counts = count_words({"title": ["red red kohl", ""], "brand": ["OPI", "red"]})
    >>> words, counts["title"].toarray().tolist(), counts["brand"].toarray().tolist()
    (['red', 'kohl', 'opi'], [[2, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]])
    """
    from scipy.sparse import csr_array

    place: defaultdict[str, int] = defaultdict()
    place.default_factory = place.__len__  # a new word gets the next number
    rows: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}
    for name, texts in columns.items():
        found, ends = array("q"), [0]
        for text in texts:
            found.extend(map(place.__getitem__, words_of(text)))
            ends.append(len(found))
        rows[name] = np.frombuffer(found, np.int64), np.array(ends, np.int64)
    counts = {}
    for name, (indices, starts) in rows.items():
        ones = np.ones(len(indices), np.int64)
        counts[name] = csr_array((ones, indices.copy(), starts), shape=(len(starts) - 1, len(place)))
        counts[name].sum_duplicates()
    return list(place), counts


def parts_by_word(
    words: list[str], parts_of: Callable[[str], Iterable[Any]], columns: Mapping[str, int] | range
) -> csr_array:
    """Return how often each column (a feature, or a subword by name) occurs in each word, int64 [words, columns]."""
    from scipy.sparse import csr_array

    indices: list[int] = []
    starts = [0]
    for word in words:
        parts = parts_of(word)
        indices.extend(parts if isinstance(columns, range) else (columns[p] for p in parts if p in columns))
        starts.append(len(indices))
    shape = (len(words), len(columns))
    found = csr_array((np.ones(len(indices), np.int64), np.array(indices, np.int64), starts), shape=shape)
    found.sum_duplicates()
    return found


def most_frequent(names: list[str], frequency: npt.NDArray[np.int64], least: int, most: int) -> npt.NDArray[np.int64]:
    """Return indices of the `most` names of at least frequency `least`, sorted by name; first names win ties.

    >>> most_frequent(["b", "c", "a"], np.array([3, 1, 3]), 2, 1).tolist()
    [2]
    """
    ranked = sorted(np.flatnonzero(frequency >= least).tolist(), key=lambda i: (-frequency[i], names[i]))
    return np.array(sorted(islice(ranked, most), key=names.__getitem__), np.int64)


def log_counts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return 1 + ln(count), from one scalar logarithm per distinct count, so that no vector unit matters."""
    distinct, place = np.unique(counts, return_inverse=True)
    return np.array([1 + math.log(count) for count in distinct.tolist()], np.float32)[place]


def inverse_norms(rows: npt.NDArray[np.int64], values: npt.NDArray[np.float32], n_rows: int) -> npt.NDArray[np.float32]:
    """Return 1 / length of each row, 0 for a row of zeros; bincount adds in order, in float64."""
    squares = np.bincount(rows, np.square(values, dtype=np.float64), n_rows)
    return np.divide(1, np.sqrt(squares), out=np.zeros(n_rows), where=squares > 0).astype(np.float32)


# ---- Components: the truncated SVD that turns sparse features into D dims, and the memory that it takes.
# One thread and a fixed seed: the same features give the same components on the same machine.

OVERSAMPLED = 10  # dims beyond those wanted (randomized_svd)

# Peak memory of fitting, measured: bytes of the libraries and of the features' own matrices, of each word, of each
# distinct word or subword of an item; and the number of matrices float32 [items, dims].
LIBRARIES, WORD_BYTES, PART_BYTES, DENSE_COPIES = 450_000_000, 32, 16, 3
PROBED = 1000  # items


def components_of(features: csr_array, dim: int, *, spectrum: float, seed: int) -> npt.NDArray[np.float16]:
    """Return V / singular values ** spectrum, rounded to float16: [F, D] with D at most `dim`, the rank, N and F.

    Parameters
    ----------
    features : float32 [N, F]
        TF-IDF rows. Without entries, the result is one column of zeros.
    dim : int
        Cap on D.
    spectrum : float
        0 keeps the variances of the SVD, 1 makes them equal.
    seed : int
        Of the randomized SVD.

    >>> from scipy.sparse import csr_array
    >>> components_of(csr_array(np.eye(3, 5, dtype=np.float32)), 2, spectrum=0.5, seed=0).shape
    (5, 2)
    """
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    if not features.nnz:
        return np.zeros((features.shape[1], 1), np.float16)
    with threadpool_limits(1):
        _, sizes, axes = randomized_svd(features, min(dim, *features.shape), n_iter=2, random_state=seed)
    rank = int((sizes > 1e-4 * sizes[0]).sum())  # float32: smaller ones are rounding noise
    components = axes[:rank].T / (sizes[:rank] / sizes[0]) ** spectrum
    # A power of two brings the largest to [512, 1024), where float16 has no subnormal numbers to lose;
    # vectors are scaled to unit length anyway.
    exponent = 10 - math.frexp(float(np.abs(components).max()))[1]
    return np.ldexp(components, exponent).astype(np.float16)


def memory_to_fit(items: Items, n_fitted: int, dim: int) -> int:
    """Estimate the bytes that words and SVD of `n_fitted` items take beside the items, from a few of them."""
    probe = items.take(np.arange(0, len(items), max(1, len(items) // PROBED)))
    words, parts = 0, 0
    for column in probe.fields.values():
        for text in column:
            found = words_of(text)
            words += len(found)
            parts += len({part for word in set(found) for part in (word, *subwords_of(word))})
    dense = 4 * n_fitted * (dim + OVERSAMPLED) * DENSE_COPIES
    return LIBRARIES + dense + n_fitted * (WORD_BYTES * words + PART_BYTES * parts) // max(1, len(probe))


# ---- Words and subwords of a text.
# Words are split by script, without case and accents; subwords are the letters of one word. No stemming, no stop words,
# no word pairs.

LONGEST_TEXT = 200_000  # characters of a field that are read; later ones add little about one item
LONGEST_WORD = 64  # characters of a word that become subwords

MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f'\u2019]")  # accents, points, apostrophes
UNSPACED = (  # Thai, Lao, Myanmar, Khmer, kana, Han: scripts that do not put spaces between words
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
INDIC = "\u0900-\u0963\u0966-\u0dff"  # with vowel signs, which are not \w but belong to the word
WORD = re.compile(rf"\d+(?:[.,]\d+)+(?!\w)|[{UNSPACED}]+|(?:[^\W_{UNSPACED}]|[{INDIC}])+")
UNSPACED_RUN = re.compile(f"[{UNSPACED}]")
NUMBER = re.compile(r"[\d.,]+")
YEAR = re.compile(r"1[89]\d\d|20\d\d")


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order: no case, no accents; characters and pairs if a script has no spaces.

    >>> words_of("Crème de l'Été, 0.5-Fluid Ounce (2014)"), words_of("口紅 No.5")
    (['creme', 'de', 'lete', '0.5', 'fluid', 'ounce', '2014'], ['口', '紅', '口紅', 'no', '5'])
    """
    text = unicodedata.normalize("NFKD", text[:LONGEST_TEXT]).casefold()
    if text.isascii():
        return WORD.findall(text.replace("'", ""))
    text = unicodedata.normalize("NFC", MARKS.sub("", unicodedata.normalize("NFKD", text)))
    found: list[str] = []
    for word in WORD.findall(text):
        if UNSPACED_RUN.match(word):
            found.extend(word)
            found.extend(map("".join, zip(word, word[1:], strict=False)))
        else:
            found.append(word)
    return found


def subwords_of(word: str) -> list[str]:
    """Return the 3- to 5-grams of `<word>`, without the whole; none for a number.

    >>> subwords_of("opi"), subwords_of("1972")
    (['<op', 'opi', 'pi>', '<opi', 'opi>'], [])
    """
    if is_number(word):
        return []
    marked = f"<{word[:LONGEST_WORD]}>"
    sizes = range(3, min(6, len(marked)))
    return [marked[i : i + size] for size in sizes for i in range(len(marked) - size + 1)]


def is_number(word: str) -> bool:
    """Return whether a word consists of digits, points and commas: 1972, 0.5."""
    return NUMBER.fullmatch(word) is not None


def is_year(word: str) -> bool:
    """Return whether a word is a year from 1800 to 2099."""
    return YEAR.fullmatch(word) is not None
