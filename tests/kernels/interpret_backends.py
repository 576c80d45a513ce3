"""`Codebooks.encode` by Triton, under the interpreter: the codes of NumPy, biases and every dtype included."""

from __future__ import annotations

import numpy as np
import pytest

from semid.quantize.codebooks import Codebooks
from semid.train.residual_kmeans import ResidualKMeans


@pytest.fixture(scope="module")
def codebooks() -> Codebooks:
    vectors = np.random.default_rng(0).normal(size=(400, 20)).astype(np.float32)
    return ResidualKMeans(levels=3, codebook_size=32, dim=20).fit(vectors).codebooks_


def test_triton_gives_the_codes_of_numpy(codebooks):
    vectors = np.random.default_rng(1).normal(size=(300, 20)).astype(np.float32)
    expected = codebooks.encode(vectors, backend="numpy")
    np.testing.assert_array_equal(codebooks.encode(vectors, backend="triton"), expected)
    latents = codebooks.latents(vectors)
    np.testing.assert_array_equal(codebooks.encode_latents(latents, backend="triton"), expected)


def test_prices_of_codes_reach_the_kernel(codebooks):
    closed = np.where(np.arange(32) < 9, 0.0, -64.0)
    priced = Codebooks(codebooks.levels, codebooks.encoder, codebooks.decoder, (None, None, closed))
    vectors = np.random.default_rng(2).normal(size=(100, 20)).astype(np.float32)
    codes = priced.encode(vectors, backend="triton")
    assert codes[:, 2].max() < 9
    np.testing.assert_array_equal(codes, priced.encode(vectors, backend="numpy"))
