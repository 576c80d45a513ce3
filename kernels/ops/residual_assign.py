"""Residual quantization of N vectors on a GPU: all L levels, exact codes.

With r_0 = x, for each level l:

    c_l = argmax_k  r_l . C_l[k] - |C_l[k]|^2 / 2 + bias_l[k]     (lowest k on ties)
    r_{l+1} = r_l - C_l[c_l]

Shapes: x [N, D], C_l [K_l, D], codes [N, L]; D <= 1024, L <= 16, K_l <= 8192. Up to D = 128 one launch reads x once,
keeps the residuals in registers and streams the codebooks through; wider residuals take a launch a level and go through
memory.

Scores are two float16 matrix products, of the residual's high and low part with centroids that float16 holds exactly,
added up in float32. A row whose lead, at any level, is within the error bound of `packed_codebooks` is decided again
in float64. If x and the centroids lie on a fixed-point grid (semid's: multiples of 2^-20 and 2^-13, |x| <= 8), every
float64 score is exact, and the codes equal the definition above on every row, whatever the launch. For other x the
definition is its float64 evaluation, residuals included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton

from semid.kernels.packed_codebooks import NARROW, SCALE, WIDE_STEP, Prepared, prepare
from semid.kernels.residual_assign_triton import assign_kernel, assign_level_kernel, sum_centroids_kernel

__all__ = ["Assigned", "Launch", "Prepared", "launch_for", "prepare", "residual_assign"]

MOST_TOP = 16
SCRATCH_FLOATS = 2**25  # of one residual buffer of a wide assignment
FLOAT64_SCORES = 2**22  # computed at a time


@dataclass(frozen=True, eq=False)
class Assigned:
    """What `residual_assign` was asked for; None for the rest.

    codes int32 [N, L]; norms float32 [N, L], |r_{l+1}|^2; quantized float32 [N, D], the sum of the chosen centroids;
    top int32 [N, T], the best codes of the last level in order of score.
    """

    codes: torch.Tensor
    norms: torch.Tensor | None = None
    quantized: torch.Tensor | None = None
    top: torch.Tensor | None = None


@dataclass(frozen=True)
class Launch:
    """Items and codes a program takes at a time, its warps, and how many code blocks are in flight."""

    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def launch_for(dims: int, *, many_registers: bool = True) -> Launch:
    """Return the configuration for a padded width: free of spills on sm_80, sm_90 and gfx942 (tests/kernels).

    many_registers : False for NVIDIA chips before sm_90, whose matrix instructions hold both factors in registers.
    """
    if dims <= 64:
        return Launch(128, 64, 8, 2)  # 128 codes a block would take the registers of a second program
    if dims <= NARROW and many_registers:
        return Launch(128, 64, 8, 2)
    return Launch(64, 128, 8, 2)


def _launch_on(device: torch.device, dims: int) -> Launch:
    old = device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) < (9, 0)
    return launch_for(dims, many_registers=not old)


def residual_assign(
    x: torch.Tensor,
    codebooks: Prepared | Sequence[torch.Tensor],
    *,
    biases: Sequence[torch.Tensor | None] | None = None,
    norms: bool = False,
    quantized: bool = False,
    top: int = 0,
    config: Launch | None = None,
) -> Assigned:
    """Codes of the nearest centroids, level by level.

    Parameters
    ----------
    x : float32, bfloat16 or float16 [N, D], any strides, on the codebooks' device.
    codebooks : from `prepare`, or L tensors [K_l, D] to prepare for this call alone.
    biases : with raw codebooks, per level float64 [K_l] or None, added to the scores.
    norms, quantized : True to return them.
    top : how many best codes of the last level to return, up to 16 and its K. They are scored in float64, as many
        rows at a time as keeps 2^22 scores.
    config : private to tests: another launch shape. The result does not depend on it.

    Raises
    ------
    ValueError : shapes, types or devices that do not fit, or a row of x with NaN or infinity (the first is named).

    Waits for the device once, to learn which rows are undecided.
    """
    if isinstance(codebooks, Prepared):
        if biases is not None:
            raise ValueError("biases: given together with Prepared codebooks; pass them to prepare() instead")
        prepared = codebooks
    else:
        prepared = prepare(codebooks, biases)
    _check(x, prepared, top)
    n_items, n_levels = len(x), len(prepared.sizes)
    codes = torch.empty(n_items, n_levels, dtype=torch.int32, device=x.device)
    squares = torch.empty(n_items, n_levels, dtype=torch.float32, device=x.device) if norms else None
    unsure = torch.zeros(n_items, dtype=torch.int8, device=x.device)
    if n_items:
        config = config or _launch_on(x.device, prepared.padded_dims)
        launch = _assign_narrow if prepared.padded_dims <= NARROW else _assign_wide
        launch(x, prepared, config, codes, squares, unsure)
        _decide_in_float64(x, prepared, unsure.nonzero()[:, 0], codes, squares)
    return Assigned(
        codes,
        squares,
        _sum_of_centroids(codes, prepared) if quantized else None,
        _best_of_last_level(x, prepared, codes, top) if top else None,
    )


def _assign_narrow(
    x: torch.Tensor,
    prepared: Prepared,
    config: Launch,
    codes: torch.Tensor,
    squares: torch.Tensor | None,
    unsure: torch.Tensor,
) -> None:
    assign_kernel[(triton.cdiv(len(x), config.block_n),)](
        x,
        x.stride(0),
        x.stride(1),
        len(x),
        prepared.dims,
        prepared.packed,
        prepared.offsets,
        prepared.starts,
        prepared.windows,
        codes.shape[1],
        codes,
        squares,
        unsure,
        D=prepared.padded_dims,
        BLOCK_N=config.block_n,
        BLOCK_K=min(config.block_k, prepared.block),
        HAS_NORMS=squares is not None,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def _assign_wide(
    x: torch.Tensor,
    prepared: Prepared,
    config: Launch,
    codes: torch.Tensor,
    squares: torch.Tensor | None,
    unsure: torch.Tensor,
) -> None:
    """Assign a slice of rows at a time, so that the two residual buffers stay small."""
    width, n_levels = prepared.padded_dims, codes.shape[1]
    at_once = max(1, min(len(x), SCRATCH_FLOATS // width))
    buffers = torch.empty(2, at_once, width, dtype=torch.float32, device=x.device)
    for start in range(0, len(x), at_once):
        rows = slice(start, min(start + at_once, len(x)))
        source, factor = x[rows], SCALE
        drifts = torch.zeros(len(source), dtype=torch.float32, device=x.device)
        for level in range(n_levels):
            target = buffers[level % 2]
            assign_level_kernel[(triton.cdiv(len(source), config.block_n),)](
                source,
                source.stride(0),
                source.stride(1),
                factor,
                len(source),
                prepared.dims if level == 0 else width,
                prepared.packed,
                prepared.offsets,
                prepared.starts,
                prepared.windows,
                level,
                n_levels,
                drifts,
                codes[rows],
                None if squares is None else squares[rows],
                unsure[rows],
                target,
                width,
                BLOCK_N=config.block_n,
                BLOCK_K=min(config.block_k, prepared.block),
                BLOCK_D=WIDE_STEP,
                HAS_NORMS=squares is not None,
                num_warps=config.num_warps,
                num_stages=config.num_stages,
            )
            source, factor = target[: len(source)], 1.0


def _decide_in_float64(
    x: torch.Tensor, prepared: Prepared, rows: torch.Tensor, codes: torch.Tensor, squares: torch.Tensor | None
) -> None:
    """Replace codes and norms of some rows by those of the definition."""
    if not len(rows):
        return
    finite = torch.isfinite(x[rows]).all(1)
    if not bool(finite.all()):
        first = int(rows[~finite][0])
        raise ValueError(f"x: row {first} holds NaN or infinity; expected finite values, drop or repair such rows")
    at_once = max(1, FLOAT64_SCORES // max(prepared.sizes))
    levels = [prepared.level(number) for number in range(len(prepared.sizes))]
    for some in rows.split(at_once):
        residual = x[some].double()
        for number, (centroids, offsets) in enumerate(levels):
            scores = residual @ centroids.T - offsets
            best = scores.amax(1, keepdim=True)
            order = torch.arange(len(centroids), device=x.device)
            code = torch.where(scores == best, order, len(centroids)).amin(1)  # argmax may return any of equals
            residual = residual - centroids[code]
            codes[some, number] = code.to(torch.int32)
            if squares is not None:
                squares[some, number] = residual.square().sum(1).float()


def _sum_of_centroids(codes: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    out = torch.empty(len(codes), prepared.dims, dtype=torch.float32, device=codes.device)
    if len(codes):
        block_n, block_d = 64, min(64, prepared.padded_dims)
        sum_centroids_kernel[(triton.cdiv(len(codes), block_n), triton.cdiv(prepared.dims, block_d))](
            codes,
            len(codes),
            codes.shape[1],
            prepared.packed,
            prepared.padded_dims,
            prepared.starts,
            out,
            prepared.dims,
            BLOCK_N=block_n,
            BLOCK_D=block_d,
            num_warps=4,
        )
    return out


def _best_of_last_level(x: torch.Tensor, prepared: Prepared, codes: torch.Tensor, count: int) -> torch.Tensor:
    out = torch.empty(len(x), count, dtype=torch.int32, device=x.device)
    levels = [prepared.level(number) for number in range(len(prepared.sizes))]
    centroids, offsets = levels[-1]
    at_once = max(1, FLOAT64_SCORES // len(centroids))
    for start in range(0, len(x), at_once):
        rows = slice(start, start + at_once)
        residual = x[rows].double()
        for number, (earlier, _) in enumerate(levels[:-1]):
            residual = residual - earlier[codes[rows, number].long()]
        scores = residual @ centroids.T - offsets
        order = scores.sort(dim=1, descending=True, stable=True).indices  # lowest index first among equals
        out[rows] = order[:, :count].to(torch.int32)
    return out


def _check(x: torch.Tensor, prepared: Prepared, top: int) -> None:
    if x.dim() != 2 or x.shape[1] != prepared.dims:
        raise ValueError(f"x: shape {tuple(x.shape)}, expected [N, {prepared.dims}] to match the codebooks")
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"x: {x.dtype}, expected float32, bfloat16 or float16; convert it with x.float()")
    if x.device != prepared.packed.device:
        raise ValueError(f"x: on {x.device}, but the codebooks are on {prepared.packed.device}; move one of them")
    most = min(MOST_TOP, prepared.sizes[-1])
    if not 0 <= top <= most:
        raise ValueError(f"top={top}: expected 0 to {most}")
