"""Public sets from small files with the structure of the originals: right items, text, histories, and clear errors."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
from pathlib import Path

import pytest

import semid
from semid.datasets import load
from semid.errors import ConfigError, InputError

COMPRESSORS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def put(folder: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    """Write a file, compressed as its name says."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(COMPRESSORS.get(path.suffix, bytes)(text.encode(encoding)))


def json_lines(*records: dict) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def python_lines(*records: dict) -> str:
    return "".join(f"{record!r}\n" for record in records)


def texts(items: semid.data.Items) -> dict[str, str]:
    return dict(zip(items.ids, items.texts(), strict=True))


# ---- The sample


def test_the_sample_comes_with_semid():
    items = semid.datasets.load("debian").items
    assert len(items) == 3000 and list(items.fields) == ["title", "categories", "description", "tags"]
    git = dict(zip(items.ids, items.fields["description"], strict=True))["git"]
    assert git == "fast, scalable, distributed revision control system"
    assert semid.datasets.load("debian").interactions is None


# ---- MovieLens

MOVIES = {"1": ("Été (1995)", ["Drama", "War"]), "2": ("Lamp, The (1996)", ["Comedy"])}
RATINGS = [("7", "2", "5", "20"), ("7", "1", "3", "10"), ("9", "2", "1", "30")]


GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def movielens_100k(folder: Path, encoding: str) -> None:
    rows = [
        [number, title, "01-Jan-1995", "", "http://x.example.com", *("1" if g in of else "0" for g in GENRES)]
        for number, (title, of) in MOVIES.items()
    ]
    put(folder, "u.item", "".join("|".join(row) + "\n" for row in rows), "latin-1")
    put(folder, "u.data", "".join("\t".join(row) + "\n" for row in RATINGS))
    put(folder, "u.genre", "unknown|0\n")


def movielens_dat(folder: Path, encoding: str) -> None:
    rows = [(number, title, "|".join(genres)) for number, (title, genres) in MOVIES.items()]
    put(folder, "ml/movies.dat", "".join("::".join(row) + "\n" for row in rows), encoding)
    put(folder, "ml/ratings.dat", "".join("::".join(row) + "\n" for row in RATINGS))
    put(folder, "ml/users.dat", "7::F::1::10::48067\n")


def movielens_csv(folder: Path, encoding: str) -> None:
    rows = [(number, title, "|".join(genres)) for number, (title, genres) in MOVIES.items()]
    lines = "".join(f'{number},"{title}",{genres}\n' for number, title, genres in rows)
    put(folder, "movies.csv", "movieId,title,genres\n" + lines)
    put(folder, "ratings.csv.gz", "userId,movieId,rating,timestamp\n" + "".join(",".join(r) + "\n" for r in RATINGS))
    put(folder, "tags.csv", "userId,movieId,tag,timestamp\n7,1,long,5\n")


@pytest.mark.parametrize(
    ("write", "encoding"),
    [(movielens_100k, "latin-1"), (movielens_dat, "latin-1"), (movielens_dat, "utf-8"), (movielens_csv, "utf-8")],
)
def test_movielens_of_any_size(tmp_path, write, encoding):
    write(tmp_path, encoding)
    found = load("movielens", tmp_path)
    assert found.items.fields == {"title": ["Été (1995)", "Lamp, The (1996)"], "genres": ["Drama, War", "Comedy"]}
    assert found.items.ids == ["1", "2"] and found.items.id_field == "movieId"
    assert dict(found.interactions) == {"7": ["1", "2"], "9": ["2"]}
    assert found.interactions.times.tolist() == [10, 20, 30]


# ---- Amazon


def test_amazon_of_2014_from_lines_of_python(tmp_path, caplog):
    meta = python_lines(
        {
            "asin": "B1",
            "title": 'Ann\'s "red" lamp',
            "categories": [["Home", "Lamps"]],
            "imUrl": "http://x",
            "price": 1.5,
        },
        {"asin": "B2", "description": "Blue.", "related": {"also_bought": ["B1"]}, "brand": "Lux"},
    )
    put(tmp_path, "meta_Home.json.gz", meta)
    reviews = [("A", "B2", 30), ("A", "B1", 20), ("C", "B1", 10)]
    rows = [{"reviewerID": u, "asin": i, "reviewText": "x", "unixReviewTime": t} for u, i, t in reviews]
    put(tmp_path, "reviews_Home_5.json.gz", json_lines(*rows[:2]))
    put(tmp_path, "reviews_Home.json.gz", json_lines(*rows))
    found = load("amazon2014", tmp_path)
    assert [line for line in caplog.messages if "Python literal" in line] == caplog.messages[:1]  # said once
    assert texts(found.items) == {"B1": 'Ann\'s "red" lamp. Home, Lamps', "B2": "Lux. Blue."}
    assert dict(found.interactions) == {"A": ["B1", "B2"]}  # the 5-core before the whole
    (tmp_path / "reviews_Home_5.json.gz").unlink()
    assert dict(load("amazon2014", tmp_path).interactions) == {"A": ["B1", "B2"], "C": ["B1"]}
    (tmp_path / "reviews_Home.json.gz").unlink()
    put(tmp_path, "ratings_Home.csv", "".join(f"{u},{i},5.0,{t}\n" for u, i, t in reviews))
    assert dict(load("amazon2014", tmp_path).interactions) == {"A": ["B1", "B2"], "C": ["B1"]}


