"""The main job, step by step: a catalogue in, a `SemanticIDTokenizer` out.

    read -> sort by id -> embed -> learn -> encode -> assign -> judge

Sorting comes first: from there on the order of the input cannot matter.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.assign.capacity import check_capacity
from semid.assign.ledger import Ledger
from semid.catalog import Items, read_items
from semid.config import SemanticIDConfig
from semid.errors import ConfigError, InputError
from semid.evaluate import evaluate
from semid.progress import bar
from semid.quality import Distortion, Quality
from semid.quantize.codebooks import Codebooks
from semid.strings import PackedStrings
from semid.vocabulary import Vocabulary

if TYPE_CHECKING:
    from semid.assign.unique import Assignment
    from semid.quantize.residual_kmeans import Learner

__all__ = ["fit", "learner_for"]

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
) -> dict[str, Any]:
    """Run all steps; returns what `SemanticIDTokenizer` is made from. `say` hears one line per step."""
    vocabulary = Vocabulary(config.sizes, config.template)
    check_device(config.device)
    items, warnings = _read(source, config, id_field, progress)
    for warning in warnings:
        log.warning("%s", warning)
    say(f"read        {len(items):,} items; text from {', '.join(items.fields) or 'no field'}")
    check_capacity(len(items), config.sizes)

    vectors, encoder_arrays, encoder_meta = _embed(items, config, embeddings, progress)
    say(f"embedded    {vectors.shape[1]} dims, {_encoder_name(encoder_meta)}")

    learner = learner_for(config, verbose=progress).fit(vectors)
    codebooks = _balanced(learner.codebooks_, vectors) if config.uniform == "catalogue" else learner.codebooks_
    training = getattr(learner, "training_", None)
    say(f"learnt      {_sizes_in_words(config.sizes)}, {config.method}{_training_in_words(training)}")

    with bar("encode", len(vectors), shown=progress) as advance:
        latents = codebooks.latents(vectors, advance=advance)
    raw_codes = codebooks.encode_latents(latents, beam=config.encode_beam, device=_encode_device(config))
    assignment = _assign(latents, raw_codes, codebooks, config.assign)
    certificate = assignment.certificate
    say(
        f"assigned    {certificate.n_unique:,} distinct IDs; {certificate.raw_collisions:,} collisions resolved by "
        f"moving {certificate.moved_items:,} items"
    )
    texts = items.texts()
    quality = _judge(codebooks, raw_codes, assignment, vectors, texts)
    provenance = {
        "quality": quality.to_dict(),
        "certificate": certificate.to_dict(),
        "training": None if training is None else _finite(asdict(training)),
        "versions": _versions(),
    }
    return {
        "config": config,
        "vocabulary": vocabulary,
        "ledger": Ledger.create(items.ids, assignment.codes),
        "codebooks": codebooks,
        "encoder_state": (encoder_arrays, encoder_meta),
        "texts": PackedStrings.pack(texts) if config.store_text else None,
        "provenance": provenance,
    }


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


def _encode_device(config: SemanticIDConfig) -> str:
    """A GPU if one was named: for what is small already, on the CPU, copying it there gains nothing."""
    return "cpu" if config.device == "auto" else config.device


def check_device(name: str) -> None:
    """ConfigError if torch cannot use the device; "auto" always can."""
    if name == "auto":
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:  # an unknown name; a torch that was built without it
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"device={name!r} cannot be used here ({reason}). Use auto or cpu.") from None


def _read(source: Any, config: SemanticIDConfig, id_field: str, progress: bool) -> tuple[Items, list[str]]:
    warnings: list[str] = []
    text = list(config.text) if config.text is not None else None
    items = read_items(source, text=text, id_field=id_field, progress=progress, on_warning=warnings.append)
    return items.sorted(), warnings


def _embed(
    items: Items, config: SemanticIDConfig, embeddings: Any, progress: bool
) -> tuple[npt.NDArray[np.float32], dict[str, np.ndarray], dict[str, Any]]:
    """Vectors in the items' order, and the encoder's arrays and description."""
    if embeddings is None:
        from semid.embed import make_encoder

        options = {}
        if config.encoder != "lexical":
            options = {"pooling": config.pooling, "prompt": config.prompt, "device": config.device}
        encoder = make_encoder(config.encoder, **options)
        vectors = encoder.fit_transform(items, progress=progress)
        arrays, meta = encoder.state()
        return vectors, arrays, dict(meta)
    if isinstance(embeddings, (str, Path)):
        from semid.embed.vectors import read_vectors

        in_source_order = [items.ids[row] for row in np.argsort(items.rows)]
        vectors = read_vectors(embeddings, ids=in_source_order, source=items.source).rows(items.rows)
    else:
        given = np.asarray(embeddings, np.float32)
        if given.ndim != 2 or len(given) != len(items):
            raise InputError(f"embeddings.shape={given.shape} should be ({len(items)}, D): one row per item.")
        finite = np.isfinite(given).all(axis=1)
        if not finite.all():
            bad = [items.ids[i] for i in range(len(items)) if not finite[items.rows[i]]]
            raise InputError.listing([f"embeddings: the vector of item {item!r} holds NaN or inf." for item in bad])
        vectors = given[items.rows]
    return vectors, {}, {"kind": "vectors", "dim": vectors.shape[1]}


def _balanced(codebooks: Codebooks, vectors: npt.NDArray[np.float32]) -> Codebooks:
    """Add the prices that spread the catalogue evenly over the last level's codes."""
    from semid.quantize.sinkhorn import catalogue_prices

    latents = codebooks.latents(vectors)
    codes = codebooks.encode_latents(latents)
    last = codebooks.levels[-1]
    left = latents - codebooks.quantized(codes) + last[codes[:, -1]]
    prices, error = catalogue_prices(left, last)
    log.info("catalogue-wide balance of the last level: largest column error %.3f", error)
    return Codebooks(
        codebooks.levels, codebooks.encoder, codebooks.decoder, (None,) * (len(codebooks.levels) - 1) + (prices,)
    )


