"""Fit cluster tokens: collaborative vectors to clusters, clusters to codes, each pair of codes used once.

    interactions -> training interactions -> walks and skip-gram -> spherical k-means -> balanced -> fine codes

Users and items without a training interaction are cold. A cold item with a text goes to the cluster of the warm items
with similar texts; other cold ones get a reserved coarse code and a fine code of their own. n entities (users and
items), K clusters, C coarse codes, F fine codes, D dims.

Not here: looking up (`tokens.py`), users and items that come later (`cold_start.py`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from semid.clusters.fine_codes import assign_fine_codes, closeness_ranks
from semid.clusters.spherical_kmeans import balanced_clusters, nearest_centroids, spherical_kmeans
from semid.clusters.tokens import CONFIG_NAMES, ClusterTokens, check_distinguishable, members_of
from semid.data.interactions import Interactions
from semid.data.splits import Split, training_interactions
from semid.encoders.collaborative import BehaviorVectors, WalkConfig, learn_behavior
from semid.errors import ConfigError, InputError
from semid.runtime.arrays import divided_by_length
from semid.runtime.checks import check_choice
from semid.runtime.progress import log_step
from semid.tokens.templates import hint_on_bytes
from semid.tokens.vocabulary import MAX_SIZE, Vocabulary

__all__ = ["ITEM_TOKENS", "ClusterConfig", "SecondToken", "default_clusters", "fit_clusters", "vectors_by_text"]

logger = logging.getLogger("semid")

SecondToken = Literal["rank", "residual"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ITEM_TOKENS = Vocabulary([256] * 4)  # what `semid fit` writes by default
CLUSTERS, MEMBERS = 100, (10, 10_000)  # META ID's number, if a cluster then has 10 to 10,000 members
TEXT_NEIGHBORS = 10
BLOCK = 1 << 22  # similarities in memory at once


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The settings of cluster tokens."""

    clusters: int | None = None  # K, for users and items each if not joint. None: `default_clusters`
    joint: bool = True  # users and items share the clusters
    balanced: bool = True  # cap every cluster at ceil(n / K) members, so that fewer second tokens are needed
    second_token: SecondToken = "rank"  # the rank by closeness to the centroid, or a code with a vector
    spare_codes: float = 0.01  # second tokens for later users and items, as a share of the largest cluster
    template: str = "<c_{letter}_{code}>"
    split: Split = "leave-one-out"
    include_valid: bool = False  # train on validation interactions too
    walks: WalkConfig = field(default_factory=WalkConfig)
    seed: int = 0  # of the clusters; the walks have their own

    def __post_init__(self) -> None:
        for name, kind in (("second_token", SecondToken), ("split", Split)):
            check_choice(name, getattr(self, name), get_args(kind))
        if self.clusters is not None and (type(self.clusters) is not int or not 1 <= self.clusters < MAX_SIZE):
            raise ConfigError(f"clusters={self.clusters!r} should be an integer from 1 to {MAX_SIZE - 1}.")
        if not 0 <= self.spare_codes <= 100:
            raise ConfigError(f"spare_codes={self.spare_codes!r} should be from 0 to 100: 0.1 adds a tenth.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `semid.json`, by the names that it has had from the start."""
        data = asdict(self) | {"walks": self.walks.to_dict()}
        for saved, name in CONFIG_NAMES.items():
            data[saved] = data.pop(name)
        return data


def fit_clusters(
    histories: Interactions,
    config: ClusterConfig | None = None,
    *,
    vectors: BehaviorVectors | None = None,
    catalog: Sequence[str] = (),
    texts: npt.NDArray[np.floating] | None = None,
    item_ids: Vocabulary = ITEM_TOKENS,
) -> ClusterTokens:
    """Fit cluster tokens for all users and items of some interactions.

    Parameters
    ----------
    histories : Interactions
        All interactions; `config.split` says which of them are held out.
    config : ClusterConfig, optional
        The settings.
    vectors : BehaviorVectors, optional
        Collaborative vectors made elsewhere, in the order of `histories.users` and `histories.item_ids`. By default
        they are learned here.
    catalog : C ids, texts : float [C, T], optional
        Items, with or without interactions, and vectors of their texts; they place cold items.
    item_ids : Vocabulary
        The tokens of the items' semantic IDs in the same model, by default those of `semid fit`.

    Returns
    -------
    ClusterTokens
        Equal inputs and seeds give equal tokens.

    Raises
    ------
    ConfigError
        Tokens that could be mistaken for those of `item_ids`; more clusters than there are vectors.
    InputError
        No interaction to train on; arrays that do not match the ids.

    >>> from semid.data.interaction_reader import read_interactions
    >>> lines = [{"user": f"u{n}", "items": [f"i{(n + k) % 6}" for k in range(4)]} for n in range(6)]
    >>> clusters = fit_clusters(read_interactions(lines), ClusterConfig(clusters=2, walks=WalkConfig(dim=4)))
    >>> clusters.decode(clusters.users.tokens("u3"))
    Entity(kind='user', id='u3')
    """
    config = config or ClusterConfig()
    check_distinguishable(Vocabulary((2, 2), config.template), item_ids)
    if hint := hint_on_bytes(config.template):
        logger.warning("%s", hint)
    if texts is not None and len(texts) != len(catalog):
        raise InputError(f"texts has {len(texts)} rows; expected {len(catalog)}, one per item of the catalog.")
    if vectors is None:
        training = training_interactions(histories, config.split, include_valid=config.include_valid)
        if not len(training.items):
            raise InputError(
                f"{histories.source}: split={config.split} leaves no training interaction. Use --split all, unless "
                "the clusters will be tested on these interactions."
            )
        log_step("split", f"{len(training.items):,} of {len(histories.items):,} interactions are for training")
        vectors = learn_behavior(training, config.walks)
    _check_vectors(vectors, histories)
    entities = _Entities.of(histories, vectors, catalog, texts)
    n_warm = int(entities.warm.sum())
    log_step("vectors", f"of {n_warm:,} users and items, and of {int(entities.known.sum()) - n_warm:,} items by text")
    n_clusters = config.clusters
    if n_clusters is None:
        kinds = entities.kinds(joint=config.joint).values()
        fewest = min(int((entities.warm & rows).sum()) for rows in kinds)  # k-means starts from warm ones only
        most = max(int((entities.known & rows).sum()) for rows in kinds)
        n_clusters = default_clusters(fewest, most)
        config = replace(config, clusters=n_clusters)
    centroids, labels, coarse_of = _clusters(entities, config, n_clusters)
    fine, codes, size = _fine_codes(entities, centroids, labels, config)
    codes, n_reserved = _reserved(codes, len(centroids), size)
    coarse_of["reserved"] = (len(centroids), len(centroids) + n_reserved)
    vocabulary = Vocabulary((len(centroids) + n_reserved, size), config.template)
    log_step("clusters", f"{len(centroids)} and {n_reserved} reserved, {size} fine codes: {len(vocabulary)} tokens")
    n_users, vectors_kept = len(histories.users), divided_by_length(entities.points)
    return ClusterTokens(
        vocabulary,
        members_of(entities.ids[:n_users], codes[:n_users], vectors_kept[:n_users], vocabulary),
        members_of(entities.ids[n_users:], codes[n_users:], vectors_kept[n_users:], vocabulary),
        np.concatenate([centroids, np.zeros((n_reserved, centroids.shape[1]), np.float32)]),
        fine,
        coarse_of,
        config.to_dict(),
    )


def default_clusters(fewest: int, most: int) -> int:
    """Return the default number of clusters: 100, fewer for under a thousand vectors, more for over a million.

    Parameters
    ----------
    fewest, most : int
        Vectors of the smaller and of the larger kind, if users and items have separate clusters; otherwise of both
        together.

    >>> default_clusters(34_464, 34_464), default_clusters(60, 60), default_clusters(10_000_000, 10_000_000)
    (100, 6, 1000)
    """
    small, large = MEMBERS
    return max(1, min(fewest, max(min(CLUSTERS, fewest // small), -(-most // large))))


# ---- entities and their vectors


@dataclass(frozen=True, eq=False)
class _Entities:
    """All users, then all items, each in the order of the ids."""

    ids: list[str]
    is_item: Bools  # [n]
    points: Floats  # [n, D] of unit length, zeros where there is no vector
    warm: Bools  # [n] - has a collaborative vector
    known: Bools  # [n] - has a vector, perhaps only by text

    @classmethod
    def of(
        cls, histories: Interactions, vectors: BehaviorVectors, catalog: Sequence[str], texts: np.ndarray | None
    ) -> _Entities:
        by_user, by_item = _centered(vectors)
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

    def kinds(self, *, joint: bool) -> dict[str, Bools]:
        """Return the groups that have clusters of their own: name -> bool [n]."""
        return {"both": np.ones(len(self.ids), bool)} if joint else {"user": ~self.is_item, "item": self.is_item}


def _centered(vectors: BehaviorVectors) -> tuple[Floats, Floats]:
    """Return the vectors of users and items without their common mean, of unit length; zeros where there is none.

    Skip-gram gives all vectors a common component, which makes all cosines alike. Without it, cosines of centroids
    agree better with co-occurrence (`memorization` of 0.118 instead of 0.100).
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
    """Return vectors for items without interactions: the mean of the 10 items with the most similar texts.

    Parameters
    ----------
    known_texts : float [M, T], known : float32 [M, D]
        Text vectors and collaborative vectors of the same items.
    texts : float [B, T]
        Text vectors of the items without interactions.

    Returns
    -------
    float32 [B, D]
        Means weighted by similarity, of unit length.

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


# ---- codes


def _clusters(
    entities: _Entities, config: ClusterConfig, n_clusters: int
) -> tuple[Floats, Ints, dict[str, tuple[int, int]]]:
    """Return centroids [K or 2 K, D], the cluster of each entity (-1 without a vector), and the range of each kind."""
    centroids: list[Floats] = []
    labels, coarse_of = np.full(len(entities.ids), -1, np.int64), {}
    for kind, rows in entities.kinds(joint=config.joint).items():
        here, first = np.flatnonzero(rows & entities.known), n_clusters * len(centroids)
        start = spherical_kmeans(entities.points[np.flatnonzero(rows & entities.warm)], n_clusters, seed=config.seed)
        if config.balanced:
            centers, own = balanced_clusters(entities.points[here], start, -(-len(here) // n_clusters))
        else:
            centers, own = start, nearest_centroids(entities.points[here], start)
        labels[here] = own + first
        centroids.append(centers)
        coarse_of[kind] = (first, first + n_clusters)
    if config.joint:
        coarse_of = dict.fromkeys(("user", "item"), coarse_of["both"])
    return np.concatenate(centroids), labels, coarse_of


def _fine_codes(
    entities: _Entities, centroids: Floats, labels: Ints, config: ClusterConfig
) -> tuple[Floats | None, Ints, int]:
    """Return the vectors of the fine codes [F, D] or None, codes int64 [n, 2] (-1 without a cluster), and F."""
    codes = np.full((len(labels), 2), -1, np.int64)
    known = np.flatnonzero(labels >= 0)
    largest = int(np.bincount(labels[known]).max())
    size = math.ceil(largest * (1 + config.spare_codes))
    if size > MAX_SIZE:
        raise ConfigError(
            f"a cluster has {largest} members, expected at most {MAX_SIZE}. Use more or balanced clusters."
        )
    points, own = entities.points[known], labels[known]
    vectors: Floats | None = None
    if config.second_token == "residual":
        vectors, fine = assign_fine_codes(points, centroids, own, size, seed=config.seed)
    else:
        fine = closeness_ranks(points, centroids, own)
    codes[known] = np.stack([own, fine], axis=1)
    return vectors, codes, size


def _reserved(codes: Ints, first: int, size: int) -> tuple[Ints, int]:
    """Return codes with reserved ones, from coarse code `first`, where there were none; and how many are reserved."""
    cold = np.flatnonzero(codes[:, 0] < 0)
    codes[cold, 0], codes[cold, 1] = first + np.arange(len(cold)) // size, np.arange(len(cold)) % size
    return codes, max(1, -(-len(cold) // size))
