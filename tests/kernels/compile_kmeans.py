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

SIGNATURE = {
    "points": "*fp32",
    "row_stride": "i32",
    "n_items": "i32",
    "n_dims": "i32",
    "n_tiles": "i32",
    "halves": "*fp16",
    "offsets": "*fp32",
    "scales": "*fp32",
    "n_padded": "i32",
    "codes": "*i32",
}
PARTIAL = {"centroids": "*fp32", "sums": "*fp32", "counts": "*i32", "errors": "*fp64"}
DIVISIBLE = ("row_stride", "n_dims", "n_padded")


def assign_case(dims: int, codes: int, *, one_hot: bool, slow: bool = False) -> Case:
    block_n, block_k, block_d = ONE_HOT_BLOCKS if one_hot else ASSIGN_BLOCKS
    return Case(
        name=f"kmeans_update {'one pass' if one_hot else 'assign'} D={dims} K={codes}",
        kernel=assign_kernel,
        signature=SIGNATURE | (PARTIAL if one_hot else {}),
        constexprs={
            **({} if one_hot else dict.fromkeys(PARTIAL)),
            "column_stride": 1,
            "ONE_HOT": one_hot,
            "W": dims,
            "P": codes if one_hot else 16,
            "BLOCK_N": block_n,
            "BLOCK_K": min(block_k, codes),
            "BLOCK_D": min(block_d, dims),
        },
        num_warps=8,
        num_stages=1,
        divisible=DIVISIBLE,
        has_dot=True,
        slow=slow,
    )


CASES = [
    assign_case(32, 256, one_hot=True),
    assign_case(64, 256, one_hot=True),
    assign_case(16, 16, one_hot=True, slow=True),
    assign_case(128, 1024, one_hot=False),
    assign_case(64, 8192, one_hot=False, slow=True),
    assign_case(768, 256, one_hot=False, slow=True),
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
