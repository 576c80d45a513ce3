"""`residual_assign` under Triton's interpreter: the codes of the float64 definition, on every row."""

from __future__ import annotations

import pytest
import torch

from semid.kernels import residual_assign as module
from semid.kernels.packed_codebooks import prepare
from semid.kernels.residual_assign import Launch, residual_assign
from tests.kernels.reference_residual import greedy_codes, on_grid, random_codebooks, residual_norms, sum_of_centroids

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # NumPy warns of the NaN and overflow that these tests want
BIG = Launch(512, 64, 4, 1)  # the interpreter takes as long for a small block as for a large one


def _rows(count: int, dims: int, seed: int = 1) -> torch.Tensor:
    return on_grid(torch.randn(count, dims, generator=torch.Generator().manual_seed(seed)))


def _near_ties(codebook: torch.Tensor, count: int) -> torch.Tensor:
    """Return grid points half way between two centroids, or the smallest step away from there."""
    generator = torch.Generator().manual_seed(3)
    pair = torch.randint(len(codebook), (count, 2), generator=generator)
    middle = (codebook[pair[:, 0]].double() + codebook[pair[:, 1]].double()) / 2
    step = torch.randint(-1, 2, middle.shape, generator=generator) * 2.0**-20
    return on_grid(middle + step * (torch.arange(count) % 2)[:, None])


@pytest.fixture
def undecided(monkeypatch):
    """Collect how many rows each call left to float64."""
    counts, decide = [], module._decide_in_float64

    def spy(x, prepared, rows, codes, squares):
        counts.append(len(rows))
        decide(x, prepared, rows, codes, squares)

    monkeypatch.setattr(module, "_decide_in_float64", spy)
    return counts


@pytest.mark.parametrize("count", [1, 63, 64, 65, 257, 1000])
def test_codes_are_the_definition_for_any_number_of_rows(count):
    codebooks = random_codebooks([50, 64, 17], 20)
    x = _rows(count, 20)
    assert torch.equal(residual_assign(x, codebooks, config=BIG).codes.long(), greedy_codes(x, codebooks))


@pytest.mark.parametrize("dims", [1, 16, 33, 128, 130, 256])
def test_codes_norms_and_sums_at_any_width(dims):
    codebooks = random_codebooks([40, 70], dims)
    x = _rows(65, dims)
    found = residual_assign(x, codebooks, norms=True, quantized=True, top=16, config=BIG)
    expected = greedy_codes(x, codebooks)
    assert found.codes.dtype == torch.int32
    assert torch.equal(found.codes.long(), expected)
    assert torch.equal(found.quantized, sum_of_centroids(expected, codebooks))
    torch.testing.assert_close(found.norms.double(), residual_norms(x, expected, codebooks), rtol=1e-5, atol=1e-6)
    last = x.double() - codebooks[0].double()[expected[:, 0]]
    scores = last @ codebooks[1].double().T - codebooks[1].double().square().sum(1) / 2
    assert torch.equal(found.top.long(), scores.sort(dim=1, descending=True, stable=True).indices[:, :16])


@pytest.mark.parametrize("launch", [Launch(16, 16, 4, 1), Launch(64, 32, 8, 3), Launch(128, 128, 4, 2)])
def test_the_launch_changes_nothing(launch):
    codebooks = random_codebooks([96, 33], 24)
    x = torch.cat([_rows(40, 24), _near_ties(codebooks[0], 40)])
    found = residual_assign(x, codebooks, norms=True, config=launch)
    base = residual_assign(x, codebooks, norms=True)
    assert torch.equal(found.codes, base.codes)
    torch.testing.assert_close(found.norms, base.norms)


@pytest.mark.parametrize("dims", [8, 64, 200])
def test_near_ties_are_decided_as_float64_decides(dims, undecided):
    codebooks = random_codebooks([32, 64, 30], dims)
    x = _near_ties(codebooks[0], 200)
    assert torch.equal(residual_assign(x, codebooks, config=BIG).codes.long(), greedy_codes(x, codebooks))
    assert undecided[0] >= 20  # those that lie exactly between the two nearest


def test_the_lowest_of_equal_centroids_is_chosen_without_float64(undecided):
    codebooks = [torch.cat([centroids, centroids]) for centroids in random_codebooks([16, 16], 12)]
    x = _rows(64, 12)
    codes = residual_assign(x, codebooks, config=BIG).codes
    assert torch.equal(codes.long(), greedy_codes(x, codebooks))
    assert codes.max() < 16
    assert undecided == [0]


