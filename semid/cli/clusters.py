"""semid clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid.cli.app import json_option, print_json, say

if TYPE_CHECKING:
    from semid.clusters.tokens import ClusterTokens
    from semid.data.interactions import Interactions

WALKS = ("number", "length", "window", "negatives", "dim")
readable = click.Path(path_type=Path, readable=False)  # what cannot be read is wrong input, and the readers say so


@click.command()
@click.argument("interactions", type=click.Path(readable=False))
@click.option("-o", "--output", type=readable, required=True, help="Folder to write.")
@click.option(
    "--clusters", "n_clusters", type=int,
    help="How many. Default: 100; fewer for under a thousand users and items, more for over a million.",
)  # fmt: skip
@click.option("--balanced/--free", default=True, help="No cluster fuller than its share (default), or as they fall.")
@click.option("--joint/--apart", default=True, help="Users and items share clusters (default), or have their own.")
@click.option(
    "--fine", type=click.Choice(["rank", "residual"]), default="rank", show_default=True,
    help="Second token: closeness to the centroid, or a code with a vector of its own.",
)  # fmt: skip
@click.option("--room", default=0.01, show_default=True, help="Second tokens kept free for newcomers, as a share.")
@click.option("--template", default="<c_{letter}_{code}>", show_default=True, help="How tokens are written.")
@click.option("--beside", type=readable, help="The artifact of the items' semantic IDs: its tokens are kept apart.")
@click.option(
    "--split", type=click.Choice(["leave-one-out", "own", "all"]), default="leave-one-out", show_default=True,
    help="What is not learned from: each user's last two, what n_valid and n_test say, or nothing.",
)  # fmt: skip
@click.option("--include-valid", is_flag=True, help="Learn from validation interactions too.")
@click.option("--schemas", help="Meta-paths, such as U-I-U,I-U-I,I-I.")
@click.option("--number", type=int, help="Walks from each node.")
@click.option("--length", type=int, help="Nodes of a walk.")
@click.option("--window", type=int, help="How far apart two nodes are neighbors at most.")
@click.option("--negatives", type=int, help="Negative samples for each pair.")
@click.option("--dim", type=int, help="Width of the vectors.")
@click.option("--vectors", type=readable, help="Vectors made elsewhere: word2vec text, or user,item,emb.")
@click.option("--items", type=readable, help="The catalog: items without interactions are placed by their text.")
@click.option("--embeddings", type=readable, help="Text vectors of --items. Default: semid's lexical ones.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of walks and clusters.")
@click.option("--force", is_flag=True, help="Replace what is in an existing folder.")
@json_option
@click.pass_context
def clusters(ctx: click.Context, interactions: str, output: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Learn tokens for users and items from what users met.

    A token for the cluster and a token inside it; nobody shares both. Only training interactions are learned from.

    \b
    Examples:
      semid clusters histories.jsonl -o my-clusters
      semid clusters histories.jsonl -o my-clusters --clusters 200 --fine residual --room 0.2
      semid clusters histories.jsonl -o my-clusters --items items.jsonl --beside my-sid
    """
    from semid.artifact.store import check_output
    from semid.data.interactions import read_interactions

    check_output(output, force=force)
    config = _config(given)
    histories = read_interactions(interactions)
    made = _fit(ctx, histories, config, given)
    fingerprint = made.save(output, force=force)
    say(ctx, f"saved       {output}")
    figures = _figures(made, histories) | {"folder": str(output), "fingerprint": fingerprint}
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        click.echo(f"{name:18} {value:.3g}" if isinstance(value, float) else f"{name:18} {value}")


def _config(given: dict[str, Any]) -> Any:
    from semid.clusters.fit import ClusterConfig
    from semid.encoders.collaborative import WalkConfig

    walks = {name: given[name] for name in WALKS if given[name] is not None}
    if given["schemas"]:
        walks["schemas"] = tuple(given["schemas"].split(","))
    names = ("joint", "balanced", "fine", "room", "template", "split", "include_valid", "seed")
    return ClusterConfig(
        clusters=given["n_clusters"],
        walks=WalkConfig(**walks, seed=given["seed"]),
        **{name: given[name] for name in names},
    )


def _fit(ctx: click.Context, histories: Interactions, config: Any, given: dict[str, Any]) -> ClusterTokens:
    from semid.clusters.fit import fit_clusters
    from semid.encoders.collaborative_files import read_behavior
    from semid.runtime.progress import watched

    choices: dict[str, Any] = {}
    if given["beside"]:
        from semid.cli.app import open_ids

        choices["beside"] = open_ids(given["beside"]).vocabulary
    if given["vectors"]:
        choices["vectors"] = read_behavior(given["vectors"], histories)
    if given["embeddings"] and not given["items"]:
        raise click.UsageError("--embeddings are of --items. Give the catalog too.")
    if given["items"]:
        choices["catalog"], choices["texts"] = _texts(given["items"], given["embeddings"])
    return fit_clusters(
        histories,
        config,
        progress=watched() and not ctx.obj["quiet"],
        say=lambda line: say(ctx, line),
        **choices,
    )


def _texts(items: Path, embeddings: Path | None) -> tuple[list[str], Any]:
    from semid.data.items import read_items

    found = read_items(items)
    if embeddings is None:
        from semid.encoders import embed

        return found.ids, embed(found)
    from semid.encoders import read_vectors

    return found.ids, read_vectors(embeddings, ids=found.ids, source=str(items)).rows()


def _figures(made: ClusterTokens, histories: Interactions) -> dict[str, Any]:
    """What `semid clusters` prints."""
    from semid.evaluation.metrics import evaluate

    first, end = made.coarse_of["reserved"]
    codes = made.items.codes
    quality = evaluate(codes, sizes=made.sizes, histories=histories.map_to(list(made.items.ids)))
    reserved = {side: int((made.members(side).codes[:, 0] >= first).sum()) for side in ("user", "item")}
    return {
        "users": len(made.users),
        "items": len(made.items),
        "tokens": made.n_tokens,
        "clusters": first,
        "reserved": end - first,
        "reserved_users": reserved["user"],
        "reserved_items": reserved["item"],
        "item_perplexity": quality.levels[0].perplexity,
        "largest_share": quality.levels[0].largest_share,
        "sequence_lift": quality.sequence_lift[0],
    }
