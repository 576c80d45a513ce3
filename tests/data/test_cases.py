"""Files as people have them, small and with the structure of public ones: each is read to the right value, or refused
with what to type.

One test for each kind of file. What a command does is tested through the command, in this process.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from semid import SemanticIDTokenizer, read_interactions, read_items
from semid.errors import InputError

SMALL = ("--method", "rqkmeans", "--levels", "2", "--codebook-size", "4")


def put(name: str, text: str | bytes, encoding: str = "utf-8") -> Path:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def fitted(semid, path: object, *options: object) -> tuple[dict[str, str], str]:
    """The text of each item of `semid fit`, and what the command said on standard error."""
    done = semid("fit", path, "-o", "sid", "--force", *SMALL, *options)
    assert done.code == 0, done.err
    ids = SemanticIDTokenizer.from_pretrained("sid")
    return dict(zip(ids.item_ids, ids.ledger.texts or [], strict=True)), done.err


def refused(semid, *arguments: object) -> str:
    """The message of a command that ends with 1."""
    done = semid(*arguments)
    assert done.code == 1, done.err
    return done.err


def history(path: object, **names: str) -> dict[str, list[str]]:
    return dict(read_interactions(path, **names))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lamps(semid) -> list[str]:
    """An artifact `sid` of the items 0 .. 5."""
    put(
        "lamps.jsonl",
        "".join(json.dumps({"id": str(n), "title": f"lamp {n} of glass {n % 3}"}) + "\n" for n in range(6)),
    )
    fitted(semid, "lamps.jsonl")
    return [str(n) for n in range(6)]


# ---- A wrong result without a word


def test_vectors_in_another_order_are_matched_by_id(semid):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    put("items.jsonl", "".join(json.dumps({"id": i, "title": f"lamp {i}"}) + "\n" for i in "abcd"))
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    np.save("plain.npy", vectors)
    order = [2, 0, 3, 1]
    table = {"id": ["abcd"[n] for n in order], "vector": [vectors[n].tolist() for n in order]}
    pq.write_table(pa.table(table), "mixed.parquet")

    def codes(file: str) -> list[list[int]]:
        fitted(semid, "items.jsonl", "--embeddings", file)
        return SemanticIDTokenizer.from_pretrained("sid").encode(list("abcd")).tolist()

    assert codes("mixed.parquet") == codes("plain.npy")
    pq.write_table(pa.table(table).set_column(0, "id", pa.array(list("xbcd"))), "unknown.parquet")
    assert "a" in refused(semid, "fit", "items.jsonl", "-o", "sid2", "--embeddings", "unknown.parquet")
    assert not Path("sid2").exists()


@pytest.mark.parametrize(
    "name", ["date", "datetime", "created_at", "event_time", "unixReviewTime", "timestamp_ms", "rating_timestamp"]
)
def test_a_time_of_any_usual_name_orders_the_history(here, name):
    times = (
        [30, 20, 10]
        if "time" in name and name not in ("datetime", "event_time")
        else ["2020-01-03", "2020-01-02", "2020-01-01"]
    )
    rows = zip(("third", "second", "first"), times, strict=True)
    path = put("log.csv", f"user_id,item_id,{name}\n" + "".join(f"u,{item},{time}\n" for item, time in rows))
    assert history(path) == {"u": ["first", "second", "third"]}


def test_a_log_without_a_time_says_that_the_order_of_the_lines_counts(here, caplog):
    path = put("log.csv", "user_id,item_id,rating\nu,b,5\nu,a,4\n")
    assert history(path) == {"u": ["b", "a"]}
    assert "no time column (columns: user_id, item_id, rating); using the order of the lines" in caplog.text


def test_a_row_number_is_no_item(here):
    path = put("log.csv", "id,user_id,product_id\n1,u,p10\n2,u,p11\n3,v,p10\n")
    assert history(path) == {"u": ["p10", "p11"], "v": ["p10"]}
    path = put("log.csv", "id,user_id,order_id\n1,u,9\n")
    with pytest.raises(InputError, match=r"the item could be in id, order_id .*--item-field"):
        read_interactions(path)


def test_a_column_of_histories_is_read(here, caplog):
    path = put("log.csv", 'user_id,history_item_id,item_id\nu,"[7, 8, 9]",10\n')
    assert history(path) == {"u": ["7", "8", "9", "10"]}
    assert "read each user's longest history" in caplog.text
    assert history(path, item_field="item_id") == {"u": ["10"]}


def test_a_catalog_of_numbers_is_refused(semid):
    put("phones.csv", "id,ram,price\n1,2549,3\n2,2631,4\n3,11,5\n")
    said = refused(semid, "fit", "phones.csv", "-o", "sid")
    assert "numeric fields: price, ram" in said and "--text" in said and "--embeddings" in said
    assert not Path("sid").exists()
    assert fitted(semid, "phones.csv", "--text", "ram")[0] == {"1": "2549", "2": "2631", "3": "11"}


def test_one_odd_value_makes_no_text(semid):
    isbn = [f"04395547{n}{n % 10}" for n in range(10, 19)]
    isbn[5] = "043955475X"
    rows = [f"{n},Book of lamp {n},{isbn[n]},{'N/A' if n == 3 else 1990 + n},lamps\n" for n in range(9)]
    put("books.csv", "id,title,isbn,year,shelf\n" + "".join(rows))
    texts, said = fitted(semid, "books.csv")
    assert texts == {str(n): f"Book of lamp {n}" for n in range(9)}
    assert "isbn (identifiers)" in said and "year (numbers)" in said and "shelf (constant)" in said and "--text" in said


def test_lists_in_cells_are_parsed(semid):
    rows = """1,Red Lamp,"['Ann O'Hara', 'Bo Li']","[{""id"": 28, ""name"": ""Drama""}, {""id"": 9, ""name"": ""War""}]"
