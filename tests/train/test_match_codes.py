"""Names for new codes: renaming changes nothing but names, and the names are those that the most items agree with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.quantize import Codebooks
from semid.train import ResidualKMeans
from semid.train.keep_codes import NO_CODE, keep_old_codes
from semid.train.match_codes import in_order_among_equals, match_levels, permuted, renamed
from semid.train.warm_start import continue_codebooks, split_crowded


def learned(seed: int, *, n_items: int = 120, sizes: tuple[int, ...] = (5, 4, 6)) -> tuple[Codebooks, np.ndarray]:
    vectors = np.random.default_rng(seed).normal(size=(n_items, 6)).astype(np.float32)
    return ResidualKMeans(levels=len(sizes), codebook_size=sizes, seed=seed).fit(vectors).codebooks_, vectors


def shuffled(codebooks: Codebooks, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(size) for size in codebooks.sizes]


BOOKS, VECTORS = learned(0)


# ---- renaming


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_renamed_codebooks_encode_and_reconstruct_as_before(seed):
    names = shuffled(BOOKS, seed)
    other, codes = permuted(BOOKS, names), BOOKS.encode(VECTORS)
    assert np.array_equal(other.encode(VECTORS), renamed(codes, names))
    assert np.array_equal(other.reconstruct(renamed(codes, names)), BOOKS.reconstruct(codes))
    assert np.array_equal(other.latents(VECTORS), BOOKS.latents(VECTORS))


def test_prices_move_with_their_codes():
    prices = np.random.default_rng(1).normal(size=6)
    priced = Codebooks(BOOKS.levels, BOOKS.encoder, BOOKS.decoder, (None, None, prices))
    names = shuffled(priced, 3)
    assert np.array_equal(permuted(priced, names).encode(VECTORS), renamed(priced.encode(VECTORS), names))


def test_renaming_back_gives_the_same_arrays():
    names = shuffled(BOOKS, 5)
    back = permuted(permuted(BOOKS, names), [np.argsort(level) for level in names])
    for name, array in BOOKS.arrays().items():
        assert np.array_equal(back.arrays()[name], array)


def test_equal_centroids_stay_in_their_order():
    """With fewer vectors than codes there are equal centroids, and the decoder knows only the first of them."""
    books, vectors = learned(2, n_items=4, sizes=(8, 8))
    codes = books.encode(vectors)
    for seed in range(20):
        names = in_order_among_equals(books, shuffled(books, seed))
        assert all(sorted(level) == list(range(8)) for level in names)
        other = permuted(books, names)
        assert np.array_equal(other.encode(vectors), renamed(codes, names))
        assert np.array_equal(other.reconstruct(other.encode(vectors)), books.reconstruct(codes))


# ---- matching


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_a_renamed_set_gets_its_old_names_back(seed):
    codes = BOOKS.encode(VECTORS)
    names = match_levels(codes, renamed(codes, shuffled(BOOKS, seed)), BOOKS.sizes, BOOKS.sizes)
    assert np.array_equal(renamed(renamed(codes, shuffled(BOOKS, seed)), names), codes)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_no_other_names_keep_more_first_codes(seed, old_size, new_size):
    rng = np.random.default_rng(seed)
    old, new = rng.integers(old_size, size=(12, 1)), rng.integers(new_size, size=(12, 1))
    (names,) = match_levels(old, new, [old_size], [new_size])
    assert sorted(names) == list(range(new_size))
    kept = (names[new[:, 0]] == old[:, 0]).sum()
    best = max((np.array(way)[new[:, 0]] == old[:, 0]).sum() for way in itertools.permutations(range(new_size)))
    assert kept == best


def test_later_levels_follow_the_items_that_kept_their_earlier_codes():
    old = np.array([[0, 0]] * 3 + [[1, 1]] * 5)
    new = np.array([[0, 1]] * 3 + [[0, 0]] * 5)  # the five came under the other first code
    first, second = match_levels(np.repeat(old, [1] * 8, axis=0), new, [2, 2], [2, 2])
    assert first.tolist() == [1, 0]  # the five are more
    assert second.tolist() == [1, 0]


def test_distances_decide_for_codes_without_items():
    codes = np.zeros((3, 1), int)
    far = np.array([[0.0, 9.0, 9.0], [9.0, 9.0, 1.0], [9.0, 1.0, 9.0]])
    assert match_levels(codes, codes, [3], [3], distances=[far])[0].tolist() == [0, 2, 1]
    one_item = np.array([[0], [1], [2]])
    assert match_levels(one_item, one_item, [3], [3], distances=[1e9 * far])[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("old_sizes", "new_sizes"), [((2, 3), (4, 3)), ((4, 3), (2, 3)), ((3,), (3, 5)), ((3, 5), (3,))]
)
def test_other_sizes_match_what_they_have_in_common(old_sizes, new_sizes):
    rng = np.random.default_rng(0)
    old, new = (np.stack([rng.integers(size, size=40) for size in sizes], 1) for sizes in (old_sizes, new_sizes))
    names = match_levels(old, new, old_sizes, new_sizes)
    assert [sorted(level) for level in names] == [list(range(size)) for size in new_sizes]
    for level in range(len(old_sizes), len(new_sizes)):
        assert names[level].tolist() == list(range(new_sizes[level]))


# ---- codes that stay


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0, 0.5))
def test_an_old_code_is_kept_exactly_within_the_slack(seed, slack):
    rng = np.random.default_rng(seed)
    old = np.stack([rng.integers(size + 1, size=len(VECTORS)) - 1 for size in BOOKS.sizes], 1)
    old[old[:, 0] == NO_CODE] = NO_CODE
    latents = BOOKS.latents(VECTORS)
    codes = keep_old_codes(latents, BOOKS, old, [slack] * 3)
    nearest, residual, had = BOOKS.encode(VECTORS), latents.copy(), old[:, 0] != NO_CODE
    left = latents.copy()
    for level, centroids in enumerate(BOOKS.levels):
        left -= centroids[nearest[:, level]]
        mean = (left**2).sum(1).mean()
        costs = ((residual[:, None] - centroids) ** 2).sum(-1)
        had &= old[:, level] != NO_CODE
        own = np.where(had, old[:, level], 0)
        stays = had & (costs[np.arange(len(own)), own] - costs.min(1) <= slack * mean + 1e-12)
        assert np.array_equal(codes[:, level], np.where(stays, own, costs.argmin(1)))
        had, residual = stays, residual - centroids[codes[:, level]]


def test_no_slack_gives_the_nearest_codes_and_unbounded_slack_the_old_ones():
    latents, rng = BOOKS.latents(VECTORS), np.random.default_rng(4)
    old = np.stack([rng.integers(size, size=len(VECTORS)) for size in BOOKS.sizes], 1)
    assert np.array_equal(keep_old_codes(latents, BOOKS, old, [0.0] * 3), BOOKS.encode(VECTORS))
    assert np.array_equal(keep_old_codes(latents, BOOKS, old, [np.inf] * 3), old)
    first = keep_old_codes(latents, BOOKS, old, [np.inf, 0.0, 0.0])
    assert np.array_equal(first[:, 0], old[:, 0])
    assert not np.array_equal(first, old)


def test_codes_that_the_codebooks_lack_are_passed_over():
    latents = BOOKS.latents(VECTORS)
    beyond = np.full((len(VECTORS), 2), 99)
    assert np.array_equal(keep_old_codes(latents, BOOKS, beyond, [np.inf] * 3), BOOKS.encode(VECTORS))


# ---- going on


def test_going_on_with_the_same_vectors_makes_nothing_worse():
    again = continue_codebooks(BOOKS, VECTORS)
    error = [((VECTORS - books.reconstruct(books.encode(VECTORS))) ** 2).sum() for books in (BOOKS, again)]
    assert error[1] <= error[0] * 1.01
    assert (again.encode(VECTORS)[:, 0] == BOOKS.encode(VECTORS)[:, 0]).mean() > 0.8


def test_going_on_follows_the_items_with_codes_that_lost_theirs():
    """A part of the catalog goes, another comes elsewhere: codes of what is gone go there."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(8, 6)) * 4
    books = (
        ResidualKMeans(levels=2, codebook_size=8).fit(centers.repeat(20, 0) + rng.normal(size=(160, 6)) / 9).codebooks_
    )
    moved = np.concatenate([centers[:5], centers[:3] - 5]).repeat(20, 0) + rng.normal(size=(160, 6)) / 9
    again = continue_codebooks(books, moved.astype(np.float32))
    used = [np.bincount(one.encode(moved)[:, 0], minlength=8) for one in (books, again)]
    assert (used[0] > 0).sum() < (used[1] > 0).sum()
    assert used[0].max() > used[1].max()


