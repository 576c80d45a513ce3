"""Data sets of the Hugging Face hub, `hf://owner/name`, through the package `datasets` where it is installed."""

from __future__ import annotations

from typing import Any

from semid.errors import DependencyError
from semid.files.problems import name_list
from semid.files.sources import SourceFault

__all__ = ["HUB", "load_from_hub"]

HUB = "hf://"
SHAPE = "hf://owner/name, hf://owner/name:split or hf://owner/name/configuration:split"


def load_from_hub(address: str) -> Any:
    """Return a split of a data set of the hub, a `datasets.Dataset`.

    Parameters
    ----------
    address : str
        `hf://owner/name`, with `/split` or `:split` behind it where there are several, and with a configuration as
        `hf://owner/name/configuration:split`.

    Raises
    ------
    SourceFault
        The address is none, the data set cannot be loaded, or it has several splits and none is named.
    DependencyError
        `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise DependencyError(f"{address} needs datasets. Install it with: pip install datasets") from error
    path, _, split = address.removeprefix(HUB).partition(":")
    owner, name, *rest = [*path.strip("/").split("/"), ""][:3] if path.count("/") < 2 else path.strip("/").split("/")
    rest = [piece for piece in rest if piece]
    if not owner or not name or len(rest) > 2 or (split and len(rest) > 1):
        raise SourceFault(f"is no address of a data set; expected {SHAPE}.")
    if rest and not split:
        split = rest.pop()
    try:
        loaded = datasets.load_dataset(f"{owner}/{name}", *rest)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().split("\n")[0]
        raise SourceFault(f"cannot be loaded: {first.rstrip('.')}.") from None
    splits = list(loaded)
    if not split and len(splits) > 1:
        raise SourceFault(f"holds the splits {name_list(splits)}. Name one, e.g. {HUB}{path}:{splits[0]}.")
    if split and split not in splits:
        raise SourceFault(f"has no split {split}. It has: {name_list(splits)}.")
    return loaded[split or splits[0]]
