"""Beam search over codes: what is defined, exactly, on any number of threads, with Numba and without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.quantize import reference
from semid.quantize import residual_blocks as blocks
from semid.quantize.beam import beam_codes
from semid.quantize.grid import snap, snap_centroids
from semid.quantize.residual import residual_codes


def random_levels(rng, sizes, dims):
    return [snap_centroids(rng.normal(size=(size, dims)) / 2**level) for level, size in enumerate(sizes)]


def distortion(latents, levels, codes):
    quantized = sum(centroids[codes[:, level]].astype(float) for level, centroids in enumerate(levels))
    return np.square(latents - quantized).sum(axis=1)


@pytest.fixture(params=["compiled", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(blocks, "available", lambda: False)
    elif not blocks.available():
        pytest.skip("Numba is not installed")


@pytest.mark.parametrize("sizes", [(5, 7, 3), (64, 65, 63), (1, 9), (130,)], ids=str)
@pytest.mark.parametrize("width", [1, 2, 4, 11])
def test_codes_are_those_of_the_readable_reference(way, sizes, width):
    rng = np.random.default_rng(0)
    levels = random_levels(rng, sizes, 6)
    latents = snap(rng.normal(size=(40, 6)))
    np.testing.assert_array_equal(beam_codes(latents, levels, width), reference.beam_codes(latents, levels, width))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dims=st.integers(1, 5), width=st.integers(1, 6))
def test_ties_go_to_the_smallest_codes(seed, dims, width):
    """Points and centroids of a few whole numbers tie all the time."""
    rng = np.random.default_rng(seed)
    levels = [rng.integers(-1, 2, size=(6, dims)).astype(np.float32) for _ in range(3)]
    latents = rng.integers(-2, 3, size=(12, dims)).astype(float)
    np.testing.assert_array_equal(beam_codes(latents, levels, width), reference.beam_codes(latents, levels, width))


@pytest.mark.parametrize("threads", [1, 2])
def test_near_ties_are_decided_exactly_in_many_rows(threads):
    """Twin centroids one grid step apart: float32 alone cannot tell them apart at this length."""
    rng = np.random.default_rng(1)
    dims = 48
    levels = []
    for _ in range(3):
        half = snap_centroids(rng.normal(size=(16, dims)))
        twins = half.copy()
        twins[:, 0] += 2.0**-9 * np.where(half[:, 0] > 0, -1, 1)
        levels.append(snap_centroids(np.concatenate([half, twins])))
    latents = snap(4 * rng.normal(size=(3000, dims)))
    codes = beam_codes(latents, levels, 3, threads=threads)
    rows = rng.choice(len(latents), 60, replace=False)
    np.testing.assert_array_equal(codes[rows], reference.beam_codes(latents[rows], levels, 3))


def test_one_beam_is_the_greedy_code():
    rng = np.random.default_rng(2)
    levels, latents = random_levels(rng, (256, 200, 64), 16), snap(rng.normal(size=(5000, 16)))
    np.testing.assert_array_equal(beam_codes(latents, levels, 1), residual_codes(latents, levels))


def test_enough_beams_find_the_nearest_id_of_all():
    rng = np.random.default_rng(3)
    levels, latents = random_levels(rng, (6, 5, 4), 3), snap(rng.normal(size=(200, 3)))
    every = np.stack(np.unravel_index(np.arange(120), (6, 5, 4)), axis=1)
    nearest = [distortion(latent[None], levels, every).argmin() for latent in latents]
    np.testing.assert_array_equal(beam_codes(latents, levels, 30), every[nearest])


def test_wider_beams_lower_the_distortion():
    rng = np.random.default_rng(4)
    levels, latents = random_levels(rng, (32, 32, 32, 32), 12), snap(rng.normal(size=(3000, 12)))
    errors = [distortion(latents, levels, beam_codes(latents, levels, width)).mean() for width in (1, 4, 16)]
    assert errors[0] > 1.02 * errors[1] > 1.02 * errors[2]


def test_biases_are_added_to_the_scores(way):
    rng = np.random.default_rng(5)
    levels, latents = random_levels(rng, (8, 8), 4), snap(rng.normal(size=(300, 4)))
    closed = np.where(np.arange(8) < 5, 0.0, -64.0)
    codes = beam_codes(latents, levels, 3, biases=[None, closed])
    assert codes[:, 1].max() == 4
    np.testing.assert_array_equal(codes, beam_codes(latents, [levels[0], levels[1][:5]], 3))


@pytest.mark.parametrize("rows", [0, 1, 127, 128, 129])
def test_any_number_of_rows_will_do(way, rows):
    rng = np.random.default_rng(6)
    levels, latents = random_levels(rng, (16, 16), 4), snap(rng.normal(size=(rows, 4)))
    done = []
    codes = beam_codes(latents, levels, 2, advance=done.append)
    assert codes.shape == (rows, 2) and sum(done) == rows
    np.testing.assert_array_equal(codes, reference.beam_codes(latents, levels, 2).reshape(rows, 2))
