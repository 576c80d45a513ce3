"""META ID's index files: read exactly, written back exactly, and refused where they are not what they should be."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from semid.clusters.tokens import ClusterTokens, Entity
from semid.errors import InputError
from semid.tokenizer_exports.formats import metaid_lines, read_metaid

USERS = {"u2": ["<CT0>", "<1001>"], "u1": ["<CT1>", "<1002>"]}
ITEMS = {"i1": ["<CT1>", "<1001>"], "i3": ["<CT2>", "<1001>"], "i2": ["<CT0>", "<1003>"], "i0": ["<CT0>", "<1002>"]}


def as_text(table: dict[str, list[str]]) -> str:
    return "".join(f"{one} {''.join(tokens)}\n" for one, tokens in table.items())


@pytest.fixture(params=["json", "json.gz", "txt"])
def files(request, tmp_path):
    paths = []
    for name, table in (("users", USERS), ("items", ITEMS)):
        paths.append(tmp_path / f"{name}.{request.param}")
        text = as_text(table) if request.param == "txt" else json.dumps(table)
        paths[-1].write_bytes(gzip.compress(text.encode()) if request.param.endswith("gz") else text.encode())
    return paths


def test_files_are_read_exactly_and_written_back_line_for_line(files, tmp_path):
    made = read_metaid(*files)
    assert (len(made.users), len(made.items), made.n_tokens, made.sizes) == (2, 4, 6, (3, 3))
    assert made.check() == [] and made.vocabulary.tokens == ["<CT0>", "<CT1>", "<CT2>", "<1001>", "<1002>", "<1003>"]
    for table, members in ((USERS, made.users), (ITEMS, made.items)):
        lines = list(metaid_lines(table, members.tokens(list(table))))
        assert "".join(line + "\n" for line in lines) == as_text(table)
    assert made.decode(["<CT0><1003>", "<CT0><1001>", "<CT2><1003>"]) == [
        Entity("item", "i2"),
        Entity("user", "u2"),
        None,
    ]
    made.save(tmp_path / "kept")
    assert ClusterTokens.open(tmp_path / "kept").items.tokens(list(ITEMS)) == ["".join(pair) for pair in ITEMS.values()]


def test_centroids_are_put_in_the_order_of_the_clusters(tmp_path):
    paths = [tmp_path / "users.json", tmp_path / "items.json"]
    for path, table in zip(paths, (USERS, ITEMS), strict=True):
        path.write_text(json.dumps(table))
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "c.npz", tokens=np.array(["<CT2>", "<CT0>", "<CT1>"]), vectors=vectors)
    assert read_metaid(*paths, tmp_path / "c.npz").centroids.tolist() == [[2, 3], [4, 5], [0, 1]]
    np.savez(tmp_path / "d.npz", tokens=np.array(["<CT0>", "<CT1>"]), vectors=vectors[:2])
    with pytest.raises(InputError, match="no vector for <CT2>"):
        read_metaid(*paths, tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (USERS | {"u3": ["<CT1>", "<1001>"]}, "share their tokens with another"),
        (USERS | {"u3": ["<CT4>", "<1001>"]}, "4 clusters are used, but the highest is 4"),
        (USERS | {"u3": ["<CT0>", "<1009>"]}, "ranks"),
        (USERS | {"u3": ["<CT0>", "<7>"]}, "below 1001"),
        ({"u1": ["<a_1>", "<b_2>"]}, "expected <CT79><1220>"),
        ({"u1": ["<CT1>"]}, "expected <CT79><1220>"),
    ],
)
def test_files_that_are_something_else(tmp_path, table, message):
    for name, content in (("users", table), ("items", ITEMS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_metaid(tmp_path / "users.json", tmp_path / "items.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [("u1 <CT1>\n", ":1: "), ("u1 <CT0><1001>\nu1 <CT0><1002>\n", ":2: .* is repeated"), ("", "holds no ID")],
)
def test_text_files_that_are_something_else(tmp_path, text, message):
    (tmp_path / "users.txt").write_text(text)
    (tmp_path / "items.json").write_text(json.dumps(ITEMS))
    with pytest.raises(InputError, match=message):
        read_metaid(tmp_path / "users.txt", tmp_path / "items.json")


def test_ids_with_blanks_cannot_be_written():
    with pytest.raises(InputError, match="holds blanks"):
        list(metaid_lines(["a b"], ["<CT0><1001>"]))
