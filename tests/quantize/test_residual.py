"""The codes of a vector are defined, and every way to compute them gives those."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from threadpoolctl import threadpool_limits

from semid.errors import ConfigError
from semid.quantize import Codebooks, Decoder, Encoder, FloatLayer, Network, reference
from semid.quantize import residual_blocks as blocks
from semid.quantize.grid import ExactLayer, snap, snap_centroids
from semid.quantize.residual import CHUNK, residual_codes, stays_on_float32

BACKENDS = ["numpy", "torch"]
THREADS = [1, pytest.param(2, marks=pytest.mark.slow)]  # two threads crawl where the cores are shared


def exact_codes(latents, levels, biases=None):
    """The definition, in Python's unbounded integers: units of 2^-20 for vectors, 2^-40 for squares."""
    codes = np.zeros((len(latents), len(levels)), np.int32)
    whole = [[[int(v * 2**20) for v in centroid] for centroid in level.tolist()] for level in levels]
    for row, latent in enumerate(latents.tolist()):
        residual = [int(v * 2**20) for v in latent]
        for level, centroids in enumerate(whole):
            costs = [sum((r - c) ** 2 for r, c in zip(residual, centroid, strict=True)) for centroid in centroids]
            if biases and biases[level] is not None:
                costs = [cost - int(b * 2**41) for cost, b in zip(costs, biases[level].tolist(), strict=True)]
            codes[row, level] = costs.index(min(costs))
            residual = [r - c for r, c in zip(residual, centroids[codes[row, level]], strict=True)]
    return codes


def float64_codes(latents, levels):
    """The definition again, where float64 is exact because everything lies on the grid."""
    residual, codes = latents.copy(), []
    for centroids in levels:
        wide = centroids.astype(np.float64)
        codes.append((residual @ wide.T - (wide**2).sum(1) / 2).argmax(1))
        residual -= wide[codes[-1]]
    return np.stack(codes, 1)


def float32_codes(latents, levels):
    """What one would write without thinking of ties."""
    residual, codes = latents.astype(np.float32), []
    for centroids in levels:
        codes.append((residual @ centroids.T - (centroids**2).sum(1) / 2).argmax(1))
        residual -= centroids[codes[-1]]
    return np.stack(codes, 1)


def random_levels(rng, sizes, dims, spread=1.0):
    return [snap_centroids(rng.normal(size=(size, dims)) * spread / 2**level) for level, size in enumerate(sizes)]


def near_ties(rng, levels, count):
    """Latents a grid step or less from half-way between two neighboring centroids of a level chosen at random."""
    rows = np.zeros((count, levels[0].shape[1]))
    depth = rng.integers(0, len(levels), count)
    for level, centroids in enumerate(levels):
        wide = centroids.astype(np.float64)
        gaps = ((wide[:, None] - wide) ** 2).sum(2) + np.diag(np.full(len(wide), np.inf))
        one = rng.integers(0, len(wide), count)
        rows += np.where((depth > level)[:, None], wide[one], 0)
        rows += np.where((depth == level)[:, None], (wide[one] + wide[gaps.argmin(1)[one]]) / 2, 0)
    rows[np.arange(count), rng.integers(0, rows.shape[1], count)] += rng.integers(-1, 2, count) * 2.0**-20
    return snap(rows)


def plain_codebooks(levels, biases=()):
    """Codebooks whose encoder is the identity."""
    dims = levels[0].shape[1]
    eye = ExactLayer.from_float(np.eye(dims), np.zeros(dims))
    decoder = Decoder(Network(FloatLayer.from_float(np.eye(dims), np.zeros(dims))))
    return Codebooks(tuple(levels), Encoder(1.0, Network(eye)), decoder, tuple(biases))


@pytest.fixture(scope="module")
def hard():
    """100,000 latents, four tenths of them constructed near-ties, with their codes by definition."""
    rng = np.random.default_rng(0)
    levels = random_levels(rng, (256, 256, 64), 16)
    latents = np.concatenate([snap(rng.normal(size=(60_000, 16))), near_ties(rng, levels, 40_000)])
    rng.shuffle(latents)
    assert stays_on_float32(levels)
    return latents, levels, float64_codes(latents, levels)


