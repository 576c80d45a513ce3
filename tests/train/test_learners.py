"""Learners keep scikit-learn's conventions, survive small input, repeat themselves, and never end below their start."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted
from torch import nn

from semid.errors import ConfigError, InputError
from semid.quantize import Codebooks, FloatLayer, Network, reference
from semid.train import RQVAE, LCRecRQVAE, Learner, ResidualKMeans
from semid.train.rqvae_module import RQVAEModule, SkipMLP, quantize
from semid.train.rqvae_training import _loss, train
from tests.helpers.progress import shown_bars

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # before scikit-learn 1.6 it was a method

    def validate_data(estimator, X, **choices):
        return estimator._validate_data(X, **choices)


TINY = {
    ResidualKMeans: {"landmarks": 16},
    RQVAE: {"landmarks": 16, "epochs": 2, "hidden": 8, "device": "cpu"},
    LCRecRQVAE: {"epochs": 2, "layers": (8,), "batch_size": 64, "device": "cpu"},
}
LEARNERS = pytest.mark.parametrize("learner", TINY, ids=lambda learner: learner.__name__)


def tiny(learner, **params):
    return learner(**TINY[learner], **{"levels": 2, "codebook_size": 4, "dim": 3, **params})


def curved(seed, n_items=600, dims=12):
    """Vectors on a curved sheet, which no linear map flattens, away from the origin."""
    rng = np.random.default_rng(seed)
    turn = np.random.default_rng(7).normal(size=(6, dims))
    a, b = rng.uniform(-2, 2, (2, n_items))
    sheet = np.stack([a, b, np.sin(2 * a), np.cos(2 * b), np.sin(a * b), a * b], 1)
    return (sheet @ turn + 0.05 * rng.normal(size=(n_items, dims)) + 1).astype(np.float32)


def relative_error(books, vectors):
    left = vectors - books.reconstruct(books.encode(vectors))
    return (left**2).sum() / ((vectors - vectors.mean(0)) ** 2).sum()


# ---- scikit-learn's conventions -------------------------------------------------------------------------------------


class Adapter(TransformerMixin, BaseEstimator):
    """scikit-learn's own input checks around a learner; codes are integers whatever the dtype of the input."""

    def __init__(self, levels=2, codebook_size=4, dim=3, seed=0):
        self.levels = levels
        self.codebook_size = codebook_size
        self.dim = dim
        self.seed = seed

    def fit(self, X, y=None):
        X = validate_data(self, X)
        self.learner_ = self.learner(**self.get_params(), **TINY[self.learner]).fit(X)
        return self

    def transform(self, X):
        check_is_fitted(self)
        return self.learner_.transform(validate_data(self, X, reset=False))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _more_tags(self):  # the same before scikit-learn 1.6
        return {"preserves_dtype": []}


class ResidualKMeansAdapter(Adapter):
    learner = ResidualKMeans


class RQVAEAdapter(Adapter):
    learner = RQVAE


class LCRecAdapter(Adapter):
    learner = LCRecRQVAE


@parametrize_with_checks([ResidualKMeansAdapter(), RQVAEAdapter(), LCRecAdapter()])
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


@LEARNERS
def test_parameters_go_in_and_out_untouched(learner):
    sizes = [4, 2]
    made = learner(codebook_size=sizes, levels=2)
    assert made.get_params()["codebook_size"] is sizes
    assert set(made.get_params()) == set(vars(made))
    assert made.set_params(seed=5, dim=2) is made
    assert (made.seed, made.dim) == (5, 2)
    copy = clone(made)
    assert copy is not made and copy.get_params() == {**made.get_params(), "codebook_size": copy.codebook_size}


@LEARNERS
def test_an_unknown_parameter_is_refused_by_name(learner):
    with pytest.raises(ConfigError, match="'level' is no parameter of .*levels"):
        learner().set_params(level=3)


@LEARNERS
def test_transform_before_fit_says_so(learner):
    with pytest.raises(ConfigError, match="not fitted yet"):
        learner().transform(np.zeros((2, 2)))


def test_the_base_class_says_that_it_cannot_fit():
    with pytest.raises(TypeError, match="Learner does not say how to fit"):
        Learner().fit(np.zeros((2, 2)))