def test_a_bias_is_added_to_the_scores():
    codebooks = random_codebooks([24, 40], 16)
    biases = [None, torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 3]
    x = _rows(130, 16)
    expected = greedy_codes(x, codebooks, biases)
    assert not torch.equal(expected, greedy_codes(x, codebooks))
    found = residual_assign(x, prepare(codebooks, biases), top=3, config=BIG)
    assert torch.equal(found.codes.long(), expected)
    assert torch.equal(found.top[:, 0], found.codes[:, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dims", [20, 140])
def test_values_off_the_grid(dtype, dims):
    codebooks = random_codebooks([32, 32, 32], dims)
    x = torch.randn(150, dims, generator=torch.Generator().manual_seed(7)).mul(1.7).to(dtype)
    assert torch.equal(residual_assign(x, codebooks, config=BIG).codes.long(), greedy_codes(x, codebooks))


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e4, 1e9, 1e30])
def test_tiny_and_huge_values(size):
    codebooks = random_codebooks([32, 20], 16)
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(8)) * size
    assert torch.equal(residual_assign(x, codebooks, config=BIG).codes.long(), greedy_codes(x, codebooks))


def test_one_code_a_level(undecided):
    codebooks = random_codebooks([1, 20, 1], 16)
    x = _rows(20, 16)
    assert torch.equal(residual_assign(x, codebooks).codes.long(), greedy_codes(x, codebooks))
    assert undecided == [0]


def test_no_rows():
    found = residual_assign(torch.empty(0, 8), random_codebooks([4, 4], 8), norms=True, quantized=True, top=2)
    shapes = [tuple(part.shape) for part in (found.codes, found.norms, found.quantized, found.top)]
    assert shapes == [(0, 2), (0, 2), (0, 8), (0, 2)]


@pytest.mark.parametrize("dims", [20, 140])
def test_any_strides(dims):
    codebooks = random_codebooks([32, 16], dims)
    x = _rows(60, dims)
    expected = greedy_codes(x, codebooks)
    padded = torch.full((60, 2 * dims + 3), torch.nan)
    padded[:, 3::2] = x
    for view in (x.T.contiguous().T, padded[:, 3::2], x.flip(0).contiguous().flip(0)):
        assert torch.equal(residual_assign(view, codebooks, config=BIG).codes.long(), expected)


def test_rows_beyond_the_reach_of_32_bits():
    stride = 2**31 + 16
    far = torch.empty(stride + 16, dtype=torch.float16).as_strided((2, 16), (stride, 1))  # only touched pages exist
    far.copy_(_rows(2, 16))
    codebooks = random_codebooks([16, 16], 16)
    assert torch.equal(residual_assign(far, codebooks).codes.long(), greedy_codes(far.clone(), codebooks))


@pytest.mark.parametrize("dims", [16, 150])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_is_named(dims, value):
    x = _rows(70, dims)
    x[66, dims - 1] = value
    x[68, 0] = value
    with pytest.raises(ValueError, match=r"x: row 66 holds NaN or infinity"):
        residual_assign(x, random_codebooks([16, 16], dims), config=BIG)


def test_wide_rows_are_taken_in_slices(monkeypatch):
    monkeypatch.setattr(module, "SCRATCH_FLOATS", 192 * 32)
    codebooks = random_codebooks([20, 20], 140)
    x = _rows(75, 140)
    found = residual_assign(x, codebooks, norms=True, config=Launch(16, 32, 4, 1))
    expected = greedy_codes(x, codebooks)
    assert torch.equal(found.codes.long(), expected)
    torch.testing.assert_close(found.norms.double(), residual_norms(x, expected, codebooks), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_done_is_said():
    codebooks = random_codebooks([8, 8], 4)
    x = _rows(3, 4)
    with pytest.raises(ValueError, match=r"x: shape \(3, 3\), expected \[N, 4\]"):
        residual_assign(x[:, :3], codebooks)
    with pytest.raises(ValueError, match=r"x: torch.float64, expected float32"):
        residual_assign(x.double(), codebooks)
    with pytest.raises(ValueError, match=r"top=9: expected 0 to 8"):
        residual_assign(x, codebooks, top=9)
    with pytest.raises(ValueError, match="biases: given together with Prepared"):
        residual_assign(x, prepare(codebooks), biases=[None, None])
