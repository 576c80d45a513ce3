"""The Triton form of `sinkhorn` under the interpreter, against the whole matrix in float64."""

from __future__ import annotations

import pytest
import torch

from semid.kernels.sinkhorn import balanced_codes, sinkhorn_potentials, sinkhorn_step
from tests.kernels import reference_sinkhorn as reference

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy warns of the NaN that these tests want


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def potential_of(codes: int) -> torch.Tensor:
    return 3 * normal(codes, seed=9)


def agrees(residual, centroids, potential, unit, found):
    expected = reference.plan(residual, centroids, potential, unit).sum(0)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 257, 1000])
def test_column_sums_of_any_number_of_items(count):
    residual, centroids = normal(count, 20), normal(37, 20, seed=1)
    agrees(residual, centroids, potential_of(37), 0.5, sinkhorn_step(residual, centroids, potential_of(37), 0.5))


@pytest.mark.parametrize(("codes", "dims"), [(1, 1), (16, 16), (100, 64), (256, 32), (20, 100), (300, 5)])
def test_column_sums_of_any_shape_of_centroids(codes, dims):
    residual, centroids = normal(70, dims), normal(codes, dims, seed=1)
    unit = 0.1 * dims
    found = sinkhorn_step(residual, centroids, potential_of(codes), unit)
    agrees(residual, centroids, potential_of(codes), unit, found)


@pytest.mark.parametrize("codes", [40, 300])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_small_epsilon_is_no_danger_in_float32(codes, scale):
    residual, centroids = normal(200, 12) * scale, normal(codes, 12, seed=1) * scale
    unit = reference.unit(residual, centroids, 0.003)
    found = sinkhorn_step(residual, centroids, torch.zeros(codes), unit)
    expected = reference.plan(residual, centroids, torch.zeros(codes), unit).sum(0)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(found.sum(), torch.tensor(200.0, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_items_of_any_float_type(dtype):
    residual, centroids = normal(100, 16).to(dtype), normal(20, 16, seed=1)
    agrees(residual, centroids, potential_of(20), 0.5, sinkhorn_step(residual, centroids, potential_of(20), 0.5))


@pytest.mark.parametrize("codes", [20, 300])
def test_no_items(codes):
    centroids = normal(codes, 4)
    assert not sinkhorn_step(torch.empty(0, 4), centroids, torch.zeros(codes), 0.5).any()
    assert balanced_codes(torch.empty(0, 4), centroids).shape == (0,)


def test_strides_do_not_matter():
    residual, centroids = normal(90, 40)[::2, 3:35:2], normal(16, 16, seed=1)
    expected = sinkhorn_step(residual.contiguous(), centroids, torch.zeros(16), 0.5)
    assert torch.equal(sinkhorn_step(residual, centroids, torch.zeros(16), 0.5), expected)
    transposed = residual.T.contiguous().T
    assert torch.equal(sinkhorn_step(transposed, centroids, torch.zeros(16), 0.5), expected)


@pytest.mark.parametrize("codes", [16, 300])
def test_offsets_beyond_31_bits(codes):
    memory = torch.empty(2**31 + 2**11, dtype=torch.float16)  # the system gives a page when it is touched
    residual, centroids = memory.as_strided((3, 8), (2**30, 1)), normal(codes, 8, seed=1)
    residual.copy_(normal(3, 8))
    agrees(residual, centroids, torch.zeros(codes), 0.5, sinkhorn_step(residual, centroids, torch.zeros(codes), 0.5))


@pytest.mark.parametrize("codes", [16, 300])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_item_that_is_no_number_shows_in_the_sums(codes, bad):
    residual, centroids = normal(80, 4), normal(codes, 4, seed=1)
    residual[7, 2] = bad
    assert sinkhorn_step(residual, centroids, torch.zeros(codes), 0.5).isnan().any()
    with pytest.raises(ValueError, match="not finite"):
        sinkhorn_potentials(residual, centroids)
    found = balanced_codes(residual, centroids, rounds=2)
    assert found.min() >= 0 and found.max() < codes


def test_a_catalog_is_balanced_to_the_stated_error():
    residual, centroids = normal(400, 4) * torch.tensor([2, 1, 0.5, 0.25]), normal(12, 4, seed=1)
    found = sinkhorn_potentials(residual, centroids, epsilon=0.05)
    unit = reference.unit(residual, centroids, 0.05)
    columns = reference.plan(residual, centroids, found.bias * (2 / unit), unit).sum(0)
    assert found.error <= 0.01
    assert float((columns * 12 / 400 - 1).abs().max()) == pytest.approx(found.error, abs=1e-3)


@pytest.mark.parametrize(("count", "codes"), [(200, 16), (40, 64), (30, 300)])
def test_a_batch_gets_the_codes_of_the_relaxed_plan(count, codes):
    residual, centroids = normal(count, 8), normal(codes, 8, seed=1)
    found = balanced_codes(residual, centroids, epsilon=0.01, rounds=10)
    assert found.dtype == torch.int64
    expected = reference.relaxed_codes(residual, centroids, 0.01, 10)
    assert (found == expected).double().mean() > 0.98


def test_the_same_call_gives_the_same_bits():
    residual, centroids = normal(300, 8), normal(20, 8, seed=1)
    first, second = (sinkhorn_step(residual, centroids, potential_of(20), 0.3) for _ in range(2))
    assert torch.equal(first, second)
