"""Tokens for users and items from clusters of those who interact alike.

tokens.py            ClusterTokens: look up, save, open
fit.py               fit_clusters: interactions to vectors to clusters to codes
spherical_kmeans.py  clusters on the sphere, with or without a cap on their members
fine_codes.py        the second token: a rank, or a code with a vector
cold_start.py        add_members: new users and items
metrics.py           diversity and memorization of vectors
"""

from importlib import import_module

from semid.clusters.tokens import ClusterTokens, Entity, Members, ParsedEntity, Side, check_distinguishable

_LATER = {  # public name -> its file, loaded on first use: opening cluster tokens needs NumPy alone
    "ClusterConfig": "semid.clusters.fit",
    "add_members": "semid.clusters.cold_start",
    "adjusted_cosines": "semid.clusters.metrics",
    "centered": "semid.clusters.metrics",
    "default_clusters": "semid.clusters.fit",
    "diversity": "semid.clusters.metrics",
    "fit_clusters": "semid.clusters.fit",
    "memorization": "semid.clusters.metrics",
}
__all__ = ["ClusterTokens", "Entity", "Members", "ParsedEntity", "Side", "check_distinguishable", *_LATER]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_LATER[name]), name)
