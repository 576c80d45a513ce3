"""The README and other pages show what happens: every command and Python block runs, and says what the page says."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tool(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


blocks = tool("run_blocks")
NAMES = (
    "quickstart",
    "embeddings",
    "language-models",
    "changing",
    "alignment",
    "users",
    "entity-tokens",
    "scoring",
    "input-formats",
)
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_what_its_blocks_print(path):
    page = blocks.run_page(ROOT / path)
    assert blocks.BLOCK.search(page.text)
    assert not page.differences(), "\n".join([*page.differences(), f"renew: python docs/run_blocks.py {path} --update"])
    if not page.same_fingerprints:
        warnings.warn(f"{path}: another fingerprint here, so its figures were compared loosely", stacklevel=1)


def test_the_pages_differences_are_found(tmp_path):
    """A stale figure, a stale repr, a missing line: none goes unnoticed."""
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo 1; echo 2\n1\n```\n```python\nvalue = 2\nvalue + 1  # 4\n```\n")
    ran = blocks.run_page(page)
    assert ran.renewed == "```console\n$ echo 1; echo 2\n1\n2\n```\n```python\nvalue = 2\nvalue + 1  # 3\n```\n"
    assert [line for line in ran.differences() if line.startswith("+")] == ["+++ as it ran", "+2", "+value + 1  # 3"]


def test_a_block_with_a_name_is_a_file(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```csv in/made.csv\nid;title\n```\n```console\n$ cat in/made.csv\nid,title\n```\n```csv\nno file\n```\n"
    )
    ran = blocks.run_page(page)
    assert ran.renewed == page.read_text().replace("id,title", "id;title")


def test_a_failing_command_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ semid show nowhere git\n```\n")
    with pytest.raises(RuntimeError, match="nowhere: no such folder"):
        blocks.run_page(page)


@pytest.mark.parametrize(
    ("page", "other", "same"),
    [
        ("level 1: 256 used, perplexity 202.1", "level 1: 254 used, perplexity 181.0", True),
        ("level 1: 256 used, perplexity 202.1", "level 1: 256 used, perplexity 3.0", False),
        ("3,000 items, no collisions", "3,000 items, 12 collisions", False),
        ("a\nb", "a", False),
        ("<s_a_1><s_b_2>  git", "<s_a_9><s_b_7>  gitk", True),
        ("<s_a_1><s_b_2>", "<s_a_9>", False),
        ("sha256:" + "0" * 64, "sha256:" + "a" * 64, True),
    ],
)
def test_alike_forgives_another_machine_and_nothing_else(page, other, same):
    assert blocks.alike(page, other) is same


def test_the_readme_sets_up_as_ci_does():
    """What cannot run here, because it needs PyPI, is what `.ci/run` runs, with the extra `dev` around `test`."""
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    (install,) = re.findall(r"^pip install (.*)$", readme, re.MULTILINE)
    (tests,) = re.findall(r"^pytest .*$", readme, re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert "[test]" in install and "semid[test]" in extras["dev"]
    assert f"pip install --quiet {install.replace('[test]', '[dev]')}\n" in ci
    assert f"{tests}\n" in ci


def test_github_runs_every_part_of_ci():
    (parts,) = re.findall(r'^all="(.*)"$', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    ran = " ".join(re.findall(r"run: \.ci/run (.*)", workflow)).split()
    assert sorted(ran) == sorted(parts.split())
    assert f"`.ci/run {parts}`" in (ROOT / "CONTRIBUTING.md").read_text()
