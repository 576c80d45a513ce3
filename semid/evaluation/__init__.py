"""How good a set of semantic IDs is: codes in, figures and advice out.

Files in reading order:

quality    the figures, what each means, and how they are printed
metrics    `evaluate` computes them: collisions, use of the codes, neighbor recall, sequence lift
neighbors  the exact nearest neighbors that recall is measured against
advice     what is wrong and which option changes it, in sentences
churn      what a refit changed, in figures and item by item
card       the model card of an artifact
"""

from semid.evaluation.advice import advise
from semid.evaluation.card import model_card
from semid.evaluation.churn import Churn, remap_lines
from semid.evaluation.metrics import evaluate, number_prefixes, sequence_lift
from semid.evaluation.neighbors import Neighbors, find_neighbors
from semid.evaluation.quality import Distortion, LevelUse, Quality, percent

__all__ = [
    "Churn",
    "Distortion",
    "LevelUse",
    "Neighbors",
    "Quality",
    "advise",
    "evaluate",
    "find_neighbors",
    "model_card",
    "number_prefixes",
    "percent",
    "remap_lines",
    "sequence_lift",
]
