"""semid score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semid.cli.app import json_option, print_json
from semid.cli.reading import Files, reading_options

if TYPE_CHECKING:
    from semid.evaluation.scores import Scores

OF_LOG = ("split", "cuts")
OF_MODEL = ("num_beams", "batch_size", "max_cases", "output", "device")


def _lengths(_ctx: click.Context, _option: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} should be numbers such as 5,10.") from None


@click.command()
@click.argument("source", metavar="RECOMMENDATIONS|TEST", type=click.Path(path_type=Path, readable=False))
@click.option("--interactions", type=click.Path(readable=False), help="All interactions, for RECOMMENDATIONS.")
@reading_options("interactions", text=None, duplicates=False)
@click.option("--model", type=click.Path(readable=False), help="Folder of the language model to run on TEST.")
@click.option(
    "--ids", type=click.Path(readable=False),
    help="Artifact or index file. With --model: default, the artifact in the model's folder. Else for lists of IDs.",
)  # fmt: skip
@click.option("--compare", type=click.Path(readable=False), help="Other recommendations, compared user by user.")
@click.option("--k", default="1,5,10,20", show_default=True, callback=_lengths, help="Comma-separated list lengths K.")
@click.option(
    "--split", type=click.Choice(["leave-one-out", "time", "own"]),
    help="Test interactions: last of each user (default), all after a moment, or as given by n_test.",
)  # fmt: skip
@click.option("--cuts", help="Shares of interactions before validation and test, for --split time. Default: 0.8,0.9.")
@click.option("--num-beams", type=click.IntRange(1), help="Beam width. Default: 50, or the largest K if that is more.")
@click.option("--batch-size", type=click.IntRange(1), help="Prompts per call of the model. Default: 16.")
@click.option("--max-cases", type=click.IntRange(1), help="Test cases, drawn at random. Default: all.")
@click.option("--device", help="Device of the model: auto (default), cpu, cuda, ...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, readable=False), help="Write the model's recommendations here."
)
@click.option(
    "--resamples", type=click.IntRange(0), default=1000, show_default=True,
    help="Bootstrap resamples of the users, for 95 % intervals; 0 for none.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed.")
@json_option
def score(
    source: Path,
    interactions: str | None,
    model: str | None,
    k: tuple[int, ...],
    resamples: int,
    seed: int,
    as_json: bool,
    **choices: Any,
) -> None:
    """Measure recommendations: recall@K, NDCG@K, MRR, coverage and popularity, with confidence intervals.

    RECOMMENDATIONS holds a list for each user, best first, {"user": "u1", "items": ["i7", ...]}, of item ids or of IDs,
    or is a folder of recommendations computed ahead of time. They are compared with the held-out interactions.
    With --model, TEST is a test file of `semid align` for next-item, and the model generates the lists.

    Every item of the catalog is ranked. Items that share an ID share its places. Beside the scored system are
    popularity, and co-occurrence: what followed the user's last item in training.

    \b
    Examples:
      semid score recommendations.jsonl --interactions histories.jsonl
      semid score mine.jsonl --compare theirs.jsonl --interactions histories.jsonl --k 10
      semid score id-lists.jsonl --ids letter.index.json --interactions histories.jsonl --json
      semid score --model my-llm my-data/next-item/test.jsonl -o mine.jsonl
    """
    from semid.evaluation.intervals import Bootstrap

    files = Files.of(choices)
    bootstrap = Bootstrap(resamples=resamples, seed=seed)
    compare, ids = choices["compare"], choices["ids"]
    if (model is None) == (interactions is None):
        raise click.UsageError("give --interactions for a file of recommendations, or --model for a test file.")
    _check_options(choices, OF_MODEL if model is None else OF_LOG, "--model" if model is None else "--interactions")
    files.open_interactions(interactions)
    found: Scores
    if model is None:
        from semid.diagnostics.score import IDTable, score_recommendations
        from semid.tokenizer_exports.alignment.config import AlignmentConfig

        cuts = AlignmentConfig.from_dict({} if choices["cuts"] is None else {"cuts": choices["cuts"]}).cuts
        found = score_recommendations(
            source,
            files.open("interactions", str(interactions)),
            ids=None if ids is None else IDTable(ids),
            compare=compare,
            k=k,
            split=choices["split"] or "leave-one-out",
            cuts=cuts,
            bootstrap=bootstrap,
            **files.interaction_fields,
        )
    else:
        from semid.tokenizer_exports.generate.score_model import score_model_folder

        settings = {name: choices[name] for name in OF_MODEL if choices[name] is not None}
        found = score_model_folder(
            model, source, ids=ids, compare=compare, k=k, seed=seed, bootstrap=bootstrap, **settings
        )
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo("\n".join(found.summary()))


def _check_options(choices: dict[str, Any], names: tuple[str, ...], of: str) -> None:
    """Raise UsageError for an option of the other way to use the command."""
    for name in names:
        if choices[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with {of}, which is missing.")
