"""The model card of an artifact: what it holds, how good it is, how to use it."""

from __future__ import annotations

from semid._version import __version__
from semid.evaluation.quality import Quality
from semid.state import TokenizerState

__all__ = ["model_card"]


def model_card(ids: TokenizerState, repo_id: str, quality: Quality) -> str:
    """Return the README of a Hub repository: what the artifact is, how to use it, how good it is."""
    from jinja2 import Environment, PackageLoader

    template = Environment(loader=PackageLoader("semid"), trim_blocks=True, lstrip_blocks=True).get_template("card.md")
    example = ids.item_ids[0]
    return template.render(
        repo_id=repo_id,
        n_items=len(ids),
        sizes=" x ".join(map(str, ids.sizes)),
        config=ids.config.to_dict() if ids.config is not None else None,
        imported_from=ids.imported_from,
        lines=quality.summary(),
        example_id=example,
        example_tokens=ids.vocabulary.text(ids.codes[0]),
        version=__version__,
    )
