"""The kernels of `trie_step.py`; see there for what they compute.

Launch 1, over blocks of beams and of codes: logits [B M, K]. Launch 2, one program per prompt: the normalizers of its
beams, kept in registers, then the `count` best of its M W candidates by radix selection:

- a float32 as an ordered integer: flip the sign bit of a positive one, all bits of a negative one; -0 counts as 0;
- four times, from the top byte down: a histogram of that byte over the candidates that agree with the bytes so far
  finds the byte of the count-th largest;
- a last pass in the order of (parent, code) writes those above that value, and of those equal to it as many as there
  is room for. So ties fall in that order and the output needs no sorting.

Candidates are recomputed in each of the five passes from logits that lie in cache, which is cheaper than a third
launch. Nothing waits for the device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from semid.kernels.beams import Beams
from semid.kernels.sizes import power_of_two_at_least

__all__ = ["MAX_BEAMS", "logits_kernel", "select_kernel", "step_with_triton"]

MAX_BEAMS = 1024  # of a prompt: as many normalizers lie in registers
LOGITS_BLOCKS = (16, 32, 64)  # beams, codes, hidden dims; small, since a step has few beams and waits for memory
NORMALISER_BLOCK = 4096  # logits at a time
CANDIDATES = 1024


@triton.jit
def logits_kernel(
    states,
    prompt_stride,
    beam_stride,
    hidden_stride,
    weight,
    weight_stride,
    bias,
    logits,
    n_rows,
    n_beams,
    n_hidden,
    n_codes,
    scale,
    cap,
    HAS_BIAS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    NATIVE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Store logits float32 [R, K] of BLOCK_R of R = B M beams and BLOCK_K codes; NATIVE: in the stored dtype."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    codes = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = rows < n_rows
    real = codes < n_codes
    state_rows = states + (rows // n_beams) * prompt_stride + (rows % n_beams) * beam_stride
    weight_rows = weight + codes.to(tl.int64) * weight_stride
    total = tl.zeros([BLOCK_R, BLOCK_K], tl.float32)
    for start in range(0, n_hidden, BLOCK_H):
        hidden = start + tl.arange(0, BLOCK_H)
        there = hidden < n_hidden
        state = tl.load(
            state_rows[:, None] + hidden[None, :] * hidden_stride, mask=inside[:, None] & there[None, :], other=0.0
        )
        row = tl.load(weight_rows[None, :] + hidden[:, None], mask=real[None, :] & there[:, None], other=0.0)
        if NATIVE:
            total = tl.dot(state, row, total)
        else:
            total = tl.dot(state.to(tl.float32), row.to(tl.float32), total, input_precision="ieee")
    if HAS_BIAS:
        total += tl.load(bias + codes, mask=real, other=0.0).to(tl.float32)[None, :]
    total *= scale
    if HAS_CAP:
        # tanh x = sign(x) (1 - e) / (1 + e) with e = exp(-2 |x|), which cannot overflow.
        small = tl.exp(-2 * tl.abs(total / cap))
        total = tl.where(total < 0, -cap, cap) * ((1 - small) / (1 + small))
    tl.store(logits + rows[:, None] * n_codes + codes[None, :], total, mask=inside[:, None] & real[None, :])


@triton.jit
def _candidates(
    places, prompt, starts, firsts, counts, codes, allowed, logits, n_beams, n_codes, width,
    HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """Return value, validity, key (int64, ordered), beam, code, child of candidates `places` = beam * width + child."""
    beam = places // width
    child = places - beam * width
    inside = beam < n_beams
    row = prompt * n_beams + beam
    valid = inside & (child < tl.load(counts + row, mask=inside, other=0))
    if HAS_ALLOWED:
        valid = valid & (tl.load(allowed + row * width + child, mask=valid, other=0) != 0)
    node = tl.load(firsts + row, mask=inside, other=0) + child
    code = tl.load(codes + node, mask=valid, other=0).to(tl.int32)
    logit = tl.load(logits + row * n_codes + code, mask=valid, other=0.0)
    value = tl.gather(starts, tl.where(inside, beam, 0), 0) + logit
    valid = valid & (value > float("-inf"))
    bits = tl.where(value == 0, 0.0, value).to(tl.int32, bitcast=True)
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483648
    return value, valid, key, beam, code, node


@triton.jit
def select_kernel(
    logits,
    scores,
    firsts,
    counts,
    codes,
    allowed,
    n_beams,
    n_codes,
    width,
    n_kept,
    out_scores,
    out_parents,
    out_codes,
    out_children,
    out_normalizers,
    HAS_ALLOWED: tl.constexpr,
    BEAMS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Store the n_kept best candidates of one prompt."""
    prompt = tl.program_id(0).to(tl.int64)
    beams = tl.arange(0, BEAMS)
    alive = beams < n_beams
    largest = tl.full([BEAMS], float("-inf"), tl.float32)
    total = tl.zeros([BEAMS], tl.float32)
    for first in range(0, n_codes, BLOCK_K):
        columns = first + tl.arange(0, BLOCK_K)
        place = (prompt * n_beams + beams)[:, None] * n_codes + columns[None, :]
        block = tl.load(logits + place, mask=alive[:, None] & (columns < n_codes)[None, :], other=float("-inf"))
        larger = tl.maximum(largest, tl.max(block, 1))
        base = tl.where(larger > float("-inf"), larger, 0.0)
        total = total * tl.exp(largest - base) + tl.sum(tl.exp(block - base[:, None]), 1)
        largest = larger
    normalizers = largest + tl.log(total)
    tl.store(out_normalizers + prompt * n_beams + beams, normalizers, mask=alive)
    starts = tl.load(scores + prompt * n_beams + beams, mask=alive, other=float("-inf")) - normalizers

    n_places = n_beams * width
    digits = tl.arange(0, 256)
    threshold = tl.zeros([1], tl.int64)  # the bytes found so far
    room = tl.zeros([1], tl.int32) + n_kept  # candidates still to be taken among those that agree with them
    for step in range(4):
        shift = 24 - 8 * step
        histogram = tl.zeros([256], tl.int32)
        for at in range(0, n_places, BLOCK_C):
            value, valid, key, beam, code, node = _candidates(
                at + tl.arange(0, BLOCK_C), prompt, starts, firsts, counts, codes, allowed, logits,
                n_beams, n_codes, width, HAS_ALLOWED,
            )  # fmt: skip
            agrees = valid & ((key >> (shift + 8)) == threshold)
            histogram += tl.histogram(((key >> shift) & 255).to(tl.int32), 256, mask=agrees)
        room = tl.minimum(room, tl.sum(histogram, 0))
        from_here_up = tl.cumsum(histogram, 0, reverse=True)
        digit = tl.sum((from_here_up >= room).to(tl.int32), 0) - 1
        room -= tl.sum(tl.where(digits > digit, histogram, 0), 0)
        threshold = threshold * 256 + digit

    kept = tl.zeros([1], tl.int32)
    equals = tl.zeros([1], tl.int32)
    out = prompt * n_kept
    for at in range(0, n_places, BLOCK_C):
        value, valid, key, beam, code, node = _candidates(
            at + tl.arange(0, BLOCK_C), prompt, starts, firsts, counts, codes, allowed, logits,
            n_beams, n_codes, width, HAS_ALLOWED,
        )  # fmt: skip
        equal = (valid & (key == threshold)).to(tl.int32)
        fits = equals + tl.cumsum(equal, 0) <= room
        take = (valid & ((key > threshold) | ((equal != 0) & fits))).to(tl.int32)
        place = out + kept + tl.cumsum(take, 0) - 1
        tl.store(out_scores + place, value, mask=take != 0)
        tl.store(out_parents + place, beam.to(tl.int64), mask=take != 0)
        tl.store(out_codes + place, code.to(tl.int64), mask=take != 0)
        tl.store(out_children + place, node, mask=take != 0)
        kept += tl.sum(take, 0)
        equals += tl.sum(equal, 0)
    for at in range(0, n_kept, BLOCK_C):
        place = at + tl.arange(0, BLOCK_C)
        dead = (place >= kept) & (place < n_kept)
        tl.store(out_scores + out + place, float("-inf"), mask=dead)
        tl.store(out_parents + out + place, 0, mask=dead)
        tl.store(out_codes + out + place, 0, mask=dead)
        tl.store(out_children + out + place, -1, mask=dead)


