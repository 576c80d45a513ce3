"""Launch configurations of `trie_step` for `test_compile.py`, as `trie_step_triton.py` launches them."""

from __future__ import annotations

from semid.kernels.trie_step_triton import CANDIDATES, LOGITS_BLOCKS, NORMALISER_BLOCK, logits_kernel, select_kernel
from tests.kernels.gate import Case

NUMBERS = ("prompt_stride", "beam_stride", "weight_stride", "n_hidden", "n_codes")


def logits_case(kind: str, *, native: bool, slow: bool = False) -> Case:
    block_r, block_k, block_h = LOGITS_BLOCKS
    return Case(
        name=f"trie_step logits {kind}",
        kernel=logits_kernel,
        signature={
            "states": f"*{kind}",
            "weight": f"*{kind}",
            "bias": f"*{kind}",
            "logits": "*fp32",
            "n_rows": "i32",
            "n_beams": "i32",
            "scale": "fp32",
            "cap": "fp32",
            **dict.fromkeys(NUMBERS, "i32"),
        },
        constexprs={
            "hidden_stride": 1,
            "HAS_BIAS": True,
            "HAS_CAP": True,
            "NATIVE": native,
            "BLOCK_R": block_r,
            "BLOCK_K": block_k,
            "BLOCK_H": block_h,
        },
        num_warps=4,
        num_stages=3,
        divisible=NUMBERS,
        has_dot=native,
        slow=slow,
    )


def select_case(beams: int, n_codes: int, *, slow: bool = False) -> Case:
    results = {"out_scores": "*fp32", "out_normalizers": "*fp32"}
    results |= dict.fromkeys(("out_parents", "out_codes", "out_children"), "*i64")
    return Case(
        name=f"trie_step select M={beams} K={n_codes}",
        kernel=select_kernel,
        signature={
            "logits": "*fp32",
            "scores": "*fp32",
            "firsts": "*i64",
            "counts": "*i64",
            "codes": "*i32",
            "allowed": "*u1",
            "n_beams": "i32",
            "n_codes": "i32",
            "width": "i32",
            "n_kept": "i32",
            **results,
        },
        constexprs={
            "HAS_ALLOWED": True,
            "BEAMS": beams,
            "BLOCK_K": min(n_codes, max(16, NORMALISER_BLOCK // beams)),
            "BLOCK_C": CANDIDATES,
        },
        num_warps=8,
        divisible=("n_codes",),
        slow=slow,
    )


CASES = [
    logits_case("bf16", native=True),
    logits_case("fp16", native=True, slow=True),
    logits_case("fp32", native=False),
    select_case(64, 256),
    select_case(1, 256, slow=True),
    select_case(1024, 8192, slow=True),
]
