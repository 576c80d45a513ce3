"""Public sets as their pages offer them: MovieLens, Amazon reviews of 2014, 2018 and 2023, Yelp, Steam, Goodreads.

Each function finds the files of a set and names their fields. `semid.data` reads them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semid.data import Interactions, Items, read_interactions, read_items
from semid.datasets.dataset import Dataset
from semid.datasets.files import Files
from semid.errors import InputError
from semid.files import Reading, RecordFile, iter_records

__all__ = ["amazon2014", "amazon2018", "amazon2023", "goodreads", "movielens", "steam", "yelp"]

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
MOVIES = ("movieId", "title", "genres")
MOVIELENS = {  # file of the items -> its delimiter and columns; file of the ratings, its delimiter
    "movies.csv": ("comma", MOVIES, "ratings.csv", "comma"),
    "movies.dat": ("::", MOVIES, "ratings.dat", "::"),
    "u.item": ("pipe", ("movieId", "title", "release_date", "video_release_date", "url", *GENRES), "u.data", "tab"),
}
RATINGS = ("userId", "movieId", "rating", "timestamp")
ASKED = 1000  # records in which the text fields of a set are looked for


def movielens(files: Files) -> Dataset:
    """MovieLens of any size: `.csv` files, `.dat` files (1M and 10M) or `u.item` and `u.data` (100K)."""
    path = files.of_items(*MOVIELENS)
    delimiter, columns, ratings, tab = next(found for name, found in MOVIELENS.items() if path.name.startswith(name))
    try:
        movies = _records(path, Reading(delimiter=delimiter, columns=columns, encoding="utf-8"))
    except InputError:  # the older sets
        movies = _records(path, Reading(delimiter=delimiter, columns=columns, encoding="latin-1"))
    for movie in movies:
        movie["genres"] = movie["genres"].split("|") if "genres" in movie else [g for g in GENRES if movie[g] == "1"]
    items = replace(read_items(movies, text="title,genres", id_field="movieId"), source=str(path))
    for log in files.of_interactions(ratings):
        return Dataset(items, _log(log, "userId", "movieId", "timestamp", delimiter=tab, columns=RATINGS))
    return Dataset(items)


def amazon2014(files: Files) -> Dataset:
    """Amazon reviews until 2014: `meta_X.json.gz`, with `reviews_X_5.json.gz` or another file of them."""
    items = _items(files.of_items("meta_*.json"), "asin", ("title", "brand", "categories", "description"))
    columns = ("reviewerID", "asin", "overall", "unixReviewTime")
    return Dataset(
        items, _reviews(files, columns, "reviews_{part}_5.json", "reviews_{part}.json", "ratings_{part}.csv")
    )


def amazon2018(files: Files) -> Dataset:
    """Amazon reviews until 2018: `meta_X.json.gz`, with `X_5.json.gz`, `X.json.gz` or the ratings in `X.csv`."""
    fields = ("title", "brand", "category", "feature", "description")
    items = _items(files.of_items("meta_*.json"), "asin", fields, duplicates="first")  # some products are there twice
    columns = ("asin", "reviewerID", "overall", "unixReviewTime")
    return Dataset(items, _reviews(files, columns, "{part}_5.json", "{part}.json", "{part}_5.csv", "{part}.csv"))


def amazon2023(files: Files) -> Dataset:
    """Amazon reviews until 2023: `meta_X.jsonl.gz`, with `X.jsonl.gz` or the ratings in `X.csv.gz`."""
    fields = ("title", "store", "main_category", "categories", "features", "description")
    items = _items(files.of_items("meta_*.jsonl"), "parent_asin", fields)
    for path in files.of_interactions("{part}.jsonl", "{part}.csv"):
        return Dataset(items, _log(path, "user_id", "parent_asin", "timestamp"))
    return Dataset(items)


def yelp(files: Files) -> Dataset:
    """Yelp's open data: businesses as items, reviews as interactions."""
    path = files.of_items("yelp_academic_dataset_business.json", "business.json")
    items = _items(path, "business_id", ("name", "categories", "city", "state"))
    for reviews in files.of_interactions("yelp_academic_dataset_review.json", "review.json"):
        return Dataset(items, _log(reviews, "user_id", "business_id", "date"))
    return Dataset(items)


