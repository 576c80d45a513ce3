"""Walks stay on training edges and follow their schema; vectors keep company together, and a seed decides them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data.interaction_reader import read_interactions
from semid.data.splits import training_interactions
from semid.encoders import WalkConfig, learn_behavior
from semid.encoders.collaborative import Graph, walk_rounds
from semid.encoders.collaborative_files import read_behavior
from semid.encoders.skip_gram import alias_table
from semid.errors import ConfigError, InputError
from tests.helpers.communities import histories, lines

LOG = histories()
SMALL = {"dim": 8, "walks_per_node": 4, "walk_length": 10}


def edges_of(log) -> set[tuple[str, str]]:
    return {(log.users[user], item) for user in range(len(log)) for item in log.history(user)}


def steps(graph: Graph, walks: np.ndarray) -> set[tuple[str, str]]:
    """Every step between a user and an item, as (user, item)."""
    names = [*graph.log.users, *graph.log.item_ids]
    found = set()
    for one, other in zip(walks[:, :-1].ravel().tolist(), walks[:, 1:].ravel().tolist(), strict=True):
        if min(one, other) >= 0 and (one < graph.n_users) != (other < graph.n_users):
            found.add((names[min(one, other)], names[max(one, other)]))
    return found


# ---- which edges


@pytest.mark.parametrize("include_valid", [False, True])
def test_no_walk_takes_an_edge_that_is_held_out(include_valid):
    held_out = 1 if include_valid else 2
    allowed = {(LOG.users[u], item) for u in range(len(LOG)) for item in LOG.history(u)[:-held_out]}
    graph = Graph(training_interactions(LOG, include_valid=include_valid))
    taken = set()
    for walks in walk_rounds(graph, ["U-I-U", "I-U-I", "U-I-I-U"], number=20, length=12, seed=0):
        taken |= steps(graph, walks)
    assert taken == allowed  # none more, and after so many walks none less


def test_vectors_do_not_depend_on_what_is_held_out():
    """Validation and test items change places for every user, and not a bit of any vector changes."""
    others = [line | {"items": [*line["items"][:-2], *reversed(line["items"][-2:])]} for line in lines()]
    moved = read_interactions(others)
    assert edges_of(LOG) == edges_of(moved) and LOG.items.tolist() != moved.items.tolist()
    one, other = (learn_behavior(training_interactions(log), WalkConfig(**SMALL)) for log in (LOG, moved))
    assert np.array_equal(one.users, other.users) and np.array_equal(one.items, other.items)


def test_items_met_only_in_validation_or_test_have_no_vector():
    log = read_interactions(
        [{"user": "u", "items": ["a", "b", "valid", "test"]}, {"user": "v", "items": ["a", "test"]}]
    )
    found = learn_behavior(training_interactions(log), WalkConfig(**SMALL))
    assert dict(zip(log.item_ids, found.items_known.tolist(), strict=True)) == {
        "a": True, "b": True, "test": False, "valid": False,
    }  # fmt: skip
    assert found.users_known.tolist() == [True, False]
    assert not found.items[~found.items_known].any() and not found.users[1].any()
    assert learn_behavior(training_interactions(log, include_valid=True), WalkConfig(**SMALL)).items_known.sum() == 3


def test_the_split_of_the_data_themselves():
    records = [{"user": "u", "items": ["a", "b", "c", "d"], "n_valid": 0, "n_test": 1}]
    records += [{"user": "v", "items": ["a", "b", "c"], "n_valid": 2, "n_test": 1}]
    log = read_interactions(records)
    cut = training_interactions(log, "own")
    assert [cut.history(user) for user in (0, 1)] == [["a", "b", "c"], []]
    assert training_interactions(log, "own", include_valid=True).history(1) == ["a", "b"]
    assert training_interactions(log, "all") is log
    for missing, said in (
        ({"user": "u", "items": ["a"]}, r"^items\[1\]: n_valid=None, n_test=None: expected two whole"),
        ({"user": "u", "items": ["a"], "n_valid": 1}, r"^items\[1\]: n_valid=1, n_test=None: expected two whole"),
        ({"user": "u", "items": ["a"], "n_valid": 1, "n_test": True}, "n_test=True: expected two whole"),
        ({"user": "u", "items": list("abcd"), "n_valid": 1, "n_test": 4}, 'user "u" has 4 items and holds out 5'),
    ):  # nobody is learned from whole by accident
        with pytest.raises(InputError, match=said):
            training_interactions(read_interactions([records[1], missing]), "own")
    with pytest.raises(ConfigError, match="leave-one-out, own, all"):
        training_interactions(log, "last")


# ---- walks


@pytest.mark.parametrize("schema", ["U-I-U", "I-U-I", "I-I", "U-I-I-U"])
def test_walks_follow_their_schema(schema):
    graph = Graph(LOG)
    letters = schema.replace("-", "")[:-1]
    for walks in walk_rounds(graph, [schema], number=1, length=9, seed=1):
        kinds = np.where(walks < graph.n_users, "U", "I")
        wanted = [letters[place % len(letters)] for place in range(9)]
        assert (walks >= 0).all() and (kinds == wanted).all()
        assert len(walks) == graph.n_starts(schema) == len(set(walks[:, 0].tolist()))


def test_a_walk_ends_where_nothing_follows():
    graph = Graph(read_interactions([{"user": "u", "items": ["a", "b"]}, {"user": "v", "items": ["c"]}]))
    (walks,) = walk_rounds(graph, ["I-I"], number=1, length=3, seed=0)
    assert sorted(walks.tolist()) == [[2, 3, 2], [3, 2, 3]]  # c stands beside no other item, so no walk starts there
    (walks,) = walk_rounds(graph, ["U-I-I-U"], number=1, length=4, seed=0)
    assert [1, 4, -1, -1] in walks.tolist()


@pytest.mark.parametrize("schema", ["U", "", "U-I", "U-U", "UIU", "U-X-U", "I-U-U-I", "U--I-U"])
def test_schemas_that_cannot_be_walked_are_refused(schema):
    with pytest.raises(ConfigError, match="letters U and I"):
        WalkConfig(schemas=(schema,))


@pytest.mark.parametrize(
    "wrong", [{"walks_per_node": 0}, {"walk_length": 1}, {"dim": 2.5}, {"rate": 0}, {"schemas": ()}]
)
def test_choices_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WalkConfig(**wrong)


# ---- vectors


def test_vectors_keep_company_together():
    found = learn_behavior(LOG, WalkConfig(dim=16, walks_per_node=20))
    vectors = np.concatenate([found.users, found.items])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group = np.array([name[:2] for name in (*LOG.users, *LOG.item_ids)])
    same, alike = group[:, None] == group, vectors @ vectors.T
    assert alike[same].mean() > 0.7 and alike[~same].mean() < 0.3


def test_a_seed_decides_everything():
    one, again = (learn_behavior(LOG, WalkConfig(**SMALL, seed=3)) for _ in range(2))
    other = learn_behavior(LOG, WalkConfig(**SMALL, seed=4))
    assert np.array_equal(one.users, again.users) and np.array_equal(one.items, again.items)
    assert not np.array_equal(one.users, other.users)
    backwards = learn_behavior(read_interactions(lines()[::-1]), WalkConfig(**SMALL, seed=3))
    assert np.array_equal(one.users, backwards.users)  # the order of the records is nothing


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30).filter(lambda weights: sum(weights) > 0.01))
@settings(max_examples=50)
def test_the_table_of_aliases_holds_the_weights(weights):
    chance, other = alias_table(np.array(weights))
    held = chance.astype(np.float64)
    np.add.at(held, other, 1 - chance.astype(np.float64))
    assert np.allclose(held, np.array(weights) * len(weights) / sum(weights), atol=1e-4 * len(weights))


# ---- vectors made elsewhere


def test_reads_word2vec_and_the_table_of_metaid(tmp_path):
    log = read_interactions([{"user": "u", "items": ["a", "b"]}])
    plain, prefixed, table = tmp_path / "v.txt", tmp_path / "p.txt.gz", tmp_path / "m.csv"
    plain.write_text("3 2\nu 1 2\nb 3 4\nsomebody 5 6\n")
    prefixed.write_bytes(gzip.compress(b"2 2\nuser:u 1 2\nitem:b 3 4\n"))
    table.write_text("user,item,emb\nu,is_user,1 2\nis_item,b,3 4\n")
    for path in (plain, prefixed, table):
        found = read_behavior(path, log)
        assert found.users.tolist() == [[1, 2]] and found.items.tolist() == [[0, 0], [3, 4]]
        assert found.users_known.tolist() == [True] and found.items_known.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "expected user,item,emb"),
        ("1 2\nu 1 x\n", ':2: "u".*finite numbers'),
        ("2 2\nu 1 2\na 1\n", ":3: .*expected 2 finite"),
        ("2 1\nu 1\nu 2\n", "again"),
        ("1 1\nnobody 1\n", "no vector of a user"),
        ("1 1\nboth 1\n", "user:both or item:both"),
        ("user,item,emb\nu,a,1 2\n", "NAME,is_user,NUMBERS"),
    ],
)
def test_files_of_vectors_that_cannot_be_read(tmp_path, text, message):
    log = read_interactions([{"user": "u", "items": ["a", "both"]}, {"user": "both", "items": ["a"]}])
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_behavior(path, log)
