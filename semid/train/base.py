"""What every learner is: vectors in, codebooks out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.quantize.checks import check_vectors
from semid.quantize.codebooks import Codebooks

__all__ = ["Learner"]


class Learner:
    """What both learners share: scikit-learn's parameter handling, `transform`, and nothing else."""

    codebooks_: Codebooks

    @classmethod
    def _names(cls) -> list[str]:
        import inspect

        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Learner:
        """Change constructor arguments; returns self."""
        for name, value in params.items():
            if name not in self._names():
                raise ConfigError(f"{name!r} is no parameter of {type(self).__name__}. It has: {self._names()}")
            setattr(self, name, value)
        return self

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Vectors [N, D] -> codes int32 [N, L]; codes may collide."""
        if not hasattr(self, "codebooks_"):
            raise ConfigError(f"This {type(self).__name__} is not fitted yet. Call fit first.")
        return self.codebooks_.encode(check_vectors(X))

    def fit_transform(self, X: npt.ArrayLike, y: object = None) -> npt.NDArray[np.int32]:
        """`fit`, then the codes of the same vectors."""
        return self.fit(X, y).transform(X)

    def fit(self, X: npt.ArrayLike, y: object = None) -> Learner:
        """Learn `codebooks_` from vectors [N, D]; returns self."""
        raise TypeError(f"{type(self).__name__} does not say how to fit.")