def _assign(latents: np.ndarray, raw_codes: np.ndarray, codebooks: Codebooks, how: str) -> Assignment:
    if how == "global":
        from semid.assign.globally import assign_global

        return assign_global(latents, raw_codes, codebooks.levels)
    from semid.assign.unique import assign_unique

    return assign_unique(latents, raw_codes, codebooks.levels)


def _judge(
    codebooks: Codebooks,
    raw_codes: npt.NDArray[np.integer],
    assignment: Assignment,
    vectors: npt.NDArray[np.float32],
    texts: list[str],
) -> Quality:
    distortion = Distortion.of(
        vectors,
        final=codebooks.reconstruct(assignment.codes),
        raw=codebooks.reconstruct(raw_codes),
    )
    return evaluate(
        assignment.codes,
        sizes=codebooks.sizes,
        raw_codes=raw_codes,
        distortion=distortion,
        texts=texts,
        vectors=vectors,
    )


def _encoder_name(meta: dict[str, Any]) -> str:
    return {"vectors": "ready vectors"}.get(meta["kind"], str(meta.get("name", meta["kind"])))


def _sizes_in_words(sizes: tuple[int, ...]) -> str:
    return f"{len(sizes)} x {sizes[0]} codes" if len(set(sizes)) == 1 else " x ".join(map(str, sizes)) + " codes"


def _training_in_words(training: Any) -> str:
    start, trained = (getattr(training, name, float("nan")) for name in ("start_error", "trained_error"))
    if not (np.isfinite(start) and np.isfinite(trained)):
        return ""
    return f"; held-out error {start:.3f} -> {min(start, trained):.3f}"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """NaN is no JSON: None says the same."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in values.items()
    }


def _versions() -> dict[str, str]:
    names = ("numpy", "scikit-learn", "torch", "faiss-cpu")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
