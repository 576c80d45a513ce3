"""adapt from end to end, on a tiny random language model: the folder, the report, the vectors, and what is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import semid.adaptation.run
from semid import AdaptConfig, adapt, read_interactions, read_items
from semid.adaptation.report import whitened
from semid.adaptation.workspace import opened_workspace
from semid.encoders import NeuralEncoder
from semid.encoders.language_models import sha256_of_model
from semid.errors import ConfigError, DependencyError, InputError, OutputExistsError
from semid.runtime.arrays import unit_rows
from tests.helpers.tiny_models import new_model, new_tokenizer

pytest.importorskip("sentence_transformers", reason="needs sentence-transformers: pip install semid[text]")

COLORS = ["red", "blue", "green", "black", "white", "gray"]
THINGS = ["shoe", "shirt", "hat", "scarf", "glove", "coat", "sock", "boot", "belt", "cap", "dress", "skirt"]
RECORDS = [{"id": f"{c}-{t}", "title": f"{c} {t}", "kind": t} for t in THINGS for c in COLORS]  # not sorted by id
ITEMS = read_items(RECORDS)
CONFIG = AdaptConfig(adapter="mlp", steps=24, batch_size=24, hidden=32, rate=1e-2, device="cpu")


def logs(n_users=180, met=7):
    """Users of one color each."""
    rng = np.random.default_rng(0)
    return [
        {"user": f"user-{n}", "items": [f"{COLORS[n % 6]}-{THINGS[i]}" for i in rng.permutation(len(THINGS))[:met]]}
        for n in range(n_users)
    ]


LOG = read_interactions(logs())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base-model")
    new_model("llama untied").save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "my-encoder"
    return adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output, vectors=output.with_suffix(".npy"))


def files_of(folder: Path) -> dict[str, str]:
    """Name -> checksum of every file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


# ---- the folder


def test_the_folder_gives_the_vectors_that_were_learned(made, base):
    """By hand from the base model, whose pooling NeuralEncoder does, and the dense layers' files."""
    rows = NeuralEncoder(base, device="cpu").transform(ITEMS)
    for name in ("3_Dense", "4_Dense"):
        layer = load_file(made.folder / name / "model.safetensors")
        rows = rows @ layer["linear.weight"].T + layer["linear.bias"]
        rows = np.maximum(rows, 0) if name == "3_Dense" else rows
    found = NeuralEncoder(made.folder, device="cpu").transform(ITEMS)
    assert made.better and np.abs(found - unit_rows(rows)).max() < 1e-6
    assert np.abs(found - NeuralEncoder(base, device="cpu").transform(ITEMS)).max() > 0.01


def test_sentence_transformers_alone_gives_the_same(made):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(made.folder), device="cpu", local_files_only=True)
    found = model.encode(list(ITEMS.texts()), show_progress_bar=False)
    assert np.abs(found - NeuralEncoder(made.folder, device="cpu").transform(ITEMS)).max() < 1e-6


def test_a_text_has_one_vector_whatever_it_is_encoded_with(made):
    encoder = NeuralEncoder(made.folder, device="cpu")
    alone = np.concatenate([encoder.transform(ITEMS.part(row, row + 1)) for row in range(5)])
    assert np.abs(alone - encoder.transform(ITEMS)[:5]).max() < 1e-6


def test_equal_seeds_give_equal_folders_and_others_do_not(made, base, tmp_path):
    again = adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=tmp_path / "again")
    assert files_of(again.folder) == files_of(made.folder)
    shuffled = read_items(RECORDS[::-1])  # the order of the source changes nothing
    same = adapt(shuffled, base, interactions=LOG, config=CONFIG, output=tmp_path / "shuffled")
    assert files_of(same.folder) == files_of(made.folder)
    other = adapt(
        ITEMS, base, interactions=LOG, config=AdaptConfig(**vars(CONFIG) | {"seed": 1}), output=tmp_path / "o"
    )
    assert sha256_of_model(other.folder) != sha256_of_model(made.folder)


def test_another_base_model_gives_another_identity(made, base, tmp_path):
    import torch

    model = new_model("llama untied")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    model.save_pretrained(tmp_path / "base")
    new_tokenizer().save_pretrained(tmp_path / "base")
    other = adapt(ITEMS, tmp_path / "base", interactions=LOG, config=CONFIG, output=tmp_path / "encoder")
    assert sha256_of_model(other.folder) != sha256_of_model(made.folder)
    assert other.report["base"]["sha256"] != made.report["base"]["sha256"] == sha256_of_model(base)


def test_no_path_and_no_user_is_in_the_folder(made, base):
    for path in made.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(base).encode() not in content and str(made.folder).encode() not in content, path
            assert b"user-1" not in content, path


