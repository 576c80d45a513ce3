"""Tensors that torch saved, opened without running any code: `torch.load(weights_only=True)`, mapped where it can be.

A file holds a tensor, a list of equally long tensors, `{item id: tensor}`, or `{name: tensor}` with the ids in a list
or tensor beside. Needs torch.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semid.data.stored_arrays import BFloat16Rows, StoredArray
from semid.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["read_torch"]

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first bytes that torch wrote before version 1.6
MAX_DEPTH = 4  # of dicts in dicts
# What torch.load raises for files that nobody wrote on purpose.
BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ArithmeticError, ImportError, MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def read_torch(path: Path) -> list[StoredArray]:
    """Return the tensors of a file, and lists of strings or integers.

    Raises
    ------
    InputError
        The file is damaged, or holds objects that only running code could load.
    """
    loaded = _load(path)
    if isinstance(loaded, dict) and (rows := _stacked(list(loaded.values()))) is not None:
        return [rows, _list("ids", [str(name) for name in loaded])]
    if isinstance(loaded, (list, tuple)) and (rows := _stacked(list(loaded))) is not None:
        return [rows]
    found = list(_arrays("", loaded, 0))
    if not found:
        raise InputError(
            f"{path}: holds a {type(loaded).__name__} without tensors. Write it with torch.save(tensor, path), or "
            "torch.save({'vectors': tensor, 'ids': ids}, path)."
        )
    return found


def _load(path: Path) -> Any:
    import torch

    with open(path, "rb") as file:
        is_legacy = file.read(len(LEGACY)) == LEGACY
    try:
        with warnings.catch_warnings():  # about pickle protocols, of damaged files
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=not is_legacy)
    except BROKEN as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        if isinstance(error, pickle.UnpicklingError):
            raise InputError(
                f"{path}: holds pickled Python objects, which are never loaded, or is damaged. Write tensors and lists "
                "alone: torch.save({'vectors': tensor, 'ids': ids}, path)."
            ) from None
        raise InputError(f"{path}: damaged, or not a file of torch.save ({reason}). Write it again.") from None


def _stacked(values: list[Any]) -> StoredArray | None:
    """Return tensors of one axis and one length as the rows of a table; None if they are something else."""
    import torch

    if not values or not all(isinstance(value, torch.Tensor) and value.ndim == 1 for value in values):
        return None
    if len({(len(value), value.dtype, value.layout) for value in values}) != 1 or not len(values[0]):
        return None
    one = _tensor("", values[0])
    shape = (len(values), len(values[0]))
    return _stored("", shape, one.kind, one.dtype, lambda: _numpy(torch.stack(values)))


def _arrays(name: str, value: Any, depth: int) -> Iterator[StoredArray]:
    import torch

    if isinstance(value, torch.Tensor):
        yield _tensor(name, value)
    elif isinstance(value, dict) and depth < MAX_DEPTH:
        for key, inner in value.items():
            yield from _arrays(f"{name}.{key}" if name else str(key), inner, depth + 1)
    elif isinstance(value, (list, tuple)) and value and _are_ids(value):
        yield _list(name, list(value))


def _are_ids(values: list[Any] | tuple[Any, ...]) -> bool:
    return all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in values)


def _stored(name: str, shape: tuple[int, ...], kind: str, dtype: np.dtype, opened: Callable[[], Any]) -> StoredArray:
    return StoredArray(f"tensor {name!r}" if name else "", name, shape, kind, dtype, opened)


def _list(name: str, values: list[Any]) -> StoredArray:
    return _stored(name, (len(values),), "list", np.dtype(np.str_), lambda: values)


def _tensor(name: str, tensor: torch.Tensor) -> StoredArray:
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return _stored(name, tuple(tensor.shape), f"{kind} ({tensor.layout})", np.dtype(np.void), lambda: None)
    try:
        dtype = np.dtype(np.float32) if kind == "bfloat16" else np.dtype(kind)
    except TypeError:  # float8 and other types that NumPy does not know
        dtype = np.dtype(np.void)
    return _stored(name, tuple(tensor.shape), kind, dtype, lambda: _numpy(tensor))


def _numpy(tensor: torch.Tensor) -> Any:
    import torch

    tensor = tensor.detach()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    return BFloat16Rows(tensor.view(torch.int16).numpy().view(np.uint16))
