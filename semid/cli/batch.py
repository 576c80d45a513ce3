"""`semid encode --items`: the options, and the call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from semid.cli.group import print_json, say

__all__ = ["batch_options", "encode_items"]

OPTIONS = [
    click.option("--items", "source", metavar="FILE", help="Instead: a whole data set, Parquet, JSONL or CSV."),
    click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), help="Of --items: .parquet file."),
    click.option("--engine", type=click.Choice(["local", "ray"]), help="Of --items: where to work. Default: local."),
    click.option("--vectors", metavar="COLUMN", help="Of --items: a column of ready vectors, instead of the encoder."),
    click.option("--text", help="Of --items: text columns. Default: those that the IDs were learnt from."),
    click.option("--id-field", help="Of --items: field with the item's id. Default: id."),
    click.option("--batch-size", type=click.IntRange(1), help="Of --items: rows at a time. Default: 8192."),
    click.option("--concurrency", type=click.IntRange(1), help="Of --items: batches in work at once."),
    click.option("--force", is_flag=True, help="Of --items: replace an existing file."),
]  # all without a default of click's, so that `encode_items` sees what was given


def batch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `semid encode` that go with --items."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def encode_items(
    ctx: click.Context, folder: Path, items: tuple[str, ...], as_json: bool, given: dict[str, Any]
) -> bool:
    """Encode the data set that --items names; False if it was not given, and nothing done."""
    given = {name: value for name, value in given.items() if value}
    source = given.pop("source", None)
    if source is None:
        if given:
            raise click.UsageError(f"--{min(given).replace('_', '-')} goes with --items, which is missing.")
        if not items:
            raise click.UsageError("give items, - for standard input, or --items FILE.")
        return False
    if items:
        raise click.UsageError(f"{items[0]!r} and --items were both given. Give one of them.")
    if "output" not in given:
        raise click.UsageError("--items needs -o FILE.parquet.")

    from semid.batch import BatchEncoder
    from semid.encode_file import encode_file
    from semid.progress import watched

    text = given.pop("text", None)
    encoder = BatchEncoder(
        folder,
        id_field=given.pop("id_field", "id"),
        vectors=given.pop("vectors", None),
        text=None if text is None else [name.strip() for name in text.split(",")],
    )
    done = encode_file(encoder, source, progress=watched() and not ctx.obj["quiet"], **given)
    say(ctx, f"encoded     {done.n_items:,} rows, {done.n_known:,} of them items of the catalogue")
    if as_json:
        print_json({"output": str(done.path), "items": done.n_items, "known": done.n_known})
    else:
        click.echo(str(done.path))
    return True
