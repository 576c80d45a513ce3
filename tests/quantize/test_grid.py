"""Sums on the grid are exact: their order, their batch and their library cannot matter."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semid.quantize import grid
from semid.quantize.checks import MAX_LEVELS
from semid.quantize.grid import ExactLayer, power_of_two_scale, snap, snap_centroids

UNIT = Fraction(1, 2**grid.LATENT_BITS)
ON_GRID = st.integers(-(2**23), 2**23)  # a latent in units of 2^-20
FLOATS = st.floats(-1e6, 1e6)


def rounded(value: Fraction, limit: Fraction = Fraction(8)) -> Fraction:
    """To the 2^-20 grid, half to even, then clipped: Python's own rounding of fractions."""
    return max(-limit, min(limit, round(value / UNIT) * UNIT))


@pytest.mark.parametrize("exponent", range(29))
def test_the_largest_sum_of_a_layer_fits_into_53_bits(exponent):
    x = int(grid.LATENT_LIMIT) << grid.LATENT_BITS
    bias = (1 << (32 - exponent)) << (grid.LATENT_BITS + exponent)
    assert x * grid.WEIGHT_LIMIT * grid.MAX_INPUT_DIM + bias <= 2**53


@pytest.mark.parametrize("levels", range(1, MAX_LEVELS + 1))
def test_the_largest_score_of_a_level_fits_into_53_bits(levels):
    dims = 4096
    c = int(grid.CENTROID_LIMIT) << grid.CENTROID_BITS
    r = (int(grid.LATENT_LIMIT) + int(grid.CENTROID_LIMIT) * (levels - 1)) << grid.LATENT_BITS
    finer = grid.LATENT_BITS - grid.CENTROID_BITS - 1  # from the grid of |c|^2 / 2 to that of r . c
    assert r * c * dims + (c * c * dims << finer) <= 2**53


@given(FLOATS)
def test_snap_is_the_nearest_grid_point_half_to_even(value):
    assert Fraction(float(snap(np.array([value]))[0])) == rounded(Fraction(value))


@pytest.mark.parametrize(("halves", "even"), [(1, 0), (3, 2), (-1, 0), (-3, -2), (5, 2)])
def test_snap_takes_ties_to_even(halves, even):
    assert snap(np.array([halves * 2.0**-21]))[0] == even * 2.0**-20


@given(arrays(np.float64, (3, 4), elements=FLOATS))
def test_snapping_again_changes_nothing(values):
    np.testing.assert_array_equal(snap(snap(values)), snap(values))
    np.testing.assert_array_equal(snap_centroids(snap_centroids(values)), snap_centroids(values))


def test_snap_leaves_its_argument_alone():
    values = np.full(3, 0.1)
    snap(values)
    assert (values == 0.1).all()


@given(arrays(np.float64, 8, elements=st.floats(-6, 6)))
def test_centroids_are_exact_float16_on_their_grid(values):
    got = snap_centroids(values)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.astype(np.float16).astype(np.float32), got)
    assert (got * 2.0**13 == np.rint(got * 2.0**13)).all()
    inside = np.clip(values, -4, 4)
    assert (np.abs(got - inside) <= np.abs(inside) * 2.0**-11 + 2.0**-14).all()


def test_snapping_centroids_costs_under_a_thousandth_of_a_percent():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20_000, 8))
    centroids = points[:256] * 0.9
    nearest = ((points**2).sum(1)[:, None] + (centroids**2).sum(1) - 2 * points @ centroids.T).argmin(1)
    errors = [((points - some[nearest]) ** 2).sum() for some in (centroids, snap_centroids(centroids))]
    assert abs(errors[1] / errors[0] - 1) < 1e-5


@given(
    arrays(np.float64, 5, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.sampled_from([4.0, 8.0, 32767.0]),
)
def test_the_scale_is_the_largest_power_of_two_that_fits(values, limit):
    scale = power_of_two_scale(values, limit)
    peak = np.abs(values).max()
    assert np.frexp(scale)[0] == 0.5
    if peak == 0:
        assert scale == 1
    else:
        assert Fraction(scale) * Fraction(peak) <= Fraction(limit) * (1 + Fraction(1, 2**52))
        assert 2 * Fraction(scale) * Fraction(peak) > Fraction(limit)


def test_the_scale_is_not_rounded_up_just_below_a_power_of_two():
    assert power_of_two_scale(np.array([np.nextafter(2.0**12, np.inf)]), 4.0) == 2.0**-11


@given(
    arrays(np.int64, (2, 6), elements=ON_GRID),
    arrays(np.float64, (6, 3), elements=st.floats(-100, 100, width=32)),
    arrays(np.float64, 3, elements=st.floats(-1000, 1000)),
)
def test_a_layer_is_its_fractions_rounded_once(x, weight, bias):
    layer = ExactLayer.from_float(weight, bias)
    got = layer(x * 2.0**-20)
    for row, column in np.ndindex(got.shape):
        products = (
            int(a) * UNIT * int(w) / 2**layer.exponent for a, w in zip(x[row], layer.weight[:, column], strict=True)
        )
        assert Fraction(got[row, column]) == rounded(sum(products) + Fraction(layer.bias[column]))


def test_neither_the_order_of_the_sum_nor_the_batch_changes_a_bit():
    rng = np.random.default_rng(0)
    x = snap(rng.uniform(-8, 8, (257, 3000)))
    layer = ExactLayer.from_float(rng.normal(size=(3000, 7)) * 0.02, rng.normal(size=7))
    expected = layer(x)
    assert (np.abs(expected) < 8).mean() > 0.5
    for _ in range(5):
        order = rng.permutation(3000)
        shuffled = ExactLayer(np.ascontiguousarray(layer.weight[order]), layer.bias, layer.exponent)
        np.testing.assert_array_equal(shuffled(x[:, order]), expected)
    for size in (1, 2, 100):
        parts = [layer(x[start : start + size]) for start in range(0, len(x), size)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_a_float32_layer_does_depend_on_the_order():  # what the grid is for
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(64, 3000)).astype(np.float32), rng.normal(size=(3000, 7)).astype(np.float32)
    order = rng.permutation(3000)
    assert (x @ weight != x[:, order] @ weight[order]).any()


@given(arrays(np.float64, (4, 3), elements=st.floats(-1000, 1000)))
def test_a_rounded_weight_is_within_half_a_step(weight):
    layer = ExactLayer.from_float(weight, np.zeros(3))
    assert layer.weight.dtype == np.int16
    assert (np.abs(layer.float_weight - weight) <= 2.0 ** -(layer.exponent + 1)).all()


@pytest.mark.parametrize("offset", [0.0, 30.0, -1000.0])
def test_a_bias_may_cancel_a_large_product(offset):
    x = snap(np.array([[4.0], [4.0 + 2.0**-10]]))
    layer = ExactLayer.from_float(np.array([[offset]]), np.array([1.0 - 4 * offset]))
    np.testing.assert_allclose(layer(x)[:, 0], [1.0, 1.0 + offset * 2.0**-10], rtol=0, atol=2.0**-20)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-5, 1.0, 1e5, 1e30])
def test_the_exponent_stays_where_the_sums_were_shown_to_fit(size):
    layer = ExactLayer.from_float(np.array([[size, -size / 3]]), np.array([1e30, -1e30]))
    assert 0 <= layer.exponent <= 28
    assert (np.abs(layer.bias) <= 2.0 ** (32 - layer.exponent)).all()
    assert np.abs(layer.weight).max() <= grid.WEIGHT_LIMIT
