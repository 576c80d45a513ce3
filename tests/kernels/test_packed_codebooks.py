"""`prepare`: what it refuses, and that its error bound holds for sums that truncate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semid.kernels.packed_codebooks import SCALE, prepare
from tests.kernels.reference_residual import on_grid, random_codebooks


def _truncated(values: np.ndarray) -> np.ndarray:
    """Truncate to 24 bits, towards zero: the worst that a matrix unit does to a sum."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.trunc(mantissa * 2**24) / 2**24, exponent)


def _computed_scores(x: torch.Tensor, centroids: torch.Tensor) -> np.ndarray:
    """Return SCALE times the scores as a kernel may compute them, one addition at a time, each truncated."""
    scaled = x.numpy() * np.float32(SCALE)
    high = scaled.astype(np.float16)
    low = (scaled - high.astype(np.float32)).astype(np.float16)
    total = np.zeros((len(x), len(centroids)))
    for part in (low, high):
        for dim in range(x.shape[1]):
            total = _truncated(total + np.outer(part[:, dim].astype(float), centroids[:, dim].double().numpy()))
    half = (SCALE * centroids.double().square().sum(1) / 2).float()
    return (total.astype(np.float32) - half.numpy()[None]).astype(float)


@given(
    seed=st.integers(0, 2**30),
    dims=st.sampled_from([1, 3, 16, 50, 128]),
    size=st.sampled_from([1e-7, 1e-3, 1.0, 3.0]),
    grid=st.booleans(),
)
def test_the_error_bound_holds(seed, dims, size, grid):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, dims, generator=generator) * size
    x = on_grid(x) if grid else x
    centroids = random_codebooks([24], dims, seed=seed)[0]
    exact = (x.double() @ centroids.double().T - centroids.double().square().sum(1) / 2).numpy() * SCALE
    error = np.abs(_computed_scores(x, centroids) - exact).max(1)
    constant, slope, _ = prepare([centroids]).windows[0].tolist()
    assert (2 * error <= constant + slope * SCALE * x.double().norm(dim=1).numpy()).all()


def test_sizes_are_padded_and_levels_come_back():
    codebooks = random_codebooks([5, 40, 1], 20)
    prepared = prepare(codebooks, [None, torch.ones(40, dtype=torch.float64), None])
    assert prepared.packed.shape == (3 * 64, 32)
    assert prepared.first_rows == (0, 64, 128, 192)
    centroids, offsets = prepared.level(1)
    assert torch.equal(centroids.float(), codebooks[1])
    assert torch.equal(offsets, codebooks[1].double().square().sum(1) / 2 - 1)
    assert prepared.offsets.isinf().sum() == 192 - 46


@pytest.mark.parametrize(
    ("codebooks", "biases", "message"),
    [
        ([], None, "codebooks: 0 levels, expected 1 to 16"),
        ([torch.zeros(2, 2)] * 17, None, "codebooks: 17 levels"),
        ([torch.zeros(0, 2)], None, r"codebooks\[0\]: shape \(0, 2\)"),
        ([torch.zeros(2, 1025)], None, r"codebooks\[0\]: shape \(2, 1025\)"),
        ([torch.zeros(8193, 1)], None, r"codebooks\[0\]: shape \(8193, 1\)"),
        ([torch.zeros(2, 2), torch.zeros(2, 3)], None, r"codebooks\[1\]: D=3"),
        ([torch.full((2, 2), 0.1)], None, r"codebooks\[0\]: a value is not exact in float16"),
        ([torch.full((2, 2), torch.nan)], None, r"codebooks\[0\]: a value is not exact in float16"),
        ([torch.full((2, 2), 1e6)], None, r"codebooks\[0\]: a value is not exact in float16"),
        ([torch.zeros(2, 2)], [None, None], "biases: 2 given for 1 levels"),
        ([torch.zeros(2, 2)], [torch.zeros(3)], r"biases\[0\]: expected 2 finite values"),
        ([torch.zeros(2, 2)], [torch.tensor([0.0, torch.inf])], r"biases\[0\]: expected 2 finite values"),
    ],
)
def test_what_cannot_be_packed_is_said(codebooks, biases, message):
    with pytest.raises(ValueError, match=message):
        prepare(codebooks, biases)
