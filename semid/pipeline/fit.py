"""The main job, step by step: a catalog in, a `TokenizerState` out.

    read -> sort by id -> embed -> learn -> encode -> assign -> judge

Sorting comes first: from there on the order of the input cannot matter.

Of more than 200,000 items a seeded sample is learned from; all the rest goes block by block, with two tables of the
catalog's size: vectors and latents. They lie in memory while the budget has room for them, else in unnamed files.
The budget decides that and nothing more: the result is the same, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semid.assign import assign
from semid.assign.capacity import check_capacity
from semid.config import SemanticIDConfig
from semid.data.items import Items, read_items
from semid.ledger.ledger import Ledger
from semid.pipeline.embed import embed, encoder_name
from semid.pipeline.encode import _encode, for_items_to_come
from semid.pipeline.learn import _learned_in_words, check_device, give_room, learn_codebooks
from semid.pipeline.provenance import finite_values, judge, library_versions
from semid.pipeline.signals import Guidance
from semid.runtime.memory import Budget, in_words
from semid.runtime.progress import Stages
from semid.runtime.tables import RowTable, Tables
from semid.state import EncoderState, TokenizerState
from semid.tokens.templates import hint_on_bytes
from semid.tokens.vocabulary import Vocabulary

__all__ = ["fit"]


log = logging.getLogger("semid")

Say = Callable[[str], object]


def fit(
    source: Any,
    config: SemanticIDConfig,
    *,
    embeddings: Any = None,
    id_field: str = "id",
    progress: bool = False,
    say: Say = log.info,
    memory: str | int | None = None,
    folder: Path | None = None,
    stages: Stages | None = None,
    guidance: Guidance | None = None,
    interactions: Any = None,
) -> TokenizerState:
    """Run all steps and return what an artifact holds. `say` hears one line per step.

    Parameters
    ----------
    memory : "4GB" or bytes
        What the process may hold; by default 60 % of the machine's memory. ConfigError if it is too little.
    folder : Path, optional
        Where tables go that do not fit; by default the system's folder for temporary files.
    stages : Stages, optional
        Hears of the end of each step.
    guidance : Guidance, optional
        What IDs should agree with besides the text.
    interactions : path or Interactions, optional
        What the guidance learns from, of that what its split leaves for training.
    """
    guidance = guidance or Guidance()
    edges = guidance.edges(config, interactions)
    vocabulary = Vocabulary(config.sizes, config.template)
    if hint := hint_on_bytes(config.template):
        log.warning("%s", hint)
    check_device(config.device)
    budget, stages = Budget(memory), stages or Stages()
    items, warnings = _read(source, config, id_field, progress)
    for warning in warnings:
        log.warning("%s", warning)
    say(f"read        {len(items):,} items; text from {', '.join(items.fields) or 'no field'}")
    check_capacity(len(items), config.sizes)
    stages.lap("read")

    with Tables(room=0, folder=folder) as tables:
        vectors, encoder_state = _embed(items, config, embeddings, progress, tables, budget, guidance.extra_dims)
        say(f"embedded    {vectors.shape[1]} dims, {encoder_name(encoder_state[1])}")
        stages.lap("embed")
        inputs, guides = guidance.prepare(items, vectors, edges, tables, seed=config.seed, progress=progress)
        if guidance:
            say(f"aligned     with {guidance.in_words(edges)}")
            stages.lap("align")
        codebooks, training = learn_codebooks(inputs, config, progress, guides)
        say(f"learned      {_learned_in_words(config, training, len(items))}")
        stages.lap("learn")
        encoded = _encode(codebooks, inputs, config, progress, tables)
        codebooks, statistics = for_items_to_come(codebooks, encoded, inputs, vectors, config, progress, tables)
        stages.lap("encode")
        assignment = assign(encoded.latents, encoded.codes, codebooks, config.assign)
        certificate = assignment.certificate
        say(
            f"assigned    {certificate.n_unique:,} distinct IDs; {certificate.raw_collisions:,} collisions resolved by "
            f"moving {certificate.moved_items:,} items"
        )
        stages.lap("assign")
        texts = items.texts()
        quality = judge(codebooks, encoded.codes, assignment, vectors, texts)
        stages.lap("judge")
    provenance = {
        "quality": quality.to_dict(),
        "certificate": certificate.to_dict(),
        "training": None if training is None else finite_values(asdict(training)),
        "versions": library_versions(),
    }
    if guidance:
        provenance["guidance"] = guidance.to_dict()
    return TokenizerState(
        config=config,
        vocabulary=vocabulary,
        ledger=Ledger.create(items.ids, assignment.codes, texts if config.store_text else None),
        learned=codebooks,
        encoder_state=encoder_state,
        text_fields=list(items.fields),
        provenance=provenance,
        fit_statistics=statistics,
    )


def _embed(
    items: Items,
    config: SemanticIDConfig,
    embeddings: Any,
    progress: bool,
    tables: Tables,
    budget: Budget,
    extra_dims: int = 0,
) -> tuple[RowTable, EncoderState]:
    """`embed`, with as much room for tables as the budget leaves; ConfigError before the work if there is none."""
    prepare = give_room(tables, budget, len(items), config, extra_dims)
    vectors, arrays, meta = embed(items, config, embeddings, progress, tables=tables, prepare=prepare)
    if tables.on_disk:
        log.info("no room for vectors in memory: %s of them lie in a file", in_words(tables.on_disk))
    return vectors, (arrays, meta)


def _read(source: Any, config: SemanticIDConfig, id_field: str, progress: bool) -> tuple[Items, list[str]]:
    warnings: list[str] = []
    text = list(config.text) if config.text is not None else None
    items = read_items(source, text=text, id_field=id_field, progress=progress, on_warning=warnings.append)
    return items.sorted(), warnings
