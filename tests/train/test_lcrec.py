"""LC-Rec's recipe is what its formulas say, and what it learns survives the way to codebooks."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional

from semid.errors import ConfigError
from semid.quantize import Codebooks, reference
from semid.train import LCRecRQVAE, lcrec_training
from semid.train.lcrec_training import LCRecModule, folded, perceptron, train
from semid.train.sinkhorn import lcrec_sinkhorn
from tests.benchmarks.lcrec_plain import train_plain

BATCH_NORM = pytest.mark.parametrize("batch_norm", [False, True])


def small(**params):
    settings = {"levels": 2, "codebook_size": 8, "dim": 4, "layers": (16, 8), "epochs": 4, "warmup_epochs": 1}
    return LCRecRQVAE(**{**settings, "batch_size": 64, "eval_every": 1, "device": "cpu", **params})


def sheet(seed, n_items=300, dims=10):
    rng = np.random.default_rng(seed)
    turn = np.random.default_rng(1).normal(size=(5, dims))
    a, b = rng.uniform(-2, 2, (2, n_items))
    return (np.stack([a, b, np.sin(2 * a), np.cos(2 * b), a * b], 1) @ turn).astype(np.float32)


def random_module(seed, *, batch_norm=False, sizes=(4, 5)):
    """A module with codebooks and running statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = LCRecModule([6, 16, 8, 3], sizes, batch_norm=batch_norm)
        for one in module.modules():
            if isinstance(one, nn.BatchNorm1d):
                nn.init.normal_(one.weight)
                nn.init.normal_(one.bias)
                one.running_mean.normal_()
                one.running_var.uniform_(0.5, 2.0)
        for level in module.levels:
            nn.init.normal_(level, std=0.5)
    return module


def test_the_defaults_are_the_published_ones():
    published = LCRecRQVAE().get_params()
    assert published["layers"] == (2048, 1024, 512, 256, 128, 64)
    expected = {
        "levels": 4, "codebook_size": 256, "dim": 32, "epochs": 10_000, "batch_size": 1024, "lr": 1e-3,
        "weight_decay": 1e-4, "warmup_epochs": 50, "beta": 0.25, "quant_weight": 1.0, "epsilon": 0.003,
        "iterations": 50, "eval_every": 50, "seed": 2024,
    }  # fmt: skip
    assert {name: published[name] for name in expected} == expected


@BATCH_NORM
def test_layers_come_in_the_published_order(batch_norm):
    inner = [nn.Linear, nn.BatchNorm1d, nn.ReLU] if batch_norm else [nn.Linear, nn.ReLU]
    modules = perceptron([6, 5, 4, 3], batch_norm=batch_norm)
    assert [type(module) for module in modules] == [*inner, *inner, nn.Linear]
    module = LCRecModule([6, 5, 4, 3], (2,), batch_norm=batch_norm)
    widths = [tuple(one.weight.shape[::-1]) for one in module.decoder if isinstance(one, nn.Linear)]
    assert widths == [(3, 4), (4, 5), (5, 6)]


def test_weights_start_xavier_normal_and_biases_zero():
    torch.manual_seed(0)
    linear = perceptron([400, 600], batch_norm=False)[0]
    assert not linear.bias.any()
    np.testing.assert_allclose(linear.weight.std().item(), (2 / 1000) ** 0.5, rtol=0.01)


def test_quantize_gives_the_nearest_codes_and_the_mean_of_the_levels_losses():
    module = random_module(0)
    latents = torch.randn(20, 3)
    plain = [level.detach().numpy() for level in module.levels]
    expected = reference.residual_codes(latents.numpy(), plain)
    total, loss, codes = module.quantize(latents, beta=0.25)
    np.testing.assert_array_equal(codes, expected)
    chosen = sum(level[expected[:, i]] for i, level in enumerate(plain))
    np.testing.assert_allclose(total.detach(), chosen, atol=1e-6)
    losses = reference.quantization_losses(latents.numpy(), plain, expected)
    np.testing.assert_allclose(loss.item(), 1.25 * losses.mean(), rtol=1e-6)


def test_the_last_level_follows_the_sinkhorn_plan_of_the_batch():
    module = random_module(1)
    latents = torch.randn(40, 3)
    plain = [level.detach().numpy() for level in module.levels]
    first = reference.residual_codes(latents.numpy(), plain[:1])[:, 0]
    left = latents.numpy() - plain[0][first]
    distances = ((left[:, None].astype(np.float64) - plain[1]) ** 2).sum(2)
    codes = module.quantize(latents, beta=0.25, epsilon=0.003)[2].numpy()
    np.testing.assert_array_equal(codes[:, 0], first)
    np.testing.assert_array_equal(codes[:, 1], lcrec_sinkhorn(distances, 0.003, 50).argmax(1))
    assert (codes[:, 1] != distances.argmin(1)).any()


