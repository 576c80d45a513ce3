"""Bootstrap confidence intervals of means over test cases.

The cases of one user are not independent, so whole users are drawn, with replacement (Efron, "Bootstrap Methods:
Another Look at the Jackknife", 1979; percentile intervals). The draws depend on the seed and the number of users alone.

R cases, U users, M figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError

__all__ = ["Bootstrap", "Estimate", "estimate_means"]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are computed."""

    resamples: int = 1000  # 0 for no intervals
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 0:
            raise ConfigError(f"resamples={self.resamples} should be >= 0.")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence={self.confidence} should be between 0 and 1, such as 0.95.")


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval; the ends are None for a figure that has none."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Return JSON data; None where a figure is not defined."""
        return {"value": None if math.isnan(self.value) else self.value, "low": self.low, "high": self.high}


def estimate_means(
    values: npt.NDArray[np.float64], users: npt.NDArray[np.int64], how: Bootstrap | None = None
) -> list[Estimate]:
    """Return the mean of each column with its interval.

    Parameters
    ----------
    values : float64 [R, M]
        A figure of each case; for a paired comparison, the difference of two systems.
    users : int64 [R]
        The user of each case, numbered from 0 without gaps.
    how : Bootstrap, optional
        Default: 1,000 resamples, 95 %, seed 0.

    >>> estimate_means(np.array([[1.0], [0.0], [1.0], [0.0]]), np.arange(4))
    [Estimate(value=0.5, low=0.0, high=1.0)]
    """
    how = how or Bootstrap()
    if not len(values):
        return [Estimate(math.nan) for _ in range(values.shape[1])]
    means = values.mean(axis=0).tolist()
    if how.resamples == 0:
        return [Estimate(mean) for mean in means]
    tail = (1 - how.confidence) / 2
    low, high = np.quantile(_resampled_means(values, users, how), [tail, 1 - tail], axis=0).tolist()
    return [Estimate(*one) for one in zip(means, low, high, strict=True)]


def _resampled_means(
    values: npt.NDArray[np.float64], users: npt.NDArray[np.int64], how: Bootstrap
) -> npt.NDArray[np.float64]:
    """Return the means of each resample: float64 [resamples, M]."""
    counts = np.bincount(users)
    sums = np.stack([np.bincount(users, column, len(counts)) for column in values.T], axis=1)
    draws = np.random.default_rng(how.seed)
    means = np.empty((how.resamples, values.shape[1]))
    for row in range(how.resamples):  # one vector of weights at a time: memory does not grow with the resamples
        weights = np.bincount(draws.integers(len(counts), size=len(counts)), minlength=len(counts))
        means[row] = weights @ sums / (weights @ counts)
    return means
