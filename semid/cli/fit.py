"""semid fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid.cli.app import (
    device_option,
    json_option,
    log,
    memory_option,
    nearest_folder,
    output_option,
    print_quality,
)
from semid.cli.reading import Files, reading_options

if TYPE_CHECKING:
    from semid.data.interactions import Interactions
    from semid.pipeline.signals import Signals


SIGNALS = (
    click.option(
        "--collaborative-fusion",
        type=float,
        help="Weight of collaborative embeddings relative to text embeddings. Default: 0.",
    ),
    click.option(
        "--collaborative-loss",
        type=float,
        help="Weight of the loss that pulls items together that users met near each other. Default: 0.",
    ),
    click.option(
        "--llm-loss",
        metavar="MODEL",
        help="Folder of an LLM: pull codebooks towards its input embeddings of the item texts.",
    ),
    click.option("--llm-loss-weight", type=float, help="Weight of that loss. Default: 0.3."),
    click.option(
        "--split",
        type=click.Choice(["leave-one-out", "own", "all"]),
        help="Held-out interactions: last two per user (default), as given by n_valid/n_test, or none.",
    ),
)


def signal_options(command: Any) -> Any:
    """Add the options of training signals to a command; `signals_of` takes them out of its choices."""
    for option in reversed(SIGNALS):
        command = option(command)
    return command


def sizes_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | tuple[int, ...] | None:
    """Parse a number, or comma-separated numbers, of codes per level."""
    if value is None:
        return None
    try:
        sizes = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} should be a number, or one per level: 64,256,256,256") from None
    return sizes[0] if len(sizes) == 1 else sizes


@click.command()
@click.argument("items", type=click.Path(allow_dash=True, readable=False))
@output_option
@reading_options("items", "interactions")
@click.option("--encoder", help="Text encoder: lexical (default), or a model's folder or Hub id.")
@click.option(
    "--pooling",
    type=click.Choice(["auto", "mean", "last", "eos"]),
    help="Pooling of a language model's hidden states. Default: auto.",
)
@click.option("--prompt", help="Text to prepend to every item's text, for encoders that expect a prompt.")
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path, readable=False),
    help="Ready vectors: .npy, .npz, .safetensors, .pt, .parquet, .jsonl, .csv, ..., or a folder; FILE#NAME for one of "
    "several arrays.",
)
@click.option("--method", type=click.Choice(["rqvae", "rqkmeans", "lc-rec"]), help="Learner. Default: rqvae.")
@click.option("--preset", type=click.Choice(["default", "lc-rec"]), help="Use the settings of a published recipe.")
@click.option("--levels", type=int, help="Codes per item. Default: 4.")
@click.option("--codebook-size", callback=sizes_option, help="Codes per level: 256 (default), or 64,256,256,256.")
@click.option("--dim", type=int, help="Dimensions of the latent space. Default: set by the method.")
@click.option("--epochs", type=int, help="Training epochs. Default: set by the method.")
@click.option(
    "--uniform",
    type=click.Choice(["training", "catalog", "off"]),
    help="When to balance the use of the last level's codes. Default: training.",
)
@click.option("--encode-beam", type=int, help="Beam width of quantization. Default: 1, greedy.")
@click.option(
    "--assign",
    type=click.Choice(["local", "global"]),
    help="Resolve collisions within the item's own prefix (default) or across all prefixes.",
)
@click.option(
    "--template", help="Token template: onerec (default), lcrec, rectokens, or your own, such as '<{letter}_{code}>'."
)
@click.option("--store-text/--no-store-text", default=None, help="Store the items' text in the folder (default).")
@click.option("--seed", type=int, help="Random seed. Default: 0.")
@device_option
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, readable=False),
    help="JSON file with settings; options override it.",
)
@memory_option
@click.option(
    "--interactions",
    type=click.Path(readable=False),
    help="User histories, for quality figures and signals.",
)
@signal_options
@click.option("--force", is_flag=True, help="Replace the artifact in an existing folder.")
@json_option
def fit(
    items: str,
    output: Path,
    embeddings: Path | None,
    preset: str | None,
    config_file: Path | None,
    memory: str | None,
    interactions: str | None,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Learn semantic IDs for a catalog.

    ITEMS is a file of records in any common format, or - for standard input: an id and text fields per item.

    \b
    Examples:
      semid fit items.jsonl -o my-sid
      semid fit items.csv -o my-sid --text title,brand --levels 3 --codebook-size 512
      semid fit movies.dat -o my-sid --columns id,title,genres --encoding latin-1
      semid fit items.jsonl -o my-sid --embeddings vectors.npy --interactions histories.jsonl
      zcat items.jsonl.gz | semid fit - -o my-sid --encoder sentence-transformers/all-MiniLM-L6-v2
    """
    from semid.artifact.store import check_output
    from semid.data.interaction_reader import read_interactions
    from semid.evaluation.advice import advise
    from semid.pipeline.fit import fit as run
    from semid.runtime.distributed import is_writer
    from semid.runtime.progress import Stages, log_step
    from semid.tokenizer import SemanticIDTokenizer

    check_output(output, force=force)
    signals, files = signals_of(choices), Files.of(choices)
    config = _config(preset, config_file, choices)
    log.info("settings: %s", json.dumps(config.to_dict()))
    source, met = files.open("items", items), files.open_interactions(interactions)
    signals.check(config, interactions=met is not None)  # before anything is read
    histories = None if met is None else read_interactions(met, **files.interaction_fields)
    made = run(
        source,
        config,
        embeddings=embeddings,
        id_field=files.id_field,
        memory=memory,
        folder=nearest_folder(output),
        signals=signals,
        interactions=histories,
    )
    if not is_writer():
        return
    ids = SemanticIDTokenizer.of(made)
    if histories is not None and signals.uses_interactions:
        histories = _held_out(histories, signals)
    known = None if histories is None else histories.map_to(ids.item_ids)
    stages = Stages()
    quality = ids.quality(histories=known)  # before saving: an interrupt until there leaves nothing behind
    fingerprint = ids.save_pretrained(output, force=force)
    log_step("saved", str(output))
    stages.lap("save")
    print_quality(quality, advise(quality, ids), as_json, {"folder": str(output), "fingerprint": fingerprint})


