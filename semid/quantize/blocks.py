"""Greedy residual assignment on a CPU, in blocks of rows whose scores stay in a core's cache, a block per thread.

Per block and level: one matrix product leaves the scores r . c, and `pick.py` finds the codes and takes the centroids
away. Nothing of the size of N x K exists. The codes are those of `residual.py`'s definition, whatever multiplies:

- float32, by torch or NumPy. |error| <= gamma_{d+3} |r| |c|, see `residual.score_error`.
- bfloat16, by torch, where the processor multiplies it several times as fast (found out by trying). Both factors and
  the product are rounded to 8 bits: with u = 2^-9 and e_r = r - bf16(r), e_c = c - bf16(c), each at most u times its
  vector,

      |error| <= |e_r| |c| + |r| |e_c| + |e_r| |e_c| + u |r . c|  <=  (3 u + 3 u^2) |r| |c|  and the float32 sums' error

  so that more rows have several candidates; `pick.py` decides among those alone, in float64.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from semid.threads import in_threads, single_threaded_products

if TYPE_CHECKING:
    import torch

__all__ = [
    "MOST_CODES",
    "Level",
    "Product",
    "assign_rows",
    "available",
    "fastest_product",
    "float32_product",
    "make_level",
    "worth_it",
]

log = logging.getLogger("semid")

ROWS = 512  # whose [ROWS, K] float32 scores, and what else a block needs, fit into the second-level cache
PART = 16  # blocks that a thread takes at a time
MOST_CODES = 16_384  # of a level, for pick.py's whole numbers
WORTH_TORCH = 50_000  # rows for which importing torch, if nobody has yet, pays
WORTH_NUMBA = 4096
BFLOAT16_ROUNDING = 2.0**-9
WORTH_BFLOAT16 = 2.0  # times as fast at least, since it leaves many more rows to decide in float64

Product = Literal["numpy", "float32", "bfloat16"]
Floats = npt.NDArray[np.float32]


@cache
def available() -> bool:
    """Whether Numba can be used; where not, `residual.py` does the same in NumPy, more slowly, and the log says why."""
    try:
        importlib.import_module("semid.quantize.pick")
    except (ImportError, RuntimeError) as error:  # RuntimeError: no folder that it could keep its results in
        log.info("no compiled loops, NumPy instead: %s", str(error).split("\n")[0])
        return False
    return True


def worth_it(n_rows: int) -> bool:
    """Whether to compile for so many rows: importing Numba takes as long as a few thousand rows in NumPy."""
    return ("numba" in sys.modules or n_rows >= WORTH_NUMBA) and available()


@dataclass(frozen=True)
class Level:
    """One level, laid out for the product and for `pick_`; K' is K rounded up to a multiple of 4."""

    centroids: Floats  # (K, d)
    transposed: Floats | torch.Tensor  # (d, K'), in the product's type
    offsets: Floats  # (K',), -inf past K
    exact_offsets: npt.NDArray[np.float64]  # (K,)
    slope: np.float32
    floor: np.float32
    numbers: npt.NDArray[np.int32]  # (K',)


