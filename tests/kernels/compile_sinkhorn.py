"""Launch configurations of `sinkhorn` for `test_compile.py`, as `sinkhorn_triton.py` launches them."""

from __future__ import annotations

from semid.kernels.sinkhorn_triton import (
    distance_range_kernel,
    plan_columns_kernel,
    row_log_sum_kernel,
    tile,
    update_potential_kernel,
)
from tests.kernels.gate import Case

ITEMS = {"points": "*fp32", "row_stride": "i32", "n_items": "i32", "n_dims": "i32"}
OPERANDS = {"halves": "*fp16", "offsets": "*fp32", "scales": "*fp32", "n_padded": "i32"}
PLAN = {"potential": "*fp32", "unit": "*fp32"}
DIVISIBLE = ("row_stride", "n_dims", "n_padded")


COLUMNS = PLAN | {"n_tiles": "i32", "partial": "*fp32"}
RANGE = {"n_tiles": "i32", "n_codes": "i32", "ranges": "*fp32"}
ROWS = {"row_log_sums": "*fp32"}
WHOLE = {"ROWS_GIVEN": False, "row_log_sums": None}


def case(name: str, kernel, more: dict[str, str], n_codes: int, dims: int, *, slow: bool = False, **constexprs) -> Case:
    block_n, block_k, block_d = tile(n_codes, dims)
    blocks = {"W": dims, "BLOCK_N": block_n, "BLOCK_K": block_k, "BLOCK_D": min(block_d, dims)}
    return Case(
        name=f"sinkhorn {name} D={dims} K={n_codes}",
        kernel=kernel,
        signature=ITEMS | OPERANDS | more,
        constexprs={"column_stride": 1, **blocks, **constexprs},
        num_warps=8,
        num_stages=1,
        divisible=DIVISIBLE,
        has_dot=True,
        slow=slow,
    )


CASES = [
    case("pass", plan_columns_kernel, COLUMNS, 256, 32, **WHOLE),
    case("pass", plan_columns_kernel, COLUMNS, 256, 64, **WHOLE),
    case("pass", plan_columns_kernel, COLUMNS, 256, 128, slow=True, **WHOLE),
    case("pass", plan_columns_kernel, COLUMNS, 64, 32, slow=True, **WHOLE),
    case("columns", plan_columns_kernel, COLUMNS | ROWS, 8192, 64, ROWS_GIVEN=True),
    case("rows", row_log_sum_kernel, PLAN | ROWS, 8192, 64),
    case("range", distance_range_kernel, RANGE, 256, 32),
    case("range", distance_range_kernel, RANGE, 256, 64, slow=True),
    case("range", distance_range_kernel, RANGE, 8192, 64, slow=True),
    Case(
        name="sinkhorn update",
        kernel=update_potential_kernel,
        signature={
            "partial": "*fp32",
            "n_programs": "i32",
            "potential": "*fp32",
            "n_codes": "i32",
            "n_padded": "i32",
            "log_fair": "fp32",
            "relaxation": "fp32",
            "smallest_column": "fp32",
        },
        constexprs={"BLOCK_K": 256},
        divisible=("n_padded",),
    ),
]
