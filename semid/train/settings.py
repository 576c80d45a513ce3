"""The parameters of the learners, each written once: what a learner is made with, its training loop reads.

Plain dataclasses below both, so that `rqvae.py` may import its loop and the loop need not know the learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["LCRecSettings", "ResidualKMeansSettings", "RQVAESettings"]


@dataclass(kw_only=True, eq=False)
class ResidualKMeansSettings:
    """Parameters of `ResidualKMeans`; see there."""

    levels: int = 4
    codebook_size: int | Sequence[int] = 256
    dim: int = 192
    whiten: float = 0.6
    pull: float = 0.0
    landmarks: int = 2048
    balance: float = 0.1
    refine: int = 2
    seed: int = 0


@dataclass(kw_only=True, eq=False)
class RQVAESettings(ResidualKMeansSettings):
    """Parameters of `RQVAE`; see there."""

    pull: float = 0.75
    hidden: int = 512
    epochs: int = 20
    max_steps: int | None = 600
    batch_size: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.1
    beta: float = 0.25
    quant_weight: float = 1.0
    anchor: float = 3.0
    epsilon: float = 0.003
    sample: int = 200_000
    device: str = "auto"


@dataclass(kw_only=True, eq=False)
class LCRecSettings:
    """Parameters of `LCRecRQVAE`; see there."""

    levels: int = 4
    codebook_size: int | Sequence[int] = 256
    dim: int = 32
    layers: Sequence[int] = (2048, 1024, 512, 256, 128, 64)
    batch_norm: bool = True
    epochs: int = 10_000
    batch_size: int = 1024
    lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup_epochs: int = 50
    beta: float = 0.25
    quant_weight: float = 1.0
    epsilon: float = 0.003
    iterations: int = 50
    eval_every: int = 50
    keep: Literal["collision", "loss"] = "collision"
    device: str = "auto"
    seed: int = 2024