@LEARNERS
def test_fit_transform_gives_the_codes_of_transform(learner):
    vectors = curved(0, 120)
    codes = tiny(learner).fit_transform(vectors)
    made = tiny(learner).fit(vectors)
    np.testing.assert_array_equal(codes, made.transform(vectors))
    assert codes.shape == (120, 2) and codes.dtype == np.int32
    assert made.n_features_in_ == 12
    assert codes.min() >= 0 and codes.max() < 4


# ---- the same again -------------------------------------------------------------------------------------------------


def as_bytes(books):
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in books.arrays().items()}


@LEARNERS
def test_the_same_seed_gives_the_same_bytes_whatever_the_global_seeds(learner):
    vectors, found = curved(1, 300), []
    for seed in (0, 1):
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(as_bytes(tiny(learner, codebook_size=8, seed=3).fit(vectors).codebooks_))
        assert torch.equal(before, torch.get_rng_state())
    assert found[0] == found[1]
    assert found[0] != as_bytes(tiny(learner, codebook_size=8, seed=4).fit(vectors).codebooks_)


@LEARNERS
def test_the_vectors_are_left_alone(learner):
    vectors = curved(2, 250)
    kept = vectors.copy()
    tiny(learner).fit_transform(vectors)
    np.testing.assert_array_equal(vectors, kept)


@LEARNERS
def test_codebooks_come_back_from_their_arrays_with_the_same_codes(learner):
    vectors = curved(3, 250)
    books = tiny(learner, codebook_size=[3, 8]).fit(vectors).codebooks_
    again = Codebooks.from_arrays(books.arrays())
    np.testing.assert_array_equal(again.encode(vectors), books.encode(vectors))
    codes = books.encode(vectors)
    np.testing.assert_array_equal(again.reconstruct(codes), books.reconstruct(codes))
    assert as_bytes(again) == as_bytes(books)
    assert (again.sizes, again.input_dim, again.latent_dim) == ((3, 8), 12, 3)
    np.testing.assert_array_equal(books.encode(vectors, backend="torch"), codes)


def test_prices_come_back_from_their_arrays_too():
    books = tiny(ResidualKMeans).fit(curved(3, 250)).codebooks_
    priced = replace(books, biases=(None, np.arange(4) * 2.0**-20))
    again = Codebooks.from_arrays(priced.arrays())
    assert again.biases[0] is None and again.biases[1].tolist() == priced.biases[1].tolist()
    assert Codebooks.from_arrays(books.arrays()).biases == ()


# ---- small and strange input ----------------------------------------------------------------------------------------

SHAPES = {
    "one vector": np.float32([[1, -2, 3]]),
    "two vectors": np.float32([[1, -2, 3], [4, 5, 6]]),
    "fewer than K": curved(0, 3),
    "identical": np.full((50, 5), 0.3, np.float32),
    "zeros": np.zeros((50, 5), np.float32),
    "one dimension": curved(1, 70, 1),
    "one dimension, identical": np.ones((30, 1), np.float32),
    "some zero rows": np.concatenate([curved(2, 40), np.zeros((10, 12), np.float32)]),
    "tiny numbers": curved(3, 60) * np.float32(1e-30),
    "huge numbers": curved(3, 60) * np.float32(1e15),
    "whole numbers": np.arange(60).reshape(20, 3),
}


