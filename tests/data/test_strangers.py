"""Files of public sets in forms of their own: read to the right value, or refused with what works when typed."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from semid import read_interactions, read_items
from semid.errors import InputError


@pytest.fixture
def put(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def refusal(call, path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        call(path, **options)
    return str(caught.value).removeprefix(str(path))


def test_ratings_below_their_movie_are_read_as_netflix_wrote_them(put):
    log = put("combined_data_1.txt", "1:\n8,3,2005-09-06\n9,5,2005-05-13\n2:\n8,4,2004-12-26\n")
    assert dict(read_interactions(log)) == {"8": ["2", "1"], "9": ["1"]}
    log = put("combined_data_1.txt", "1:\r\n8,3,2005-09-06\r\noops\r\n2:\r\n8,4,2004-12-26\r\n")
    told = ":3: expected user,rating,date below a line such as 7: with the item."
    assert refusal(read_interactions, log) == told
    assert dict(read_interactions(log, skip_bad_rows=True)) == {"8": ["2", "1"]}


def test_quotes_with_a_backslash_are_quotes(put, caplog):
    text = 'id;title;brand\n1;"say \\"hi; you\\"";x\n2;"q \\"";y\n3;"C:\\dir ""a""";z\n'
    read = [(item["id"], item["title"], item["brand"]) for item in read_items(put("items.csv", text))]
    assert read == [("1", 'say "hi; you"', "x"), ("2", 'q "', "y"), ("3", 'C:\\dir "a"', "z")]
    assert sum('\\" in a quoted cell is read as a quote' in said for said in caplog.messages) == 1
    log = put("log.csv", 'user,item,note\n1,"a \\"b\\", c",x\n2,"d",y\n')
    assert dict(read_interactions(log)) == {"1": ['a "b", c'], "2": ["d"]}


def test_decimal_commas_leave_ids_alone(put):
    log = put("log.csv", "user;item;rating;time\nu;1,5;3,5;7,25\nu;2,25;4,5;7,5\n")
    read = read_interactions(log)
    assert (list(read), read.times.tolist()) == ([("u", ["1,5", "2,25"])], [7.25, 7.5])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("% sym unweighted\nuser item\n1 2\n1 3\n", "line is no row"),
        ("sep=;\nuser;item\n1;2\n1;3\n", "line is no row"),
        ("# Directed graph\n# 5 edges\nuser\titem\n1\t2\n1\t3\n", "2 lines are no rows"),
    ],
)
def test_comments_are_neither_users_nor_headers(put, text, first):
    log = put("log.txt", text)
    told = refusal(read_interactions, log)
    assert told.startswith(f": the first {first}: ")
    start = int(re.findall(r"tail -n \+(\d+)", told)[0])
    rest = put("rest.txt", "".join(text.splitlines(keepends=True)[start - 1 :]))
    assert list(read_interactions(rest)) == [("1", ["2", "3"])]


def test_a_header_or_a_cell_may_begin_like_a_comment(put):
    assert list(read_interactions(put("log.csv", "#user,item\n1,2\n"), user_field="#user")) == [("1", ["2"])]
    items = read_items(put("items.csv", '#red is here,1\n"b, c",2\n'), columns="title,id")
    assert [item["title"] for item in items] == ["#red is here", "b, c"]


