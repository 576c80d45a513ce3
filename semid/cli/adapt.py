"""semid adapt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semid.cli.app import device_option, json_option, output_option, print_json
from semid.cli.reading import Files, reading_options

readable = click.Path(path_type=Path, readable=False)  # the readers report what cannot be read


@click.command()
@click.argument("items", type=click.Path(allow_dash=True, readable=False))
@reading_options("items", "interactions")
@output_option
@click.option("--encoder", required=True, help="Language model to start from: its folder or Hub id.")
@click.option("--interactions", type=click.Path(readable=False), help="User histories; needed to learn together.")
@click.option(
    "--learn", multiple=True, type=click.Choice(["together", "attributes"]),
    help="Pairs to bring together: items met near each other (default), or two views of one item that each lack "
    "some attributes. Both may be given.",
)  # fmt: skip
@click.option(
    "--train", type=click.Choice(["adapter", "lora", "all"]),
    help="Weights to train: layers on the model's vectors (default), low-rank changes of the model, or all of it.",
)  # fmt: skip
@click.option("--adapter", type=click.Choice(["linear", "mlp"]), help="Shape of the layers. Default: linear.")
@click.option(
    "--loss", type=click.Choice(["infonce", "llmemb", "llmemb-detached"]),
    help="InfoNCE (default), or LLMEmb's loss with soft targets: as published, or without a gradient through them.",
)  # fmt: skip
@click.option("--rat", is_flag=True, help="Learn the layers inside a sequential recommender, as LLMEmb does.")
@click.option(
    "--split", type=click.Choice(["leave-one-out", "own", "all"]),
    help="Held-out interactions: last two per user (default), as given by n_valid/n_test, or none.",
)  # fmt: skip
@click.option("--steps", type=int, help="Training steps. Default: 300 for layers, 2000 with --rat, 1000 for a model.")
@click.option("--batch-size", type=int, help="Pairs in a batch; users with --rat. Default: 512 for layers, else 128.")
@click.option("--rate", type=float, help="Learning rate. Default: 3e-3 for layers, 1e-4 for a model.")
@click.option("--temperature", type=float, help="Temperature of InfoNCE. Default: 0.05.")
@click.option("--attribute-dropout", type=float, help="Share of attributes that a view lacks. Default: 0.4.")
@click.option("--dim", type=int, help="Dims of the new vectors. Default: those of the model.")
@click.option(
    "--pooling", type=click.Choice(["auto", "mean", "last", "eos"]),
    help="Pooling of a model that does not describe its own. Default: auto.",
)  # fmt: skip
@click.option("--max-length", type=int, help="Tokens of a text at most. Default: 512.")
@click.option("--lora-rank", type=int, help="Rank of low-rank changes. Default: 8.")
@click.option("--bfloat16", is_flag=True, help="Train a model in bfloat16.")
@click.option("--gradient-checkpointing", is_flag=True, help="Train a model in less memory, and more slowly.")
@click.option("--vectors", type=readable, help="Also write item vectors, whitened: .npy or .safetensors.")
@click.option("--pad-row", is_flag=True, help="Put a row of zeros before the first item there.")
@click.option("--seed", type=int, help="Random seed. Default: 0.")
@device_option
@click.option("--resume", is_flag=True, help="Go on with the training of a model that was interrupted.")
@click.option("--force", is_flag=True, help="Replace what an earlier semid adapt wrote.")
@json_option
def adapt(
    items: str,
    output: Path,
    encoder: str,
    interactions: str | None,
    text: str | None,
    learn: tuple[str, ...],
    vectors: Path | None,
    pad_row: bool,
    resume: bool,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Adapt a language model to a catalog and its interactions.

    The folder that it writes is an ordinary sentence-transformers model, for semid fit --encoder and for any other
    program. New items gain from their text alone. Training interactions are learned from, never held-out ones.

    \b
    Examples:
      semid adapt items.jsonl --interactions histories.jsonl --encoder MiniLM/ -o my-encoder
      semid fit items.jsonl -o my-sid --encoder my-encoder --interactions histories.jsonl --collaborative-fusion 1.5
      semid adapt items.jsonl --encoder MiniLM/ -o my-encoder --learn attributes --train lora
      semid adapt items.jsonl --interactions log.csv --encoder MiniLM/ -o my-encoder --vectors items.npy --pad-row
    """
    from semid.adaptation import AdaptConfig
    from semid.adaptation import adapt as run
    from semid.adaptation.folder import check_adapted_output
    from semid.data.interaction_reader import read_interactions
    from semid.data.items import read_items
    from semid.runtime.distributed import is_writer

    check_adapted_output(output, force)
    if pad_row and vectors is None:
        raise click.UsageError("--pad-row goes with --vectors, which is missing.")
    files = Files.of(choices)
    histories = files.open_interactions(interactions)
    given = {name: value for name, value in choices.items() if value is not None and value is not False}
    given |= {"learn": learn} if learn else {}
    config = AdaptConfig(**given)
    catalog = read_items(files.open("items", items), text=text, id_field=files.id_field)
    made = run(
        catalog,
        encoder,
        interactions=None if histories is None else read_interactions(histories, **files.interaction_fields),
        config=config,
        output=output,
        vectors=vectors,
        pad_row=pad_row,
        force=force,
        resume=resume,
    )
    if not is_writer():
        return
    if as_json:
        print_json(made.to_dict())
        return
    for line in made.lines():
        click.echo(line)