def test_amazon_of_2018_with_products_that_are_there_twice(tmp_path):
    product = {"asin": "B1", "title": "Red lamp", "brand": "Lux", "category": ["Home"], "feature": ["<b>small</b>"]}
    product |= {"description": ["Nice."], "also_buy": ["B2"], "rank": ["5 in Home"], "tech1": "", "price": "$3.99"}
    put(tmp_path, "meta_Home.json.gz", json_lines(product, product, {"asin": "B2", "title": "Blue lamp"}))
    reviews = [("A", "B2", 30), ("A", "B1", 20)]
    rows = [{"reviewerID": u, "asin": i, "overall": 5.0, "unixReviewTime": t, "verified": True} for u, i, t in reviews]
    put(tmp_path, "Home_5.json.gz", json_lines(*rows))
    found = load("amazon2018", tmp_path)
    assert texts(found.items) == {"B1": "Red lamp. Lux. Home. small. Nice.", "B2": "Blue lamp"}
    assert dict(found.interactions) == {"A": ["B1", "B2"]}
    (tmp_path / "Home_5.json.gz").unlink()
    put(tmp_path, "Home.csv", "".join(f"{i},{u},5.0,{t}\n" for u, i, t in reviews))  # the item first
    assert dict(load("amazon2018", tmp_path).interactions) == {"A": ["B1", "B2"]}


def test_amazon_of_2023_by_parent_asin(tmp_path):
    meta = [
        {
            "main_category": "All Beauty", "title": "Brush", "average_rating": 4.5, "features": ["soft"], "price": None,
            "description": ["Good."], "images": [{"thumb": "http://x"}], "videos": [], "store": "Lux",
            "categories": ["Hair"], "details": {"Brand": "Lux"}, "parent_asin": "P1", "bought_together": None,
        },
        {"title": "Comb", "parent_asin": "P2", "features": [], "description": [], "categories": [], "store": None},
    ]  # fmt: skip
    put(tmp_path, "meta_All_Beauty.jsonl.gz", json_lines(*meta))
    reviews = [("U", "X9", "P2", 1588687728923), ("U", "X1", "P1", 1588615855070)]
    rows = [{"rating": 5.0, "asin": a, "parent_asin": p, "user_id": u, "timestamp": t} for u, a, p, t in reviews]
    put(tmp_path, "All_Beauty.jsonl.gz", json_lines(*rows))
    found = load("amazon2023", tmp_path)
    assert texts(found.items) == {"P1": "Brush. Lux. All Beauty. Hair. soft. Good.", "P2": "Comb"}
    assert dict(found.interactions) == {"U": ["P1", "P2"]}
    (tmp_path / "All_Beauty.jsonl.gz").unlink()
    ratings = "".join(f"{u},{p},5.0,{t}\n" for u, _, p, t in reviews)
    put(tmp_path, "All_Beauty.csv.gz", "user_id,parent_asin,rating,timestamp\n" + ratings)
    assert dict(load("amazon2023", tmp_path).interactions) == {"U": ["P1", "P2"]}


# ---- Yelp, Steam, Goodreads


def test_yelp(tmp_path):
    business = {"business_id": "b1", "name": "Lamp Café", "city": "Tampa", "state": "FL", "stars": 4.5, "is_open": 1}
    business |= {
        "categories": "Coffee, Lamps",
        "attributes": {"WiFi": "u'free'"},
        "hours": None,
        "postal_code": "33602",
    }
    put(tmp_path, "yelp_academic_dataset_business.json", json_lines(business, business | {"business_id": "b2"}))
    rows = [("u", "b1", "2018-07-07 22:09:11"), ("u", "b2", "2012-01-03 15:28:18")]
    reviews = [
        {"review_id": d, "user_id": u, "business_id": b, "stars": 3.0, "text": "ok", "date": d} for u, b, d in rows
    ]
    put(tmp_path, "yelp_academic_dataset_review.json", json_lines(*reviews))
    found = load("yelp", tmp_path)
    assert texts(found.items)["b1"] == "Lamp Café. Coffee, Lamps. Tampa. FL"
    assert dict(found.interactions) == {"u": ["b2", "b1"]}


