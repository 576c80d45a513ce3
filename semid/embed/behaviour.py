"""Vectors of users and items in one space, from who met what: random walks by meta-paths, then skip-gram.

    training edges -> walks -> skip-gram with negative sampling -> vectors [U + I, D]

Users who met the same items, items that the same users met, and a user and the items met come to lie near each other;
so they can be clustered together (`semid/clusters.py`). metapath2vec (Dong et al., 2017) is the idea, META ID
(arXiv 2406.08477) its use; the choices are ours, measured with `tests/benchmarks/clusters.py`.

Not here: the walks (`semid/graph_walks.py`), the training loop (`skip_gram.py`), vectors made elsewhere
(`behaviour_files.py`). U users, I items, D dims.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.graph_walks import Graph, check_schema, walk_rounds
from semid.interactions import Interactions
from semid.progress import bar

__all__ = ["BehaviourVectors", "WalkConfig", "learn_behaviour"]

LOWEST_RATE = 1e-4  # of the first one
FLATTENED = 0.75  # exponent of the degrees that negatives are drawn by, as in word2vec
MOST_STEPS = 10_000


@dataclass(frozen=True, kw_only=True)
class WalkConfig:
    """The choices of the walks and of what is learnt from them."""

    schemas: tuple[str, ...] = ("U-I-U", "I-U-I", "I-I")
    number: int = 10  # walks from each node, for each schema
    length: int = 20  # nodes of a walk
    window: int = 3  # how far apart two nodes of a walk are neighbours at most
    negatives: int = 5  # for each pair
    dim: int = 64
    rate: float = 0.1  # of learning, at first; it falls to zero
    seed: int = 0

    def __post_init__(self) -> None:
        schemas = self.schemas.split(",") if isinstance(self.schemas, str) else self.schemas
        object.__setattr__(self, "schemas", tuple(schemas))
        for schema in self.schemas:
            check_schema(schema)
        if not self.schemas:
            raise ConfigError("schemas=() should name at least one, such as U-I-U.")
        for name, lowest in (("number", 1), ("length", 2), ("window", 1), ("negatives", 0), ("dim", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value < 2**31:
                raise ConfigError(f"{name}={value!r} should be a whole number from {lowest} on.")
        if not 0 < self.rate <= 1:
            raise ConfigError(f"rate={self.rate!r} should be above 0 and at most 1.")
        if self.length > MOST_STEPS:
            raise ConfigError(f"length={self.length} should be at most {MOST_STEPS}; write more walks instead.")

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self) | {"schemas": list(self.schemas)}


@dataclass(frozen=True, eq=False)
class BehaviourVectors:
    """Vectors of the users and items of some interactions.

    Parameters
    ----------
    users : float32 [U, D], items : float32 [I, D]
        In the order of `log.users` and `log.item_ids`.
    users_known : bool [U], items_known : bool [I]
        Who has a vector. The others were met in no training interaction, and their rows are zero.
    """

    users: npt.NDArray[np.float32]
    items: npt.NDArray[np.float32]
    users_known: npt.NDArray[np.bool_]
    items_known: npt.NDArray[np.bool_]


def learn_behaviour(
    edges: Interactions, config: WalkConfig | None = None, *, progress: bool = False
) -> BehaviourVectors:
    """Learn a vector for every user and item that the interactions hold.

    Parameters
    ----------
    edges
        What may be learnt from: `training_edges(log)`, not `log` itself, if the vectors are to be tested.

    Returns
    -------
    BehaviourVectors
        Equal interactions, choices and seed give equal vectors on one machine, whatever the number of threads.

    >>> from semid.interactions import read_interactions
    >>> edges = read_interactions([{"user": "u", "items": ["a", "b"]}, {"user": "v", "items": ["b", "c"]}])
    >>> learn_behaviour(edges, WalkConfig(dim=4, number=1)).items.shape
    (3, 4)
    """
    from semid.embed.skip_gram import alias_table, train_on_walks

    config = config or WalkConfig()
    graph = Graph(edges)
    rng = np.random.default_rng([config.seed, 1])  # the walks draw from another one
    start = (rng.random((graph.n_nodes, config.dim)) - 0.5) / config.dim
    vectors, contexts = start.astype(np.float32), np.zeros((graph.n_nodes, config.dim), np.float32)
    n_walks = config.number * sum(graph.n_starts(schema) for schema in config.schemas)
    if n_walks:
        chance, other = alias_table(graph.degrees**FLATTENED)
        state, done = rng.integers(2**63, dtype=np.uint64), 0
        rounds = walk_rounds(graph, config.schemas, number=config.number, length=config.length, seed=config.seed)
        with bar("walking", n_walks, unit="walk", shown=progress) as advance:
            for walks in rounds:
                left = 1 - np.arange(done, done + len(walks)) / n_walks
                rates = (config.rate * np.maximum(left, LOWEST_RATE)).astype(np.float32)
                state = np.uint64(
                    train_on_walks(
                        walks, vectors, contexts, chance, other, config.window, config.negatives, rates, state
                    )
                )
                done += len(walks)
                advance(len(walks))
    known = graph.degrees > 0
    vectors[~known] = 0
    users, n_users = slice(0, graph.n_users), graph.n_users
    return BehaviourVectors(vectors[users], vectors[n_users:], known[users], known[n_users:])