@LEARNERS
@pytest.mark.parametrize("vectors", SHAPES.values(), ids=SHAPES)
def test_any_finite_vectors_will_do(learner, vectors):
    made = tiny(learner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codes = made.fit_transform(vectors)
    assert codes.shape == (len(vectors), 2)
    books = made.codebooks_
    assert all(np.isfinite(array).all() for array in books.arrays().values())
    assert np.isfinite(books.reconstruct(codes)).all()
    same = (vectors[:, None] == vectors).all(2)
    assert (codes[:, None] == codes).all(2)[same].all()
    np.testing.assert_array_equal(books.encode(np.asarray(vectors, np.float32), backend="torch"), codes)


@pytest.mark.parametrize("learner", [ResidualKMeans, RQVAE])
@pytest.mark.parametrize("shape", ["one vector", "two vectors", "fewer than K", "identical", "zeros"])
def test_few_distinct_vectors_are_told_apart_and_met_exactly(learner, shape):
    vectors = SHAPES[shape]
    made = tiny(learner).fit(vectors)
    assert len(np.unique(made.transform(vectors), axis=0)) == len(np.unique(vectors, axis=0))
    error = np.abs(made.codebooks_.reconstruct(made.transform(vectors)) - vectors)
    assert error.max() <= 1e-3 * np.abs(vectors).max()


@LEARNERS
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.float32([[0, 1], [2, np.nan], [3, 4]]), "row 1 of the vectors holds NaN or inf"),
        (np.float32([[0, np.inf]]), "row 0 of the vectors holds NaN or inf"),
        (np.array([[1e300]]), "row 0 of the vectors holds NaN or inf"),
        (np.zeros(3), "Reshape your data"),
        (np.zeros((0, 3)), "minimum of 1 is required"),
        (np.zeros((3, 0)), "minimum of 1 is required"),
        (np.zeros((2, 20_000), np.float16), "at most 16384 columns"),
        (np.array([["a", "b"]]), "should be a real number type"),
        (np.zeros((2, 2), complex), "should be a real number type"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_vectors_that_are_no_finite_matrix_are_refused(learner, bad, message):
    with pytest.raises(InputError, match=message):
        tiny(learner).fit(bad)


@LEARNERS
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"levels": 0}, "levels=0 should be from 1 to 14"),
        ({"levels": 15}, "levels=15 should be from 1 to 14"),
        ({"codebook_size": 0}, "codebook_size=0 should be from 1 to 65536"),
        ({"codebook_size": [4, 70_000]}, "codebook_size=70000 should be from 1 to 65536"),
        ({"codebook_size": [4, 4, 4]}, "names 3 levels and levels=2"),
    ],
)
def test_impossible_sizes_are_refused(learner, params, message):
    with pytest.raises(ConfigError, match=message):
        tiny(learner, **params).fit(curved(0, 20))


@LEARNERS
def test_another_width_is_refused_at_transform(learner):
    with pytest.raises(ConfigError, match=r"should be \(N, 12\)"):
        tiny(learner).fit(curved(0, 20)).transform(np.zeros((2, 5)))


@LEARNERS
def test_a_catalog_far_from_the_origin_is_learned_as_well_as_a_centred_one(learner):
    near = curved(4, 600, 8)
    errors = []
    for offset in (0, 300):
        vectors = near + np.float32(offset)
        made = tiny(learner, codebook_size=32, dim=8).fit(vectors)
        assert np.abs(made.codebooks_.latents(vectors)).max() < 8  # none is clipped
        errors.append(relative_error(made.codebooks_, vectors))
    if learner is not LCRecRQVAE:  # two epochs from random weights learn nothing, near or far
        assert errors[1] < 1.1 * errors[0] < 0.1


@pytest.mark.parametrize("learner", [ResidualKMeans, RQVAE])
def test_levels_and_codes_lower_the_error(learner):
    vectors = curved(5, 500)
    errors = [
        relative_error(tiny(learner, dim=12, **sizes).fit(vectors).codebooks_, vectors)
        for sizes in ({"levels": 1}, {"levels": 2}, {"levels": 2, "codebook_size": 16})
    ]
    assert errors[0] > 1.2 * errors[1] > 1.4 * errors[2]


def test_the_neighbor_map_makes_near_duplicates_share_codes():
    rng = np.random.default_rng(0)
    products = rng.normal(size=(60, 12))
    which = np.repeat(np.arange(60), 20)
    vectors = (products[which] + 0.6 * rng.normal(size=(1200, 12))).astype(np.float32)

    def agreement(pull):
        codes = (
            tiny(ResidualKMeans, codebook_size=32, dim=12, pull=pull).set_params(landmarks=256).fit_transform(vectors)
        )
        return (codes[:, 0][:, None] == codes[:, 0])[which[:, None] == which].mean()

    assert agreement(2.0) > agreement(0.0) + 0.02


# ---- training -------------------------------------------------------------------------------------------------------


def test_training_lowers_the_error_of_unseen_items():
    learner = tiny(RQVAE, levels=3, codebook_size=32, dim=4, whiten=0.0, pull=0.0, anchor=0.0)
    learner.set_params(epochs=20, hidden=64, batch_size=128, weight_decay=0.01, lr=5e-3)
    done = learner.fit(curved(6, 2000)).training_
    assert done.trained_error < 0.9 * done.start_error
    assert done.epochs == 20 and 1 <= done.kept_epoch <= 20


