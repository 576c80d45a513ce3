"""Launch configurations of `sinkhorn` for `test_compile.py`, as `sinkhorn_triton.py` launches them."""

from __future__ import annotations

from typing import Any

from semid.kernels.sinkhorn_triton import (
    distance_range_kernel,
    plan_columns_kernel,
    row_log_sum_kernel,
    tile,
    update_potential_kernel,
)
from tests.kernels.gate import Case
from tests.kernels.split_cases import split_case

PLAN = {"potential": "*fp32", "unit": "*fp32"}
COLUMNS = PLAN | {"n_tiles": "i32", "partial": "*fp32"}
RANGE = {"n_tiles": "i32", "n_codes": "i32", "ranges": "*fp32"}
ROWS = {"row_log_sums": "*fp32"}
WHOLE = {"ROWS_GIVEN": False, "row_log_sums": None}


def case(name: str, kernel: Any, more: dict[str, str], n_codes: int, dims: int, **options: Any) -> Case:
    return split_case(f"sinkhorn {name}", kernel, more, tile(n_codes, dims), n_codes, dims, **options)


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
