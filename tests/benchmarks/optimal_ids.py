"""The yardstick of global assignment: all items to all IDs at once, by a sparse minimum-weight matching.

Minutes from 100,000 items on, so no product path uses it. With every ID a candidate it is the optimum over all IDs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from semid.assign.buckets import resolve
from semid.assign.distances import scores_of
from semid.assign.global_search import nearest_ids
from semid.assign.keys import pack
from semid.assign.occupancy import InUse
from semid.assign.problem import Problem
from semid.assign.unique import Assignment, certify

Codes = npt.NDArray[np.int32]


def assign_optimal(
    latents: npt.NDArray[np.floating],
    codes: npt.NDArray[np.integer],
    codebooks: Sequence[npt.NDArray[np.floating]],
    *,
    beam: int = 8,
    candidates: int = 32,
    occupied: npt.NDArray[np.integer] | InUse | None = None,
) -> Assignment:
    """`assign_global`, but every item chooses among its `candidates` nearest IDs, all items at once."""
    problem = Problem.checked(latents, codes, codebooks, occupied=occupied)
    found = resolve(problem, nearest_ids(problem.latents, problem.codebooks, beam, 1)[0][:, 0])
    nearest, scores = nearest_ids(problem.latents, problem.codebooks, beam, candidates)
    return certify(problem, dataclasses.replace(found, codes=_match_all(problem, nearest, scores, found.codes)))


def _match_all(problem: Problem, nearest: Codes, scores: npt.NDArray[np.float64], fallback: Codes) -> Codes:
    """The cheapest distinct choice of one candidate an item, the fallback being a candidate too.

    The fallback is a solution, so there always is one.
    """
    n, sizes = len(nearest), problem.sizes
    spelled = np.concatenate((nearest, fallback[:, None]), axis=1)
    keys = pack(spelled, sizes)
    costs = np.column_stack((scores, scores_of(problem.latents, fallback, problem.codebooks)))
    usable = np.ones(keys.shape, np.bool_)
    if problem.occupied is not None:
        usable = ~problem.occupied.contains(spelled.reshape(-1, len(sizes))).reshape(keys.shape)
    usable[:, -1] &= ~(keys[:, :-1] == keys[:, -1:]).any(axis=1)
    rows, _ = np.nonzero(usable)
    ids, columns = np.unique(keys[usable], return_inverse=True)
    # A constant on each row changes no choice; above zero, since a sparse zero is no edge.
    weights = (costs - costs.min(axis=1, keepdims=True) + 1.0)[usable]
    graph = csr_array((weights, (rows, columns)), shape=(n, len(ids)))
    items, matched = min_weight_full_bipartite_matching(graph)
    edge_of_id = np.zeros(len(ids), np.int64)
    edge_of_id[columns] = np.flatnonzero(usable.ravel())  # any edge of an ID spells its codes
    edges = edge_of_id[matched]
    codes = fallback.copy()
    codes[items] = spelled.reshape(-1, len(sizes))[edges]
    return codes
