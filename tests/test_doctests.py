"""Every example in a docstring of the package gives what it shows."""

from __future__ import annotations

import doctest
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
NEEDED = {  # modules that import what cannot be everywhere, and its name
    "semid.tokenizer_exports.serving.vllm": "vllm",
    "semid.tokenizer_exports.serving.sglang": "sglang",
    "semid.kernels": "triton",
}


def folder_of(package: str) -> Path:
    """Return the folder that setuptools takes a package from."""
    if package in SETUP["package-dir"]:
        return ROOT / SETUP["package-dir"][package]
    parent, _, name = package.rpartition(".")
    return folder_of(parent) / name if parent else ROOT / name


def modules() -> list[str]:
    """Return the dotted names of all modules of the package whose files hold examples."""
    names = []
    for package in SETUP["packages"]:
        for path in sorted(folder_of(package).glob("*.py")):
            if ">>> " in path.read_text("utf-8"):
                names.append(package if path.stem == "__init__" else f"{package}.{path.stem}")
    return names


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_give_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for prefix, package in NEEDED.items():
        if name.startswith(prefix):
            pytest.importorskip(package)
    report: list[str] = []
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(verbose=False)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(example, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
    assert runner.tries > 0, f"{name}: its examples are not in docstrings"
