"""Compile a kernel for a GPU that is not there, and read what it costs.

Triton compiles for any target without a driver; the assembler and `cuobjdump` come with its wheel. So registers,
bytes spilled to memory, shared memory and the presence of matrix instructions can be checked on any machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

__all__ = ["SHARED_LIMITS", "TARGETS", "Case", "Compiled", "compile_case"]

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
TARGETS = {
    "cuda:80": GPUTarget("cuda", 80, 32),
    "cuda:90": GPUTarget("cuda", 90, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMITS = {"cuda:80": 163 * 1024, "cuda:90": 227 * 1024, "hip:gfx942": 64 * 1024}


@dataclass(frozen=True)
class Case:
    """One launch configuration of a kernel.

    Parameters
    ----------
    name : what the report calls it.
    kernel : the `@triton.jit` function.
    signature : type of each argument that is not a constexpr, e.g. {"x": "*fp32", "n_items": "i64"}.
    constexprs : value of each constexpr argument, and of each that a launch specializes: 1 for a unit stride, None
        for an absent pointer.
    num_warps, num_stages : as launched.
    divisible : arguments beside the pointers that callers pass as multiples of 16 (strides, mostly); a pointer that
        is not aligned to 16 bytes is named in `unaligned`. Without them loads are not vectorized and the figures
        mean nothing.
    has_dot : True if matrix instructions must appear.
    targets : the names in `TARGETS` to compile for.
    slow : True to compile only in the full run.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    divisible: Sequence[str] = ()
    unaligned: Sequence[str] = ()
    has_dot: bool = False
    targets: Sequence[str] = field(default=tuple(TARGETS))
    slow: bool = False


@dataclass(frozen=True)
class Compiled:
    """Resources of the machine code: registers and stack bytes per thread, shared memory bytes per program."""

    registers: int
    spills: int
    shared: int
    has_tensor_ops: bool


def compile_case(case: Case, target: str) -> Compiled:
    """Compile for a target of `TARGETS`; raise RuntimeError in a process where Triton interprets."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET=1: nothing can be compiled in this process; unset it")
    names = case.kernel.arg_names
    unknown = (set(case.signature) | set(case.constexprs)) ^ set(names)
    if unknown:
        raise ValueError(f"case {case.name}: arguments {sorted(unknown)} do not match the kernel's {names}")
    signature = {name: case.signature.get(name, "constexpr") for name in names}
    aligned = {name for name, kind in signature.items() if kind.startswith("*")} - set(case.unaligned)
    aligned |= set(case.divisible)
    attributes = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in aligned}
    source = ASTSource(case.kernel, signature, constexprs=dict(case.constexprs), attrs=attributes)
    compiled = triton.compile(
        source,
        target=TARGETS[target],
        options={"num_warps": case.num_warps, "num_stages": case.num_stages, "enable_fp_fusion": True},
    )
    read = _read_amdgcn if target.startswith("hip") else _read_cubin
    return read(compiled.asm, compiled.metadata.shared)


def _read_cubin(asm: Mapping[str, Any], shared: int) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(asm["cubin"])
        usage = _cuobjdump("-res-usage", path)
        code = _cuobjdump("-sass", path)
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    stack, local = (int(re.search(rf"{what}:(\d+)", usage)[1]) for what in ("STACK", "LOCAL"))
    spilled = stack + local
    if not spilled and re.search(r"\b(LDL|STL)\b", code):
        spilled = 1  # a load or store of local memory that the usage line does not count
    return Compiled(registers, spilled, shared, bool(re.search(r"\b(HGMMA|HMMA)\b", code)))


def _cuobjdump(option: str, path: Path) -> str:
    return subprocess.run([str(CUOBJDUMP), option, str(path)], capture_output=True, text=True, check=True).stdout


def _read_amdgcn(asm: Mapping[str, Any], shared: int) -> Compiled:
    text = asm["amdgcn"]

    def figure(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", text)[1])

    # Vector registers moved to the accumulation file are no spill; only scratch memory is.
    return Compiled(figure("vgpr_count"), figure("private_segment_fixed_size"), shared, "v_mfma" in text)
