"""The last step of a fit and of a refit: judge the IDs, note how they were made, and put the state together."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.config import SemanticIDConfig
from semid.data.items import Items
from semid.evaluation.metrics import evaluate
from semid.evaluation.quality import Distortion, Quality
from semid.ledger.ledger import Ledger
from semid.pipeline.signals import Signals
from semid.quantize.codebooks import Codebooks
from semid.runtime.tables import RowTable
from semid.state import EncoderState, TokenizerState
from semid.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from semid.assign.unique import Assignment
    from semid.train.rqvae import Training

__all__ = ["finish", "finite_values", "judge", "library_versions"]


def finish(
    items: Items,
    config: SemanticIDConfig,
    vocabulary: Vocabulary,
    codebooks: Codebooks,
    assignment: Assignment,
    *,
    raw_codes: npt.NDArray[np.integer],
    vectors: RowTable,
    encoder_state: EncoderState,
    statistics: Mapping[str, npt.NDArray],
    training: Training | None,
    signals: Signals,
) -> tuple[TokenizerState, Quality]:
    """Return the state of a first generation, and how good its IDs are.

    Parameters
    ----------
    assignment : Assignment
        One ID for each of the N items, in their order.
    raw_codes : integer [N, L]
        The nearest codes, before collisions were resolved.
    vectors : RowTable, float32 [N, D]
        Vectors of the items' text, which the codebooks take.
    statistics : dict of arrays
        Quantization errors of these items, which `add` compares those of later items with.
    training : Training or None
        What the learner tells of its training.
    """
    texts = items.texts()
    quality = judge(codebooks, raw_codes, assignment, vectors, texts)
    provenance = {
        "quality": quality.to_dict(),
        "certificate": assignment.certificate.to_dict(),
        "training": None if training is None else finite_values(asdict(training)),
        "versions": library_versions(),
    }
    if signals:
        provenance["signals"] = signals.to_dict()
    state = TokenizerState(
        config=config,
        vocabulary=vocabulary,
        ledger=Ledger.create(items.ids, assignment.codes, texts if config.store_text else None),
        learned=codebooks,
        encoder_state=encoder_state,
        text_fields=list(items.fields),
        provenance=provenance,
        fit_statistics=statistics,
    )
    return state, quality


def judge(
    codebooks: Codebooks,
    raw_codes: npt.NDArray[np.integer],
    assignment: Assignment,
    vectors: RowTable,
    texts: Sequence[str],
) -> Quality:
    """Measure an assignment against vectors [N, D], which are read block by block."""
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
    """Return the values with None for NaN and infinity, which JSON does not have."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in values.items()
    }


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results hang on."""
    names = ("numpy", "scikit-learn", "torch", "faiss-cpu")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
