"""What is given beside histories and items: what people searched for, what they like, tokens that stand for them.

    {"query": "something red for the nails", "item": "B004756YJA"}                 what anybody might ask
    {"query": "...", "item": "B004756YJA", "user": "u1"}                           what led u1 to this item
    {"user": "u1", "preference": "likes strong colors"}                           or a list of texts

Texts are read record by record, from files as `semid.data.records` reads them, and never made up. Where a query has a
user, it belongs to the part of the split where that item of the user's history is asked. Records of unknown users or
items, and queries for items that their user never met, are counted and left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from semid.data.index_files import read_index
from semid.data.problems import Problems, name_list, quote
from semid.data.records import iter_records
from semid.data.values import clean_text, id_fault, id_string
from semid.errors import ConfigError, InputError
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.vocabulary import Vocabulary

__all__ = ["Preference", "Query", "check_given", "iter_preferences", "iter_queries", "read_user_tokens"]


class Query(NamedTuple):
    """A text that asks for an item; of a user, or of nobody in particular (-1)."""

    text: str
    row: int
    user: int


class Preference(NamedTuple):
    """A text that says what a user likes."""

    text: str
    user: int


def iter_queries(
    source: object, ids: SemanticIDTokenizer, users: Sequence[str], left_out: Counter[str]
) -> Iterator[Query]:
    """Queries with a known live item, and if they name a user, a known one; the others are counted in `left_out`.

    InputError at the end lists records without `query` or `item`.
    """
    problems = Problems.of(source)
    for line, record in iter_records(source, problems=problems):
        texts = _texts(record, "query", line, problems)
        item_id = _id(record, "item", line, problems)
        if not texts or item_id is None:
            continue
        (row,) = ids.ledger.find_rows([item_id])
        user = _user(record, users, line, problems)
        if row < 0 or ids.ledger.retired_generations(row.reshape(1))[0]:
            left_out["queries for items without a live ID"] += 1
        elif user is not None and user < 0:
            left_out["queries of unknown users"] += 1
        else:
            yield from (Query(text, int(row), -1 if user is None else user) for text in texts)
    problems.raise_if_any()


def iter_preferences(source: object, users: Sequence[str], left_out: Counter[str]) -> Iterator[Preference]:
    """Preferences of known users; the others are counted in `left_out`. InputError lists records that are none."""
    problems = Problems.of(source)
    for line, record in iter_records(source, problems=problems):
        texts = _texts(record, "preference", line, problems)
        if not texts:
            continue
        if "user" not in record:
            problems.add(line, f'missing field "user" (have: {name_list(record)}).')
            continue
        user = _user(record, users, line, problems)
        if user is not None and user < 0:
            left_out["preferences of unknown users"] += 1
        elif user is not None:
            yield from (Preference(text, user) for text in texts)
    problems.raise_if_any()


def check_given(source: object, found: int) -> None:
    """InputError where a file of texts gave nothing at all."""
    if not found:
        raise InputError(
            f"{Problems.of(source).name}: none of its records is about users and items of the interactions and the "
            "artifact. Are the ids the same?"
        )


def read_user_tokens(given: Mapping[str, str] | str | Path | None, vocabulary: Vocabulary) -> Mapping[str, str]:
    """User -> the tokens that stand for them, as text: a mapping, an index file, or a folder of `semid clusters`.

    ConfigError where a token could be taken for an item's.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) and Path(given).is_dir():
        from semid.clusters.tokens import ClusterTokens

        users = ClusterTokens.open(given).members("user")
        given = dict(zip(users.ids, users.vocabulary.texts(users.codes), strict=True))
    elif not isinstance(given, Mapping):
        index = read_index(given)
        given = {user: "".join(tokens) for user, tokens in zip(index.item_ids, index.tokens, strict=True)}
    for user, text in given.items():
        if vocabulary.find(text):
            raise ConfigError(
                f"user_tokens: {text!r} of user {user!r} reads as the ID of an item. Name users otherwise."
            )
    return given


def _texts(record: dict, name: str, line: int, problems: Problems) -> list[str]:
    """The text or texts of a field, clean, without empty ones."""
    if name not in record:
        problems.add(line, f"missing field {quote(name)} (have: {name_list(record)}).")
        return []
    given = record[name] if isinstance(record[name], list) else [record[name]]
    if not all(isinstance(text, str) for text in given):
        problems.add(line, f"field {quote(name)} should be a text or a list of texts.")
        return []
    return [text for text in map(clean_text, given) if text]


def _id(record: dict, name: str, line: int, problems: Problems) -> str | None:
    if name not in record:
        problems.add(line, f"missing field {quote(name)} (have: {name_list(record)}).")
        return None
    found = id_string(record[name])
    if found is None:
        problems.add(line, f"{name} {id_fault(record[name])}")
    return found


def _user(record: dict, users: Sequence[str], line: int, problems: Problems) -> int | None:
    """The place of the record's user among `users`, which are sorted; -1 if unknown, None if the record has none."""
    if record.get("user") in (None, ""):
        return None
    name = _id(record, "user", line, problems)
    if name is None:
        return None
    place = bisect_left(users, name)
    return place if place < len(users) and users[place] == name else -1
