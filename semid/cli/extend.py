"""semid extend, export, import: IDs into language models, and into and out of other systems."""

from __future__ import annotations

from pathlib import Path

import click

from semid.cli.app import folder_argument, json_option, open_ids, open_tokens, print_json, say
from semid.cli.fit import sizes_option

FORMATS = ["lcrec", "flashrec", "static", "parquet", "ebnf", "lark"]


@click.command()
@click.argument("base", metavar="BASE")
@folder_argument
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="Folder to write.")
@click.option(
    "--init",
    type=click.Choice(["auto", "text", "codebook", "mix", "default"]),
    default="auto",
    show_default=True,
    help="How the new rows start: from the items' texts, from the codebooks, from both, or at random. auto: from texts "
    "where the artifact has them, else from codebooks.",
)
@click.option(
    "--alpha", default=0.0, show_default=True, type=float,
    help="Of clusters: added to each row, this times its centroid; 0.1 in META ID.",
)  # fmt: skip
@click.option("--pad-to", default=64, show_default=True, type=click.IntRange(1), help="Rows are a multiple of this.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of the draws that --init makes.")
@click.option("--link", is_flag=True, help="Hard-link the weights that do not change, instead of copying them.")
@click.option("--transformers-4", is_flag=True, help="Write the tokenizer so that transformers 4 reads it too.")
@click.option("--force", is_flag=True, help="Replace an extended model in an existing folder.")
@json_option
@click.pass_context
def extend(
    ctx: click.Context,
    base: str,
    folder: Path,
    output: Path,
    init: str,
    alpha: float,
    pad_to: int,
    seed: int,
    link: bool,
    transformers_4: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Put the tokens of an artifact into a language model.

    BASE is a model's folder or its name on the Hugging Face Hub. The result is an ordinary model folder, with the
    artifact DIR beside the weights. Only the weight files that hold the embedding are rewritten, so a model much
    larger than memory will do.

    DIR may be a folder of `semid clusters`, which then lies in OUT/semid-clusters. A model may have both: give the one
    that was made with the first as BASE for the second.

    \b
    Examples:
      semid extend Qwen/Qwen3-0.6B my-sid -o my-llm
      semid extend my-base my-sid -o my-llm --init codebook --link
      semid extend my-llm my-clusters -o my-llm-2 --init default --alpha 0.1
    """
    from semid.runtime.progress import watched
    from semid.tokenizer_exports.models.on_disk import extend_folder

    extended = extend_folder(
        base,
        open_tokens(folder),
        output,
        init=init,
        alpha=alpha,
        pad_to=pad_to,
        seed=seed,
        link=link,
        transformers_4=transformers_4,
        force=force,
        progress=watched() and not ctx.obj["quiet"],
    )
    say(ctx, f"saved       {output}")
    if as_json:
        print_json({"folder": str(output)} | extended.to_dict())
    else:
        click.echo("\n".join(extended.lines()))


@click.command()
@folder_argument
@click.option("--to", type=click.Choice(FORMATS), required=True, help="The format.")
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="File to write.")
@click.option("--base", type=click.IntRange(0), help="Token id of the first code. Default: as semid extend noted.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Instead: the extended model's folder.")
@click.option("--dense-levels", type=click.IntRange(1, 2), help="Of static: levels kept as a table.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def export(
    folder: Path,
    to: str,
    output: Path,
    base: int | None,
    tokenizer: Path | None,
    dense_levels: int | None,
    force: bool,
) -> None:
    """Write the IDs of the live items for another system.

    \b
    lcrec      {item: ["<a_1>", "<b_2>", ...]}: LC-Rec, LETTER, MiniOneRec
    flashrec   {"1,2,3": item}: FlashRec's catalog
    static     STATIC's transition table, as safetensors
    parquet    item_id, tokens and codes, for everything else
    ebnf       a grammar for xgrammar (small catalogs)
    lark       a grammar for llguidance (small catalogs)

    \b
    Examples:
      semid export my-sid --to lcrec -o shop.index.json
      semid export my-llm --to flashrec -o shop.json
    """
    from semid.tokenizer_exports.formats.exporter import export as write

    known = None
    if tokenizer is not None:
        from transformers import AutoTokenizer

        known = AutoTokenizer.from_pretrained(tokenizer)
    done = write(open_ids(folder), output, to=to, base=base, tokenizer=known, dense_levels=dense_levels, force=force)
    click.echo("\n".join(done.lines()))


@click.command("import")
@click.argument("index", metavar="INDEX.json", type=click.Path(path_type=Path, readable=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="Folder to write.")
@click.option("--items", type=click.Path(readable=False), help="The catalog, for the items' text.")
@click.option("--template", help="How tokens are written. Default: as in the file.")
@click.option("--sizes", callback=sizes_option, help="Codes per level: 256, or 64,256,256. Default: from the file.")
@click.option(
    "--on-collision",
    type=click.Choice(["error", "add-level"]),
    default="error",
    show_default=True,
    help="Where items share an ID: say which, or append a code to every ID.",
)
@click.option("--force", is_flag=True, help="Replace the artifact in an existing folder.")
@click.pass_context
def import_(
    ctx: click.Context,
    index: Path,
    output: Path,
    items: str | None,
    template: str | None,
    sizes: int | tuple[int, ...] | None,
    on_collision: str,
    force: bool,
) -> None:
    """Make an artifact of another system's index file, {item: ["<a_1>", "<b_2>", ...]}.

    It can be looked up, extended, exported and generated from; it has no encoder, so new items cannot be added.

    \b
    Examples:
      semid import Games.index.json -o games-sid --items Games.item.json --sizes 256
      semid import letter.index.json -o letter-sid --on-collision add-level
    """
    from semid.artifact.store import check_output
    from semid.tokenizer_exports.formats.importer import import_index

    check_output(output, force=force)
    ids = import_index(
        index,
        items=items,
        template=template,
        sizes=sizes,
        on_collision=on_collision,
        say=lambda line: say(ctx, line),
    )
    fingerprint = ids.save_pretrained(output, force=force)
    say(ctx, f"saved       {output}")
    click.echo(fingerprint)