def test_the_base_model_stays_as_it_was_and_its_weights_take_no_room_twice(made, base, tmp_path):
    before = files_of(base)
    adapted = adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=tmp_path / "encoder")
    assert files_of(base) == before
    here, there = (folder / "model.safetensors" for folder in (adapted.folder, base))
    if os.stat(tmp_path).st_dev == os.stat(base).st_dev:
        assert os.path.samefile(here, there)


@pytest.mark.parametrize("pooling", ["mean", "last", "eos"])
def test_a_model_without_pooling_gets_the_one_asked_for(base, tmp_path, pooling):
    config = AdaptConfig(**vars(CONFIG) | {"pooling": pooling, "steps": 1, "rate": 1e-12})  # learns nothing
    adapted = adapt(ITEMS, base, interactions=LOG, config=config, output=tmp_path / "encoder")
    assert not adapted.better
    expected = NeuralEncoder(base, pooling=pooling, device="cpu").transform(ITEMS)
    assert np.abs(NeuralEncoder(adapted.folder, device="cpu").transform(ITEMS) - expected).max() < 1e-5


def test_an_adapted_model_can_be_adapted_again(made, tmp_path):
    again = adapt(ITEMS, made.folder, interactions=LOG, config=CONFIG, output=tmp_path / "encoder")
    assert [path.name for path in sorted(again.folder.glob("[0-9]_*"))] == [
        "1_Pooling", "2_Normalize", "3_Dense", "4_Dense", "5_Normalize", "6_Dense", "7_Dense", "8_Normalize",
    ] or not again.better  # fmt: skip
    assert again.report["base"]["sha256"] == sha256_of_model(made.folder)


def test_semantic_ids_are_fitted_to_an_adapted_model_and_new_items_get_theirs(made, tmp_path):
    from semid import SemanticIDConfig, SemanticIDTokenizer
    from semid.pipeline.update import add

    config = SemanticIDConfig(method="rqkmeans", levels=3, codebook_size=8, encoder=str(made.folder), device="cpu")
    ids = SemanticIDTokenizer.fit(RECORDS[:60], config)
    ids.save_pretrained(tmp_path / "ids")
    add(tmp_path / "ids", RECORDS[60:])
    grown = SemanticIDTokenizer.from_pretrained(tmp_path / "ids")
    expected = ids.codebooks.encode(NeuralEncoder(made.folder, device="cpu").transform(ITEMS.part(60, 72)))
    found = np.array([grown.encode([record["id"]])[0] for record in RECORDS[60:]])
    assert (found[:, :2] == expected[:, :2]).all()  # the last code may give way to another item's


# ---- the report


def test_the_report_says_what_was_done_and_what_it_is_worth(made, base):
    report = json.loads((made.folder / "semid_adapt.json").read_text())
    assert report == json.loads(json.dumps(made.report))
    assert report["base"] == {"name": base.name, "commit": None, "sha256": sha256_of_model(base)}
    assert report["config"]["steps"] == 24 and "device" not in report["config"]
    counts = report["counts"]
    assert (counts["items"], counts["users"], counts["interactions"]) == (72, 180, 1260)
    # Two of seven interactions are held out by the split, and one more of the judges, who are half of the users.
    assert counts["judging_users"] == 90 and counts["learned_from"] == 180 * 5 - 90
    assert counts["pairs"] == 90 * (4 + 3 + 2) + 90 * (3 + 2 + 1)
    assert list(report["next_item"]) == ["plain", "whitened", "adapted", "adapted, whitened"]
    assert report["next_item"]["plain"]["users"]["all"] == 180
    steps = report["training"]["adapter"]["steps"]
    assert [line["step"] for line in steps] == [0, 4, 8, 12, 16, 20, 24] and steps[0]["loss"] is None
    best = max(line["recall@10"] for line in steps)
    assert (
        steps[[line["step"] for line in steps].index(report["training"]["adapter"]["kept_step"])]["recall@10"] == best
    )


def test_vectors_far_from_the_text_are_said_to_be(made):
    assert 0.6 < made.report["neighbors_kept"] < 0.9 and "by plain ones, so IDs" not in "\n".join(made.lines())
    far = replace(made, report=made.report | {"neighbors_kept": 0.41})
    assert "Adapted vectors keep 41% of the items that are nearest by plain ones, so IDs" in "\n".join(far.lines())


def test_learning_behavior_shows_in_the_figures(made):
    assert made.scores["adapted"].recall["all"] > 2 * made.scores["plain"].recall["all"]


