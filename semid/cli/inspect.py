"""semid doctor, verify, info, bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from semid.cli.app import folder_argument, json_option, open_tokens, print_json, print_quality
from semid.cli.reading import Files, reading_options


@click.command()
@click.argument("source", metavar="DIR|INDEX", type=click.Path(path_type=Path, readable=False))
@click.option("--interactions", type=click.Path(readable=False), help="User histories, for sequence_lift.")
@reading_options("interactions", "items", "index", text=None)
@click.option("--items", type=click.Path(readable=False), help="The catalog, for --embeddings and codes without ids.")
@click.option(
    "--embeddings", type=click.Path(path_type=Path, readable=False), help="Vectors of the items, for neighbor_recall."
)
@json_option
def doctor(
    source: Path, interactions: str | None, items: str | None, embeddings: Path | None, as_json: bool, **choices: Any
) -> None:
    """Report the quality of an ID set: collisions, use of the codes, neighbor recall, sequence lift; with advice.

    The argument is an artifact, or another system's index file: which item has which tokens, {item: ["<a_1>", ...]},
    or which codes, as JSON, JSON lines, CSV, Parquet or an array [N, L] in .npy, .npz, .pt or .safetensors.

    \b
    Examples:
      semid doctor my-sid
      semid doctor my-sid --interactions histories.jsonl --json
      semid doctor my-sid --interactions ratings.csv --item-field movieId --delimiter semicolon
      semid doctor letter.index.json --items items.jsonl --embeddings vectors.npy
      semid doctor codes.npy --items items.jsonl
    """
    from semid.diagnostics.doctor import judge

    files = Files.of(choices)
    judged = judge(
        files.open("index", source),
        interactions=files.open_interactions(interactions),
        items=None if items is None else files.open("items", items),
        embeddings=embeddings,
        id_field=files.id_field,
        **files.interaction_fields,
    )
    print_quality(judged.quality, judged.advice, as_json, {})


@click.command()
@folder_argument
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Check every checksum and every invariant of an artifact.

    \b
    Example:
      semid verify my-sid
    """
    from semid.diagnostics.verify import verify_artifact

    problems, fingerprint = verify_artifact(folder)
    if as_json:
        print_json({"folder": str(folder), "problems": problems, "fingerprint": fingerprint})
    elif not problems:
        click.echo(f"{folder}: OK ({fingerprint})")
    else:
        for problem in problems:
            click.echo(problem, err=True)
    if problems:
        sys.exit(1)


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, readable=False), required=False)
@json_option
def info(folder: Path | None, as_json: bool) -> None:
    """Show what is installed, or with DIR what an artifact holds.

    \b
    Examples:
      semid info
      semid info my-sid
      semid info my-clusters --json
    """
    from semid.clusters.tokens import ClusterTokens
    from semid.diagnostics.describe import artifact_info, cluster_info, system_info

    if folder is None:
        facts = system_info()
    else:
        tokens = open_tokens(folder)
        facts = cluster_info(tokens) if isinstance(tokens, ClusterTokens) else artifact_info(tokens)
    if as_json:
        print_json(facts)
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            click.echo(f"{name:{width}}  {value}")


@click.command()
@click.option("--device", default="cpu", show_default=True, help="Device to measure: cpu, or a GPU such as cuda.")
@click.option(
    "--rows", type=click.IntRange(1000), default=100_000, show_default=True, help="Items of each operation, on a CPU."
)
@json_option
def bench(device: str, rows: int, as_json: bool) -> None:
    """Measure this machine's limits, and the share of them that each operation reaches.

    Takes about 20 seconds on a CPU with two cores. Run nothing else meanwhile.

    \b
    Examples:
      semid bench
      semid bench --threads 1 --json
      semid bench --device cuda
    """
    from semid.diagnostics.bench import measure
    from semid.pipeline.learn import check_device

    check_device(device)
    found = []
    for line in measure(device, rows=rows):
        found.append(line)
        if not as_json:
            share = "" if line.share is None else f"  {line.share:6.0%} of {line.limit}"
            click.echo(f"{line.name:<34}{line.value:>12,.1f} {line.unit:<17}{share}".rstrip())
    if as_json:
        print_json([line.to_dict() for line in found])
