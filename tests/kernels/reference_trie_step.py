"""One step of beam search over a trie, a prompt at a time, as the formula reads; sorts Python tuples."""

from __future__ import annotations

import math

import torch


def logits(states, weight, bias, scale, cap):
    """Return logits, float64 [B, M, K]."""
    product = states.double() @ weight.double().T
    product = scale * (product if bias is None else product + bias.double())
    return product if cap is None else cap * torch.tanh(product / cap)


def trie_step(states, weight, beams, count, *, bias=None, scale=1.0, cap=None):
    """Return for each prompt up to `count` (parent, code, child, score), ordered by (parent, code)."""
    found = logits(states, weight, bias, scale, cap)
    normalizers = torch.logsumexp(found, dim=-1)
    prompts = []
    for b in range(states.shape[0]):
        candidates = []
        for m in range(states.shape[1]):
            for place in range(int(beams.counts[b, m])):
                child = int(beams.firsts[b, m]) + place
                code = int(beams.codes[child])
                score = float(beams.scores[b, m] - normalizers[b, m] + found[b, m, code])
                if (beams.allowed is None or beams.allowed[b, m, place]) and score > -math.inf:
                    candidates.append((m, code, child, score))
        best = sorted(candidates, key=lambda each: (-each[3], each[0], each[1]))[:count]
        prompts.append(sorted(best))
    return prompts
