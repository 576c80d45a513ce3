"""The CPU form of `sinkhorn`: float32 blocks agree with the whole matrix in float64, and take little memory."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from semid.kernels import sinkhorn, sinkhorn_chunks
from semid.kernels.sinkhorn import balanced_codes, sinkhorn_potentials, sinkhorn_step
from tests.kernels import reference_sinkhorn as reference


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Use several blocks, the last one short, at test sizes; and never the interpreter."""
    monkeypatch.setattr(sinkhorn_chunks, "BLOCK_SCORES", 64 * 64)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def skewed(n_items: int, n_codes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return items, and centroids of which a few are near most items."""
    points = normal(n_items, 4, seed=seed) * torch.tensor([2, 1, 0.5, 0.25])
    return points, normal(n_codes, 4, seed=seed + 100) * torch.tensor([3, 1, 0.3, 0.3])


def column_error(residual, centroids, bias, epsilon):
    unit = reference.unit(residual, centroids, epsilon)
    columns = reference.plan(residual, centroids, bias * (2 / unit), unit).sum(0)
    return float((columns * len(centroids) / len(residual) - 1).abs().max())


@pytest.mark.parametrize("count", [1, 63, 64, 65, 257, 1000])
@pytest.mark.parametrize(("codes", "dims"), [(1, 1), (37, 20), (300, 5)])
def test_column_sums(count, codes, dims):
    residual, centroids, potential = normal(count, dims), normal(codes, dims, seed=1), 3 * normal(codes, seed=2)
    expected = reference.plan(residual, centroids, potential, 0.7).sum(0)
    found = sinkhorn_step(residual, centroids, potential, 0.7)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jump", [0.1, 5.0, 60.0, 500.0])
def test_a_pass_may_follow_one_under_any_other_potential(jump):
    """Close potentials reuse the log-sums of the rows, distant ones cannot."""
    residual, centroids = skewed(500, 30)
    unit = reference.unit(residual, centroids, 0.003)
    plan = sinkhorn_chunks.ChunkedPlan(residual, centroids)
    potential = torch.zeros(30, dtype=torch.float64)
    for seed in range(4):
        found = plan.columns(potential, unit)
        expected = reference.plan(residual, centroids, potential, unit).sum(0)
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
        potential = potential + jump * normal(30, seed=seed).double()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_a_small_epsilon_is_no_danger_in_float32(scale, shift):
    residual, centroids = ((each + shift) * scale for each in skewed(800, 20))
    residual = residual.double()  # float32 would have lost, before we see it, what the shift costs
    unit = reference.unit(residual, centroids, 0.003)
    expected = reference.plan(residual, centroids, torch.zeros(20), unit).sum(0)
    found = sinkhorn_step(residual, centroids, torch.zeros(20), unit)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_items_of_any_float_type(dtype):
    residual, centroids = normal(100, 16).to(dtype), normal(20, 16, seed=1)
    expected = reference.plan(residual, centroids, torch.zeros(20), 0.7).sum(0)
    torch.testing.assert_close(sinkhorn_step(residual, centroids, torch.zeros(20), 0.7), expected, rtol=1e-4, atol=1e-5)
    assert sinkhorn_potentials(residual, centroids).error <= 0.01
    assert len(balanced_codes(residual, centroids)) == 100


@pytest.mark.parametrize("epsilon", [0.003, 0.02, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_potentials_balance_the_columns_to_the_stated_error(seed, epsilon):
    residual, centroids = skewed(2000, 12, seed)
    found = sinkhorn_potentials(residual, centroids, epsilon=epsilon, rounds=200)
    assert found.error <= 0.01 and found.rounds < 100
    assert column_error(residual, centroids, found.bias, epsilon) == pytest.approx(found.error, abs=2e-3)
    assert found.bias.dtype == torch.float64 and abs(float(found.bias.mean())) < 1e-12


def test_potentials_are_those_of_the_converged_plan():
    residual, centroids = skewed(600, 12)
    found = sinkhorn_potentials(residual, centroids, epsilon=0.05, tolerance=1e-4, rounds=200)
    unit = reference.unit(residual, centroids, 0.05)
    expected = reference.converged_potential(residual, centroids, unit, 3000) * unit / 2
    torch.testing.assert_close(found.bias, expected - expected.mean(), rtol=0, atol=1e-3 * unit)


def test_they_need_fewer_passes_than_over_relaxation():
    residual, centroids = skewed(2000, 12)
    error = reference.relaxed_error(residual, centroids, 0.003, 30)
    found = sinkhorn_potentials(residual, centroids, rounds=30)
    assert found.error <= 0.01 < error


@pytest.mark.parametrize("epsilon", [0.003, 3e-4])
def test_half_the_catalog_in_one_place_is_no_setback(epsilon):
    """Bad steps are undone, so it is no slower than plain rounds where acceleration fails."""
    residual, centroids = normal(1000, 8), normal(32, 8, seed=1)
    residual[:500] = residual[0]
    found = sinkhorn_potentials(residual, centroids, epsilon=epsilon, rounds=150)
    plain = reference.relaxed_error(residual, centroids, epsilon, 150)
    assert found.error <= max(1.3 * plain, 0.01)


def test_a_large_catalog_starts_from_a_sample(monkeypatch):
    residual, centroids = skewed(5000, 12)
    from_sample = sinkhorn_potentials(residual, centroids)
    monkeypatch.setattr(sinkhorn, "SAMPLE_ITEMS", math.inf)
    from_nothing = sinkhorn_potentials(residual, centroids)
    assert from_sample.error <= 0.01 and from_nothing.error <= 0.01
    assert from_sample.rounds < from_nothing.rounds
    assert column_error(residual, centroids, from_sample.bias, 0.003) == pytest.approx(from_sample.error, abs=2e-3)


def test_too_few_rounds_are_told():
    found = sinkhorn_potentials(*skewed(2000, 12), rounds=2)
    assert found.rounds == 2 and found.error > 0.1


def test_a_loose_tolerance_stops_early():
    loose, strict = (sinkhorn_potentials(*skewed(2000, 12), tolerance=each) for each in (0.2, 1e-3))
    assert loose.rounds < strict.rounds and strict.error <= 1e-3 < loose.error <= 0.2


def test_one_code_needs_no_bias():
    found = sinkhorn_potentials(torch.ones(5, 2), torch.zeros(1, 2))
    assert found.bias.tolist() == [0.0] and found.error < 1e-6


def test_items_all_alike_cannot_be_told_apart():
    found = sinkhorn_potentials(torch.ones(50, 3), torch.zeros(4, 3))
    assert found.error < 1e-6 and not found.bias.any()


def test_no_items():
    found = sinkhorn_potentials(torch.empty(0, 3), torch.zeros(4, 3))
    assert found.bias.tolist() == [0.0] * 4 and found.error == 0
    assert not sinkhorn_step(torch.empty(0, 3), torch.zeros(4, 3), torch.zeros(4), 1.0).any()
    assert balanced_codes(torch.empty(0, 3), torch.zeros(4, 3)).shape == (0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_item_that_is_no_number(bad):
    residual, centroids = normal(200, 3), normal(5, 3, seed=1)
    residual[150, 1] = bad
    with pytest.raises(ValueError, match="a value is not finite"):
        sinkhorn_potentials(residual, centroids)
    assert sinkhorn_step(residual, centroids, torch.zeros(5), 1.0).isnan().any()
    codes = balanced_codes(residual, centroids)
    assert codes.min() >= 0 and codes.max() < 5


def test_strides_do_not_matter():
    residual, centroids = normal(150, 40)[::2, 3:35:2], normal(16, 16, seed=1)
    expected = sinkhorn_step(residual.contiguous(), centroids, torch.zeros(16), 0.5)
    assert torch.equal(sinkhorn_step(residual, centroids, torch.zeros(16), 0.5), expected)


def test_offsets_beyond_31_bits():
    memory = torch.empty(2**31 + 2**11, dtype=torch.float16)  # the system gives a page when it is touched
    residual = memory.as_strided((3, 8), (2**30, 1))
    residual.copy_(normal(3, 8))
    expected = reference.plan(residual, normal(5, 8, seed=1), torch.zeros(5), 0.7).sum(0)
    found = sinkhorn_step(residual, normal(5, 8, seed=1), torch.zeros(5), 0.7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", [True, False], ids=["scores kept", "streamed"])
@pytest.mark.parametrize(
    ("count", "codes", "epsilon"), [(500, 16, 0.003), (500, 16, 0.05), (40, 64, 0.01), (1, 3, 0.003)]
)
def test_a_batch_gets_the_codes_of_the_relaxed_plan(monkeypatch, kept, count, codes, epsilon):
    if not kept:
        monkeypatch.setattr(sinkhorn_chunks, "DENSE_ROWS", 0)
    residual, centroids = skewed(count, codes)
    found = balanced_codes(residual, centroids, epsilon=epsilon)
    assert found.dtype == torch.int64
    agreeing = found == reference.relaxed_codes(residual, centroids, epsilon, 20)
    assert agreeing.double().mean() > 0.98


@pytest.mark.parametrize("kept", [True, False], ids=["scores kept", "streamed"])
def test_the_first_of_equal_codes(monkeypatch, kept):
    if not kept:
        monkeypatch.setattr(sinkhorn_chunks, "DENSE_ROWS", 0)
    assert balanced_codes(torch.ones(100, 2), torch.zeros(4, 2)).unique().tolist() == [0]


def test_gradients_are_no_concern():
    residual, centroids = normal(100, 4).requires_grad_(), normal(8, 4, seed=1).requires_grad_()
    assert not balanced_codes(residual, centroids).requires_grad
    assert not sinkhorn_potentials(residual, centroids).bias.requires_grad
    assert not sinkhorn_step(residual, centroids, torch.zeros(8), 1.0).requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), torch.zeros(4, 3)), r"residual: \(3, 2\) and centroids: \(4, 3\)"),
        ((torch.zeros(3, 2), torch.zeros(0, 2)), "K >= 1"),
        ((torch.zeros(3, 2, dtype=torch.int64), torch.zeros(4, 2)), "expected floating point"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    for call in (sinkhorn_potentials, balanced_codes, lambda *both: sinkhorn_step(*both, torch.zeros(4), 1.0)):
        with pytest.raises(ValueError, match=message):
            call(*arguments)


def test_choices_that_make_no_sense_are_refused():
    residual, centroids = normal(10, 2), normal(4, 2)
    for call in (sinkhorn_potentials, balanced_codes):
        with pytest.raises(ValueError, match="epsilon=0, expected a positive number"):
            call(residual, centroids, epsilon=0)
    with pytest.raises(ValueError, match=r"potential: shape \(3,\), expected \[4\]"):
        sinkhorn_step(residual, centroids, torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="backend='numpy', expected 'auto', 'triton' or 'torch'"):
        sinkhorn_step(residual, centroids, torch.zeros(4), 1.0, backend="numpy")


def test_memory_is_that_of_the_items_and_the_codes():
    """A matrix of 200,000 x 512 would take 400 MB."""
    script = (
        "import resource, torch\n"
        "from semid.kernels.sinkhorn import sinkhorn_potentials\n"
        "torch.set_num_threads(1)\n"
        "items, centroids = torch.randn(200_000, 8), torch.randn(512, 8)\n"
        "sinkhorn_potentials(items[:2000], centroids, rounds=2)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sinkhorn_potentials(items, centroids, rounds=2)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40


def test_triton_is_not_needed_on_a_cpu():
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from semid.kernels.sinkhorn import balanced_codes, sinkhorn_potentials\n"
        "from semid.kernels.kmeans_update import kmeans_update_torch\n"
        "from semid.kernels.trie_step import trie_step_torch\n"
        "balanced_codes(torch.ones(3, 2), torch.ones(2, 2)), sinkhorn_potentials(torch.ones(3, 2), torch.ones(2, 2))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_array_of_a_bias_is_what_the_encoder_adds():
    """As a bias of the scores it spreads the argmax evenly."""
    residual, centroids = skewed(6000, 16)
    bias = sinkhorn_potentials(residual, centroids, epsilon=0.003, rounds=100).bias
    scores = residual.double() @ centroids.double().T - centroids.double().square().sum(1) / 2
    plain, balanced = (np.bincount(each.argmax(1).numpy(), minlength=16) for each in (scores, scores + bias))
    assert np.abs(balanced - 375).max() < 0.15 * 375 < 0.5 * 375 < np.abs(plain - 375).max()


def test_the_accelerated_step_solves_a_linear_map_in_as_many_steps_as_it_has_dimensions():
    generator = torch.Generator().manual_seed(0)
    contraction = 0.3 * torch.randn(4, 4, generator=generator).double()
    fixed = torch.randn(4, generator=generator).double()
    potential, history = torch.zeros(4).double(), []
    for _ in range(6):
        history = [*history[-sinkhorn.MEMORY :], (potential, (contraction - torch.eye(4)) @ (potential - fixed))]
        potential = sinkhorn._accelerated(history)
    torch.testing.assert_close(potential, fixed, rtol=0, atol=1e-6)
