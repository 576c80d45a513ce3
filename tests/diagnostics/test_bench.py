"""`semid bench`: limits first, then shares of them, all finite; nothing about how fast."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner

from semid.cli import cli
from semid.diagnostics import bench as benching


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(benching, "COPIED", 1 << 22)
    monkeypatch.setattr(benching, "MATRIX", 256)
    monkeypatch.setattr(benching, "WIDTHS", (8, 16))


def test_every_share_is_one_of_a_limit_that_came_before():
    lines = list(benching.measure(rows=2000, repeats=1))
    limits = [line.name for line in lines if line.share is None]
    assert len(limits) == 3
    assert all(math.isfinite(line.value) and line.value > 0 for line in lines)
    shares = [line for line in lines if line.share is not None]
    assert len(shares) == 6
    assert all(line.limit in limits and line.share > 0 for line in shares)


def test_the_command_prints_a_line_each_and_json():
    run = CliRunner().invoke(cli, ["bench", "--rows", "1000"], catch_exceptions=False)
    assert run.exit_code == 0
    assert len(run.stdout.splitlines()) == 9
    found = json.loads(CliRunner().invoke(cli, ["bench", "--rows", "1000", "--json"]).stdout)
    assert [line["unit"] for line in found[:3]] == ["GFLOP/s", "GFLOP/s", "GB/s"]


def test_a_device_that_is_not_there_is_refused():
    run = CliRunner().invoke(cli, ["bench", "--device", "hpu"])
    assert "device='hpu' cannot be used here" in str(run.exception)
