"""Unique IDs with the prefix up for choice too: less distortion than the raw greedy codes, other prefixes.

A residual quantizer commits to its first code before it sees the others. A beam search keeps several prefixes
open, finds a nearer ID for most items, and collisions are then resolved as always. That comes within a few
percent of the optimum over all IDs at once, which `matching="sparse"` computes for catalogs small enough to
wait for. Either changes the prefix of about half of the items, so look at what that does to the meaning of
prefixes before preferring it to `assign_unique`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from semid.assign.buckets import resolve
from semid.assign.distances import scores_of, spans
from semid.assign.keys import pack
from semid.assign.occupancy import InUse
from semid.assign.problem import Problem
from semid.assign.unique import Assignment, certify
from semid.quantize.beam import beam_search, code_scores, smallest
from semid.runtime.threads import in_threads

__all__ = ["assign_global"]

Codes = npt.NDArray[np.int32]
Float64s = npt.NDArray[np.float64]


def assign_global(
    latents: npt.NDArray[np.floating],
    codes: npt.NDArray[np.integer],
    codebooks: Sequence[npt.NDArray[np.floating]],
    *,
    beam: int = 8,
    matching: Literal["buckets", "sparse"] = "buckets",
    candidates: int = 32,
    order: npt.NDArray[np.integer] | None = None,
    occupied: npt.NDArray[np.integer] | InUse | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Assignment:
    """Give every item an ID of its own, near its latent, under any prefix.

    Parameters
    ----------
    latents, codes, codebooks, order, occupied, progress
        As in `assign_unique`. The raw codes are what the certificate compares with.
    beam : int
        Prefixes kept at each level of the search. Of 2, 4, 8 and 16, each halves what is left to gain and
        doubles the time.
    matching : {"buckets", "sparse"}
        Resolve collisions prefix by prefix, or all at once by a sparse minimum-weight matching of items with
        their `candidates` nearest IDs. The second takes minutes from 100,000 items on.
    candidates : int
        IDs to choose from for each item, in the sparse matching.

    Returns
    -------
    Assignment

    Raises
    ------
    CapacityError, InputError
        As `assign_unique` does.

    >>> codebooks = [np.array([[0.0], [10.0]]), np.array([[-6.0], [0.0], [1.0]])]
    >>> assign_global(np.array([[4.4]]), np.array([[0, 2]]), codebooks).codes.tolist()
    [[1, 0]]
    """
    problem = Problem.checked(latents, codes, codebooks, order=order, occupied=occupied)
    nearest, _ = nearest_ids(problem.latents, problem.codebooks, beam, 1)
    found = resolve(problem, nearest[:, 0], progress=progress)
    if matching == "sparse":
        nearest, scores = nearest_ids(problem.latents, problem.codebooks, beam, candidates)
        found = dataclasses.replace(found, codes=_match_all(problem, nearest, scores, found.codes))
    return certify(problem, found)


def nearest_ids(
    latents: npt.NDArray[np.floating], codebooks: Sequence[Float64s], beam: int, count: int
) -> tuple[Codes, Float64s]:
    """The `count` nearest IDs under a beam of prefixes: codes int32 [N, C, L], scores float64 [N, C].

    In lexicographic order, not by score. C is `count`, or all IDs under those prefixes where they are fewer.
    """
    *upper, last = codebooks
    n_prefixes = min(beam, math.prod(len(codebook) for codebook in upper))
    count = min(count, n_prefixes * len(last))
    codes = np.empty((len(latents), count, len(codebooks)), np.int32)
    scores = np.empty((len(latents), count))

    def search(part: slice) -> None:
        prefixes, partial, left = beam_search(latents[part], upper, beam)
        extended = (code_scores(left, last) + partial[..., None]).reshape(len(left), -1)
        chosen = smallest(extended, count)
        scores[part] = np.take_along_axis(extended, chosen, axis=1)
        parents, codes[part, :, -1] = np.divmod(chosen, len(last))
        codes[part, :, :-1] = np.take_along_axis(prefixes, parents[..., None], axis=1)

    in_threads(search, list(spans(len(latents), beam * max(map(len, codebooks)))))
    return codes, scores


def _match_all(problem: Problem, nearest: Codes, scores: Float64s, fallback: Codes) -> Codes:
    """The cheapest distinct choice of one candidate an item, the fallback being a candidate too.

    The fallback is a solution, so there always is one.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n, sizes = len(nearest), problem.sizes
    spelled = np.concatenate((nearest, fallback[:, None]), axis=1)
    keys = pack(spelled, sizes)
    costs = np.column_stack((scores, scores_of(problem.latents, fallback, problem.codebooks)))
    usable = np.ones(keys.shape, np.bool_)
    if problem.occupied is not None:
        usable = ~problem.occupied.holds(spelled.reshape(-1, len(sizes))).reshape(keys.shape)
    usable[:, -1] &= ~(keys[:, :-1] == keys[:, -1:]).any(axis=1)
    rows, _ = np.nonzero(usable)
    ids, columns = np.unique(keys[usable], return_inverse=True)
    # A constant on each row changes no choice; above zero, since a sparse zero is no edge.
    weights = (costs - costs.min(axis=1, keepdims=True) + 1.0)[usable]
    # 32-bit places: scipy 1.13 refuses others.
    graph = csr_array((weights, (rows.astype(np.int32), columns.astype(np.int32))), shape=(n, len(ids)))
    items, matched = min_weight_full_bipartite_matching(graph)
    edge_of_id = np.zeros(len(ids), np.int64)
    edge_of_id[columns] = np.flatnonzero(usable.ravel())  # any edge of an ID spells its codes
    edges = edge_of_id[matched]
    codes = fallback.copy()
    codes[items] = spelled.reshape(-1, len(sizes))[edges]
    return codes
