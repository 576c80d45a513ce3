"""Items and clusters in one model: two blocks side by side, both artifacts whole, whichever came first."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from semid.clusters import ClusterConfig, ClusterTokens, fit_clusters
from semid.clusters.fit import ITEM_TOKENS
from semid.diagnostics import verify_artifact
from semid.encoders.collaborative import WalkConfig
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.pipeline import update as changing
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.models import bake_centroids, extend, extend_folder
from semid.tokenizer_exports.models.placement import CLUSTERS_FOLDER
from semid.tokens import Vocabulary
from tests.helpers.communities import histories
from tests.helpers.tiny_models import ids_of, new_model, new_tokenizer
from tests.models.test_on_disk import digests, saved


def clusters_of(item_ids: Vocabulary = ITEM_TOKENS, **choices: object) -> ClusterTokens:
    walks = WalkConfig(dim=8, walks_per_node=4, walk_length=10)
    config = ClusterConfig(clusters=4, second_token="residual", spare_codes=0.2, walks=walks, **choices)
    return fit_clusters(histories(), config, item_ids=item_ids)


@pytest.fixture(scope="module")
def clusters() -> ClusterTokens:
    return clusters_of()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved(tmp_path / "base")


def rows_of(folder: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight.detach()


@pytest.mark.parametrize("first", ["items", "clusters"])
def test_both_blocks_live_side_by_side(tmp_path, base, clusters, first):
    ids = ids_of()
    order = [ids, clusters] if first == "items" else [clusters, ids]
    one = extend_folder(base, order[0], tmp_path / "one")
    two = extend_folder(tmp_path / "one", order[1], tmp_path / "two")
    assert (one.base, two.base) == (300, 300 + one.n_tokens)
    out = tmp_path / "two"
    there, beside = SemanticIDTokenizer.from_pretrained(out), ClusterTokens.open(out / CLUSTERS_FOLDER)
    assert {there.base, beside.base} == {one.base, two.base} and there.base == (300 if first == "items" else two.base)
    assert verify_artifact(out)[0] == [] == verify_artifact(out / CLUSTERS_FOLDER)[0]
    tokenizer = AutoTokenizer.from_pretrained(out)
    text = f"{beside.users.tokens('g0-u1')} bought {there.tokens('red-hat')}."
    read = tokenizer(text, add_special_tokens=False)["input_ids"]
    codes = beside.users.encode("g0-u1")
    assert read[:2] == beside.vocabulary.token_ids([codes], beside.base)[0].tolist()
    assert [found.item_id for found in there.parse(read)] == ["red-hat"]
    assert beside.parse(text)[0].entity.id == "g0-u1" and len(beside.parse(text)) == 1
    assert torch.equal(rows_of(out)[: two.base], rows_of(tmp_path / "one")[: two.base])


@pytest.mark.parametrize("again", ["items", "clusters"])
def test_again_nothing_changes(tmp_path, base, clusters, again):
    extend_folder(base, ids_of(), tmp_path / "one")
    extend_folder(tmp_path / "one", clusters, tmp_path / "two", alpha=0.1)
    tokens = ids_of() if again == "items" else clusters
    done = extend_folder(tmp_path / "two", tokens, tmp_path / "three", init="default", seed=7)
    assert not done.initialized and digests(tmp_path / "three") == digests(tmp_path / "two")


def test_the_artifact_of_the_items_stays_to_the_last_byte(tmp_path, base, clusters):
    """Changed since it came into the model, too."""
    extend_folder(base, ids_of(), tmp_path / "one")
    changing.add(tmp_path / "one", [{"id": "new", "title": "pink hat"}])
    extend_folder(tmp_path / "one", clusters, tmp_path / "two")
    before, after = digests(tmp_path / "one"), digests(tmp_path / "two")
    ours = {name for name in before if name.startswith(("semid", "ids"))}
    assert "ids-1.tsv" in ours and {name: after[name] for name in ours} == {name: before[name] for name in ours}
    extend_folder(tmp_path / "two", ids_of(), tmp_path / "three")  # back to the first: nothing of the change is left
    assert not (tmp_path / "three" / "ids-1.tsv").exists() and verify_artifact(tmp_path / "three")[0] == []
    assert verify_artifact(tmp_path / "three" / CLUSTERS_FOLDER)[0] == []


@pytest.mark.parametrize("kind", ["qwen3 tied", "qwen3 untied", "t5 tied"])
def test_alpha_adds_the_centroids_as_baking_does(tmp_path, clusters, kind):
    """Row + alpha W centroid, in the folder, in memory, and by hand."""
    extend_folder(saved(tmp_path / "base", kind), clusters, tmp_path / "out", init="default", alpha=0.3)
    tokenizer, model = new_tokenizer(), new_model(kind)
    extended = extend(tokenizer, model, clusters, init="default", alpha=0.3)
    plain = new_model(kind)
    extend(new_tokenizer(), plain, clusters, init="default")
    before = plain.get_input_embeddings().weight.detach().clone()
    bake_centroids(plain, clusters, extended.base, alpha=0.3)
    by_hand = plain.get_input_embeddings().weight.detach()
    assert not torch.allclose(before, by_hand)
    weights = type(model).from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    torch.testing.assert_close(model.get_input_embeddings().weight.detach(), by_hand, rtol=1e-5, atol=1e-6)
    if kind == "qwen3 untied":
        assert torch.equal(model.lm_head.weight, plain.lm_head.weight)


def test_the_two_blocks_do_not_lie_along_the_same_axes(tmp_path, base, clusters):
    """Drawn with one seed, the first centroids would lie where the items' markers are, and levels on each other."""
    ids = ids_of(levels=2)
    for init in ("default", "codebook"):
        one = extend_folder(base, ids, tmp_path / f"one-{init}", init=init)
        two = extend_folder(tmp_path / f"one-{init}", clusters, tmp_path / f"two-{init}", init=init)
        rows = rows_of(tmp_path / f"two-{init}").numpy()
        rows = rows - rows[:300].mean(0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = rows[one.base : two.base] @ rows[two.base : two.base + two.n_tokens].T
        assert np.abs(cosines).max() < 0.9
        level = [slice(0, ids.sizes[0]), slice(0, clusters.sizes[0])]
        assert abs(cosines[level[0], level[1]].mean()) < 0.4  # on one axis it would be 0.5


# ---- what is refused


def test_other_clusters_with_the_same_tokens_are_refused(tmp_path, base, clusters):
    extend_folder(base, clusters, tmp_path / "one")
    other = clusters_of(seed=5)
    assert other.sizes == clusters.sizes
    for one in (other, dataclasses.replace(clusters, fine=None)):
        with pytest.raises(ConfigError, match="rows belong to other codes"):
            extend_folder(tmp_path / "one", one, tmp_path / "two")
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("first", ["items", "clusters"])
def test_tokens_that_could_be_mistaken_are_refused(tmp_path, base, first):
    """Not one name is the same, so the tokenizer would take them."""
    ids, clusters = ids_of(), clusters_of(template="<s_{letter}_1{code}>", item_ids=Vocabulary([8] * 3, "lcrec"))
    assert not set(ids.vocabulary.tokens) & set(clusters.vocabulary.tokens)
    order = [ids, clusters] if first == "items" else [clusters, ids]
    extend_folder(base, order[0], tmp_path / "one")
    with pytest.raises(ConfigError, match="mistaken"):
        extend_folder(tmp_path / "one", order[1], tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_something_else_in_the_artifacts_place_is_refused(tmp_path, base, clusters):
    clusters.save(base / "x")
    for path in (base / "x").iterdir():
        path.rename(base / path.name)
    with pytest.raises(InputError, match="base: holds tokens of users and items"):
        extend_folder(base, ids_of(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"init": "text"}, "users have none"),
        ({"init": "text+codebook"}, "users have none"),
        ({"alpha": -1}, "alpha=-1"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": "much"}, "alpha='much'"),
    ],
)
def test_impossible_choices_say_so(tmp_path, base, clusters, choices, said):
    with pytest.raises(ConfigError, match=said):
        extend_folder(base, clusters, tmp_path / "out", **choices)
    assert not (tmp_path / "out").exists()


def test_alpha_is_of_clusters(tmp_path, base):
    with pytest.raises(ConfigError, match=r"alpha=0\.1 adds the centroids of clusters, and these tokens have none"):
        extend_folder(base, ids_of(), tmp_path / "out", alpha=0.1)
    with pytest.raises(ConfigError, match="alpha"):
        extend(new_tokenizer(), new_model("qwen3 tied"), ids_of(), alpha=0.1)


# ---- the command


def test_the_command(semid, tmp_path, base, clusters):
    ids_of().save_pretrained(tmp_path / "sid")
    clusters.save(tmp_path / "clusters")
    assert semid("extend", "base", "sid", "-o", "one").code == 0
    done = semid("extend", "one", "clusters", "-o", "two", "--init", "default", "--alpha", "0.1", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["base"] == 326 and told["n_tokens"] == clusters.n_tokens
    assert semid("info", "two").out.startswith("items") and semid("info", f"two/{CLUSTERS_FOLDER}").code == 0
    assert semid("extend", "base", "clusters", "-o", "alone").code == 0
    assert semid("extend", "base", "clusters", "-o", "alone").code == 1
    assert semid("extend", "base", "clusters", "-o", "alone", "--force").code == 0
    (tmp_path / "alone" / CLUSTERS_FOLDER / "semid.json").unlink()
    with pytest.raises(OutputExistsError, match="not a model with semantic IDs"):
        extend_folder(base, clusters, tmp_path / "alone", force=True)


def test_tokens_that_are_no_artifact_are_refused_before_anything_is_written(tmp_path):
    from semid.tokenizer_exports import EntityNames

    with pytest.raises(ConfigError, match="EntityNames is not an artifact"):
        extend_folder(saved(tmp_path / "base", "qwen3 tied"), EntityNames(2, 3), tmp_path / "out")
    assert not (tmp_path / "out").exists()
