"""semid add, retire, history, diff: change an artifact and see what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semid.cli.app import (
    arguments_or_stdin,
    folder_argument,
    json_option,
    log,
    open_ids,
    print_json,
    ready_vectors_option,
)
from semid.cli.reading import Files, reading_options

date_option = click.option("--date", help="Date to record in the history, such as 2026-11-21. Default: none.")


@click.command()
@folder_argument
@click.argument("items", type=click.Path(allow_dash=True, readable=False))
@reading_options("items", text="those of the fit; give others in their order")
@ready_vectors_option
@click.option("--update", is_flag=True, help="Store the new text of known items; their IDs do not change.")
@click.option(
    "--reuse-after",
    type=click.IntRange(1),
    metavar="GENERATIONS",
    help="Reissue IDs that were retired at least this many generations ago. Default: never.",
)
@date_option
@json_option
def add(
    folder: Path,
    items: str,
    text: str | None,
    embeddings: Path | None,
    update: bool,
    reuse_after: int | None,
    date: str | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Add new items to an artifact. Known items keep their IDs; adding a file twice changes nothing.

    ITEMS is a file of records, or - for standard input, as for fit. Each new item gets the nearest free ID.

    \b
    Examples:
      semid add my-sid new.jsonl
      semid add my-sid movies.csv --id-field movieId --skip-bad-rows
      semid add my-sid catalog.jsonl --update --date 2026-11-21
      zcat new.jsonl.gz | semid add my-sid -
    """
    from semid.pipeline import update as changing

    files = Files.of(choices)
    report = changing.add(
        folder,
        files.open("items", items),
        embeddings=embeddings,
        id_field=files.id_field,
        text=text,
        update=update,
        reuse_after=reuse_after,
        date=date,
    )
    for warning in report.warnings():
        log.warning("%s", warning)
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo("\n".join(report.lines()))


@click.command()
@folder_argument
@click.argument("items", metavar="ITEM...|-", nargs=-1, required=True)
@date_option
@json_option
def retire(folder: Path, items: tuple[str, ...], date: str | None, as_json: bool) -> None:
    """Retire items: their IDs still decode, are no longer generated, and are never reissued.

    \b
    Examples:
      semid retire my-sid B004756YJA
      semid retire my-sid - < sold-out.txt
    """
    from dataclasses import asdict

    from semid.pipeline import update as changing

    report = changing.retire(folder, arguments_or_stdin(items), date=date)
    if as_json:
        print_json(asdict(report))
        return
    already = f"; {report.already:,} were retired before" if report.already else ""
    done = f"{report.retired:,} items as generation {report.generation}" if report.retired else "nothing"
    click.echo(f"retired     {done}{already}")


@click.command()
@folder_argument
@json_option
def history(folder: Path, as_json: bool) -> None:
    """List the generations of an artifact: items added, retired and updated, with dates where given.

    \b
    Example:
      semid history my-sid
    """
    ids = open_ids(folder)
    dates = ids.provenance.get("dates")
    dates = dates if isinstance(dates, dict) else {}
    told = [one | {"date": dates.get(str(one.get("generation")))} for one in ids.history or []]
    if as_json:
        print_json(told)
        return
    live = 0
    for one in told:
        counts = {name: int(one.get(name, 0)) for name in ("added", "retired", "updated")}
        live += counts["added"] - counts["retired"]
        did = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing"
        date = f"  {one['date']}" if one["date"] else ""
        click.echo(f"{one.get('generation'):>4}  {did}; {live:,} live{date}")


@click.command()
@click.argument("first", metavar="A", type=click.Path(path_type=Path, readable=False))
@click.argument("second", metavar="B", type=click.Path(path_type=Path, readable=False))
@click.option("--items", "listed", is_flag=True, help="Also list the items, tab-separated.")
@json_option
def diff(first: Path, second: Path, listed: bool, as_json: bool) -> None:
    """Compare two artifacts: items added and removed, and how many codes the others kept.

    \b
    Examples:
      semid diff my-sid my-sid-refit
      semid diff my-sid my-sid-refit --items | grep ^renamed
    """
    from semid.artifact.store import load, tsv_escape
    from semid.diagnostics.diff import difference

    same = load(first).fingerprint == load(second).fingerprint
    found = difference(open_ids(first), open_ids(second), same=same)
    if as_json:
        print_json(found.to_dict())
        return
    click.echo("\n".join(found.summary()), err=listed)
    if listed:
        for kind, item_id, before, after in found.item_rows():
            click.echo(f"{kind}\t{tsv_escape(item_id)}\t{before}\t{after}")
