"""Launch configurations of `residual_assign` for `test_compile.py`."""

from __future__ import annotations

from semid.kernels.packed_codebooks import NARROW, WIDE_STEP
from semid.kernels.residual_assign import launch_for
from semid.kernels.residual_assign_triton import assign_kernel, assign_level_kernel, sum_centroids_kernel
from tests.kernels.gate import Case

NARROW_TYPES = {
    "x_row": "i64",
    "n_items": "i64",
    "n_dims": "i32",
    "packed": "*fp16",
    "offsets": "*fp32",
    "starts": "*i32",
    "windows": "*fp32",
    "n_levels": "i32",
    "codes": "*i32",
    "unsure_rows": "*i8",
}
LEVEL_TYPES = {name: kind for name, kind in NARROW_TYPES.items() if name != "x_row"} | {
    "source": "*fp32",
    "source_row": "i64",
    "source_factor": "fp32",
    "level": "i32",
    "drifts": "*fp32",
    "target": "*fp32",
    "D": "i32",
}


def _narrow(dims: int, kind: str = "fp32", *, norms: bool = False, old: bool = False) -> Case:
    launch = launch_for(dims, many_registers=not old)
    return Case(
        f"residual_assign-D{dims}-{kind}{'-norms' if norms else ''}",
        assign_kernel,
        NARROW_TYPES | {"x": f"*{kind}"} | ({"norms": "*fp32"} if norms else {}),
        {"x_column": 1, "D": dims, "BLOCK_N": launch.block_n, "BLOCK_K": launch.block_k, "HAS_NORMS": norms}
        | ({} if norms else {"norms": None}),
        launch.num_warps,
        launch.num_stages,
        divisible=("x_row", "n_dims"),
        has_dot=True,
        targets=("cuda:80",) if old else ("cuda:90", "hip:gfx942"),
    )


def _level() -> Case:
    launch = launch_for(NARROW + 1)
    return Case(
        "residual_assign-wide-norms",
        assign_level_kernel,
        LEVEL_TYPES | {"norms": "*fp32"},
        {
            "source_column": 1,
            "BLOCK_N": launch.block_n,
            "BLOCK_K": launch.block_k,
            "BLOCK_D": WIDE_STEP,
            "HAS_NORMS": True,
        },
        launch.num_warps,
        launch.num_stages,
        divisible=("source_row", "n_dims", "D"),
        unaligned=("codes", "norms", "unsure_rows"),  # slices of rows
        has_dot=True,
    )


def _sum() -> Case:
    return Case(
        "residual_assign-sum_centroids",
        sum_centroids_kernel,
        {
            "codes": "*i32",
            "n_items": "i64",
            "n_levels": "i32",
            "packed": "*fp16",
            "packed_dims": "i32",
            "starts": "*i32",
            "out": "*fp32",
            "n_dims": "i32",
        },
        {"BLOCK_N": 64, "BLOCK_D": 64},
        divisible=("packed_dims", "n_dims"),
    )


CASES = [
    *(_narrow(dims, old=old) for dims in (16, 32, 64, 128) for old in (False, True)),
    *(_narrow(dims, norms=True, old=old) for dims in (32, 64, 128) for old in (False, True)),
    *(_narrow(64, "bf16", old=old) for old in (False, True)),
    _level(),
    _sum(),
]
