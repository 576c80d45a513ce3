"""Alignment data: nothing held out leaks, every answer is right, and the same input gives the same bytes."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import semid
from semid.data import read_interactions
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.tokenizer_exports.alignment.config import TASKS
from semid.tokenizer_exports.alignment.tasks import CASES
from semid.tokens.vocabulary import Vocabulary
from tests.helpers.aligned import ITEMS, N_ITEMS, catalog, histories, items_in, records, texts, title

MEMORY = next((place for place in ("/dev/shm",) if Path(place).is_dir()), None)  # hundreds of small files
BASIC = histories([0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10], [11], list(range(29, 15, -1)))


def write(folder: Path, interactions=BASIC, **choices):
    return semid.write_alignment(catalog(), interactions, folder / "out", **choices)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- nothing leaks


def held_out_by_place(rows: list[int]) -> dict[str, set[str]]:
    """Leave-one-out, said anew: what a part may not know."""
    if len(rows) < 3:
        return {"train": set(), "validation": set()}
    return {"train": {f"i{row}" for row in rows[-2:]}, "validation": {f"i{rows[-1]}"}}


def held_out_by_time(log: list[dict], user: str, cuts: tuple[float, float]) -> dict[str, set[str]]:
    times = sorted(row["time"] for row in log)
    first, second = (times[min(int(cut * len(times)), len(times) - 1)] for cut in cuts)
    own = [row for row in log if row["user"] == user]
    return {
        "train": {row["item"] for row in own if row["time"] >= first},
        "validation": {row["item"] for row in own if row["time"] >= second},
    }


def check_no_leak(folder: Path, held_out: dict[str, dict[str, set[str]]]) -> None:
    """No record of a user names an item that is held out for this user later, by ID or by title."""
    for split in ("train", "validation"):
        for record in records(folder, split):
            if record["user"]:
                named = items_in(" ".join(texts(record))) | {record["item_id"]}
                leaked = named & held_out[record["user"]][split]
                assert not leaked, (split, record)


many_rows = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=9), min_size=1, max_size=5)


def given_texts(rows: list[list[int]], seed: int) -> dict[str, list[dict]]:
    """Queries and preferences for everybody, some about items that the user never met."""
    chance = random.Random(seed)
    users = [f"u{user}" for user, one in enumerate(rows) if one]
    queries = [{"query": "q", "item": "i0"}]
    for user, one in zip(users, filter(None, rows), strict=True):
        wanted = [*one, chance.randrange(N_ITEMS)]
        queries += [{"user": user, "item": f"i{row}", "query": f"{user} wants {n}"} for n, row in enumerate(wanted)]
    return {"queries": queries, "preferences": [{"user": user, "preference": f"{user} likes it"} for user in users]}


@given(
    many_rows.filter(lambda rows: any(len(set(one[:-2])) > 1 for one in rows)),
    st.integers(0, 99),
    st.sampled_from(["popularity", "uniform", "same-prefix"]),
)
@settings(max_examples=20)
def test_leaving_one_out_leaks_nothing(rows, seed, negatives):
    """Also with repeated items, queries and preferences, through prompts, answers and options."""
    choices = given_texts(rows, seed) | {
        "seed": seed,
        "negatives": negatives,
        "items": ITEMS,
        "templates_per_record": 3,
    }
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        try:
            done = write(Path(folder), histories(*rows), **choices)
        except InputError as error:  # all that there was in training is held out
            assert "there is no training record" in str(error)
            return
        held_out = {f"u{user}": held_out_by_place(one) for user, one in enumerate(rows)}
        check_no_leak(done.folder, held_out)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, N_ITEMS - 1), st.integers(0, 20)), min_size=8, max_size=40),
    st.sampled_from([(0.8, 0.9), (0.5, 0.5), (0.3, 0.8)]),
)
@settings(max_examples=20)
def test_a_split_by_time_leaks_nothing(rows, cuts):
    log = [{"user": f"u{user}", "item": f"i{item}", "time": time} for user, item, time in rows]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        try:
            done = write(Path(folder), log, split="time", cuts=cuts)
        except InputError as error:
            assert "there is no training record" in str(error)
            return
        check_no_leak(done.folder, {user: held_out_by_time(log, user, cuts) for user in ("u0", "u1", "u2", "u3")})


def test_what_is_popular_is_counted_in_training_alone(tmp_path):
    """i20 is the last item of many, and so in no negative of those who never met it."""
    rows = [[user, 10, 11, 12, 20] for user in range(10)] + [[25, 26, 27, 28, 29]] * 10
    done = write(tmp_path, histories(*rows), tasks="negative", templates_per_record=8)
    named = Counter(item for record in records(done.folder) for item in items_in(texts(record)[0]))
    assert named["i10"] and not named["i20"]


# ---- the records are right


def test_next_item_asks_for_every_place_of_the_histories(tmp_path):
    done = write(tmp_path, tasks="next-item", max_history=3)
    ids = catalog()
    expected = {"train": [], "validation": [], "test": []}
    for user, one in enumerate(BASIC):
        items, n_train = one["items"], len(one["items"]) - (2 if len(one["items"]) > 2 else 0)
        for place in range(1, len(items)):
            split = "train" if place < n_train else "validation" if place < len(items) - 1 else "test"
            expected[split].append((f"u{user}", items[max(0, place - 3) : place], items[place]))
    for split, wanted in expected.items():
        found = []
        for record in records(done.folder, split):
            prompt, completion = texts(record)
            found.append((record["user"], [one.item_id for one in ids.parse(prompt)], ids.decode(completion)))
            assert record["item_id"] == ids.decode(completion) and record["task"] == "next-item"
        assert found == wanted
    assert done.counts == {"next-item": {split: len(wanted) for split, wanted in expected.items()}}


def test_every_item_is_asked_for_both_ways_in_training(tmp_path):
    """Held out for somebody or not: that an item has a title is no interaction."""
    done = write(tmp_path, tasks="text-to-id,id-to-text", items=ITEMS)
    ids = catalog()
    asked = set()
    for record in records(done.folder, task="text-to-id"):
        prompt, completion = texts(record)
        item = ids.decode(completion)
        n = int(item[1:])
        assert title(item) in prompt or f"words on number {n}." in prompt
        asked.add(item)
    assert asked == set(ids.item_ids)
    for record in records(done.folder, task="id-to-text"):
        prompt, completion = texts(record)
        (found,) = ids.parse(prompt)
        n = int(found.item_id[1:])
        assert title(found.item_id) in completion or f"words on number {n}." in completion
        asked.discard(found.item_id)
    assert not asked


def test_items_asked_again_are_put_otherwise(tmp_path):
    done = write(tmp_path, tasks="text-to-id", seed=3)
    first = {record["item_id"]: texts(record)[0] for record in records(done.folder)}
    again = [*records(done.folder, "validation"), *records(done.folder, "test")]
    assert again
    assert all(texts(record)[0] != first[record["item_id"]] for record in again)


def test_fusion_crosses_ids_and_titles(tmp_path):
    """IDs are answered by a title or description, titles by an ID."""
    done = write(tmp_path, tasks="fusion", items=ITEMS, templates_per_record=9)
    ids, kinds = catalog(), set()
    for record in records(done.folder):
        prompt, completion = texts(record)
        if ids.parse(prompt):
            kinds.add("title" if completion == title(record["item_id"]) else "description")
            assert not ids.parse(completion)
        else:
            kinds.add("id")
            assert ids.decode(completion) == record["item_id"] and items_in(prompt)
    assert kinds == {"title", "description", "id"}


@pytest.mark.parametrize("negatives", ["popularity", "uniform", "same-prefix"])
def test_choices_have_one_answer(tmp_path, negatives):
    done = write(tmp_path, tasks="negative", negatives=negatives, candidates=3, templates_per_record=8)
    ids = catalog()
    met = {one["user"]: set(one["items"]) for one in BASIC}
    answers = Counter()
    for record in records(done.folder):
        prompt, completion = texts(record)
        answer = ids.decode(completion)
        options = {one.item_id for one in ids.parse(prompt)}
        strangers = options - met[record["user"]]
        assert answer in options and answer == record["item_id"]
        if answer in strangers:
            assert strangers == {answer}
        else:
            assert len(strangers) == 2  # one of three was met
        answers[answer in strangers] += 1
    assert answers[True] and answers[False]


def test_negatives_of_the_same_prefix_share_codes(tmp_path):
    """The first code, at least, with the item that is right; but for u4, who met all items that begin so."""
    done = write(tmp_path, tasks="negative", negatives="same-prefix", templates_per_record=8)
    ids, alike = catalog(), []
    for record in records(done.folder):
        right, options = ids.encode(record["item_id"]), ids.parse(texts(record)[0])
        met = BASIC[int(record["user"][1:])]["items"]
        if record["item_id"] in met and record["user"] != "u4":  # not: which one does not follow
            alike += [one.codes[0] == right[0] for one in options if one.item_id not in met]
    assert alike and all(alike)


def test_queries_go_where_their_item_is_asked(tmp_path):
    queries = [
        {"query": "the first", "user": "u0", "item": "i1"},
        {"query": "the last but one", "user": "u0", "item": "i3"},
        {"query": "the last", "user": "u0", "item": "i4"},
        {"query": "never met", "user": "u0", "item": "i9"},
        {"query": "who?", "user": "nobody", "item": "i4"},
        {"query": "what?", "item": "nothing"},
    ]
    done = write(tmp_path, queries=queries, tasks="search")
    for number, split in enumerate(("train", "validation", "test")):
        (record,) = records(done.folder, split)
        prompt, completion = texts(record)
        assert queries[number]["query"] in prompt and "i4" not in items_in(prompt)
        assert catalog().decode(completion) == queries[number]["item"]
    assert done.notes == (
        "queries for items that their user never met: 1 left out.",
        "queries for items without a live ID: 1 left out.",
        "queries of unknown users: 1 left out.",
    )


def test_texts_without_a_place_are_dealt_out(tmp_path):
    """A share of the queries is kept from training; a user's preferences stay together."""
    queries = [{"query": f"thing number {n}", "item": f"i{n % N_ITEMS}"} for n in range(300)]
    preferences = [{"user": f"u{n}", "preference": ["likes red", "likes blue"]} for n in range(300)]
    people = [{"user": f"u{n}", "items": ["i0", "i1", "i2", "i3"]} for n in range(300)]
    done = write(tmp_path, people, queries=queries, preferences=preferences, tasks="search,preference")
    for task, n_records in (("search", 300), ("preference", 600)):
        counts = done.counts[task]
        assert sum(counts.values()) == n_records and all(
            0.01 < counts[part] / n_records < 0.12 for part in list(counts)[1:]
        )
    users = [
        {one["user"] for one in records(done.folder, split, "preference")} for split in ("train", "validation", "test")
    ]
    assert sum(map(len, users)) == len(set.union(*users)) == 300
    assert {texts(one)[1] for one in records(done.folder, "train", "preference")} == {"likes red", "likes blue"}


