"""Rows that start from given vectors: the model's own length and spread, the vectors' angles, users among items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data.interaction_reader import read_interactions
from semid.encoders.collaborative import BehaviorVectors, WalkConfig, learn_behavior
from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.entities import EntityNames, EntityVectors, find_entities
from semid.tokenizer_exports.models import extend
from tests.helpers.tiny_models import new_model, new_tokenizer

USERS, ITEMS, D = 40, 150, 8
NAMES = EntityNames(USERS, ITEMS)


def vectors(count: int, dims: int = D, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng([seed, count]).normal(0.5, scale, (count, dims))


def rows_of(start: EntityVectors, kind: str = "qwen3 tied") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of words, users and items of a model that was extended."""
    tokenizer, model = new_tokenizer(), new_model(kind)
    extended = extend(tokenizer, model, start)
    entities = find_entities(tokenizer, start.names)
    assert extended.initialized and extended.base == entities.base
    weight = model.get_input_embeddings().weight.detach().double().numpy()
    return tuple(weight[block.start : block.stop] for block in (entities.words, entities.users, entities.items))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Between rows of two kinds, each less what its kind has in common."""
    return unit(some - some.mean(0)) @ unit(others - others.mean(0)).T


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=10)
def test_rows_are_as_long_as_words_and_keep_all_angles(of_users, of_items):
    given_users, given_items = vectors(USERS, scale=of_users), vectors(ITEMS, seed=1, scale=of_items)
    words, users, items = rows_of(EntityVectors(NAMES, given_users, given_items))
    length = np.linalg.norm(words, axis=1).mean()
    for rows in (users, items):
        assert np.linalg.norm(rows, axis=1).mean() == pytest.approx(length, rel=0.2)
    for got, expected in (
        (cosines(users, items), cosines(given_users, given_items)),
        (cosines(items, items), cosines(given_items, given_items)),
    ):
        assert np.abs(got - expected).max() < 1e-3


def test_users_and_items_are_told_apart_and_lie_apart_from_words():
    words, users, items = rows_of(EntityVectors(NAMES, vectors(USERS), vectors(ITEMS, seed=1)))
    middle = words.mean(0)
    kind = users.mean(0) - items.mean(0)
    assert ((users - middle) @ kind).min() > ((items - middle) @ kind).max()
    common = np.concatenate([users, items]).mean(0) - middle
    assert ((items - middle) @ common).min() > np.quantile((words - middle) @ common, 0.9)


def test_two_spaces_keep_each_its_angles():
    given_users, given_items = vectors(USERS, 5), vectors(ITEMS, seed=1)
    _, users, items = rows_of(EntityVectors(NAMES, given_users, given_items, one_space=False))
    assert np.abs(cosines(items, items) - cosines(given_items, given_items)).max() < 1e-3
    assert np.abs(cosines(users, users) - cosines(given_users, given_users)).max() < 1e-3
    assert np.abs(cosines(users, items)).max() < 1e-3  # of dims of their own


@pytest.mark.parametrize("kind", ["qwen3 untied", "llama untied"])
def test_a_head_of_its_own_gets_them_too(kind):
    tokenizer, model = new_tokenizer(), new_model(kind)
    given_items = vectors(ITEMS)
    extend(tokenizer, model, EntityVectors(EntityNames(0, ITEMS), items=given_items))
    items = find_entities(tokenizer, EntityNames(0, ITEMS)).items
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = module.weight.detach().double().numpy()[items.start : items.stop]
        assert np.abs(cosines(rows, rows) - cosines(given_items, given_items)).max() < 1e-3


def test_a_kind_without_vectors_starts_at_random():
    _, users, items = rows_of(EntityVectors(NAMES, items=vectors(ITEMS)))
    assert len(np.unique(users.round(6), axis=0)) == USERS
    assert np.abs(cosines(items, items) - cosines(vectors(ITEMS), vectors(ITEMS))).max() < 1e-3


def test_newcomers_start_in_the_middle_of_their_kind_and_apart():
    given_items, known = vectors(ITEMS), np.arange(ITEMS) % 10 > 0
    broken = given_items.copy()
    broken[~known] = np.nan  # whatever stands there
    _, _, items = rows_of(EntityVectors(EntityNames(0, ITEMS), items=broken, items_known=known))
    distance = np.linalg.norm(items - items[known].mean(0), axis=1)
    assert distance[~known].max() < 0.5 * distance[known].mean()
    assert len(np.unique(items.round(7), axis=0)) == ITEMS
    assert np.isfinite(items).all()


def test_more_dims_than_the_model_has_keep_the_largest():
    wide = vectors(ITEMS, 3) @ vectors(3, 200, seed=2)  # 3 dims that matter, in 200: the model has 32
    _, _, items = rows_of(EntityVectors(EntityNames(0, ITEMS), items=wide))
    assert np.abs(cosines(items, items) - cosines(wide, wide)).max() < 1e-3


def test_behavior_vectors_fit_in_as_they_are():
    log = read_interactions([{"user": f"u{u}", "items": [f"i{(u * k) % 30:02}" for k in (1, 2, 3)]} for u in range(12)])
    learned = learn_behavior(log, WalkConfig(dim=8, walks_per_node=2))
    names = EntityNames(len(log.users), len(log.item_ids))
    _, users, items = rows_of(EntityVectors.of(names, learned))
    assert np.abs(cosines(users, items) - cosines(learned.users, learned.items)).max() < 1e-3
    nobody = BehaviorVectors(learned.users, learned.items, learned.users_known & False, learned.items_known)
    _, users, _ = rows_of(EntityVectors.of(names, nobody))
    assert np.isfinite(users).all()


def test_equal_vectors_are_no_reason_to_fail():
    _, users, items = rows_of(EntityVectors(NAMES, np.ones((USERS, D)), np.zeros((ITEMS, D))))
    assert np.isfinite(users).all() and np.isfinite(items).all()
    words, _, one = rows_of(EntityVectors(EntityNames(0, 1), items=[[3.0, 4.0]]))
    assert np.isfinite(one).all() and np.linalg.norm(one) < 3 * np.linalg.norm(words, axis=1).mean()


@pytest.mark.parametrize(
    "choices, error, said",
    [
        ({"items": vectors(ITEMS - 1)}, InputError, "items: shape=(149, 8) dtype=float64 should be numbers (150, D)"),
        ({"users": vectors(USERS)[0]}, InputError, "users: shape=(8,)"),
        ({"items": np.full((ITEMS, D), "x")}, InputError, "items: shape=(150, 8) dtype=<U1"),
        ({"items": np.zeros((ITEMS, 0))}, InputError, "items: shape=(150, 0)"),
        ({"items": np.where(np.arange(ITEMS)[:, None] == 7, np.nan, vectors(ITEMS))}, InputError, "items[7] has NaN"),
        ({"items": np.full((ITEMS, D), 1e300)}, InputError, "items[0] has NaN or infinity"),
        ({"items": vectors(ITEMS), "items_known": np.ones(3, bool)}, InputError, "items_known: shape=(3,)"),
        ({"items": vectors(ITEMS), "items_known": np.ones(ITEMS)}, InputError, "shape=(150,) dtype=float64"),
        ({}, ConfigError, "give vectors of at least one kind"),
        ({"users": vectors(USERS, 5), "items": vectors(ITEMS)}, ConfigError, "Set one_space=False"),
    ],
)
def test_what_cannot_be_is_refused(choices, error, said):
    with pytest.raises(error) as caught:
        EntityVectors(NAMES, **choices)
    assert said in str(caught.value)


def test_texts_are_not_asked_for():
    with pytest.raises(ConfigError, match="needs the texts of the items"):
        extend(new_tokenizer(), new_model("qwen3 tied"), EntityVectors(NAMES, vectors(USERS)), init="text")


def test_names_that_are_taken_are_told_with_other_ones_to_use():
    """In one space too, where users and items are one level."""
    tokenizer = new_tokenizer()
    tokenizer.add_tokens(["item_7"])
    start = EntityVectors(NAMES, vectors(USERS), vectors(ITEMS))
    with pytest.raises(ConfigError, match=r"'item_7'; expected none, .* Use other names: EntityNames"):
        extend(tokenizer, new_model("qwen3 tied", 320), start)


def test_vectors_are_not_printed():
    assert repr(EntityVectors(EntityNames(2, 3), items=np.eye(3))).endswith("one_space=True, seed=0)")
