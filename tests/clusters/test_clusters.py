"""Cluster tokens: nobody shares them, no cluster is too full, they last, and newcomers find a place."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.artifact import store as artifact
from semid.clusters import (
    ClusterConfig,
    ClusterTokens,
    Entity,
    add_members,
    check_distinguishable,
    default_clusters,
    fit_clusters,
)
from semid.clusters.fit import vectors_by_text
from semid.clusters.spherical_kmeans import assign_capped, balanced_clusters, spherical_kmeans
from semid.data.interaction_reader import read_interactions
from semid.encoders.collaborative import BehaviorVectors, WalkConfig
from semid.errors import ArtifactError, CapacityError, ConfigError, InputError, UnknownIDError
from semid.runtime.arrays import divided_by_length
from semid.tokens.vocabulary import Vocabulary
from tests.helpers.communities import histories, lines

WALKS = WalkConfig(dim=8, walks_per_node=10, walk_length=10)
CONFIG = ClusterConfig(clusters=4, spare_codes=0.5, walks=WALKS)


@pytest.fixture(scope="module")
def made() -> ClusterTokens:
    """Clusters that tests only read."""
    return fit_clusters(histories(), CONFIG)


def all_codes(clusters: ClusterTokens) -> np.ndarray:
    return np.concatenate([clusters.users.codes, clusters.items.codes]).astype(np.int64)


def random_vectors(n_users: int, n_items: int, seed: int, dim: int = 4) -> BehaviorVectors:
    """Some of them unknown, some of them equal."""
    draw = np.random.default_rng(seed)
    sides = [draw.integers(-2, 3, (n, dim)).astype(np.float32) for n in (n_users, n_items)]
    known = [draw.random(n) < 0.9 for n in (n_users, n_items)]
    for vectors, one in zip(sides, known, strict=True):
        vectors[0, 0], one[:1] = 1, True
        vectors[~one] = 0
    return BehaviorVectors(*sides, *known)


# ---- one of a kind


@given(
    n_users=st.integers(1, 30),
    n_items=st.integers(1, 30),
    seed=st.integers(0, 1000),
    clusters=st.integers(1, 6),
    balanced=st.booleans(),
    joint=st.booleans(),
    fine=st.sampled_from(["rank", "residual"]),
)
@settings(max_examples=8)
def test_every_user_and_item_has_tokens_of_its_own(n_users, n_items, seed, clusters, balanced, joint, fine):
    """Whatever the vectors, equal and unknown ones included, and whatever the options."""
    log = read_interactions([{"user": f"u{n}", "items": [f"i{n % n_items}"]} for n in range(n_users)])
    log = read_interactions([{"user": user, "items": [f"i{n}" for n in range(n_items)]} for user in log.users])
    vectors = random_vectors(n_users, n_items, seed)
    known = [int(vectors.users_known.sum()), int(vectors.items_known.sum())]
    clusters = min(clusters, sum(known) if joint else min(known))
    config = ClusterConfig(clusters=clusters, balanced=balanced, joint=joint, second_token=fine)
    made = fit_clusters(log, config, vectors=vectors)
    codes = all_codes(made)
    assert len(np.unique(codes, axis=0)) == len(codes) == n_users + n_items
    assert made.check() == []
    texts = made.users.tokens(log.users) + made.items.tokens(log.item_ids)
    owners = [Entity("user", one) for one in log.users] + [Entity("item", one) for one in log.item_ids]
    assert made.decode(texts) == owners
    if balanced:
        sides = {"user": -(-known[0] // clusters), "item": -(-known[1] // clusters)}
        most = -(-sum(known) // clusters) if joint else max(sides.values())
        fullest = np.bincount(codes[:, 0])[: made.coarse_of["reserved"][0]].max()
        assert fullest <= most and made.sizes[1] <= np.ceil(most * 1.01)


@given(n=st.integers(1, 80), k=st.integers(1, 8), seed=st.integers(0, 1000), slack=st.integers(0, 5))
@settings(max_examples=60)
def test_no_column_is_taken_too_often_and_nobody_envies(n, k, seed, slack):
    scores = np.random.default_rng(seed).integers(0, 4, (n, k)).astype(float)
    most = -(-n // k) + slack
    labels = assign_capped(scores, most)
    assert np.bincount(labels, minlength=k).max() <= most
    own = scores[np.arange(n), labels]
    full = np.bincount(labels, minlength=k) == most
    weakest = np.array([own[labels == column].min() if full[column] else -np.inf for column in range(k)])
    assert (scores <= np.maximum(own[:, None], weakest)).all()  # better columns are full of members no less attached


def test_clusters_are_the_communities(made):
    """In every cluster, users and items of one group."""
    groups = np.array([name[:2] for name in [*made.users.ids, *made.items.ids]])
    warm = all_codes(made)[:, 0] < 4
    for cluster in range(4):
        of_it = groups[(all_codes(made)[:, 0] == cluster) & warm]
        assert (of_it == of_it[0]).mean() > 0.9


def test_ranks_follow_the_closeness_to_the_centroid(made):
    codes = all_codes(made)
    points = np.concatenate([made.users.vectors, made.items.vectors]).astype(np.float32)
    for cluster in range(4):
        inside = np.flatnonzero(codes[:, 0] == cluster)
        by_rank = inside[np.argsort(codes[inside, 1])]
        assert np.array_equal(codes[by_rank, 1], np.arange(len(inside)))
        closeness = points[by_rank] @ made.centroids[cluster]
        assert (np.diff(closeness) < 1e-2).all()  # the kept vectors are float16


@pytest.mark.parametrize(("room", "most"), [(0, 0.9), (1, 0.5)])
def test_residual_codes_say_more_than_the_cluster(room, most):
    """A fine code's vector brings its members nearer than the centroid alone, the more so the more room there is."""
    made = fit_clusters(histories(), ClusterConfig(clusters=4, spare_codes=room, second_token="residual", walks=WALKS))
    codes, warm = all_codes(made), all_codes(made)[:, 0] < 4
    points = np.concatenate([made.users.vectors, made.items.vectors])[warm].astype(np.float64)
    coarse = ((points - made.centroids[codes[warm, 0]]) ** 2).sum()
    both = ((points - made.centroids[codes[warm, 0]] - made.fine[codes[warm, 1]]) ** 2).sum()
    assert both < most * coarse
    assert made.level_vectors[1].shape == (made.sizes[1], 8)


