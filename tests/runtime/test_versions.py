"""What semid claims of its dependencies' versions is one claim, wherever it is made."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from semid.runtime import versions
from semid.runtime.versions import NEWEST_TESTED, installed, newer_than_tested

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def lowest() -> dict[str, str]:
    """Package -> the lower bound that pyproject.toml claims."""
    needed = [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
    found = (re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", one) for one in needed)
    return {match[1]: match[2] for match in found if match}


def test_the_readme_has_the_tested_ranges():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+ to [\d.]+) \|$", readme, re.MULTILINE))
    assert rows == {name: f"{low} to {NEWEST_TESTED[name]}" for name, low in lowest().items() if name in NEWEST_TESTED}


def test_info_names_a_release_that_is_newer_than_any_tested(semid, monkeypatch):
    done = semid("info")
    assert done.code == 0 and re.search(r"^transformers +\d+\.\d+", done.out, re.MULTILINE)
    monkeypatch.setitem(versions.NEWEST_TESTED, "transformers", "4.2")
    done = semid("info")
    assert re.search(r"^newer than tested +.*transformers \S+ \(tested up to 4\.2\)", done.out, re.MULTILINE)


@pytest.mark.parametrize("text, newer", [("5.24.9", False), ("5.25.0", True), ("6.0.0.dev0", True), ("5.4", False)])
def test_minor_releases_decide(text, newer):
    assert bool(newer_than_tested({"transformers": text})) == newer


def test_what_is_not_installed_is_left_out():
    assert "numpy" in installed() and set(installed()) <= set(NEWEST_TESTED)
