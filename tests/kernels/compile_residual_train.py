"""Launch configurations of `residual_train` for `test_compile.py`."""

from __future__ import annotations

from semid.kernels.residual_train import BLOCK_N, NUM_STAGES, NUM_WARPS, block_k
from semid.kernels.residual_train_triton import centroid_gradient_kernel, latent_gradient_kernel, quantize_kernel
from tests.kernels.gate import Case

CUDA, HIP = ("cuda:80", "cuda:90"), ("hip:gfx942",)
COMMON = {
    "latents": "*fp32",
    "latents_row": "i64",
    "n_items": "i64",
    "n_dims": "i32",
    "centroids": "*fp32",
    "starts": "*i32",
    "n_levels": "i32",
    "codes": "*i32",
}


def _forward(dims: int, precision: str, targets: tuple[str, ...]) -> Case:
    return Case(
        f"residual_quantize-D{dims}",
        quantize_kernel,
        COMMON | {"last_codes": "*i64", "total": "*fp32", "squares": "*fp32"},
        {
            "latents_column": 1,
            "D": dims,
            "BLOCK_N": BLOCK_N,
            "BLOCK_K": block_k(dims),
            "PRECISION": precision,
            "HAS_LAST": True,
        },
        NUM_WARPS,
        NUM_STAGES,
        divisible=("latents_row", "n_dims"),
        has_dot=True,
        targets=targets,
    )


def _latent_gradient() -> Case:
    return Case(
        "residual_quantize-latent_gradient",
        latent_gradient_kernel,
        COMMON | {"grad_commitment": "*fp32", "factor": "fp32", "grad_latents": "*fp32"},
        {"latents_column": 1, "BLOCK_N": 32, "BLOCK_D": 64},
        divisible=("latents_row", "n_dims"),
    )


def _centroid_gradient() -> Case:
    types = {name: kind for name, kind in COMMON.items() if name != "n_items"}
    return Case(
        "residual_quantize-centroid_gradient",
        centroid_gradient_kernel,
        types
        | {
            "order": "*i64",
            "ends": "*i64",
            "grad_total": "*fp32",
            "grad_codebook": "*fp32",
            "factor": "fp32",
            "grad_centroids": "*fp32",
        },
        {"latents_column": 1, "BLOCK_N": 32, "BLOCK_D": 64, "HAS_TOTAL": True},
        divisible=("latents_row", "n_dims"),
    )


CASES = [
    *(_forward(dims, "tf32x3", CUDA) for dims in (16, 32, 64, 128)),
    *(_forward(dims, "ieee", HIP) for dims in (16, 32, 64, 128)),
    _latent_gradient(),
    _centroid_gradient(),
]
