"""Learning again for a changed catalog, so that tokens keep their meaning.

    read -> compare with the old catalog -> embed -> learn -> rename -> encode -> assign -> judge, and count the churn

What was learned beside the text (`signals.py`) is not kept in an artifact: it can be learned again with everything
else, or is given up, and then the report says so.

What a language model has learned about a token is about the items that had it. How that is kept is in `relearn`, how
far it went is what `churn` counts. The result is an artifact of its own, generation 0: what the old one published
stays as it is.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.assign.capacity import check_capacity
from semid.assign.unique import Assignment
from semid.config import SemanticIDConfig
from semid.data.interaction_reader import read_interactions
from semid.data.items import Items
from semid.data.unknown_items import check_known_items, look_alike
from semid.errors import ConfigError, InputError
from semid.evaluation.churn import Churn, gone_rows
from semid.evaluation.quality import Distortion, Quality
from semid.files.problems import quote
from semid.pipeline.embed import embed, embed_as_before, encoder_name
from semid.pipeline.encode import text_only_codebooks
from semid.pipeline.learn import check_device, reserve_memory
from semid.pipeline.provenance import finish
from semid.pipeline.read import read_catalog
from semid.pipeline.relearn import RefitOptions, RefitStep
from semid.pipeline.signals import Signals, options_of
from semid.quantize.codebooks import Codebooks
from semid.runtime.memory import Budget
from semid.runtime.progress import log_step
from semid.runtime.tables import RowTable, Tables
from semid.state import EncoderState, State, TokenizerState
from semid.tokens.vocabulary import Vocabulary
from semid.train.keep_codes import NO_CODE

__all__ = ["check_refit", "refit", "settings_of"]

logger = logging.getLogger("semid")


def refit(
    old: State,
    items: Any,
    *,
    embeddings: Any = None,
    config: SemanticIDConfig | None = None,
    signals: Signals | None = None,
    interactions: Any = None,
    id_field: str = "id",
    memory: str | int | None = None,
    folder: Path | None = None,
    **options: Any,
) -> tuple[State, Churn]:
    """Learn IDs for a catalog that has changed since `old` was made, and count what changed for its items.

    Parameters
    ----------
    old : TokenizerState
        The artifact to start from; it stays as it is. The result is of the same class.
    items : path, "-", `datasets.Dataset`, iterable of dicts, or Items
        The new catalog, all of it; see `read_items`. A `RecordFile` is a path together with how to read it.
    embeddings : path or array [N, D], optional
        Ready vectors for it, as in `fit`, where `old` was learned from ready vectors.
    config : SemanticIDConfig, optional
        Other settings, with `init="scratch"`; by default those of `old`.
    signals, interactions : optional
        Training signals besides the text, with `init="scratch"`; as in `fit`.
    id_field, memory, folder
        As in `fit`.
    **options
        init, match_codes, keep_prefix, keep_tolerance; see `semid.pipeline.relearn.RefitOptions`.

    Raises
    ------
    InputError, ConfigError, CapacityError
        Before anything is learned, with the place and the fix.

    >>> from semid import SemanticIDTokenizer
    >>> shop = [{"id": str(n), "title": f"{c} {t}"} for n, (c, t) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> old = SemanticIDTokenizer.fit(shop, levels=2, codebook_size=4)
    >>> new, churn = refit(old, shop[1:] + [{"id": "9", "title": "blue scarf"}])
    >>> len(new), churn.surviving, churn.new, churn.gone
    (9, 8, 1, 1)
    """
    wanted, signals = RefitOptions(**options), signals or Signals()
    check_refit(old, wanted, config, embeddings=embeddings, signals=signals, interactions=interactions)
    warm, config = wanted.init == "warm", config or settings_of(old)
    dropped = _dropped(old, signals)
    same_tokens = (config.sizes, config.template) == (old.sizes, old.vocabulary.template)
    vocabulary = old.vocabulary if same_tokens else Vocabulary(config.sizes, config.template)
    budget = Budget(memory)

    log = None if interactions is None else read_interactions(interactions)
    training_log = signals.training_interactions(log)
    known = old.text_fields if warm else None  # an encoder that stays knows its fields
    catalog = read_catalog(items, known or config.text, id_field)
    if log is not None:
        check_known_items(log, catalog.ids, fate="they get no ID")
    check_capacity(len(catalog), config.sizes)
    old_codes, n_gone = _old_codes(old, catalog)
    step = RefitStep(old_codes, old.sizes, old.codebooks if warm else None, config, wanted)
    n_new = int((~step.survives).sum())
    log_step("compared", f"{len(catalog) - n_new:,} survive, {n_new:,} are new, {n_gone:,} are gone")

    with Tables(room=0, folder=folder) as tables:
        prepare = reserve_memory(tables, budget, len(catalog), config, signals.extra_dims)
        if warm:
            vectors, encoder_state = embed_as_before(old, catalog, embeddings, tables=tables, prepare=prepare)
        else:
            vectors, encoder_state = embed(catalog, config, embeddings, tables=tables, prepare=prepare)
        log_step("embedded", f"{vectors.shape[1]} dims, {encoder_name(encoder_state[1])}")
        inputs, targets = signals.inputs(catalog, vectors, training_log, tables, seed=config.seed)
        if signals:
            log_step("signals", signals.describe(training_log))
        codebooks, training = step.learn(inputs, targets)
        codebooks, encoded = step.encode(codebooks, inputs, tables)
        matched = "matched with the old ones" if wanted.match_codes else "named anew"
        log_step("learned", f"init {wanted.init}; codes {matched}")
        codebooks, statistics = text_only_codebooks(codebooks, encoded, inputs, vectors, config, tables)
        assignment = step.assign(codebooks, encoded)
        certificate = assignment.certificate
        log_step(
            "assigned", f"{certificate.n_unique:,} distinct IDs; {certificate.raw_collisions:,} collisions resolved"
        )
        state, quality = finish(
            catalog, config, vocabulary, codebooks, assignment,
            raw_codes=encoded.codes, vectors=vectors, encoder_state=encoder_state, statistics=statistics,
            training=training, signals=signals,
        )  # fmt: skip
        before = old.codebooks if _same_space(old, encoder_state) else None
        churn = _churn(step, assignment, n_gone, vectors, before, quality)
    noted = {"of": old.fingerprint} | asdict(wanted) | {"dropped_signals": dropped, "churn": churn.to_dict()}
    state.provenance["refit"] = noted
    return type(old).of(state), churn


def settings_of(old: TokenizerState) -> SemanticIDConfig:
    """Return the settings that a refit starts from: those of the fit, or defaults with the tokens of imported IDs."""
    return old.config or SemanticIDConfig(codebook_size=old.sizes, template=old.vocabulary.template)


def check_refit(
    old: TokenizerState,
    options: RefitOptions,
    config: SemanticIDConfig | None,
    *,
    embeddings: Any = None,
    signals: Signals,
    interactions: Any = None,
) -> None:
    """Check what can be checked before anything is read; `refit` does so first. Parameters as there.

    Raises
    ------
    ConfigError
        The artifact lacks what to start from, is given what it cannot use, or settings do not go together.
    """
    _check_start(old, config, embeddings, signals, warm=options.init == "warm")
    config = config or settings_of(old)
    options.check(config)
    signals.check(config, interactions=interactions is not None)
    check_device(config.device)


def _check_start(
    old: TokenizerState, config: SemanticIDConfig | None, embeddings: Any, signals: Signals, *, warm: bool
) -> None:
    """ConfigError if the artifact lacks what to start from, or is given what it cannot use."""
    scratch = "Use init='scratch' (--init scratch)"
    ready = old.encoder_kind == "vectors"
    if warm and signals:
        raise ConfigError(f"signals: continued codebooks take text vectors alone and are not trained. {scratch}.")
    if warm and not old.is_fitted:
        raise ConfigError(
            f"These IDs were imported from {old.imported_from}: there are no codebooks to continue from. {scratch}."
        )
    if warm and config is not None and replace(config, device="auto") != replace(settings_of(old), device="auto"):
        raise ConfigError(f"config: other settings need other codebooks. {scratch}, or leave them out.")
    if ready and embeddings is None:
        raise ConfigError("These IDs were learned from ready vectors. Give embeddings of the new catalog.")
    if warm and not ready and embeddings is not None:
        raise ConfigError(
            "embeddings: these IDs have an encoder of their own, and its codebooks take its vectors alone. "
            f"Leave embeddings out. Or train from scratch: {scratch}."
        )


def _dropped(old: TokenizerState, signals: Signals) -> dict[str, Any] | None:
    """Warn of the training signals that the old IDs have and the new ones will not; return them, or None."""
    noted = old.provenance.get("signals")
    if signals or not isinstance(noted, dict):
        return None
    logger.warning(
        "these IDs were fitted with training signals besides the text, which this refit drops. To keep them, add: "
        "--init scratch %s",
        options_of(noted),
    )
    return noted


def _old_codes(old: TokenizerState, items: Items) -> tuple[npt.NDArray[np.int32], int]:
    """Return the codes that the items had, int32 [N, L], and how many live items are gone."""
    rows = old.ledger.find_rows(items.ids)
    survives = rows >= 0
    if not survives.any():
        here, there = look_alike(items.ids, old.ledger.item_ids)
        raise InputError(
            f"{items.source}: none of its {len(items):,} items is in the artifact: {quote(here)} here, for instance, "
            f"and {quote(there)} there. Name the id field with --id-field. For another catalog, use semid fit."
        )
    codes = np.full((len(items), len(old.sizes)), NO_CODE, np.int32)
    codes[survives] = old.ledger.codes_of(rows[survives])
    return codes, len(gone_rows(old, rows))


def _same_space(old: TokenizerState, encoder_state: EncoderState) -> bool:
    """Whether the vectors mean to the old codebooks what those did that they were learned from."""
    (arrays, described), (new_arrays, new_described) = old.encoder_state, encoder_state
    if not old.is_fitted or described != new_described or arrays.keys() != new_arrays.keys():
        return False
    return all(np.array_equal(arrays[name], new_arrays[name]) for name in arrays)


def _churn(
    step: RefitStep,
    assignment: Assignment,
    n_gone: int,
    vectors: RowTable,
    old: Codebooks | None,
    quality: Quality,
) -> Churn:
    """`old` are the old codebooks, if they know the vectors."""
    before = after = None
    if (told := quality.distortion) is not None and told.relative_to_variance:
        variance = told.final / told.relative_to_variance
        after = None if told.raw is None else told.raw / variance
        if old is not None:
            found = Distortion.of(vectors, final=lambda rows: old.reconstruct(old.encode(vectors[rows])))
            before = found.final / variance
    survives = step.survives
    return Churn.of(
        step.old_codes[survives],
        assignment.codes[survives],
        n_new=int((~survives).sum()),
        n_gone=n_gone,
        distortion_before=before,
        distortion_after=after,
    )