def test_lines_show_the_figures_side_by_side(made):
    lines = made.lines()
    assert lines[0].split() == ["R@10", "/", "NDCG@10,", "%", "all", "(180)", *lines[0].split()[6:]]
    assert [line[:20].strip() for line in lines[1:5]] == ["plain", "whitened", "adapted", "adapted, whitened"]


def test_held_out_interactions_are_not_learned_from(base, tmp_path):
    """Other last items, and the same pairs."""
    records = logs()
    changed = [{**one, "items": [*one["items"][:-2], *one["items"][:-3:-1]]} for one in records]
    found = [
        adapt(ITEMS, base, interactions=read_interactions(given), config=CONFIG, output=tmp_path / str(n)).report
        for n, given in enumerate((records, changed))
    ]
    assert found[0]["pairs_sha256"] == found[1]["pairs_sha256"]
    assert found[0]["training"] == found[1]["training"]


def test_no_better_step_gives_the_base_model_and_says_so(base, tmp_path):
    config = AdaptConfig(**vars(CONFIG) | {"steps": 1, "rate": 1e-12})
    found = adapt(ITEMS, base, interactions=LOG, config=config, output=tmp_path / "encoder")
    assert not found.better and not list(found.folder.glob("*_Dense"))
    assert found.lines()[-1] == "No step was better than the start, so the folder gives the vectors of the base model."
    expected = NeuralEncoder(base, device="cpu").transform(ITEMS)
    assert np.abs(NeuralEncoder(found.folder, device="cpu").transform(ITEMS) - expected).max() < 1e-6


def test_two_views_of_an_item_are_learned_without_interactions(base, tmp_path):
    config = AdaptConfig(**vars(CONFIG) | {"learn": ("attributes",)})
    found = adapt(ITEMS, base, config=config, output=tmp_path / "encoder")
    assert found.better and found.scores == {} and found.report["pairs_sha256"] is None
    loss = [line["loss"] for line in found.report["training"]["adapter"]["steps"]]
    assert loss[-1] < loss[0]


def test_both_can_be_learned(base, tmp_path):
    config = AdaptConfig(**vars(CONFIG) | {"learn": ("attributes", "together")})
    assert adapt(ITEMS, base, interactions=LOG, config=config, output=tmp_path / "encoder").better


# ---- vectors in a file


def test_vectors_are_whitened_and_in_the_order_of_the_source(made):
    found = np.load(made.vectors)
    expected = whitened(NeuralEncoder(made.folder, device="cpu").transform(ITEMS))
    assert found.dtype == np.float32 and np.abs(found - expected).max() < 1e-3


def test_a_row_of_zeros_comes_first_where_asked_for(made, base, tmp_path):
    target = tmp_path / "items.safetensors"
    adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=tmp_path / "e", vectors=target, pad_row=True)
    found = load_file(target)["vectors"]
    assert found.shape == (73, 32) and not found[0].any()
    assert (found[1:] == np.load(made.vectors)).all()


# ---- what is refused


def refused(error, match, base, output, **choices):
    given = {"interactions": LOG, "config": CONFIG} | choices
    items = given.pop("items", ITEMS)
    with pytest.raises(error, match=match):
        adapt(items, given.pop("model", base), output=output, **given)
    assert not output.exists() or any(output.iterdir())
    assert [path.name for path in output.parent.iterdir() if path != output] == []


def test_impossible_input_is_refused_with_the_fix(base, tmp_path):
    output = tmp_path / "encoder"
    strangers = read_interactions([{"user": "u", "items": ["x", "y", "z"]}])
    refused(InputError, "none of its items is in the catalog", base, output, interactions=strangers)
    few = read_interactions(logs(30))
    refused(InputError, r"pairs of items met near each other .* too few to learn from; 1,000 are needed. Use --learn "
            "attributes", base, output, interactions=few)  # fmt: skip
    short = read_interactions([{"user": f"u{n}", "items": ["red-shoe"]} for n in range(9)])
    refused(InputError, "split=leave-one-out leaves no training interaction .* Use --split all", base, output,
            interactions=short)  # fmt: skip
    one_field = read_items([{"id": r["id"], "title": r["title"]} for r in RECORDS])
    attributes = AdaptConfig(learn=("attributes",))
    refused(InputError, "one text field .title. gives no two views", base, output, items=one_field, config=attributes)
    refused(ConfigError, "'lexical': adapt needs a language model. Use semid fit --collab", base, output,
            model="lexical")  # fmt: skip
    refused(ConfigError, "learn='together' needs interactions. Give them", base, output, interactions=None)
    refused(ConfigError, "an adapter learns in one go, so there is nothing to resume", base, output, resume=True)
    refused(InputError, "no such folder. Give a model's folder", base, output, model=str(tmp_path / "none" / "x"))
    refused(ConfigError, "should end in .npy or .safetensors", base, output, vectors=tmp_path / "v.csv")