def test_gradients_are_those_of_the_published_straight_through():
    """Codebooks feel their own loss; the latents feel the decoder, and the commitment of the first level only."""
    module = random_module(2)
    latents = torch.randn(20, 3, requires_grad=True)
    plain = [level.detach().numpy() for level in module.levels]
    pull = torch.randn(20, 3)
    total, loss, codes = module.quantize(latents, beta=0.25)
    (loss + (total * pull).sum()).backward()
    residual, n_values, n_levels = latents.detach().numpy(), 20 * 3, 2
    first = 2 * 0.25 / n_values / n_levels * (residual - plain[0][codes[:, 0]])
    np.testing.assert_allclose(latents.grad, pull.numpy() + first, rtol=1e-5, atol=1e-6)
    for number, centroids in enumerate(plain):
        expected = np.zeros_like(centroids)
        chosen = centroids[codes[:, number]]
        np.add.at(expected, codes[:, number].numpy(), 2 / n_values / n_levels * (chosen - residual))
        np.testing.assert_allclose(module.levels[number].grad, expected, rtol=1e-5, atol=1e-8)
        residual = residual - chosen


def test_the_loss_adds_reconstruction_and_weighted_quantization():
    module = random_module(3)
    rows = torch.randn(20, 6)
    total, quantization, _ = module.quantize(module.encoder(rows), beta=0.5)
    expected = functional.mse_loss(module.decoder(total), rows) + 0.7 * quantization
    got = lcrec_training._loss(small(beta=0.5, quant_weight=0.7, epsilon=0.0), module, rows)
    torch.testing.assert_close(got, expected)


def test_codebooks_start_as_k_means_of_the_first_batch_level_by_level():
    latents = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    module = LCRecModule([6, 3], (16, 8), batch_norm=False)
    assert not any(level.any() for level in module.levels)
    module.start(torch.from_numpy(latents), seed=5)
    first, second = (level.detach().numpy() for level in module.levels)
    expected = KMeans(16, max_iter=100, random_state=5).fit(latents.astype(np.float64)).cluster_centers_
    np.testing.assert_allclose(first, expected, atol=1e-6)
    left = latents - first[reference.residual_codes(latents, [first])[:, 0]]
    error = ((left - second[reference.residual_codes(left, [second])[:, 0]]) ** 2).sum()
    assert error <= 1.01 * KMeans(8, max_iter=100, random_state=6).fit(left).inertia_


def spied_start(monkeypatch):
    """Records how many latents the codebooks start from."""
    seen, plain = [], LCRecModule.start

    def start(module, latents, seed):
        seen.append(len(latents))
        plain(module, latents, seed)

    monkeypatch.setattr(LCRecModule, "start", start)
    return seen


def test_training_starts_from_the_first_batch_once(monkeypatch):
    seen = spied_start(monkeypatch)
    small().fit(sheet(0))
    assert seen == [64]


@BATCH_NORM
def test_a_batch_smaller_than_the_codebook_is_reported_and_all_rows_start_it(monkeypatch, caplog, batch_norm):
    seen = spied_start(monkeypatch)
    with caplog.at_level(logging.WARNING, "semid"):
        small(batch_size=16, codebook_size=32, batch_norm=batch_norm).fit(sheet(0, 97))  # 97 = 6 x 16 + 1
    assert seen == [97]
    assert "batch_size=16 is below codebook_size=32" in caplog.text
    assert "all 97 rows" in caplog.text


def test_a_small_catalog_in_one_batch_is_nothing_to_report(caplog):
    with caplog.at_level(logging.WARNING, "semid"):
        small().fit(sheet(0, 5))
    assert caplog.text == ""


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = lcrec_training._schedule(optimizer, warmup=4, total=12)
    rates = []
    for _ in range(13):
        rates.append(schedule.get_last_lr()[0] / 2.0)
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates[:5], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(rates[4:], np.arange(8, -1, -1) / 8)


def test_training_can_be_watched_epoch_by_epoch_and_is_no_other_for_it():
    vectors, seen = sheet(0), []

    def callback(epoch, loss, snapshot):
        assert snapshot().loss == loss
        seen.append(snapshot())

    kept = train(small(epochs=4, eval_every=2, keep="loss"), vectors, (8, 8), callback=callback)
    plain = train(small(epochs=4, eval_every=2, keep="loss"), vectors, (8, 8))
    assert [one.kept_epoch for one in seen] == [1, 2, 3, 4]
    assert [np.isnan(one.collision_rate) for one in seen] == [True, False, True, False]
    assert (kept.kept_epoch, kept.loss, kept.collision_rate) == (plain.kept_epoch, plain.loss, plain.collision_rate)
    at_the_time = seen[kept.kept_epoch - 1]
    for now, then, unwatched in zip(kept.levels, at_the_time.levels, plain.levels, strict=True):
        np.testing.assert_array_equal(now, then)
        np.testing.assert_array_equal(now, unwatched)
    assert (seen[0].levels[0] != seen[1].levels[0]).any()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_losses_are_those_of_a_plain_version_of_the_published_code(batch_norm):
    vectors, plain, ours = sheet(3), [], []
    settings = LCRecRQVAE(layers=(16, 8), dim=4, epochs=3, batch_norm=batch_norm, device="cpu", seed=7)
    train(settings, vectors, (8, 8), callback=lambda epoch, loss, snapshot: ours.append(loss))
    train_plain(vectors, [10, 16, 8, 4], (8, 8), epochs=3, batch_norm=batch_norm, seed=7, watch=plain.append)
    np.testing.assert_allclose(ours, plain, rtol=1e-4)


