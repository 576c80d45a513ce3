"""SemanticIDConfig: whatever a JSON file may hold becomes a config or a ConfigError, and survives the round trip."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.config import PRESETS, SemanticIDConfig
from semid.errors import ConfigError

NAMES = list(SemanticIDConfig().to_dict())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def test_a_config_comes_back_from_json_as_it_was():
    config = SemanticIDConfig(text=["title", "brand"], codebook_size=[4, 8, 16], epochs=0, store_text=False)
    assert SemanticIDConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.sizes == (4, 8, 16)


@pytest.mark.parametrize(
    ("choices", "sizes"),
    [
        ({}, (256, 256, 256, 256)),
        ({"levels": 2}, (256, 256)),
        ({"codebook_size": 8}, (8, 8, 8, 8)),
        ({"codebook_size": [4, 8]}, (4, 8)),
        ({"codebook_size": [4, 8], "levels": 2}, (4, 8)),
    ],
)
def test_sizes_follow_from_levels_and_codebook_size(choices, sizes):
    assert SemanticIDConfig.from_dict(choices).sizes == sizes


@pytest.mark.parametrize("given_as", ["title, brand", ["title", " brand"], ("title", "brand")])
def test_text_fields_may_be_a_list_or_one_string(given_as):
    assert SemanticIDConfig(text=given_as).text == ("title", "brand")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", "3"), ("levels", 3.5), ("levels", True), ("levels", 0), ("levels", 15), ("codebook_size", "8"),
        ("codebook_size", 8.5), ("codebook_size", None), ("codebook_size", []), ("codebook_size", [8, "a"]),
        ("codebook_size", [8, 8.5]), ("codebook_size", [8, 0]), ("codebook_size", True), ("codebook_size", 65_537),
        ("seed", "a"), ("seed", 1.5), ("seed", -1), ("seed", 2**32), ("seed", None), ("dim", 0), ("dim", True),
        ("epochs", -1), ("encoder", 5), ("encoder", ""), ("prompt", None), ("template", 5), ("device", 5),
        ("store_text", "no"), ("store_text", None), ("text", 5), ("text", [1]), ("method", "vae"),
        ("method", ["rqvae"]), ("method", {}), ("uniform", None), ("assign", "best"), ("pooling", "max"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        SemanticIDConfig.from_dict({name: value})


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3))
def test_any_json_is_a_config_or_a_config_error(choices):
    try:
        config = SemanticIDConfig.from_dict(choices)
    except ConfigError:
        return
    assert SemanticIDConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_sizes_and_levels_that_disagree_are_refused():
    with pytest.raises(ConfigError, match=r"codebook_size=\[4, 8\] names 2 levels and levels=3"):
        SemanticIDConfig(codebook_size=[4, 8], levels=3)


@pytest.mark.parametrize("key", ["levles", "name", "cls", "self", ""])
def test_an_unknown_key_is_an_error_wherever_it_comes_from(key):
    with pytest.raises(ConfigError, match="is no setting of semid"):
        SemanticIDConfig.from_dict({key: 3})
    with pytest.raises(ConfigError, match="is no setting of semid"):
        SemanticIDConfig.preset("default", **{key: 3})


def test_a_misspelt_key_names_the_near_one():
    with pytest.raises(ConfigError, match="Did you mean 'codebook_size'"):
        SemanticIDConfig.from_dict({"codebok_size": 3})


@pytest.mark.parametrize("name", PRESETS)
def test_changes_win_over_a_preset(name):
    config = SemanticIDConfig.preset(name, levels=3, seed=7)
    assert (config.sizes, config.seed) == ((256, 256, 256), 7)


def test_the_lc_rec_preset_is_the_published_recipe():
    config = SemanticIDConfig.preset("lc-rec")
    assert (config.method, config.sizes, config.dim) == ("lc-rec", (256,) * 4, 32)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="default, lc-rec"):
        SemanticIDConfig.preset("tiger")


def test_lc_rec_refuses_what_its_recipe_has_not():
    with pytest.raises(ConfigError, match="catalog"):
        SemanticIDConfig(method="lc-rec", uniform="catalog")