def test_crowded_codes_are_shared_with_the_least_used_ones():
    rng = np.random.default_rng(0)
    centroids = np.float32([[0, 0], [10, 0], [20, 0]])
    points = np.repeat(centroids, [1, 20, 79], axis=0) + rng.normal(size=(100, 2)).astype(np.float32) / 9
    moved = split_crowded(points, centroids, rng)
    assert np.abs(moved[0] - centroids[2]).max() < 1  # gave up its one item
    assert np.array_equal(moved[1], centroids[1])
    even = np.repeat(centroids, 20, axis=0)
    assert np.array_equal(split_crowded(even, centroids, rng), centroids)


def test_frozen_levels_stay_bit_for_bit_and_the_others_learn_what_they_leave():
    codes = BOOKS.encode(VECTORS)
    fixed = codes[:, :1].copy()
    fixed[:10] = (fixed[:10] + 1) % 5  # as for items that were moved
    again = continue_codebooks(BOOKS, VECTORS, fixed)
    assert np.array_equal(again.levels[0], BOOKS.levels[0])
    old_codes = np.concatenate([fixed, codes[:, 1:]], 1)
    kept = keep_old_codes(again.latents(VECTORS), again, old_codes, [np.inf, 0.0, 0.0])
    before = keep_old_codes(BOOKS.latents(VECTORS), BOOKS, old_codes, [np.inf, 0.0, 0.0])
    error = [
        ((books.latents(VECTORS) - books.quantized(given)) ** 2).sum()
        for books, given in ((BOOKS, before), (again, kept))
    ]
    assert error[1] < error[0]
