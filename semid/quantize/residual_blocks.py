"""Greedy residual assignment on a CPU, in blocks of rows whose scores stay in a core's cache, one block per thread.

Per block and level, one matrix product gives the scores c . r, and `nearest_numba.py` finds the codes and subtracts the
centroids. Nothing of size N x K exists. The codes are those that `residual.py` defines, whatever multiplies:

- float32, by torch or NumPy. |error| <= gamma_{d+3} |r| |c|, see `residual.py`.
- bfloat16, by torch, where the processor multiplies it several times as fast (found by trying). Both factors and the
  product are rounded to 8 bits: with u = 2^-8, e_r = bf16(r) - r, e_c = bf16(c) - c,

      |error| <= |e_r| |c| + |r| |e_c| + |e_r| |e_c| + (u + gamma + u gamma) (|r| + |e_r|) |bf16(c)|

  where gamma = gamma_{d+3} is that of float32 sums. The norms of e_r and e_c are computed, not bounded: they are less
  than half of their bounds. Many rows still have several candidates; `nearest_numba.py` decides among those in float64.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from semid.quantize.grid import float32_error
from semid.runtime.threads import in_threads, single_threaded_products

if TYPE_CHECKING:
    import torch

__all__ = [
    "MOST_CODES",
    "Level",
    "Multiply",
    "Product",
    "assign_rows",
    "available",
    "best_time",
    "fastest_product",
    "float32_product",
    "make_level",
    "padded_codes",
    "worth_it",
]

logger = logging.getLogger("semid")

# Of a block, whose scores and what else it needs fit into the second-level cache at K = 256.
ROWS = {"numpy": 512, "float32": 512, "bfloat16": 1024}
GROUPS = {"numpy": 1, "float32": 1, "bfloat16": 8}  # of codes, for `pick_`
PART = 16  # blocks that a thread takes at a time
MOST_CODES = 16_384  # of a level, for nearest_numba.py's whole numbers
WORTH_TORCH = 50_000  # rows from which importing torch pays
WORTH_NUMBA = 4096
BFLOAT16_ROUNDING = 2.0**-8
WORTH_BFLOAT16 = 1.75  # minimum speed-up, since it leaves many more rows to decide in float64

Product = Literal["numpy", "float32", "bfloat16"]
Floats = npt.NDArray[np.float32]
Multiply = Callable[[Floats, Floats, Floats], object]  # of a [n, d] and b [d, K] into out [n, K]


@cache
def available() -> bool:
    """Return whether Numba can be used; if not, `residual.py` does the same in NumPy, slower, and the log says why."""
    try:
        importlib.import_module("semid.quantize.nearest_numba")
    except (ImportError, RuntimeError) as error:  # RuntimeError: no folder that it could keep its results in
        logger.info("no compiled loops, NumPy instead: %s", str(error).split("\n")[0])
        return False
    return True


def worth_it(n_rows: int) -> bool:
    """Return whether compiling pays for so many rows: importing Numba takes as long as a few thousand rows in NumPy."""
    return ("numba" in sys.modules or n_rows >= WORTH_NUMBA) and available()


@dataclass(frozen=True)
class Level:
    """One level, laid out for the product and for `pick_`; K' is K rounded up to a multiple of 4."""

    centroids: Floats  # (K, d)
    factor: Floats | torch.Tensor  # (K', d), in the product's type
    offsets: Floats  # (K',), -inf past K
    exact_offsets: npt.NDArray[np.float64]  # (K,)
    bound: tuple[np.float32, np.float32, np.float32]  # a score is wrong by b_0 |r| + b_1 |e_r| + b_2 at most


