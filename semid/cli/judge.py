"""semid doctor, verify, info: judging and checking."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from semid.cli.group import folder_argument, json_option, open_ids, print_json, print_quality


@click.command()
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
    print_quality(quality, as_json, {})


@click.command()
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
        print_json({"folder": str(folder), "problems": problems, "fingerprint": fingerprint})
    elif not problems:
        click.echo(f"{folder}: whole; {fingerprint}")
    else:
        for problem in problems:
            click.echo(problem, err=True)
    if problems:
        sys.exit(1)


@click.command()
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

    told = artefact_info(open_ids(folder)) if folder else system_info()
    if as_json:
        print_json(told)
    else:
        width = max(map(len, told))
        for name, value in told.items():
            click.echo(f"{name:{width}}  {value}")