@BATCH_NORM
def test_training_lowers_the_reconstruction_error(batch_norm):
    """The whole loss may rise meanwhile, as latents grow and quantization losses with them."""
    vectors = sheet(0)

    def error(epochs):
        made = small(epochs=epochs, eval_every=epochs, batch_norm=batch_norm, lr=3e-3, epsilon=0.0).fit(vectors)
        assert made.training_.kept_epoch == made.training_.epochs == epochs
        left = vectors - made.codebooks_.reconstruct(made.transform(vectors))
        return (left**2).sum() / ((vectors - vectors.mean(0)) ** 2).sum()

    assert error(40) < 0.6 < 0.75 < error(2)


@pytest.mark.parametrize(("keep", "field"), [("collision", 1), ("loss", 0)])
def test_the_epoch_kept_is_the_best_of_those_looked_at(keep, field, caplog):
    with caplog.at_level(logging.DEBUG, "semid"):
        done = small(epochs=12, eval_every=3, keep=keep).fit(sheet(0)).training_
    looks = [record.args for record in caplog.records if record.msg.startswith("epoch %d: loss")]
    assert [look[0] for look in looks] == [3, 6, 9, 12]
    best = min(looks, key=lambda look: look[1 + field])
    assert (done.kept_epoch, done.loss, done.collision_rate) == best


def test_the_collision_rate_kept_is_that_of_the_codes():
    vectors = sheet(0)
    made = small(epochs=6).fit(vectors)
    codes = made.transform(vectors)
    rate = 1 - len(np.unique(codes, axis=0)) / len(codes)
    assert abs(made.training_.collision_rate - rate) < 0.02  # rounding to the grid moves a code now and then
    assert 0 < rate < 1


@BATCH_NORM
def test_batch_norm_folds_into_the_layer_before_it(batch_norm):
    module = random_module(4, batch_norm=batch_norm).eval()
    rows = torch.randn(50, 6)
    for part, x in ((module.encoder, rows), (module.decoder, rows[:, :3])):
        network = folded(part)
        assert len(network.mlp) == 3 and network.skip is None
        np.testing.assert_allclose(network(x.numpy()), part(x).detach(), atol=1e-5)


@BATCH_NORM
def test_what_is_exported_is_what_the_module_computes(batch_norm):
    module = random_module(5, batch_norm=batch_norm, sizes=(16, 16)).eval()
    rows = torch.randn(400, 6)
    levels = [level.detach().numpy() for level in module.levels]
    books = Codebooks.from_float(folded(module.encoder), levels, folded(module.decoder), rows.numpy())
    with torch.no_grad():
        latents = module.encoder(rows).numpy()
        expected = module.codes(rows).numpy()
        decoded = module.decoder(module.quantize(torch.from_numpy(latents), beta=0.0)[0]).numpy()
    got = books.latents(rows.numpy())
    stretch = 2.0 ** np.round(np.log2(np.abs(got).max() / np.abs(latents).max()))
    np.testing.assert_allclose(got / stretch, latents, atol=1e-3 * np.abs(latents).max())
    assert (books.encode(rows.numpy()) == expected).mean() > 0.99
    np.testing.assert_allclose(books.reconstruct(expected), decoded, atol=5e-3 * np.abs(decoded).max())


def test_training_in_torch_and_codebooks_agree_after_a_fit():
    vectors = sheet(2)
    settings = small(epochs=3)
    trained = train(settings, vectors, (8, 8))
    books = settings.fit(vectors).codebooks_
    codes = reference.residual_codes(trained.encoder(vectors), trained.levels)
    assert (books.encode(vectors) == codes).mean() > 0.99


def test_a_last_batch_of_one_row_is_left_out_under_batch_norm():
    vectors = sheet(0, 65)  # 64 + 1
    assert small(batch_norm=True).fit(vectors).transform(vectors).shape == (65, 2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"keep": "last"}, "keep='last' should be"),
        ({"epochs": 0}, "epochs=0 should be at least 1"),
        ({"dim": 0}, "dim=0 should be at least 1"),
        ({"batch_size": 1, "batch_norm": True}, "batch_size=1 should be at least 2"),
        ({"batch_size": 0, "batch_norm": False}, "batch_size=0 should be at least 1"),
    ],
)
def test_impossible_choices_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        small(**params).fit(sheet(0, 20))


def test_a_loss_that_is_not_finite_names_the_learning_rate():
    with pytest.raises(ConfigError, match=r"not finite in epoch \d+: lr=1e\+20 is too high"):
        small(lr=1e20, epochs=30, batch_norm=False).fit(sheet(0))