def make_level(centroids: Floats, bias: npt.NDArray[np.float64] | None, product: Product) -> Level:
    """Lay out a level: centroids float32 [K, d] on the grid, bias float64 [K] added to the scores."""
    squares = np.einsum("kd,kd->k", centroids, centroids, dtype=np.float64)
    exact = -0.5 * squares if bias is None else bias - 0.5 * squares
    padded, offsets = padded_codes(centroids, exact)
    longest = float(np.sqrt(squares.max()))
    sums = float32_error(centroids.shape[1] + 3)
    slope, error_slope = sums * longest, 0.0
    factor: Floats | torch.Tensor = padded
    if product != "numpy":
        import torch

        factor = converted = torch.from_numpy(padded).to(getattr(torch, product))
        if product == "bfloat16":
            rounded = converted.double().numpy()
            longest_rounded, lost = _longest(rounded), _longest(rounded - padded)
            coarse = (sums + BFLOAT16_ROUNDING * (1 + sums)) * longest_rounded
            slope, error_slope = lost + coarse, longest + lost + coarse
    floor = sums * longest**2 + float(np.abs(bias).max(initial=0.0) if bias is not None else 0.0) * 2.0**-22
    up = np.float32(1 + 2.0**-20)  # the bound's own roundings, norms and square roots in float32 among them
    bound = (np.float32(slope) * up, np.float32(error_slope) * up, np.float32(floor) * up)
    return Level(np.ascontiguousarray(centroids), factor, offsets, exact, bound)


def padded_codes(centroids: Floats, offsets: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Pad centroids [K, d] and offsets [K] to a multiple of 4 codes, with zero rows and -inf, as `pick_` takes them."""
    extra = -len(centroids) % 4
    return (
        np.pad(centroids, ((0, extra), (0, 0))),
        np.pad(np.float32(offsets), (0, extra), constant_values=-np.inf),
    )


def _longest(rows: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.einsum("kd,kd->k", rows, rows).max()))


def assign_rows(
    latents: npt.NDArray[np.floating],
    levels: Sequence[Level],
    product: Product,
    codes: npt.NDArray[np.int32],
    *,
    threads: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> tuple[int, npt.NDArray[np.float64]]:
    """Write codes int32 [N, L] of latents [N, d] that float32 holds exactly.

    Returns how many decisions needed float64, and the mean squared residual after each level, float64 [L].
    """
    step = ROWS[product]
    n_blocks = -(-len(latents) // step)
    unsure = np.zeros(n_blocks, np.int64)
    left = np.zeros((n_blocks, len(levels)))
    own = threading.local()

    def work(blocks: slice) -> None:
        for block in range(blocks.start, blocks.stop):
            rows = slice(block * step, min(len(latents), (block + 1) * step))
            n = rows.stop - rows.start
            if getattr(own, "n", None) != n:
                own.n, own.block = n, _Block(n, latents.shape[1], product)
            unsure[block] = own.block.assign(latents[rows], levels, codes[rows], left[block])
            if advance is not None:
                advance(n)

    in_threads(work, [slice(at, min(n_blocks, at + PART)) for at in range(0, n_blocks, PART)], most=threads)
    return int(unsure.sum()), left.sum(axis=0) / max(1, len(latents))


class _Block:
    """A thread's own arrays for a block of n rows, made once: making them takes as long as filling them."""

    def __init__(self, n: int, dims: int, product: Product) -> None:
        self.product = product
        self.residual = np.zeros((n, dims), np.float32)
        self.halves = np.zeros((n, dims), np.int16) if product == "bfloat16" else None
        self.squares, self.errors, self.first, self.second = np.zeros((4, n), np.float32)
        shape = GROUPS[product], n
        self.groups = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        self.tiles: dict[int, tuple[npt.NDArray[np.generic], Callable[[Level], object]]] = {}

    def assign(
        self,
        latents: npt.NDArray[np.floating],
        levels: Sequence[Level],
        codes: npt.NDArray[np.int32],
        left: npt.NDArray[np.float64],
    ) -> int:
        from semid.quantize.nearest_numba import pick_, subtract_

        self.residual[:] = latents
        chosen = np.zeros((len(levels), len(latents)), np.int32)
        origin = np.zeros((1, latents.shape[1]), np.float32)
        subtract_(self.residual, origin, chosen[0], self.squares, self.halves, self.errors)
        unsure = 0
        for number, level in enumerate(levels):
            tile, fill = self._tile(len(level.offsets))
            fill(level)
            doubtful, left[number] = pick_(
                tile, level.offsets, level.exact_offsets, level.centroids, level.bound, self.residual, self.squares,
                self.halves, self.errors, self.groups, self.first, self.second, chosen[number],
            )  # fmt: skip
            unsure += doubtful
        codes[:] = chosen.T
        return unsure

    def _tile(self, width: int) -> tuple[npt.NDArray[np.generic], Callable[[Level], object]]:
        """Return an array for the scores [K', n] of K' codes, and the product that fills it."""
        if width not in self.tiles:
            self.tiles[width] = self._new_tile(width)
        return self.tiles[width]

    def _new_tile(self, width: int) -> tuple[npt.NDArray[np.generic], Callable[[Level], object]]:
        shape = (width, len(self.residual))
        if self.product == "numpy":
            scores = np.empty(shape, np.float32)
            return scores, lambda level: np.dot(level.factor, self.residual.T, out=scores)
        import torch

        if self.halves is None:
            tile, rows = torch.empty(shape), torch.from_numpy(self.residual).t()
            bits = tile.numpy()
        else:
            tile, rows = torch.empty(shape).bfloat16(), torch.from_numpy(self.halves).view(torch.bfloat16).t()
            bits = tile.view(torch.int16).numpy()
        return bits, lambda level: torch.mm(level.factor, rows, out=tile)


def float32_product() -> Multiply:
    """Return what multiplies float32 matrices: torch, unless a global setting lets it round.

    Learning depends on its last bits, so the choice does not depend on what was imported before.
    """
    if find_spec("torch") is None or not _is_full_float32(64, 64):
        return lambda a, b, out: np.dot(a, b, out=out)
    import torch

    return lambda a, b, out: torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))


