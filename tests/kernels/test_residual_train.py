"""`residual_quantize` without a GPU: its gradients, and what torch asks of an operator."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from semid.kernels.residual_train import residual_quantize
from semid.train import rqvae_module
from tests.kernels.residual_train_cases import agrees_with_autograd, balanced_last_codes, random_step


@given(
    batch=st.integers(1, 70),
    dims=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(0, 2**30),
    size=st.sampled_from([1e-4, 1.0, 1e4]),
    balanced=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_autograd(batch, dims, sizes, seed, size, balanced):
    latents, codebooks = random_step(batch, dims, sizes, seed=seed, size=size)
    agrees_with_autograd(latents, codebooks, balanced_last_codes(batch, sizes[-1]) if balanced else None)


def test_it_is_the_learner_s_own_quantize():
    latents, codebooks = random_step(60, 12, [16, 16, 20])
    levels = nn.ParameterList(nn.Parameter(level.detach().clone()) for level in codebooks)
    total, codebook, commitment = rqvae_module.quantize(latents, levels)
    found = residual_quantize(latents, codebooks)
    torch.testing.assert_close(tuple(found[:3]), (total, codebook, commitment), rtol=0, atol=0)
    ours = torch.autograd.grad((found.codebook + 0.25 * found.commitment).mean(), [latents, *codebooks])
    theirs = torch.autograd.grad((codebook + 0.25 * commitment).mean(), [latents, *levels])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("outputs", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_loss_may_use_any_of_the_outputs(outputs):
    latents, codebooks = random_step(20, 6, [8, 8])
    found = residual_quantize(latents, codebooks)
    gradients = torch.autograd.grad(sum(found[output].sum() for output in outputs), [latents, *codebooks])
    assert bool(gradients[0].any()) == (2 in outputs)
    assert bool(gradients[1].any()) == bool({0, 1} & set(outputs))


@pytest.mark.parametrize("balanced", [False, True])
def test_torch_accepts_the_operator(balanced):
    latents, codebooks = random_step(20, 6, [8, 9])
    last_codes = balanced_last_codes(20, 9) if balanced else None
    torch.library.opcheck(torch.ops.semid.residual_quantize, (latents, codebooks, last_codes))
    found = residual_quantize(latents, codebooks, last_codes)
    arguments = [latents, codebooks, found.codes, found.counts, None, torch.ones(2), torch.ones(2)]
    torch.library.opcheck(
        torch.ops.semid.residual_quantize_backward,
        tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in arguments),
        test_utils=("test_schema", "test_faketensor"),  # it has no gradient of its own
    )


def test_a_compiled_step_is_one_graph():
    latents, codebooks = random_step(30, 6, [8, 9])

    def loss(latents, codebooks):
        found = residual_quantize(latents * 2, codebooks)
        return found.total.square().mean() + (found.codebook + found.commitment).sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(latents, codebooks), [latents, *codebooks])
    torch.testing.assert_close(found, torch.autograd.grad(loss(latents, codebooks), [latents, *codebooks]))


def test_half_precision_latents_get_gradients_of_their_own_type():
    latents, codebooks = random_step(30, 8, [8, 8])
    half = latents.detach().bfloat16().requires_grad_()
    residual_quantize(half, codebooks).commitment.sum().backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.any()


def test_an_empty_batch():
    latents, codebooks = random_step(0, 4, [3, 3])
    found = residual_quantize(latents, codebooks)
    assert found.total.shape == (0, 4)
    assert found.codes.shape == (0, 2)
    assert found.codebook.isnan().all()  # the mean of nothing
    assert not found.counts.any()
    gradients = torch.autograd.grad(found.total.sum(), codebooks)
    assert not any(gradient.any() for gradient in gradients)


def test_nan_reaches_the_losses():
    latents, codebooks = random_step(30, 16, [20, 5])
    with torch.no_grad():
        latents[7, 3] = torch.nan
    found = residual_quantize(latents, codebooks)
    assert found.codebook.isnan().all()
    assert (found.codes < torch.tensor([20, 5])).all()


def test_what_cannot_be_quantized_is_said():
    latents, codebooks = random_step(6, 4, [3, 5])
    with pytest.raises(ValueError, match=r"latents: torch.int64 \(6, 4\), expected float"):
        residual_quantize(latents.long(), codebooks)
    with pytest.raises(ValueError, match="codebooks: none given"):
        residual_quantize(latents, [])
    with pytest.raises(ValueError, match=r"codebooks\[1\]: shape \(5, 3\), expected \[K, 4\]"):
        residual_quantize(latents, [codebooks[0], codebooks[1][:, :3]])
    with pytest.raises(ValueError, match=r"codebooks\[0\]: torch.float64 on cpu, expected float32"):
        residual_quantize(latents, [codebooks[0].double()])
    with pytest.raises(ValueError, match=r"last_codes: torch.int32 \(6,\), expected int64 \[6\]"):
        residual_quantize(latents, codebooks, torch.zeros(6, dtype=torch.int32))
    with pytest.raises(ValueError, match="last_codes: 5 given, expected codes below K=5"):
        residual_quantize(latents, codebooks, torch.full((6,), 5))
