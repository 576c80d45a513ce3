"""semid align."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semid.cli.app import folder_argument, json_option, open_ids, output_option, print_written
from semid.cli.reading import Files, reading_options


def _show_templates(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from semid.tokenizer_exports.alignment.templates import SHIPPED

        click.echo(SHIPPED.read_text("utf-8"), nl=False)
        ctx.exit()


@click.command()
@folder_argument
@click.argument("interactions", type=click.Path(allow_dash=True, readable=False))
@reading_options("interactions", "items", "queries", "preferences", text=None)
@output_option
@click.option("--items", type=click.Path(readable=False), help="The catalog, for titles and descriptions.")
@click.option("--title-field", default="title", show_default=True, help="Title field of --items.")
@click.option("--description-field", help="Description field of --items. Default: description, if there is one.")
@click.option(
    "--queries", type=click.Path(readable=False), help='Search queries: {"query", "item"}, optionally "user".'
)
@click.option("--preferences", type=click.Path(readable=False), help='User preferences: {"user", "preference"}.')
@click.option(
    "--user-tokens",
    type=click.Path(readable=False),
    help='User tokens: a folder of `semid clusters`, or a file {"u1": ["<t_1>"], ...}.',
)
@click.option(
    "--templates", type=click.Path(readable=False), help="Prompt templates, .toml or .json. Default: semid's."
)
@click.option(
    "--show-templates",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_templates,
    help="Print semid's templates, to copy and edit, and exit.",
)
@click.option("--tasks", help="Comma-separated tasks. Default: all that the given files allow.")
@click.option(
    "--split", type=click.Choice(["leave-one-out", "time", "own"]), default="leave-one-out", show_default=True,
    help="Held-out interactions: last two per user, all after a moment, or as given by n_valid/n_test.",
)  # fmt: skip
@click.option("--cuts", help="Shares of interactions before validation and test, for --split time. Default: 0.8,0.9.")
@click.option(
    "--format", "format_", type=click.Choice(["trl", "messages", "alpaca"]), default="trl", show_default=True,
    help="Record format: prompt and completion, one list of messages, or instruction and output.",
)  # fmt: skip
@click.option(
    "--negatives", type=click.Choice(["popularity", "uniform", "same-prefix"]), default="popularity", show_default=True,
    help="Negative sampling: by popularity, uniform, or items that share a prefix with the right one.",
)  # fmt: skip
@click.option("--candidates", type=click.IntRange(2), default=4, show_default=True, help="Items to choose among.")
@click.option(
    "--max-history", type=click.IntRange(1), default=20, show_default=True, help="Items of a history to show."
)
@click.option(
    "--max-text", type=click.IntRange(1), default=1000, show_default=True, help="Characters of a text to show."
)
@click.option("--max-records", type=click.IntRange(1), help="Training records per task, drawn at random. Default: all.")
@click.option(
    "--templates-per-record", type=click.IntRange(1), default=1, show_default=True,
    help="Different wordings of each training record.",
)  # fmt: skip
@click.option("--shards", type=click.IntRange(1), default=1, show_default=True, help="Training files per task.")
@click.option("--markers", is_flag=True, help="Write the template's begin and end tokens around IDs.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed.")
@json_option
def align(
    folder: Path, interactions: str, output: Path, cuts: str | None, format_: str, as_json: bool, **settings: Any
) -> None:
    """Write training data that teaches a language model the IDs: JSON lines for TRL and other trainers.

    Tasks: next-item, text-to-id, id-to-text, fusion, negative; with their files also search and preference. Each task
    has a folder with train, validation and test files; README.md describes them. Training files hold no held-out
    interaction.

    \b
    Examples:
      semid align my-sid histories.jsonl -o my-data --items items.jsonl
      semid align my-sid ratings.dat -o my-data --columns interactions=user,item,rating,time --items items.jsonl
      semid align my-sid log.csv -o my-data --split time --tasks next-item,negative --shards 8
      semid align --show-templates > mine.toml
    """
    from semid.tokenizer_exports.alignment import write_alignment

    if cuts is not None:
        settings["cuts"] = cuts
    files = Files.of(settings)
    for kind in ("items", "queries", "preferences"):
        if settings[kind] is not None:
            settings[kind] = files.open(kind, settings[kind])
    done = write_alignment(
        open_ids(folder),
        files.open("interactions", interactions),
        output,
        id_field=files.id_field,
        **files.interaction_fields,
        **settings,
        format=format_,
    )
    print_written(done, output, as_json)
