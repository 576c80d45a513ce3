"""semid align."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semid.cli.app import folder_argument, json_option, open_ids, print_json, say


def _show_templates(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from semid.tokenizer_exports.alignment.templates import SHIPPED

        click.echo(SHIPPED.read_text("utf-8"), nl=False)
        ctx.exit()


@click.command()
@folder_argument
@click.argument("interactions", type=click.Path(allow_dash=True, readable=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="Folder to write.")
@click.option("--items", type=click.Path(readable=False), help="The catalog, for titles and descriptions.")
@click.option("--id-field", default="id", show_default=True, help="Field of --items with the item's id.")
@click.option("--title-field", default="title", show_default=True, help="Field of --items.")
@click.option("--description-field", help="Field of --items. Default: description, if there is one.")
@click.option("--queries", type=click.Path(readable=False), help='Searches: {"query", "item", maybe "user"}.')
@click.option("--preferences", type=click.Path(readable=False), help='What users like: {"user", "preference"}.')
@click.option("--user-tokens", type=click.Path(readable=False), help='Of `semid clusters`, or {"u1": ["<t_1>"], ...}.')
@click.option("--templates", type=click.Path(readable=False), help="Prompts to use, .toml or .json. Default: semid's.")
@click.option(
    "--show-templates",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_templates,
    help="Print semid's templates, to copy and edit, and exit.",
)
@click.option("--tasks", help="Which, with commas. Default: all that the given files allow.")
@click.option(
    "--split", type=click.Choice(["leave-one-out", "time", "own"]), default="leave-one-out", show_default=True,
    help="Held out: each user's last two items, what came after a moment, or what n_valid and n_test say.",
)  # fmt: skip
@click.option("--cuts", help="Of time: shares of interactions where training and validation end. Default: 0.8,0.9.")
@click.option(
    "--format", "format_", type=click.Choice(["trl", "messages", "alpaca"]), default="trl", show_default=True,
    help="Of a record: prompt and completion, one list of messages, or instruction and output.",
)  # fmt: skip
@click.option(
    "--negatives", type=click.Choice(["popularity", "uniform", "same-prefix"]), default="popularity", show_default=True,
    help="Where items that were not chosen come from.",
)  # fmt: skip
@click.option("--candidates", type=click.IntRange(2), default=4, show_default=True, help="Items to choose among.")
@click.option("--max-history", type=click.IntRange(1), default=20, show_default=True, help="Items shown of a history.")
@click.option("--max-text", type=click.IntRange(1), default=1000, show_default=True, help="Characters of any text.")
@click.option("--most", type=click.IntRange(1), help="Training records of a task, at random. Default: all.")
@click.option("--wordings", type=click.IntRange(1), default=1, show_default=True, help="Templates a training record.")
@click.option("--shards", type=click.IntRange(1), default=1, show_default=True, help="Training files of a task.")
@click.option("--markers", is_flag=True, help="Write IDs between the begin and the end token, where there are such.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all draws.")
@json_option
@click.pass_context
def align(
    ctx: click.Context,
    folder: Path,
    interactions: str,
    output: Path,
    cuts: str | None,
    format_: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Write training data that teaches a language model the IDs: JSON lines for TRL and other trainers.

    Tasks: next-item, text-to-id, id-to-text, fusion, negative; with their files also search and preference. Each has a
    folder with train, validation and test; README.md says what is in it. No interaction that is held out is in a
    training file.

    \b
    Examples:
      semid align my-sid histories.jsonl -o my-data --items items.jsonl
      semid align my-sid log.csv -o my-data --split time --tasks next-item,negative --shards 8
      semid align --show-templates > mine.toml
    """
    from semid.runtime.progress import watched
    from semid.tokenizer_exports.alignment.write import write_alignment

    if cuts is not None:
        given["cuts"] = cuts
    done = write_alignment(
        open_ids(folder),
        interactions,
        output,
        **given,
        format=format_,
        progress=watched() and not ctx.obj["quiet"],
        say=lambda line: say(ctx, line),
    )
    say(ctx, f"saved       {output}")
    if as_json:
        print_json(done.to_dict())
    else:
        click.echo("\n".join(done.lines()))
