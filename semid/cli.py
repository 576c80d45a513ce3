"""The command line. Each command reads its input, calls one thing, prints; the work is elsewhere.

stdout is data, stderr is talk. Exit codes: 0 done, 1 the input is wrong, 2 the command is wrong, 130 interrupted.
Heavy imports happen inside the commands, so `semid --help` is quick.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid._version import __version__
from semid.errors import SemidError

if TYPE_CHECKING:
    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["cli", "main"]

log = logging.getLogger("semid")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
# readable=False: what cannot be read is wrong input, not a wrong command, and the readers name it.
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, readable=False))


def main() -> None:
    """Run a command; turn errors into messages and exit codes."""
    try:
        cli.main(standalone_mode=False)
    except SemidError as error:
        _fail(str(error), 1)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing was written.", 130)
    except MemoryError:
        _fail("out of memory; nothing was written. Use a smaller --dim, or a machine with more memory.", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"semid: {message}", err=True)
    sys.exit(code)


class _Ordered(click.Group):
    """Commands in the order of the work; options of `semid` anywhere; a closed pipe ends it quietly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options of `semid` itself from behind the command too, where people write them."""
        end = args.index("--") if "--" in args else len(args)
        own, rest, words = [], [], iter(args[:end])
        for word in words:
            if word == "--threads":
                own += [word, *[value for value in [next(words, None)] if value is not None]]
            elif word in ("--quiet", "--verbose", "-v", "-vv") or word.startswith("--threads="):
                own.append(word)
            else:
                rest.append(word)
        return super().parse_args(ctx, own + rest + args[end:])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of a pipe has seen enough; click would call that a failure
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


@click.group(cls=_Ordered, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="semid")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads to use. Default: OMP_NUM_THREADS, or all cores.")
@click.pass_context
def cli(ctx: click.Context, verbose: int, quiet: bool, threads: int | None) -> None:
    """Semantic IDs: short token sequences for the items of a catalogue.

    \b
    semid fit items.jsonl -o my-sid      learn IDs
    semid show my-sid B004756YJA         look at one
    semid doctor my-sid                  how good are they?

    The options below may also stand behind the command.
    """
    level = logging.ERROR if quiet else [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("semid: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    ctx.obj = {"quiet": quiet}
    # Idle OpenMP threads sleep: spinning ones make a shared machine several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads:
        for name in THREAD_VARIABLES:  # read when NumPy and torch are imported, which is later
            os.environ[name] = str(threads)


def _say(ctx: click.Context, line: str) -> None:
    if not ctx.obj["quiet"]:
        click.echo(line, err=True)


# ---- fit -----------------------------------------------------------------------------------------------------


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | tuple[int, ...] | None:
    if value is None:
        return None
    try:
        sizes = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} should be a number, or one per level: 64,256,256,256") from None
    return sizes[0] if len(sizes) == 1 else sizes


@cli.command()
@click.argument("items", type=click.Path(allow_dash=True, readable=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), required=True, help="Folder to write.")
@click.option("--text", help="Text fields, in order: title,brand. Default: found.")
@click.option("--id-field", default="id", show_default=True, help="Field with the item's id.")
@click.option("--encoder", help="lexical (default), or a model's folder or Hub id.")
@click.option("--pooling", type=click.Choice(["auto", "mean", "last", "eos"]), help="Of a language model's states.")
@click.option("--prompt", help="Put before every text that goes into a model.")
@click.option(
    "--embeddings", type=click.Path(path_type=Path, readable=False), help="Ready vectors: .npy or .safetensors."
)
@click.option("--method", type=click.Choice(["rqvae", "rqkmeans", "lc-rec"]), help="Learner. Default: rqvae.")
@click.option("--preset", type=click.Choice(["default", "lc-rec"]), help="A published recipe as it is.")
@click.option("--levels", type=int, help="Codes per item. Default: 4.")
@click.option("--codebook-size", callback=_sizes, help="Codes per level: 256 (default), or 64,256,256,256.")
@click.option("--dim", type=int, help="Width of the latents. Default: the learner's.")
@click.option("--epochs", type=int, help="Of training. Default: the learner's.")
@click.option(
    "--uniform",
    type=click.Choice(["training", "catalogue", "off"]),
    help="Where the last level's codes are balanced. Default: training.",
)
@click.option(
    "--assign",
    type=click.Choice(["local", "global"]),
    help="Resolve collisions under the item's own prefix (default), or under any.",
)
@click.option("--template", help="How tokens are written: onerec (default), lcrec, rectokens, or '<{letter}_{code}>'.")
@click.option("--store-text/--no-store-text", default=None, help="Keep the items' text in the folder (default).")
@click.option("--seed", type=int, help="Default: 0.")
@click.option("--device", help="auto (default), cpu, cuda, ...")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path, readable=False), help="Settings from a JSON file."
)
@click.option("--interactions", type=click.Path(readable=False), help="User histories, to measure the IDs against.")
@click.option("--force", is_flag=True, help="Replace the artefact in an existing folder.")
@json_option
@click.pass_context
def fit(
    ctx: click.Context,
    items: str,
    output: Path,
    id_field: str,
    embeddings: Path | None,
    preset: str | None,
    config_file: Path | None,
    interactions: str | None,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Learn semantic IDs for a catalogue.

    ITEMS is JSONL, CSV or Parquet (.gz too), or - for JSONL on standard input: an id and text fields per item.

    \b
    Examples:
      semid fit items.jsonl -o my-sid
      semid fit items.csv -o my-sid --text title,brand --levels 3 --codebook-size 512
      semid fit items.jsonl -o my-sid --embeddings vectors.npy --interactions histories.jsonl
      zcat items.jsonl.gz | semid fit - -o my-sid --encoder sentence-transformers/all-MiniLM-L6-v2
    """
    from semid.artifact import check_output
    from semid.fitting import fit as run
    from semid.interactions import read_interactions
    from semid.progress import watched
    from semid.tokenizer import SemanticIDTokenizer

    check_output(output, force=force)
    config = _config(preset, config_file, choices)
    log.info("settings: %s", json.dumps(config.to_dict()))
    histories = read_interactions(interactions) if interactions else None
    made = run(
        items,
        config,
        embeddings=embeddings,
        id_field=id_field,
        progress=watched() and not ctx.obj["quiet"],
        say=lambda line: _say(ctx, line),
    )
    ids = SemanticIDTokenizer(**made)
    known = histories.map_to(ids.item_ids) if histories else None
    if known is not None and known.n_unknown == len(known.rows):
        log.warning("%s: none of its items is in the catalogue. Are the ids the same?", interactions)
    quality = ids.quality(histories=known)  # before saving: an interrupt until there leaves nothing behind
    fingerprint = ids.save_pretrained(output, force=force)
    _say(ctx, f"saved       {output}")
    _print_quality(quality, as_json, {"folder": str(output), "fingerprint": fingerprint})


