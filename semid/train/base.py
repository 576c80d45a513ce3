"""The base of all learners: scikit-learn's handling of parameters, and `transform`."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.quantize.checks import check_vectors
from semid.quantize.codebooks import Codebooks

__all__ = ["Learner"]


@dataclasses.dataclass(kw_only=True, eq=False)
class Learner:
    """Learn codebooks from vectors, by scikit-learn's conventions.

    The constructor stores its keywords untouched, `fit` returns self, and what was learned ends in an underscore. A
    subclass is a dataclass: its fields are the parameters.

    Attributes
    ----------
    codebooks_ : Codebooks
        After `fit`.
    n_features_in_ : int
        D of the vectors; after `fit`.
    """

    codebooks_: Codebooks = dataclasses.field(init=False, repr=False)
    n_features_in_: int = dataclasses.field(init=False, repr=False)

    @classmethod
    def _names(cls) -> list[str]:
        return sorted(field.name for field in dataclasses.fields(cls) if field.init)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's keywords by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Change constructor keywords and return self; ConfigError for an unknown one."""
        for name, value in params.items():
            if name not in self._names():
                raise ConfigError(f"{name!r} is no parameter of {type(self).__name__}. It has: {self._names()}")
            setattr(self, name, value)
        return self

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Learn `codebooks_` from vectors [N, D] and return self."""
        raise TypeError(f"{type(self).__name__} does not say how to fit.")

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the codes of vectors [N, D], int32 [N, L]; they may collide."""
        if not hasattr(self, "codebooks_"):
            raise ConfigError(f"This {type(self).__name__} is not fitted yet. Call fit first.")
        return self.codebooks_.encode(check_vectors(X))

    def fit_transform(self, X: npt.ArrayLike, y: object = None) -> npt.NDArray[np.int32]:
        """Fit, then return the codes of the same vectors."""
        return self.fit(X, y).transform(X)
