"""semid refit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from semid.cli.app import (
    device_option,
    fields_of,
    folder_argument,
    id_field_option,
    interaction_fields,
    json_option,
    memory_option,
    nearest_folder,
    open_ids,
    output_option,
    print_json,
    ready_vectors_option,
)
from semid.cli.fit import signal_options, signals_of, sizes_option


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
@id_field_option
@ready_vectors_option
@click.option("--levels", type=int, help="Codes per item, with --init scratch. Default: as before.")
@click.option(
    "--codebook-size", callback=sizes_option, help="Codes per level, with --init scratch. Default: as before."
)
@click.option("--interactions", type=click.Path(readable=False), help="User histories for collaborative signals.")
@interaction_fields
@signal_options
@device_option
@memory_option
@click.option("--force", is_flag=True, help="Replace the artifact in an existing folder.")
@json_option
def refit(
    folder: Path,
    items: str,
    output: Path,
    init: str,
    match_codes: bool,
    keep_prefix: int,
    keep_tolerance: float,
    id_field: str,
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
      semid refit my-sid items.jsonl -o my-sid-2 --keep-prefix 1
      semid refit my-sid items.jsonl -o my-sid-2 --init scratch --codebook-size 512
      semid refit my-sid items.jsonl -o my-sid-2 --init scratch --interactions log.jsonl --collaborative-fusion 1
    """
    from semid.artifact.store import check_output
    from semid.data.interaction_reader import read_interactions
    from semid.evaluation.churn import remap_lines
    from semid.pipeline.refit import refit as run
    from semid.pipeline.refit import settings_of
    from semid.runtime.progress import log_step

    check_output(output, force=force)
    signals, fields = signals_of(choices), fields_of(choices)
    if interactions and not signals.uses_interactions:
        raise click.UsageError("--interactions requires --collaborative-fusion or --collaborative-loss.")
    old = open_ids(folder)
    given: dict[str, Any] = {"levels": levels, "codebook_size": codebook_size, "device": device}
    new, churn = run(
        old,
        items,
        embeddings=embeddings,
        config=dataclasses.replace(settings_of(old), **{name: value for name, value in given.items() if value}),
        signals=signals,
        interactions=None if interactions is None else read_interactions(interactions, **fields),
        id_field=id_field,
        memory=memory,
        folder=nearest_folder(output),
        init=init,
        match_codes=match_codes,
        keep_prefix=keep_prefix,
        keep_tolerance=keep_tolerance,
    )
    fingerprint = new.save_pretrained(output, force=force, tables={"remap.tsv": remap_lines(old, new)})
    log_step("saved", str(output))
    if as_json:
        dropped = {"dropped_signals": new.provenance["refit"]["dropped_signals"]}
        print_json({"folder": str(output), "fingerprint": fingerprint} | churn.to_dict() | dropped)
    else:
        click.echo("\n".join([*churn.summary(), fingerprint]))
