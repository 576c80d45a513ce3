"""Choose the backend: Triton's kernels on a GPU, torch elsewhere, NumPy (compiled by Numba) on a CPU.

All backends give equal codes; only the speed differs. The choice is made here and nowhere else:

    1. what the caller names                      an explicit choice that cannot run raises
    2. SEMID_BACKEND = triton | torch | numpy     the same
    3. "auto": by the device of the work          and falls back, saying why, once, at log level INFO
"""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

__all__ = ["VARIABLE", "Backend", "Choice", "choose", "uses_triton"]

log = logging.getLogger("semid")

Backend = Literal["triton", "torch", "numpy"]
BACKENDS: dict[str, Backend] = {name: name for name in get_args(Backend)}
VARIABLE = "SEMID_BACKEND"
OLDEST = (8, 0)  # compute capability: float16 matrix units that the kernels were compiled for


class Choice(NamedTuple):
    """A backend and the reason, in words."""

    backend: Backend
    reason: str


def choose(asked: str = "auto", device: str = "cpu") -> Choice:
    """Return the backend that works on a device, "cpu" or one of torch's, and the reason.

    Raises
    ------
    ValueError : no such backend.
    RuntimeError : the one that was named, here or in SEMID_BACKEND, cannot run on this device.

    >>> choose("numpy").backend
    'numpy'
    """
    named_by = f"backend={asked!r}"
    if asked == "auto" and os.environ.get(VARIABLE, "auto") != "auto":
        asked = os.environ[VARIABLE]
        named_by = f"{VARIABLE}={asked}"
    if asked not in ("auto", *BACKENDS):
        raise ValueError(f"{named_by} should be one of auto, {', '.join(BACKENDS)}.")
    if asked == "auto":
        choice = _automatic(device)
    else:
        obstacle = _obstacle(asked, device)
        if obstacle:
            raise RuntimeError(f"{named_by} cannot run on {device}: {obstacle}. Leave it out, or use auto.")
        choice = Choice(BACKENDS[asked], f"asked for by {named_by}")
    _say(choice, device)
    return choice


def uses_triton(device: object, asked: str = "auto") -> bool:
    """Return whether work on tensors that lie on a device, torch's or its name, goes to Triton's kernels.

    For what has no NumPy form: "numpy" and "torch" both say no, whoever names them. Under Triton's interpreter
    (TRITON_INTERPRET=1) "auto" says yes for tensors on a CPU, too.

    Raises
    ------
    ValueError : no such backend.
    RuntimeError : "triton" was named, here or in SEMID_BACKEND, and cannot run there.

    >>> uses_triton("cpu", "torch")
    False
    """
    device = str(device)
    named = os.environ.get(VARIABLE, "auto") if asked == "auto" else asked
    if named == "numpy":  # which `choose` takes for an error on a GPU
        return False
    if named == "auto" and device == "cpu":
        return _obstacle("triton", device) is None
    return choose(asked, device).backend == "triton"


@cache
def _say(choice: Choice, device: str) -> None:
    """Log a choice, once."""
    log.info("work on %s by %s: %s", device, choice.backend, choice.reason)


def _automatic(device: str) -> Choice:
    if device == "cpu":
        return Choice("numpy", "the work is on a CPU")
    obstacle = _obstacle("triton", device)
    return Choice("torch", f"no Triton, since {obstacle}") if obstacle else Choice("triton", "a GPU that Triton knows")


def _obstacle(backend: str, device: str) -> str | None:
    """Return why a backend cannot run on a device; None if it can."""
    if backend == "numpy":
        return None if device == "cpu" else "NumPy works on a CPU"
    if not _installed("torch"):
        return "torch is not installed"
    if backend == "torch":
        return None
    return _triton_obstacle(device, interpreted=os.environ.get("TRITON_INTERPRET") == "1")


@cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None


@cache  # asked at every step of a training and every level of a beam search
def _triton_obstacle(device: str, *, interpreted: bool) -> str | None:
    if not _installed("triton"):
        return "Triton is not installed"
    if interpreted:
        return None
    if device.partition(":")[0] != "cuda":  # ROCm's devices are called so too
        return "Triton's kernels need a CUDA or ROCm device, such as device=cuda"
    import torch

    if not torch.cuda.is_available():
        return "torch sees no such device"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < OLDEST:
        return f"its compute capability {'.'.join(map(str, capability))} is below {'.'.join(map(str, OLDEST))}"
    return None
