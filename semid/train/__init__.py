"""Vectors in; codebooks out.

base.py              Learner: fit, transform, parameters
settings.py          the parameters of every learner
residual_kmeans.py   ResidualKMeans: principal directions, then k-means level by level
latent.py            the linear latent space and the step towards neighbors
kmeans.py            k-means, joint refinement, evening out the use of codes
lloyd.py             rounds of k-means, on the CPU or a GPU
rqvae.py             RQVAE: starts from residual k-means and trains (the default)
rqvae_module.py      its network in torch
rqvae_training.py    its training loop
auxiliary.py         targets besides the vectors: interactions, LLM embeddings
auxiliary_losses.py  their losses
lcrec.py             LCRecRQVAE: LC-Rec's recipe as published
lcrec_training.py    its training loop
sinkhorn.py          balanced assignment of codes
fusion.py            text and collaborative vectors in one
warm_start.py        continue from old codebooks
match_codes.py       renumber new codes like old ones
keep_codes.py        items keep old codes that are nearly as near
"""

from semid.train.auxiliary import AuxiliaryTarget, CoOccurrenceTarget, TextEmbeddingTarget
from semid.train.base import Learner
from semid.train.lcrec import LCRecRQVAE, LCRecTraining
from semid.train.residual_kmeans import ResidualKMeans
from semid.train.rqvae import RQVAE, Training

__all__ = [
    "AuxiliaryTarget",
    "CoOccurrenceTarget",
    "LCRecRQVAE",
    "LCRecTraining",
    "Learner",
    "RQVAE",
    "ResidualKMeans",
    "TextEmbeddingTarget",
    "Training",
]