2,Blue Lamp,['Cy Wu'],"[{""id"": 28, ""name"": ""Drama""}]"
3,Green Lamp,[],[]
"""
    put("films.csv", "id,title,cast,genres\n" + rows)
    texts, _ = fitted(semid, "films.csv")
    assert texts["1"] == "Red Lamp. Drama, War. Ann O'Hara, Bo Li"
    assert texts["2"] == "Blue Lamp. Drama. Cy Wu" and texts["3"] == "Green Lamp"


def test_markup_and_ids_of_other_items_are_no_text(semid):
    def product(number: int, title: str) -> dict:
        others = [f"B{n}" for n in range(9) if n != number]
        return {
            "asin": f"B{number}", "title": title, "category": ["Toys", "</span></span></span>"], "also_buy": others[:3],
            "description": [f"<b>Nice {title}.</b><br />"], "also_view": others[3:], "price": f"${number}.99",
            "rank": [f">#{number},000 in Toys (See top 100)"], "similar_item": 'class="a-bordered a-spacing-base"',
            "main_cat": '<img src="https://x.example.com/t.png" alt="Toys" />',
        }  # fmt: skip

    names = ["Red Lamp", "Blue Lamp", "Green Lamp", "Kite", "Ball", "Top", "Drum", "Train", "Doll"]
    put("meta.json", "".join(json.dumps(product(n, name)) + "\n" for n, name in enumerate(names)))
    texts, said = fitted(semid, "meta.json", "--id-field", "asin")
    assert texts == {f"B{n}": f"{name}. Toys. Nice {name}." for n, name in enumerate(names)}
    assert "also_buy (ids of other items)" in said and "rank" in said and "similar_item" in said


def test_objects_are_named_and_reached_by_a_path(semid):
    records = [
        {"id": "1", "title": "Red Lamp", "details": {"Material": "copper", "Weight": 5}, "genres": [{"name": "Drama"}]},
        {
            "id": "2",
            "title": "Blue Lamp",
            "details": {"Material": "glass"},
            "genres": [{"name": "War"}, {"name": "Sea"}],
        },
    ]
    put("items.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    texts, said = fitted(semid, "items.jsonl")
    assert texts == {"1": "Red Lamp. Drama", "2": "Blue Lamp. War, Sea"}
    assert "details (object" in said and "details.Material" in said
    texts, _ = fitted(semid, "items.jsonl", "--text", "title,details.Material,genres.name")
    assert texts == {"1": "Red Lamp. copper. Drama", "2": "Blue Lamp. glass. War, Sea"}


# ---- Interactions that no reader knew


def test_recbole_files_have_types_in_their_headers(here):
    path = put("ml.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t30\n1\t3\t20\n")
    assert history(path) == {"1": ["3", "2"]}
    path = put("lists.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t7 8\t9\n")
    assert history(path) == {"1": ["7", "8", "9"]}
    path = put(
        "ml.item", "item_id:token\tmovie_title:token_seq\tclass:token_seq\n2\tRed Lamp\tDrama War\n3\tBlue Lamp\tSea\n"
    )
    items = read_items(path, id_field="item_id")
    assert items.ids == ["2", "3"] and items.fields["movie_title"] == ["Red Lamp", "Blue Lamp"]


INTERACTION_COMMANDS = ("fit", "refit", "doctor", "align", "clusters")


@pytest.mark.parametrize("command", INTERACTION_COMMANDS)
def test_every_command_that_reads_interactions_can_name_their_fields(semid, command):
    done = semid(command, "--help")
    for option in ("--user-field", "--item-field", "--time-field", "--delimiter", "--columns", "--encoding"):
        assert option in done.out, option


def test_ratings_and_reviews_are_known_by_their_names(here):
    path = put("ratings.csv", "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,10,4.0,1260759100\n")
    assert history(path) == {"1": ["10", "31"]}
    rows = [("A1", "B1", 20), ("A1", "B2", 10)]
    lines = "".join(json.dumps({"reviewerID": u, "asin": i, "unixReviewTime": t}) + "\n" for u, i, t in rows)
    assert history(put("reviews.json", lines)) == {"A1": ["B2", "B1"]}


def test_the_files_of_the_lcrec_family_work_in_every_command(semid):
    items = {str(n): {"title": f"lamp {n} of glass {n % 3}", "description": ""} for n in range(6)}
    put("Games.item.json", json.dumps(items, indent=2))
    put("Games.inter.json", json.dumps({str(user): [(user + step) % 6 for step in range(5)] for user in range(8)}))
    assert history("Games.inter.json")["4"] == ["4", "5", "0", "1", "2"]
    texts, _ = fitted(semid, "Games.item.json", "--interactions", "Games.inter.json")
    assert texts == {number: item["title"] for number, item in items.items()}
    assert semid("doctor", "sid", "--interactions", "Games.inter.json").code == 0
    done = semid("align", "sid", "Games.inter.json", "-o", "data", "--items", "Games.item.json")
    assert done.code == 0, done.err
    done = semid("clusters", "Games.inter.json", "-o", "clusters", "--clusters", 2)
    assert done.code == 0, done.err


def test_lines_of_a_user_and_their_items(here, caplog):
    assert history(put("sequences.txt", "1 5 6 7\n2 6 7\n")) == {"1": ["5", "6", "7"], "2": ["6", "7"]}
    assert "sequences.txt" in caplog.text


# ---- Catalogs that no reader knew


def test_import_reads_the_catalog_as_other_commands_do(semid):
    put("index.json", json.dumps({"1": ["<a_0>", "<b_1>"], "2": ["<a_0>", "<b_0>"]}))
    put("lines.json", '{"key": "1", "title": "Red Lamp"}\n{"key": "2", "title": "Blue Lamp"}\n')
    done = semid("import", "index.json", "-o", "sid", "--items", "lines.json", "--id-field", "key")
    assert done.code == 0, done.err
    ids = SemanticIDTokenizer.from_pretrained("sid")
    assert dict(zip(ids.item_ids, ids.ledger.texts, strict=True)) == {"1": "Red Lamp", "2": "Blue Lamp"}


def test_semicolons_and_decimal_commas(semid):
    put("items.csv", "\ufeffid;title;price\n1;Red Lamp;3,99\n2;Blue Lamp, small;4,99\n")
    texts, said = fitted(semid, "items.csv")
    assert texts == {"1": "Red Lamp", "2": "Blue Lamp, small"}
    assert "price (numbers)" in said and "--delimiter" in said


def test_movielens_files_without_a_header(semid):
    flags = ["|".join("1" if flag in on else "0" for flag in range(19)) for on in ((8, 17), ())]  # drama, war; none
    rows = ["1|Red Lamp (1995)|01-Jan-1995||http://x.example.com|", "2|Lampe d'été (1996)|01-Jan-1996|||"]
    put("u.item", "".join(f"{row}{on}\n" for row, on in zip(rows, flags, strict=True)), "latin-1")
    texts, said = fitted(semid, "u.item")
    assert texts == {"1": "Red Lamp (1995). Drama, War", "2": "Lampe d'été (1996)"}
    assert "Latin-1" in said and "--columns" in said and "--encoding" in said and "release_date (dates)" in said
    put("movies.dat", "1::Red Lamp (1995)::Drama|Comedy\n2::Blue Lamp (1996)::Drama\n")
    texts, said = fitted(semid, "movies.dat")
    assert list(texts) == ["1", "2"] and texts["2"] == "Blue Lamp (1996). Drama" and "Comedy" in texts["1"]
    assert history(put("ratings.dat", "7::2::5::978302109\n7::1::3::978300760\n")) == {"7": ["1", "2"]}
    assert history(put("u.data", "7\t2\t5\t881250950\n7\t1\t3\t881250949\n")) == {"7": ["1", "2"]}


def test_columns_can_be_named(semid):
    put("things.dat", "r1~Red Lamp~9\nr2~Blue Lamp~8\n")
    said = refused(semid, "fit", "things.dat", "-o", "sid")
    assert "--delimiter" in said or "--columns" in said
    texts, _ = fitted(semid, "things.dat", "--delimiter", "~", "--columns", "id,title,price")
    assert texts == {"r1": "Red Lamp", "r2": "Blue Lamp"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_byte_order_mark_says_the_encoding(semid, encoding):
    put("items.txt", "id\ttitle\n1\tLampe d'été\n2\tBlue Lamp\n", encoding)
    assert fitted(semid, "items.txt")[0] == {"1": "Lampe d'été", "2": "Blue Lamp"}


def test_latin_1_is_said_and_never_guessed(semid):
    put("items.csv", "id,title\n1,Lampe d'été\n2,Blue Lamp\n", "latin-1")
    assert "--encoding latin-1" in refused(semid, "fit", "items.csv", "-o", "sid")
    assert fitted(semid, "items.csv", "--encoding", "latin-1")[0] == {"1": "Lampe d'été", "2": "Blue Lamp"}


def test_a_json_array(semid):
    put("items.json", json.dumps([{"id": 1, "title": "Red Lamp"}, {"id": 2, "title": "Blue Lamp"}], indent=1))
    assert fitted(semid, "items.json")[0] == {"1": "Red Lamp", "2": "Blue Lamp"}


def test_lines_of_python(semid):
    put("items.json", "{'id': '1', 'title': \"Ann's Lamp\"}\n{u'id': u'2', u'title': u'Blue Lamp', 'new': None}\n")
    texts, said = fitted(semid, "items.json")
    assert texts == {"1": "Ann's Lamp", "2": "Blue Lamp"} and "Python" in said


INDEX_FILES = {
    "codes": {"0": [1, 2, 3], "1": [1, 2, 0]},
    "strings": {"0": "<L0_1> <L1_2> <L2_3>", "1": "<L0_1> <L1_2> <L2_0>"},
    "joined": {"0": "<a_1><b_2><c_3>", "1": "<a_1><b_2><c_0>"},
    "lists": {"0": ["<a_1>", "<b_2>", "<c_3>"], "1": ["<a_1>", "<b_2>", "<c_0>"]},
}


@pytest.mark.parametrize("kind", INDEX_FILES)
def test_index_files_hold_codes_or_tokens(semid, kind):
    put("index.json", json.dumps(INDEX_FILES[kind]))
    done = semid("import", "index.json", "-o", "sid", "--sizes", 4)
    assert done.code == 0, done.err
    ids = SemanticIDTokenizer.from_pretrained("sid")
    assert ids.encode(["0", "1"]).tolist() == [[1, 2, 3], [1, 2, 0]]
    done = semid("doctor", "index.json", "--json")
    assert done.code == 0 and json.loads(done.out)["n_items"] == 2, done.err


def test_an_index_may_be_an_array_of_codes(semid):
    np.save("index.npy", np.array([[1, 2, 3], [1, 2, 0]]))
    done = semid("doctor", "index.npy", "--json")
    assert done.code == 0 and json.loads(done.out)["n_items"] == 2, done.err


# ---- One bad row


def test_quotes_inside_cells_of_a_tsv(semid):
    put("items.tsv", 'id\ttitle\n1\t"Lucky" lamp wins\n2\tBlue Lamp\n3\t5" pipe\n')
    assert fitted(semid, "items.tsv")[0] == {"1": '"Lucky" lamp wins', "2": "Blue Lamp", "3": '5" pipe'}


def test_bad_rows_are_skipped_if_told(semid):
    rows = "".join(f"{n},lamp of glass {n},Ann\n" for n in range(9))
    put("items.csv", f"id,title,author\n{rows}bad,Blue Lamp,Bo, Jr.\nlast,Red Lamp,Bo\n")
    said = refused(semid, "fit", "items.csv", "-o", "sid")
    assert "items.csv:11: 4 columns, but the header has 3" in said
    texts, said = fitted(semid, "items.csv", "--skip-bad-rows")
    assert "bad" not in texts and texts["last"] == "Red Lamp. Bo" and len(texts) == 10
    assert "skipped 1 of 11 rows" in said and "items.csv.bad-rows.txt" in said
    kept = Path("items.csv.bad-rows.txt").read_text("utf-8")
    assert "bad,Blue Lamp,Bo, Jr." in kept and "11" in kept


@pytest.mark.parametrize(("which", "title"), [("first", "Red Lamp"), ("last", "Late Lamp")])
def test_the_first_or_the_last_of_items_with_one_id(semid, which, title):
    put(
        "items.jsonl",
        '{"id": 1, "title": "Red Lamp"}\n{"id": 2, "title": "Blue Lamp"}\n{"id": 1, "title": "Late Lamp"}\n',
    )
    assert "duplicate id" in refused(semid, "fit", "items.jsonl", "-o", "sid")
    texts, said = fitted(semid, "items.jsonl", "--duplicates", which)
    assert texts == {"1": title, "2": "Blue Lamp"} and "duplicate" in said


# ---- What all of them have in common


def test_one_cause_is_one_message_with_a_count(here):
    path = put("movies.csv", "movieId,title\n" + "".join(f"{n},Lamp {n}\n" for n in range(1682)))
    with pytest.raises(InputError) as error:
        read_items(path)
    (message,) = str(error.value).splitlines()
    assert '1,682 rows: missing field "id" (have: movieId, title)' in message and "--id-field movieId" in message
    assert "Lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11" in message


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "id,title\n")
    return data.getvalue()


FIRST_BYTES = {
    "items.xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel"),
    "items.zip": (zipped("a.csv", "b.csv"), "a.csv, b.csv"),
    "items.pkl": (b"\x80\x04\x95\x10\x00\x00\x00", "pickle"),
    "items.db": (b"SQLite format 3\x00" + b"\0" * 84, "SQLite"),
    "items.pdf": (b"%PDF-1.7\n", "PDF"),
    "items.html": (b"<!DOCTYPE html>\n<html></html>", "web page"),
    "items.lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git"),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ""])
@pytest.mark.parametrize("kind", FIRST_BYTES)
def test_what_a_file_is_not_is_named_by_its_first_bytes(here, kind, suffix):
    data, name = FIRST_BYTES[kind]
    path = put(kind.partition(".")[0] + suffix if suffix else kind, data)
    with pytest.raises(InputError, match=f"(?i){name}"):
        read_items(path)


def test_interactions_about_unknown_items_are_counted(semid, lamps):
    rows = [f"u{user},{item},{time}\n" for user in range(4) for time, item in enumerate([*lamps, "x1", "x2"])]
    put("log.csv", "user,item,time\n" + "".join(rows))
    for command in (
        ["fit", "lamps.jsonl", "-o", "again", *SMALL, "--interactions", "log.csv"],
        ["doctor", "sid", "--interactions", "log.csv"],
        ["align", "sid", "log.csv", "-o", "data", "--tasks", "next-item"],
    ):
        done = semid(*command)
        assert done.code == 0, done.err
        assert "8 of 32 events (25" in done.err and "2 items that are not in the" in done.err, command