def test_steam_reviews_and_owned_games(tmp_path, caplog):
    games = python_lines(
        {
            "publisher": "Kot",
            "genres": ["Action", "Indie"],
            "app_name": "Lost",
            "title": "Lost",
            "id": "76",
            "price": 4.99,
        },
        {"url": "http://x", "reviews_url": "http://y", "price": 0.0},
        {"app_name": "O'Hara", "tags": ["Indie"], "id": "40"},
        {"app_name": "Again", "id": "40"},
    )
    put(tmp_path, "steam_games.json.gz", games)
    owned = [
        {"user_id": "u", "items_count": 2, "items": [{"item_id": "76", "playtime_forever": 6}, {"item_id": "40"}]},
        {"user_id": "none", "items_count": 0, "items": []},
        {"user_id": "u", "items_count": 2, "items": [{"item_id": "76", "playtime_forever": 6}, {"item_id": "40"}]},
    ]
    put(tmp_path, "australian_users_items.json.gz", python_lines(*owned))
    with caplog.at_level(logging.WARNING, "semid"):
        found = load("steam", tmp_path)
    assert "skipped 1 of 4 rows" in caplog.text
    assert texts(found.items) == {"76": "Lost. Lost. Kot. Action, Indie", "40": "O'Hara. Indie"}
    assert dict(found.interactions) == {"none": [], "u": ["76", "40"]}
    rows = [("v", "40", "2017-12-17"), ("v", "76", "2016-01-02")]
    reviews = [{"username": u, "hours": 6.4, "product_id": i, "date": d, "text": "Ann's"} for u, i, d in rows]
    put(tmp_path, "steam_reviews.json.gz", python_lines(*reviews))
    assert dict(load("steam", tmp_path).interactions) == {"v": ["76", "40"]}


def test_goodreads_of_a_genre_and_of_all_books(tmp_path):
    books = [
        {"book_id": "5333265", "title": "W.C. Fields", "description": "A life.", "authors": [{"author_id": "604031"}]},
        {"book_id": "1333909", "title": "Good Harbor", "publisher": "Simon", "popular_shelves": [{"name": "to-read"}]},
    ]
    put(tmp_path / "genre", "goodreads_books_comics.json.gz", json_lines(*books))
    rows = [("u", "5333265", "Wed Mar 22 11:37:04 -0700 2017"), ("u", "1333909", "Tue Jul 30 11:44:15 -0700 2013")]
    events = [
        {"user_id": u, "book_id": b, "is_read": True, "rating": 5, "date_added": d, "read_at": ""} for u, b, d in rows
    ]
    put(tmp_path / "genre", "goodreads_interactions_comics.json.gz", json_lines(*events))
    found = load("goodreads", tmp_path / "genre")
    assert texts(found.items) == {"5333265": "W.C. Fields. A life.", "1333909": "Good Harbor. Simon"}
    assert dict(found.interactions) == {"u": ["1333909", "5333265"]}

    put(tmp_path / "all", "goodreads_books.json.gz", json_lines(*books))
    put(
        tmp_path / "all",
        "goodreads_interactions.csv",
        "user_id,book_id,is_read,rating,is_reviewed\n0,1,1,5,0\n0,0,1,4,0\n",
    )
    put(tmp_path / "all", "book_id_map.csv", "book_id_csv,book_id\n0,5333265\n1,1333909\n")
    log = load("goodreads", tmp_path / "all").interactions
    assert dict(log) == {"0": ["1333909", "5333265"]}  # numbers of the table are ids of books now
    assert log.item_ids == ["1333909", "5333265"]


# ---- As other systems prepare sets


def test_recbole(tmp_path):
    put(
        tmp_path, "ml.item", "item_id:token\tmovie_title:token_seq\tyear:float\n2\tRed Lamp\t1995\n3\tBlue Lamp\t1996\n"
    )
    put(tmp_path, "ml.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t30\n1\t3\t20\n")
    found = load("recbole", tmp_path)
    assert texts(found.items) == {"2": "Red Lamp", "3": "Blue Lamp"}
    assert dict(found.interactions) == {"1": ["3", "2"]}


def test_lcrec(tmp_path):
    items = {"0": {"title": "Red lamp", "description": "small"}, "1": {"title": "Blue lamp", "description": ""}}
    put(tmp_path, "Games/Games.item.json", json.dumps(items))
    put(tmp_path, "Games/Games.inter.json", json.dumps({"0": [1, 0], "1": [0]}))
    put(tmp_path, "Games/Games.index.json", json.dumps({"0": ["<a_1>", "<b_2>"], "1": ["<a_1>", "<b_3>"]}))
    found = load("lcrec", tmp_path)
    assert texts(found.items) == {"0": "Red lamp. small", "1": "Blue lamp"}
    assert dict(found.interactions) == {"0": ["1", "0"], "1": ["0"]}


