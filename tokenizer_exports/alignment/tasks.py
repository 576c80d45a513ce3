"""Tasks: the cases of each task, before templates put them into words.

    next-item    IDs of a history                      -> ID of the next item
    text-to-id   title, description                    -> ID
    id-to-text   ID                                    -> title, description
    fusion       IDs of a history                      -> title or description of the next item
                 titles of a history                   -> ID of the next item
    search       a query, with or without a history    -> ID
    preference   IDs or titles of a history            -> a given text about what the user likes
    negative     a history and candidate items         -> the one that does not follow, or the one that does

A case holds the value of each placeholder. A template that needs other placeholders does not fit the case. Cases come
user by user or item by item, so memory holds one at a time.

Every item is asked about in training, whether it is held out for a user or not: that an item has a title is no
interaction. Some are asked again in validation or test, with another wording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import NamedTuple

from semid.runtime.keyed_random import chance, share
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.alignment.config import SPLITS, AlignmentConfig
from semid.tokenizer_exports.alignment.extra_texts import iter_preferences, iter_queries
from semid.tokenizer_exports.alignment.item_texts import ItemTexts, plain_text
from semid.tokenizer_exports.alignment.negatives import Negatives
from semid.tokenizer_exports.alignment.split import Seen, SplitHistories
from semid.tokenizer_exports.alignment.templates import Values

__all__ = ["CASES", "Case", "Material", "n_train_cases"]

ASKED_AGAIN = 0.05  # share of the items, and of the texts without a place in a history, in validation; as many in test


class Case(NamedTuple):
    """What one record is made of."""

    split: str
    key: tuple[object, ...]  # identifies the case in its task; its random draws depend on it
    values: Values
    user: str  # "" for none
    item_id: str  # the item that is asked about; "" for a user's preference
    wrong_id: str = ""  # the item to answer with in templates with {wrong}
    reworded: bool = False  # use another template than in training


@dataclass(frozen=True, eq=False)
class Material:
    """Everything that cases are made of."""

    ids: SemanticIDTokenizer
    histories: SplitHistories
    texts: ItemTexts
    config: AlignmentConfig
    queries: object = None  # sources, read when their task comes
    preferences: object = None
    user_tokens: Mapping[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @cached_property
    def negatives(self) -> Negatives:
        """Draws negatives; made at first use."""
        return Negatives(self.ids, self.histories.train_rows(), self.config.negatives)

    def history(self, user: int, seen: Seen) -> _Shown:
        """Return a user's items as text, for all places of the history."""
        named = self.histories.users[user]
        return _Shown(named, self.user_tokens.get(named, ""), seen, self.texts, self.config.max_history)

    def clean(self, text: str) -> str:
        """Return a given text without what reads as an ID."""
        return plain_text(self.ids.vocabulary, text, self.config.max_text)


class _Shown:
    """The items of one user that a part of the split may show, as text."""

    def __init__(self, user: str, token: str, seen: Seen, texts: ItemTexts, max_history: int) -> None:
        self.user, self.token, self.seen, self.texts, self.max_history = user, token, seen, texts, max_history
        self.semantic_ids = texts.semantic_ids(seen.rows) if seen.rows else []

    @cached_property
    def titles(self) -> list[str]:
        """The title of each item, "" where it has none."""
        return [self.texts.title(row) for row in self.seen.rows]

    def before(self, place: int, *, titles: bool) -> dict[str, str | list[str]]:
        """Return the values of the user and of the latest items before a place."""
        start = max(0, place - self.max_history)
        values: dict[str, str | list[str]] = {"user": self.token, "history": self.semantic_ids[start:place]}
        if titles:
            values["titles"] = [title for title in self.titles[start:place] if title]
        return values


def n_train_cases(task: str, material: Material) -> int | None:
    """Return the number of training cases of a task, an upper bound; None if only reading a file can tell."""
    if task in ("text-to-id", "id-to-text"):
        return material.ids.ledger.n_live
    if task in ("next-item", "fusion", "negative"):
        return material.histories.n_places("train")
    return None


def _places(material: Material) -> Iterator[tuple[int, str, _Shown, int]]:
    """Yield every place of every history that a part asks for: user, part, items, place."""
    for user in material.histories:
        for split in SPLITS:
            seen = material.histories.seen(user, split)
            if not seen.places():
                continue
            shown = material.history(user, seen)
            for place in seen.places():
                yield user, split, shown, place


def next_item(material: Material) -> Iterator[Case]:
    """Yield IDs of a history -> ID of the next item, at every place."""
    for _, split, shown, place in _places(material):
        values = shown.before(place, titles=False) | {"item": shown.semantic_ids[place]}
        yield Case(split, (shown.user, place), values, shown.user, material.ids.item_ids[shown.seen.rows[place]])


