"""Settings and fixtures of all tests: one BLAS thread per process, no hypothesis deadline, the command `semid`."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import NamedTuple

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # read when NumPy and torch are first imported, which is after this file

import pytest  # noqa: E402

from semid import cli  # noqa: E402
from tests.helpers.own_warnings import watch_own_calls  # noqa: E402

watch_own_calls()
try:
    from hypothesis import settings
except ImportError:  # test_smoke.py alone is run without it
    pass
else:
    settings.register_profile("semid", deadline=None)
    settings.load_profile("semid")


LONGEST = ("test_100000_items", "test_crashes", "test_living", "test_power_cut")  # repeat what a default test does once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest slow tests to the end, so that all others have run where time is short."""
    items.sort(key=lambda item: bool(item.get_closest_marker("slow")) and item.path.stem in LONGEST)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip slow tests that would begin after SEMID_SLOW_UNTIL (seconds since 1970), where it is set."""
    if item.get_closest_marker("slow") and time.time() > float(os.environ.get("SEMID_SLOW_UNTIL", "inf")):
        pytest.skip("no time is left for slow tests")


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def semid(monkeypatch, capsys, tmp_path):
    """Run `semid("fit", ...)` as a shell would, in a temporary folder, but in this process."""
    monkeypatch.chdir(tmp_path)
    handlers, level = cli.log.handlers[:], cli.log.level

    def run(*arguments: object, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["semid", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return Done(code, *capsys.readouterr())

    yield run
    cli.log.handlers[:] = handlers
    cli.log.setLevel(level)


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory):
    """Return the folder that a server of an extended model reads: `model` and `filters` (`served_model.py`)."""
    from tests.helpers.served_model import save_artifact

    folder = tmp_path_factory.mktemp("served")
    save_artifact(folder)
    return folder


@pytest.fixture(scope="module")
def served_catalog(served_folder):
    from tests.helpers.served_model import open_artifact

    return open_artifact(served_folder)
