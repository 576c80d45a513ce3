"""`kmeans_update`, `sinkhorn` and `trie_step` on a real device, at sizes the interpreter cannot reach."""

from __future__ import annotations

import dataclasses

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no package for this platform")

from semid.kernels.kmeans_update import kmeans_update, kmeans_update_torch  # noqa: E402 (needs Triton)
from semid.kernels.sinkhorn import balanced_codes, sinkhorn_potentials, sinkhorn_step  # noqa: E402
from semid.kernels.trie_step import trie_step, trie_step_torch  # noqa: E402
from tests.kernels import reference_kmeans  # noqa: E402
from tests.kernels.trie_step_cases import random_beams  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA or ROCm device"),
]
DEVICE = "cuda"
COUNTS = [1, 63, 64, 65, 1000, 100_003]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator(DEVICE).manual_seed(seed), device=DEVICE)


def far_rows(dims: int) -> torch.Tensor:
    """Return three rows, 2^30 float16 apart."""
    rows = torch.empty(2**31 + 2**11, dtype=torch.float16, device=DEVICE).as_strided((3, dims), (2**30, 1))
    return rows.copy_(normal(3, dims))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("codes", "dims"), [(256, 32), (100, 64), (17, 5), (256, 100), (1000, 64), (8192, 32), (64, 768)]
)
def test_a_step_of_kmeans(count, codes, dims):
    points, centroids = normal(count, dims), normal(codes, dims, seed=1)
    prices = normal(codes, seed=2).abs()
    found = kmeans_update(points, centroids, prices=prices)
    assert reference_kmeans.nearly_best(points, centroids, found.codes, prices).all()
    counts = torch.bincount(found.codes, minlength=codes)
    sums = torch.zeros(codes, dims, dtype=torch.float64, device=DEVICE).index_add_(0, found.codes, points.double())
    assert torch.equal(found.counts, counts)
    torch.testing.assert_close(found.sums, sums, rtol=1e-5, atol=1e-5 * float(counts.max()) ** 0.5)
    objective = (points - centroids[found.codes]).square().sum(dtype=torch.float64)
    torch.testing.assert_close(found.objective, objective, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("codes", "dims"), [(256, 64), (1000, 100)])
def test_a_step_of_kmeans_gives_the_same_bits_again_and_the_codes_of_the_cpu(codes, dims):
    points, centroids = normal(50_000, dims), normal(codes, dims, seed=1)
    first, second = (kmeans_update(points, centroids) for _ in range(2))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name))
    on_cpu = kmeans_update_torch(points.cpu(), centroids.cpu())
    assert (first.codes.cpu() == on_cpu.codes).double().mean() > 0.9999


@pytest.mark.parametrize("codes", [10, 1000])
def test_offsets_beyond_31_bits(codes):
    points, centroids = far_rows(16), normal(codes, 16, seed=1)
    assert reference_kmeans.nearly_best(points, centroids, kmeans_update(points, centroids).codes).all()
    expected = sinkhorn_step(points, centroids, torch.zeros(codes, device=DEVICE), 2.0, backend="torch")
    found = sinkhorn_step(points, centroids, torch.zeros(codes, device=DEVICE), 2.0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("codes", "dims"), [(256, 32), (100, 64), (17, 5), (256, 200), (300, 32), (8192, 64)])
def test_a_pass_of_sinkhorn(count, codes, dims):
    residual, centroids = normal(count, dims), normal(codes, dims, seed=1)
    potential = 3 * normal(codes, seed=2)
    found = sinkhorn_step(residual, centroids, potential, 0.5)
    expected = sinkhorn_step(residual.double(), centroids, potential, 0.5, backend="torch")
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3)
    assert torch.equal(found, sinkhorn_step(residual, centroids, potential, 0.5))


@pytest.mark.parametrize("codes", [256, 1000])
def test_a_catalog_is_balanced_as_on_a_cpu(codes):
    residual = normal(100_000, 32)
    centroids = residual[:codes] * 0.8
    found = sinkhorn_potentials(residual, centroids, epsilon=0.02)
    on_cpu = sinkhorn_potentials(residual.cpu(), centroids.cpu(), epsilon=0.02)
    assert found.error <= 0.01 and abs(found.rounds - on_cpu.rounds) <= 2
    torch.testing.assert_close(found.bias, on_cpu.bias, rtol=0, atol=0.02 * float(on_cpu.bias.abs().max()))


@pytest.mark.parametrize("count", [1024, 100])
@pytest.mark.parametrize("codes", [256, 300])
def test_a_batch_is_balanced_as_on_a_cpu(count, codes):
    residual, centroids = normal(count, 32), normal(codes, 32, seed=1)
    found = balanced_codes(residual, centroids)
    assert (found.cpu() == balanced_codes(residual.cpu(), centroids.cpu())).double().mean() > 0.98


def test_a_cuda_graph_holds_the_balancing_of_a_batch():
    residual, centroids = normal(1024, 32), normal(256, 32, seed=1)
    balanced_codes(residual, centroids)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = balanced_codes(residual, centroids)
    residual.copy_(normal(1024, 32, seed=5))
    graph.replay()
    assert torch.equal(captured, balanced_codes(residual, centroids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize(
    ("prompts", "beams", "hidden", "codes", "width", "count"),
    [
        (1, 1, 64, 256, 256, 50),
        (3, 50, 2048, 256, 256, 50),
        (32, 50, 1000, 256, 9, 50),
        (2, 63, 65, 100, 3, 40),
        (1, 1000, 128, 8192, 500, 1000),
    ],
)
def test_a_step_over_the_trie(dtype, prompts, beams, hidden, codes, width, count, filtered):
    question = random_beams(prompts, beams, codes, width, filtered=filtered, n_nodes=100, seed=3, device=DEVICE)
    states = normal(prompts, beams, hidden).to(dtype)
    weight = (normal(codes, hidden, seed=1) * hidden**-0.5).to(dtype)
    bias = normal(codes, seed=2)
    for options in ({}, {"bias": bias, "scale": 0.5, "cap": 3.0}):
        found = trie_step(states, weight, question, count, **options)
        expected = trie_step_torch(states.double(), weight.double(), question, count, **options)
        torch.testing.assert_close(found.normalizers, expected.normalizers, rtol=1e-4, atol=1e-4)
        best, also = (each.scores.sort(dim=1, descending=True).values for each in (found, expected))
        torch.testing.assert_close(best, also, rtol=1e-4, atol=1e-3)
        alive = found.scores > -torch.inf
        assert torch.equal(question.codes[found.children.clamp(min=0)][alive].long(), found.codes[alive])
        place = torch.where(alive, found.parents * codes + found.codes, torch.iinfo(torch.int64).max)
        assert (place.diff(dim=1)[alive[:, 1:]] > 0).all()
        agreeing = (found.children.sort(dim=1).values == expected.children.sort(dim=1).values).double().mean()
        assert agreeing > 0.9
