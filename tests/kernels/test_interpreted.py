"""Every kernel under Triton's interpreter: `interpret_*.py`, in a process of their own.

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
FILES = sorted(map(str, HERE.glob("interpret_*.py")))


def test_every_kernel_computes_what_its_reference_does():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert FILES and done.returncode == 0, f"{done.stdout}\n{done.stderr}"
