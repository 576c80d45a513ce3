"""The smoke run of CI takes the very versions that pyproject.toml claims to be the lowest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def versions(lines: list[str], sign: str) -> dict[str, str]:
    """Package -> what follows the sign; a line that says anything else is an error."""
    found = [re.fullmatch(rf"([\w-]+){sign}([\d.]+)", line) for line in lines]
    assert all(found), lines
    return {match[1]: match[2] for match in found}


def test_the_smoke_run_has_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (ROOT / ".ci/lowest.txt").read_text("utf-8")
    bare = [line.partition("#")[0].strip() for line in text.splitlines()]
    pins = versions([line for line in bare if line], "==")
    bounds = versions(project["dependencies"], ">=")
    del pins["torch"], bounds["torch"]  # the file says why it is another
    assert pins == bounds
