"""semid refit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid.cli.app import (
    device_option,
    folder_argument,
    json_option,
    memory_option,
    nearest_folder,
    open_ids,
    output_option,
    print_json,
    ready_vectors_option,
)
from semid.cli.fit import signal_options, signals_of, sizes_option
from semid.cli.reading import Files, reading_options

if TYPE_CHECKING:
    from semid.pipeline.relearn import Init


@click.command()
@folder_argument
@click.argument("items", type=click.Path(allow_dash=True, readable=False))
@output_option
@click.option(
    "--init",
    type=click.Choice(["warm", "scratch"]),
    default="warm",
    show_default=True,
    help="warm: continue from the old codebooks and encoder; scratch: train from scratch.",
)
@click.option(
    "--match-codes/--no-match-codes",
    default=True,
    show_default=True,
    help="Give each new code the number of the old code that shares the most items with it.",
)
@click.option(
    "--keep-prefix", default=0, show_default=True, type=click.IntRange(0), help="Number of leading levels to freeze."
)
@click.option(
    "--keep-tolerance",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0),
    help="Keep an item's old code if it is at most this share of the level's error worse than the nearest code.",
)
@reading_options("items", "interactions", text="those of the fit; others with --init scratch")
@ready_vectors_option
@click.option("--levels", type=int, help="Codes per item, with --init scratch. Default: as before.")
@click.option(
    "--codebook-size", callback=sizes_option, help="Codes per level, with --init scratch. Default: as before."
)
@click.option("--interactions", type=click.Path(readable=False), help="User histories for collaborative signals.")
@signal_options
@device_option
@memory_option
@click.option("--force", is_flag=True, help="Replace the artifact in an existing folder.")
@json_option
def refit(
    folder: Path,
    items: str,
    output: Path,
    init: Init,
    match_codes: bool,
    keep_prefix: int,
    keep_tolerance: float,
    text: str | None,
    embeddings: Path | None,
    levels: int | None,
    codebook_size: int | tuple[int, ...] | None,
    interactions: str | None,
    device: str | None,
    memory: str | None,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Fit IDs again for a changed catalog, so that tokens keep their meaning.

    ITEMS is the new catalog, all of it. DIR stays as it is. The new folder also holds remap.tsv: for each item
    the old ID, the new one, and how many of its first codes are the same.

    With --init scratch, training signals besides the text can be used, as in `semid fit`.

    \b
    Examples:
      semid refit my-sid items.jsonl -o my-sid-2
      semid refit my-sid items.csv -o my-sid-2 --keep-prefix 1 --delimiter semicolon
      semid refit my-sid items.jsonl -o my-sid-2 --init scratch --codebook-size 512
      semid refit my-sid items.jsonl -o my-sid-2 --init scratch --interactions log.jsonl --collaborative-fusion 1
    """
    from semid.artifact.store import check_output
    from semid.data.interaction_reader import read_interactions
    from semid.evaluation.churn import remap_lines
    from semid.pipeline.refit import check_refit, settings_of
    from semid.pipeline.refit import refit as run
    from semid.pipeline.relearn import RefitOptions
    from semid.runtime.progress import log_step

    check_output(output, force=force)
    signals, files = signals_of(choices), Files.of(choices)
    if interactions and not signals.uses_interactions:
        raise click.UsageError("--interactions requires --collaborative-fusion or --collaborative-loss.")
    source, met = files.open("items", items), files.open_interactions(interactions)
    old = open_ids(folder)
    given: dict[str, Any] = {"levels": levels, "codebook_size": codebook_size, "device": device, "text": text}
    config = dataclasses.replace(settings_of(old), **{name: value for name, value in given.items() if value})
    options = RefitOptions(init=init, match_codes=match_codes, keep_prefix=keep_prefix, keep_tolerance=keep_tolerance)
    check_refit(old, options, config, embeddings=embeddings, signals=signals, interactions=met)
    new, churn = run(
        old,
        source,
        embeddings=embeddings,
        config=config,
        signals=signals,
        interactions=None if met is None else read_interactions(met, **files.interaction_fields),
        id_field=files.id_field,
        memory=memory,
        folder=nearest_folder(output),
        **dataclasses.asdict(options),
    )
    fingerprint = new.save_pretrained(output, force=force, tables={"remap.tsv": remap_lines(old, new)})
    log_step("saved", str(output))
    if as_json:
        dropped = {"dropped_signals": new.provenance["refit"]["dropped_signals"]}
        print_json({"folder": str(output), "fingerprint": fingerprint} | churn.to_dict() | dropped)
    else:
        click.echo("\n".join([*churn.summary(), fingerprint]))