def signals_of(choices: dict[str, Any]) -> Signals:
    """Take the options of training signals out of the choices."""
    from semid.pipeline.signals import Signals

    names = ("collaborative_fusion", "collaborative_loss", "llm_loss", "llm_loss_weight", "split")
    given = {name: choices.pop(name) for name in names}
    if given["llm_loss"] is None and given["llm_loss_weight"] is not None:
        raise click.UsageError("--llm-loss-weight requires --llm-loss MODEL.")
    return Signals(**{name: value for name, value in given.items() if value is not None})


def _held_out(histories: Interactions, signals: Signals) -> Interactions:
    """Return the interactions to measure with: those that were held out from training, if there are any."""
    from semid.data.splits import held_out_interactions, training_interactions

    held_out = held_out_interactions(histories, training_interactions(histories, signals.split))
    if len(held_out.items) == 0:
        log.warning("sequence_lift is measured on training interactions: split=%s holds out none.", signals.split)
        return histories
    log.info("sequence_lift is measured on the %d held-out interactions", len(held_out.items))
    return held_out


def _config(preset: str | None, config_file: Path | None, choices: dict[str, Any]):
    """Preset, then the file, then the options that were given."""
    from semid.config import SemanticIDConfig
    from semid.errors import ConfigError

    merged: dict[str, Any] = {}
    if config_file is not None:
        try:
            merged = json.loads(config_file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{config_file}: is not JSON ({error}).") from None
        merged = merged.get("config", merged) if isinstance(merged, dict) else merged  # a whole semid.json will do
        if not isinstance(merged, dict):
            raise ConfigError(f"{config_file}: should be a JSON object of settings.")
    given = {name: value for name, value in choices.items() if value is not None}
    return SemanticIDConfig.preset(preset or "default", **merged | given)
