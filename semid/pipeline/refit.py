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
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.assign.capacity import check_capacity
from semid.assign.unique import Assignment
from semid.config import SemanticIDConfig
from semid.data.items import Items, read_items
from semid.errors import ConfigError, InputError
from semid.evaluation.churn import Churn, gone_rows
from semid.evaluation.quality import Distortion, Quality
from semid.ledger.ledger import Ledger
from semid.pipeline.embed import embed, encoder_name, given_vectors
from semid.pipeline.encode import for_items_to_come
from semid.pipeline.learn import check_device, give_room
from semid.pipeline.provenance import finite_values, judge, library_versions
from semid.pipeline.relearn import Choices, Relearning
from semid.pipeline.signals import Guidance, options_of
from semid.quantize.codebooks import Codebooks
from semid.runtime.memory import Budget
from semid.runtime.progress import bar
from semid.runtime.tables import RowTable, Tables
from semid.state import EncoderState, State, TokenizerState
from semid.tokens.vocabulary import Vocabulary
from semid.train.keep_codes import NO_CODE

__all__ = ["refit", "settings_of"]

log = logging.getLogger("semid")

Say = Callable[[str], object]


def refit(
    old: State,
    items: Any,
    *,
    embeddings: Any = None,
    config: SemanticIDConfig | None = None,
    guidance: Guidance | None = None,
    interactions: Any = None,
    id_field: str = "id",
    progress: bool = False,
    say: Say = log.info,
    memory: str | int | None = None,
    folder: Path | None = None,
    **choices: Any,
) -> tuple[State, Churn]:
    """Learn IDs for a catalog that has changed since `old` was made, and count what changed for its items.

    Parameters
    ----------
    items : the new catalog, all of it; see `semid.read_items`.
    embeddings : ready vectors for it, as in `fit`, where `old` was learned from ready vectors.
    config : other settings, with `learn="fresh"`; by default those of `old`.
    guidance, interactions : what IDs should agree with besides the text, with `learn="fresh"`; as in `fit.fit`.
    say : hears one line per step.
    memory, folder : how much memory to use, and where tables go that do not fit; as in `fit.fit`.
    choices : learn, align, keep_prefix, slack; see `semid.pipeline.relearn.Choices`.

    Raises
    ------
    InputError, ConfigError, CapacityError
        Before anything is learned, with the place and the fix.

    >>> shop = [{"id": str(n), "title": f"{c} {t}"} for n, (c, t) in enumerate(
    ...     (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
    >>> old = SemanticIDTokenizer.fit(shop, levels=2, codebook_size=4)
    >>> new, churn = refit(old, shop[1:] + [{"id": "9", "title": "blue scarf"}])
    >>> len(new), churn.surviving, churn.new, churn.gone
    (9, 8, 1, 1)
    """
    wanted = Choices(**choices)
    warm = wanted.learn == "warm"
    guidance = guidance or Guidance()
    _check_start(old, config, embeddings, guidance, warm=warm)
    config = config or settings_of(old)
    wanted.check(config)
    edges = guidance.edges(config, interactions)
    dropped = _dropped(old, guidance)
    same_tokens = (config.sizes, config.template) == (old.sizes, old.vocabulary.template)
    vocabulary = old.vocabulary if same_tokens else Vocabulary(config.sizes, config.template)
    check_device(config.device)
    budget = Budget(memory)

    known = old.text_fields if warm else None  # an encoder that stays knows its fields
    catalog = _read(items, known or config.text, id_field, progress)
    check_capacity(len(catalog), config.sizes)
    say(f"read        {len(catalog):,} items; text from {', '.join(catalog.fields) or 'no field'}")
    old_codes, n_gone = _old_codes(old, catalog)
    start = Relearning(old_codes, old.sizes, old.codebooks if warm else None, config, wanted)
    n_new = int((~start.survives).sum())
    say(f"compared    {len(catalog) - n_new:,} survive, {n_new:,} are new, {n_gone:,} are gone")

    with Tables(room=0, folder=folder) as tables:
        room = give_room(tables, budget, len(catalog), config, guidance.extra_dims)
        vectors, encoder_state = _embed(old, catalog, config, embeddings, progress, tables, room, warm=warm)
        say(f"embedded    {vectors.shape[1]} dims, {encoder_name(encoder_state[1])}")
        inputs, guides = guidance.prepare(catalog, vectors, edges, tables, seed=config.seed, progress=progress)
        if guidance:
            say(f"aligned     with {guidance.in_words(edges)}")
        codebooks, training = start.learn(inputs, guides, verbose=progress)
        with bar("encode", len(vectors), shown=progress) as advance:
            codebooks, encoded = start.encode(codebooks, inputs, tables, advance=advance)
        say(f"learned      {wanted.learn}, {'' if wanted.align else 'not '}aligned with the old codes")
        codebooks, statistics = for_items_to_come(codebooks, encoded, inputs, vectors, config, progress, tables)
        assignment = start.assign(codebooks, encoded)
        certificate = assignment.certificate
        say(f"assigned    {certificate.n_unique:,} distinct IDs; {certificate.raw_collisions:,} collisions resolved")
        texts = catalog.texts()
        quality = judge(codebooks, encoded.codes, assignment, vectors, texts)
        before = old.codebooks if _same_space(old, encoder_state) else None
        churn = _churn(start, assignment, n_gone, vectors, before, quality)

    provenance = {
        "quality": quality.to_dict(),
        "certificate": certificate.to_dict(),
        "training": None if training is None else finite_values(asdict(training)),
        "versions": library_versions(),
        "refit": {"of": old.fingerprint} | asdict(wanted) | {"dropped_guidance": dropped, "churn": churn.to_dict()},
    }
    if guidance:
        provenance["guidance"] = guidance.to_dict()
    new = replace(
        old,
        config=config,
        vocabulary=vocabulary,
        ledger=Ledger.create(catalog.ids, assignment.codes, texts if config.store_text else None),
        learned=codebooks,
        encoder_state=encoder_state,
        text_fields=list(catalog.fields),
        provenance=provenance,
        fit_statistics=statistics,
        history=None,
    )
    return new, churn


