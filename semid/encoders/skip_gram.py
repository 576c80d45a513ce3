"""Skip-gram with negative sampling over walks: compiled loops on one thread, so that a seed fixes the result.

For every two near nodes n and c of a walk, the vector of n is pulled towards the context vector of c and pushed away
from those of a few random nodes (Mikolov et al., arXiv 1310.4546):

    log s(v_n . u_c) + sum over negatives x of log s(-v_n . u_x),        s the logistic function

by stochastic gradient descent with a learning rate that falls to zero. The reach of "near" is drawn for every place, 1
to `window`, as in word2vec.

Numba compiles the loop at first use and caches the result on disk.
n walks, N nodes, D dims.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["alias_table", "train_on_walks"]

# Sums may be taken in any order. Not "ninf" and not "afn": exp of a large number is infinity, and stays exact.
LOOSE = {"nnan", "nsz", "reassoc", "contract", "arcp"}
MULTIPLIER, ADDEND = np.uint64(6364136223846793005), np.uint64(1442695040888963407)  # of Knuth's generator


def alias_table(weights: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return Walker's alias table for N weights: keep place i with probability `chance[i]`, else take `other[i]`.

    >>> chance, other = alias_table(np.array([1.0, 3.0]))
    >>> chance.tolist(), other.tolist()
    ([0.5, 1.0], [1, 1])
    """
    share = np.asarray(weights, np.float64) * (len(weights) / np.sum(weights))
    other = np.arange(len(share), dtype=np.int32)
    chance = np.ones(len(share))
    small, large = np.flatnonzero(share < 1).tolist(), np.flatnonzero(share >= 1).tolist()
    while small and large:
        low, high = small.pop(), large[-1]
        chance[low], other[low] = share[low], high
        share[high] -= 1 - share[low]
        if share[high] < 1:
            small.append(large.pop())
    return chance.astype(np.float32), other


@numba.njit(nogil=True, cache=True)
def _drawn(state):
    """Return the next state of the generator; its upper bits are random."""
    return state * MULTIPLIER + ADDEND


@numba.njit(nogil=True, cache=True)
def _below(state, n):
    """Return a number from 0 to n - 1, from a state's upper 32 bits."""
    return np.int64(((state >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@numba.njit(nogil=True, fastmath=LOOSE, cache=True)
def _pull(vector, context, change, wanted, rate):
    """Do one step for one pair: move the context vector now, and add the vector's move to `change`."""
    score = np.float32(0)
    for dim in range(len(vector)):
        score += vector[dim] * context[dim]
    step = rate * (wanted - np.float32(1) / (np.float32(1) + np.exp(-score)))
    for dim in range(len(vector)):
        change[dim] += step * context[dim]
        context[dim] += step * vector[dim]


@numba.njit(nogil=True, cache=True)
def train_on_walks(walks, vectors, contexts, chance, other, window, negatives, rates, state):
    """Train on walks in their order, and return the generator's state for the next ones.

    Parameters
    ----------
    walks : int32 [n, length]
        -1 after the end of a walk.
    vectors, contexts : float32 [N, D]
        Changed in place.
    chance, other
        From `alias_table`; for drawing negatives.
    window : int
        Two nodes of a walk are neighbors up to this distance.
    negatives : int
        For each pair.
    rates : float32 [n]
        Learning rate of each walk.
    state : uint64
        Of the generator.
    """
    change = np.zeros(vectors.shape[1], np.float32)
    for walk in range(len(walks)):
        length = 0
        while length < walks.shape[1] and walks[walk, length] >= 0:
            length += 1
        rate = rates[walk]
        for place in range(length):
            node = walks[walk, place]
            state = _drawn(state)
            reach = 1 + _below(state, window)
            for near in range(max(0, place - reach), min(length, place + reach + 1)):
                context = walks[walk, near]
                if context == node:  # near == place too
                    continue
                change[:] = 0
                _pull(vectors[node], contexts[context], change, np.float32(1), rate)
                for _ in range(negatives):
                    state = _drawn(state)
                    drawn = _below(state, len(chance))
                    state = _drawn(state)
                    if np.float32(state >> np.uint64(40)) * np.float32(2**-24) >= chance[drawn]:
                        drawn = other[drawn]
                    if drawn != context:
                        _pull(vectors[node], contexts[drawn], change, np.float32(0), rate)
                vectors[node] += change
    return state
