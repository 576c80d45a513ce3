"""Assign unique IDs across all prefixes by beam search: lower distortion, but about half of the items change prefix.

A residual quantizer commits to its first code before it sees the others. A beam search keeps several prefixes open and
finds a nearer ID for most items; collisions are then resolved as in `unique.py`. The result is within a few percent of
the optimum over all IDs at once. Check what the change of prefixes does to their meaning before preferring this to
`assign_unique`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.assign.buckets import resolve
from semid.assign.distances import spans
from semid.assign.occupancy import InUse
from semid.assign.problem import Problem
from semid.assign.unique import Assignment, certify
from semid.quantize.beam import beam_search, code_scores, smallest
from semid.runtime.tables import RowTable
from semid.runtime.threads import in_threads

__all__ = ["assign_global"]


def assign_global(
    latents: RowTable,
    codes: npt.NDArray[np.integer],
    codebooks: Sequence[npt.NDArray[np.floating]],
    *,
    beam: int = 8,
    occupied: npt.NDArray[np.integer] | InUse | None = None,
) -> Assignment:
    """Give every item a unique ID near its latent, under any prefix.

    Parameters
    ----------
    latents, codes, codebooks, occupied
        As in `assign_unique`. The raw codes are what the certificate compares with.
    beam : int
        Prefixes kept at each level of the search. Each doubling from 2 to 16 halves the distortion left to gain and
        doubles the time.

    Returns
    -------
    Assignment

    Raises
    ------
    CapacityError, InputError
        As `assign_unique`.

    >>> codebooks = [np.array([[0.0], [10.0]]), np.array([[-6.0], [0.0], [1.0]])]
    >>> assign_global(np.array([[4.4]]), np.array([[0, 2]]), codebooks).codes.tolist()
    [[1, 0]]
    """
    problem = Problem.checked(latents, codes, codebooks, occupied=occupied)
    nearest, _ = nearest_ids(problem.latents, problem.codebooks, beam, 1)
    return certify(problem, resolve(problem, nearest[:, 0]))


def nearest_ids(
    latents: RowTable, codebooks: Sequence[npt.NDArray[np.float64]], beam: int, count: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return the `count` nearest IDs under a beam of prefixes: codes int32 [N, C, L], scores float64 [N, C].

    In lexicographic order, not by score. C is `count`, or the number of IDs under those prefixes if that is less.
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
