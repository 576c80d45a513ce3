"""Which torch device to use. torch is imported only when asked."""

from __future__ import annotations

from semid.errors import ConfigError

__all__ = ["check_device", "pick_device"]


def pick_device(name: str) -> str:
    """Return the device for a name: "auto" is the first CUDA GPU, else the CPU; other names are returned as given.

    >>> pick_device("cpu")
    'cpu'
    """
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> None:
    """Raise ConfigError if torch cannot use a device; "auto" is always fine.

    >>> check_device("auto")
    """
    if name == "auto":
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError, ValueError) as error:  # unknown name; torch built without it
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"device={name!r} cannot be used here ({reason}). Use auto or cpu.") from None