def fusion(material: Material) -> Iterator[Case]:
    """Yield IDs -> text of the next item and titles -> its ID, at every place."""
    for _, split, shown, place in _places(material):
        row = shown.seen.rows[place]
        values = shown.before(place, titles=True) | {
            "item": shown.semantic_ids[place],
            "title": shown.titles[place],
            "description": material.texts.description(row),
        }
        yield Case(split, (shown.user, place), values, shown.user, material.ids.item_ids[row])


def negative(material: Material) -> Iterator[Case]:
    """Yield a history and candidates -> the one that does not follow, or the only one that does."""
    count, of_user, met = material.config.candidates, -1, set()
    for user, split, shown, place in _places(material):
        if user != of_user:
            of_user, met = user, set(material.histories.all_rows(user))
        draws = chance(material.config.seed, "options", split, shown.user, place)
        rows = shown.seen.rows
        wrong = material.negatives.draw(draws, rows[place], met, count - 1)
        if not wrong:
            continue  # somebody who met the whole catalog
        right = list(dict.fromkeys(rows[place:]))[: count - 1]
        named = dict(zip([*right, *wrong], material.texts.semantic_ids([*right, *wrong]), strict=True))
        values = shown.before(place, titles=False) | {
            "options_one_wrong": _shuffled(draws, [named[row] for row in [*right, wrong[0]]]),
            "options_one_right": _shuffled(draws, [named[row] for row in [rows[place], *wrong]]),
            "wrong": named[wrong[0]],
            "item": named[rows[place]],
        }
        item_id, wrong_id = (material.ids.item_ids[row] for row in (rows[place], wrong[0]))
        yield Case(split, (shown.user, place), values, shown.user, item_id, wrong_id)


def text_to_id(material: Material) -> Iterator[Case]:
    """Yield title, description -> ID, for every live item."""
    return _about_items(material)


def id_to_text(material: Material) -> Iterator[Case]:
    """Yield ID -> title, description, for every live item."""
    return _about_items(material)


def _about_items(material: Material) -> Iterator[Case]:
    live = material.ids.ledger.live
    for row in range(len(live)):
        if not live[row]:
            continue
        item_id = material.ids.item_ids[row]
        values = {
            "item": material.texts.semantic_ids([row])[0],
            "title": material.texts.title(row),
            "description": material.texts.description(row),
        }
        case = Case("train", (item_id,), values, "", item_id)
        yield case
        part = _part(material, "item", item_id)
        if part != "train":
            yield case._replace(split=part, reworded=True)


def search(material: Material) -> Iterator[Case]:
    """Yield a query -> ID, with the items that its user had met by then."""
    for query in iter_queries(material.queries, material.ids, material.histories.users, material.left_out):
        text, item_id = material.clean(query.text), material.ids.item_ids[query.row]
        values: dict = {"query": text, "item": material.texts.semantic_ids([query.row])[0]}
        if query.user < 0:
            yield Case(_part(material, "query", text), (text, item_id), values, "", item_id)
            continue
        found = material.histories.part_of(query.user, query.row)
        if found is None:
            material.left_out["queries for items that their user never met"] += 1
            continue
        split, place = found
        shown = material.history(query.user, material.histories.seen(query.user, split))
        values |= shown.before(place, titles=True)
        yield Case(split, (text, item_id, shown.user), values, shown.user, item_id)


def preference(material: Material) -> Iterator[Case]:
    """Yield training items of a user -> what they like; all texts of a user are in one part."""
    for given in iter_preferences(material.preferences, material.histories.users, material.left_out):
        shown = material.history(given.user, material.histories.seen(given.user, "train"))
        text = material.clean(given.text)
        if not shown.semantic_ids:
            material.left_out["preferences of users without an interaction in training"] += 1
            continue
        values = shown.before(len(shown.semantic_ids), titles=True) | {"preference": text}
        yield Case(_part(material, "user", shown.user), (shown.user, text), values, shown.user, "")


CASES: dict[str, Callable[[Material], Iterator[Case]]] = {
    "next-item": next_item,
    "text-to-id": text_to_id,
    "id-to-text": id_to_text,
    "fusion": fusion,
    "search": search,
    "preference": preference,
    "negative": negative,
}


def _part(material: Material, kind: str, key: str) -> str:
    """Draw the part of something that has no place in a history."""
    drawn = share(material.config.seed, "part", kind, key)
    if drawn < ASKED_AGAIN:
        return "validation"
    return "test" if drawn < 2 * ASKED_AGAIN else "train"


def _shuffled(draws: Random, options: list[str]) -> list[str]:
    draws.shuffle(options)
    return options