def test_user_tokens_are_shown_where_a_template_has_them(tmp_path):
    index = tmp_path / "users.json"
    index.write_text(json.dumps({one["user"]: ["<CT1>", f"<10{n:02}>"] for n, one in enumerate(BASIC)}))
    done = write(tmp_path, user_tokens=index, tasks="next-item", templates_per_record=9)
    shown = [texts(record)[0] for record in records(done.folder)]
    assert any("<CT1><1000>" in prompt for prompt in shown) and any("<CT1>" not in prompt for prompt in shown)
    with pytest.raises(ConfigError, match="'<s_a_1>' of user 'u0' reads as the ID of an item"):
        semid.write_alignment(catalog(), BASIC, tmp_path / "other", user_tokens={"u0": "<s_a_1>"})
    index.write_text('{"u0": [1, 2]}')
    with pytest.raises(InputError, match=r"users\.json: holds codes\. Give the tokens of users as text"):
        semid.write_alignment(catalog(), BASIC, tmp_path / "other", user_tokens=index)


def test_users_may_have_the_tokens_of_clusters(tmp_path):
    from semid.clusters.tokens import ClusterTokens, members_of

    codes, vectors = np.array([[0, 0], [0, 1], [1, 0]]), np.zeros((3, 2), np.float16)
    vocabulary = Vocabulary([2, 2], "<c_{letter}_{code}>")
    nobody = members_of([], codes[:0], vectors[:0], vocabulary)
    made = members_of(["u0", "u1", "u4"], codes, vectors, vocabulary)
    ClusterTokens(vocabulary, made, nobody, np.zeros((2, 2)), np.zeros((2, 2)), {}, {}).save(tmp_path / "clusters")
    done = write(tmp_path, user_tokens=tmp_path / "clusters", tasks="next-item", templates_per_record=9)
    shown = {record["user"] for record in records(done.folder) if "<c_a_0><c_b_1>" in texts(record)[0]}
    assert shown == {"u1"}


