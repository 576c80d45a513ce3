"""semid show, encode, decode: looking at IDs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from semid.cli.app import cell, folder_argument, json_option, open_ids, open_tokens, print_json, say, words

__all__ = ["batch_options", "encode_items"]


# ---- `semid encode --items`: the options, and the call.


OPTIONS = [
    click.option("--items", "source", metavar="FILE", help="Instead: a whole data set, Parquet, JSONL or CSV."),
    click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), help="Of --items: .parquet file."),
    click.option("--engine", type=click.Choice(["local", "ray"]), help="Of --items: where to work. Default: local."),
    click.option("--vectors", metavar="COLUMN", help="Of --items: a column of ready vectors, instead of the encoder."),
    click.option("--text", help="Of --items: text columns. Default: those that the IDs were learned from."),
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

    from semid.pipeline.batch_encoder import BatchEncoder
    from semid.pipeline.dataset_encoder import encode_file
    from semid.runtime.progress import watched

    text = given.pop("text", None)
    encoder = BatchEncoder(
        folder,
        id_field=given.pop("id_field", "id"),
        vectors=given.pop("vectors", None),
        text=None if text is None else [name.strip() for name in text.split(",")],
    )
    done = encode_file(encoder, source, progress=watched() and not ctx.obj["quiet"], **given)
    say(ctx, f"encoded     {done.n_items:,} rows, {done.n_known:,} of them items of the catalog")
    if as_json:
        print_json({"output": str(done.path), "items": done.n_items, "known": done.n_known})
    else:
        click.echo(str(done.path))
    return True


@click.command()
@folder_argument
@click.argument("items", metavar="ITEM...", nargs=-1, required=True)
@click.option("--neighbors", default=5, show_default=True, type=click.IntRange(0), help="How many to list.")
@json_option
def show(folder: Path, items: tuple[str, ...], neighbors: int, as_json: bool) -> None:
    """Show items: their ID, text, and the items nearest by ID.

    Of a folder of `semid clusters`, users too: their tokens, and who is nearest in their cluster.

    \b
    Examples:
      semid show my-sid B004756YJA
      semid show my-sid B004756YJA B004ZT0SSG --json
      semid show my-clusters u17
    """
    from semid.clusters.tokens import ClusterTokens
    from semid.diagnostics.describe import describe, describe_lines, describe_member_lines, describe_members

    tokens = open_tokens(folder)
    if isinstance(tokens, ClusterTokens):
        described = [one for wanted in words(items) for one in describe_members(tokens, wanted, neighbors)]
        in_lines = describe_member_lines
    else:
        described = [describe(tokens, item_id, neighbors) for item_id in words(items)]
        in_lines = describe_lines
    if as_json:
        print_json(described)
    else:
        click.echo("\n\n".join("\n".join(in_lines(one)) for one in described))


@click.command()
@folder_argument
@click.argument("items", metavar="[ITEM...|-]", nargs=-1)
@batch_options
@json_option
@click.pass_context
def encode(ctx: click.Context, folder: Path, items: tuple[str, ...], as_json: bool, **batch: Any) -> None:
    """Item ids to semantic IDs; - reads ids from standard input, one a line.

    With --items, every row of a data set, in the catalog or not: its ID, or its nearest codes.

    \b
    Examples:
      semid encode my-sid B004756YJA
      cut -f1 purchases.tsv | semid encode my-sid -
      semid encode my-sid --items new.parquet -o codes.parquet --engine ray
    """
    if encode_items(ctx, folder, items, as_json, batch):
        return
    ids, wanted = open_ids(folder), words(items)
    codes = ids.encode(wanted)
    tokens = ids.vocabulary.texts(codes)
    if as_json:
        print_json(
            [
                {"item_id": item_id, "tokens": text, "codes": row}
                for item_id, text, row in zip(wanted, tokens, codes.tolist(), strict=True)
            ]
        )
    else:
        click.echo("\n".join(f"{cell(item_id)}\t{text}" for item_id, text in zip(wanted, tokens, strict=True)))


@click.command()
@folder_argument
@click.argument("texts", metavar="'TOKENS'...|-", nargs=-1, required=True)
@json_option
def decode(folder: Path, texts: tuple[str, ...], as_json: bool) -> None:
    """Semantic IDs to item ids. Finds IDs inside any text; reports unknown and partial ones, never guesses.

    Prints one line per ID: the ID, the item, and what is wrong with it, if anything.

    \b
    Examples:
      semid decode my-sid '<s_a_183><s_b_70><s_c_232><s_d_6>'
      semid decode my-sid - < model_output.txt
    """
    from dataclasses import asdict

    ids = open_ids(folder)
    found = [one for text in words(texts) for one in ids.parse(text)]
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            note = "retired" if one.retired else one.problem
            click.echo("\t".join(map(cell, filter(None, [one.text, one.item_id or "-", note]))))
    if not found:
        raise click.ClickException("no semantic ID in the text.")
