"""The whole way once, by the commands that users type, each result read back: it tells in a minute whether semid works
with the packages that are installed.

Needs semid, pytest and nothing else of the test extra: .ci/run runs it with the lowest versions that pyproject.toml
allows (.ci/lowest.txt), in an environment that holds nothing else. The tests are the steps of one story, in order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from semid import SemanticIDConfig, SemanticIDTokenizer, Trie, generate_items
from semid.tokenizer_exports import TrieLogitsProcessor

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "semid/datasets/debian-3000.jsonl"
CATALOG, NEW, GONE = 600, 40, 50  # items: at first, added later, missing when the IDs are learned again

pytestmark = pytest.mark.slow  # about a minute


def packages() -> list[dict]:
    lines = SAMPLE.read_text("utf-8").splitlines()[: CATALOG + NEW]
    return [json.loads(line) for line in lines]


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def histories() -> list[dict]:
    """60 users, each with six packages of the catalog in another order."""
    names = [package["id"] for package in packages()[:CATALOG]]
    return [
        {"user": f"u{user}", "items": [names[(user * 7 + step * 11) % 200] for step in range(6)]} for user in range(60)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the input of all steps, in which they leave what they make."""
    folder = tmp_path_factory.mktemp("smoke")
    write_lines(folder / "items.jsonl", packages()[:CATALOG])
    write_lines(folder / "new.jsonl", packages()[CATALOG:])
    write_lines(folder / "now.jsonl", packages()[GONE:])
    write_lines(folder / "histories.jsonl", histories())
    return folder


@pytest.fixture(scope="module")
def run(home):
    """`run("fit", ...)`: `semid fit ...` in a process of its own, as in a shell. Returns standard output."""

    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "semid", *map(str, arguments)]
        offline = os.environ | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=home, env=offline, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def sid(run, home) -> Path:
    """IDs of the catalog, from `semid fit`."""
    run("fit", "items.jsonl", "-o", "sid", "--method", "rqkmeans", "--levels", 3, "--codebook-size", 32)
    return home / "sid"


@pytest.fixture(scope="module")
def llm(run, sid, home) -> Path:
    """A tiny language model with the tokens of these IDs, from `semid extend`."""
    command = [sys.executable, str(ROOT / "docs/examples/tiny_model.py"), "tiny-llm"]
    subprocess.run(command, cwd=home, check=True)
    run("extend", "tiny-llm", "sid", "-o", "llm")
    return home / "llm"


def names(records: list[dict]) -> list[str]:
    return [record["id"] for record in records]


def test_fit_gives_every_item_an_id_of_its_own(sid, run):
    ids = SemanticIDTokenizer.from_pretrained(sid)
    catalog = names(packages()[:CATALOG])
    assert sorted(ids.item_ids) == sorted(catalog)
    assert len({tuple(codes) for codes in ids.encode(catalog).tolist()}) == CATALOG
    assert ids.decode(ids.encode(catalog)) == catalog
    assert "OK" in run("verify", "sid")


def test_doctor_and_show_describe_what_fit_made(sid, run):
    assert json.loads(run("doctor", "sid", "--json"))["collision_rate"] == 0
    tokens = SemanticIDTokenizer.from_pretrained(sid).tokens("abook")
    assert tokens in run("show", "sid", "abook")
    assert run("encode", "sid", "abook") == f"abook\t{tokens}\n"
    assert run("decode", "sid", f"Take {tokens}.") == f"{tokens}\tabook\n"


def test_each_learner_fits_saves_and_loads(home):
    """The two that train with torch; a few epochs do, since what they learn is not asked here."""
    for method in ("rqvae", "lc-rec"):
        config = SemanticIDConfig(method=method, levels=2, codebook_size=32, epochs=2, device="cpu")
        ids = SemanticIDTokenizer.fit(packages()[:200], config)
        ids.save_pretrained(home / method)
        again = SemanticIDTokenizer.from_pretrained(home / method)
        assert (again.codes == ids.codes).all() and len(set(again.tokens(again.item_ids))) == 200


