"""Attribute views: parts of an item's text in the order of a seeded draw, new in each epoch, never empty."""

from __future__ import annotations

import re
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.adaptation.attributes import AttributeViews
from semid.data.items import Items
from semid.errors import InputError

WORDS = st.lists(st.sampled_from(["", "red", "OPI", "nails", "15 ml"]), min_size=2, max_size=5)
FOUR = Items(["a", "b"], {"one": ["p", "s"], "two": ["q", ""], "three": ["r", ""], "four": ["t", ""]})


def parts(text):
    return text.split(". ")


@given(WORDS, st.floats(0, 0.99), st.integers(0, 3), st.booleans())
def test_a_view_holds_some_of_the_items_own_attributes_each_at_most_once(values, dropout, epoch, frozen):
    values = [f"{value} {n}" if value else "" for n, value in enumerate(values)]
    items = Items(["a", "b"], {str(n): [value, "x"] for n, value in enumerate(values)})
    (text,) = AttributeViews(items, dropout, frozen=frozen).texts([0], epoch=epoch, side=1)
    filled = [value for value in values if value]
    assert (text == "") == (not filled)
    kept = parts(text) if filled else []
    assert len(set(kept)) == len(kept) and set(kept) <= set(filled)
    if frozen and filled:
        assert len(kept) == max(1, len(filled) - int(len(filled) * dropout))


def test_each_attribute_is_left_out_at_the_given_rate_and_leads_as_often_as_the_others():
    items = Items([str(i) for i in range(2000)], {name: [name] * 2000 for name in "pqrst"})
    texts = AttributeViews(items, 0.4).texts(range(2000), epoch=0, side=0)
    for name in "pqrst":
        assert abs(np.mean([name in parts(text) for text in texts]) - 0.6) < 0.05  # 4 standard errors
        assert abs(np.mean([parts(text)[0] == name for text in texts]) - 0.2) < 0.05


def test_no_dropout_keeps_every_attribute():
    (text,) = AttributeViews(FOUR, 0).texts([0], epoch=0, side=0)
    assert sorted(parts(text)) == ["p", "q", "r", "t"]


def test_views_differ_between_epochs_and_sides_but_not_between_runs_or_orders_of_the_catalog():
    many = Items([f"i{n}" for n in range(50)], {name: [f"{name}{n}" for n in range(50)] for name in "pqrst"})
    rows = np.arange(50)
    views = AttributeViews(many, seed=1)
    first = views.texts(rows, epoch=0, side=0)
    assert first == AttributeViews(many, seed=1).texts(rows, epoch=0, side=0)
    others = [views.texts(rows, epoch=0, side=1), views.texts(rows, epoch=1, side=0)]
    others.append(AttributeViews(many, seed=2).texts(rows, epoch=0, side=0))
    for other in others:
        assert sum(one != two for one, two in zip(first, other, strict=True)) > 40
    assert AttributeViews(many.take(rows[::-1]), seed=1).texts(rows, epoch=0, side=0) == first[::-1]


def test_frozen_views_are_the_same_in_every_epoch_and_still_differ_between_the_sides():
    views = AttributeViews(FOUR, frozen=True)
    assert views.texts([0], epoch=0, side=0) == views.texts([0], epoch=7, side=0)
    assert [len(parts(views.texts([0], epoch=0, side=side)[0])) for side in (0, 1)] == [3, 3]  # 4 - int(4 * .4)
    many = Items(range(20), {name: [f"{name}{n}" for n in range(20)] for name in "pqrst"})
    sides = [AttributeViews(many, frozen=True).texts(range(20), epoch=0, side=side) for side in (0, 1)]
    assert sides[0] != sides[1]


def test_only_items_with_two_attributes_take_part_and_each_epoch_takes_each_of_them_once():
    items = Items([str(n) for n in range(7)], {"one": [str(n) for n in range(7)], "two": ["x"] * 5 + ["", ""]})
    views = AttributeViews(items, seed=4)
    assert views.rows().tolist() == [0, 1, 2, 3, 4]
    batches = list(islice(views.batches(2, 100), 6))
    assert [epoch for _, epoch in batches] == [0, 0, 1, 1, 2, 2]  # the fifth item of an epoch fills no batch
    for number in range(0, 6, 2):
        rows = np.concatenate([rows for rows, _ in batches[number : number + 2]])
        assert len(set(rows.tolist())) == 4 and set(rows.tolist()) <= {0, 1, 2, 3, 4}
    assert [len(rows) for rows, _ in views.batches(64, 3)] == [5, 5, 5]  # a batch repeats no item


def test_a_catalog_without_two_attributes_is_refused_with_the_way_out():
    with pytest.raises(InputError, match=re.escape("shop: one text field (title) gives no two views of an item. Name")):
        AttributeViews(Items(["a"], {"title": ["red"]}, source="shop"))
    with pytest.raises(InputError, match="use --learn together"):
        AttributeViews(Items(["a", "b"], {"title": ["red", ""], "brand": ["", "OPI"]}))
