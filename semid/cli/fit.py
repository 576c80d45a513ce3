"""semid fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid.cli.app import json_option, log, nearest_folder, print_quality, say

if TYPE_CHECKING:
    from semid.data.interactions import Interactions
    from semid.pipeline.signals import Guidance


GUIDANCE = (
    click.option("--fuse-behavior", "behavior", type=float, help="Weight of who met what beside the text. Default: 0."),
    click.option(
        "--align-collaborative", "collaborative", type=float, help="Weight of the loss on items met together."
    ),
    click.option("--align-llm", "llm", type=click.Path(), help="A language model's folder: a loss towards its words."),
    click.option("--align-llm-weight", "llm_weight", type=float, help="Weight of that loss. Default: 0.3."),
    click.option(
        "--split",
        type=click.Choice(["leave-one-out", "own", "all"]),
        help="What is not learned from: each user's last two (default), what n_valid and n_test say, or nothing.",
    ),
)


def guidance_options(command: Any) -> Any:
    """Adds to a command the options that `guidance_of` takes out of its choices."""
    for option in reversed(GUIDANCE):
        command = option(command)
    return command


def sizes_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | tuple[int, ...] | None:
    if value is None:
        return None
    try:
        sizes = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} should be a number, or one per level: 64,256,256,256") from None
    return sizes[0] if len(sizes) == 1 else sizes


@click.command()
@click.argument("items", type=click.Path(allow_dash=True, readable=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="Folder to write.")
@click.option("--text", help="Text fields, in order: title,brand. Default: found.")
@click.option("--id-field", default="id", show_default=True, help="Field with the item's id.")
@click.option("--encoder", help="lexical (default), or a model's folder or Hub id.")
@click.option("--pooling", type=click.Choice(["auto", "mean", "last", "eos"]), help="Of a language model's states.")
@click.option("--prompt", help="Put before every text that goes into a model.")
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path, readable=False),
    help="Ready vectors: .npy, .safetensors, .parquet, or a folder of them.",
)
@click.option("--method", type=click.Choice(["rqvae", "rqkmeans", "lc-rec"]), help="Learner. Default: rqvae.")
@click.option("--preset", type=click.Choice(["default", "lc-rec"]), help="A published recipe as it is.")
@click.option("--levels", type=int, help="Codes per item. Default: 4.")
@click.option("--codebook-size", callback=sizes_option, help="Codes per level: 256 (default), or 64,256,256,256.")
@click.option("--dim", type=int, help="Width of the latents. Default: the learner's.")
@click.option("--epochs", type=int, help="Of training. Default: the learner's.")
@click.option(
    "--uniform",
    type=click.Choice(["training", "catalog", "off"]),
    help="Where the last level's codes are balanced. Default: training.",
)
@click.option(
    "--encode-beam", type=int, help="Prefixes kept at each level when items get their codes. Default: 1, greedy."
)
@click.option(
    "--assign",
    type=click.Choice(["local", "global"]),
    help="Resolve collisions under the item's own prefix (default), or under any.",
)
@click.option("--template", help="How tokens are written: onerec (default), lcrec, rectokens, or '<{letter}_{code}>'.")
@click.option("--store-text/--no-store-text", default=None, help="Keep the items' text in the folder (default).")
@click.option("--seed", type=int, help="Default: 0.")
@click.option("--device", help="auto (default), cpu, cuda, ...")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path, readable=False), help="Settings from a JSON file."
)
@click.option("--memory", help="What semid may hold in memory: 4GB, 800MB. Default: 60 % of the machine's.")
@click.option(
    "--interactions", type=click.Path(readable=False), help="User histories, to measure the IDs against and align with."
)
@guidance_options
@click.option("--force", is_flag=True, help="Replace the artifact in an existing folder.")
@json_option
@click.pass_context
def fit(
    ctx: click.Context,
    items: str,
    output: Path,
    id_field: str,
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

    ITEMS is JSONL, CSV or Parquet (.gz too), or - for JSONL on standard input: an id and text fields per item.

    \b
    Examples:
      semid fit items.jsonl -o my-sid
      semid fit items.csv -o my-sid --text title,brand --levels 3 --codebook-size 512
      semid fit items.jsonl -o my-sid --embeddings vectors.npy --interactions histories.jsonl
      zcat items.jsonl.gz | semid fit - -o my-sid --encoder sentence-transformers/all-MiniLM-L6-v2
    """
    from semid.artifact.store import check_output
    from semid.data.interactions import read_interactions
    from semid.pipeline.fit import fit as run
    from semid.runtime.distributed import is_writer
    from semid.runtime.progress import Stages, watched
    from semid.tokenizer import SemanticIDTokenizer

    check_output(output, force=force)
    guidance = guidance_of(choices)
    config = _config(preset, config_file, choices)
    log.info("settings: %s", json.dumps(config.to_dict()))
    histories = read_interactions(interactions) if interactions else None
    stages = Stages()
    made = run(
        items,
        config,
        embeddings=embeddings,
        id_field=id_field,
        progress=watched() and not ctx.obj["quiet"],
        say=lambda line: say(ctx, line),
        memory=memory,
        folder=nearest_folder(output),
        stages=stages,
        guidance=guidance,
        interactions=interactions,
    )
    if not is_writer():
        return
    ids = SemanticIDTokenizer.of(made)
    if histories and guidance.uses_interactions:
        histories = _unseen(histories, guidance, interactions)
    known = histories.map_to(ids.item_ids) if histories else None
    if known is not None and known.n_unknown == len(known.rows):
        log.warning("%s: none of its items is in the catalog. Are the ids the same?", interactions)
    quality = ids.quality(histories=known)  # before saving: an interrupt until there leaves nothing behind
    fingerprint = ids.save_pretrained(output, force=force)
    say(ctx, f"saved       {output}")
    stages.lap("save")
    print_quality(quality, as_json, {"folder": str(output), "fingerprint": fingerprint})


def guidance_of(choices: dict[str, Any]) -> Guidance:
    """The options of alignment, taken out of the choices."""
    from semid.pipeline.signals import Guidance

    names = ("behavior", "collaborative", "llm", "llm_weight", "split")
    given = {name: choices.pop(name) for name in names}
    if given["llm"] is None and given["llm_weight"] is not None:
        raise click.UsageError("--align-llm-weight is of --align-llm. Give the model's folder too.")
    return Guidance(**{name: value for name, value in given.items() if value is not None})


def _unseen(histories: Interactions, guidance: Guidance, source: str) -> Interactions:
    """The histories to measure with: the part that was not learned from, if there is any."""
    from semid.data.splits import training_edges
    from semid.pipeline.signals import unseen_interactions

    unseen = unseen_interactions(histories, training_edges(histories, guidance.split, source=source))
    if len(unseen.items) == 0:
        log.warning("sequence_lift is of the interactions that were learned from: split=all keeps none apart.")
        return histories
    log.info("sequence_lift is of the %d interactions that were not learned from", len(unseen.items))
    return unseen


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
