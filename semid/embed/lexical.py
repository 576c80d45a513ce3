"""LexicalEncoder: text to vectors with TF-IDF and a truncated SVD; the default, which downloads nothing.

A text becomes words and subwords (the 3- to 5-grams of each word, so that a word never seen still lands near
its relatives); scripts without spaces become characters and pairs of characters. Each field is a TF-IDF
vector of unit length times the weight of its field; their sum is reduced to D dims by an SVD and scaled to
unit length. No word order, no word pairs, no meaning beyond what the catalogue's own words show together.

Choices, with what decided them. R@50: the next item is among the 50 nearest by cosine to the mean of the
last five items, history not excluded; the choices were made on these same positions, so the figures flatter a
little. Two shop catalogues, where all-MiniLM-L6-v2 has 0.095 and 0.183:

==================================  ====================  ===================
R@50                                beauty, 12,101 items  office, 3,459 items
==================================  ====================  ===================
as built: D = 384                   0.136                 0.238
D = 256                             0.125                 0.234
all fields with the same weight     0.118                 0.229
`spectrum=0`                        0.124                 0.228
`spectrum=1`                        0.139                 0.232
`subword_weight=0`                  0.133                 0.239
==================================  ====================  ===================

- Field weights come from the catalogue (`_field_weights`): a label that many items share, such as a brand,
  says less about one item than its title. It matters for codes too: items that people take in succession
  share a first residual k-means code 20.8 and 17.1 times as often as chance (beauty, office; one seed), with
  equal weights 14.8 and 14.9 times.
- Components are divided by the square root of their singular values (`spectrum=0.5`). The full division is
  no clear gain: better R@50 on one catalogue, worse on the other, and first codes 15.1 and 18.4.
- Subwords leave R@50 as it is and find rare names: The Godfather's neighbours are its sequels and gangster
  films. At 0.3 stepfathers join in. Word pairs, whole phrases and a vocabulary per field gained nothing.
- A number counts half as much as a word and a year a fifth: a year says little about what an item is.

Determinism: `fit` sorts the items by id and runs the SVD on one thread; all it keeps is rounded to what is
stored. `transform` sums each row alone, in the order of the features (SciPy's sparse product runs on one
thread), so a vector depends on its own text only, never on its batch. On another CPU or BLAS a new fit may
differ in the last bit of a component; a stored encoder gives the same vectors.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.errors import ArtifactError, ConfigError, InputError
from semid.strings import PackedStrings

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from semid.catalog import Items

__all__ = ["LexicalEncoder", "words_of"]

logger = logging.getLogger("semid")

LONGEST_TEXT = 200_000  # characters of a field that are read: later ones say little more about one item
LONGEST_WORD = 64  # characters of a word that become subwords
BATCH = 4096  # items in memory at once while transforming
MOST_FITTED = 200_000  # items that the SVD looks at, evenly spread over the sorted ids
SMALL_CATALOGUE = 1000  # below it a word counts from its first item on, above from its second
LEAST_WEIGHT = 0.15  # of a field that says next to nothing about one item

MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f'\u2019]")  # accents, points, apostrophes
UNSPACED = (  # Thai, Lao, Myanmar, Khmer, kana, Han: scripts that do not put spaces between words
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
INDIC = "\u0900-\u0963\u0966-\u0dff"  # with vowel signs, which are not \w but belong to the word
WORD = re.compile(rf"\d+(?:[.,]\d+)+(?!\w)|[{UNSPACED}]+|(?:[^\W_{UNSPACED}]|[{INDIC}])+")
UNSPACED_RUN = re.compile(f"[{UNSPACED}]")
NUMBER = re.compile(r"[\d.,]+")
YEAR = re.compile(r"1[89]\d\d|20\d\d")


def words_of(text: str) -> list[str]:
    """The words of a text, in order: no case, no accents; characters and pairs where a script has no spaces.

    >>> words_of("Crème de l'Été, 0.5-Fluid Ounce (2014)"), words_of("口紅 No.5")
    (['creme', 'de', 'lete', '0.5', 'fluid', 'ounce', '2014'], ['口', '紅', '口紅', 'no', '5'])
    """
    text = text[:LONGEST_TEXT].casefold()
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
    """The 3- to 5-grams of `<word>`, itself excluded; none of a number.

    >>> subwords_of("opi"), subwords_of("1972")
    (['<op', 'opi', 'pi>', '<opi', 'opi>'], [])
    """
    if NUMBER.fullmatch(word):
        return []
    marked = f"<{word[:LONGEST_WORD]}>"
    sizes = range(3, min(6, len(marked)))
    return [marked[i : i + size] for size in sizes for i in range(len(marked) - size + 1)]


class LexicalEncoder:
    """TF-IDF per field, summed with field weights, reduced by a truncated SVD.

    Parameters
    ----------
    dim : int
        Dims of a vector, D. A catalogue with fewer items or words has fewer (`dim_`).
    field_weights : mapping of field name -> float, optional
        Replaces the weights found for these fields; 0 leaves a field out.
    number_weight, year_weight : float
        Weight of a number and of a year (1800 to 2099) beside a word's 1.
    subword_weight : float
        Weight of a subword.
    spectrum : float
        Component i is divided by its singular value to this power: 0 keeps the variances of the SVD, 1
        makes them equal.
    max_words, max_subwords : int
        The most frequent of each are kept.
    seed : int
        Of the randomized SVD.

    Attributes
    ----------
    field_weights_ : dict of field name -> float
    words_, subwords_ : PackedStrings
        The F features: words, then subwords, each sorted.
    feature_weights_ : float32 [F]
        Inverse document frequency times the weight of the kind of feature.
    components_ : float16 [F, D]

    >>> from semid.catalog import Items
    >>> items = Items(["a", "b", "c"], {"title": ["red nail polish", "blue nail polishes", "kohl pencil"]})
    >>> vectors = LexicalEncoder().fit_transform(items)
    >>> vectors.shape, bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    ((3, 3), True)
    """

    def __init__(
        self,
        *,
        dim: int = 384,
        field_weights: Mapping[str, float] | None = None,
        number_weight: float = 0.5,
        year_weight: float = 0.2,
        subword_weight: float = 0.2,
        spectrum: float = 0.5,
        max_words: int = 30_000,
        max_subwords: int = 15_000,
        seed: int = 0,
    ) -> None:
        self.dim = dim
        self.field_weights = field_weights
        self.number_weight = number_weight
        self.year_weight = year_weight
        self.subword_weight = subword_weight
        self.spectrum = spectrum
        self.max_words = max_words
        self.max_subwords = max_subwords
        self.seed = seed

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has run, or the encoder comes from `from_state`."""
        return hasattr(self, "components_")

    @property
    def dim_(self) -> int:
        """Dims of the fitted vectors, D."""
        return self.components_.shape[1]

    # ---- learning ---------------------------------------------------------------------------------------

    def fit(self, items: Items) -> LexicalEncoder:
        """Learn vocabulary, weights and components. The order of the items changes nothing.

        Raises
        ------
        InputError
            No items.
        ConfigError
            A parameter is out of range, or `field_weights` names a field that the items do not have.
        """
        self._check()
        if not len(items):
            raise InputError("items=0: the lexical encoder learns from at least one item.")
        order = sorted(range(len(items)), key=list(items.ids).__getitem__)
        chosen = order[:: -(-len(order) // MOST_FITTED)]
        columns = {name: [items.fields[name][i] for i in chosen] for name in sorted(items.fields)}
        words, counts = _count_words(columns)
        kinds = np.array([self._kind_weight(word) for word in words], np.float64)
        self.field_weights_ = self._field_weights(columns, counts, kinds)
        self._choose_features(words, kinds, counts, len(chosen))
        self._reduce(self._weigh(words, counts, len(chosen)))
        return self

    def _check(self) -> None:
        for name, least in (("dim", 1), ("max_words", 1), ("max_subwords", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ConfigError(f"{name}={value!r} should be a whole number, at least {least}.")
        for name in ("number_weight", "year_weight", "subword_weight", "spectrum"):
            _check_weight(name, getattr(self, name))
        for name, weight in (self.field_weights or {}).items():
            _check_weight(f"field_weights[{name!r}]", weight)

    def _kind_weight(self, word: str) -> float:
        if YEAR.fullmatch(word):
            return self.year_weight
        return self.number_weight if NUMBER.fullmatch(word) else 1.0

    def _field_weights(
        self, columns: dict[str, list[str]], counts: dict[str, csr_array], kinds: npt.NDArray[np.float64]
    ) -> dict[str, float]:
        """distinct / filled * n / (n + 6) / (1 + n / 60), with n the mean number of words, at least 0.15.

        A value that many items share says little about one of them; so does one of two or three words; and
        one of hundreds mostly repeats itself.
        """
        weights = {}
        for name, texts in columns.items():
            filled = [text for text in texts if text]
            n = float((counts[name] @ kinds).sum()) / max(1, len(filled))
            telling = len(set(filled)) / max(1, len(filled)) * n / (n + 6) / (1 + n / 60)
            weights[name] = max(LEAST_WEIGHT, telling)
        for name, weight in (self.field_weights or {}).items():
            if name not in weights:
                known = ", ".join(weights) or "none"
                raise ConfigError(f"field_weights: no field {name!r}. Fields of these items: {known}.")
            weights[name] = float(weight)
        return weights

    def _choose_features(
        self,
        words: list[str],
        kinds: npt.NDArray[np.float64],
        counts: dict[str, csr_array],
        n_items: int,
    ) -> None:
        """Sets words_, subwords_ and feature_weights_ from the document frequencies."""
        once = n_items < SMALL_CATALOGUE
        used = [counts[name] for name in counts if self.field_weights_[name] > 0]
        seen = sum(used[1:], used[0]) if used else _empty(n_items, len(words))
        frequency = np.bincount(seen.indices, minlength=len(words))
        kept = _most_frequent(words, frequency, 1 if once else 2, self.max_words)
        subwords = {piece: i for i, piece in enumerate(sorted({s for w in words for s in subwords_of(w)}))}
        if self.subword_weight == 0 or self.max_subwords == 0:
            subwords = {}
        containing = _columns_by_name(words, subwords_of, subwords)
        pieces, piece_frequency = list(subwords), np.zeros(len(subwords), np.int64)
        for start in range(0, n_items, BATCH):
            found = (seen[start : start + BATCH] @ containing).indices
            piece_frequency += np.bincount(found, minlength=len(pieces))
        kept_pieces = _most_frequent(pieces, piece_frequency, 1 if once else 5, self.max_subwords)

        self.words_ = PackedStrings.pack(words[i] for i in kept)
        self.subwords_ = PackedStrings.pack(pieces[i] for i in kept_pieces)
        rarity = [
            1 + math.log((1 + n_items) / (1 + int(df)))
            for df in [*frequency[kept], *piece_frequency[kept_pieces]]
        ]
        kind = np.concatenate([kinds[kept], np.full(len(kept_pieces), self.subword_weight)])
        self.feature_weights_ = (np.array(rarity, np.float64) * kind).astype(np.float32)
        self._index_features()

    def _reduce(self, features: csr_array) -> None:
        """Sets components_ to V / singular values ** spectrum, rounded to float16."""
        from sklearn.utils.extmath import randomized_svd
        from threadpoolctl import threadpool_limits

        n_features = features.shape[1]
        self.components_ = np.zeros((n_features, 1), np.float16)
        if not features.nnz:
            return
        with threadpool_limits(1):
            _, sizes, axes = randomized_svd(
                features, min(self.dim, *features.shape), n_iter=2, random_state=self.seed
            )
        rank = int((sizes > 1e-4 * sizes[0]).sum())  # float32: what is smaller is rounding noise
        components = axes[:rank].T / (sizes[:rank] / sizes[0]) ** self.spectrum
        # A power of two brings the largest to [512, 1024), where float16 has no subnormal numbers to lose;
        # vectors are scaled to unit length anyway.
        exponent = 10 - math.frexp(float(np.abs(components).max()))[1]
        self.components_ = np.ldexp(components, exponent).astype(np.float16)

    # ---- applying ---------------------------------------------------------------------------------------

    def transform(self, items: Items, progress: bool = False) -> npt.NDArray[np.float32]:
        """Vectors of unit length, float32 [N, D]; zeros for a text without any known word or subword.

        Parameters
        ----------
        items : Items
            Fields that were not there when fitting are left out, with a warning; missing ones are empty.
        progress : bool
            Show a bar on standard error.

        Raises
        ------
        ConfigError
            Not fitted.
        InputError
            None of the fields that the encoder was fitted on is there.
        """
        if not self.is_fitted:
            raise ConfigError("this LexicalEncoder is not fitted. Call fit(items) first, or fit_transform.")
        names = self._known_fields(items)
        vectors = np.zeros((len(items), self.dim_), np.float32)
        components = self.components_.astype(np.float32)
        for start in _batches(len(items), progress):
            stop = min(start + BATCH, len(items))
            words, counts = _count_words({name: items.fields[name][start:stop] for name in names})
            features = self._weigh(words, counts, stop - start)
            vectors[start:stop] = _unit_rows(features @ components)
        return vectors

    def fit_transform(self, items: Items, progress: bool = False) -> npt.NDArray[np.float32]:
        """`fit`, then `transform` the same items."""
        return self.fit(items).transform(items, progress=progress)

    def _known_fields(self, items: Items) -> list[str]:
        known = [name for name in self.field_weights_ if name in items.fields]
        strange = sorted(set(items.fields) - set(self.field_weights_))
        have = ", ".join(strange)
        if strange and not known and self.field_weights_:
            expected = ", ".join(self.field_weights_)
            raise InputError(f"items have the fields {have}; expected {expected}. Rename them, or refit.")
        if strange:
            logger.warning("fields %s were not there when the encoder was fitted; left out.", have)
        return known

    def _weigh(self, words: list[str], counts: dict[str, csr_array], n_items: int) -> csr_array:
        """TF-IDF rows of unit length, float32 [n, F], from word counts per field."""
        from scipy.sparse import csr_array

        n_features = len(self.feature_weights_)
        containing = _columns_by_name(words, self._features_of, range(n_features))
        total = _empty(n_items, n_features).astype(np.float32)
        for name in sorted(counts):
            found = (counts[name] @ containing).tocsr()
            found.sort_indices()
            values = _log_counts(found.data) * self.feature_weights_[found.indices]
            rows = np.repeat(np.arange(n_items), np.diff(found.indptr))
            values *= (_inverse_norms(rows, values, n_items) * self.field_weights_[name])[rows]
            total += csr_array((values, found.indices, found.indptr), shape=found.shape)
        rows = np.repeat(np.arange(n_items), np.diff(total.indptr))
        total.data *= _inverse_norms(rows, total.data, n_items)[rows]
        total.sort_indices()
        return total

    def _index_features(self) -> None:
        self._word_columns = {word: i for i, word in enumerate(self.words_)}
        self._subword_columns = {piece: len(self.words_) + i for i, piece in enumerate(self.subwords_)}

    def _features_of(self, word: str) -> Iterator[int]:
        if word in self._word_columns:
            yield self._word_columns[word]
        for piece in subwords_of(word) if self._subword_columns else ():
            if piece in self._subword_columns:
                yield self._subword_columns[piece]

    # ---- storing ----------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """(arrays, meta) that `from_state` turns into an encoder giving equal vectors, bit for bit."""
        arrays = {
            "words.data": self.words_.data,
            "words.offsets": self.words_.offsets,
            "subwords.data": self.subwords_.data,
            "subwords.offsets": self.subwords_.offsets,
            "feature_weights": self.feature_weights_,
            "components": self.components_,
        }
        names = ("dim", "number_weight", "year_weight", "subword_weight", "spectrum", "max_words")
        parameters = {name: getattr(self, name) for name in (*names, "max_subwords", "seed")}
        # JSON has no NumPy numbers.
        parameters = {k: v.item() if isinstance(v, np.generic) else v for k, v in parameters.items()}
        given = self.field_weights
        parameters["field_weights"] = None if given is None else {k: float(v) for k, v in given.items()}
        return arrays, {"kind": "lexical", "field_weights": self.field_weights_, "parameters": parameters}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], meta: dict) -> LexicalEncoder:
        """The fitted encoder that `state` described.

        Raises
        ------
        ArtifactError
            The arrays do not fit together.
        """
        try:
            encoder = cls(**meta["parameters"])
            encoder.field_weights_ = {str(k): float(v) for k, v in sorted(meta["field_weights"].items())}
            encoder.words_ = PackedStrings(arrays["words.data"], arrays["words.offsets"])
            encoder.subwords_ = PackedStrings(arrays["subwords.data"], arrays["subwords.offsets"])
            encoder.feature_weights_ = arrays["feature_weights"]
            encoder.components_ = arrays["components"]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ArtifactError(f"stored lexical encoder: {error!r}. Restore it from a copy.") from None
        n_features = len(encoder.words_) + len(encoder.subwords_)
        shapes = (encoder.feature_weights_.shape, encoder.components_.shape[:1])
        if shapes != ((n_features,), (n_features,)) or encoder.components_.ndim != 2:
            raise ArtifactError(
                f"stored lexical encoder: {n_features} features, but feature_weights "
                f"{encoder.feature_weights_.shape} and components {encoder.components_.shape}. "
                "Restore it from a copy."
            )
        encoder._index_features()
        return encoder


# ---- counting and weighing --------------------------------------------------------------------------------


def _check_weight(name: str, value: float) -> None:
    if not isinstance(value, int | float | np.number) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name}={value!r} should be a number, at least 0.")


def _batches(n_items: int, progress: bool) -> Iterable[int]:
    starts = range(0, n_items, BATCH)
    if not progress:
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc="embed", unit="batch")


