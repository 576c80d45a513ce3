"""Launch configurations of `kmeans_update` for `test_compile.py`, as `kmeans_update_triton.py` launches them."""

from __future__ import annotations

from semid.kernels.kmeans_update_triton import (
    ASSIGN_BLOCKS,
    ONE_HOT_BLOCKS,
    SEGMENT_BLOCK_D,
    SEGMENT_BLOCK_N,
    SPLITS,
    assign_kernel,
    segment_kernel,
)
from tests.kernels.gate import Case
from tests.kernels.split_cases import split_case

WRITTEN = {"n_tiles": "i32", "codes": "*i32"}
PARTIAL = {"centroids": "*fp32", "sums": "*fp32", "counts": "*i32", "errors": "*fp64"}


def one_pass_case(dims: int, codes: int, *, slow: bool = False) -> Case:
    return split_case(
        "kmeans_update one pass", assign_kernel, WRITTEN | PARTIAL, ONE_HOT_BLOCKS, codes, dims, slow=slow,
        ONE_HOT=True, P=codes,
    )  # fmt: skip


def assign_case(dims: int, codes: int, *, slow: bool = False) -> Case:
    return split_case(
        "kmeans_update assign", assign_kernel, WRITTEN, ASSIGN_BLOCKS, codes, dims, slow=slow,
        ONE_HOT=False, P=16, **dict.fromkeys(PARTIAL),
    )  # fmt: skip


CASES = [
    one_pass_case(32, 256),
    one_pass_case(64, 256),
    one_pass_case(16, 16, slow=True),
    assign_case(128, 1024),
    assign_case(64, 8192, slow=True),
    assign_case(768, 256, slow=True),
    Case(
        name="kmeans_update segments",
        kernel=segment_kernel,
        signature={
            "points": "*fp32",
            "row_stride": "i32",
            "n_dims": "i32",
            "order": "*i64",
            "starts": "*i64",
            "centroids": "*fp32",
            "sums": "*fp64",
            "errors": "*fp64",
        },
        constexprs={
            "column_stride": 1,
            "SPLITS": SPLITS,
            "BLOCK_N": SEGMENT_BLOCK_N,
            "BLOCK_D": SEGMENT_BLOCK_D,
        },
        divisible=("row_stride", "n_dims"),
    ),
]
