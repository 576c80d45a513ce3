"""adapt that trains the language model itself, as commands run it: killed and resumed, and by several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from semid import AdaptConfig, adapt
from semid.encoders import NeuralEncoder
from semid.errors import ConfigError, OutputExistsError
from tests.adaptation.test_run import ITEMS, LOG, base, files_of
from tests.helpers.real_models.smollm2 import smollm2_folder

pytest.importorskip("peft", reason="needs peft: pip install peft")
pytest.importorskip("accelerate", reason="needs accelerate: pip install accelerate")

__all__ = ["base"]  # the fixture
ROOT = Path(__file__).parents[2]
CONFIG = AdaptConfig(
    train="lora", learn=("together", "attributes"), steps=12, batch_size=16, rate=5e-3, max_length=32, device="cpu"
)

KILLED = """
import os, signal, sys
import semid.adaptation.language_model as language_model
from tests.adaptation.test_training_runs import CONFIG, ITEMS, LOG
from semid import adapt

judged, calls = language_model._vectors, []

def vectors(*arguments):
    calls.append(0)
    if len(calls) > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return judged(*arguments)

language_model._vectors = vectors
adapt(ITEMS, sys.argv[1], interactions=LOG, config=CONFIG, output=sys.argv[2])
"""

TOGETHER = """
import sys
from tests.adaptation.test_training_runs import CONFIG, ITEMS, LOG
from semid import adapt

adapt(ITEMS, sys.argv[1], interactions=LOG, config=CONFIG, output=sys.argv[2])
"""


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    return adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=tmp_path_factory.mktemp("out") / "encoder")


def test_a_trained_model_gives_better_vectors_and_needs_no_base(trained):
    assert trained.better and trained.scores["adapted"].recall["all"] > trained.scores["plain"].recall["all"]
    names = set(files_of(trained.folder))
    assert "model.safetensors" in names and not any("adapter" in name for name in names - {"semid_adapt.json"})
    assert [path.name for path in trained.folder.parent.iterdir()] == ["encoder"]
    steps = trained.report["training"]["language model"]["steps"]
    assert [line["step"] for line in steps] == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.slow
@pytest.mark.parametrize("n_judged", [1, 4])
def test_a_killed_training_leaves_nothing_at_the_output_and_is_resumed_to_the_same_folder(
    base, trained, tmp_path, n_judged
):
    output = tmp_path / "encoder"
    done = subprocess.run([sys.executable, "-c", KILLED, base, output, str(n_judged)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and [path.name for path in tmp_path.iterdir()] == ["encoder.part"]
    with pytest.raises(OutputExistsError, match=r"an interrupted run\. Use --resume"):
        adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output)
    with pytest.raises(ConfigError, match="the interrupted run has another config"):
        adapt(ITEMS, base, interactions=LOG, config=replace(CONFIG, seed=1), output=output, resume=True)
    adapt(ITEMS, base, interactions=LOG, config=CONFIG, output=output, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    assert files_of(output) == files_of(trained.folder)


@pytest.mark.slow
def test_a_recommender_can_be_trained_on_top(base, tmp_path):
    choices = replace(CONFIG, rat=True, steps=6, dim=8)
    made = adapt(ITEMS, base, interactions=LOG, config=choices, output=tmp_path / "encoder")
    assert {"SASRec, ID table", "SASRec, adapted"} < set(made.scores)
    assert set(made.report["training"]) == {"language model", "adapter"}
    assert NeuralEncoder(made.folder).transform(ITEMS).shape == (len(ITEMS), 8)


@pytest.mark.slow
def test_a_real_model_learns_in_half_precision_and_little_memory(tmp_path):
    choices = replace(
        CONFIG, steps=12, batch_size=8, rate=1e-3, pooling="eos", bfloat16=True, gradient_checkpointing=True
    )
    made = adapt(ITEMS, smollm2_folder(), interactions=LOG, config=choices, output=tmp_path / "encoder")
    assert made.better and made.scores["adapted"].recall["all"] > made.scores["plain"].recall["all"]
    weights = made.folder / "model.safetensors"
    assert {tensor.dtype for tensor in load_file(weights).values()} == {np.dtype(np.float16)}  # as they came
    assert weights.stat().st_mode == (made.folder / "modules.json").stat().st_mode


@pytest.mark.slow
def test_several_processes_train_one_model(base, trained, tmp_path):
    script, output = tmp_path / "run.py", tmp_path / "encoder"
    script.write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    shared = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*map(str, command), str(base), str(output)], cwd=ROOT, env=shared, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "run.py"]
    assert np.abs(NeuralEncoder(output).transform(ITEMS) - NeuralEncoder(base).transform(ITEMS)).max() > 0.1
    report = json.loads((output / "semid_adapt.json").read_text())
    alone, together = (made["training"]["language model"]["steps"] for made in (trained.report, report))
    assert together[0] == alone[0]  # nothing is learned yet
    # Equal batches with all their negatives: the losses differ by dropout alone. With half of them it would be .7 less.
    assert together[1]["loss"] == pytest.approx(alone[1]["loss"], abs=0.2)