def _config(preset: str | None, config_file: Path | None, choices: dict[str, Any]):
    """Preset, then the file, then the options that were given."""
    from semid.config import SemanticIDConfig
    from semid.errors import ConfigError

    merged: dict[str, Any] = {}
    if config_file is not None:
        try:
            merged = json.loads(config_file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{config_file}: is not JSON ({error}).") from None
        merged = merged.get("config", merged) if isinstance(merged, dict) else merged  # a whole semid.json will do
        if not isinstance(merged, dict):
            raise ConfigError(f"{config_file}: should be a JSON object of settings.")
    given = {name: value for name, value in choices.items() if value is not None}
    return SemanticIDConfig.preset(preset or "default", **merged | given)


# ---- looking at IDs ------------------------------------------------------------------------------------------


def _open(folder: Path) -> SemanticIDTokenizer:
    from semid.tokenizer import SemanticIDTokenizer

    return SemanticIDTokenizer.from_pretrained(folder)


def _words(arguments: tuple[str, ...]) -> list[str]:
    """The arguments, or the lines of standard input for a single `-`."""
    if arguments != ("-",):
        return list(arguments)
    from semid.errors import InputError

    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"<stdin>: byte {error.start}: not UTF-8. Convert it: iconv -t UTF-8") from None
    # Not splitlines(), which also cuts at characters that an id may hold, such as U+2028.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def _cell(text: str) -> str:
    """Text as one cell of a tab-separated line, escaped as in ids.tsv."""
    return text.translate(str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}))


