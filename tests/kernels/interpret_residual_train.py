"""The kernels of `residual_train` under Triton's interpreter, against autograd of the formulas."""

from __future__ import annotations

import pytest
import torch

from semid.kernels import residual_train
from semid.kernels.residual_train import residual_quantize
from tests.kernels.residual_train_cases import agrees_with_autograd, balanced_last_codes, random_step

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy warns of the NaN that these tests want


@pytest.fixture(autouse=True)
def _larger_blocks(monkeypatch):
    monkeypatch.setattr(
        residual_train, "BLOCK_N", 128
    )  # the interpreter takes as long for a small block as for a large one


@pytest.mark.parametrize("batch", [1, 63, 64, 65, 257])
def test_any_batch(batch):
    agrees_with_autograd(*random_step(batch, 20, [30, 17]))


def test_a_batch_of_a_thousand(monkeypatch):
    monkeypatch.setattr(residual_train, "BLOCK_N", 512)
    agrees_with_autograd(*random_step(1000, 8, [16, 20]))


@pytest.mark.parametrize("dims", [1, 16, 33, 128, 140])
def test_any_width(dims):
    agrees_with_autograd(*random_step(40, dims, [12, 70, 5]))


def test_the_shipped_block(monkeypatch):
    monkeypatch.undo()
    agrees_with_autograd(*random_step(40, 16, [20, 20]))


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_values_outside_the_range_of_float16(size):
    agrees_with_autograd(*random_step(50, 16, [20, 20], size=size))


def test_last_codes_can_be_given():
    latents, codebooks = random_step(50, 16, [20, 24])
    last_codes = balanced_last_codes(50, 24)
    found = agrees_with_autograd(latents, codebooks, last_codes)
    given = last_codes >= 0
    assert torch.equal(found.codes[given, 1].long(), last_codes[given])


def test_any_strides():
    latents, codebooks = random_step(50, 16, [20, 24])
    turned = latents.detach().T.contiguous().T.requires_grad_()
    agrees_with_autograd(turned, codebooks)


def test_nan_reaches_the_losses_and_no_address():
    latents, codebooks = random_step(30, 16, [20, 5])
    with torch.no_grad():
        latents[7, 3] = torch.nan
    found = residual_quantize(latents, codebooks)
    assert found.codebook.isnan().all()
    assert (found.codes >= 0).all()
    assert (found.codes < torch.tensor([20, 5])).all()


def test_a_step_repeats_bit_for_bit():
    latents, codebooks = random_step(100, 16, [20, 24])
    steps = []
    for _ in range(2):
        found = residual_quantize(latents, codebooks)
        loss = found.total.square().sum() + found.codebook.sum() + found.commitment.sum()
        steps.append(torch.autograd.grad(loss, [latents, *codebooks]))
    assert all(torch.equal(*pair) for pair in zip(*steps, strict=True))
