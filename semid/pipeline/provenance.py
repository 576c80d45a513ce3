"""Where an artifact comes from: its figures, what training said, versions of libraries."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.evaluation.metrics import evaluate
from semid.evaluation.quality import Distortion, Quality
from semid.quantize.codebooks import Codebooks
from semid.runtime.tables import RowTable

if TYPE_CHECKING:
    from semid.assign.unique import Assignment

__all__ = ["finite_values", "judge", "library_versions"]


def judge(
    codebooks: Codebooks,
    raw_codes: npt.NDArray[np.integer],
    assignment: Assignment,
    vectors: RowTable,
    texts: Sequence[str],
) -> Quality:
    """The figures of an assignment, from vectors [N, D] that are read block by block."""
    distortion = Distortion.of(
        vectors,
        final=lambda rows: codebooks.reconstruct(assignment.codes[rows]),
        raw=lambda rows: codebooks.reconstruct(raw_codes[rows]),
    )
    return evaluate(
        assignment.codes,
        sizes=codebooks.sizes,
        raw_codes=raw_codes,
        distortion=distortion,
        texts=texts,
        vectors=vectors,
    )


def finite_values(values: dict[str, Any]) -> dict[str, Any]:
    """NaN is no JSON: None says the same."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in values.items()
    }


def library_versions() -> dict[str, str]:
    names = ("numpy", "scikit-learn", "torch", "faiss-cpu")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