def test_the_near_ties_are_hard_enough_to_fool_float32(hard):
    latents, levels, expected = hard
    assert (float32_codes(latents, levels) != expected).any(axis=1).sum() > 100


def test_the_definition_in_float64_is_the_one_in_integers(hard):
    latents, levels, expected = hard
    fooled = (float32_codes(latents, levels) != expected).any(axis=1)
    rows = np.flatnonzero(fooled)[:40]
    np.testing.assert_array_equal(exact_codes(latents[rows], levels), expected[rows])


@pytest.mark.parametrize("threads", THREADS)
def test_numpy_agrees_with_the_definition_on_100_000_vectors(hard, threads):
    latents, levels, expected = hard
    with threadpool_limits(threads):
        np.testing.assert_array_equal(plain_codebooks(levels).encode(latents), expected)


@pytest.mark.parametrize("threads", THREADS)
def test_torch_agrees_with_the_definition_on_100_000_vectors(hard, threads):
    latents, levels, expected = hard
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        np.testing.assert_array_equal(plain_codebooks(levels).encode(latents, backend="torch"), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("product", get_args(blocks.Product))
def test_every_product_gives_the_codes_of_the_definition(hard, product, threads):
    latents, levels, expected = hard
    codes = np.full(expected.shape, -1, np.int32)
    laid_out = [blocks.make_level(centroids, None, product) for centroids in levels]
    unsure, left = blocks.assign_rows(latents, laid_out, product, codes, threads=threads)
    np.testing.assert_array_equal(codes, expected)
    assert unsure > 10_000  # the near-ties were seen
    quantized = sum(centroids[expected[:, level]].astype(float) for level, centroids in enumerate(levels))
    np.testing.assert_allclose(left[-1], np.square(latents - quantized).sum(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize("product", get_args(blocks.Product))
def test_any_number_of_codes_and_rows_will_do_for_every_product(product):
    rng = np.random.default_rng(6)
    for rows, sizes in ((1, (2, 3)), (7, (5, 33)), (1500, (70, 4, 129))):
        levels = random_levels(rng, sizes, 3)
        latents = np.concatenate([near_ties(rng, levels, rows - rows // 2), snap(rng.normal(size=(rows // 2, 3)))])
        codes = np.full((rows, len(sizes)), -1, np.int32)
        laid_out = [blocks.make_level(centroids, None, product) for centroids in levels]
        blocks.assign_rows(latents, laid_out, product, codes, threads=1)
        np.testing.assert_array_equal(codes, float64_codes(latents, levels))


@pytest.mark.parametrize("product", get_args(blocks.Product))
def test_no_product_is_further_off_than_its_bound(product):
    """In bfloat16 1 + 2^-8 lies half-way between two numbers: nothing is rounded further, as a factor or as a sum."""
    rng = np.random.default_rng(7)
    half_way, sums = np.full((1, 8), 1 + 2.0**-8), np.eye(8)[:1] + 2.0**-8 * np.eye(8)[1:2]
    ones = np.eye(8)[:1] + np.eye(8)[1:2]
    for rows, centroids in (
        (half_way - 2.0**-20, np.concatenate([half_way, -half_way])),
        (sums, np.concatenate([ones, -ones])),
        (snap(rng.normal(size=(500, 8))), snap_centroids(rng.normal(size=(61, 8)))),
    ):
        error, bound, product_of_norms = error_and_bound(product, rows.astype(np.float32), centroids.astype(np.float32))
        assert (error <= bound).all()
        if product == "bfloat16" and len(rows) == 1:
            assert error[0] >= 0.7 * 2.0**-8 * product_of_norms[0]  # it does get that bad


def error_and_bound(product, rows, centroids):
    """Of each row, the largest error of a score as a block computes it, what the level allows, and |r| max |c|."""
    level = blocks.make_level(centroids, None, product)
    block = blocks._Block(len(rows), rows.shape[1], product)
    block.assign(rows, [level], np.zeros((len(rows), 1), np.int32), np.zeros(1))
    tile, _ = block._tile(len(level.offsets))
    scores = (tile.astype(np.int32) << 16).view(np.float32) if product == "bfloat16" else tile
    rounded = torch.from_numpy(rows).bfloat16().double().numpy() if product == "bfloat16" else rows
    norms, lost = np.linalg.norm(rows, axis=1), np.linalg.norm(rows - rounded.astype(float), axis=1)
    error = np.abs(scores[: len(centroids)] - centroids.astype(float) @ rows.T.astype(float)).max(axis=0)
    slope, error_slope, floor = (float(part) for part in level.bound)
    return error, slope * norms + error_slope * lost + floor, norms * np.linalg.norm(centroids, axis=1).max()


def test_without_numba_the_codes_are_the_same(hard, monkeypatch):
    latents, levels, expected = (hard[0][:20_000], hard[1], hard[2][:20_000])
    monkeypatch.setattr(blocks, "available", lambda: False)
    np.testing.assert_array_equal(residual_codes(latents, levels), expected)


def test_settings_that_coarsen_torch_products_change_no_code(hard):
    latents, levels, expected = (hard[0][:20_000], hard[1], hard[2][:20_000])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for backend in BACKENDS:
            np.testing.assert_array_equal(plain_codebooks(levels).encode(latents, backend=backend), expected)
    torch.set_float32_matmul_precision("medium")
    try:
        for backend in BACKENDS:
            np.testing.assert_array_equal(plain_codebooks(levels).encode(latents, backend=backend), expected)
    finally:
        torch.set_float32_matmul_precision("highest")


GRID_POINT = st.integers(-(2**23), 2**23).map(lambda n: n * 2.0**-20)
# Few values, so that equal distances are common.
COARSE = st.integers(-4, 4).map(float)


@given(
    arrays(np.float64, (5, 2), elements=st.one_of(COARSE, COARSE.map(lambda v: v / 2), GRID_POINT)),
    st.lists(arrays(np.float32, (4, 2), elements=COARSE), min_size=1, max_size=3),
)
def test_exact_ties_go_to_the_lowest_code(latents, levels):
    expected = exact_codes(latents, levels)
    np.testing.assert_array_equal(residual_codes(latents, levels), expected)
    np.testing.assert_array_equal(plain_codebooks(levels).encode(latents, backend="torch"), expected)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 7, 33]), st.integers(1, 4), st.integers(1, 9))
def test_codes_equal_the_integer_definition_near_ties(seed, dims, n_levels, size):
    rng = np.random.default_rng(seed)
    levels = random_levels(rng, (size + 1,) * n_levels, dims)
    latents = near_ties(rng, levels, 12)
    np.testing.assert_array_equal(residual_codes(latents, levels), exact_codes(latents, levels))


def test_codes_equal_the_readable_reference():
    rng = np.random.default_rng(1)
    levels = random_levels(rng, (9, 16, 4), 5)
    latents = snap(rng.normal(size=(200, 5)))
    np.testing.assert_array_equal(residual_codes(latents, levels), reference.residual_codes(latents, levels))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_far_reaching_levels_take_the_float64_path_and_agree(backend):
    rng = np.random.default_rng(2)
    levels = [snap_centroids(rng.uniform(-4, 4, (8, 3))) for _ in range(4)]
    assert not stays_on_float32(levels)
    latents = snap(rng.uniform(-8, 8, (50, 3)))
    kept = latents.copy()
    got = plain_codebooks(levels).encode(latents, backend=backend)
    np.testing.assert_array_equal(got, exact_codes(latents, levels))
    residual_codes(latents, levels)
    np.testing.assert_array_equal(latents, kept)


@given(st.integers(0, 2**32))
def test_biases_are_added_to_the_scores(seed):
    rng = np.random.default_rng(seed)
    levels = random_levels(rng, (6, 6), 3)
    biases = [None, np.rint(rng.normal(size=6) * 2.0**24) * 2.0**-26]
    latents = near_ties(rng, levels, 10)
    expected = exact_codes(latents, levels, biases)
    np.testing.assert_array_equal(residual_codes(latents, levels, biases=biases), expected)
    np.testing.assert_array_equal(plain_codebooks(levels, biases).encode(latents, backend="torch"), expected)


def test_biases_that_close_a_gap_make_exact_ties():
    centroids = np.float32([[0.0], [1.0]])
    bias = np.array([0.0, 0.25])  # moves the border from 1/2 to 1/4
    latents = np.array([[0.25], [0.25 + 2.0**-20], [0.25 - 2.0**-20]])
    assert residual_codes(latents, [centroids], biases=[bias])[:, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("rows", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_any_number_of_rows_will_do(backend, rows):
    rng = np.random.default_rng(3)
    levels = random_levels(rng, (4, 1, 3), 2)
    latents = snap(rng.normal(size=(rows, 2)))
    done = []
    got = plain_codebooks(levels).encode(latents, backend=backend, advance=done.append)
    assert got.shape == (rows, 3) and got.dtype == np.int32
    np.testing.assert_array_equal(got, float64_codes(latents, levels))
    assert (got[:, 1] == 0).all()
    assert sum(done) >= rows and (rows > 0) == bool(done)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_layout_and_type_of_the_vectors_change_nothing(backend):
    rng = np.random.default_rng(4)
    books = plain_codebooks(random_levels(rng, (16, 16), 6))
    vectors = rng.normal(size=(40, 6)).astype(np.float16)
    expected = books.encode(vectors.astype(np.float64), backend=backend)
    wide = np.zeros((80, 12), np.float32)
    wide[::2, ::2] = vectors
    frozen = vectors.astype(np.float32)
    frozen.flags.writeable = False
    for same in (vectors, vectors.astype(np.float32), np.asfortranarray(vectors), wide[::2, ::2], frozen):
        np.testing.assert_array_equal(books.encode(same, backend=backend), expected)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_zero_rows_get_the_code_of_the_origin(backend):
    levels = [np.float32([[1, 1], [0.5, 0], [0, 0.5]]), np.float32([[0, 0], [-0.5, 0]])]
    assert plain_codebooks(levels).encode(np.zeros((2, 2)), backend=backend).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_vectors_of_another_width_are_refused(backend):
    books = plain_codebooks([np.zeros((1, 3), np.float32)])
    for wrong in (np.zeros((2, 4)), np.zeros(3)):
        with pytest.raises(ConfigError, match=r"should be \(N, 3\)"):
            books.encode(wrong, backend=backend)


def test_an_encoder_with_hidden_layers_gives_both_backends_the_same_codes():
    rng = np.random.default_rng(5)
    layers = [FloatLayer.from_float(rng.normal(size=shape) / 4, rng.normal(size=shape[1])) for shape in
              ((12, 40), (40, 30), (30, 5), (12, 5))]  # fmt: skip
    sample = rng.normal(size=(500, 12)) + 3
    for network in (Network(layers[3], tuple(layers[:3])), Network(None, tuple(layers[:3])), Network(layers[3])):
        encoder = Encoder.from_float(network, sample)
        latents = encoder(sample)
        stretch = np.abs(latents).max() / np.abs(network(sample)).max()
        np.testing.assert_allclose(latents / stretch, network(sample), atol=2e-3 * np.abs(network(sample)).max())
        levels = [snap_centroids(latents[:16]), snap_centroids(latents[16:32] / 4)]
        books = Codebooks(tuple(levels), encoder, plain_codebooks(levels).decoder)
        np.testing.assert_array_equal(books.encode(sample, backend="torch"), books.encode(sample))


def test_a_few_rows_wait_for_no_library():
    script = (
        "import sys, numpy as np\n"
        "from semid.quantize.residual import residual_codes\n"
        "levels = [np.float32([[0, 0], [1, 1]])]\n"
        "assert residual_codes(np.array([[0.75, 1.0], [0.25, 0.0]]), levels).tolist() == [[1], [0]]\n"
        "assert not {'numba', 'torch', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
