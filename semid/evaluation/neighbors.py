"""The exact nearest neighbors of the items, and the share of them that have the same ID prefix.

Not an index for searching: `semid.evaluate` measures codes against it. It is computed once for a set of vectors and
serves any number of ID sets. N items, D dims, G <= N distinct vectors, Q queries.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import InputError
from semid.runtime.arrays import WORD, byte_order
from semid.runtime.tables import MappedRows, RowTable

__all__ = ["Neighbors", "find_neighbors"]

ALL_QUERIES_UP_TO = 20_000  # items; the full search takes about a second there (384 dims, 2 CPU cores)
SAMPLED_QUERIES = 10_000  # standard error of a recall below 0.004
MOST_PAIRS = 1_000_000_000  # query-item pairs: with more than 100,000 items, fewer queries
FEWEST_QUERIES = 1_000
SPARE = 5  # additional candidates, ranked again by exact differences
BLOCK = 1 << 14  # vectors read, and distinct ones searched, at a time


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest vectors of Q query items, independent of the order of the items.

    Items with the same vector are one group. Groups are numbered by the bytes of their vector, and taken in that order
    at equal distance. If only some members of a group fit among the k neighbors, each counts for its share of the
    remaining places: no tie is broken by row number.
    """

    k: int  # neighbors of a query, itself excluded: 10, or N - 1 if that is less
    groups: npt.NDArray[np.int64]  # (N,) - the group of each item
    sizes: npt.NDArray[np.int64]  # (G,) - items in each group
    positions: npt.NDArray[np.int64]  # (Q,) - queries, as places in the list of items sorted by group
    nearest: npt.NDArray[np.int64]  # (Q, k) - groups nearest to the query's own, itself excluded; -1 = none

    def recall(self, prefixes: npt.NDArray[np.integer]) -> list[float]:
        """Return the share of the k nearest items that have the query's prefix, for each prefix length.

        Parameters
        ----------
        prefixes : int [P, N]
            Row p numbers the prefixes of p + 1 codes, as `number_prefixes` does: equal number, equal prefix.

        Returns
        -------
        list of P floats
            Each in [0, 1]. Empty if there is only one item.

        >>> near = find_neighbors(np.array([[0.0], [0.1], [5.0], [5.1]]), k=1)
        >>> near.recall(np.array([[0, 0, 1, 1], [0, 0, 1, 2]]))
        [1.0, 0.5]
        """
        if self.k == 0 or len(prefixes) == 0:
            return []
        # Inside a group, items differ by their codes alone: rows that tie here are interchangeable.
        rows = np.lexsort((prefixes[-1], self.groups))[self.positions]
        columns = np.concatenate([self.groups[rows][:, None], self.nearest], axis=1)
        members = np.where(columns >= 0, self.sizes[columns], 0)
        members[:, 0] -= 1  # the query itself
        taken = np.clip(self.k - (np.cumsum(members, axis=1) - members), 0, members)
        weight = taken / np.maximum(members, 1) / (len(rows) * self.k)
        return [float((weight * self._agreeing(prefix, rows, columns)).sum()) for prefix in prefixes]

    def _agreeing(self, prefix, rows, columns) -> npt.NDArray[np.int64]:
        """Return how many members of each group share the query's prefix: int64 [Q, 1 + k]."""
        prefix = prefix.astype(np.int64)
        width = int(prefix.max()) + 1
        pairs, counts = np.unique(self.groups * width + prefix, return_counts=True)
        wanted = np.where(columns >= 0, columns * width + prefix[rows][:, None], -1)
        found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        agreeing = np.where(pairs[found] == wanted, counts[found], 0)
        agreeing[:, 0] -= 1  # the query agrees with itself
        return agreeing


def find_neighbors(vectors: RowTable, *, k: int = 10, queries: int | None = None, seed: int = 0) -> Neighbors:
    """Find the k nearest vectors of every item, or of a seeded sample, by L2 distance.

    For unit vectors this is the order of the cosine. The search is exhaustive: blocked matrix products (faiss) give
    k + 5 candidates, which are ranked by exact differences in float64.

    Parameters
    ----------
    vectors : float16, float32 or float64 [N, D]
        An array, a memory map, or rows of a file; read a block at a time.
    k : int
        Neighbors of each item, itself excluded; at most N - 1.
    queries : int, optional
        Number of items to use as queries. Default: all of up to 20,000, else 10,000, and fewer above 100,000 items
        (1,000 from a million on).
    seed : int
        Of the sample. The same items are drawn whatever their order.

    Raises
    ------
    InputError
        `vectors` is not a matrix of finite numbers.
    """
    vectors = vectors if isinstance(vectors, MappedRows) else np.asanyarray(vectors)
    if vectors.ndim != 2 or vectors.shape[1] == 0 or not np.issubdtype(vectors.dtype, np.floating):
        raise InputError(
            f"vectors is {vectors.dtype} of shape {vectors.shape}; expected floats of shape (items, dims). "
            "Save them with numpy.save(path, vectors.astype('float32'))."
        )
    n_items = len(vectors)
    k = max(0, min(k, n_items - 1))
    groups, first = _distinct(vectors)
    sizes = np.bincount(groups, minlength=len(first))
    positions = _draw(n_items, _n_queries(n_items) if queries is None else queries, seed)
    asked, place = np.unique(np.sort(groups)[positions], return_inverse=True)
    nearest = _search(vectors, first, asked, k) if k else np.zeros((len(asked), 0), np.int64)
    return Neighbors(k, groups, sizes, positions, nearest[place])