@cli.command()
@folder_argument
@click.argument("items", metavar="ITEM...", nargs=-1, required=True)
@click.option("--neighbours", default=5, show_default=True, type=click.IntRange(0), help="How many to list.")
@json_option
def show(folder: Path, items: tuple[str, ...], neighbours: int, as_json: bool) -> None:
    """Show items: their ID, text, and the items nearest by ID.

    \b
    Examples:
      semid show my-sid B004756YJA
      semid show my-sid B004756YJA B004ZT0SSG --json
    """
    from semid.show import describe, describe_lines

    ids = _open(folder)
    described = [describe(ids, item_id, neighbours) for item_id in _words(items)]
    if as_json:
        _print_json(described)
    else:
        click.echo("\n\n".join("\n".join(describe_lines(one)) for one in described))


@cli.command()
@folder_argument
@click.argument("items", metavar="ITEM...|-", nargs=-1, required=True)
@json_option
def encode(folder: Path, items: tuple[str, ...], as_json: bool) -> None:
    """Item ids to semantic IDs; - reads ids from standard input, one a line.

    \b
    Examples:
      semid encode my-sid B004756YJA
      cut -f1 purchases.tsv | semid encode my-sid -
    """
    ids, wanted = _open(folder), _words(items)
    codes = ids.encode(wanted)
    tokens = ids.vocabulary.texts(codes)
    if as_json:
        _print_json(
            [
                {"item_id": item_id, "tokens": text, "codes": row}
                for item_id, text, row in zip(wanted, tokens, codes.tolist(), strict=True)
            ]
        )
    else:
        click.echo("\n".join(f"{_cell(item_id)}\t{text}" for item_id, text in zip(wanted, tokens, strict=True)))


@cli.command()
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

    ids = _open(folder)
    found = [one for text in _words(texts) for one in ids.parse(text)]
    if as_json:
        _print_json([asdict(one) for one in found])
    else:
        for one in found:
            note = "retired" if one.retired else one.problem
            click.echo("\t".join(map(_cell, filter(None, [one.text, one.item_id or "-", note]))))
    if not found:
        raise click.ClickException("no semantic ID in the text.")


# ---- judging and checking ------------------------------------------------------------------------------------


@cli.command()
@click.argument("source", metavar="DIR|INDEX.json", type=click.Path(path_type=Path, readable=False))
@click.option("--interactions", type=click.Path(readable=False), help="User histories: adds sequence_lift.")
@click.option("--items", type=click.Path(readable=False), help="The catalogue, where --embeddings needs its order.")
@click.option(
    "--embeddings", type=click.Path(path_type=Path, readable=False), help="Vectors: adds or repeats neighbour_recall."
)
@json_option
def doctor(source: Path, interactions: str | None, items: str | None, embeddings: Path | None, as_json: bool) -> None:
    """Judge an ID set: collisions, use of the codes, what the prefixes mean. With advice.

    SOURCE is an artefact, or another system's index file: {item: ["<a_1>", "<b_2>", ...]}.

    \b
    Examples:
      semid doctor my-sid
      semid doctor my-sid --interactions histories.jsonl --json
      semid doctor letter.index.json --items items.jsonl --embeddings vectors.npy
    """
    from semid.judging import judge

    quality = judge(source, interactions=interactions, items=items, embeddings=embeddings)
    _print_quality(quality, as_json, {})


def _print_quality(quality: Any, as_json: bool, more: dict[str, str]) -> None:
    from semid.advice import advice

    sentences = advice(quality)
    if as_json:
        _print_json(more | quality.to_dict() | {"advice": sentences})
        return
    for line in quality.lines():
        click.echo(line)
    for sentence in sentences:
        click.echo(f"advice: {sentence}")
    if "fingerprint" in more:
        click.echo(more["fingerprint"])


@cli.command()
@folder_argument
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Check an artefact: every checksum, every invariant.

    \b
    Example:
      semid verify my-sid
    """
    from semid.judging import verify as check

    problems, fingerprint = check(folder)
    if as_json:
        _print_json({"folder": str(folder), "problems": problems, "fingerprint": fingerprint})
    elif not problems:
        click.echo(f"{folder}: whole; {fingerprint}")
    else:
        for problem in problems:
            click.echo(problem, err=True)
    if problems:
        sys.exit(1)


@cli.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, readable=False), required=False)
@json_option
def info(folder: Path | None, as_json: bool) -> None:
    """What is installed, or with DIR what an artefact is.

    \b
    Examples:
      semid info
      semid info my-sid
    """
    from semid.show import artefact_info, system_info

    told = artefact_info(_open(folder)) if folder else system_info()
    if as_json:
        _print_json(told)
    else:
        width = max(map(len, told))
        for name, value in told.items():
            click.echo(f"{name:{width}}  {value}")


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