def settings_of(old: TokenizerState) -> SemanticIDConfig:
    """The settings that a refit starts from: those of the fit, or for imported IDs the default with their tokens."""
    return old.config or SemanticIDConfig(codebook_size=old.sizes, template=old.vocabulary.template)


def _check_start(
    old: TokenizerState, config: SemanticIDConfig | None, embeddings: Any, guidance: Guidance, *, warm: bool
) -> None:
    """ConfigError if the artifact lacks what to start from, or is given what it cannot use."""
    ready = old.encoder_state[1]["kind"] == "vectors"
    if warm and guidance:
        raise ConfigError(
            "guidance: codebooks that go on know vectors of text alone, and no loss. Use learn=fresh (--learn fresh)."
        )
    if warm and not old.is_fitted:
        raise ConfigError(
            f"These IDs were imported from {old.imported_from}: there are no codebooks to go on from. Use learn=fresh."
        )
    if warm and config is not None and replace(config, device="auto") != replace(settings_of(old), device="auto"):
        raise ConfigError("config: other settings need other codebooks. Use learn=fresh, or leave them out.")
    if ready and embeddings is None:
        raise ConfigError("These IDs were learned from ready vectors. Give embeddings of the new catalog.")
    if warm and not ready and embeddings is not None:
        raise ConfigError(
            "embeddings: these IDs have an encoder of their own, and codebooks go on only with vectors that they "
            "know. Leave embeddings out, or use learn=fresh."
        )


def _dropped(old: TokenizerState, guidance: Guidance) -> dict[str, Any] | None:
    """What the old IDs were aligned with and the new ones will not be, said aloud; None if there is nothing."""
    noted = old.provenance.get("guidance")
    if guidance or not isinstance(noted, dict):
        return None
    log.warning(
        "these IDs were aligned while they were learned, and this refit gives most of that up. To keep it, add: "
        "--learn fresh %s",
        options_of(noted),
    )
    return noted


def _read(source: Any, fields: Any, id_field: str, progress: bool) -> Items:
    def warn(warning: str) -> None:
        log.warning("%s", warning)

    text = list(fields) if fields else None
    return read_items(source, text=text, id_field=id_field, progress=progress, on_warning=warn).sorted()


def _old_codes(old: TokenizerState, items: Items) -> tuple[npt.NDArray[np.int32], int]:
    """The codes that the items had, int32 [N, L], and how many live items are gone."""
    rows = old.ledger.find_rows(items.ids)
    survives = rows >= 0
    if not survives.any():
        raise InputError(
            f"{items.source}: none of its {len(items):,} items is in the artifact. Are the ids the same? "
            "For another catalog, use semid fit."
        )
    codes = np.full((len(items), len(old.sizes)), NO_CODE, np.int32)
    codes[survives] = old.ledger.codes_of(rows[survives])
    return codes, len(gone_rows(old, rows))


def _embed(
    old: TokenizerState,
    items: Items,
    config: SemanticIDConfig,
    embeddings: Any,
    progress: bool,
    tables: Tables,
    prepare: Callable[..., None],
    *,
    warm: bool,
) -> tuple[RowTable, EncoderState]:
    """Vectors of the items by the encoder that stays, or by one that the config asks for; and that encoder.

    `prepare` hears how wide they will be before the first is made.
    """
    if not warm:
        vectors, arrays, meta = embed(items, config, embeddings, progress, tables=tables, prepare=prepare)
        return vectors, (arrays, meta)
    if embeddings is not None:
        return given_vectors(items, embeddings, tables=tables, prepare=prepare), old.encoder_state
    from semid.encoders import encoder_from_state

    encoder = encoder_from_state(*old.encoder_state)
    prepare(old.codebooks.input_dim)
    table = tables.new(len(items), old.codebooks.input_dim)
    for block in encoder.blocks(items):
        table.append(block)
    return table.finish(), old.encoder_state


def _same_space(old: TokenizerState, encoder_state: EncoderState) -> bool:
    """Whether the vectors mean to the old codebooks what those did that they were learned from."""
    (arrays, described), (new_arrays, new_described) = old.encoder_state, encoder_state
    if not old.is_fitted or described != new_described or arrays.keys() != new_arrays.keys():
        return False
    return all(np.array_equal(arrays[name], new_arrays[name]) for name in arrays)


def _churn(
    start: Relearning,
    assignment: Assignment,
    n_gone: int,
    vectors: RowTable,
    old: Codebooks | None,
    quality: Quality,
) -> Churn:
    """`old` are the old codebooks, if they know the vectors."""
    told = quality.distortion
    variance = told.final / told.relative_to_variance if told.relative_to_variance else None
    before = None
    if old is not None and variance:
        before = Distortion.of(vectors, final=lambda rows: old.reconstruct(old.encode(vectors[rows]))).final / variance
    survives = start.survives
    return Churn.of(
        start.old_codes[survives],
        assignment.codes[survives],
        n_new=int((~survives).sum()),
        n_gone=n_gone,
        distortion_before=before,
        distortion_after=told.raw / variance if variance else None,
    )
