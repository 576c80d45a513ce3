"""Learning in several processes: the same as in one. Two real processes, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semid.artifact.store import load, verify
from semid.errors import ConfigError
from semid.runtime import distributed
from semid.runtime.distributed import (
    all_max,
    all_sum,
    broadcast,
    from_writer,
    gather,
    is_writer,
    place,
    rank,
    share,
    world,
)
from semid.train.lcrec import LCRecRQVAE

ROOT = Path(__file__).parents[2]
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def torchrun(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


# ---- one process


def test_one_process_needs_no_torch_and_changes_nothing():
    code = "import sys, semid.runtime.distributed as d; d.all_sum(1); d.place(3); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    array = np.arange(3)
    assert all_sum(array) is array and all_max(array) is array and gather(array) is array and broadcast(array) is array
    assert (world(), rank(), is_writer(), share(7), place(7)) == (1, 0, True, slice(0, 7), (0, 7))
    assert from_writer(lambda: array) is array


def test_who_is_who_goes_by_torchruns_variables(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert (world(), rank(), distributed.local_rank(), is_writer()) == (3, 1, 1, False)
    parts = []
    for number in range(3):
        monkeypatch.setenv("RANK", str(number))
        parts += range(10)[share(10)]
    assert parts == list(range(10))
    monkeypatch.delenv("MASTER_ADDR")  # a RANK of something else
    assert (world(), is_writer()) == (1, True)


def test_what_cannot_learn_together_says_so(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="LC-Rec's recipe learns in one process, and torchrun started 3"):
        LCRecRQVAE().fit(np.zeros((10, 4)))


# ---- two processes


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What one process finds, and what two find."""
    from tests.helpers.together import results

    folder = tmp_path_factory.mktemp("together")
    done = torchrun(ROOT / "tests" / "helpers" / "together.py", folder / "two.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "two.npz") as two:
        return results(), dict(two)


def of(found, name: str) -> tuple[np.ndarray, np.ndarray]:
    return found[0][name], found[1][name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["max", "gathered", "gathered numbers", "broadcast", "alone", "number"])
def test_collectives(found, name):
    np.testing.assert_array_equal(*of(found, name))


@pytest.mark.slow
def test_places_count_over_all(found):
    assert found[1]["place"].tolist() == [1500, 3000]
    np.testing.assert_allclose(*of(found, "sum"), rtol=1e-13)


@pytest.mark.slow
def test_kmeans_statistics_are_those_of_all_rows(found):
    np.testing.assert_array_equal(*of(found, "codes"))
    np.testing.assert_array_equal(*of(found, "counts"))
    np.testing.assert_allclose(*of(found, "sums"), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(*of(found, "scores"), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kmeans", "few"])
def test_kmeans_ends_at_the_same_centroids(found, name):
    one, two = of(found, name)
    np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_balanced_codes_are_those_of_the_whole_batch(found):
    one, two = of(found, "balanced")
    assert len(two) == 1000 and (one == two).mean() >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("shares", ["", "uneven."])
@pytest.mark.parametrize("kind", ["residual_kmeans", "rqvae", "rqvae_sample"])
def test_learners_give_the_same_codes(found, shares, kind):
    one, two = of(found, f"{shares}{kind}.codes")
    assert (one == two).all(axis=1).mean() >= 0.999
    np.testing.assert_allclose(*of(found, f"{shares}{kind}.levels"), atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("shares", ["", "uneven."])
@pytest.mark.parametrize("kind", ["rqvae", "rqvae_even", "rqvae_sample"])
def test_training_takes_the_same_steps(found, shares, kind):
    for name in ("trained", "decoder"):
        one, two = of(found, f"{shares}{kind}.{name}")
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())
    one, two = of(found, f"{shares}{kind}.errors")
    np.testing.assert_allclose(two, one, rtol=5e-3)


@pytest.mark.slow
def test_no_process_ends_before_all_are_done_nor_fails_while_it_ends(tmp_path):
    (tmp_path / "work.py").write_text(
        "import atexit, os, time\n"
        "from semid.runtime.distributed import all_sum, end_together, is_writer\n"
        "atexit.register(os.abort)\n"  # as torch's threads do now and then
        "all_sum(1)\n"
        "if is_writer():\n"
        "    time.sleep(1)\n"
        "    open('written', 'w').close()\n"
        "end_together()\n"
    )
    done = torchrun("work.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "written").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rqkmeans", "rqvae"])
def test_fit_writes_one_artifact_and_speaks_once(tmp_path, method):
    items = [{"id": f"item-{n}", "title": f"polish {n % 97} shade {n} of {n % 7}"} for n in range(600)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    choices = ["items.jsonl", "--method", method, "--levels", "3", "--codebook-size", "16", "--dim", "16", "--json"]
    done = torchrun("-m", "semid", "fit", *choices, "-o", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)  # one object: the others print nothing
    assert done.stderr.count("read        600 items") == 1 and done.stderr.count("saved       two") == 1
    assert not verify(tmp_path / "two") and load(tmp_path / "two").fingerprint == said["fingerprint"]
    if method == "rqkmeans":
        alone = [sys.executable, "-m", "semid", "fit", *choices, "-o", "one"]
        subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True)
        one, two = (dict(load(tmp_path / name).arrays) for name in ("one", "two"))
        codes = next(name for name in one if name.endswith("codes"))
        assert (one[codes] == two[codes]).all(axis=1).mean() >= 0.999