def test_retired_and_unknown_items_are_left_out_after_the_cut(tmp_path, caplog):
    """Whoever's last item has no live ID is not tested: the split is the same for every artifact."""
    ids = catalog(retired=("i4",))
    people = [*histories([0, 1, 2, 3, 4]), {"user": "x", "items": ["i5", "??", "i6", "i7", "i8"]}]
    done = semid.write_alignment(ids, people, tmp_path / "out")
    asked = [[one["item_id"] for one in records(done.folder, split, "next-item")] for split in ("validation", "test")]
    assert asked == [["i3", "i7"], ["i8"]]
    named = {item for split in ("train", "validation", "test") for one in records(done.folder, split)
             for item in items_in(" ".join(texts(one)))}  # fmt: skip
    assert "i4" not in named
    told = "items: 1 of 10 events (10.0 %) are about 1 item that is not in the artifact; they are left out."
    assert done.notes[2:] == (told, "interactions with retired items: 1 left out.")
    assert [line for line in caplog.messages if "left out" in line] == list(done.notes)
    card = (done.folder / "README.md").read_text("utf-8")
    assert all(f"- {note}" in card for note in done.notes)


def test_histories_may_say_what_is_held_out(tmp_path):
    people = [
        {"user": "a", "items": ["i0", "i1", "i2", "i3", "i4"], "n_valid": 0, "n_test": 2},
        {"user": "b", "items": ["i5", "i6", "i7"], "n_valid": 1, "n_test": 0},
    ]
    done = write(tmp_path, people, split="own", tasks="next-item")
    asked = {
        split: [one["item_id"] for one in records(done.folder, split)] for split in ("train", "validation", "test")
    }
    assert asked == {"train": ["i1", "i2", "i6"], "validation": ["i7"], "test": ["i3", "i4"]}