def test_training_that_only_harms_leaves_the_start_in_place():
    vectors = curved(7, 400)
    start = tiny(RQVAE).set_params(epochs=0).fit(vectors)
    harmed = tiny(RQVAE).set_params(lr=1e3).fit(vectors)
    assert harmed.training_.kept_epoch == 0
    assert as_bytes(harmed.codebooks_) == as_bytes(start.codebooks_)


@pytest.mark.parametrize("seed", range(4))
def test_held_out_items_are_never_worse_off_than_at_the_start(seed):
    vectors = curved(seed, 400)
    learner = tiny(RQVAE, seed=seed)
    held = np.zeros(400, bool)
    held[np.random.default_rng(seed).permutation(400)[:100]] = True
    start = tiny(RQVAE, seed=seed).set_params(epochs=0).fit(vectors[~held]).codebooks_
    improved = learner._improve(start, vectors, held, float(vectors.var(0).sum()))
    assert relative_error(improved, vectors[held]) <= relative_error(start, vectors[held])
    assert (learner.training_.kept_epoch == 0) == (improved is start)


def test_too_few_items_to_hold_any_out_keep_the_start_and_say_so():
    done = tiny(RQVAE).fit(curved(0, 199)).training_
    assert np.isnan(done.start_error) and done.kept_epoch == 0


def test_a_large_catalog_is_learned_from_a_sample_and_encoded_whole():
    vectors = curved(8, 900)
    codes = tiny(RQVAE, sample=300).fit_transform(vectors)
    assert codes.shape == (900, 2)
    assert (codes != tiny(RQVAE).fit_transform(vectors)).any()


def test_progress_is_silent_unless_asked_for(capfd):
    tiny(RQVAE).fit(curved(0, 250))
    assert capfd.readouterr() == ("", "")
    with shown_bars():
        tiny(RQVAE).fit(curved(0, 250))
    assert "train" in capfd.readouterr().err


def random_network(rng, *widths, skip=True):
    def layer(inputs, outputs):
        return FloatLayer.from_float(rng.normal(size=(inputs, outputs)) / inputs**0.5, rng.normal(size=outputs))

    linear = layer(widths[0], widths[-1]) if skip else None
    return Network(linear, tuple(layer(*pair) for pair in zip(widths[:-1], widths[1:], strict=True)))


@pytest.mark.parametrize("skip", [True, False])
def test_a_network_survives_the_way_to_torch_and_back(skip):
    rng = np.random.default_rng(0)
    network = random_network(rng, 6, 5, 4, 3, skip=skip)
    module = SkipMLP(network)
    x = rng.normal(size=(10, 6)).astype(np.float32)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), network(x), atol=1e-5)
    np.testing.assert_array_equal(module.network()(x), network(x))


def test_step_0_is_the_start_in_other_units():
    vectors = curved(9, 400)
    learner = tiny(RQVAE).set_params(epochs=1, lr=0.0)
    start = tiny(RQVAE).set_params(epochs=0).fit(vectors).codebooks_
    trained = train(learner, start, vectors, np.arange(400) < 50)
    there = Codebooks.from_float(trained.encoder, trained.levels, trained.decoder, vectors)
    before, after = start.latents(vectors), there.latents(vectors)
    unit = (before * after).sum() / (before**2).sum()
    np.testing.assert_allclose(after / unit, before, atol=1e-3)
    np.testing.assert_allclose(there.levels[1] / unit, start.levels[1], atol=1e-3)
    codes = start.encode(vectors)
    assert (there.encode(vectors) == codes).mean() > 0.99
    plain = start.decoder.network(start.quantized(codes).astype(np.float32))
    np.testing.assert_allclose(there.reconstruct(codes), plain, atol=1e-2)


# ---- gradients ------------------------------------------------------------------------------------------------------


def random_quantizer(seed, batch=20, dims=3, sizes=(4, 5)):
    rng = np.random.default_rng(seed)
    latents = torch.tensor(rng.normal(size=(batch, dims)), dtype=torch.float32, requires_grad=True)
    levels = nn.ParameterList(
        nn.Parameter(torch.tensor(rng.normal(size=(size, dims)), dtype=torch.float32)) for size in sizes
    )
    return latents, levels