def test_align_writes_records_whose_answers_are_items(sid, run, home):
    run("align", "sid", "histories.jsonl", "-o", "data", "--items", "items.jsonl", "--tasks", "next-item,text-to-id")
    ids = SemanticIDTokenizer.from_pretrained(sid)
    for task in ("next-item", "text-to-id"):
        records = [json.loads(line) for line in (home / "data" / task / "train.jsonl").read_text("utf-8").splitlines()]
        assert records
        for record in records[:50]:
            answers = [one.item_id for said in record["completion"] for one in ids.parse(said["content"])]
            assert answers == [record["item_id"]]


def test_extend_makes_each_token_one_token(llm):
    tokenizer, ids = AutoTokenizer.from_pretrained(llm), SemanticIDTokenizer.from_pretrained(llm)
    written = tokenizer(ids.tokens("abook"), add_special_tokens=False)["input_ids"]
    assert len(written) == ids.codes.shape[1] and tokenizer.decode(written) == ids.tokens("abook")
    assert AutoModelForCausalLM.from_pretrained(llm).get_input_embeddings().weight.shape[0] >= len(tokenizer)


def test_every_way_of_generating_gives_items_of_the_catalog(llm):
    tokenizer, model = AutoTokenizer.from_pretrained(llm), AutoModelForCausalLM.from_pretrained(llm)
    ids = SemanticIDTokenizer.from_pretrained(llm)
    trie = Trie.from_tokenizer(ids, tokenizer)
    prompts = tokenizer(["A game:", "To draw with:"], return_tensors="pt", padding=True, padding_side="left")
    found = [generate_items(model, prompts, trie, num_return=5, method=method) for method in ("tree", "repeat")]
    assert [one.method for one in found] == ["tree", "repeat"]
    assert found[0].item_ids == found[1].item_ids
    for items in found[0].item_ids:
        assert len(set(items)) == 5 and set(items) <= set(ids.item_ids)

    length = prompts["input_ids"].shape[1]
    written = model.generate(
        **prompts,
        num_beams=4,
        max_new_tokens=3,
        logits_processor=[TrieLogitsProcessor(trie, tokenizer)],
    )
    for row in written[:, length:].tolist():
        assert [one.item_id in ids.item_ids for one in ids.parse(row)] == [True]


def test_exported_files_hold_the_same_items(llm, run, home):
    ids = SemanticIDTokenizer.from_pretrained(llm)
    run("export", "llm", "--to", "lcrec", "-o", "shop.index.json")
    run("import", "shop.index.json", "-o", "again")
    again = SemanticIDTokenizer.from_pretrained(home / "again")
    assert (again.encode(ids.item_ids) == ids.codes).all()

    run("export", "llm", "--to", "flashrec", "-o", "shop.json")
    assert sorted(json.loads((home / "shop.json").read_text("utf-8")).values()) == sorted(ids.item_ids)

    run("export", "llm", "--to", "static", "-o", "shop.safetensors")
    assert load_file(home / "shop.safetensors")


def test_added_items_decode_and_old_ids_stand(sid, run, home):
    before = SemanticIDTokenizer.from_pretrained(sid)
    (home / "living").mkdir()
    before.save_pretrained(home / "living" / "sid")
    run("add", "living/sid", "new.jsonl")
    after, new = SemanticIDTokenizer.from_pretrained(home / "living/sid"), names(packages()[CATALOG:])
    assert (after.encode(before.item_ids) == before.codes).all()
    assert after.decode([after.tokens(item) for item in new]) == new
    assert "40 added" in run("history", "living/sid")


def test_refit_gives_the_changed_catalog_ids(sid, run, home):
    run("refit", "sid", "now.jsonl", "-o", "sid-2")
    now = names(packages()[GONE:])
    ids = SemanticIDTokenizer.from_pretrained(home / "sid-2")
    assert sorted(ids.item_ids) == sorted(now) and ids.decode(ids.encode(now)) == now
    moved = (home / "sid-2/remap.tsv").read_text("utf-8").splitlines()
    assert sum(line.endswith("\tgone") for line in moved) == GONE
    assert sum(line.endswith("\tnew") for line in moved) == NEW


def test_clusters_give_users_and_items_tokens(run, home):
    run("clusters", "histories.jsonl", "-o", "clusters")
    assert "u1" in run("show", "clusters", "u1")
