"""semid show, encode, decode: look IDs up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from semid.cli.app import (
    arguments_or_stdin,
    folder_argument,
    json_option,
    open_ids,
    open_tokens,
    print_json,
)
from semid.cli.reading import Files, reading_options

__all__ = ["batch_options", "encode_items"]


# ---- `semid encode --items`: the options, and the call.


OPTIONS = [
    click.option("--items", "source", metavar="FILE", help="Encode every row of a data set."),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, readable=False),
        help="With --items: the .parquet file to write.",
    ),
    click.option(
        "--engine", type=click.Choice(["local", "ray"]), help="With --items: run here or on Ray. Default: local."
    ),
    click.option("--vector-column", metavar="COLUMN", help="With --items: column of ready vectors. Default: none."),
    click.option("--batch-size", type=click.IntRange(1), help="With --items: rows per batch. Default: 8192."),
    click.option("--concurrency", type=click.IntRange(1), help="With --items: batches to encode in parallel."),
    click.option("--force", is_flag=True, help="With --items: replace an existing file."),
]  # all without a default of click's, so that `encode_items` sees what was given


def batch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `semid encode` that go with --items."""
    for option in reversed(OPTIONS):
        command = option(command)
    return reading_options("items", text="those of the fit", duplicates=False)(command)


def encode_items(folder: Path, items: tuple[str, ...], as_json: bool, given: dict[str, Any]) -> bool:
    """Encode the data set that --items names; return False, with nothing done, if it was not given."""
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
    from semid.runtime.progress import log_step

    text = given.pop("text", None)
    files = Files.of(given)
    encoder = BatchEncoder(
        folder,
        id_field=files.id_field,
        vector_column=given.pop("vector_column", None),
        text=None if text is None else [name.strip() for name in text.split(",")],
    )
    done = encode_file(encoder, files.open("items", source), **given)
    log_step("encoded", f"{done.n_items:,} rows, {done.n_known:,} of them items of the catalog")
    if as_json:
        print_json({"output": str(done.path), "items": done.n_items, "known": done.n_known})
    else:
        click.echo(str(done.path))
    return True


@click.command()
@folder_argument
@click.argument("items", metavar="ITEM...", nargs=-1, required=True)
@click.option(
    "--neighbors", default=5, show_default=True, type=click.IntRange(0), help="Number of similar items to list."
)
@json_option
def show(folder: Path, items: tuple[str, ...], neighbors: int, as_json: bool) -> None:
    """Show items: ID, text, and the items with the most similar IDs.

    For a folder written by `semid clusters`, show users too: their tokens and the nearest members of their cluster.

    \b
    Examples:
      semid show my-sid B004756YJA
      semid show my-sid B004756YJA B004ZT0SSG --json
      semid show my-clusters u17
    """
    from semid.clusters.tokens import ClusterTokens
    from semid.diagnostics.describe import describe_item, describe_members, item_summary, member_summary

    tokens = open_tokens(folder)
    wanted = arguments_or_stdin(items)
    if isinstance(tokens, ClusterTokens):
        described = [one for item_id in wanted for one in describe_members(tokens, item_id, neighbors)]
        blocks = [member_summary(one) for one in described]
    else:
        described = [describe_item(tokens, item_id, neighbors) for item_id in wanted]
        blocks = [item_summary(one) for one in described]
    if as_json:
        print_json(described)
    else:
        click.echo("\n\n".join("\n".join(lines) for lines in blocks))


@click.command()
@folder_argument
@click.argument("items", metavar="[ITEM...|-]", nargs=-1)
@batch_options
@json_option
def encode(folder: Path, items: tuple[str, ...], as_json: bool, **batch: Any) -> None:
    """Print the semantic IDs of items; - reads item ids from standard input, one per line.

    With --items, encode every row of a data set: an item of the catalog gets its ID, any other its nearest codes.

    \b
    Examples:
      semid encode my-sid B004756YJA
      cut -f1 purchases.tsv | semid encode my-sid -
      semid encode my-sid --items new.parquet -o codes.parquet --engine ray
      semid encode my-sid --items movies.csv -o codes.parquet --id-field movieId
    """
    from semid.artifact.store import tsv_escape

    if encode_items(folder, items, as_json, batch):
        return
    ids, wanted = open_ids(folder), arguments_or_stdin(items)
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
        click.echo("\n".join(f"{tsv_escape(item_id)}\t{text}" for item_id, text in zip(wanted, tokens, strict=True)))


@click.command()
@folder_argument
@click.argument("texts", metavar="'TOKENS'...|-", nargs=-1, required=True)
@json_option
def decode(folder: Path, texts: tuple[str, ...], as_json: bool) -> None:
    """Find semantic IDs in a text and print their item ids. Unknown and partial IDs are reported, never guessed.

    Prints one line per ID: the ID, its item, and the problem, if there is one.

    \b
    Examples:
      semid decode my-sid '<s_a_183><s_b_70><s_c_232><s_d_6>'
      semid decode my-sid - < model_output.txt
    """
    from dataclasses import asdict

    from semid.artifact.store import tsv_escape

    ids = open_ids(folder)
    found = [one for text in arguments_or_stdin(texts) for one in ids.parse(text)]
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            note = "retired" if one.retired else one.problem
            click.echo("\t".join(map(tsv_escape, filter(None, [one.text, one.item_id or "-", note]))))
    if not found:
        raise click.ClickException("no semantic ID in the text.")
