"""Which backend runs, and what is said when the one that was named cannot."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from semid.errors import ConfigError
from semid.kernels import dispatch
from semid.kernels.dispatch import VARIABLE, choose, uses_triton
from semid.quantize.residual_kmeans import ResidualKMeans


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    dispatch._say.cache_clear()


def test_a_cpu_works_in_numpy_unless_something_else_is_named(monkeypatch):
    assert choose().backend == "numpy"
    assert choose("torch").backend == "torch"
    monkeypatch.setenv(VARIABLE, "torch")
    assert choose().backend == "torch"
    assert choose("numpy").backend == "numpy"  # what the caller names comes first
    monkeypatch.setenv(VARIABLE, "auto")
    assert choose().backend == "numpy"


def test_a_named_backend_that_cannot_run_raises(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
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


def test_the_reason_is_logged_once(caplog):
    with caplog.at_level(logging.INFO, logger="semid"):
        for _ in range(3):
            choose()
    assert [record.getMessage() for record in caplog.records] == [
        "work on cpu by numpy: the work is on a CPU"
    ]


def test_codebooks_say_it_as_a_config_error():
    learner = ResidualKMeans(levels=2, codebook_size=4).fit(np.random.default_rng(0).normal(size=(50, 4)))
    vectors = np.zeros((3, 4), np.float32)
    with pytest.raises(ConfigError, match="backend='fast' should be one of"):
        learner.codebooks_.encode(vectors, backend="fast")
    assert (
        learner.codebooks_.encode(vectors, backend="torch") == learner.codebooks_.encode(vectors, backend="numpy")
    ).all()
