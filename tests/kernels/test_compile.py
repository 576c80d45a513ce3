"""Every kernel, compiled ahead of time for the GPUs we ship to: nothing spills, everything fits.

Each test prints the resources that its configuration takes; `pytest -s` shows them.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no package for this platform")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing can be compiled in a process that interprets kernels", allow_module_level=True)

from tests.kernels.gate import SHARED_LIMITS, Case, compile_case  # noqa: E402 (needs Triton)

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("compile_*.py"))
CASES = [case for name in MODULES for case in importlib.import_module(f"tests.kernels.{name}").CASES]


USUAL = "cuda:90"  # the others take two minutes more


def _each() -> list:
    return [
        pytest.param(
            case,
            target,
            id=f"{case.name}-{target}",
            marks=[pytest.mark.slow] if case.slow or target != USUAL else [],
        )
        for case in CASES
        for target in case.targets
    ]


@pytest.mark.parametrize(("case", "target"), _each())
def test_a_kernel_fits_the_machine(case: Case, target: str):
    compiled = compile_case(case, target)
    sys.stdout.write(
        f"\n{case.name} {target}: {compiled.registers} registers, {compiled.spills} B spilled, "
        f"{compiled.shared / 1024:.1f} KB shared "
    )
    assert compiled.spills == 0, f"{compiled.spills} bytes a thread go to memory: take a smaller block or more warps"
    assert compiled.shared <= SHARED_LIMITS[target]
    if case.has_dot:
        assert compiled.has_tensor_ops, "the dot became scalar instructions: its tile is too small for the matrix unit"
