"""Every kernel under Triton's interpreter: `interpret_*.py`, each in a process of its own.

The interpreter is chosen when a kernel's module is imported, and once chosen for a process nothing can be compiled
in it; so these tests cannot share a process with the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no package for this platform")
HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("interpret_*.py"))


@pytest.mark.parametrize("name", FILES)
def test_a_kernel_computes_what_its_reference_does(name):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
