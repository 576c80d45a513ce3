"""semid info and semid show of a folder of semid clusters: true figures, users and items, the nearest first."""

from __future__ import annotations

import json

import numpy as np
import pytest

from semid.artifact import store as artifact
from semid.clusters.fit import ClusterConfig, fit_clusters
from semid.clusters.tokens import ClusterTokens
from semid.data import read_interactions
from semid.diagnostics import cluster_info, describe_members, member_summary
from semid.encoders.collaborative import WalkConfig
from semid.errors import UnknownIDError
from semid.tokenizer_exports.formats.metaid import read_metaid
from tests.helpers.communities import lines

CONFIG = ClusterConfig(clusters=4, spare_codes=0.5, walks=WalkConfig(dim=8, walks_per_node=10, walk_length=10))


@pytest.fixture(scope="module")
def made() -> ClusterTokens:
    """48 users and 40 items with a history; a user without one; and an item with the name of a user."""
    return fit_clusters(read_interactions([*lines(), {"user": "cold", "items": []}]), CONFIG, catalog=["g0-u0"])


def test_info_says_what_is_there(semid, made, tmp_path):
    mark = made.save(tmp_path / "c")
    told = json.loads(semid("info", "c", "--json").out)
    users, items = made.users.codes[:, 0], made.items.codes[:, 0]
    fullest = np.bincount(np.concatenate([users, items]))[:4].max()
    assert told["users"] == "49 (1 of them with a reserved token)"
    assert told["items"] == "41 (1 of them with a reserved token)"
    assert told["clusters"].startswith("4, shared by users and items, balanced; 1 reserved")
    assert told["in a cluster"] == f"{fullest} at most; {made.sizes[1]} second tokens, by rank"
    assert told["tokens"].startswith(f"{made.n_tokens}, like <c_a_0><c_b_0>")
    assert told["fingerprint"] == mark == artifact.load(tmp_path / "c").fingerprint
    assert "spare_codes=0.5" in told["settings"] and "dim=8" in told["walks"]
    shown = semid("info", "c").out
    assert all(name in shown and value in shown for name, value in told.items())


def test_info_of_other_choices(tmp_path):
    choices = {"clusters": 2, "joint": False, "balanced": False, "second_token": "residual", "walks": CONFIG.walks}
    told = cluster_info(fit_clusters(read_interactions(lines()), ClusterConfig(**choices)))
    assert told["clusters"].startswith("4, separate for users and items, unbalanced; 1 reserved")
    assert told["in a cluster"].endswith("second tokens, with vectors of their own")
    for side in "ui":
        rows = {f"{side}{n}": [f"<CT{n % 2}>", f"<{1001 + 2 * (side == 'i') + n // 2}>"] for n in range(4)}
        (tmp_path / f"{side}.json").write_text(json.dumps(rows))
    imported = read_metaid(tmp_path / "u.json", tmp_path / "i.json")
    told = cluster_info(imported)
    assert told["settings"] == "none: imported from u.json, i.json" and "walks" not in told
    assert told["clusters"].startswith("2, shared by users and items; 0 reserved")
    assert describe_members(imported, "u1", 5)[0]["neighbors"] == []  # its files do not say where anybody is


def test_a_user_is_shown_with_those_nearest_in_the_cluster(made):
    (told,) = describe_members(made, "g2-u3", 4)
    assert told["tokens"] == made.users.tokens("g2-u3") and told["codes"] == made.users.encode("g2-u3").tolist()
    inside = [np.flatnonzero(one.codes[:, 0] == told["codes"][0]) for one in (made.users, made.items)]
    assert told["sharing_cluster"] == {"users": len(inside[0]) - 1, "items": len(inside[1])}
    own = made.users.vectors[made.users.ledger.rows_of(["g2-u3"])[0]].astype(np.float32)
    cosines = {
        (kind, members.ids[row]): float(members.vectors[row].astype(np.float32) @ own)
        for kind, members, rows in zip(("user", "item"), (made.users, made.items), inside, strict=True)
        for row in rows.tolist()
    }
    del cosines["user", "g2-u3"]
    nearest = sorted(cosines.values(), reverse=True)[:4]
    assert [one["cosine"] for one in told["neighbors"]] == pytest.approx(nearest, abs=1e-6)
    assert all(one["cosine"] == pytest.approx(cosines[one["kind"], one["id"]]) for one in told["neighbors"])
    shown = member_summary(told)
    assert shown[0] == "g2-u3 (user)" and len(shown) == 3 + 4


def test_a_user_and_an_item_of_one_name_are_both_shown(made):
    user, item = describe_members(made, "g0-u0", 2)
    assert (user["kind"], item["kind"]) == ("user", "item")
    assert not user["reserved"] and item["reserved"] and item["neighbors"] == []
    assert "reserved" in member_summary(item)[2]


def test_an_unknown_name_gets_near_ones(made):
    with pytest.raises(UnknownIDError, match="neither among the 49 users nor the 41 items. Did you mean 'g1-u11'"):
        describe_members(made, "g1-u111", 1)


def test_the_command_shows_users_and_items(semid, made, tmp_path):
    made.save(tmp_path / "c")
    done = semid("show", "c", "g1-u1", "g1-i1", "--neighbors", "2", "--json")
    assert [(one["kind"], one["id"], len(one["neighbors"])) for one in json.loads(done.out)] == [
        ("user", "g1-u1", 2), ("item", "g1-i1", 2)
    ]  # fmt: skip
    assert made.items.tokens("g1-i1") in semid("show", "c", "g1-i1").out
    done = semid("show", "c", "nobody")
    assert done.code == 1 and "neither among" in done.err
