"""Start the rows of users and items from vectors that you have: behavior, texts, another model's table.

    start = EntityVectors.of(names, learn_behavior(training_interactions(log)))
    start = EntityVectors(names, users, items)                                        # or your own arrays
    extend(tokenizer, model, start)                                                   # in place of extend(..., names)

`extend` rotates the vectors into the model's dims, which keeps their angles, and places them among the old rows as it
does with the codebooks of semantic IDs (`tokenizer_exports/models/init_rows.py`): as long, as widely spread, around the
same mean. The scale of the vectors does not matter.

Users and items of one space, such as those of skip-gram or of a factorization, stay in one: a user lies near the items
that it was near, except for what all users or all items have in common, which is removed. One more direction separates
the two kinds. With `one_space=False` each kind gets dims of its own, as levels of codes do.

Not here: tokens and names (`names.py`), learning such vectors (`semid/encoders/collaborative.py`).
U users, I items, D dims of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from semid.encoders.collaborative import BehaviorVectors
from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.entities.names import EntityNames, Kind
from semid.tokens.source import TokenBlock

__all__ = ["EntityVectors"]

KIND_SHARE = 0.2  # of a row's squared distance from the mean of all users and items: along the axis of its kind
NEWCOMER_NOISE = 0.1  # of the deviation of the known vectors: distinct rows, but near the mean


@dataclass(frozen=True, eq=False)
class EntityVectors:
    """Names, and a vector for each user, each item or both; give it to `extend` in place of the names.

    Parameters
    ----------
    names : EntityNames
        The tokens.
    users : float [U, D], items : float [I, D], optional
        Vectors in the order of the numbers. A kind without vectors starts from random ones.
    users_known : bool [U], items_known : bool [I], optional
        Which rows are vectors; all by default. The others start near the mean of their kind.
    one_space : bool
        Whether users and items lie in one space, if both have vectors. True by default.
    seed : int
        Of the rows without a vector. The rotation into the model's dims has the seed of `extend`.

    Raises
    ------
    InputError
        Vectors of another shape or type, or with NaN or infinity in known rows.
    ConfigError
        Neither kind has vectors; one space, but different dims.

    >>> names = EntityNames(2, 3)
    >>> start = EntityVectors(names, users=[[0, 1], [1, 0]], items=[[0, 2], [2, 0], [1, 1]])
    >>> [level.shape for level in start.level_vectors]
    [(5, 3)]
    """

    names: EntityNames
    users: npt.ArrayLike | None = field(default=None, repr=False)
    items: npt.ArrayLike | None = field(default=None, repr=False)
    users_known: npt.ArrayLike | None = field(default=None, repr=False)
    items_known: npt.ArrayLike | None = field(default=None, repr=False)
    one_space: bool = True
    seed: int = 0
    _vectors: dict[Kind, npt.NDArray[np.float32]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        vectors = {kind: self._checked(kind) for kind in self.names.kinds if getattr(self, f"{kind}s") is not None}
        widths = sorted({one.shape[1] for one in vectors.values()})
        if not vectors:
            raise ConfigError("users=None, items=None: give vectors of at least one kind, or give the names alone.")
        if self.one_space and len(widths) > 1:
            raise ConfigError(f"vectors of {widths[0]} and {widths[1]} dims lie in two spaces. Set one_space=False.")
        object.__setattr__(self, "_vectors", vectors)

    @classmethod
    def of(cls, names: EntityNames, vectors: BehaviorVectors, *, seed: int = 0) -> EntityVectors:
        """Return these names with the vectors of `learn_behavior` or `read_behavior` for the same interactions."""
        return cls(names, vectors.users, vectors.items, vectors.users_known, vectors.items_known, seed=seed)

    # ---- what `extend` reads (`TokenSource`)

    kind = "entity vectors"
    ledger = None

    @cached_property
    def vocabulary(self) -> TokenBlock:
        """The tokens: in one space a single level of users and items."""
        return _OneLevel(self.names) if self._together else self.names

    @cached_property
    def level_vectors(self) -> list[npt.NDArray[np.float32]]:
        """The vectors of the tokens of each level of `vocabulary`: float32 [K, D]."""
        kinds = self.names.kinds
        if not self._together:
            return [self._vectors.get(kind, np.zeros((self.names.count(kind), 0), np.float32)) for kind in kinds]
        side = np.sqrt(KIND_SHARE / (1 - KIND_SHARE))
        parts = [_unit(self._vectors[kind]) for kind in kinds]
        marked = [
            np.column_stack([part, np.full(len(part), sign * side, np.float32)])
            for part, sign in zip(parts, (-1, 1), strict=True)
        ]
        return [np.concatenate(marked)]

    # ---- their parts

    @property
    def _together(self) -> bool:
        return self.one_space and len(self._vectors) == 2

    def _checked(self, kind: Kind) -> npt.NDArray[np.float32]:
        """Return the vectors of a kind as float32 [n, D], with rows near the mean where there is no vector."""
        name, count = f"{kind}s", self.names.count(kind)
        vectors = np.asarray(getattr(self, name))
        if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:
            raise InputError(
                f"{name}: shape={vectors.shape} dtype={vectors.dtype} should be numbers ({count}, D), one row for each."
            )
        mask = getattr(self, f"{name}_known")
        known = np.ones(count, bool) if mask is None else np.asarray(mask)
        if known.shape != (count,) or known.dtype != bool:
            raise InputError(f"{name}_known: shape={known.shape} dtype={known.dtype} should be bool ({count},).")
        with np.errstate(over="ignore"):  # too large a number becomes infinite, and is refused as such
            vectors = vectors.astype(np.float32)  # a copy
        finite = np.isfinite(vectors).all(1)
        if not finite[known].all():
            row = int(np.flatnonzero(known & ~finite)[0])
            raise InputError(f"{name}[{row}] has NaN or infinity. Mark rows without a vector in {name}_known.")
        if not known.any():
            vectors[:] = 0
        elif not known.all():
            draw = np.random.default_rng([self.seed, kind == "item"]).standard_normal(vectors[~known].shape)
            mean, deviation = vectors[known].mean(0), vectors[known].std(0)
            vectors[~known] = mean + NEWCOMER_NOISE * deviation * draw
        return vectors


@dataclass(frozen=True)
class _OneLevel:
    """The tokens of the names as a block of one level."""

    OTHER_NAMES = EntityNames.OTHER_NAMES

    names: EntityNames

    @property
    def sizes(self) -> tuple[int]:
        return (len(self.names),)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        return np.array([0, len(self)], np.int64)

    @property
    def tokens(self) -> list[str]:
        return self.names.tokens

    def __len__(self) -> int:
        return len(self.names)

    def text(self, codes: Sequence[int]) -> str:
        return "".join(self.tokens[code] for code in codes)

    def token_ids(self, codes: npt.ArrayLike, base: int) -> npt.NDArray[np.int64]:
        return base + np.asarray(codes, np.int64)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the vectors centered and with a root mean square length of 1; zeros if all are equal."""
    centered = vectors - vectors.mean(0)
    length = np.sqrt((centered.astype(np.float64) ** 2).sum() / len(centered))
    return centered / np.float32(length) if length > 1e-6 * np.abs(vectors).max(initial=0) else np.zeros_like(vectors)
