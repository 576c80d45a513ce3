"""Unique IDs for a whole catalog at the least cost, with a certificate.

Codes from a residual quantizer collide. Here every colliding item gets its own code, as near to its latent as the other
items allow: exact minimum-cost matching inside each prefix (`matching.py`), and a move to the nearest prefix with free
codes for items that do not fit (`overflow.py`). This always succeeds when there are no more items than IDs. Not here:
IDs that must never change again (`semid/ledger`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.assign.buckets import Resolution, resolve
from semid.assign.distances import scores_of, squared_errors
from semid.assign.keys import code_dtype, pack
from semid.assign.occupancy import InUse
from semid.assign.problem import Problem
from semid.runtime.progress import track
from semid.runtime.tables import Rows, RowTable

__all__ = ["MANY_ITEMS", "Assignment", "Certificate", "assign_by_first_code", "assign_unique"]


Floats = npt.NDArray[np.floating]
Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Certificate:
    """What an assignment changed and what it cost. Distortions are mean squared errors of the latents."""

    n_items: int
    n_unique: int  # distinct IDs after the assignment, counted; always n_items
    raw_collisions: int  # n_items minus the number of distinct raw codes
    identical: int  # items whose latent equals an earlier item's: no quantizer can tell them apart
    moved_items: int  # items whose code is not the raw one
    moved_prefix: int  # of these, items whose first L - 1 codes changed
    largest_bucket: int  # most items under one raw prefix
    overfull_buckets: int  # raw prefixes with more items than free last codes
    overflow_items: int  # items that had to leave such a prefix
    distortion_before: float
    distortion_after: float

    def to_dict(self) -> dict[str, int | float]:
        """Return the figures by name, for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Assignment:
    """Distinct codes, uint16 [N, L] (int32 if a level has more than 65,536 codes), and their certificate."""

    codes: npt.NDArray[np.uint16] | npt.NDArray[np.int32]
    certificate: Certificate


def assign_unique(
    latents: RowTable,
    codes: Ints,
    codebooks: Sequence[Floats],
    *,
    occupied: Ints | InUse | None = None,
) -> Assignment:
    """Give every item a unique ID at the least added distortion.

    Prefixes without a collision keep their codes. In the others the members get distinct last codes at the exact
    minimum of the summed squared distance; members that do not fit go to the nearest prefix with free codes. Of
    identical items the first gets the nearest code.

    Parameters
    ----------
    latents : float [N, D]
        What the codes stand for. Ties go to the earlier row, so sort the items by something of their own, such as
        their ids.
    codes : integer [N, L]
        Raw codes: of each level the nearest one to the residual of the levels before.
    codebooks : L arrays, float [K_l, D]
    occupied : integer [M, L], or InUse, optional
        IDs that belong to other items and are never assigned.

    Returns
    -------
    Assignment

    Raises
    ------
    CapacityError
        N + M is more than ∏K.
    InputError
        Arrays do not fit together, a code is out of range, or a latent is not finite.

    >>> codebooks = [np.array([[0.0], [10.0]]), np.array([[-1.0], [0.0], [1.0]])]
    >>> latents = np.array([[0.1], [0.2], [10.0]])
    >>> assignment = assign_unique(latents, np.array([[0, 1], [0, 1], [1, 1]]), codebooks)
    >>> assignment.codes.tolist()
    [[0, 1], [0, 2], [1, 1]]
    >>> assignment.certificate.moved_items
    1
    """
    problem = Problem.checked(latents, codes, codebooks, occupied=occupied)
    return certify(problem, resolve(problem, problem.codes))


def certify(problem: Problem, found: Resolution) -> Assignment:
    """Return the assignment with its certificate: IDs counted, distortion measured."""
    codes, n = found.codes, len(problem.codes)
    before = squared_errors(problem.latents, problem.codes, problem.codebooks)
    after = before.copy()
    moved = np.flatnonzero((codes != problem.codes).any(axis=1))
    after[moved] = squared_errors(problem.latents[moved], codes[moved], problem.codebooks)
    codes = _nearest_to_first(problem, codes, found.leaders)

    keys = np.sort(pack(codes, problem.sizes))
    n_unique = n and 1 + int(np.count_nonzero(keys[1:] != keys[:-1]))
    if n_unique != n or (problem.occupied is not None and problem.occupied.contains(codes).any()):
        raise AssertionError(f"n_unique={n_unique} of n_items={n}: a defect of semid, please report it")
    raw = np.sort(pack(problem.codes, problem.sizes))
    certificate = Certificate(
        n_items=n,
        n_unique=n_unique,
        raw_collisions=int(np.count_nonzero(raw[1:] == raw[:-1])),
        identical=int(np.count_nonzero(found.leaders != np.arange(n))),
        moved_items=int(np.count_nonzero((codes != problem.codes).any(axis=1))),
        moved_prefix=int(np.count_nonzero((codes[:, :-1] != problem.codes[:, :-1]).any(axis=1))),
        largest_bucket=found.largest_bucket,
        overfull_buckets=found.overfull_buckets,
        overflow_items=found.overflow_items,
        # fsum is exact, so the mean does not depend on the order of the rows
        distortion_before=math.fsum(before.tolist()) / max(n, 1),
        distortion_after=math.fsum(after.tolist()) / max(n, 1),
    )
    return Assignment(codes.astype(code_dtype(problem.sizes)), certificate)


