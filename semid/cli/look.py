"""semid show, encode, decode: looking at IDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semid.cli.batch import batch_options, encode_items
from semid.cli.group import cell, folder_argument, json_option, open_ids, open_tokens, print_json, words


@click.command()
@folder_argument
@click.argument("items", metavar="ITEM...", nargs=-1, required=True)
@click.option("--neighbours", default=5, show_default=True, type=click.IntRange(0), help="How many to list.")
@json_option
def show(folder: Path, items: tuple[str, ...], neighbours: int, as_json: bool) -> None:
    """Show items: their ID, text, and the items nearest by ID.

    Of a folder of `semid clusters`, users too: their tokens, and who is nearest in their cluster.

    \b
    Examples:
      semid show my-sid B004756YJA
      semid show my-sid B004756YJA B004ZT0SSG --json
      semid show my-clusters u17
    """
    from semid.clusters import ClusterTokens
    from semid.show import describe, describe_lines
    from semid.show_clusters import describe_member_lines, describe_members

    tokens = open_tokens(folder)
    if isinstance(tokens, ClusterTokens):
        described = [one for wanted in words(items) for one in describe_members(tokens, wanted, neighbours)]
        in_lines = describe_member_lines
    else:
        described = [describe(tokens, item_id, neighbours) for item_id in words(items)]
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

    With --items, every row of a data set, in the catalogue or not: its ID, or its nearest codes.

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