def fastest_product(n_rows: int, dims: int, n_codes: int) -> Product:
    """Return what to multiply with: NumPy for little work, else torch in the faster type of this processor.

    All give equal codes.
    """
    if find_spec("torch") is None or ("torch" not in sys.modules and n_rows < WORTH_TORCH):
        return "numpy"
    fastest = _fastest_type(dims, n_codes)
    return "numpy" if fastest == "float32" and not _is_full_float32(dims, n_codes) else fastest


@cache
def _fastest_type(dims: int, n_codes: int) -> Product:
    """Time both types on one block: a CPU without bfloat16 units is many times slower in that type."""
    import torch

    def seconds_a_row(product: Product) -> float:
        dtype, n = getattr(torch, product), ROWS[product]
        # No random numbers: those are the user's.
        level, rows = torch.ones(n_codes, dims, dtype=dtype), torch.ones(n, dims, dtype=dtype).t()
        return best_time(partial(torch.mm, level, rows, out=torch.empty(n_codes, n, dtype=dtype)), 5) / n

    with single_threaded_products():
        single, halved = seconds_a_row("float32"), seconds_a_row("bfloat16")
    chosen: Product = "bfloat16" if WORTH_BFLOAT16 * halved < single else "float32"
    logger.info(
        "products of rows of %d and %d codes in %s: float32 %.0f ns a row, bfloat16 %.0f ns",
        dims, n_codes, chosen, 1e9 * single, 1e9 * halved,
    )  # fmt: skip
    return chosen


def _is_full_float32(dims: int, n_codes: int) -> bool:
    """Return False if the caller lets torch multiply float32 in fewer bits, by a global setting.

    Found by trying, each time, because the settings have several names and may change.
    """
    import torch

    needs_21_bits = torch.full((ROWS["float32"], dims), 1 + 2.0**-20)
    product = torch.eye(max(dims, n_codes), dims) @ needs_21_bits.t()
    return product.dtype == torch.float32 and bool((product[:dims] == needs_21_bits.t()).all())


def best_time(work: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of so many runs, after one to compile and warm up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
