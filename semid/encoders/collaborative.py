"""Collaborative vectors of users and items in one space: random walks over interactions, then skip-gram.

    training interactions -> walks -> skip-gram with negative sampling -> vectors [U + I, D]

Users with the same items, items with the same users, and users and their items end up near each other, so they can be
clustered together (`semid/clusters/tokens.py`). The idea is metapath2vec (Dong et al., 2017), its use META ID (arXiv
2406.08477); the settings are our own, measured with `tests/benchmarks/clusters.py`.

Not here: the training loop (`skip_gram.py`), vectors made elsewhere (`collaborative_files.py`). U users, I items, D
dims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Interactions
from semid.errors import ConfigError
from semid.runtime.progress import bar

__all__ = ["BehaviorVectors", "Graph", "WalkConfig", "check_schema", "learn_behavior", "walk_rounds"]


LOWEST_RATE = 1e-4  # of the learning rate, relative to the first
FLATTENED = 0.75  # exponent of the degrees for drawing negatives, as in word2vec
MOST_STEPS = 10_000


@dataclass(frozen=True, kw_only=True)
class WalkConfig:
    """Settings of the walks and of the training on them."""

    schemas: tuple[str, ...] = ("U-I-U", "I-U-I", "I-I")
    walks_per_node: int = 10  # for each schema
    walk_length: int = 20  # nodes of a walk
    window: int = 3  # two nodes of a walk are neighbors up to this distance
    negatives: int = 5  # for each pair
    dim: int = 64
    rate: float = 0.1  # learning rate at the start; it falls to zero
    seed: int = 0

    def __post_init__(self) -> None:
        schemas = self.schemas.split(",") if isinstance(self.schemas, str) else self.schemas
        object.__setattr__(self, "schemas", tuple(schemas))
        for schema in self.schemas:
            check_schema(schema)
        if not self.schemas:
            raise ConfigError("schemas=() should name at least one, such as U-I-U.")
        lowest_values = {"walks_per_node": 1, "walk_length": 2, "window": 1, "negatives": 0, "dim": 1, "seed": 0}
        for name, lowest in lowest_values.items():
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value < 2**31:
                raise ConfigError(f"{name}={value!r} should be an integer of {lowest} or more.")
        if not 0 < self.rate <= 1:
            raise ConfigError(f"rate={self.rate!r} should be above 0 and at most 1.")
        if self.walk_length > MOST_STEPS:
            raise ConfigError(
                f"walk_length={self.walk_length} should be at most {MOST_STEPS}. Use more walks per node instead."
            )

    def to_dict(self) -> dict[str, object]:
        """Return the settings as plain data for artifacts, by the names that these have had from the start."""
        data = asdict(self) | {"schemas": list(self.schemas)}
        return data | {"number": data.pop("walks_per_node"), "length": data.pop("walk_length")}


@dataclass(frozen=True, eq=False)
class BehaviorVectors:
    """Vectors of the users and items of some interactions.

    Parameters
    ----------
    users : float32 [U, D], items : float32 [I, D]
        In the order of `log.users` and `log.item_ids`.
    users_known : bool [U], items_known : bool [I]
        Which have a vector. The others have no training interaction, and their rows are zero.
    """

    users: npt.NDArray[np.float32]
    items: npt.NDArray[np.float32]
    users_known: npt.NDArray[np.bool_]
    items_known: npt.NDArray[np.bool_]


def learn_behavior(edges: Interactions, config: WalkConfig | None = None) -> BehaviorVectors:
    """Learn a vector for every user and item that the interactions hold.

    Parameters
    ----------
    edges : Interactions
        What to learn from: `training_interactions(log)`, not `log` itself, if the vectors are tested later.
    config : WalkConfig, optional

    Returns
    -------
    BehaviorVectors
        Equal interactions, settings and seed give equal vectors on one machine, for any number of threads.

    >>> from semid.data.interaction_reader import read_interactions
    >>> edges = read_interactions([{"user": "u", "items": ["a", "b"]}, {"user": "v", "items": ["b", "c"]}])
    >>> learn_behavior(edges, WalkConfig(dim=4, walks_per_node=1)).items.shape
    (3, 4)
    """
    from semid.encoders.skip_gram import alias_table, train_on_walks

    config = config or WalkConfig()
    graph = Graph(edges)
    rng = np.random.default_rng([config.seed, 1])  # the walks draw from another one
    start = (rng.random((graph.n_nodes, config.dim)) - 0.5) / config.dim
    vectors, contexts = start.astype(np.float32), np.zeros((graph.n_nodes, config.dim), np.float32)
    n_walks = config.walks_per_node * sum(graph.n_starts(schema) for schema in config.schemas)
    if n_walks:
        chance, other = alias_table(graph.degrees**FLATTENED)
        state, done = rng.integers(2**63, dtype=np.uint64), 0
        rounds = walk_rounds(
            graph, config.schemas, number=config.walks_per_node, length=config.walk_length, seed=config.seed
        )
        with bar("walking", n_walks, unit="walk") as advance:
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
    return BehaviorVectors(vectors[users], vectors[n_users:], known[users], known[n_users:])


# ---- Random walks over interactions, by meta-paths: the kinds of successive nodes are fixed, the node is drawn.
# Users and items are the nodes, U users first, then I items. A schema says where a walk may go: `U-I-U` starts at a
# user and alternates; `I-U-I` starts at an item; in `I-I` an item is followed by one that was next to it in some user's
# history. The last letter of a schema is its first again, so a walk repeats the schema until it is long enough.
# Neighbors are drawn uniformly; an item that a user met twice is drawn twice as often.
#
# All walks of a round take their steps together, so a round is a few NumPy calls per step.


USER, ITEM = "U", "I"
NOWHERE = -1  # after the end of a walk
STARTS_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Links:
    """The neighbors of each of n nodes, as compressed sparse rows: `to[offsets[node]:offsets[node + 1]]`."""

    offsets: npt.NDArray[np.int64]
    to: npt.NDArray[np.int32]

    @classmethod
    def of(cls, sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer], n_nodes: int) -> Links:
        """Return the links from sources to targets, both [n]."""
        order = np.argsort(sources, kind="stable")
        offsets = np.zeros(n_nodes + 1, np.int64)
        np.cumsum(np.bincount(sources, minlength=n_nodes), out=offsets[1:])
        return cls(offsets, np.ascontiguousarray(targets[order], np.int32))

    def step(self, nodes: npt.NDArray[np.int32], rng: np.random.Generator) -> npt.NDArray[np.int32]:
        """Draw a neighbor of each node uniformly; NOWHERE from NOWHERE and from a node without neighbors."""
        here = np.maximum(nodes, 0)
        starts = self.offsets[here]
        degrees = np.where(nodes >= 0, self.offsets[here + 1] - starts, 0)
        drawn = (rng.random(len(nodes)) * degrees).astype(np.int64)  # below the degree: random() is below 1
        last = max(len(self.to) - 1, 0)
        found = self.to[np.minimum(starts + drawn, last)] if len(self.to) else nodes
        return np.where(degrees > 0, found, NOWHERE).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes and links of some interactions: user u is node u, item i is node U + i.

    >>> from semid.data.interaction_reader import read_interactions
    >>> graph = Graph(read_interactions([{"user": "u", "items": ["b", "a"]}, {"user": "v", "items": ["a"]}]))
    >>> graph.n_users, graph.n_nodes, graph.degrees.tolist()
    (2, 4, [2, 1, 2, 1])
    """

    log: Interactions

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.log.users)

    @property
    def n_nodes(self) -> int:
        """U + I."""
        return self.n_users + len(self.log.item_ids)

    @cached_property
    def degrees(self) -> npt.NDArray[np.int64]:
        """Number of interactions of each user and each item, int64 [U + I]."""
        return np.concatenate(
            [np.diff(self.log.offsets), np.bincount(self.log.items, minlength=len(self.log.item_ids))]
        )

    def links(self, kinds: str) -> Links:
        """Return the links of one step: "UI" from users, "IU" and "II" from items."""
        return {"UI": self._of_users, "IU": self._of_items, "II": self._in_turn}[kinds]

    def starts(self, kind: str, links: Links) -> npt.NDArray[np.int32]:
        """Return all nodes of a kind, "U" or "I", that have a link."""
        first, end = (0, self.n_users) if kind == USER else (self.n_users, self.n_nodes)
        return np.flatnonzero(np.diff(links.offsets)[first:end]).astype(np.int32) + np.int32(first)

    def n_starts(self, schema: str) -> int:
        """Return the number of walks of one round of a schema."""
        letters = check_schema(schema)
        return len(self.starts(letters[0], self.links(letters[:2])))

    @cached_property
    def _edges(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        users = np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.log.offsets))
        return users, (self.log.items + self.n_users).astype(np.int32)

    @cached_property
    def _of_users(self) -> Links:
        users, items = self._edges
        return Links.of(users, items, self.n_nodes)

    @cached_property
    def _of_items(self) -> Links:
        users, items = self._edges
        return Links.of(items, users, self.n_nodes)

    @cached_property
    def _in_turn(self) -> Links:
        """Items next to each other in a history, both ways; an item is not its own neighbor."""
        users, items = self._edges
        side_by_side = (users[:-1] == users[1:]) & (items[:-1] != items[1:])
        before, after = items[:-1][side_by_side], items[1:][side_by_side]
        return Links.of(np.concatenate([before, after]), np.concatenate([after, before]), self.n_nodes)


