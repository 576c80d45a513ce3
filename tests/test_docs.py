"""The documentation names everything there is, nothing else, and its links lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
from pathlib import Path

import click
import numpy as np
import pytest

import semid
from semid.artifact.store import load
from semid.artifact.top_k_cache import save_top_k
from semid.cli import cli
from semid.clusters.fit import ClusterConfig, fit_clusters
from semid.config import SemanticIDConfig
from semid.encoders.collaborative import WalkConfig
from semid.evaluation.quality import Distortion, LevelUse, Quality
from semid.ledger.segment import ARRAYS
from tests.helpers.communities import histories

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = sorted(cli.commands)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def names_in_code(page: Path) -> set[str]:
    """Everything between backticks."""
    return set(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_command_reference_is_what_help_says():
    made = runpy.run_path(str(ROOT / "docs" / "make_cli_reference.py"))["reference"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made, "run: python docs/make_cli_reference.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name):
    command = cli.commands[name]
    assert command.help and "Example" in command.help, f"{name} is missing its help, or an example in it"
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts[0]} is missing its help"


def test_options_of_fit_mirror_the_settings():
    options = {option.name for option in cli.commands["fit"].params if isinstance(option, click.Option)}
    assert {field.name for field in dataclasses.fields(SemanticIDConfig)} <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page):
    for link in LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_pages_name_exist(page):
    named = {name.split()[1] for name in names_in_code(page) if re.match(r"semid [a-z]", name)}
    assert named <= set(COMMANDS), page


def test_the_quality_page_explains_every_figure():
    explained = names_in_code(ROOT / "docs" / "quality.md")
    for kind in (Quality, LevelUse, Distortion):
        missing = {field.name for field in dataclasses.fields(kind)} - explained
        assert not missing, f"docs/quality.md does not explain {missing}"


@pytest.mark.parametrize("method", ["rqvae", "rqkmeans"])
def test_the_format_page_names_every_key_and_array(tmp_path, method):
    items = [{"id": f"item-{i}", "title": f"nail polish shade {i} of {i % 7}"} for i in range(40)]
    choices = {"method": method, "levels": 2, "codebook_size": 16, "dim": 8, "uniform": "catalog"}
    semid.SemanticIDTokenizer.fit(items, **choices).save_pretrained(tmp_path / "ids")
    named = names_in_code(ROOT / "docs" / "artifact-format.md")
    artifact = load(tmp_path / "ids")
    assert set(artifact.manifest) <= named
    assert set(json.loads((tmp_path / "ids" / "semid.json").read_text())["provenance"]) <= named
    written = {re.sub(r"\.\d+", ".N", name) for name in artifact.arrays}
    assert written <= named, f"docs/artifact-format.md does not name {written - named}"
    assert set(ARRAYS) <= named


def test_the_format_page_names_every_key_and_array_of_other_kinds(tmp_path):
    config = ClusterConfig(
        clusters=4, second_token="residual", walks=WalkConfig(dim=4, walks_per_node=2, walk_length=6)
    )
    fit_clusters(histories(), config).save(tmp_path / "clusters")
    codes, scores = np.zeros((1, 2, 3), np.uint16), np.zeros((1, 2), np.float32)
    save_top_k(tmp_path / "cache", ["u"], codes, scores, histories=[["a"]], fingerprint="sha256:1")
    named = names_in_code(ROOT / "docs" / "artifact-format.md")
    clusters, cache = load(tmp_path / "clusters"), load(tmp_path / "cache")
    assert {*clusters.manifest, *cache.manifest, clusters.manifest["kind"], cache.manifest["kind"]} <= named
    assert {*clusters.manifest["coarse_of"], *clusters.manifest["counts"]} <= named
    tables = {f"{side}.{name}" for side in ("users", "items") for name in ARRAYS}
    assert set(clusters.arrays) - tables <= named and set(cache.arrays) <= named


def test_the_changelog_has_this_version():
    assert f"## [{semid.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {semid.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
