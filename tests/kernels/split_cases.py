"""Launch configurations of kernels that are built on `split_scores`, for their `compile_*.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.kernels.gate import Case

__all__ = ["split_case"]

ITEMS = {"points": "*fp32", "row_stride": "i32", "n_items": "i32", "n_dims": "i32"}
OPERANDS = {"halves": "*fp16", "offsets": "*fp32", "scales": "*fp32", "n_padded": "i32"}


def split_case(
    name: str,
    kernel: Any,
    more: Mapping[str, str],
    blocks: tuple[int, int, int],
    n_codes: int,
    dims: int,
    *,
    slow: bool = False,
    **constexprs: Any,
) -> Case:
    """Return a kernel over points [N, dims] in rows and K padded codes, by blocks of items, codes and dims.

    `more` : types of the arguments beyond those of `split_scores`.
    """
    block_n, block_k, block_d = blocks
    sizes = {"W": dims, "BLOCK_N": block_n, "BLOCK_K": min(block_k, n_codes), "BLOCK_D": min(block_d, dims)}
    return Case(
        name=f"{name} D={dims} K={n_codes}",
        kernel=kernel,
        signature=ITEMS | OPERANDS | more,
        constexprs={"column_stride": 1, **sizes, **constexprs},
        num_warps=8,
        num_stages=1,
        divisible=("row_stride", "n_dims", "n_padded"),
        has_dot=True,
        slow=slow,
    )
