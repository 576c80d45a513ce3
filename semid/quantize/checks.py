"""Checks of what a learner is given: the sizes of the levels, and the vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError
from semid.quantize.grid import MAX_INPUT_DIM

__all__ = ["check_sizes", "check_vectors"]

MAX_LEVELS = 14  # the most for which residuals provably stay on the grid (grid.py)
MAX_SIZE = 65536  # codes are stored as uint16


def check_sizes(codebook_size: int | Sequence[int], levels: int) -> tuple[int, ...]:
    """Return K of each level; ConfigError for a size or a number of levels out of range.

    Parameters
    ----------
    codebook_size : int or sequence of ints
        For all levels, or one per level.
    levels : int
        L.

    >>> check_sizes(256, 3)
    (256, 256, 256)
    """
    if not 1 <= levels <= MAX_LEVELS:
        raise ConfigError(f"levels={levels} should be from 1 to {MAX_LEVELS}.")
    if isinstance(codebook_size, int | np.integer):
        sizes = (int(codebook_size),) * levels
    else:
        sizes = tuple(int(size) for size in codebook_size)
    if len(sizes) != levels:
        raise ConfigError(
            f"codebook_size={list(sizes)} names {len(sizes)} levels and levels={levels}. Make them agree."
        )
    for size in sizes:
        if not 1 <= size <= MAX_SIZE:
            raise ConfigError(f"codebook_size={size} should be from 1 to {MAX_SIZE}.")
    return sizes


def check_vectors(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the vectors as a finite float32 array [N, D] with N, D >= 1; InputError if they are not."""
    checked = np.asarray(vectors)
    if checked.dtype.kind not in "fiub":
        raise InputError(f"vectors.dtype={checked.dtype} should be a real number type.")
    if checked.ndim != 2:
        raise InputError(f"vectors.ndim={checked.ndim} should be 2. Reshape your data to one row per item.")
    if 0 in checked.shape:
        raise InputError(f"vectors.shape={checked.shape}: 0 sample(s) or 0 feature(s), a minimum of 1 is required.")
    if checked.shape[1] > MAX_INPUT_DIM:
        raise InputError(f"vectors.shape={checked.shape} should have at most {MAX_INPUT_DIM} columns.")
    checked = np.ascontiguousarray(checked, np.float32)
    finite = np.isfinite(checked).all(axis=1)
    if not finite.all():
        raise InputError(f"row {int(np.argmin(finite))} of the vectors holds NaN or inf.")
    return checked
