"""Components: the truncated SVD that turns sparse features into D dims, and the memory that it takes.

One thread and a fixed seed: the same features give the same components on the same machine. How features are
weighed, and vectors made of them, is up to `lexical`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.embed.words import subwords_of, words_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from semid.catalog import Items

__all__ = ["components_of", "memory_to_fit"]

OVERSAMPLED = 10  # dims beyond those wanted, see randomized_svd

# What fitting takes at its peak, measured: bytes of the libraries and of the features' own matrices, of each word and
# of each different word or subword of an item; and matrices float32 [items, dims].
LIBRARIES, WORD_BYTES, PART_BYTES, DENSE_COPIES = 450_000_000, 32, 16, 3
PROBED = 1000  # items


def components_of(features: csr_array, dim: int, *, spectrum: float, seed: int) -> npt.NDArray[np.float16]:
    """V / singular values ** spectrum, rounded to float16: [F, D] with D at most `dim`, the rank, N and F.

    Parameters
    ----------
    features : float32 [N, F]
        TF-IDF rows. Without any number in them, the result is one column of zeros.
    spectrum : float
        0 keeps the variances of the SVD, 1 makes them equal.

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
    rank = int((sizes > 1e-4 * sizes[0]).sum())  # float32: what is smaller is rounding noise
    components = axes[:rank].T / (sizes[:rank] / sizes[0]) ** spectrum
    # A power of two brings the largest to [512, 1024), where float16 has no subnormal numbers to lose;
    # vectors are scaled to unit length anyway.
    exponent = 10 - math.frexp(float(np.abs(components).max()))[1]
    return np.ldexp(components, exponent).astype(np.float16)


def memory_to_fit(items: Items, n_fitted: int, dim: int) -> int:
    """Bytes that the words and an SVD of `n_fitted` of the items take beside the items, told from a few of them."""
    probe = items.take(np.arange(0, len(items), max(1, len(items) // PROBED)))
    words, parts = 0, 0
    for column in probe.fields.values():
        for text in column:
            found = words_of(text)
            words += len(found)
            parts += len({part for word in set(found) for part in (word, *subwords_of(word))})
    dense = 4 * n_fitted * (dim + OVERSAMPLED) * DENSE_COPIES
    return LIBRARIES + dense + n_fitted * (WORD_BYTES * words + PART_BYTES * parts) // max(1, len(probe))
