"""semid split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semid.cli.app import json_option, open_ids, output_option, print_written
from semid.cli.reading import Files, reading_options


@click.command()
@click.argument("interactions", type=click.Path(allow_dash=True, readable=False))
@reading_options("interactions", "items", text=None)
@output_option
@click.option(
    "--split", type=click.Choice(["leave-one-out", "time", "own"]), default="leave-one-out", show_default=True,
    help="Held-out interactions: last two per user, all after a moment, or as given by n_valid/n_test.",
)  # fmt: skip
@click.option("--cuts", help="Shares of interactions before validation and test, for --split time. Default: 0.8,0.9.")
@click.option(
    "--to", help="Comma-separated layouts: jsonl, lcrec, minionerec, recbole. Default: all that fit the split."
)
@click.option("--name", default="data", show_default=True, help="Name of the data set, for names of files.")
@click.option("--items", type=click.Path(readable=False), help="The catalog, for titles in MiniOneRec's tables.")
@click.option("--title-field", default="title", show_default=True, help="Title field of --items.")
@click.option(
    "--ids", type=click.Path(path_type=Path, readable=False), help="Artifact, for IDs in MiniOneRec's tables."
)
@click.option(
    "--max-history", type=click.IntRange(1), default=20, show_default=True,
    help="Items before the held-out one, in rows of MiniOneRec and RecBole.",
)  # fmt: skip
@json_option
def split(
    interactions: str,
    output: Path,
    split: str,
    cuts: str | None,
    to: str | None,
    name: str,
    items: str | None,
    title_field: str,
    ids: Path | None,
    max_history: int,
    as_json: bool,
    **choices: Any,
) -> None:
    """Split interactions into training, validation and test, as files that other trainers read.

    \b
    jsonl       histories.jsonl, train.jsonl, valid.jsonl, test.jsonl: semid and everything else
    lcrec       NAME.inter.json: LC-Rec and LETTER, leave-one-out only
    minionerec  train/NAME.csv, valid/NAME.csv, test/NAME.csv: MiniOneRec
    recbole     NAME.train.inter, NAME.valid.inter, NAME.test.inter: RecBole

    Every trainer then has the same test items, which semid align and semid score hold out, too.

    \b
    Examples:
      semid split histories.jsonl -o parts
      semid split ratings.csv -o parts --split time --cuts 0.8,0.9 --to jsonl,recbole --name games
      semid split histories.jsonl -o parts --to minionerec --items items.jsonl --ids my-sid --max-history 10
    """
    from semid.data.interaction_reader import read_interactions
    from semid.data.items import read_items
    from semid.tokenizer_exports.alignment.config import AlignmentConfig
    from semid.tokenizer_exports.formats.split_files import write_split

    files = Files.of(choices)
    titles = None
    if items is not None:
        catalog = read_items(files.open("items", items), text=title_field, id_field=files.id_field)
        titles = dict(zip(catalog.ids, catalog.fields[title_field], strict=True))
    log = read_interactions(files.open("interactions", interactions), **files.interaction_fields)
    done = write_split(
        log,
        output,
        split=split,
        cuts=AlignmentConfig.from_dict({} if cuts is None else {"cuts": cuts}).cuts,
        layouts=None if to is None else [one.strip() for one in to.split(",")],
        name=name,
        titles=titles,
        ids=None if ids is None else open_ids(ids),
        max_history=max_history,
    )
    print_written(done, output, as_json)