def check_schema(schema: str) -> str:
    """Return the letters of a schema, "UIU" for `U-I-U`; ConfigError if it is not valid."""
    letters = schema.replace("-", "")
    fits = len(letters) > 1 and letters[0] == letters[-1] and set(letters) <= {USER, ITEM}
    if not fits or "-".join(letters) != schema or USER * 2 in letters:
        raise ConfigError(
            f"schema={schema!r} should be letters U and I with - between them, the last like the first, and no U next "
            "to a U: U-I-U, I-U-I, I-I or U-I-I-U."
        )
    return letters


def walk_rounds(
    graph: Graph, schemas: Sequence[str], *, number: int, length: int, seed: int
) -> Iterator[npt.NDArray[np.int32]]:
    """Yield walks, int32 [n, length] at a time: a row is a walk, -1 after its end.

    In each of `number` rounds, schema by schema, a walk starts at every node of the schema's first kind that has a
    link, in a new random order. Equal seeds give equal walks.

    Raises
    ------
    ConfigError
        A schema is not valid.

    >>> from semid.data.interaction_reader import read_interactions
    >>> graph = Graph(read_interactions([{"user": "u", "items": ["a"]}]))
    >>> [walks.tolist() for walks in walk_rounds(graph, ["U-I-U"], number=2, length=4, seed=0)]
    [[[0, 1, 0, 1]], [[0, 1, 0, 1]]]
    """
    steps = [check_schema(schema) for schema in schemas]
    rng = np.random.default_rng(seed)
    for _ in range(number):
        for letters in steps:
            links = [graph.links(letters[place : place + 2]) for place in range(len(letters) - 1)]
            starts = rng.permutation(graph.starts(letters[0], links[0]))
            for first in range(0, len(starts), STARTS_AT_ONCE):
                walks = np.empty((min(STARTS_AT_ONCE, len(starts) - first), length), np.int32)
                walks[:, 0] = starts[first : first + STARTS_AT_ONCE]
                for place in range(1, length):
                    walks[:, place] = links[(place - 1) % len(links)].step(walks[:, place - 1], rng)
                yield walks
