"""Centroids inside the rows: the rows are exact, generation and a saved model see them, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from semid.clusters import ClusterConfig, fit_clusters
from semid.encoders.collaborative import WalkConfig
from semid.errors import ConfigError
from semid.tokenizer_exports.models import bake_centroids, centroid_shifts, extend, isometry
from tests.helpers.communities import histories
from tests.helpers.tiny_models import new_model, new_tokenizer


@pytest.fixture(scope="module")
def clusters():
    config = ClusterConfig(
        clusters=4, second_token="residual", spare_codes=0.2, walks=WalkConfig(dim=8, walks_per_node=4, walk_length=10)
    )
    return fit_clusters(histories(), config)


@pytest.mark.parametrize("init", ["default", "codebook"])
@pytest.mark.parametrize("kind", ["qwen3 tied", "t5 tied"])
def test_rows_are_base_plus_alpha_times_the_projected_centroid(clusters, kind, init):
    tokenizer, model = new_tokenizer(), new_model(kind)
    extended = extend(tokenizer, model, clusters, init=init)
    assert extended.n_tokens == clusters.n_tokens
    before = model.get_input_embeddings().weight.detach().clone().numpy()
    projection = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    bake_centroids(model, clusters, extended.base, projection=projection, alpha=0.3)
    after = model.get_input_embeddings().weight.detach().numpy()
    n_coarse, n_fine = clusters.sizes
    coarse, fine = before[extended.base :][:n_coarse], before[extended.base + n_coarse :][:n_fine]
    assert np.allclose(after[extended.base :][:n_coarse], coarse + 0.3 * clusters.centroids @ projection.T, atol=1e-6)
    assert np.allclose(after[extended.base + n_coarse :][:n_fine], fine + 0.3 * clusters.fine @ projection.T, atol=1e-6)
    others = np.ones(len(after), bool)
    others[extended.base : extended.base + clusters.n_tokens] = False
    assert np.array_equal(after[others], before[others])
    reserved = extended.base + clusters.coarse_of["reserved"][0]
    assert np.array_equal(after[reserved], before[reserved])  # nothing is known of those


def test_generation_and_a_saved_model_see_the_centroids(clusters, tmp_path):
    """The embedding that generation feeds to the first layer is the sum itself."""
    tokenizer, model = new_tokenizer(), new_model("qwen3 untied")
    extended = extend(tokenizer, model, clusters)
    prompt = tokenizer(f"{clusters.users.tokens('g0-u0')} bought", return_tensors="pt")["input_ids"]
    assert extended.base <= prompt[0, 0] < extended.base + clusters.sizes[0]
    plain = model.get_input_embeddings().weight.detach()[prompt[0, 0]].clone()
    bake_centroids(model, clusters, extended.base)
    model.save_pretrained(tmp_path)
    seen = []
    for one in (model, AutoModelForCausalLM.from_pretrained(tmp_path)):
        one.model.layers[0].register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((args or (kwargs["hidden_states"],))[0][0, 0].detach().clone()),
            with_kwargs=True,
        )
        one.generate(prompt, max_new_tokens=1, do_sample=False)
    shift = torch.from_numpy(centroid_shifts(clusters, _default_projection(model, clusters, extended.base)))
    wanted = plain + shift[prompt[0, 0] - extended.base]
    assert not torch.allclose(plain, wanted)
    assert all(torch.allclose(first, wanted, atol=1e-6) for first in seen) and len(seen) == 2


def _default_projection(model, clusters, base):
    length = float(model.get_input_embeddings().weight.detach()[:base].norm(dim=1).mean())
    return isometry(32, clusters.centroids.shape[1], length=length)


def test_an_isometry_keeps_angles():
    turned = isometry(32, 8, length=3, seed=1)
    assert np.allclose(turned.T @ turned, 9 * np.eye(8), atol=1e-4)
    assert isometry(4, 8).shape == (4, 8) and np.array_equal(isometry(4, 8, seed=2), isometry(4, 8, seed=2))


def test_what_does_not_fit_is_refused(clusters):
    model = new_model("qwen3 tied")
    with pytest.raises(ConfigError, match="Call extend first"):
        bake_centroids(model, clusters, len(new_tokenizer()))
    with pytest.raises(ConfigError, match="8 dims"):
        centroid_shifts(clusters, np.zeros((32, 9)))
