"""Search queries, preferences and user tokens from files, besides histories and items.

    {"query": "something red for the nails", "item": "B004756YJA"}                 anybody's query
    {"query": "...", "item": "B004756YJA", "user": "u1"}                           the query that led u1 to this item
    {"user": "u1", "preference": "likes strong colors"}                            or a list of texts

Records are read one by one, from sources as `semid.files.iter_records` reads them. A query with a user belongs to the
part of the split where the item of the user's history is asked. Records of unknown users or items, and queries for
items that their user never met, are counted and left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from semid.data.index_files import read_index
from semid.data.values import clean_text, id_fault, id_string
from semid.errors import ConfigError, InputError
from semid.files.problems import Problems, name_list, quote
from semid.files.records import iter_records
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.vocabulary import Vocabulary

__all__ = ["Preference", "Query", "check_given", "iter_preferences", "iter_queries", "read_user_tokens"]


class Query(NamedTuple):
    """A text that asks for an item."""

    text: str
    row: int  # of the item
    user: int  # place among the users of the histories; -1: nobody in particular


class Preference(NamedTuple):
    """A text that says what a user likes."""

    text: str
    user: int  # place among the users of the histories


def iter_queries(
    source: object, ids: SemanticIDTokenizer, users: Sequence[str], left_out: Counter[str]
) -> Iterator[Query]:
    """Yield the queries for live items, of known users or of no user.

    Parameters
    ----------
    source : path, iterable of dicts, ...
        See `semid.files.iter_records`.
    ids : SemanticIDTokenizer
        The artifact.
    users : sequence of str
        The users of the histories, sorted.
    left_out : Counter
        Counts the other queries, by reason.

    Raises
    ------
    InputError
        At the end: lists records without `query` or `item`.
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
    problems.finish()


def iter_preferences(source: object, users: Sequence[str], left_out: Counter[str]) -> Iterator[Preference]:
    """Yield the preferences of known users; see `iter_queries`. InputError lists records without one at the end."""
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
    problems.finish()


def check_given(source: object, found: int) -> None:
    """Raise InputError if a file of texts gave no record."""
    if not found:
        raise InputError(
            f"{Problems.of(source).name}: none of its records is about users and items of the interactions and the "
            "artifact. Are the ids the same?"
        )


def read_user_tokens(given: Mapping[str, str] | str | Path | None, vocabulary: Vocabulary) -> Mapping[str, str]:
    """Return the tokens of each user, as text.

    Parameters
    ----------
    given : dict, path or None
        User -> tokens as text; an index file {user: ["<t>", ...]}; or a folder that `semid clusters` wrote.
    vocabulary : Vocabulary
        The tokens of the items.

    Raises
    ------
    ConfigError
        A user's tokens read as the ID of an item.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) and Path(given).is_dir():
        from semid.clusters.tokens import ClusterTokens

        users = ClusterTokens.open(given).members("user")
        given = dict(zip(users.ids, users.vocabulary.texts(users.codes), strict=True))
    elif not isinstance(given, Mapping):
        index = read_index(given)
        if index.is_codes:
            raise InputError(f"{given}: holds codes. Give the tokens of users as text, such as <u_1><u_2>.")
        given = {user: "".join(tokens) for user, tokens in zip(index.item_ids, index.tokens, strict=True)}
    for user, text in given.items():
        if vocabulary.find(text):
            raise ConfigError(
                f"user_tokens: {text!r} of user {user!r} reads as the ID of an item. Name users otherwise."
            )
    return given


def _texts(record: dict[str, Any], name: str, line: int, problems: Problems) -> list[str]:
    """Return the text or texts of a field, cleaned, without empty ones."""
    if name not in record:
        problems.add(line, f"missing field {quote(name)} (have: {name_list(record)}).")
        return []
    given = record[name] if isinstance(record[name], list) else [record[name]]
    if not all(isinstance(text, str) for text in given):
        problems.add(line, f"field {quote(name)} should be a text or a list of texts.")
        return []
    return [text for text in map(clean_text, given) if text]


def _id(record: dict[str, Any], name: str, line: int, problems: Problems) -> str | None:
    if name not in record:
        problems.add(line, f"missing field {quote(name)} (have: {name_list(record)}).")
        return None
    found = id_string(record[name])
    if found is None:
        problems.add(line, f"{name} {id_fault(record[name])}")
    return found


def _user(record: dict[str, Any], users: Sequence[str], line: int, problems: Problems) -> int | None:
    """Return the place of the record's user among the sorted `users`; -1 if unknown, None if the record has none."""
    if record.get("user") in (None, ""):
        return None
    name = _id(record, "user", line, problems)
    if name is None:
        return None
    place = bisect_left(users, name)
    return place if place < len(users) and users[place] == name else -1
