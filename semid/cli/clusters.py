"""semid clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid.cli.app import json_option, print_json
from semid.cli.reading import Files, reading_options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from semid.clusters.fit import ClusterConfig
    from semid.clusters.tokens import ClusterTokens
    from semid.data.interactions import Interactions
    from semid.data.items import Items

WALKS = ("walks_per_node", "walk_length", "window", "negatives", "dim")
readable = click.Path(path_type=Path, readable=False)  # the readers report what cannot be read


@click.command()
@click.argument("interactions", type=click.Path(readable=False))
@reading_options("interactions", "items")
@click.option("-o", "--output", type=readable, required=True, help="Folder to write.")
@click.option(
    "--clusters", "n_clusters", type=int,
    help="Number of clusters. Default: 100; fewer for under 1,000 users and items, more for over 1,000,000.",
)  # fmt: skip
@click.option(
    "--balanced/--unbalanced", default=True, help="Cap every cluster at ceil(n / K) members (default), or do not."
)
@click.option(
    "--joint/--separate", default=True, help="Cluster users and items together (default), or each on their own."
)
@click.option(
    "--second-token", type=click.Choice(["rank", "residual"]), default="rank", show_default=True,
    help="Second token: rank by closeness to the centroid, or a code with a vector of its own.",
)  # fmt: skip
@click.option(
    "--spare-codes", default=0.01, show_default=True,
    help="Second tokens kept free for new users and items, as a share of the largest cluster.",
)  # fmt: skip
@click.option("--template", default="<c_{letter}_{code}>", show_default=True, help="Token pattern.")
@click.option("--item-ids", type=readable, help="Artifact of the items' semantic IDs. The tokens must differ from its.")
@click.option(
    "--split", type=click.Choice(["leave-one-out", "own", "all"]), default="leave-one-out", show_default=True,
    help="Held-out interactions: last two per user (default), as given by n_valid/n_test, or none.",
)  # fmt: skip
@click.option("--include-valid", is_flag=True, help="Train on validation interactions too.")
@click.option("--schemas", help="Meta-paths of the walks, such as U-I-U,I-U-I,I-I.")
@click.option("--walks-per-node", type=int, help="Walks from each node for each meta-path. Default: 10.")
@click.option("--walk-length", type=int, help="Nodes of a walk. Default: 20.")
@click.option("--window", type=int, help="Two nodes of a walk are neighbors up to this distance. Default: 3.")
@click.option("--negatives", type=int, help="Negative samples for each pair. Default: 5.")
@click.option("--dim", type=int, help="Dims of the vectors. Default: 64.")
@click.option("--vectors", type=readable, help="Use these vectors instead: word2vec text, or a user,item,emb table.")
@click.option("--items", type=readable, help="Catalog. Items without interactions are placed by their text.")
@click.option("--embeddings", type=readable, help="Text vectors of --items. Default: semid's lexical ones.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of walks and clusters.")
@click.option("--force", is_flag=True, help="Replace the contents of an existing folder.")
@json_option
def clusters(interactions: str, output: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Learn tokens for users and items from interactions.

    Each gets one token for its cluster and one inside the cluster; no two have the same pair. Only training
    interactions are used.

    \b
    Examples:
      semid clusters histories.jsonl -o my-clusters
      semid clusters histories.jsonl -o my-clusters --clusters 200 --second-token residual --spare-codes 0.2
      semid clusters ratings.dat -o my-clusters --columns user,item,rating,time
      semid clusters histories.jsonl -o my-clusters --items items.jsonl --item-ids my-sid
    """
    from semid.artifact.store import check_output
    from semid.data.interaction_reader import read_interactions
    from semid.runtime.progress import log_step

    check_output(output, force=force)
    config, files = _config(given), Files.of(given)
    if given["embeddings"] and not given["items"]:
        raise click.UsageError("--embeddings requires --items CATALOG.")
    histories = read_interactions(files.open("interactions", interactions), **files.interaction_fields)
    made = _fit(histories, config, files, given)
    fingerprint = made.save(output, force=force)
    log_step("saved", str(output))
    figures = _figures(made, histories) | {"folder": str(output), "fingerprint": fingerprint}
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        click.echo(f"{name:18} {value:.3g}" if isinstance(value, float) else f"{name:18} {value}")


def _config(given: dict[str, Any]) -> ClusterConfig:
    from semid.clusters.fit import ClusterConfig
    from semid.encoders.collaborative import WalkConfig

    walks = {name: given[name] for name in WALKS if given[name] is not None}
    if given["schemas"]:
        walks["schemas"] = tuple(given["schemas"].split(","))
    names = ("joint", "balanced", "second_token", "spare_codes", "template", "split", "include_valid", "seed")
    return ClusterConfig(
        clusters=given["n_clusters"],
        walks=WalkConfig(**walks, seed=given["seed"]),
        **{name: given[name] for name in names},
    )


def _fit(histories: Interactions, config: ClusterConfig, files: Files, given: dict[str, Any]) -> ClusterTokens:
    from semid.clusters.fit import fit_clusters
    from semid.encoders.collaborative_files import read_behavior

    choices: dict[str, Any] = {}
    if given["item_ids"]:
        from semid.cli.app import open_ids

        choices["item_ids"] = open_ids(given["item_ids"]).vocabulary
    if given["vectors"]:
        choices["vectors"] = read_behavior(given["vectors"], histories)
    if given["items"]:
        from semid.data.items import read_items
        from semid.data.unknown_items import check_known_items

        catalog = read_items(files.open("items", given["items"]), text=given["text"], id_field=files.id_field)
        check_known_items(histories, catalog.ids, fate="they get tokens without text")
        choices["catalog"], choices["texts"] = catalog.ids, _texts(catalog, given["embeddings"])
    return fit_clusters(histories, config, **choices)


def _texts(catalog: Items, embeddings: Path | None) -> npt.NDArray[np.floating]:
    """Return vectors of the texts of a catalog."""
    if embeddings is None:
        from semid.encoders import embed

        return embed(catalog)
    from semid.pipeline.embed import given_vectors

    return given_vectors(catalog, embeddings)[:]


def _figures(made: ClusterTokens, histories: Interactions) -> dict[str, Any]:
    """Return what `semid clusters` prints."""
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
        "sequence_lift": quality.sequence_lift[0] if quality.sequence_lift else None,
    }