def steam(files: Files) -> Dataset:
    """Steam: games, and reviews with their dates, or else the games that Australian users own, in no known order."""
    path = files.of_items("steam_games.json", "output_steam_games.json")
    fields = ("title", "app_name", "developer", "publisher", "genres", "tags", "specs")
    items = _items(path, "id", fields, skip_bad_rows=True, duplicates="first")  # two games have no id
    for log in files.of_interactions("steam_reviews.json", "steam_new.json", "australian_users_items.json"):
        if not log.name.startswith("australian"):
            return Dataset(items, _log(log, "username", "product_id", "date"))
        owners = (user for _, user in iter_records(log))
        owned = ({"user": user["user_id"], "items": [game["item_id"] for game in user["items"]]} for user in owners)
        histories = read_interactions(owned, duplicates="first")  # some users are there twice
        return Dataset(items, replace(histories, source=str(log)))
    return Dataset(items)


def goodreads(files: Files) -> Dataset:
    """Goodreads, all books or those of a genre: books, and interactions by the day a user added a book to a shelf."""
    genres = "goodreads_books_*.json"
    path = files.of_items(genres) if files.part else files.of_items("goodreads_books.json", genres)
    part = "_{part}" if files.part else ""
    items = _items(path, "book_id", ("title", "description", "publisher"))
    for log in files.of_interactions(f"goodreads_interactions{part}.json", "goodreads_interactions.csv"):
        if ".csv" not in log.name:
            return Dataset(items, _log(log, "user_id", "book_id", "date_added"))
        for numbers in files.of_interactions("book_id_map.csv"):  # the table has numbers of its own for the books
            names = {row["book_id_csv"]: row["book_id"] for _, row in iter_records(numbers)}
            return Dataset(items, _renamed(_log(log, "user_id", "book_id", ""), names))
    return Dataset(items)


# ---- What the sets have in common


def _records(path: Path, reading: Reading) -> list[dict[str, Any]]:
    return [record for _, record in iter_records(path, reading=reading)]


def _items(path: Path, id_field: str, text: Sequence[str], **reading: Any) -> Items:
    """Read the items with those of the fields that they have."""
    found = _fields(path, Reading(**reading))
    return read_items(path, text=[name for name in text if name in found] or None, id_field=id_field, **reading)


def _fields(path: Path, reading: Reading) -> set[str]:
    """Return the fields of the first records, without a word on how the file is read: that is said later."""
    logger = logging.getLogger("semid")
    before, logger.disabled = logger.disabled, True
    try:
        return {name for _, record in islice(iter_records(path, reading=reading), ASKED) for name in record}
    finally:
        logger.disabled = before


def _log(path: Path, user: str, item: str, time: str, **reading: Any) -> Interactions:
    source = RecordFile(path, Reading(**reading))
    return read_interactions(source, user_field=user, item_field=item, time_field=time)


def _reviews(files: Files, columns: Sequence[str], *names: str) -> Interactions | None:
    """Read Amazon's reviews, or its ratings, whose columns have no names."""
    for path in files.of_interactions(*names):
        named = {"columns": tuple(columns), "delimiter": ","} if ".csv" in path.name else {}
        return _log(path, "reviewerID", "asin", "unixReviewTime", **named)
    return None


def _renamed(log: Interactions, names: dict[str, str]) -> Interactions:
    """Return interactions whose items have other ids, each its own."""
    ids = [names.get(item_id, item_id) for item_id in log.item_ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rank = np.empty(len(ids), np.int32)
    rank[order] = np.arange(len(ids))
    return replace(log, item_ids=[ids[row] for row in order], items=rank[log.items])