def test_a_title_that_holds_an_id_does_not_teach_it(tmp_path):
    items = [one | {"title": f"{one['title']} <s_a_0><s_b_0><s_c_0> or <s_b_1>"} for one in ITEMS]
    done = write(tmp_path, items=items, tasks="id-to-text")
    for record in records(done.folder):
        assert len(catalog().parse(" ".join(texts(record)))) == 1


def test_long_texts_are_cut_at_a_blank(tmp_path):
    items = [one | {"title": "word " * 50} for one in ITEMS]
    done = write(tmp_path, items=items, tasks="id-to-text", max_text=12)
    lengths = {len(texts(record)[1]) for record in records(done.folder)}
    assert max(lengths) <= 2 * 12 + 1 and "word word" in {texts(record)[1] for record in records(done.folder)}


# ---- formats and files


def test_the_formats_say_the_same(tmp_path):
    plain = write(tmp_path, tasks="fusion")
    expected = [(*texts(record), record["item_id"]) for record in records(plain.folder)]
    for form in ("messages", "alpaca"):
        done = semid.write_alignment(catalog(), BASIC, tmp_path / form, tasks="fusion", format=form)
        rows = list(records(done.folder))
        if form == "messages":
            assert [[turn["role"] for turn in row["messages"]] for row in rows] == [["user", "assistant"]] * len(rows)
            found = [(*(turn["content"] for turn in row["messages"]), row["item_id"]) for row in rows]
        else:
            found = [(row["instruction"], row["output"], row["item_id"]) for row in rows]
            assert {row["input"] for row in rows} == {""}
        assert found == expected


