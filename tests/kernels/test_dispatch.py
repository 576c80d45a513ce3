"""Which backend runs, and what is said when the one that was named cannot."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from semid.errors import ConfigError
from semid.kernels import dispatch
from semid.kernels.dispatch import VARIABLE, choose, uses_triton
from semid.kernels.residual_train import residual_quantize
from semid.kernels.sinkhorn import balanced_codes, sinkhorn_step
from semid.train.residual_kmeans import ResidualKMeans


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    dispatch._say.cache_clear()
    dispatch._triton_obstacle.cache_clear()
    yield
    dispatch._triton_obstacle.cache_clear()


def test_a_cpu_works_in_numpy_unless_something_else_is_named(monkeypatch):
    assert choose().backend == "numpy"
    assert choose("torch").backend == "torch"
    monkeypatch.setenv(VARIABLE, "torch")
    assert choose().backend == "torch"
    assert choose("numpy").backend == "numpy"  # what the caller names comes first
    monkeypatch.setenv(VARIABLE, "auto")
    assert choose().backend == "numpy"


def test_a_named_backend_that_cannot_run_raises(monkeypatch):
    with pytest.raises(RuntimeError, match="backend='triton' cannot run on cpu: .*(CUDA|not installed)"):
        choose("triton")
    monkeypatch.setenv(VARIABLE, "triton")
    with pytest.raises(RuntimeError, match="SEMID_BACKEND=triton cannot run on cpu"):
        choose()
    monkeypatch.setenv(VARIABLE, "fastest")
    with pytest.raises(ValueError, match="SEMID_BACKEND=fastest should be one of auto, triton, torch, numpy"):
        choose()
    with pytest.raises(RuntimeError, match="backend='numpy' cannot run on cuda: NumPy works on a CPU"):
        choose("numpy", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_a_gpu_that_is_not_there_falls_back_and_says_why():
    choice = choose("auto", "cuda")
    assert choice.backend == "torch"
    assert "no Triton, since" in choice.reason


@pytest.mark.parametrize("asked", ["numpy", "torch"])
def test_kernels_without_a_numpy_form_are_left_out_by_either_name(monkeypatch, asked):
    monkeypatch.setenv(VARIABLE, asked)
    assert not uses_triton("cuda")
    monkeypatch.delenv(VARIABLE)
    assert not uses_triton("cpu")


def test_tensors_on_a_cpu_go_to_triton_only_where_it_interprets(monkeypatch):
    assert not uses_triton("cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert uses_triton(torch.device("cpu"))
    assert not uses_triton("cpu", "torch")
    assert choose().backend == "numpy"  # what has a NumPy form stays with it


@pytest.mark.parametrize(("capability", "fits"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_a_gpu_that_is_too_old_for_the_kernels_gets_none(monkeypatch, capability, fits):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert uses_triton("cuda:0") == fits
    if not fits:
        monkeypatch.setenv(VARIABLE, "triton")
        with pytest.raises(RuntimeError, match="compute capability 7.5 is below 8.0"):
            uses_triton("cuda:0")


def _quantized(points: torch.Tensor) -> torch.Tensor:
    return residual_quantize(points, [points[:4].clone()]).codes


def _assigned(points: torch.Tensor) -> torch.Tensor:
    return balanced_codes(points, points[:4].clone())


def _columns(points: torch.Tensor) -> torch.Tensor:
    return sinkhorn_step(points, points[:4].clone(), torch.zeros(4), 1.0)


@pytest.mark.parametrize("operation", [_quantized, _assigned, _columns])
def test_operations_take_what_dispatch_says(monkeypatch, operation):
    points = torch.linspace(-1, 1, 24).reshape(8, 3)
    expected = operation(points)
    monkeypatch.setenv(VARIABLE, "triton")
    with pytest.raises(RuntimeError, match="SEMID_BACKEND=triton cannot run on cpu"):
        operation(points)
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # too late for kernels that are imported already: they would fail
    monkeypatch.setenv(VARIABLE, "torch")
    assert operation(points).equal(expected)


def test_a_fit_that_cannot_run_as_asked_stops_before_it_starts(semid, monkeypatch, tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "a", "title": "one"}\n{"id": "b", "title": "two"}\n')
    monkeypatch.setenv(VARIABLE, "triton")
    done = semid("fit", "items.jsonl", "--output", "ids")
    assert done.code == 1
    assert "SEMID_BACKEND=triton cannot run on cpu: " in done.err
    assert "Traceback" not in done.err
    assert "embedded" not in done.out + done.err
    assert not (tmp_path / "ids").exists()


def test_the_reason_is_logged_once(caplog):
    with caplog.at_level(logging.INFO, logger="semid"):
        for _ in range(3):
            choose()
    assert [record.getMessage() for record in caplog.records] == ["work on cpu by numpy: the work is on a CPU"]


def test_codebooks_say_it_as_a_config_error():
    learner = ResidualKMeans(levels=2, codebook_size=4).fit(np.random.default_rng(0).normal(size=(50, 4)))
    vectors = np.zeros((3, 4), np.float32)
    with pytest.raises(ConfigError, match="backend='fast' should be one of"):
        learner.codebooks_.encode(vectors, backend="fast")
    assert (
        learner.codebooks_.encode(vectors, backend="torch") == learner.codebooks_.encode(vectors, backend="numpy")
    ).all()
