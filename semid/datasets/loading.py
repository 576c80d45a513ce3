"""A public set by its name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from semid.data import read_items
from semid.datasets.dataset import Dataset
from semid.datasets.files import Files
from semid.datasets.prepared_sets import lcrec, minionerec, recbole
from semid.datasets.public_sets import amazon2014, amazon2018, amazon2023, goodreads, movielens, steam, yelp
from semid.errors import ConfigError
from semid.files.problems import name_list

__all__ = ["load"]

DEBIAN = Path(__file__).with_name("debian-3000.jsonl")


class Source(NamedTuple):
    """How a set is read, and where to get it, in words."""

    read: Callable[[Files], Dataset]
    page: str


SETS = {
    "movielens": Source(movielens, "the MovieLens page of GroupLens"),
    "amazon2014": Source(amazon2014, "Julian McAuley's page of Amazon product data"),
    "amazon2018": Source(amazon2018, "the page of Amazon review data (2018)"),
    "amazon2023": Source(amazon2023, "the page of Amazon Reviews'23"),
    "yelp": Source(yelp, "the page of the Yelp Open Dataset"),
    "steam": Source(steam, "the Steam section of Julian McAuley's data sets"),
    "goodreads": Source(goodreads, "the page of the UCSD Book Graph"),
    "recbole": Source(recbole, "RecBole's list of data sets"),
    "lcrec": Source(lcrec, "the repository of LC-Rec"),
    "minionerec": Source(minionerec, "the repository of MiniOneRec"),
}


def load(name: str, folder: str | os.PathLike[str] | None = None, *, part: str | None = None) -> Dataset:
    """Load a data set: the sample catalog, or a public set from a folder with its files.

    Parameters
    ----------
    name : str
        "debian", the sample catalog of 3,000 packages that comes with semid; or "movielens", "amazon2014",
        "amazon2018", "amazon2023", "yelp", "steam", "goodreads", "recbole", "lcrec", "minionerec".
    folder : path, optional
        The folder with the files of a public set, as they were downloaded and unpacked; single files may stay
        compressed. Nothing is downloaded.
    part : str, optional
        The part of the set, if the folder holds several: "Beauty" for `meta_Beauty.json.gz`. By default the only one.

    Returns
    -------
    Dataset
        Items with the text fields of the set, and all interactions, unfiltered. The interactions are None for
        "debian", and if their file is not in the folder, which a warning says.

    Raises
    ------
    ConfigError
        There is no set of this name, or the folder is not given.
    InputError
        The file of the items is missing, several sets are in the folder, or a file cannot be read.

    >>> load("debian").items
    Items(3000 items; title, categories, description, tags)
    """
    if name == "debian":
        return Dataset(read_items(DEBIAN))
    if name not in SETS:
        known = ["debian", *SETS]
        near = difflib.get_close_matches(str(name), known, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"name={name!r}: no such data set.{guess} There are: {name_list(known)}.")
    source = SETS[name]
    if folder is None:
        raise ConfigError(f"folder=None: name the folder with the files of {name}. Get them from {source.page}.")
    return source.read(Files(folder, source.page, part))