def test_quantize_adds_up_the_greedy_codes_and_their_losses():
    latents, levels = random_quantizer(0)
    plain = [level.detach().numpy() for level in levels]
    codes = reference.residual_codes(latents.detach().numpy(), plain)
    total, codebook, commitment = quantize(latents, levels)
    np.testing.assert_allclose(total.detach(), sum(level[codes[:, i]] for i, level in enumerate(plain)))
    losses = reference.quantization_losses(latents.detach().numpy(), plain, codes) * 3  # a mean over 3 dims there
    np.testing.assert_allclose(codebook.detach(), losses, rtol=1e-6)
    np.testing.assert_allclose(commitment.detach(), losses, rtol=1e-6)


def test_the_codebook_loss_moves_centroids_and_nothing_else():
    latents, levels = random_quantizer(1)
    plain = [level.detach().numpy() for level in levels]
    codes = reference.residual_codes(latents.detach().numpy(), plain)
    quantize(latents, levels)[1].sum().backward()
    assert latents.grad is None or not latents.grad.any()
    residual = latents.detach().numpy()
    for number, centroids in enumerate(plain):
        expected = np.zeros_like(centroids)
        np.add.at(expected, codes[:, number], 2 / 20 * (centroids[codes[:, number]] - residual))
        np.testing.assert_allclose(levels[number].grad, expected, atol=1e-12)
        residual = residual - centroids[codes[:, number]]


def test_the_commitment_loss_moves_latents_and_nothing_else():
    latents, levels = random_quantizer(2)
    plain = [level.detach().numpy() for level in levels]
    codes = reference.residual_codes(latents.detach().numpy(), plain)
    quantize(latents, levels)[2].sum().backward()
    assert all(level.grad is None or not level.grad.any() for level in levels)
    residual, expected = latents.detach().numpy(), 0
    for number, centroids in enumerate(plain):
        residual = residual - centroids[codes[:, number]]
        expected = expected + 2 / 20 * residual
    np.testing.assert_allclose(latents.grad, expected, atol=1e-12)


def test_only_the_last_level_of_a_large_enough_batch_is_balanced():
    rng = np.random.default_rng(0)
    latents = torch.tensor(rng.normal(size=(64, 2)) * [4, 1], dtype=torch.float32)
    levels = [
        torch.tensor(rng.normal(size=(4, 2)) * [4, 1], dtype=torch.float32),
        torch.tensor(rng.normal(size=(8, 2)) * 3, dtype=torch.float32),
    ]

    def parts(rows, epsilon):
        one = quantize(rows, levels[:1], epsilon=0.0)[0]
        return one, quantize(rows, levels, epsilon=epsilon)[0] - one

    def use(chosen):
        return torch.cdist(chosen, levels[1]).argmin(1).bincount(minlength=8)

    (first, plain), (still, balanced) = parts(latents, 0.0), parts(latents, 0.003)
    assert torch.equal(first, still)
    assert use(plain).max() > 16 and use(balanced).max() <= 12
    few = latents[:7]
    assert torch.equal(parts(few, 0.003)[1], parts(few, 0.0)[1])


def test_the_decoders_gradient_passes_straight_through_to_the_encoder():
    rng = np.random.default_rng(3)
    module = RQVAEModule(random_network(rng, 5, 4, 3), list(rng.normal(size=(2, 4, 3)).astype(np.float32)),
                         random_network(rng, 3, 4, 5))  # fmt: skip
    rows = torch.tensor(rng.normal(size=(10, 5)), dtype=torch.float32)
    settings = RQVAE(quant_weight=0.0, anchor=0.0, epsilon=0.0)
    loss = _loss(settings, module, rows, torch.zeros(10, 3))
    got = torch.autograd.grad(loss, list(module.encoder.parameters()))

    latents = module.encoder(rows)
    quantized = quantize(latents, module.levels)[0].detach().requires_grad_()
    error = (module.decoder(quantized) - rows).square().sum(1).mean()
    assert torch.allclose(error, loss)
    (at_decoder,) = torch.autograd.grad(error, quantized)
    expected = torch.autograd.grad(latents, list(module.encoder.parameters()), at_decoder)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("quant_weight", "anchor", "beta"), [(1.0, 0.0, 0.25), (0.5, 2.0, 0.0)])