def step_with_triton(
    states: torch.Tensor,
    weight: torch.Tensor,
    beams: Beams,
    count: int,
    bias: torch.Tensor | None,
    scale: float,
    cap: float | None,
) -> tuple[torch.Tensor, ...]:
    """Return the fields of `trie_step.Step`; the caller has checked all arguments but the number of beams."""
    n_prompts, n_beams, n_hidden = states.shape
    if n_beams > MAX_BEAMS:
        raise ValueError(f"M={n_beams} beams, expected at most {MAX_BEAMS}: use trie_step_torch")
    device, n_codes = states.device, len(weight)
    states, weight = states.detach(), weight.detach()
    if weight.stride(1) != 1:
        weight = weight.contiguous()
    logits = torch.empty(n_prompts * n_beams, n_codes, device=device)
    results = (
        torch.empty(n_prompts, count, device=device),
        *(torch.empty(n_prompts, count, dtype=torch.int64, device=device) for _ in range(3)),
        torch.empty(n_prompts, n_beams, device=device),
    )
    if n_prompts == 0:
        return results
    # The interpreter, where tensors lie on the CPU, multiplies bfloat16 wrongly.
    native = states.dtype == weight.dtype and states.dtype in (torch.float16, torch.bfloat16) and states.is_cuda
    block_r, block_k, block_h = LOGITS_BLOCKS
    logits_kernel[(-(-len(logits) // block_r), -(-n_codes // block_k))](
        states, *states.stride(), weight, weight.stride(0), bias, logits, len(logits), n_beams, n_hidden, n_codes,
        float(scale), float(cap or 1), HAS_BIAS=bias is not None, HAS_CAP=cap is not None, NATIVE=native,
        BLOCK_R=block_r, BLOCK_K=block_k, BLOCK_H=block_h, num_warps=4, num_stages=3,
    )  # fmt: skip
    padded_beams = power_of_two_at_least(n_beams)
    allowed = None if beams.allowed is None else beams.allowed.contiguous()
    select_kernel[(n_prompts,)](
        logits, beams.scores.float().contiguous(), beams.firsts.long().contiguous(),
        beams.counts.long().contiguous(), beams.codes, allowed, n_beams, n_codes, beams.width, count, *results,
        HAS_ALLOWED=allowed is not None, BEAMS=padded_beams,
        BLOCK_K=min(power_of_two_at_least(n_codes), max(16, NORMALISER_BLOCK // padded_beams)),
        BLOCK_C=min(CANDIDATES, max(128, power_of_two_at_least(n_beams * beams.width))), num_warps=8,
    )  # fmt: skip
    return results
