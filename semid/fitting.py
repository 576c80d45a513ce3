"""The main job, step by step: a catalogue in, a `SemanticIDTokenizer` out.

    read -> sort by id -> embed -> learn -> encode -> assign -> judge

Sorting comes first: from there on the order of the input cannot matter.

Of more than 200,000 items a seeded sample is learnt from; all the rest goes block by block, with two tables of the
catalogue's size: vectors and latents. They lie in memory while the budget has room for them, else in unnamed files.
The budget decides that and nothing more: the result is the same, bit for bit.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.assign.capacity import check_capacity
from semid.assign.ledger import Ledger
from semid.assign.parts import MANY_ITEMS, assign_in_parts
from semid.catalog import Items, read_items
from semid.config import SemanticIDConfig
from semid.distributed import share
from semid.embedding import embed, encoder_name, given_vectors
from semid.encoding import Encoded, encode_table, error_statistics, sample_rows
from semid.errors import ConfigError
from semid.evaluate import evaluate
from semid.fusion import from_text_alone
from semid.grammar import hint_on_bytes
from semid.guidance import Guidance
from semid.memory import Budget, in_words
from semid.progress import bar
from semid.quality import Distortion, Quality
from semid.quantize.codebooks import Codebooks, chosen_backend
from semid.quantize.lloyd_gpu import rounds_on
from semid.stages import Stages
from semid.tables import RowTable, Tables
from semid.vocabulary import Vocabulary

if TYPE_CHECKING:
    from semid.assign.unique import Assignment
    from semid.quantize.guides import Guide
    from semid.quantize.residual_kmeans import Learner

__all__ = [
    "balanced",
    "check_device",
    "embed",
    "encoder_name",
    "exact_device",
    "finite_values",
    "fit",
    "for_items_to_come",
    "give_room",
    "given_vectors",
    "judge",
    "learn_codebooks",
    "learner_for",
    "library_versions",
]

log = logging.getLogger("semid")

Say = Callable[[str], object]

SAMPLE = 200_000  # items to learn from, at most
LATENT_DIM = 192  # of the learners, unless the config names another
# Bytes that learning takes at its peak: libraries and networks, and per number of a vector and of a latent.
LEARNING = 900_000_000
LEARNING_PER_INPUT = 24
LEARNING_PER_LATENT = 30
CODES_PER_ITEM = 500  # of all items: keys while they are made unique, and their text while it is written


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
) -> dict[str, Any]:
    """Run all steps; returns what `SemanticIDTokenizer` is made from. `say` hears one line per step.

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
        say(f"learnt      {_learnt_in_words(config, training, len(items))}")
        stages.lap("learn")
        encoded = _encode(codebooks, inputs, config, progress, tables)
        codebooks, statistics = for_items_to_come(codebooks, encoded, inputs, vectors, config, progress, tables)
        stages.lap("encode")
        assignment = _assign(encoded.latents, encoded.codes, codebooks, config.assign)
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
    return {
        "config": config,
        "vocabulary": vocabulary,
        "ledger": Ledger.create(items.ids, assignment.codes, texts if config.store_text else None),
        "codebooks": codebooks,
        "encoder_state": encoder_state,
        "text_fields": list(items.fields),
        "provenance": provenance,
        "fit_statistics": statistics,
    }