def _n_queries(n_items: int) -> int:
    if n_items <= ALL_QUERIES_UP_TO:
        return n_items
    return max(FEWEST_QUERIES, min(SAMPLED_QUERIES, MOST_PAIRS // n_items))


def _draw(n_items: int, n_queries: int, seed: int) -> npt.NDArray[np.int64]:
    if n_queries >= n_items:
        return np.arange(n_items)
    return np.sort(np.random.default_rng(seed).choice(n_items, n_queries, replace=False))


def _distinct(vectors: RowTable) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the group of each row [N] and a row of each group [G], groups in the order of their bytes.

    Equal vectors are found by a 64-bit digest: among a hundred million vectors, the chance that two different ones
    share a digest is 1 in 4,000. Sorting whole vectors would need their size in memory again.
    """
    digests = bytearray()
    for start in range(0, len(vectors), BLOCK):
        for row in _as_bytes(vectors[start : start + BLOCK], start):
            digests += hashlib.blake2b(row, digest_size=8).digest()
    _, first, groups = np.unique(np.frombuffer(digests, np.uint64), return_index=True, return_inverse=True)

    def words(rows: npt.NDArray[np.int64], place: int) -> npt.NDArray[np.uint64]:
        found = np.empty((len(rows), WORD), np.uint8)
        for start in range(0, len(rows), BLOCK):
            some = slice(start, start + BLOCK)
            found[some] = _as_bytes(vectors[first[rows[some]]], start)[:, place : place + WORD]
        return found.view(">u8").astype(np.uint64)[:, 0]

    n_bytes = vectors.shape[1] * vectors.dtype.itemsize
    order, _ = byte_order(np.full(len(first), n_bytes), words)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number[groups], first[order]


def _as_bytes(rows: npt.NDArray[np.floating], start: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of each row, padded with zeros to a multiple of 8: uint8 [n, W].

    InputError names a row that is not finite.
    """
    if not np.isfinite(rows).all():
        row = start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InputError(f"vectors[{row}] holds NaN or infinity; expected finite numbers. Embed it again.")
    width = rows.shape[1] * rows.dtype.itemsize
    padded = np.zeros((len(rows), -(-width // WORD) * WORD), np.uint8)
    # + 0 turns -0.0 into 0.0, so that equal vectors have equal bytes.
    padded[:, :width] = np.ascontiguousarray(rows + rows.dtype.type(0)).view(np.uint8)
    return padded


def _search(vectors: RowTable, first, asked, k) -> npt.NDArray[np.int64]:
    """Return the k groups nearest to each group of `asked`, itself excluded; -1 where there are no more."""
    import faiss

    # Centering and scaling keeps the order of distances and reduces float32 rounding.
    in_file = np.sort(first)  # a table is read from its first row to its last
    parts = [in_file[start : start + BLOCK] for start in range(0, len(in_file), BLOCK)]
    center = np.sum([vectors[part].sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(first)
    largest = max(float(np.abs(vectors[part]).max()) for part in parts)
    scale = 1.0 / max(largest, float(np.finfo(np.float32).tiny))
    queries = ((vectors[first[asked]] - center) * scale).astype(np.float32)
    group_of = np.argsort(first)  # of each row in file order
    width = k + 1 + SPARE
    near, far = np.zeros((len(asked), 0), np.int64), np.zeros((len(asked), 0), np.float32)
    for start, part in zip(range(0, len(in_file), BLOCK), parts, strict=True):
        block = ((vectors[part] - center) * scale).astype(np.float32)
        groups = group_of[start : start + len(part)]
        by_group = np.argsort(groups)  # of candidates at the same distance, faiss takes the first
        distance, found = faiss.knn(queries, block[by_group], min(width, len(block)))
        near, far = np.concatenate([near, groups[by_group][found]], 1), np.concatenate([far, distance], 1)
        if near.shape[1] > width:
            best = np.argpartition(far, width - 1, axis=1)[:, :width]
            near, far = np.take_along_axis(near, best, 1), np.take_along_axis(far, best, 1)
    return _rank_again(vectors, first, asked, np.sort(near, axis=1), k)


def _rank_again(vectors, first, asked, candidates, k) -> npt.NDArray[np.int64]:
    """Return the first k of `candidates` [Q, C] by squared differences in float64, the lower group first on ties."""
    nearest = np.full((len(asked), k), -1, np.int64)
    for start in range(0, len(asked), 256):
        own, group = asked[start : start + 256, None], candidates[start : start + 256]
        gap = vectors[first[group]].astype(np.float64)
        gap -= vectors[first[own]]
        distance = np.einsum("qcd,qcd->qc", gap, gap)
        distance[group == own] = np.inf
        best = np.argsort(distance, axis=1, kind="stable")[:, :k]
        ranked = np.take_along_axis(group, best, 1)
        ranked[np.isinf(np.take_along_axis(distance, best, 1))] = -1
        nearest[start : start + 256, : ranked.shape[1]] = ranked
    return nearest