def test_the_loss_is_the_formula(quant_weight, anchor, beta):
    rng = np.random.default_rng(4)
    levels = list(rng.normal(size=(2, 4, 3)).astype(np.float32))
    networks = random_network(rng, 5, 4, 3), random_network(rng, 3, 4, 5)
    rows, anchors = rng.normal(size=(10, 5)).astype(np.float32), rng.normal(size=(10, 3)).astype(np.float32)
    settings = RQVAE(quant_weight=quant_weight, anchor=anchor, beta=beta, epsilon=0.0)
    module = RQVAEModule(networks[0], levels, networks[1])
    got = _loss(settings, module, torch.from_numpy(rows), torch.from_numpy(anchors))

    latents = networks[0](rows)
    codes = reference.residual_codes(latents, levels)
    quantized = levels[0][codes[:, 0]] + levels[1][codes[:, 1]]
    reconstruction = ((networks[1](quantized) - rows) ** 2).sum(1).mean()
    quantization = (1 + beta) * 3 * reference.quantization_losses(latents, levels, codes).mean()
    near = ((latents - anchors) ** 2).sum(1).mean()
    np.testing.assert_allclose(got.item(), reconstruction + quant_weight * quantization + anchor * near, rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.003])
def test_quantize_is_level_by_level_autograd(epsilon):
    """What the fused operator replaces, written out."""
    latents, levels = random_quantizer(5, batch=64, dims=6, sizes=(8, 12, 16))
    weights = torch.linspace(-1, 1, 64 * 6).reshape(64, 6)

    def loss(total, codebook, commitment):
        return (weights * total).sum() + (codebook * torch.tensor([1, 2, 3])).sum() + 0.25 * commitment.sum()

    residual, total, codebook, commitment = latents, 0, [], []
    for number, centroids in enumerate(levels):
        distances = torch.cdist(residual.detach(), centroids.detach()).square()
        codes = distances.argmin(1)
        if epsilon and number == 2:
            codes = reference.balanced_codes(distances, epsilon=epsilon)
            assert (codes != distances.argmin(1)).any()
        chosen = centroids[codes]
        codebook.append((chosen - residual.detach()).square().sum(1).mean())
        commitment.append((chosen.detach() - residual).square().sum(1).mean())
        total, residual = total + chosen, residual - chosen.detach()
    expected = (total, torch.stack(codebook), torch.stack(commitment))

    got = quantize(latents, levels, epsilon=epsilon)
    torch.testing.assert_close(got, expected)
    inputs = [latents, *levels]
    gradients = (torch.autograd.grad(loss(*results), inputs) for results in (got, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_one_level_is_balanced_too():
    latents, levels = random_quantizer(6, batch=64, sizes=(8,))
    distances = torch.cdist(latents.detach(), levels[0].detach()).square()
    chosen = quantize(latents, levels, epsilon=0.003)[0]
    assert torch.equal(chosen, levels[0][reference.balanced_codes(distances)])


def test_training_can_be_watched_epoch_by_epoch_and_is_no_other_for_it():
    vectors, seen = curved(3), {}
    settings, held = tiny(RQVAE).set_params(epochs=3), np.arange(600) % 10 == 0
    start = tiny(RQVAE).set_params(epochs=0).fit(vectors).codebooks_
    kept = train(settings, start, vectors, held, callback=lambda epoch, snapshot: seen.update({epoch: snapshot()}))
    plain = train(settings, start, vectors, held)
    assert list(seen) == [0, 1, 2, 3] == [one.kept_epoch for one in seen.values()]
    for now, then, unwatched in zip(kept.levels, seen[kept.kept_epoch].levels, plain.levels, strict=True):
        np.testing.assert_array_equal(now, then)
        np.testing.assert_array_equal(now, unwatched)
    for level, centroids in zip(start.levels, seen[0].levels, strict=True):
        ratio = np.linalg.norm(centroids) / np.linalg.norm(level)
        np.testing.assert_allclose(centroids, level * ratio, atol=1e-6)


def test_large_catalogs_get_fewer_epochs_unless_told_otherwise():
    vectors = curved(3, 400)
    assert tiny(RQVAE).set_params(epochs=20, max_steps=5, batch_size=100).fit(vectors).training_.epochs == 3
    assert tiny(RQVAE).set_params(epochs=6, max_steps=None, batch_size=100).fit(vectors).training_.epochs == 6
