"""Several histories of one user: refused, or the first or the last is kept, with its times and held-out counts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from semid import read_interactions
from semid.errors import InputError

HISTORIES = st.lists(
    st.tuples(st.sampled_from("uvw"), st.lists(st.sampled_from("abc"), max_size=4)), min_size=1, max_size=8
)


def records(histories: list[tuple[str, list[str]]]) -> list[dict]:
    """Each event with a time of its own, each history with its length as held-out counts."""
    found, clock = [], iter(range(1000))
    for user, items in histories:
        counts = {"n_valid": 0, "n_test": len(items)}
        found.append({"user": user, "items": items, "times": [next(clock) for _ in items], **counts})
    return found


@given(histories=HISTORIES, which=st.sampled_from(["first", "last"]))
@example(histories=[("v", ["a"]), ("u", ["a", "b"]), ("v", ["c", "b"]), ("v", [])], which="last")
def test_one_history_of_each_user_is_kept(histories, which):
    kept = {}
    for record in records(histories):
        if which == "last" or record["user"] not in kept:
            kept[record["user"]] = record
    log = read_interactions(records(histories), duplicates=which)
    assert dict(log) == {user: record["items"] for user, record in sorted(kept.items())}
    wanted = read_interactions([kept[user] for user in sorted(kept)])
    assert log.require_times().tolist() == wanted.require_times().tolist()
    assert log.require_held_out().tolist() == wanted.require_held_out().tolist()


def test_what_was_kept_is_said_and_otherwise_it_is_an_error(caplog):
    twice = records([("u", ["a"]), ("v", ["a"]), ("u", ["b"]), ("u", ["c"])])
    with pytest.raises(
        InputError, match=r"again \(first at items\[0\]\). Join the histories, or use --duplicates last\."
    ):
        read_interactions(twice)
    assert dict(read_interactions(twice, duplicates="last"))["u"] == ["c"]
    assert caplog.messages == ["items: 2 histories repeat a user; kept the last of each (--duplicates)"]


def test_a_skipped_history_leaves_no_part_behind(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"user": "u", "items": ["a", null], "times": [1, 2]}\n{"user": "v", "items": ["b"], "times": [3]}\n'
    )
    log = read_interactions(path, skip_bad_rows=True)
    assert dict(log) == {"v": ["b"]} and log.require_times().tolist() == [3.0]
    assert "skipped 1 of 2 rows" in caplog.text
