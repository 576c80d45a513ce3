"""Tokens for users and items from clusters of those who interact alike.

tokens.py            ClusterTokens: look up, save, open
fit.py               fit_clusters: interactions to vectors to clusters to codes
spherical_kmeans.py  clusters on the sphere, with or without a cap on their members
fine_codes.py        the second token: a rank, or a code with a vector
cold_start.py        add_members: new users and items
metrics.py           diversity and memorization of vectors
"""

from typing import TYPE_CHECKING

from semid._late import late_names
from semid.clusters.tokens import ClusterTokens, Entity, Members, ParsedEntity, Side, check_distinguishable

if TYPE_CHECKING:
    from semid.clusters.cold_start import add_members
    from semid.clusters.fit import ClusterConfig, default_clusters, fit_clusters
    from semid.clusters.metrics import adjusted_cosines, centered, diversity, interaction_matrix, memorization

__all__ = [
    "ClusterConfig", "ClusterTokens", "Entity", "Members", "ParsedEntity", "Side", "add_members", "adjusted_cosines",
    "centered", "check_distinguishable", "default_clusters", "diversity", "fit_clusters", "interaction_matrix",
    "memorization",
]  # fmt: skip

__getattr__ = late_names(__name__, __all__, (".cold_start", ".metrics", ".fit"))  # opening tokens needs NumPy alone
