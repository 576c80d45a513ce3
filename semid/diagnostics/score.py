"""`semid score`: how good the recommendations in a file are, on the held-out interactions of a log."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from semid.artifact import kinds
from semid.artifact.manifest import MANIFEST, read_manifest
from semid.artifact.top_k_cache import TopKCache
from semid.data.index_files import read_index
from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Interactions
from semid.data.splits import split_ends
from semid.errors import InputError
from semid.evaluation.intervals import Bootstrap
from semid.evaluation.scores import Scores, System, TestSet
from semid.files.problems import quote
from semid.runtime.checks import plural
from semid.runtime.progress import log_step
from semid.tokenizer import SemanticIDTokenizer

__all__ = ["IDTable", "UserLists", "read_recommendations", "score_recommendations"]

logger = logging.getLogger("semid")


class IDTable:
    """The items of an artifact or an index file, with their IDs as text."""

    def __init__(self, source: str | Path) -> None:
        path = Path(source)
        self.tokenizer = None if path.is_file() else SemanticIDTokenizer.from_pretrained(path)
        if self.tokenizer is None:
            index = read_index(source)
            texts = ["".join(tokens) for tokens in index.tokens]
            self.texts = dict(zip(index.item_ids, texts, strict=True))
        else:
            ledger = self.tokenizer.ledger
            rows = np.flatnonzero(ledger.live)
            texts = self.tokenizer.vocabulary.texts(ledger.codes_of(rows))
            self.texts = dict(zip((ledger.item_ids[row] for row in rows.tolist()), texts, strict=True))


def score_recommendations(
    recommendations: Any,
    interactions: object,
    *,
    ids: IDTable | None = None,
    compare: Any = None,
    k: Sequence[int] = (1, 5, 10, 20),
    split: str = "leave-one-out",
    cuts: tuple[float, float] = (0.8, 0.9),
    bootstrap: Bootstrap | None = None,
    user_field: str | None = None,
    item_field: str | None = None,
    time_field: str | None = None,
) -> Scores:
    """Score recommendations on the test part of a log, beside popularity and co-occurrence in its training part.

    Parameters
    ----------
    recommendations : path, or source of `read_interactions`
        A list of items for each user, best first: `{"user": ..., "items": [...]}`; or the folder of a `TopKCache`.
    interactions : source of `read_interactions`
        All interactions.
    ids : IDTable, optional
        The catalog with its IDs, if the lists hold IDs, or a cache is read. Default: the items of the interactions and
        of the lists.
    compare : as `recommendations`, optional
        Others to compare with, user by user.
    k : sequence of int
        Lengths of the lists to measure. Default: 1, 5, 10, 20.
    split, cuts
        What is held out, as in `split_ends`.
    bootstrap : Bootstrap, optional
        How to compute intervals. Default: 1,000 resamples, 95 %, seed 0.
    user_field, item_field, time_field : str, optional
        Fields of the interactions, as in `read_interactions`.

    Raises
    ------
    InputError
        A file is missing or wrong, no user has a test item, or users or items of two files are not the same.
    """
    log = read_interactions(interactions, user_field=user_field, item_field=item_field, time_field=time_field)
    sources = [recommendations] if compare is None else [recommendations, compare]
    names = [_name_of(one) for one in sources]
    if len(set(names)) < len(names):
        names = [str(one) for one in sources]
    found = {name: read_recommendations(one, ids) for name, one in zip(names, sources, strict=True)}
    catalog = _all_items(log, found) if ids is None else list(ids.texts)
    test = _test_set(log, split, cuts, catalog)
    log_step("read", f"{plural(len(test.users), 'test user')}, {plural(len(catalog), 'item')}")
    systems = {}
    for name, one in found.items():
        lists = [one.lists.get(user, []) for user in test.users]
        if not any(lists):
            raise InputError(f"{name}: has none of the test's users. Are the user ids the same?")
        if missing := sum(not items for items in lists):
            logger.warning("%s: nothing for %s of the test; they count as wrong", name, plural(missing, "user"))
        systems[name] = System(lists, ids.texts if one.hold_ids and ids is not None else catalog)
    return test.score(systems, k=k, bootstrap=bootstrap)


def _all_items(log: Interactions, systems: Mapping[str, UserLists]) -> list[str]:
    """Return the items of the interactions and of all recommendations."""
    met, shown = set(log.item_ids), set[str]()
    for name, one in systems.items():
        items = {item for items in one.lists.values() for item in items}
        if items.isdisjoint(met):
            example = quote(min(items, default=""))
            raise InputError(
                f"{name}: no item is in the interactions, such as {example}. Are the ids the same? "
                "Lists of IDs need --ids, the artifact or index file."
            )
        shown |= items
    if unmet := len(shown - met):
        logger.warning(
            "%s without an interaction: counted as part of the catalog. --ids gives all items", plural(unmet, "item")
        )
    return sorted(met | shown)


def _name_of(source: object) -> str:
    """Return the name of a system in the table: its file without the folders."""
    return Path(source).name if isinstance(source, str | os.PathLike) else "recommendations"


@dataclass(frozen=True)
class UserLists:
    """A list for each user, best first, of items or of IDs as text."""

    lists: dict[str, list[str]]
    hold_ids: bool


def read_recommendations(source: Any, ids: IDTable | None = None) -> UserLists:
    """Return the recommendations of each user.

    Parameters
    ----------
    source : path, or source of `read_interactions`
        `{"user": ..., "items": [...]}` records, or the folder of a `TopKCache`.
    ids : IDTable, optional
        The catalog. Lists that name none of its items hold IDs.

    Raises
    ------
    InputError
        The source cannot be read, or is a cache without its artifact.

    >>> read_recommendations([{"user": "u", "items": ["b", "a"]}])
    UserLists(lists={'u': ['b', 'a']}, hold_ids=False)
    """
    if isinstance(source, str | os.PathLike) and (Path(source) / MANIFEST).is_file():
        return _of_cache(Path(source), ids)
    read = read_interactions(source, time_field="")
    hold_ids = ids is not None and not any(item in ids.texts for item in read.item_ids)
    return UserLists(dict(read), hold_ids)


def _of_cache(folder: Path, ids: IDTable | None) -> UserLists:
    kinds.check_kind(folder, read_manifest(folder), kinds.TOP_K)
    if ids is None or ids.tokenizer is None:
        raise InputError(f"{folder}: holds codes. Give the artifact that they belong to: --ids DIR")
    cache = TopKCache.open(folder, ids.tokenizer.fingerprint)
    lists = dict[str, list[str]]()
    for row, user in enumerate(cache.users):
        codes = cache.codes[row, : int(cache.counts[row])]
        lists[user] = [item for item in ids.tokenizer.decode(codes) if item is not None]
    return UserLists(lists, hold_ids=False)


def _test_set(log: Interactions, split: str, cuts: tuple[float, float], catalog: Collection[str]) -> TestSet:
    """Return the users with test items, and the counts of the training part."""
    ends = split_ends(log, split, cuts)
    popularity, pairs = Counter[str](), list[tuple[str, str]]()
    relevant, users, last_items = [], [], []
    for number, (user, items) in enumerate(log):
        train_end, valid_end = ends[number].tolist()
        popularity.update(items[:train_end])
        pairs += pairwise(items[:train_end])
        if valid_end < len(items):
            relevant.append(items[valid_end:])
            users.append(user)
            last_items.append(items[valid_end - 1] if valid_end else "")
    if not users:
        raise InputError(f"{log.source}: no user has a test interaction under --split {split}.")
    return TestSet(relevant, users, last_items, popularity, pairs, catalog)