def test_users_and_items_apart_share_no_cluster():
    made = fit_clusters(histories(), ClusterConfig(clusters=3, joint=False, walks=WALKS))
    assert made.coarse_of == {"user": (0, 3), "item": (3, 6), "reserved": (6, 7)}
    assert set(made.users.codes[:, 0]) == {0, 1, 2} and set(made.items.codes[:, 0]) <= {3, 4, 5, 6}


@pytest.mark.parametrize("joint", [True, False])
def test_a_small_world_gets_as_many_clusters_as_suit_it(joint):
    made = fit_clusters(histories(), ClusterConfig(joint=joint, walks=WALKS))
    smallest = 88 if joint else 40  # users and items together, or the items
    assert made.coarse_of["item"][1] - made.coarse_of["item"][0] == smallest // 10 == made.config["clusters"]


def test_the_number_of_clusters_where_nothing_is_said():
    assert [default_clusters(n, n) for n in (0, 1, 10, 999, 1000, 10**6, 10**6 + 1)] == [1, 1, 1, 99, 100, 100, 101]
    assert default_clusters(500, 10**7) == 500  # users and items apart: no more than there are of either


@given(fewest=st.integers(1, 10**6), times=st.integers(1, 1000))
def test_clusters_have_members_and_are_not_too_full(fewest, times):
    k = default_clusters(fewest, fewest * times)
    assert 1 <= k <= fewest
    assert k == fewest or fewest * times / k <= 10_000 + 1


@given(seed=st.integers(0, 1000), balanced=st.booleans(), fine=st.sampled_from(["rank", "residual"]))
@settings(max_examples=5)
def test_equal_vectors_give_equal_tokens(seed, balanced, fine):
    log, vectors = read_interactions([{"user": "u", "items": list("abcdefgh")}]), random_vectors(1, 8, seed)
    config = ClusterConfig(clusters=2, balanced=balanced, second_token=fine)
    one, again = (fit_clusters(log, config, vectors=vectors) for _ in range(2))
    assert np.array_equal(all_codes(one), all_codes(again)) and np.array_equal(one.centroids, again.centroids)


def test_nothing_depends_on_the_order_of_the_records():
    one, other = (fit_clusters(read_interactions(records), CONFIG) for records in (lines(), lines()[::-1]))
    assert one.users.tokens(one.users.ids) == other.users.tokens(one.users.ids)


# ---- the cold


def test_the_cold_are_reserved_and_still_unique():
    log = read_interactions([*lines(), {"user": "short", "items": ["x", "y"]}])
    made = fit_clusters(log, CONFIG, catalog=["never met", "g0-i0"])
    first, end = made.coarse_of["reserved"]
    cold = [made.users.encode("short"), *made.items.encode(["x", "y", "never met"])]
    assert all(first <= code[0] < end for code in cold)
    assert len({tuple(code) for code in cold}) == 4 and made.check() == []
    assert not made.centroids[first:].any()


