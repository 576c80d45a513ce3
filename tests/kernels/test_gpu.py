"""The residual quantization kernels on a real device, at sizes the interpreter cannot reach."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no package for this platform")

from semid.kernels.packed_codebooks import prepare  # noqa: E402 (needs Triton)
from semid.kernels.residual_assign import Launch, residual_assign
from semid.kernels.residual_train import residual_quantize  # noqa: E402
from tests.kernels.reference_residual import greedy_codes, on_grid, random_codebooks, residual_norms, sum_of_centroids
from tests.kernels.residual_train_cases import agrees_with_autograd, balanced_last_codes, random_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or ROCm device"),
]
DEVICE = "cuda"


def _rows(count: int, dims: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return on_grid(torch.randn(count, dims, generator=generator, device=DEVICE))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000, 100_003])
@pytest.mark.parametrize("dims", [20, 32, 64, 128, 200, 768])
def test_codes_are_the_definition(count, dims):
    codebooks = random_codebooks([256, 256, 100, 17], dims, device=DEVICE)
    x = _rows(count, dims)
    found = residual_assign(x, codebooks, norms=True, quantized=True, top=8)
    expected = greedy_codes(x, codebooks)
    assert torch.equal(found.codes.long(), expected)
    assert torch.equal(found.quantized, sum_of_centroids(expected, codebooks))
    torch.testing.assert_close(found.norms.double(), residual_norms(x, expected, codebooks), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.top[:, 0], found.codes[:, -1])


@pytest.mark.parametrize("dims", [32, 256])
def test_many_codes_a_level(dims):
    codebooks = random_codebooks([8192] * 3, dims, device=DEVICE)
    x = _rows(5000, dims)
    assert torch.equal(residual_assign(x, codebooks).codes.long(), greedy_codes(x, codebooks))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_off_the_grid(dtype):
    codebooks = random_codebooks([256] * 4, 64, device=DEVICE)
    x = (torch.randn(50_000, 64, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(2)) * 2).to(dtype)
    assert torch.equal(residual_assign(x, codebooks).codes.long(), greedy_codes(x, codebooks))


@pytest.mark.parametrize("launch", [Launch(16, 16, 4, 1), Launch(64, 64, 4, 3), Launch(128, 32, 8, 2)])
def test_the_launch_changes_nothing(launch):
    codebooks = prepare(random_codebooks([256] * 4, 32, device=DEVICE))
    x = _rows(100_000, 32)
    assert torch.equal(residual_assign(x, codebooks, config=launch).codes, residual_assign(x, codebooks).codes)


def test_rows_half_way_between_two_centroids():
    codebooks = random_codebooks([256, 256], 64, device=DEVICE)
    pair = torch.randint(256, (20_000, 2), device=DEVICE)
    x = on_grid((codebooks[0][pair[:, 0]].double() + codebooks[0][pair[:, 1]].double()) / 2)
    assert torch.equal(residual_assign(x, codebooks).codes.long(), greedy_codes(x, codebooks))


def test_offsets_past_32_bits():
    count, dims = 2**31 // 64 + 1000, 64
    free, _ = torch.cuda.mem_get_info()
    if free < 3 * count * dims:
        pytest.skip(f"needs {3 * count * dims / 2**30:.0f} GiB of free device memory, has {free / 2**30:.0f}")
    codebooks = random_codebooks([64, 64], dims, device=DEVICE)
    x = torch.zeros(count, dims, dtype=torch.float16, device=DEVICE)
    x[-1000:] = _rows(1000, dims).half()
    codes = residual_assign(x, codebooks).codes[-1000:]
    assert torch.equal(codes.long(), greedy_codes(x[-1000:], codebooks))


def test_a_row_that_is_not_finite_is_named():
    x = _rows(1000, 32)
    x[666, 5] = torch.nan
    with pytest.raises(ValueError, match="x: row 666 holds NaN or infinity"):
        residual_assign(x, random_codebooks([64, 64], 32, device=DEVICE))


@pytest.mark.parametrize("batch", [1, 65, 1024])
@pytest.mark.parametrize("dims", [20, 32, 64, 128, 200])
def test_a_training_step_agrees_with_autograd(batch, dims):
    latents, codebooks = random_step(batch, dims, [256, 256, 50], device=DEVICE)
    agrees_with_autograd(latents, codebooks)
    agrees_with_autograd(latents, codebooks, balanced_last_codes(batch, 50, DEVICE))


def test_a_training_step_repeats_bit_for_bit_inside_a_graph():
    latents, codebooks = random_step(1024, 32, [256] * 4, device=DEVICE)

    def step() -> list[torch.Tensor]:
        found = residual_quantize(latents, codebooks)
        return list(torch.autograd.grad((found.codebook + found.commitment).sum(), [latents, *codebooks]))

    eager = step()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(*pair) for pair in zip(eager, captured, strict=True))


def test_a_compiled_training_step():
    latents, codebooks = random_step(256, 32, [64] * 3, device=DEVICE)

    def loss() -> torch.Tensor:
        found = residual_quantize(latents * 2, codebooks)
        return found.total.square().mean() + (found.codebook + found.commitment).sum()

    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(), [latents, *codebooks])
    torch.testing.assert_close(found, torch.autograd.grad(loss(), [latents, *codebooks]), rtol=1e-4, atol=1e-6)
