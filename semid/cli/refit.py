"""semid refit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from semid.cli.app import folder_argument, json_option, nearest_folder, open_ids, print_json, say
from semid.cli.fit import guidance_of, guidance_options, sizes_option


@click.command()
@folder_argument
@click.argument("items", type=click.Path(allow_dash=True, readable=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="Folder to write.")
@click.option(
    "--learn",
    type=click.Choice(["warm", "fresh"]),
    default="warm",
    show_default=True,
    help="Go on from the old codebooks with the old encoder, or learn everything again.",
)
@click.option(
    "--align/--no-align", default=True, show_default=True, help="Name new codes after the old ones with their items."
)
@click.option("--keep-prefix", default=0, show_default=True, type=click.IntRange(0), help="Leading levels that stay.")
@click.option(
    "--slack",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0),
    help="How much farther an old code may be and be kept, as a share of a level's error; 0: the nearest code.",
)
@click.option("--id-field", default="id", show_default=True, help="Field with the item's id.")
@click.option(
    "--embeddings", type=click.Path(path_type=Path, readable=False), help="Ready vectors, if the IDs come from such."
)
@click.option("--levels", type=int, help="Codes per item, with --learn fresh. Default: as before.")
@click.option("--codebook-size", callback=sizes_option, help="Codes per level, with --learn fresh. Default: as before.")
@click.option("--interactions", type=click.Path(readable=False), help="User histories to align with.")
@guidance_options
@click.option("--device", help="auto (default), cpu, cuda, ...")
@click.option("--memory", help="What semid may hold in memory: 4GB, 800MB. Default: 60 % of the machine's.")
@click.option("--force", is_flag=True, help="Replace the artifact in an existing folder.")
@json_option
@click.pass_context
def refit(
    ctx: click.Context,
    folder: Path,
    items: str,
    output: Path,
    learn: str,
    align: bool,
    keep_prefix: int,
    slack: float,
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
    """Learn IDs again for a changed catalog, so that tokens keep their meaning.

    ITEMS is the new catalog, all of it. DIR stays as it is. The new folder also holds remap.tsv: for each item
    the old ID, the new one, and how many of its first codes are the same.

    With --learn fresh, IDs may be aligned with behavior or a language model, as in `semid fit`.

    \b
    Examples:
      semid refit my-sid items.jsonl -o my-sid-2
      semid refit my-sid items.jsonl -o my-sid-2 --keep-prefix 1
      semid refit my-sid items.jsonl -o my-sid-2 --learn fresh --codebook-size 512
      semid refit my-sid items.jsonl -o my-sid-2 --learn fresh --interactions log.jsonl --fuse-behavior 1.5
    """
    from semid.artifact.store import check_output
    from semid.evaluation.churn import remap_lines
    from semid.pipeline.refit import refit as run
    from semid.pipeline.refit import settings_of
    from semid.runtime.progress import watched

    check_output(output, force=force)
    guidance = guidance_of(choices)
    if interactions and not guidance.uses_interactions:
        raise click.UsageError("--interactions go with --fuse-behavior or --align-collaborative. Give one of them too.")
    old = open_ids(folder)
    given = {"levels": levels, "codebook_size": codebook_size, "device": device}
    new, churn = run(
        old,
        items,
        embeddings=embeddings,
        config=dataclasses.replace(settings_of(old), **{name: value for name, value in given.items() if value}),
        guidance=guidance,
        interactions=interactions,
        id_field=id_field,
        progress=watched() and not ctx.obj["quiet"],
        say=lambda line: say(ctx, line),
        memory=memory,
        folder=nearest_folder(output),
        learn=learn,
        align=align,
        keep_prefix=keep_prefix,
        slack=slack,
    )
    fingerprint = new.save_pretrained(output, force=force, tables={"remap.tsv": remap_lines(old, new)})
    say(ctx, f"saved       {output}")
    if as_json:
        dropped = {"dropped_guidance": new.provenance["refit"]["dropped_guidance"]}
        print_json({"folder": str(output), "fingerprint": fingerprint} | churn.to_dict() | dropped)
    else:
        click.echo("\n".join([*churn.lines(), fingerprint]))
