"""After kill -9 of add, retire, fit or refit at any point, the folder is the old or the new one; a rerun works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.killing import CHANGING, COMMANDS
from tests.helpers.small_shop import contents, learned, names, write_source


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killing")
    learned(names(24)).save_pretrained(folder / "old")
    write_source(folder, "new", names(24, first=6))
    return folder


@pytest.mark.parametrize("kills", [12, pytest.param(240, marks=pytest.mark.slow)])
def test_a_killed_command_leaves_the_old_artifact_or_the_new_one_and_works_again(shop, kills):
    before = contents(shop / "old")
    command = [sys.executable, "-m", "tests.faults.killing", str(shop), str(kills), "5"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        told = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    assert len(told) == kills
    assert {one["command"] for one in told} == COMMANDS.keys()
    assert contents(shop / "old") == before  # refit reads it
    for one in told:
        allowed = {"old", "new"} if one["command"] in CHANGING else {"none", "new"}
        assert one["state"] in allowed, one
        assert (one["again"], one["litter"]) == ("new", []), one
    for name in COMMANDS:
        mine = [one for one in told if one["command"] == name and "call" in one["point"]]
        states = [one["state"] for one in sorted(mine, key=lambda one: one["point"]["call"])]
        assert states == sorted(states, key="new".__eq__)  # from one instant on it is the new one
        assert kills < 100 or set(states) == {"new", "old" if name in CHANGING else "none"}
