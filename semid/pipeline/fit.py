"""The main job, step by step: a catalog in, a `TokenizerState` out.

    read -> sort by id -> embed -> learn -> encode -> assign -> judge

Sorting comes first: from there on the order of the input cannot matter. Each step logs one line.

Of more than 200,000 items a seeded sample is learned from; all the rest goes block by block, with two tables of the
catalog's size: vectors and latents. They lie in memory while the budget has room for them, else in unnamed files.
The budget decides that and nothing more: the result is the same, bit for bit.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from semid.assign.capacity import check_capacity
from semid.assign.choose import assign
from semid.config import SemanticIDConfig
from semid.data.interaction_reader import read_interactions
from semid.data.unknown_items import check_known_items
from semid.pipeline.embed import embed, encoder_name
from semid.pipeline.encode import encode_vectors, text_only_codebooks
from semid.pipeline.learn import check_device, learn_codebooks, learned_in_words, reserve_memory
from semid.pipeline.provenance import finish
from semid.pipeline.read import read_catalog
from semid.pipeline.signals import Signals
from semid.runtime.memory import Budget, in_words
from semid.runtime.progress import Stages, log_step
from semid.runtime.tables import Tables
from semid.state import TokenizerState
from semid.tokens.templates import hint_on_bytes
from semid.tokens.vocabulary import Vocabulary

__all__ = ["fit"]

logger = logging.getLogger("semid")


def fit(
    source: Any,
    config: SemanticIDConfig,
    *,
    embeddings: Any = None,
    id_field: str = "id",
    signals: Signals | None = None,
    interactions: Any = None,
    memory: str | int | None = None,
    folder: Path | None = None,
) -> TokenizerState:
    """Learn semantic IDs for a catalog and return all that an artifact holds.

    Parameters
    ----------
    source : path, "-", `datasets.Dataset`, iterable of dicts, or Items
        The catalog; see `read_items`. A `semid.files.RecordFile` is a path together with how to read it.
    config : SemanticIDConfig
        The settings.
    embeddings : path or array [N, D], optional
        Ready vectors in the order of the source, instead of an encoder.
    id_field : str
        Field with the item's id.
    signals : Signals, optional
        Training signals besides the text.
    interactions : path or Interactions, optional
        What the signals are learned from, of that what their split leaves for training. How many are about items that
        are not in the catalog is said in one line.
    memory : "4GB" or bytes, optional
        Memory that the process may use; by default 60 % of the machine's.
    folder : Path, optional
        Where tables go that do not fit; by default the system's folder for temporary files.

    Raises
    ------
    InputError, ConfigError, CapacityError
        Before anything is learned, with the place and the fix.
    """
    signals = signals or Signals()
    signals.check(config, interactions=interactions is not None)
    vocabulary = Vocabulary(config.sizes, config.template)
    if hint := hint_on_bytes(config.template):
        logger.warning("%s", hint)
    check_device(config.device)
    budget, stages = Budget(memory), Stages()
    log = None if interactions is None else read_interactions(interactions)
    training_log = signals.training_interactions(log)
    items = read_catalog(source, config.text, id_field)
    if log is not None:
        check_known_items(log, items.ids, fate="they get no ID")
    check_capacity(len(items), config.sizes)
    stages.lap("read")

    with Tables(room=0, folder=folder) as tables:
        prepare = reserve_memory(tables, budget, len(items), config, signals.extra_dims)
        vectors, encoder_state = embed(items, config, embeddings, tables=tables, prepare=prepare)
        if tables.on_disk:
            logger.info("no room for vectors in memory: %s of them lie in a file", in_words(tables.on_disk))
        log_step("embedded", f"{vectors.shape[1]} dims, {encoder_name(encoder_state[1])}")
        stages.lap("embed")
        inputs, targets = signals.inputs(items, vectors, training_log, tables, seed=config.seed)
        if signals:
            log_step("signals", signals.describe(training_log))
            stages.lap("signals")
        codebooks, training = learn_codebooks(inputs, config, targets)
        log_step("learned", learned_in_words(config, training, len(items)))
        stages.lap("learn")
        encoded = encode_vectors(codebooks, inputs, config, tables)
        codebooks, statistics = text_only_codebooks(codebooks, encoded, inputs, vectors, config, tables)
        stages.lap("encode")
        assignment = assign(encoded.latents, encoded.codes, codebooks, config.assign)
        certificate = assignment.certificate
        log_step(
            "assigned",
            f"{certificate.n_unique:,} distinct IDs; {certificate.raw_collisions:,} collisions resolved by "
            f"moving {certificate.moved_items:,} items",
        )
        stages.lap("assign")
        state, _ = finish(
            items, config, vocabulary, codebooks, assignment,
            raw_codes=encoded.codes, vectors=vectors, encoder_state=encoder_state, statistics=statistics,
            training=training, signals=signals,
        )  # fmt: skip
        stages.lap("judge")
    return state