def test_histories_of_one_length_are_read_when_said(put):
    log = put("log.txt", "1 11 12 13\n2 14 15 16\n")
    told = refusal(read_interactions, log)
    assert told.endswith("Name its columns with --columns, or if it is a user and items, with --columns user,items.")
    assert dict(read_interactions(log, columns="user,items")) == {"1": ["11", "12", "13"], "2": ["14", "15", "16"]}
    pairs = put("log.txt", "1 11\n1 12\n")
    told = ': no header: the first line is "1 11". Name its columns with --columns.'
    assert refusal(read_interactions, pairs) == told
    assert dict(read_interactions(pairs, columns="user,item")) == {"1": ["11", "12"]}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_broken_element_of_an_array_is_skipped_where_the_next_one_is_sure(put, tmp_path, indent):
    rows = [{"id": str(n), "title": f"lamp {n}", "genres": [{"name": "Drama"}, {"name": "War"}]} for n in range(5)]
    text = ",\n".join(json.dumps(row, indent=indent) for row in rows) if indent is None else json.dumps(rows, indent=2)
    text = text if indent else f"[\n{text}\n]"
    broken = text.replace('"title": "lamp 2"', '"title": ')
    items = put("items.json", broken)
    assert "broken JSON in line" in refusal(read_items, items)
    bad = tmp_path / "bad.txt"
    assert list(read_items(items, skip_bad_rows=bad).ids) == ["0", "1", "3", "4"]
    assert bad.read_text().startswith("3\tbroken JSON: Expecting value.\t{")
    in_one_line = put("items.json", json.dumps(rows).replace('"title": "lamp 2"', '"title": '))
    assert "broken JSON in line 1" in refusal(read_items, in_one_line, skip_bad_rows=True)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("outer", [{}, {"status": "ok", "count": 2}])
def test_records_in_a_list_of_one_object_can_be_taken_out_as_the_message_says(put, indent, outer):
    rows = [{"id": str(n), "title": f"lamp {n}"} for n in range(2)]
    told = refusal(read_items, items := put("items.json", json.dumps({**outer, "data": rows}, indent=indent)))
    assert f"jq -c '.data[]' {items} > records.jsonl" in told
    told = refusal(read_interactions, put("log.json", json.dumps({**outer, "all rows": rows}, indent=indent)))
    assert """jq -c '.["all rows"][]' """ in told


def test_a_catalog_of_one_object_with_a_list_is_a_catalog(put):
    one = {"id": "7", "title": "Red lamp", "parts": [{"name": "bulb"}]}
    assert list(read_items(put("items.json", json.dumps(one, indent=1)))) == [
        {"id": "7", "title": "Red lamp", "parts": "bulb"}
    ]


@pytest.mark.parametrize(("cells", "texts"), [(["{}"], [""]), (["{}", "lamp", "sofa"], ["{}", "lamp", "sofa"])])
def test_an_empty_object_in_a_cell_makes_no_column_of_objects(put, cells, texts):
    items = put("items.csv", "id,title\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)))
    assert [item["title"] for item in read_items(items, text="title")] == texts


def test_a_packed_table_may_not_fill_the_disk(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"id": ["7"], "title": ["Lamp"]}), tmp_path / "items.parquet")
    packed = tmp_path / "items.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "items.parquet").read_bytes()))
    assert list(read_items(packed)) == [{"id": "7", "title": "Lamp"}]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    assert "takes more than half of the free disk space" in refusal(read_items, packed)


def test_a_table_with_blanks_in_its_cells_is_no_list_of_histories(put):
    checkins = "470\t49bb\tArts & Crafts Store\t40.7\tTue Apr 03 18:00:09 +0000 2012\n"
    checkins += "979\t4a43\tBridge\t40.6\tTue Apr 03 18:00:08 +0000 2012\n"
    log = put("foursquare.txt", checkins)
    assert refusal(read_interactions, log).endswith("Name its 5 columns with --columns.")
    read = read_interactions(log, columns="user,item,category,latitude,time")
    assert list(read) == [("470", ["49bb"]), ("979", ["4a43"])]
    assert read.times.tolist() == [1333476009e6, 1333476008e6]


def test_prose_is_no_list_of_histories(put):
    told = refusal(read_interactions, put("notes.txt", "red lamp\nblue big sofa\n"))
    assert "cannot tell the format" in told
    tabs = put("pairs.txt", "u1\t7 8 9\nu2\t8 7\n")
    assert dict(read_interactions(tabs)) == {"u1": ["7", "8", "9"], "u2": ["8", "7"]}