def test_more_cold_ones_than_a_cluster_holds_get_more_reserved_codes():
    log = read_interactions([*lines(), *({"user": f"short{n}", "items": ["x"]} for n in range(200))])
    made = fit_clusters(log, CONFIG)
    first, end = made.coarse_of["reserved"]
    assert (end - first) == -(-201 // made.sizes[1]) and made.check() == []


def test_a_cold_item_is_placed_by_its_text():
    log = histories()
    texts = np.array([np.eye(4)[int(one[1])] for one in log.item_ids] + [np.eye(4)[2]])
    made = fit_clusters(log, CONFIG, catalog=[*log.item_ids, "new"], texts=texts)
    warm = {int(code) for one, code in zip(made.items.ids, made.items.codes[:, 0], strict=True) if one[:2] == "g2"}
    assert int(made.items.encode("new")[0]) in warm
    with pytest.raises(InputError, match="41 rows"):
        fit_clusters(log, CONFIG, catalog=log.item_ids, texts=texts)


def test_vectors_by_text_are_of_those_that_read_alike():
    texts, known = np.eye(40)[np.arange(40) // 20 * 20], np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    assert np.allclose(vectors_by_text(texts, known, np.eye(40)[[20, 0]]), [[0, 1], [1, 0]], atol=1e-3)


# ---- newcomers


def test_newcomers_go_where_their_history_is_and_nobody_moves(made):
    before = all_codes(made)
    grown = add_members(
        made,
        users={"new": ["g1-i1", "g1-i2", "unheard of"], "lost": [], "twin": ["g1-i1", "g1-i2"]},
        items={"thing": ["g3-u1", "g3-u2"]},
    )
    for members, old in ((grown.users, made.users), (grown.items, made.items)):
        assert np.array_equal(members.codes[: len(old)], old.codes)
    usual = {int(code) for one, code in zip(made.items.ids, made.items.codes[:, 0], strict=True) if one[:2] == "g1"}
    assert int(grown.users.encode("new")[0]) in usual and int(grown.users.encode("twin")[0]) in usual
    assert int(grown.users.encode("lost")[0]) == made.coarse_of["reserved"][0]
    assert len(np.unique(all_codes(grown), axis=0)) == len(before) + 4 and grown.check() == []
    assert grown.decode(grown.items.tokens("thing")) == Entity("item", "thing")
    assert grown.n_tokens == made.n_tokens


@pytest.mark.parametrize("fine", ["rank", "residual"])
def test_newcomers_until_all_tokens_are_given_out(fine):
    log = histories(n_groups=2, users=4, items=4, met=4)
    made = fit_clusters(log, ClusterConfig(clusters=2, spare_codes=0.5, second_token=fine, walks=WALKS))
    left = made.sizes[0] * made.sizes[1] - len(made.users) - len(made.items)
    full = add_members(made, users={f"n{n}": ["g0-i0"] if n % 2 else [] for n in range(left)})
    assert len(np.unique(all_codes(full), axis=0)) == made.sizes[0] * made.sizes[1]
    with pytest.raises(CapacityError, match="--spare-codes"):
        add_members(full, items={"one more": []})


def test_newcomers_that_are_none(made):
    with pytest.raises(InputError, match="exists"):
        add_members(made, users={"g0-u0": []})
    with pytest.raises(InputError, match=r"Write \['g0-i1'\]"):
        add_members(made, users={"new": "g0-i1"})


# ---- keeping, opening, reading


def test_a_saved_folder_opens_the_same_and_needs_numpy_alone(made, tmp_path):
    mark = made.save(tmp_path / "c")
    opened = ClusterTokens.open(tmp_path / "c")
    assert artifact.load(tmp_path / "c").fingerprint == mark and artifact.verify(tmp_path / "c") == []
    assert np.array_equal(all_codes(opened), all_codes(made)) and opened.check() == []
    assert np.array_equal(opened.centroids, made.centroids) and opened.fine is None
    assert opened.coarse_of == made.coarse_of and opened.config == json.loads(json.dumps(made.config))
    assert opened.save(tmp_path / "again") == mark
    assert add_members(opened, users={"n": ["g0-i1"]}).check() == []
    code = (
        "import sys; from semid.clusters.tokens import ClusterTokens; c = ClusterTokens.open(sys.argv[1]);"
        "c.decode(c.users.tokens('g0-u0'));"
        "print([name for name in ('torch', 'faiss', 'numba', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "c"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_cluster_tokens_print_as_one_line(made):
    assert repr(made) == f"ClusterTokens(48 users, 40 items, {made.sizes[0]}x{made.sizes[1]}, {made.fingerprint[:15]}…)"
    assert repr(made.users) == "Members(48 ids)"


def test_folders_of_other_kinds_are_refused(made, tmp_path):
    artifact.save(tmp_path / "ids", {"kind": "semantic-id tokenizer"}, {"codes": np.zeros((1, 2), np.uint16)})
    with pytest.raises(InputError, match=r"ids: holds semantic IDs, made by semid fit; expected tokens of users"):
        ClusterTokens.open(tmp_path / "ids")
    with pytest.raises(ArtifactError, match="no such folder"):
        ClusterTokens.open(tmp_path / "nothing")


def test_tokens_inside_text_are_found_and_faults_are_named(made):
    one, other = made.users.tokens("g0-u0"), made.items.tokens("g1-i1")
    nobody = made.vocabulary.text([made.sizes[0] - 1, made.sizes[1] - 1])
    found = made.parse(f"{one} bought {other}, not {nobody} nor <c_a_0>")
    assert [attempt.entity for attempt in found] == [Entity("user", "g0-u0"), Entity("item", "g1-i1"), None, None]
    assert [attempt.problem for attempt in found[2:]] == ["no user or item has these tokens", "has 1 of 2 codes"]
    assert made.decode(f"{one} ") == Entity("user", "g0-u0") and made.decode(f"the {one}{other}") is None
    with pytest.raises(UnknownIDError, match="g0-u0"):
        made.users.tokens("g0-u00")


# ---- names


@pytest.mark.parametrize("template", ["onerec", "<s_{letter}_{code}>", "<s_x{letter}_{code}>"])
def test_tokens_like_those_of_the_items_are_refused(template):
    items = Vocabulary([4] * 3, "onerec")
    if template == "<s_x{letter}_{code}>":  # another word, which no scan of the items' tokens takes for one
        check_distinguishable(Vocabulary([2, 2], template), Vocabulary([4] * 3, "lcrec"))
        return
    with pytest.raises(ConfigError, match="mistaken"):
        check_distinguishable(Vocabulary([200, 2], template), items)
    with pytest.raises(ConfigError, match="mistaken"):
        fit_clusters(histories(), ClusterConfig(clusters=2, template=template))


@pytest.mark.parametrize("wrong", [{"clusters": 0}, {"second_token": "none"}, {"split": "half"}, {"spare_codes": -1}])
def test_choices_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ClusterConfig(**wrong)


def test_too_little_to_learn_from_is_said():
    with pytest.raises(InputError, match="--split all"):
        fit_clusters(read_interactions([{"user": "u", "items": ["a", "b"]}]), CONFIG)
    with pytest.raises(ConfigError, match="clusters=500"):
        fit_clusters(histories(), ClusterConfig(clusters=500, walks=WALKS))


# ---- on the sphere


def test_balanced_clusters_cost_little_where_clusters_are_even():
    """Points in even groups are clustered as they are: balancing takes nothing from them."""
    draw = np.random.default_rng(0)
    centers = np.eye(6, dtype=np.float32)
    points = divided_by_length(np.repeat(centers, 20, axis=0) + 0.1 * draw.standard_normal((120, 6)))
    _, labels = balanced_clusters(points, spherical_kmeans(points, 6), 20)
    assert all(len(set(labels[start : start + 20].tolist())) == 1 for start in range(0, 120, 20))
    with pytest.raises(ConfigError, match="at least 20"):
        balanced_clusters(points, centers, 19)


# ---- the command


def test_the_command(semid, tmp_path):
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    (tmp_path / "items.jsonl").write_text('{"id": "new", "title": "thing"}\n{"id": "g0-i0", "title": "thing"}\n')
    small = ("--dim", 8, "--walks-per-node", 4, "--schemas", "U-I-U,I-I")
    done = semid("clusters", "h.jsonl", "-o", "c", *small, "--items", "items.jsonl", "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert (figures["users"], figures["items"], figures["clusters"]) == (48, 41, 8) and figures["sequence_lift"] > 1
    opened = ClusterTokens.open(tmp_path / "c")
    assert figures["tokens"] == opened.n_tokens and opened.config["walks"]["schemas"] == ["U-I-U", "I-I"]
    assert (tmp_path / "c" / "users.tsv").read_text().count("\n") == 49
    assert semid("clusters", "h.jsonl", "-o", "c", *small).code == 1  # it exists
    assert semid("clusters", "h.jsonl", "-o", "d", "--template", "onerec").code == 1
    assert semid("clusters", "h.jsonl", "-o", "d", "--embeddings", "x.npy").code == 2
    assert not (tmp_path / "d").exists()