def make_level(centroids: Floats, bias: npt.NDArray[np.float64] | None, product: Product) -> Level:
    """centroids float32 [K, d] on the grid, bias float64 [K] added to the scores."""
    n_codes, dims = centroids.shape
    squares = np.einsum("kd,kd->k", centroids, centroids, dtype=np.float64)
    exact = -0.5 * squares if bias is None else bias - 0.5 * squares
    padded = np.zeros((-(-n_codes // 4) * 4, dims), np.float32)
    padded[:n_codes] = centroids
    offsets = np.full(len(padded), -np.inf, np.float32)
    offsets[:n_codes] = exact
    longest = float(np.sqrt(squares.max()))
    terms = (dims + 3) * 2.0**-24
    float32_error = terms / (1 - terms)
    slope = float32_error * longest
    if product == "bfloat16":
        slope += 3 * BFLOAT16_ROUNDING * (1 + BFLOAT16_ROUNDING) * longest
    floor = float32_error * longest**2 + float(np.abs(bias).max(initial=0.0) if bias is not None else 0.0) * 2.0**-22
    up = np.float32(1 + 2.0**-20)  # the bound's own roundings, norms and square roots in float32 among them
    numbers = np.arange(len(padded), dtype=np.int32) + np.int32(65536)
    return Level(
        np.ascontiguousarray(centroids), _in_type(padded, product), offsets, exact,
        np.float32(slope) * up, np.float32(floor) * up, numbers,
    )  # fmt: skip


def _in_type(padded: Floats, product: Product) -> Floats | torch.Tensor:
    if product == "numpy":
        return np.ascontiguousarray(padded.T)
    import torch

    return torch.from_numpy(padded).to(getattr(torch, product)).t()


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
    n_blocks = -(-len(latents) // ROWS)
    unsure = np.zeros(n_blocks, np.int64)
    left = np.zeros((n_blocks, len(levels)))

    def work(blocks: slice) -> None:
        scores = _Scores(product, levels)
        for block in range(blocks.start, blocks.stop):
            rows = slice(block * ROWS, min(len(latents), (block + 1) * ROWS))
            unsure[block] = _assign_block(latents[rows], levels, scores, codes[rows], left[block])
            if advance is not None:
                advance(rows.stop - rows.start)

    in_threads(work, [slice(at, min(n_blocks, at + PART)) for at in range(0, n_blocks, PART)], most=threads)
    return int(unsure.sum()), left.sum(axis=0) / max(1, len(latents))


def _assign_block(
    latents: npt.NDArray[np.floating],
    levels: Sequence[Level],
    scores: _Scores,
    codes: npt.NDArray[np.int32],
    left: npt.NDArray[np.float64],
) -> int:
    from semid.quantize.pick import pick_

    residual = np.array(latents, np.float32, order="C")
    chosen = np.empty(len(residual), np.int32)
    unsure = 0
    for number, level in enumerate(levels):
        tile = scores.of(residual, level)
        doubtful, left[number] = pick_(
            tile, level.offsets, level.exact_offsets, level.centroids, residual, level.slope, level.floor,
            level.numbers, chosen,
        )  # fmt: skip
        codes[:, number] = chosen
        unsure += doubtful
    return unsure


class _Scores:
    """A thread's own buffer of scores, and the product that fills it."""

    def __init__(self, product: Product, levels: Sequence[Level]) -> None:
        self.product = product
        self.buffer = np.empty((ROWS, max(len(level.offsets) for level in levels)), np.float32)

    def of(self, residual: Floats, level: Level) -> Floats:
        """r . c of a block's rows and all codes, float32 [n, K']; valid until the next call."""
        n, width = len(residual), len(level.offsets)
        tile = self.buffer.reshape(-1)[: n * width].reshape(n, width)
        if self.product == "numpy":
            return np.dot(residual, level.transposed, out=tile)
        import torch

        rows, out = torch.from_numpy(residual), torch.from_numpy(tile)
        if self.product == "float32":
            torch.mm(rows, level.transposed, out=out)
        else:
            out.copy_(torch.mm(rows.bfloat16(), level.transposed))
        return tile


def float32_product() -> Callable[[Floats, Floats, Floats], object]:
    """A function (a [n, d], b [d, K], out [n, K]) that multiplies float32: torch's, unless it was told to round.

    For learning, whose last bits depend on it: so it does not depend on what was imported before.
    """
    if find_spec("torch") is None or not _is_full_float32(64, 64):
        return lambda a, b, out: np.dot(a, b, out=out)
    import torch

    return lambda a, b, out: torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))


def fastest_product(n_rows: int, dims: int, n_codes: int) -> Product:
    """What to multiply with: NumPy for little work, else torch in the type that this processor is faster with.

    All give equal codes.
    """
    if find_spec("torch") is None or ("torch" not in sys.modules and n_rows < WORTH_TORCH):
        return "numpy"
    fastest = _fastest_type(dims, n_codes)
    return "numpy" if fastest == "float32" and not _is_full_float32(dims, n_codes) else fastest


@cache
def _fastest_type(dims: int, n_codes: int) -> Product:
    """Tried on one block: a CPU without bfloat16 units is many times slower in that type."""
    import torch

    with single_threaded_products():
        level, rows = torch.ones(n_codes, dims).t(), torch.ones(ROWS, dims)  # no random numbers: those are the user's
        out, half = torch.empty(ROWS, n_codes), level.bfloat16()
        single = _best_time(partial(torch.mm, rows, level, out=out))
        halved = _best_time(lambda: out.copy_(torch.mm(rows.bfloat16(), half)))
    chosen: Product = "bfloat16" if WORTH_BFLOAT16 * halved < single else "float32"
    log.info(
        "products of %d x %d rows and %d codes in %s: float32 %.0f us, bfloat16 %.0f us",
        ROWS, dims, n_codes, chosen, 1e6 * single, 1e6 * halved,
    )  # fmt: skip
    return chosen


def _is_full_float32(dims: int, n_codes: int) -> bool:
    """False where the caller let torch multiply float32 in fewer bits, by a global setting.

    Asked by trying, and each time, because the settings have several names and may change.
    """
    import torch

    needs_21_bits = torch.full((ROWS, dims), 1 + 2.0**-20)
    product = needs_21_bits @ torch.eye(dims, max(dims, n_codes))
    return product.dtype == torch.float32 and bool((product[:, :dims] == needs_21_bits).all())


def _best_time(work: Callable[[], object], repeats: int = 5) -> float:
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
