"""semid score as a shell runs it: files of recommendations, and a language model on the test file of semid align."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from semid.artifact.top_k_cache import save_top_k
from semid.tokenizer_exports import extend, generate_items, write_alignment
from semid.trie import Trie
from tests.helpers.aligned import catalog, histories
from tests.helpers.tiny_models import new_model, new_tokenizer

LOG = histories([0, 1, 2, 3], [1, 2, 3, 4], [5, 1, 2, 6], [2, 7])  # the last user has no test item
RIGHT = {"u0": ["i3", "i9"], "u1": ["i4", "i3"], "u2": ["i1", "i6"]}


def write_lines(name: str, records) -> str:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return name


def write_lists(name: str, lists: dict) -> str:
    return write_lines(name, ({"user": user, "items": items} for user, items in lists.items()))


@pytest.fixture
def shop(semid):
    write_lines("log.jsonl", LOG)
    write_lists("mine.jsonl", RIGHT)
    return semid


def scored(shop, *arguments) -> dict:
    done = shop("score", *arguments, "--json", "--k", "1,2", "--resamples", "50")
    assert done.code == 0, done.err
    return json.loads(done.out)


# ---- files of recommendations


def test_recommendations_are_scored_on_the_last_items(shop):
    found = scored(shop, "mine.jsonl", "--interactions", "log.jsonl")["systems"]
    assert list(found) == ["mine.jsonl", "co-occurrence", "popularity"]
    mine = found["mine.jsonl"]
    assert (mine["n_cases"], mine["n_users"]) == (3, 3)
    assert [mine[name]["value"] for name in ("recall@1", "recall@2", "mrr")] == pytest.approx([2 / 3, 1, 5 / 6])
    assert mine["coverage@2"]["value"] == pytest.approx(5 / 9)  # of the log's eight items and i9
    # Training: i0 i1 | i1 i2 | i5 i1. After i2, i3, i2 nothing came, so both baselines recommend i1, i0.
    assert found["co-occurrence"]["recall@2"]["value"] == found["popularity"]["recall@2"]["value"] == 0


def test_the_table_and_what_was_read(shop):
    done = shop("score", "mine.jsonl", "--interactions", "log.jsonl", "--k", "2", "--resamples", "50")
    assert done.code == 0
    assert "read        3 test users, 9 items" in done.err
    assert "1 item without an interaction: counted as part of the catalog. --ids gives all items" in done.err
    lines = done.out.splitlines()
    assert lines[0] == "3 test cases of 3 users; held-out items: head 0, mid 0, tail 0, cold 3"
    assert lines[2].split() == ["recall@2", "1.0000", "1.0000", "to", "1.0000", "0.0000", "0.0000"]


def test_two_files_are_compared_user_by_user(shop):
    write_lists("theirs.jsonl", {"u0": ["i9"], "u1": ["i4"]})
    found = scored(shop, "mine.jsonl", "--compare", "theirs.jsonl", "--interactions", "log.jsonl")
    assert found["differences"]["theirs.jsonl"]["recall@1"]["value"] == pytest.approx(1 / 3)
    done = shop("score", "mine.jsonl", "--compare", "theirs.jsonl", "--interactions", "log.jsonl")
    assert "theirs.jsonl: nothing for 1 user of the test; they count as wrong" in done.err
    assert "difference" in done.out.splitlines()[1]


def test_a_split_by_time_asks_for_all_later_items(shop):
    write_lines("times.csv", [])
    rows = [("u0", "a", 1), ("u0", "b", 9), ("u0", "c", 10), ("u1", "a", 2), ("u1", "b", 3), ("u2", "c", 4)]
    Path("times.csv").write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    write_lists("mine.jsonl", {"u0": ["c", "a"]})
    found = scored(shop, "mine.jsonl", "--interactions", "times.csv", "--split", "time", "--cuts", "0.5,0.7")
    mine = found["systems"]["mine.jsonl"]
    assert mine["n_cases"] == 1 and mine["recall@1"]["value"] == 0.5


def test_colliding_ids_share_their_places(shop):
    index = {f"i{n}": ["<a_0>", f"<b_{n}>"] for n in range(8)} | {"i9": ["<a_0>", "<b_3>"]}  # i3 and i9 collide
    Path("their.index.json").write_text(json.dumps(index))
    write_lists("lists.jsonl", {"u0": ["<a_0><b_3>"], "u1": ["<a_0><b_4>"], "u2": ["<a_0><b_6>", "<a_7><b_7>"]})
    done = shop("score", "lists.jsonl", "--ids", "their.index.json", "--interactions", "log.jsonl", "--json")
    mine = json.loads(done.out)["systems"]["lists.jsonl"]
    assert mine["recall@1"]["value"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert mine["recall@5"]["value"] == 1


def test_a_cache_is_scored_with_its_artifact(shop):
    ids = catalog()
    ids.save_pretrained("sid")
    codes = np.stack([ids.codes[[int(item[1:]) for item in items]] for items in RIGHT.values()])
    save_top_k(
        "cache",
        RIGHT,
        codes,
        np.zeros(codes.shape[:2], np.float32),
        histories=[["i0"]] * 3,
        fingerprint=ids.fingerprint,
    )
    found = scored(shop, "cache", "--ids", "sid", "--interactions", "log.jsonl")["systems"]["cache"]
    assert [found[name]["value"] for name in ("recall@1", "recall@2")] == pytest.approx([2 / 3, 1])
    done = shop("score", "cache", "--interactions", "log.jsonl")
    assert done.code == 1 and "cache: holds codes. Give the artifact that they belong to: --ids DIR" in done.err


WRONG = [
    (("nothing.jsonl", "--interactions", "log.jsonl"), 1, "nothing.jsonl: no such file"),
    (("mine.jsonl",), 2, "give --interactions for a file of recommendations, or --model"),
    (("mine.jsonl", "--model", "m", "--interactions", "log.jsonl"), 2, "give --interactions"),
    (("mine.jsonl", "--interactions", "log.jsonl", "--num-beams", "3"), 2, "--num-beams goes with --model"),
    (("mine.jsonl", "--model", "m", "--split", "time"), 2, "--split goes with --interactions"),
    (("mine.jsonl", "--model", "m", "--user-field", "u"), 2, "--user-field goes with --interactions"),
    (("mine.jsonl", "--interactions", "log.jsonl", "--k", "5;10"), 2, "'5;10' should be numbers such as 5,10"),
    (("mine.jsonl", "--interactions", "log.jsonl", "--k", "0"), 1, "should be one or more numbers >= 1"),
    (("mine.jsonl", "--interactions", "log.jsonl", "--cuts", "2"), 1, "should be two shares"),
    (("others.jsonl", "--interactions", "log.jsonl"), 1, "others.jsonl: has none of the test's users"),
    (("strange.jsonl", "--interactions", "log.jsonl"), 1, "strange.jsonl: no item is in the interactions, such as"),
    (("strange.jsonl", "--ids", "sid", "--interactions", "log.jsonl"), 1, "no entry is in the catalog, such as 'B07'"),
    (("two.jsonl", "--interactions", "short.jsonl"), 1, "no user has a test interaction"),
    (("mine.jsonl", "--interactions", "log.jsonl", "--split", "own"), 1, "n_valid"),
    (("mine.jsonl", "--model", "sid"), 1, "mine.jsonl"),
    (("test.jsonl", "--model", "nowhere"), 1, "nowhere: no such folder"),
    (("test.jsonl", "--model", "sid"), 1, "sid: no model can be loaded"),
    (("foreign.jsonl", "--model", "sid"), 1, "none of its items is in the artifact, such as 'B07'"),
    (("test.jsonl", "--model", "sid", "-o", "mine.jsonl"), 1, "mine.jsonl: exists"),
    (("text.jsonl", "--model", "sid"), 1, "is of the task text-to-id. Give next-item/test.jsonl of `semid align`"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=lambda one: one if isinstance(one, str) else "")
def test_wrong_use_says_what_to_do(shop, arguments, code, words):
    catalog().save_pretrained("sid")
    write_lists("others.jsonl", {"somebody": ["i1"]})
    write_lists("strange.jsonl", {"u0": ["B07"]})
    write_lines("short.jsonl", LOG[-1:])
    write_lists("two.jsonl", {"u3": ["i2"]})
    record = {"prompt": [{"role": "user", "content": "?"}], "task": "next-item", "user": "u0"}
    write_lines("test.jsonl", [record | {"item_id": "i1"}])
    write_lines("foreign.jsonl", [record | {"item_id": "B07"}])
    write_lines("text.jsonl", [record | {"item_id": "i1", "task": "text-to-id"}])
    done = shop("score", *arguments)
    assert (done.code, done.out) == (code, ""), done
    assert words in done.err and "Traceback" not in done.err


def test_evaluate_is_no_command_but_two(semid):
    done = semid("evaluate", "sid")
    assert done.code == 2
    assert "semid doctor measures IDs, semid score measures recommendations" in done.err


# ---- a language model


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A random model with the IDs, and alignment data of 12 users."""
    folder = tmp_path_factory.mktemp("llm")
    ids, tokenizer, model = catalog(), new_tokenizer(), new_model("qwen3 tied")
    log = histories(*([(user + step * (1 + user % 3)) % 30 for step in range(5)] for user in range(12)))
    for form in ("trl", "alpaca"):
        write_alignment(ids, log, folder / form, tasks="next-item", format=form)
    torch.manual_seed(0)
    extend(tokenizer, model, ids)
    model.save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    ids.save_pretrained(folder / "sid")
    return folder, model, tokenizer


