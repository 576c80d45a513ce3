"""LexicalEncoder: text to vectors with TF-IDF and a truncated SVD; the default, which downloads nothing.

A text becomes words and subwords (the 3- to 5-grams of each word, so that an unseen word is near its relatives);
scripts without spaces become characters and pairs of characters. Each field is a TF-IDF vector of unit length times the
weight of its field; their sum is reduced to D dims by an SVD and scaled to unit length. No word order, no word pairs,
no meaning beyond the co-occurrence of the catalog's own words. Words, counts and components are in `tfidf.py`.

Choices and their measurements. R@50: the next item is among the 50 nearest by cosine to the mean of the last five
items, history not excluded. The choices were made on these same positions, so the figures are slightly optimistic. Two
shop catalogs, where all-MiniLM-L6-v2 has 0.095 and 0.183:

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

- Field weights come from the catalog (`_field_weights`): a value that many items share, such as a brand, tells less
  about one item than its title. This matters for codes too: consecutive items of users share a first residual k-means
  code 20.8 and 17.1 times as often as chance (beauty, office; one seed), with equal weights 14.8 and 14.9 times.
- Components are divided by the square root of their singular values (`spectrum=0.5`). The full division is no clear
  gain: better R@50 on one catalog, worse on the other, and first codes 15.1 and 18.4.
- Subwords leave R@50 unchanged and find rare names: The Godfather's neighbors are its sequels and gangster films. At
0.3
  stepfathers join in. Word pairs, whole phrases and a vocabulary per field gained nothing.
- A number has half the weight of a word and a year a fifth: a year tells little about what an item is.

Determinism: `fit` sorts the items by id and runs the SVD on one thread; everything it keeps is rounded to the stored
precision. `transform` sums each row alone, in the order of the features (SciPy's sparse product runs on one thread), so
a vector depends only on its own text, not on its batch. On another CPU or BLAS a new fit may differ in the last bit of
a component; a stored encoder gives the same vectors.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.data.strings import PackedStrings
from semid.encoders.tfidf import (
    components_of,
    count_words,
    empty_counts,
    inverse_norms,
    is_number,
    is_year,
    log_counts,
    memory_to_fit,
    most_frequent,
    parts_by_word,
    subwords_of,
    words_of,
)
from semid.errors import ArtifactError, ConfigError, InputError
from semid.runtime.arrays import unit_rows
from semid.runtime.progress import track

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from semid.data.items import Items

__all__ = ["LexicalEncoder", "words_of"]

logger = logging.getLogger("semid")

BATCH = 4096  # items whose features are computed at a time
MOST_FITTED = 200_000  # cap on the items that the SVD is fitted on, evenly spaced over the sorted ids
SMALL_CATALOG = 1000  # items; in smaller catalogs a word needs one item, in larger ones two
LEAST_WEIGHT = 0.15  # of a field that tells almost nothing about one item


class LexicalEncoder:
    """Embed text by TF-IDF per field, summed with field weights and reduced by a truncated SVD.

    Parameters
    ----------
    dim : int
        Dims of a vector, D; fewer for a catalog with fewer items or words (`dim_`).
    field_weights : mapping of field name -> float, optional
        Replace the computed weights of these fields; 0 leaves a field out.
    number_weight, year_weight : float
        Weight of a number and of a year (1800 to 2099), where a word has 1.
    subword_weight : float
        Weight of a subword.
    spectrum : float
        Component i is divided by its singular value to this power: 0 keeps the variances of the SVD, 1 makes them
        equal.
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
    n_fitted_ : int
        Items that were used for fitting; not stored.

    >>> from semid.data.items import Items
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
        """Learn vocabulary, weights and components, and return self. The order of the items changes nothing.

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
        sample = items.take(items.order()[:: self.sample_step(len(items))])
        self.n_fitted_ = len(sample)
        columns = {name: sample.fields[name] for name in sorted(sample.fields)}
        words, counts = count_words(columns)
        kinds = np.array([self._kind_weight(word) for word in words], np.float64)
        self.field_weights_ = self._field_weights(columns, counts, kinds)
        self._choose_features(words, kinds, counts, len(sample))
        features = self._features(words, counts, len(sample))
        del counts
        self.components_ = components_of(features, self.dim, spectrum=self.spectrum, seed=self.seed)
        return self

    @staticmethod
    def sample_step(n_items: int) -> int:
        """Return s, where `fit` uses every s-th item by the order of the ids: at most 200,000 items.

        >>> LexicalEncoder.sample_step(200_000), LexicalEncoder.sample_step(1_000_000)
        (1, 5)
        """
        return -(-n_items // MOST_FITTED)

    def memory_to_fit(self, items: Items) -> int:
        """Estimate the peak bytes of `fit` beside the items, from a few of them; measured to be enough."""
        n_fitted = -(-len(items) // self.sample_step(len(items)))
        return memory_to_fit(items, n_fitted, self.dim)

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
        if is_year(word):
            return self.year_weight
        return self.number_weight if is_number(word) else 1.0

    def _field_weights(
        self, columns: Mapping[str, Sequence[str]], counts: dict[str, csr_array], kinds: npt.NDArray[np.float64]
    ) -> dict[str, float]:
        """Return distinct / filled * n / (n + 6) / (1 + n / 60) per field, n the mean number of words; at least 0.15.

        A value that many items share tells little about one of them; so does a value of two or three words; and one of
        hundreds of words mostly repeats itself.
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
        """Set words_, subwords_ and feature_weights_ from the document frequencies."""
        once = n_items < SMALL_CATALOG
        used = [counts[name] for name in counts if self.field_weights_[name] > 0]
        seen = sum(used[1:], used[0]) if used else empty_counts(n_items, len(words))
        frequency = np.bincount(seen.indices, minlength=len(words))
        kept = most_frequent(words, frequency, 1 if once else 2, self.max_words)
        subwords = {piece: i for i, piece in enumerate(sorted({s for w in words for s in subwords_of(w)}))}
        if self.subword_weight == 0 or self.max_subwords == 0:
            subwords = {}
        containing = parts_by_word(words, subwords_of, subwords)
        pieces, piece_frequency = list(subwords), np.zeros(len(subwords), np.int64)
        for start in range(0, n_items, BATCH):
            found = (seen[start : start + BATCH] @ containing).indices
            piece_frequency += np.bincount(found, minlength=len(pieces))
        kept_pieces = most_frequent(pieces, piece_frequency, 1 if once else 5, self.max_subwords)

        self.words_ = PackedStrings.pack(words[i] for i in kept)
        self.subwords_ = PackedStrings.pack(pieces[i] for i in kept_pieces)
        rarity = [
            1 + math.log((1 + n_items) / (1 + int(df))) for df in [*frequency[kept], *piece_frequency[kept_pieces]]
        ]
        kind = np.concatenate([kinds[kept], np.full(len(kept_pieces), self.subword_weight)])
        self.feature_weights_ = (np.array(rarity, np.float64) * kind).astype(np.float32)
        self._index_features()

    # ---- applying ---------------------------------------------------------------------------------------

    def transform(self, items: Items) -> npt.NDArray[np.float32]:
        """Return vectors of unit length, float32 [N, D]; zeros for a text without any known word or subword.

        Parameters
        ----------
        items : Items
            Fields that were not there at `fit` are left out, with a warning; missing fields count as empty.

        Raises
        ------
        ConfigError
            Not fitted.
        InputError
            None of the fields that the encoder was fitted on exists.
        """
        vectors, filled = np.zeros((len(items), self.dim_ if self.is_fitted else 0), np.float32), 0
        for block in self.blocks(items):
            vectors[filled : filled + len(block)] = block
            filled += len(block)
        return vectors

    def blocks(self, items: Items) -> Iterator[npt.NDArray[np.float32]]:
        """Yield what `transform` returns, float32 [n, D] at a time."""
        if not self.is_fitted:
            raise ConfigError("this LexicalEncoder is not fitted. Call fit(items) first, or fit_transform.")
        names = self._known_fields(items)
        components = self.components_.astype(np.float32)
        for start in track(range(0, len(items), BATCH), "embed", unit="batch"):
            stop = min(start + BATCH, len(items))
            words, counts = count_words({name: items.fields[name][start:stop] for name in names})
            yield unit_rows(self._features(words, counts, stop - start) @ components)

    def fit_transform(self, items: Items) -> npt.NDArray[np.float32]:
        """Fit, then transform the same items."""
        return self.fit(items).transform(items)

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

    def _features(self, words: list[str], counts: dict[str, csr_array], n_items: int) -> csr_array:
        """Return TF-IDF rows of unit length, float32 [n, F], from word counts per field."""
        from scipy.sparse import vstack

        containing = parts_by_word(words, self._features_of, range(len(self.feature_weights_)))
        blocks = []
        for start in range(0, max(1, n_items), BATCH):  # intermediate matrices take ten times the result's memory
            n_rows = min(n_items - start, BATCH)
            part = {name: count[start : start + n_rows] for name, count in counts.items()}
            blocks.append(self._weigh(part, containing, n_rows))
        return blocks[0] if len(blocks) == 1 else vstack(blocks, format="csr")

    def _weigh(self, counts: dict[str, csr_array], containing: csr_array, n_items: int) -> csr_array:
        """Return TF-IDF rows of a block of items; each is summed alone, so the block makes no difference."""
        from scipy.sparse import csr_array

        total = empty_counts(n_items, len(self.feature_weights_)).astype(np.float32)
        for name in sorted(counts):
            found = (counts[name] @ containing).tocsr()
            found.sort_indices()
            values = log_counts(found.data) * self.feature_weights_[found.indices]
            rows = np.repeat(np.arange(n_items), np.diff(found.indptr))
            values *= (inverse_norms(rows, values, n_items) * self.field_weights_[name])[rows]
            total += csr_array((values, found.indices, found.indptr), shape=found.shape)
        rows = np.repeat(np.arange(n_items), np.diff(total.indptr))
        total.data *= inverse_norms(rows, total.data, n_items)[rows]
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

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return (arrays, meta), from which `from_state` makes an encoder with equal vectors, bit for bit."""
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
    def from_state(cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> LexicalEncoder:
        """Return the fitted encoder that `state` described.

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


def _check_weight(name: str, value: float) -> None:
    if not isinstance(value, int | float | np.number) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name}={value!r} should be a number, at least 0.")
