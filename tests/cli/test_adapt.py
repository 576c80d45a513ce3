"""semid adapt: options reach the settings, figures on stdout, one exit code per outcome, nothing half-written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from semid import cli
from tests.helpers.tiny_models import new_model, new_tokenizer

pytest.importorskip("sentence_transformers", reason="needs sentence-transformers: pip install semid[text]")

COLORS = ["red", "blue", "green", "black", "white", "gray"]
THINGS = ["shoe", "shirt", "hat", "scarf", "glove", "coat", "sock", "boot", "belt", "cap", "dress", "skirt"]
QUICK = ("--steps", "12", "--batch-size", "16", "--rate", "0.01", "--device", "cpu")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A catalog, histories of users of one color each, and a model."""
    folder = tmp_path_factory.mktemp("shop")
    items = [{"id": f"{c}-{t}", "title": f"{c} {t}", "kind": t} for t in THINGS for c in COLORS]
    rng = np.random.default_rng(0)
    users = [
        {"user": f"u{n}", "items": [f"{COLORS[n % 6]}-{THINGS[i]}" for i in rng.permutation(len(THINGS))[:7]]}
        for n in range(180)
    ]
    for name, records in (("items", items), ("histories", users)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    new_model("llama untied").save_pretrained(folder / "model")
    new_tokenizer().save_pretrained(folder / "model")
    return folder


@pytest.fixture
def semid(monkeypatch, capsys, tmp_path, shop):
    """Run a command in an empty folder; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["semid", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())

    return run


def arguments(shop, *more):
    return ("adapt", shop / "items.jsonl", "--interactions", shop / "histories.jsonl", "--encoder", shop / "model",
            "-o", "my-encoder", *QUICK, *more)  # fmt: skip


def test_figures_are_on_stdout_and_steps_on_stderr(semid, shop, tmp_path):
    code, out, err = semid(*arguments(shop))
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:5]] == ["R@10", "plain", "whitened", "adapted", "adapted,"]
    assert [line.split()[0] for line in err.splitlines()] == ["read", "split", "embed", "adapt", "saved"]
    assert [path.name for path in tmp_path.iterdir()] == ["my-encoder"]


def test_the_folder_is_an_encoder_of_fit(semid, shop):
    assert semid(*arguments(shop, "--quiet"))[0] == 0
    code, _, err = semid("fit", shop / "items.jsonl", "-o", "sid", "--encoder", "my-encoder", "--method", "rqkmeans",
                         "--levels", "3", "--codebook-size", "8", "--device", "cpu")  # fmt: skip
    assert code == 0 and "32 dims" in err
    assert semid("verify", "sid")[0] == 0


def test_json_is_the_report_and_where_things_are(semid, shop):
    code, out, _ = semid(*arguments(shop, "--json", "--vectors", "v.npy", "--pad-row"))
    told = json.loads(out)
    assert code == 0 and told["folder"] == "my-encoder" and told["vectors"] == "v.npy"
    assert told["config"]["steps"] == 12 and told["config"]["batch_size"] == 16
    assert np.load("v.npy").shape == (73, 32)
    with open("my-encoder/semid_adapt.json") as file:
        report = json.load(file)
    assert report == {name: told[name] for name in report}


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (("--learn", "attributes"), "learn", ["attributes"]),
        (("--learn", "attributes", "--learn", "together"), "learn", ["together", "attributes"]),
        (("--adapter", "mlp"), "adapter", "mlp"),
        (("--loss", "llmemb"), "loss", "llmemb"),
        (("--loss", "llmemb-detached"), "loss", "llmemb-detached"),
        (("--split", "all"), "split", "all"),
        (("--dim", "8"), "dim", 8),
        (("--temperature", "0.2"), "temperature", 0.2),
        (("--attribute-dropout", "0.6", "--learn", "attributes"), "attribute_dropout", 0.6),
        (("--pooling", "mean"), "pooling", "mean"),
        (("--seed", "7"), "seed", 7),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_option_reaches_the_settings(semid, shop, options, field, value):
    code, out, _ = semid(*arguments(shop, "--json", *options))
    assert code == 0 and json.loads(out)["config"][field] == value


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--pad-row",), 2, "--pad-row goes with --vectors"),
        (("--learn", "apart"), 2, "'apart' is not one of"),
        (("--resume",), 1, "an adapter learns in one go"),
        (("--steps", "0"), 1, "steps=0 should be an integer of 1 or more"),
        (("--vectors", "v.csv"), 1, "should end in .npy or .safetensors"),
        (("--text", "title", "--learn", "attributes"), 1, "one text field (title) gives no two views"),
        (("--item-field", "none"), 1, "none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_sentence_and_nothing_is_written(semid, shop, tmp_path, options, code, message):
    ended, out, err = semid(*arguments(shop, *options))
    assert (ended, out) == (code, "") and message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_interactions_are_needed_to_learn_together(semid, shop):
    code, _, err = semid("adapt", shop / "items.jsonl", "--encoder", shop / "model", "-o", "e")
    assert code == 1 and "learn='together' needs interactions" in err
    code, _, err = semid("adapt", shop / "items.jsonl", "--encoder", "lexical", "-o", "e")
    assert code == 1 and "adapt needs a language model. Use semid fit --collaborative-fusion" in err


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_leaves_nothing(shop, tmp_path):
    command = [sys.executable, "-m", "semid", *map(str, arguments(shop, "--steps", "100000"))]
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, **heard) as running:
        for line in running.stderr:
            if line.startswith("embed"):
                break
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
    assert running.returncode == 130 and "interrupted; nothing was written" in rest
    assert list(tmp_path.iterdir()) == []