def test_settings_that_do_not_exist_are_refused():
    for choices, message in (
        ({"learn": ("apart",)}, "learn='apart' should be one of together, attributes"),
        ({"train": "some"}, "train='some' should be one of adapter, lora, all"),
        ({"steps": 0}, "steps=0 should be an integer of 1 or more"),
        ({"batch_size": 1}, "batch_size=1 should be 2 or more"),
        ({"temperature": 0.0}, "temperature=0.0 should be above 0"),
        ({"attribute_dropout": 1.0}, "attribute_dropout=1.0 should be 0 or more and below 1"),
        ({"train": "lora", "dim": 8}, "dim=8: train='lora' keeps the model's dims"),
    ):
        with pytest.raises(ConfigError, match=message):
            AdaptConfig(**choices)


def test_a_model_that_pools_itself_takes_no_other_pooling(made, tmp_path):
    config = AdaptConfig(**vars(CONFIG) | {"pooling": "mean"})
    with pytest.raises(ConfigError, match="pooling='mean': the model describes its own pooling"):
        adapt(ITEMS, made.folder, interactions=LOG, config=config, output=tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_replaced_only_by_force_and_only_if_adapt_wrote_it(made, base, tmp_path):
    output = tmp_path / "encoder"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists. Choose another folder, or use --force"):
        adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output)
    with pytest.raises(OutputExistsError, match="is not a model written by semid adapt .* --force does not replace"):
        adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output, force=True)
    assert (output / "thesis.txt").read_text() == "mine"
    (output / "thesis.txt").unlink()
    adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output)
    adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output, force=True)
    assert files_of(output) == files_of(made.folder)
    taken = tmp_path / "v.npy"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="v.npy: exists. Choose another file"):
        adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=tmp_path / "other", vectors=taken)
    assert taken.read_bytes() == b"mine"


def test_several_processes_learn_no_adapter(base, tmp_path, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="An adapter learns in one process, and torchrun started 2"):
        adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=tmp_path / "encoder")


def test_a_missing_package_is_named(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    refused(DependencyError, r'needs sentence-transformers.*pip install "semid\[adapt\]"', base, tmp_path / "encoder")


# ---- interruptions

KILLED = """
import os, signal, sys
import semid.adaptation.run as run
from tests.adaptation.test_run import CONFIG, ITEMS, LOG

def end(*arguments, **choices):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(run, sys.argv[3], end)
run.adapt(ITEMS, sys.argv[1], interactions=LOG, config=CONFIG, output=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sentence_folder", "learn_layers", "add_layers", "write_report"])
def test_a_kill_leaves_nothing_at_the_output_and_the_next_run_sweeps(base, tmp_path, where):
    output = tmp_path / "encoder"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, base, output, where], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL and not output.exists()
    adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


@pytest.mark.parametrize("where", ["learn_layers", "add_layers", "write_report"])
def test_an_interruption_leaves_nothing(base, tmp_path, monkeypatch, where):
    def interrupted(*arguments, **choices):
        raise KeyboardInterrupt

    monkeypatch.setattr(semid.adaptation.run, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_belongs_to_one_run(tmp_path):
    output, mine, other = (
        tmp_path / "encoder",
        {"config": {"seed": 0}, "pairs": "a"},
        {"config": {"seed": 0}, "pairs": "b"},
    )
    with pytest.raises(ConfigError, match="no interrupted run there. Leave --resume out"):  # noqa: SIM117
        with opened_workspace(output, mine, resume=True, force=False):
            pass
    with pytest.raises(RuntimeError), opened_workspace(output, mine, resume=False, force=False) as place:
        (place / "checkpoint").mkdir()
        raise RuntimeError
    with pytest.raises(OutputExistsError, match="an interrupted run. Use --resume to go on"):  # noqa: SIM117
        with opened_workspace(output, mine, resume=False, force=False):
            pass
    with pytest.raises(ConfigError, match="the interrupted run has another pairs. Call with what it had"):  # noqa: SIM117
        with opened_workspace(output, other, resume=True, force=False):
            pass
    with opened_workspace(output, mine, resume=True, force=False) as place:
        assert (place / "checkpoint").is_dir()
    assert not place.exists()
    with opened_workspace(output, mine, resume=False, force=False):
        pass


def test_what_was_read_and_left_out_is_said(base, tmp_path, caplog):
    some = ITEMS.take(range(66))
    with caplog.at_level(logging.INFO, "semid"):
        adapt(some, base, interactions=LOG, config=CONFIG, output=tmp_path / "encoder")
    assert "are about 6 items that are not in the catalog; they are left out" in caplog.text