def _empty(n_rows: int, n_columns: int) -> csr_array:
    from scipy.sparse import csr_array

    return csr_array((n_rows, n_columns), dtype=np.int64)


def _count_words(columns: dict[str, Sequence[str]]) -> tuple[list[str], dict[str, csr_array]]:
    """(words, {field: int64 [n, words]}): the distinct words, in order of appearance, and their counts."""
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


def _columns_by_name(words: list[str], parts_of, columns: Mapping[str, int] | range) -> csr_array:
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


def _most_frequent(
    names: list[str], frequency: npt.NDArray[np.int64], least: int, most: int
) -> npt.NDArray[np.int64]:
    """Indices of the `most` names of at least frequency `least`, sorted by name; first names win ties."""
    ranked = sorted(np.flatnonzero(frequency >= least).tolist(), key=lambda i: (-frequency[i], names[i]))
    return np.array(sorted(islice(ranked, most), key=names.__getitem__), np.int64)


def _log_counts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """1 + ln(count), from one scalar logarithm per distinct count, so that no vector unit can matter."""
    distinct, place = np.unique(counts, return_inverse=True)
    return np.array([1 + math.log(count) for count in distinct.tolist()], np.float32)[place]


def _inverse_norms(
    rows: npt.NDArray[np.int64], values: npt.NDArray[np.float32], n_rows: int
) -> npt.NDArray[np.float32]:
    """1 / the length of each row, 0 for a row of zeros; bincount adds in order, in float64."""
    squares = np.bincount(rows, np.square(values, dtype=np.float64), n_rows)
    return np.divide(1, np.sqrt(squares), out=np.zeros(n_rows), where=squares > 0).astype(np.float32)


def _unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    squares = np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True)
    scale = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    return (vectors * scale).astype(np.float32)
