"""How good a set of semantic IDs is: codes in, figures and advice out.

Files in reading order:

quality    the figures, what each means, and how they are printed
metrics    `evaluate` computes them: collisions, use of the codes, neighbor recall, sequence lift
neighbors  the exact nearest neighbors that recall is measured against
advice     what is wrong and which option changes it, in sentences
churn      what a refit changed, in figures and item by item
recommendations  `evaluate_recommendations`: Recall@K, NDCG@K and others, for lists of items or IDs
ranked_lists     which places each recommended item takes (hits: where the relevant ones are)
strata           head, mid, tail and cold items (intervals: bootstrap confidence intervals)
scores           several recommenders in one table (baselines: popularity, co-occurrence)
"""

from semid.evaluation.advice import advise
from semid.evaluation.card import model_card
from semid.evaluation.churn import Churn, remap_lines
from semid.evaluation.intervals import Bootstrap, Estimate
from semid.evaluation.metrics import evaluate, number_prefixes, sequence_lift
from semid.evaluation.neighbors import Neighbors, find_neighbors
from semid.evaluation.quality import Distortion, LevelUse, Quality, percent
from semid.evaluation.recommendations import RecommendationQuality, evaluate_recommendations

__all__ = [
    "Bootstrap", "Churn", "Distortion", "Estimate", "LevelUse", "Neighbors", "Quality", "RecommendationQuality",
    "advise", "evaluate", "evaluate_recommendations", "find_neighbors", "model_card", "number_prefixes", "percent",
    "remap_lines", "sequence_lift",
]  # fmt: skip
