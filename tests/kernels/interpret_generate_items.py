"""`generate_items` with the fused step, under the interpreter: the items and scores of the plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semid.kernels import trie_step as kernel
from semid.kernels.dispatch import VARIABLE
from semid.tokenizer_exports.generate import generate_items
from semid.trie import Trie
from tests.helpers.tiny_models import new_model

SIZES, TEXT = (4, 9, 3), 300


@pytest.fixture(scope="module")
def trie() -> Trie:
    keys = np.random.default_rng(0).choice(np.prod(SIZES), 60, replace=False)
    return Trie.from_codes(np.stack(np.unravel_index(keys, SIZES), axis=1), SIZES, base=TEXT)


@pytest.mark.parametrize("kind", ["qwen3 tied", "phi with a head bias"])
@pytest.mark.parametrize("filtered", [False, True])
def test_the_kernel_finds_the_same_items(monkeypatch, trie, kind, filtered):
    model = new_model(kind, TEXT + sum(SIZES))
    prompts = torch.randint(1, TEXT, (2, 5), generator=torch.Generator().manual_seed(0))
    filters = [trie.filter(only=[1, 5, 9]), None] if filtered else None
    calls = []
    original = kernel.trie_step
    monkeypatch.setattr(kernel, "trie_step", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    found = {}
    for backend in ("torch", "triton"):
        monkeypatch.setenv(VARIABLE, backend)
        found[backend] = generate_items(model, prompts, trie, num_beams=7, num_return=7, filter=filters)
        assert len(calls) == (len(SIZES) if backend == "triton" else 0)
    assert torch.equal(found["torch"].rows, found["triton"].rows)
    torch.testing.assert_close(found["torch"].scores, found["triton"].scores, atol=1e-4, rtol=1e-4)
    if filtered:
        assert sorted(row for row in found["triton"].rows[0].tolist() if row >= 0) == [1, 5, 9]