def minionerec_table(*rows: tuple) -> str:
    names = ["user_id", "item_title", "history_item_id", "item_id", "history_item_sid", "item_sid"]
    lines = [names] + [[u, "x", h, i, ["<a_1>"] * len(h), "<a_1>"] for u, h, i in rows]
    return "".join(",".join('"' + str(cell).replace('"', '""') + '"' for cell in line) + "\n" for line in lines)


def test_minionerec_joins_its_three_splits(tmp_path):
    name = "Industrial_and_Scientific"
    put(tmp_path, f"train/{name}_5_2016-10-2018-11.csv", minionerec_table(("A", [5], 6), ("B", [7], 5)))
    put(tmp_path, f"valid/{name}_5_2016-10-2018-11.csv", minionerec_table(("A", [5, 6], 7)))
    put(tmp_path, f"test/{name}_5_2016-10-2018-11.csv", minionerec_table(("A", [5, 6, 7], 8)))
    titles = {"5": "Red lamp", "6": "Blue lamp", "7": "Bolt", "8": "Nut"}
    put(tmp_path, f"info/{name}_5_2016-10-2018-11.txt", "".join(f"<a_1><b_{i}>\t{t}\t{i}\n" for i, t in titles.items()))
    found = load("minionerec", tmp_path)
    assert texts(found.items) == titles
    assert dict(found.interactions) == {"A": ["5", "6", "7", "8"], "B": ["7", "5"]}
    items = {number: {"title": title, "brand": "Lux"} for number, title in titles.items()}
    put(tmp_path, f"index/{name}.item.json", json.dumps(items))
    found = load("minionerec", tmp_path)
    assert texts(found.items)["5"] == "Red lamp. Lux"
    assert dict(found.interactions) == {"A": ["5", "6", "7", "8"], "B": ["7", "5"]}


# ---- What goes wrong


def test_a_missing_file_is_named_with_its_page(tmp_path):
    put(tmp_path, "notes.txt", "x")
    with pytest.raises(InputError) as error:
        load("yelp", tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: no yelp_academic_dataset_business.json or business.json, plain or compressed. "
        "Get it from the page of the Yelp Open Dataset. Files found: notes.txt."
    )


def test_a_set_without_its_interactions_is_said(tmp_path, caplog):
    put(tmp_path, "meta_Home.json.gz", json_lines({"asin": "B1", "title": "Red lamp"}))
    with caplog.at_level(logging.WARNING, "semid"):
        assert load("amazon2018", tmp_path).interactions is None
    assert caplog.messages == [
        f"{tmp_path}: no Home_5.json or Home.json or Home_5.csv or Home.csv, so the set has no interactions. "
        "Get it from the page of Amazon review data (2018)."
    ]


def test_one_of_several_parts_is_chosen_by_name(tmp_path, caplog):
    for part in ("Home", "Toys"):
        put(tmp_path, f"meta_{part}.json.gz", json_lines({"asin": f"B_{part}", "title": f"{part} lamp"}))
    with pytest.raises(InputError, match=r'several sets: Home, Toys. Choose one: part="Home".'):
        load("amazon2018", tmp_path)
    assert load("amazon2018", tmp_path, part="Toys").items.ids == ["B_Toys"]
    with pytest.raises(
        InputError, match=r"no meta_Book.json, plain or compressed. .* Files found: meta_Home.json.gz, "
    ):
        load("amazon2018", tmp_path, part="Book")
    with pytest.raises(ConfigError, match=r"part='Toys': this data set has no parts. Leave it out."):
        load("yelp", tmp_path, part="Toys")


def test_the_plain_file_is_taken_before_the_compressed_one(tmp_path):
    put(tmp_path, "meta_Home.json", json_lines({"asin": "plain", "title": "Red lamp"}))
    put(tmp_path, "meta_Home.json.gz", json_lines({"asin": "zipped", "title": "Red lamp"}))
    assert load("amazon2018", tmp_path).items.ids == ["plain"]


def test_an_unknown_set_or_no_folder():
    with pytest.raises(
        ConfigError, match="name='movielense': no such data set. Did you mean movielens\\? There are: debian,"
    ):
        load("movielense")
    with pytest.raises(
        ConfigError, match="folder=None: name the folder with the files of steam. Get them from the Steam"
    ):
        load("steam")
    with pytest.raises(InputError, match="nowhere: no such folder. Get the files of the set from the MovieLens page"):
        load("movielens", "nowhere")