def test_a_model_is_scored_on_what_it_generates(semid, llm):
    folder, model, tokenizer = llm
    test = folder / "trl" / "next-item" / "test.jsonl"
    options = (
        "--model",
        folder / "llm",
        "--ids",
        folder / "sid",
        "--k",
        "1,5",
        "--batch-size",
        "5",
        "--num-beams",
        "30",
    )
    done = semid("score", test, *options, "-o", "out.jsonl", "--json")
    assert done.code == 0, done.err
    assert "read        12 test cases, 24 training records" in done.err and "saved       out.jsonl" in done.err
    records = [json.loads(line) for line in test.read_text().splitlines()]
    trie, hits = Trie.from_tokenizer(catalog(), tokenizer), []
    written = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    for record, out in zip(records, written, strict=True):  # one prompt at a time, unpadded
        text = tokenizer.apply_chat_template(record["prompt"], tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        (items,) = generate_items(model, inputs, trie, num_return=5, num_beams=30).item_ids
        assert out == {"user": record["user"], "item_id": record["item_id"], "items": items}
        hits.append(record["item_id"] in items)
    found = json.loads(done.out)["systems"]
    assert found["llm"]["recall@5"]["value"] == pytest.approx(np.mean(hits))
    assert list(found) == ["llm", "co-occurrence", "popularity"]
    again = semid("score", test, *options, "--compare", "out.jsonl", "--json")
    difference = json.loads(again.out)["differences"]["out.jsonl"]
    assert {name: one["value"] for name, one in difference.items()} == dict.fromkeys(difference, 0.0)
    # The same lists, scored as a file on the same log.
    log = histories(*([(user + step * (1 + user % 3)) % 30 for step in range(5)] for user in range(12)))
    write_lines("log.jsonl", log)
    file = semid("score", "out.jsonl", "--ids", folder / "sid", "--interactions", "log.jsonl", "--k", "1,5", "--json")
    same = json.loads(file.out)["systems"]
    assert {**same["out.jsonl"]} == {**found["llm"]}
    assert (same["co-occurrence"], same["popularity"]) == (found["co-occurrence"], found["popularity"])


def test_users_with_several_test_cases_are_compared_case_by_case(semid, llm):
    folder, _, _ = llm
    log = [one | {"n_valid": 0, "n_test": 3} for one in histories([0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 5, 8])]
    write_alignment(catalog(), log, "own", tasks="next-item", split="own")
    options = ("own/next-item/test.jsonl", "--model", folder / "llm", "--ids", folder / "sid", "--k", "3", "--json")
    done = semid("score", *options, "-o", "out.jsonl")
    system = json.loads(done.out)["systems"]["llm"]
    assert (system["n_cases"], system["n_users"]) == (6, 2), done.err
    written = Path("out.jsonl").read_text().splitlines()
    Path("turned.jsonl").write_text("\n".join(reversed(written)) + "\n")  # the order of the lines does not matter
    same = json.loads(semid("score", *options, "--compare", "turned.jsonl").out)["differences"]["turned.jsonl"]
    assert {one["value"] for one in same.values()} == {0.0}
    Path("half.jsonl").write_text("\n".join(written[:3]) + "\n")
    half = semid("score", *options, "--compare", "half.jsonl")
    assert "half.jsonl: nothing for 3 test cases; they count as wrong" in half.err
    write_lists("users.jsonl", {"u0": ["i1"]})
    done = semid("score", *options, "--compare", "users.jsonl")
    assert done.code == 1 and "users have several test cases. Give what semid score -o wrote." in done.err


def test_records_of_another_layout_are_read_too(semid, llm):
    folder, _, _ = llm
    options = ("--model", folder / "llm", "--ids", folder / "sid", "--json", "--max-cases", "5")
    found = [semid("score", folder / form / "next-item" / "test.jsonl", *options) for form in ("trl", "alpaca")]
    assert [one.code for one in found] == [0, 0], found
    assert json.loads(found[0].out) == json.loads(found[1].out)
    assert json.loads(found[0].out)["systems"]["llm"]["n_cases"] == 5