def test_the_same_input_gives_the_same_bytes_in_any_order(tmp_path):
    done = [write(tmp_path / str(n), people, items=ITEMS) for n, people in enumerate([BASIC, BASIC[::-1]])]
    assert tree(done[0].folder) == tree(done[1].folder)
    other = write(tmp_path / "other", items=ITEMS, seed=1)
    assert tree(other.folder)["fusion/train.jsonl"] != tree(done[0].folder)["fusion/train.jsonl"]


def test_another_user_changes_nothing_for_the_others(tmp_path):
    before = write(tmp_path / "a", tasks="next-item,fusion")
    after = write(tmp_path / "b", [*BASIC, {"user": "a0", "items": ["i1", "i2", "i3", "i4"]}], tasks="next-item,fusion")
    kept = [record for record in records(after.folder) if record["user"] != "a0"]
    assert kept == list(records(before.folder)) and len(list(records(after.folder))) > len(kept)


def test_shards_hold_the_training_records_in_turn(tmp_path):
    whole = list(records(write(tmp_path / "a", tasks="next-item").folder))
    done = write(tmp_path / "b", tasks="next-item", shards=3)
    names = sorted(path.name for path in done.folder.rglob("*.jsonl"))
    assert names == ["test.jsonl", *(f"train-0000{n}-of-00003.jsonl" for n in range(3)), "validation.jsonl"]
    shards = [list(records(done.folder, f"train-0000{n}")) for n in range(3)]
    assert [shards[n % 3][n // 3] for n in range(len(whole))] == whole


def test_max_records_takes_so_many_at_random(tmp_path):
    whole = [json.dumps(one) for one in records(write(tmp_path / "a", tasks="next-item").folder)]
    done = write(tmp_path / "b", tasks="next-item,negative", max_records=5)
    chosen = [json.dumps(one) for one in records(done.folder, task="next-item")]
    assert len(chosen) == 5 and set(chosen) < set(whole)
    assert [one for one in whole if one in chosen] == chosen
    assert chosen != whole[:5]
    assert done.counts["next-item"]["test"] == 3 and done.counts["negative"]["train"] == 5


def test_the_templates_of_a_record_are_different(tmp_path):
    done = write(tmp_path, tasks="next-item", templates_per_record=4)
    asked = Counter((record["user"], texts(record)[1]) for record in records(done.folder))
    assert set(asked.values()) == {4}
    assert len({texts(record)[0] for record in records(done.folder)}) == sum(asked.values())


def test_the_card_says_what_is_there(tmp_path):
    done = write(tmp_path, items=ITEMS)
    card = (done.folder / "README.md").read_text()
    assert done.fingerprint in card and done.fingerprint.startswith("sha256:")
    assert f"| next-item | {done.counts['next-item']['train']} | 3 | 3 | 9 |" in card
    assert "- search is left out: no queries." in card
    assert "| negatives | `popularity` |" in card


def test_the_fingerprint_is_that_of_the_artifact(tmp_path):
    assert catalog().save_pretrained(tmp_path / "sid") == write(tmp_path, tasks="next-item").fingerprint


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(CASES, "fusion", lambda material: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- what cannot be


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"tasks": "next-itme"}, ConfigError, "tasks='next-itme' is no task. Did you mean next-item?"),
        ({"taks": "fusion"}, ConfigError, "'taks' is no setting of alignment data. Did you mean 'tasks'?"),
        ({"tasks": "search"}, ConfigError, "tasks: search needs queries"),
        ({"candidates": 1}, ConfigError, "candidates=1 should be a whole number, 2 or more"),
        ({"cuts": "0.9,0.8", "split": "time"}, ConfigError, "should be two shares, ascending"),
        ({"split": "time"}, InputError, "items: 5 rows: no time, which a split by time needs"),
        ({"interactions": [{"user": "u", "items": ["?"]}]}, InputError, "none of its items is in the artifact"),
        ({"interactions": histories([1], [2])}, InputError, "next-item: there is no training record"),
        ({"items": ITEMS, "title_field": "name"}, InputError, 'no item has the text field "name"'),
        ({"items": [{"id": "other", "title": "a thing"}]}, InputError, "none of its items is in the artifact"),
        ({"queries": [{"item": "i0"}]}, InputError, r'items\[0\]: missing field "query" \(have: item\)'),
        ({"queries": [{"query": "a", "item": "?"}], "tasks": "search"}, InputError, "none of its records is about"),
        ({"preferences": [{"user": "u0", "preference": 7}]}, InputError, "should be a text or a list of texts"),
        ({"preferences": [{"preference": "red"}]}, InputError, 'missing field "user"'),
    ],
)  # fmt: skip
def test_wrong_input_is_named(tmp_path, choices, error, message):
    with pytest.raises(error, match=message):
        write(tmp_path, **choices)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists and is not empty"):
        write(tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_times_of_histories_must_not_fall(tmp_path):
    people = [{"user": "u", "items": ["i1", "i2", "i3"], "times": [1, 3, 2]}]
    with pytest.raises(InputError, match="the times of the history fall"):
        write(tmp_path, people, split="time")


def test_a_split_by_time_cuts_everybody_at_one_moment(tmp_path):
    people = [
        {"user": "early", "items": ["i0", "i1", "i2", "i3"], "times": [1, 2, 3, 4]},
        {"user": "late", "items": ["i4", "i5", "i6", "i7"], "times": [5, 6, 9, 10]},
        {"user": "both", "items": ["i8", "i9"], "times": ["7", 8]},
    ]
    done = write(tmp_path, people, split="time", tasks="next-item", cuts=(0.6, 0.8))
    found = {
        split: [one["item_id"] for one in records(done.folder, split)] for split in ("train", "validation", "test")
    }
    assert found == {"train": ["i1", "i2", "i3", "i5"], "validation": ["i9"], "test": ["i6", "i7"]}


@pytest.mark.parametrize("split", ["time", "own"])
def test_every_split_takes_sources_that_can_be_read_only_once(tmp_path, split):
    people = [one | {"times": list(range(len(one["items"]))), "n_valid": 1, "n_test": 0} for one in BASIC]
    sources = people, read_interactions(people), iter(people)
    done = [write(tmp_path / str(n), source, split=split) for n, source in enumerate(sources)]
    assert tree(done[0].folder) == tree(done[1].folder) == tree(done[2].folder)


def test_a_split_that_the_source_does_not_know_is_refused(tmp_path):
    for split, said in (("time", "no time, which a split by time needs"), ("own", "n_valid=None, n_test=None")):
        with pytest.raises(InputError, match=said):
            write(tmp_path, read_interactions(BASIC), split=split)


# ---- the command


@pytest.fixture
def files(tmp_path):
    catalog().save_pretrained(tmp_path / "sid")
    for name, rows in (("histories", BASIC), ("items", ITEMS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_command_writes_what_the_function_writes(semid, files):
    done = semid("align", "sid", "histories.jsonl", "-o", "data", "--items", "items.jsonl", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert set(told["counts"]) == set(TASKS) - {"search", "preference"} and told["folder"] == "data"
    assert done.err.splitlines()[0] == "read        5 users, 26 interactions with the artifact's items"
    assert tree(files / "data") == tree(write(files, items=ITEMS).folder)


def test_the_command_shows_templates_that_it_takes_back(semid, files):
    shown = semid("align", "--show-templates")
    (files / "mine.toml").write_text(shown.out)
    plain = semid("align", "sid", "histories.jsonl", "-o", "a")
    again = semid("align", "sid", "histories.jsonl", "-o", "b", "--templates", "mine.toml")
    assert plain.code == again.code == 0 and plain.out == again.out
    assert tree(files / "a")["fusion/train.jsonl"] == tree(files / "b")["fusion/train.jsonl"]


def test_mistakes_at_the_command_line_are_sentences(semid, files):
    done = semid("align", "sid", "histories.jsonl", "-o", "sid")
    assert done.code == 1 and done.err == "semid: sid: exists and is not empty. Choose another folder, or remove it.\n"
    assert (
        semid("align", "sid", "nowhere.jsonl", "-o", "a").err == "semid: nowhere.jsonl: no such file. Check the path.\n"
    )
    assert semid("align", "sid", "histories.jsonl", "-o", "a", "--tasks", "fusoin").code == 1
    assert not (files / "a").exists()
