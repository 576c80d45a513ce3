"""semid extend, export, import: IDs into language models, and to and from other systems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid.cli.app import folder_argument, json_option, open_ids, open_tokens, output_option, print_json
from semid.cli.fit import sizes_option
from semid.cli.reading import Files, reading_options

if TYPE_CHECKING:
    from semid.tokenizer_exports.formats.exporter import Format
    from semid.tokenizer_exports.formats.importer import OnCollision
    from semid.tokenizer_exports.models.init_rows import Init

FORMATS = ["lcrec", "flashrec", "static", "parquet", "ebnf", "lark"]


@click.command()
@click.argument("base", metavar="BASE")
@folder_argument
@output_option
@click.option(
    "--init",
    type=click.Choice(["auto", "text", "codebook", "text+codebook", "default"]),
    default="auto",
    show_default=True,
    help="Initial values of the new embedding rows: the items' texts, the codebooks, both, or random. auto: texts if "
    "the artifact has them, else codebooks.",
)
@click.option(
    "--alpha", default=0.0, show_default=True, type=float,
    help="Add alpha * W @ centroid to the embedding row of each cluster token (META ID: 0.1).",
)  # fmt: skip
@click.option(
    "--pad-to", default=64, show_default=True, type=click.IntRange(1),
    help="Pad the number of rows to a multiple of this.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=int, help="Seed of the random directions of --init.")
@click.option("--link", is_flag=True, help="Hard-link unchanged weight files instead of copying them.")
@click.option("--transformers-4", is_flag=True, help="Write a tokenizer that transformers 4 reads too.")
@click.option("--force", is_flag=True, help="Replace an extended model in an existing folder.")
@json_option
def extend(
    base: str,
    folder: Path,
    output: Path,
    init: Init,
    alpha: float,
    pad_to: int,
    seed: int,
    link: bool,
    transformers_4: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Add the tokens of an artifact to a language model.

    BASE is a model's folder or its name on the Hugging Face Hub. The result is an ordinary model folder that also holds
    the artifact DIR. Only the weight files with the embedding are rewritten, so the model may be much larger than
    memory.

    DIR may be a folder of `semid clusters`, which is then copied to OUT/semid-clusters. For a model with both, extend
    it twice: the output of the first run is BASE of the second.

    \b
    Examples:
      semid extend Qwen/Qwen3-0.6B my-sid -o my-llm
      semid extend my-base my-sid -o my-llm --init codebook --link
      semid extend my-llm my-clusters -o my-llm-2 --init default --alpha 0.1
    """
    from semid.runtime.progress import log_step
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
    )
    log_step("saved", str(output))
    if as_json:
        print_json({"folder": str(output)} | extended.to_dict())
    else:
        click.echo("\n".join(extended.summary()))


@click.command()
@folder_argument
@click.option("--to", type=click.Choice(FORMATS), required=True, help="Format to write.")
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="File to write.")
@click.option("--base", type=click.IntRange(0), help="Token id of the first code. Default: as semid extend recorded.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Extended model's folder, instead of --base.")
@click.option("--dense-levels", type=click.IntRange(1, 2), help="static only: first levels as a table.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def export(
    folder: Path,
    to: Format,
    output: Path,
    base: int | None,
    tokenizer: Path | None,
    dense_levels: int | None,
    force: bool,
) -> None:
    """Write the IDs of the live items in another system's format.

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
    click.echo("\n".join(done.summary()))


@click.command("import")
@click.argument("index", metavar="INDEX", type=click.Path(path_type=Path, readable=False))
@output_option
@click.option(
    "--items", type=click.Path(readable=False), help="Catalog: the items' text, and the order of codes without ids."
)
@reading_options("items", "index")
@click.option("--template", help="Token pattern. Default: as in the file.")
@click.option("--sizes", callback=sizes_option, help="Codes per level: 256, or 64,256,256. Default: from the file.")
@click.option(
    "--on-collision",
    type=click.Choice(["error", "add-level"]),
    default="error",
    show_default=True,
    help="If items share an ID: stop and list them, or append a code to every ID.",
)
@click.option("--force", is_flag=True, help="Replace the artifact in an existing folder.")
def import_(
    index: Path,
    output: Path,
    items: str | None,
    text: str | None,
    template: str | None,
    sizes: int | tuple[int, ...] | None,
    on_collision: OnCollision,
    force: bool,
    **choices: Any,
) -> None:
    """Make an artifact from another system's index file: which item has which tokens or codes.

    INDEX is JSON {item: ["<a_1>", "<b_2>", ...]}, JSON lines, CSV, Parquet, MiniOneRec's info.txt, or an array of codes
    [N, L] in .npy, .npz, .pt or .safetensors. The artifact supports look-up, extend, export and generation. It has no
    encoder, so new items cannot be added.

    \b
    Examples:
      semid import Games.index.json -o games-sid --items Games.item.json --sizes 256
      semid import letter.index.json -o letter-sid --on-collision add-level
      semid import codes.npy -o new-sid --items items.csv --id-field asin
    """
    from semid.artifact.store import check_output
    from semid.data.items import read_items
    from semid.runtime.progress import log_step
    from semid.tokenizer_exports.formats.importer import import_index

    check_output(output, force=force)
    files = Files.of(choices)
    catalog = None if items is None else read_items(files.open("items", items), text=text, id_field=files.id_field)
    ids = import_index(
        files.open("index", index), items=catalog, template=template, sizes=sizes, on_collision=on_collision
    )
    fingerprint = ids.save_pretrained(output, force=force)
    log_step("saved", str(output))
    click.echo(fingerprint)
