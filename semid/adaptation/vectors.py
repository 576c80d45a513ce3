"""Item vectors in a file, for recommenders that take them: `.npy` or `.safetensors`, written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.artifact.atomic import drafting
from semid.artifact.tensors import tensor_blocks
from semid.errors import ConfigError, OutputExistsError

__all__ = ["check_vectors_output", "write_vectors"]

NAME = "vectors"  # of the tensor


def check_vectors_output(path: str | os.PathLike[str] | None, force: bool) -> Path | None:
    """Return the path to write vectors to, checked before any work is done; None for None.

    Raises
    ------
    ConfigError
        Neither .npy nor .safetensors.
    OutputExistsError
        The file exists and `force` is not given, or a folder is in the way.
    """
    if path is None:
        return None
    found = Path(path)
    if found.suffix not in (".npy", ".safetensors"):
        raise ConfigError(f"vectors={str(found)!r} should end in .npy or .safetensors.")
    if found.is_dir() or (found.exists() and not force):
        raise OutputExistsError(f"{found}: exists. Choose another file, or use --force to replace it.")
    return found


def write_vectors(path: Path, vectors: npt.NDArray[np.float32], *, pad_row: bool) -> None:
    """Write vectors [N, D], after a row of zeros if `pad_row`, as float32; `.safetensors` holds the tensor `vectors`.

    Raises
    ------
    ArtifactError
        The file cannot be written.
    """
    rows = np.concatenate([np.zeros((int(pad_row), vectors.shape[1]), np.float32), vectors])
    if path.suffix == ".npy":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(rows))
        blocks: Iterable[bytes | memoryview] = [header.getvalue(), rows.data.cast("B")]
    else:
        blocks = tensor_blocks({NAME: rows})
    with drafting(path.parent) as draft:
        draft.publish(draft.write(blocks), path.name)