def _embed(
    items: Items,
    config: SemanticIDConfig,
    embeddings: Any,
    progress: bool,
    tables: Tables,
    budget: Budget,
    extra_dims: int = 0,
) -> tuple[RowTable, tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """`embed`, with as much room for tables as the budget leaves; ConfigError before the work if there is none."""
    prepare = give_room(tables, budget, len(items), config, extra_dims)
    vectors, arrays, meta = embed(items, config, embeddings, progress, tables=tables, prepare=prepare)
    if tables.on_disk:
        log.info("no room for vectors in memory: %s of them lie in a file", in_words(tables.on_disk))
    return vectors, (arrays, meta)


def give_room(
    tables: Tables, budget: Budget, n_items: int, config: SemanticIDConfig, extra_dims: int = 0
) -> Callable[..., None]:
    """What `embed` tells how wide the vectors will be: it gives the tables the room that the budget then leaves.

    ConfigError if there is none.
    """

    def prepare(dim: int, to_fit: int = 0) -> None:
        need = max(to_fit, memory_to_learn(n_items, dim + extra_dims, config))
        tables.room = budget.room(need, f"learning from {min(n_items, SAMPLE):,} items")

    return prepare


def learn_codebooks(
    vectors: RowTable, config: SemanticIDConfig, progress: bool, guides: Sequence[Guide] = ()
) -> tuple[Codebooks, Any]:
    """Codebooks, and what the learner says of its training (None where it does not train)."""
    rows = sample_rows(len(vectors), SAMPLE, config.seed)
    seen = vectors[:] if rows is None else vectors[rows]
    with rounds_on(learning_device(config)):
        learner = learner_for(config, verbose=progress)
        if guides:
            learner.fit(seen, guides=guides if rows is None else [guide.take(rows) for guide in guides])
        else:
            learner.fit(seen[share(len(seen))])
    codebooks = learner.codebooks_
    if config.uniform == "catalogue":
        codebooks = balanced(codebooks, seen, exact_device(config.device))
    return codebooks, getattr(learner, "training_", None)


def _encode(
    codebooks: Codebooks, vectors: RowTable, config: SemanticIDConfig, progress: bool, tables: Tables
) -> Encoded:
    device = exact_device(config.device)
    with bar("encode", len(vectors), shown=progress) as advance:
        return encode_table(codebooks, vectors, tables, beam=config.encode_beam, device=device, advance=advance)


def for_items_to_come(
    codebooks: Codebooks,
    encoded: Encoded,
    inputs: RowTable,
    vectors: RowTable,
    config: SemanticIDConfig,
    progress: bool,
    tables: Tables,
) -> tuple[Codebooks, dict[str, np.ndarray]]:
    """The codebooks to keep, for vectors of text alone, and the errors that those of later items are compared with.

    Codebooks learnt from other `inputs` than the vectors get an encoder that predicts their latents from text.
    """
    if inputs is not vectors:
        codebooks = from_text_alone(codebooks, vectors, encoded.latents, seed=config.seed)
        encoded = _encode(codebooks, vectors, config, progress, tables)
    return codebooks, error_statistics(encoded, codebooks)


def memory_to_learn(n_items: int, dim: int, config: SemanticIDConfig) -> int:
    """Bytes that the steps after reading take at most beside what is held already and the tables; measured."""
    n_sampled = min(n_items, SAMPLE)
    latent = min(dim, config.dim or LATENT_DIM)
    learning = LEARNING + n_sampled * (dim * LEARNING_PER_INPUT + latent * LEARNING_PER_LATENT)
    return max(learning, CODES_PER_ITEM * n_items)


def learner_for(config: SemanticIDConfig, *, verbose: bool = False) -> Learner:
    """The learner that a config asks for, with every choice that the config makes."""
    chosen: dict[str, Any] = {
        "levels": len(config.sizes),
        "codebook_size": config.codebook_size,
        "seed": config.seed,
    }
    if config.dim is not None:
        chosen["dim"] = config.dim
    if config.method == "rqkmeans":
        from semid.quantize.residual_kmeans import ResidualKMeans

        return ResidualKMeans(**chosen)
    if config.epochs is not None:
        chosen["epochs"] = config.epochs
    chosen |= {"device": config.device, "verbose": verbose}
    if config.uniform == "off":
        chosen["epsilon"] = 0.0
    if config.method == "lc-rec":
        from semid.quantize.lcrec import LCRecRQVAE

        return LCRecRQVAE(**chosen)
    from semid.quantize.rqvae import RQVAE

    if config.epochs is not None:
        chosen["max_steps"] = None  # who names a number of epochs gets that number
    return RQVAE(**chosen)


def learning_device(config: SemanticIDConfig) -> str:
    """Where rounds of k-means run: where the training does, or for k-means alone on a GPU that was named."""
    if config.method == "rqkmeans":
        return exact_device(config.device)
    from semid.quantize.rqvae_training import pick_device

    return pick_device(config.device)


def exact_device(name: str) -> str:
    """Of all steps but training. A GPU if one was named: copying there gains nothing for what is small already."""
    return "cpu" if name == "auto" else name


def check_device(name: str) -> None:
    """ConfigError if torch cannot use the device, or what SEMID_BACKEND names cannot run there."""
    if name != "auto":
        import torch

        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError, ImportError) as error:  # an unknown name, or a torch built without it
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"device={name!r} cannot be used here ({reason}). Use auto or cpu.") from None
    chosen_backend("auto", exact_device(name))


def _read(source: Any, config: SemanticIDConfig, id_field: str, progress: bool) -> tuple[Items, list[str]]:
    warnings: list[str] = []
    text = list(config.text) if config.text is not None else None
    items = read_items(source, text=text, id_field=id_field, progress=progress, on_warning=warnings.append)
    return items.sorted(), warnings


def balanced(codebooks: Codebooks, vectors: npt.NDArray[np.float32], device: str) -> Codebooks:
    """Add the prices that spread the catalogue evenly over the last level's codes."""
    from semid.quantize.sinkhorn import catalogue_prices

    latents = codebooks.latents(vectors)
    codes = codebooks.encode_latents(latents, device=device)
    last = codebooks.levels[-1]
    left = latents - codebooks.quantized(codes) + last[codes[:, -1]]
    prices, error = catalogue_prices(left, last, device=device)
    log.info("catalogue-wide balance of the last level: largest column error %.3f", error)
    return Codebooks(
        codebooks.levels, codebooks.encoder, codebooks.decoder, (None,) * (len(codebooks.levels) - 1) + (prices,)
    )


def _assign(latents: RowTable, raw_codes: np.ndarray, codebooks: Codebooks, how: str) -> Assignment:
    if how == "global":
        from semid.assign.globally import assign_global

        return assign_global(latents, raw_codes, codebooks.levels)
    if len(raw_codes) >= MANY_ITEMS:
        return assign_in_parts(latents, raw_codes, codebooks.levels)
    from semid.assign.unique import assign_unique

    return assign_unique(latents, raw_codes, codebooks.levels)


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


def _learnt_in_words(config: SemanticIDConfig, training: Any, n_items: int) -> str:
    sizes = config.sizes
    said = f"{len(sizes)} x {sizes[0]} codes" if len(set(sizes)) == 1 else " x ".join(map(str, sizes)) + " codes"
    said += f", {config.method}"
    start, trained = (getattr(training, name, float("nan")) for name in ("start_error", "trained_error"))
    if np.isfinite(start) and np.isfinite(trained):
        said += f"; held-out error {start:.3f} -> {min(start, trained):.3f}"
    return said + (f"; from {SAMPLE:,} of the items" if n_items > SAMPLE else "")


def finite_values(values: dict[str, Any]) -> dict[str, Any]:
    """NaN is no JSON: None says the same."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in values.items()
    }


def library_versions() -> dict[str, str]:
    names = ("numpy", "scikit-learn", "torch", "faiss-cpu")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
