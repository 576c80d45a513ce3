"""`kmeans_update` under Triton's interpreter, and its plain torch form, against the formula in float64."""

from __future__ import annotations

import pytest
import torch

from semid.kernels import kmeans_update_triton
from semid.kernels.kmeans_update import kmeans_update, kmeans_update_torch
from tests.kernels import reference_kmeans as reference

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy warns of the NaN that these tests want
FORMS = pytest.mark.parametrize("step", [kmeans_update, kmeans_update_torch], ids=["triton", "torch"])


@pytest.fixture(autouse=True)
def fewer_runs(monkeypatch):
    """Split segments into fewer runs: each run is one program, which takes the interpreter milliseconds."""
    monkeypatch.setattr(kmeans_update_triton, "SPLITS", 2)


@pytest.fixture(params=["one pass", "segments"])
def both_ways(request, monkeypatch):
    """Use segments for few codes too; many codes would take the interpreter too long."""
    if request.param == "segments":
        monkeypatch.setattr(kmeans_update_triton, "ONE_HOT_CODES", 0)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def agrees(points, centroids, found, prices=None):
    """Assert that codes are the best ones to rounding, and that all else follows from the codes."""
    assert found.codes.dtype == torch.int32 and found.counts.dtype == torch.int64
    assert found.sums.dtype == found.objective.dtype == torch.float64
    assert reference.nearly_best(points, centroids, found.codes, prices).all()
    sums, counts, objective = reference.update(points, centroids, found.codes)
    assert torch.equal(found.counts, counts)
    torch.testing.assert_close(found.sums, sums, rtol=2e-6, atol=2e-6 * float(points.abs().max()))
    torch.testing.assert_close(found.objective, objective, rtol=1e-5, atol=1e-30)


@FORMS
@pytest.mark.parametrize("count", [1, 63, 64, 65, 257, 1000])
def test_any_number_of_points(step, count):
    points, centroids = normal(count, 20), normal(37, 20, seed=1)
    agrees(points, centroids, step(points, centroids))


@FORMS
@pytest.mark.parametrize(("codes", "dims"), [(1, 1), (16, 16), (100, 64), (256, 3), (20, 65), (20, 200), (270, 8)])
def test_any_shape_of_centroids(step, codes, dims):
    points, centroids = normal(150, dims), normal(codes, dims, seed=1)
    agrees(points, centroids, step(points, centroids))


@FORMS
@pytest.mark.usefixtures("both_ways")
def test_prices_are_taken_off_the_scores(step):
    points, centroids = normal(200, 6), normal(30, 6, seed=1)
    prices = 3 * torch.rand(30, generator=torch.Generator().manual_seed(2))
    found = step(points, centroids, prices=prices)
    agrees(points, centroids, found, prices)
    assert not torch.equal(found.codes, step(points, centroids).codes)


@FORMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dims", [16, 70])
def test_points_of_any_float_type(step, dtype, dims):
    points, centroids = normal(100, dims).to(dtype), normal(20, dims, seed=1)
    agrees(points.float(), centroids, step(points, centroids))


@FORMS
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e4, 1e8])
def test_float16_parts_lose_nothing_to_the_scale_of_the_data(step, scale):
    points, centroids = normal(200, 24) * scale, normal(40, 24, seed=1) * scale
    agrees(points, centroids, step(points, centroids))


@FORMS
def test_small_points_beside_large_ones_keep_their_digits(step):
    size = torch.logspace(-3, 1, 200)[:, None]
    points, centroids = normal(200, 16) * size, normal(40, 16, seed=1) * torch.logspace(-3, 1, 40)[:, None]
    agrees(points, centroids, step(points, centroids))


@FORMS
def test_the_lowest_code_wins_ties(step):
    points, centroids = ((normal(n, 5, seed=seed) * 8).round() for n, seed in ((100, 1), (40, 0)))  # sums are exact
    assert step(points, centroids.repeat(4, 1)).codes.max() < 40
    assert step(torch.zeros(3, 2), torch.tensor([[1.0, 0], [0, 1], [-1, 0]])).codes.tolist() == [0, 0, 0]


