"""Learning cluster tokens: behavior vectors to clusters, clusters to codes, every code given out once.

    interactions -> training edges -> walks and skip-gram -> spherical k-means -> balanced -> fine codes

Those without a training interaction are cold. A cold item whose text is known is put where the warm items are that it
reads like; everybody else who is cold gets a reserved coarse code, and a fine code of their own. n entities, users and
items; K clusters, C coarse codes, F fine codes, D dims.

Not here: looking up (`tokens.py`), who comes later (`cold_start.py`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.clusters.spherical_kmeans import balanced_clusters, nearest_centroids, spherical_kmeans
from semid.clusters.tokens import ClusterTokens, check_apart, members_of
from semid.data.interactions import Interactions
from semid.data.splits import Split, training_interactions
from semid.encoders.collaborative import BehaviorVectors, WalkConfig, learn_behavior
from semid.errors import ConfigError, InputError
from semid.runtime.arrays import divided_by_length
from semid.tokens.templates import hint_on_bytes
from semid.tokens.vocabulary import MAX_SIZE, Vocabulary

__all__ = ["ClusterConfig", "Fine", "dealt", "default_clusters", "fit_clusters", "ranks", "vectors_by_text"]


log = logging.getLogger("semid")

Fine = Literal["rank", "residual"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Say = Callable[[str], object]

ITEM_TOKENS = Vocabulary([256] * 4)  # what `semid fit` writes, where nothing else is said
CLUSTERS, MEMBERS = 100, (10, 10_000)  # META ID's number, as long as a cluster has from so many to so many members
TEXT_NEIGHBORS = 10
BLOCK = 1 << 22  # similarities in memory at once


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The choices of cluster tokens."""

    clusters: int | None = None  # K; where users and items are apart, of each. None: `default_clusters`
    joint: bool = True  # users and items share the clusters
    balanced: bool = True  # no cluster has more than its share, so that few fine tokens do
    fine: Fine = "rank"  # by closeness to the centroid, or a second level with vectors of its own
    room: float = 0.01  # fine codes beyond the fullest cluster, for newcomers, as a share
    template: str = "<c_{letter}_{code}>"
    split: Split = "leave-one-out"
    include_valid: bool = False  # learn from validation interactions too
    walks: WalkConfig = field(default_factory=WalkConfig)
    seed: int = 0  # of the clusters; the walks have theirs

    def __post_init__(self) -> None:
        for name, kind in (("fine", Fine), ("split", Split)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name}={getattr(self, name)!r} should be one of {', '.join(get_args(kind))}.")
        if self.clusters is not None and (type(self.clusters) is not int or not 1 <= self.clusters < MAX_SIZE):
            raise ConfigError(f"clusters={self.clusters!r} should be a whole number from 1 to {MAX_SIZE - 1}.")
        if not 0 <= self.room <= 100:
            raise ConfigError(f"room={self.room!r} should be from 0 to 100: 0.1 leaves a tenth more fine codes.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"walks": self.walks.to_dict()}


def fit_clusters(
    histories: Interactions,
    config: ClusterConfig | None = None,
    *,
    vectors: BehaviorVectors | None = None,
    catalog: Sequence[str] = (),
    texts: npt.NDArray[np.floating] | None = None,
    beside: Vocabulary = ITEM_TOKENS,
    progress: bool = False,
    say: Say = log.info,
) -> ClusterTokens:
    """Tokens for all users and items of some histories.

    Parameters
    ----------
    histories
        Everything that is known; what may be learned from is cut out of it by `config.split`.
    vectors
        Behavior vectors made elsewhere, in the order of `histories.users` and `histories.item_ids`; by default they
        are learned.
    catalog, texts : C ids, float [C, T]
        Items, also such as nobody has met, and vectors of their text, for items that are cold.
    beside
        The tokens of the items' semantic IDs in the same model.
    say
        Hears one line per step.

    Raises
    ------
    ConfigError
        Tokens that could be mistaken for those of `beside`; more clusters than there are vectors.
    InputError
        Arrays that do not fit the ids.

    >>> from semid.data.interactions import read_interactions
    >>> lines = [{"user": f"u{n}", "items": [f"i{(n + k) % 6}" for k in range(4)]} for n in range(6)]
    >>> clusters = fit_clusters(read_interactions(lines), ClusterConfig(clusters=2, walks=WalkConfig(dim=4)))
    >>> clusters.decode(clusters.users.tokens("u3"))
    Entity(kind='user', id='u3')
    """
    config = config or ClusterConfig()
    check_apart(Vocabulary((2, 2), config.template), beside)
    if hint := hint_on_bytes(config.template):
        log.warning("%s", hint)
    if texts is not None and len(texts) != len(catalog):
        raise InputError(f"texts has {len(texts)} rows; expected {len(catalog)}, one per item of the catalog.")
    if vectors is None:
        edges = training_interactions(histories, config.split, include_valid=config.include_valid)
        if not len(edges.items):
            raise InputError(
                f"{histories.source}: split={config.split} leaves no interaction to learn from. Use --split all, if "
                "the clusters are not to be tested on these histories."
            )
        say(f"edges       {len(edges.items):,} of {len(histories.items):,} interactions may be learned from")
        vectors = learn_behavior(edges, config.walks)
    _check_vectors(vectors, histories)
    found = _Entities.of(histories, vectors, catalog, texts)
    say(f"vectors     of {found.warm.sum():,} users and items, {found.known.sum() - found.warm.sum():,} by text")
    if config.clusters is None:
        kinds = found.kinds(joint=config.joint).values()
        fewest = min(int((found.warm & rows).sum()) for rows in kinds)  # k-means starts from these alone
        most = max(int((found.known & rows).sum()) for rows in kinds)
        config = replace(config, clusters=default_clusters(fewest, most))
    centroids, labels, coarse_of = _clusters(found, config)
    fine, codes, size = _fine_codes(found, centroids, labels, config)
    codes, n_reserved = _reserved(found, codes, len(centroids), size)
    coarse_of["reserved"] = (len(centroids), len(centroids) + n_reserved)
    vocabulary = Vocabulary((len(centroids) + n_reserved, size), config.template)
    say(f"clusters    {len(centroids)} and {n_reserved} reserved, {size} fine codes: {len(vocabulary)} tokens")
    n_users, placed = len(histories.users), divided_by_length(found.points)
    return ClusterTokens(
        vocabulary,
        members_of(found.ids[:n_users], codes[:n_users], placed[:n_users], vocabulary),
        members_of(found.ids[n_users:], codes[n_users:], placed[n_users:], vocabulary),
        np.concatenate([centroids, np.zeros((n_reserved, centroids.shape[1]), np.float32)]),
        fine,
        coarse_of,
        config.to_dict(),
    )


def default_clusters(fewest: int, most: int) -> int:
    """How many clusters where nothing is said: 100, but fewer for less than a thousand, more for over a million.

    `fewest` and `most` differ where users and items are apart: the smaller kind, and the larger.

    >>> default_clusters(34_464, 34_464), default_clusters(60, 60), default_clusters(10_000_000, 10_000_000)
    (100, 6, 1000)
    """
    small, large = MEMBERS
    return max(1, min(fewest, max(min(CLUSTERS, fewest // small), -(-most // large))))


# ---- who, and where


@dataclass(frozen=True, eq=False)
class _Entities:
    """All users, then all items, each in the order of the ids."""

    ids: list[str]
    is_item: npt.NDArray[np.bool_]  # [n]
    points: Floats  # [n, D] of unit length, zero where nothing is known
    warm: npt.NDArray[np.bool_]  # [n]: has a vector by behavior
    known: npt.NDArray[np.bool_]  # [n]: has a vector, if only by text

    @classmethod
    def of(
        cls, histories: Interactions, vectors: BehaviorVectors, catalog: Sequence[str], texts: np.ndarray | None
    ) -> _Entities:
        by_user, by_item = _centred(vectors)
        items = sorted({*histories.item_ids, *catalog})
        place = {item_id: row for row, item_id in enumerate(items)}
        points, warm = np.zeros((len(items), vectors.items.shape[1]), np.float32), np.zeros(len(items), bool)
        met = np.array([place[item_id] for item_id in histories.item_ids], np.int64)
        points[met], warm[met] = by_item, vectors.items_known
        known = warm.copy()
        if texts is not None:
            listed = np.array([place[item_id] for item_id in catalog], np.int64)
            cold, taught = ~warm[listed], warm[listed]
            if cold.any() and taught.any():
                rows = listed[cold]
                points[rows] = vectors_by_text(texts[taught], points[listed[taught]], texts[cold])
                known[rows] = True
        users = np.zeros(len(histories.users), bool)
        return cls(
            [*histories.users, *items],
            np.concatenate([users, ~np.zeros(len(items), bool)]),
            np.concatenate([by_user, points]),
            np.concatenate([vectors.users_known, warm]),
            np.concatenate([vectors.users_known, known]),
        )

    def kinds(self, *, joint: bool) -> dict[str, npt.NDArray[np.bool_]]:
        """Who has clusters in common: bool [n] for each."""
        return {"both": np.ones(len(self.ids), bool)} if joint else {"user": ~self.is_item, "item": self.is_item}


def _centred(vectors: BehaviorVectors) -> tuple[Floats, Floats]:
    """Users and items seen from their common mean, of unit length; zero where nothing is known.

    Skip-gram leaves all vectors with a part in common, which says nothing and makes all cosines alike: without it,
    cosines of centroids agree better with who was met by the same people (`memorization` of 0.118 for 0.100).
    """
    known = np.concatenate([vectors.users_known, vectors.items_known])
    both = np.concatenate([vectors.users, vectors.items]).astype(np.float32)
    centered = both - both[known].mean(axis=0, dtype=np.float64).astype(np.float32)
    centered[~known] = 0
    if known.sum() == 1:  # its own mean
        centered = both
    unit = divided_by_length(centered)
    return unit[: len(vectors.users)], unit[len(vectors.users) :]


def vectors_by_text(known_texts: np.ndarray, known: Floats, texts: np.ndarray) -> Floats:
    """Where items belong that nobody met: the mean of the 10 items that read most alike, weighted by how much.

    Parameters
    ----------
    known_texts : float [M, T], known : float32 [M, D]
        Text and behavior vectors of the same items.
    texts : float [B, T]

    Returns
    -------
    float32 [B, D]
        Of unit length.

    >>> vectors_by_text(np.eye(2), np.float32([[1, 0], [0, 1]]), np.array([[1.0, 0.0]])).round(3).tolist()
    [[1.0, 0.0]]
    """
    known_texts, texts = divided_by_length(np.asarray(known_texts)), divided_by_length(np.asarray(texts))
    n_near, step = min(TEXT_NEIGHBORS, len(known_texts)), max(1, BLOCK // len(known_texts))
    found = np.empty((len(texts), known.shape[1]), np.float32)
    for start in range(0, len(texts), step):
        alike = texts[start : start + step] @ known_texts.T
        near = np.argsort(-alike, axis=1, kind="stable")[:, :n_near]
        weights = np.maximum(np.take_along_axis(alike, near, axis=1), 1e-6)
        found[start : start + step] = np.einsum("bn,bnd->bd", weights, known[near])
    return divided_by_length(found)


def _check_vectors(vectors: BehaviorVectors, histories: Interactions) -> None:
    for name, ids in (("users", histories.users), ("items", histories.item_ids)):
        shape, n_known = getattr(vectors, name).shape, len(getattr(vectors, f"{name}_known"))
        if (shape[0], n_known) != (len(ids), len(ids)):
            raise InputError(f"vectors.{name} has {shape[0]} rows; expected {len(ids)}, one per id of the histories.")


# ---- which codes


def _clusters(found: _Entities, config: ClusterConfig) -> tuple[Floats, Ints, dict[str, tuple[int, int]]]:
    """Centroids [K or 2 K, D], the cluster of each entity (-1 without a vector), and the clusters of each kind."""
    centroids, labels, coarse_of = [], np.full(len(found.ids), -1, np.int64), {}
    for kind, rows in found.kinds(joint=config.joint).items():
        here, first = np.flatnonzero(rows & found.known), config.clusters * len(centroids)
        start = spherical_kmeans(found.points[np.flatnonzero(rows & found.warm)], config.clusters, seed=config.seed)
        if config.balanced:
            centers, own = balanced_clusters(found.points[here], start, -(-len(here) // config.clusters))
        else:
            centers, own = start, nearest_centroids(found.points[here], start)
        labels[here] = own + first
        centroids.append(centers)
        coarse_of[kind] = (first, first + config.clusters)
    if config.joint:
        coarse_of = dict.fromkeys(("user", "item"), coarse_of["both"])
    return np.concatenate(centroids), labels, coarse_of


def _fine_codes(
    found: _Entities, centroids: Floats, labels: Ints, config: ClusterConfig
) -> tuple[Floats | None, Ints, int]:
    """The fine codes' vectors [F, D] or None, codes int64 [n, 2] (-1 where there is no cluster), and F."""
    codes = np.full((len(labels), 2), -1, np.int64)
    known = np.flatnonzero(labels >= 0)
    fullest = int(np.bincount(labels[known]).max())
    size = math.ceil(fullest * (1 + config.room))
    if size > MAX_SIZE:
        raise ConfigError(f"a cluster has {fullest} members, past {MAX_SIZE}. Use more clusters, or balanced ones.")
    points, own = found.points[known], labels[known]
    if config.fine == "residual":
        vectors, fine = dealt(points, centroids, own, size, seed=config.seed)
    else:
        vectors, fine = None, ranks(points, centroids, own)
    codes[known] = np.stack([own, fine], axis=1)
    return vectors, codes, size


def _reserved(found: _Entities, codes: Ints, first: int, size: int) -> tuple[Ints, int]:
    """Codes where there were none, from reserved coarse codes on; and how many of those there are, at least one."""
    cold = np.flatnonzero(codes[:, 0] < 0)
    codes[cold, 0], codes[cold, 1] = first + np.arange(len(cold)) // size, np.arange(len(cold)) % size
    return codes, max(1, -(-len(cold) // size))


# ---- The second token of a cluster's members: distinct codes inside each cluster, bare ranks or codes with a meaning.
# `ranks`: how close a member is to the centroid, 0 the closest.
#
# `dealt`: codes of a second level, shared by all clusters, whose vectors are what the centroids leave. There are hardly
# more codes than members, so few get the nearest one: they are dealt out at the least total distance. After each deal a
# code's vector becomes the mean of those who have it, so that what is dealt and what the vectors say agree: then
# centroid and fine vector together are nearer to the members than the centroid alone.
#
# n points of unit length, K clusters, F fine codes, D dims.


DEALS = 3  # of six, these brought nine tenths of the gain


def ranks(points: Floats, centroids: Floats, clusters: Ints) -> Ints:
    """int64 [n]: each point's rank by closeness in its cluster; of equal ones the earlier row first.

    >>> ranks(np.float32([[0, 1], [1, 0], [0.6, 0.8]]), np.float32([[0, 1]]), np.array([0, 0, 0])).tolist()
    [0, 2, 1]
    """
    closeness = np.einsum("nd,nd->n", points, centroids[clusters])
    order = np.lexsort((-closeness, clusters))  # stable
    starts = np.searchsorted(clusters[order], np.arange(len(centroids)))
    places = np.empty(len(points), np.int64)
    places[order] = np.arange(len(points)) - starts[clusters[order]]
    return places


def dealt(points: Floats, centroids: Floats, clusters: Ints, size: int, *, seed: int) -> tuple[Floats, Ints]:
    """Vectors of the fine codes, float32 [F, D], and each point's code, int64 [n], distinct inside each cluster.

    `size`, F, is at least the number of members of the fullest cluster.
    """
    from semid.assign.unique import assign_unique
    from semid.train.kmeans import kmeans

    left = points - centroids[clusters]
    vectors = kmeans(left, size, seed=seed)
    nearest = (left @ vectors.T - (vectors**2).sum(axis=1) / 2).argmax(axis=1)
    wanted = np.stack([clusters, nearest], axis=1)
    for _ in range(DEALS):
        codes = assign_unique(points, wanted, [centroids, vectors]).codes[:, 1].astype(np.int64)
        sums, counts = np.zeros(vectors.shape), np.bincount(codes, minlength=size)
        np.add.at(sums, codes, left)
        means = sums / np.maximum(counts, 1)[:, None]
        vectors = np.where(counts[:, None] > 0, means, vectors).astype(np.float32)
    return vectors, codes