def _nearest_to_first(
    problem: Problem, codes: npt.NDArray[np.int32], leaders: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Reassign the IDs among identical items, the nearest to the first; this costs nothing."""
    shared = np.zeros(len(codes), np.bool_)
    shared[leaders[leaders != np.arange(len(leaders))]] = True
    rows = np.flatnonzero(shared[leaders])
    by_row = rows[np.argsort(leaders[rows], kind="stable")]
    scores = scores_of(problem.latents[rows], codes[rows], problem.codebooks)
    by_score = rows[np.lexsort((pack(codes[rows], problem.sizes), scores, leaders[rows]))]
    reassigned = codes.copy()
    reassigned[by_row] = codes[by_score]
    return reassigned


# ---- The same for more items than one would sort at once: one first code at a time.
# Two items collide only if they share all codes but the last, so first codes do not affect each other and each can be
# settled alone. Only the keys of a 256th of the catalog are in memory. One thing differs from settling all at once:
# an item that has to leave an overfull prefix stays under its first code.


MANY_ITEMS = 10_000_000  # from here on by first code; `assign_unique` takes about 200 bytes an item


def assign_by_first_code(
    latents: RowTable, codes: npt.NDArray[np.integer], codebooks: Sequence[npt.NDArray[np.floating]]
) -> Assignment:
    """Do what `assign_unique` does, one first code at a time, so that first codes never change and memory stays small.

    If a first code has more items than IDs under it, all items are settled at once.

    Parameters
    ----------
    latents : float [N, D]
        Rows are read as they are needed.
    codes : integer [N, L]
        Raw codes.
    codebooks : L arrays, float [K_l, D]

    Raises
    ------
    CapacityError, InputError
        As `assign_unique`.

    >>> codebooks = [np.array([[0.0], [10.0]]), np.array([[-1.0], [0.0], [1.0]])]
    >>> latents = np.array([[0.1], [0.2], [10.0]])
    >>> assign_by_first_code(latents, np.array([[0, 1], [0, 1], [1, 1]]), codebooks).codes.tolist()
    [[0, 1], [0, 2], [1, 1]]
    """
    sizes = [len(codebook) for codebook in codebooks]
    first = codes[:, 0]
    in_range = len(codes) and first.min() >= 0 and first.max() < sizes[0]
    counts = np.bincount(first, minlength=sizes[0]) if in_range else np.zeros(1, np.int64)
    if not in_range or counts.max() > math.prod(sizes[1:]):
        return assign_unique(latents, codes, codebooks)
    stored = np.empty(codes.shape, code_dtype(sizes))
    certificates = []
    for code in track(np.flatnonzero(counts).tolist(), "assign", unit="first code"):
        rows = np.flatnonzero(first == code)
        part = codes[rows]
        part[:, 0] = 0
        found = assign_unique(_Rows(latents, rows), part, [codebooks[0][code : code + 1], *codebooks[1:]])
        stored[rows] = found.codes
        stored[rows, 0] = code
        certificates.append(found.certificate)
    return Assignment(stored, _together(certificates))


@dataclass(frozen=True)
class _Rows:
    """Some rows of a table, as a table."""

    table: RowTable
    rows: npt.NDArray[np.int64]
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.table.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.table.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        return self.table[self.rows[rows]]


def _together(parts: Sequence[Certificate]) -> Certificate:
    """Return the certificate of all parts: sums, the largest bucket, means weighted by items."""
    n_items = sum(part.n_items for part in parts)

    def mean(name: str) -> float:
        return math.fsum(getattr(part, name) * part.n_items for part in parts) / n_items

    added = ("n_items", "n_unique", "raw_collisions", "identical", "moved_items", "moved_prefix")
    return Certificate(
        **{name: sum(getattr(part, name) for part in parts) for name in (*added, "overfull_buckets", "overflow_items")},
        largest_bucket=max(part.largest_bucket for part in parts),
        distortion_before=mean("distortion_before"),
        distortion_after=mean("distortion_after"),
    )