@FORMS
@pytest.mark.usefixtures("both_ways")
def test_no_points(step):
    found = step(torch.empty(0, 4), normal(5, 4))
    assert found.codes.shape == (0,) and found.objective == 0
    assert not found.sums.any() and not found.counts.any()
    assert found.sums.shape == (5, 4) and found.counts.shape == (5,)


@FORMS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dims", [4, 70])
def test_a_point_that_is_no_number_shows_in_the_objective_and_codes_stay_codes(step, bad, dims):
    points = normal(80, dims)
    points[7, 2] = bad
    found = step(points, normal(20, dims, seed=1))
    assert not found.objective.isfinite()
    assert found.codes.min() >= 0 and found.codes.max() < 20


def test_a_centroid_or_price_that_is_no_number_is_never_chosen():
    points, centroids, prices = normal(80, 4), normal(20, 4, seed=1), torch.zeros(20)
    centroids[3, 1], centroids[5, 0], prices[7] = float("nan"), float("inf"), float("nan")
    found = kmeans_update(points, centroids, prices=prices)
    assert not found.counts[[3, 5, 7]].any() and found.counts.sum() == 80


@FORMS
def test_strides_do_not_matter(step):
    wide = normal(90, 40)
    points, centroids = wide[::2, 3:35:2], normal(16, 16, seed=1)
    transposed = points.T.contiguous().T
    expected = step(points.contiguous(), centroids)
    for other in (points, transposed):
        found = step(other, centroids.T.contiguous().T)
        assert torch.equal(found.codes, expected.codes) and torch.equal(found.sums, expected.sums)


@FORMS
@pytest.mark.usefixtures("both_ways")
def test_offsets_beyond_31_bits(step):
    memory = torch.empty(2**31 + 2**11, dtype=torch.float16)  # the system gives a page when it is touched
    points = memory.as_strided((3, 8), (2**30, 1))
    points.copy_(normal(3, 8))
    centroids = normal(10, 8, seed=1)
    agrees(points.float(), centroids, step(points, centroids))


@pytest.mark.usefixtures("both_ways")
def test_the_same_call_gives_the_same_bits():
    points, centroids = normal(300, 10), normal(30, 10, seed=1)
    first, second = (kmeans_update(points, centroids) for _ in range(2))
    assert torch.equal(first.sums, second.sums) and torch.equal(first.objective, second.objective)


@pytest.mark.parametrize("limit", [5.0, torch.tensor(5.0)])
def test_a_given_limit_saves_the_measuring_and_changes_no_code(limit, monkeypatch):
    points, centroids = normal(300, 10).clamp(-5, 5), normal(30, 10, seed=1)
    expected = kmeans_update(points, centroids)
    monkeypatch.setattr(kmeans_update_triton, "largest_value", None)
    agrees(points, centroids, kmeans_update(points, centroids, limit=limit))
    assert torch.equal(kmeans_update(points, centroids, limit=limit).codes, expected.codes)


def test_many_launches_add_up(monkeypatch):
    points, centroids = normal(400, 10), normal(30, 10, seed=1)
    monkeypatch.setattr(kmeans_update_triton, "PROGRAMS", 2)
    monkeypatch.setattr(kmeans_update_triton, "TILES", 1)
    agrees(points, centroids, kmeans_update(points, centroids))


@FORMS
@pytest.mark.parametrize(
    ("points", "centroids", "prices", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 3), None, r"points: \(3, 2\) and centroids: \(4, 3\), expected \[N, D\]"),
        (torch.zeros(3, 2), torch.zeros(0, 2), None, "K >= 1"),
        (torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(3), r"prices: shape \(3,\), expected \[4\]"),
        (torch.zeros(3, 2, dtype=torch.int32), torch.zeros(4, 2), None, "points: torch.int32"),
    ],
)
def test_what_does_not_fit_is_refused(step, points, centroids, prices, message):
    with pytest.raises(ValueError, match=message):
        step(points, centroids, prices=prices)


def test_more_dims_than_the_kernels_take_are_refused():
    with pytest.raises(ValueError, match="D=1025, expected at most 1024"):
        kmeans_update(torch.zeros(2, 1025), torch.zeros(2, 1025))
