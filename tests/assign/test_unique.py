"""Unique IDs: distinct always, exact inside a prefix, the same in any row order.

Latents are small integers and codebooks halves, so ties abound and every sum is exact.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from semid.assign import Assignment, assign_global, assign_unique, buckets, distances, matching, overflow
from semid.assign.capacity import check_capacity
from semid.assign.distances import nearest_prefixes
from semid.assign.keys import pack
from semid.assign.matching import match_buckets, solve_buckets
from semid.assign.occupancy import CodeList, Occupancy
from semid.errors import CapacityError, InputError
from semid.quantize.beam import smallest
from tests.benchmarks.optimal_ids import assign_optimal

DIMS = 3


def greedy(latents, codebooks):
    """Raw codes int64 [N, L], one item at a time."""
    codes = np.zeros((len(latents), len(codebooks)), np.int64)
    for row, latent in enumerate(latents):
        residual = latent.astype(np.float64)
        for level, codebook in enumerate(codebooks):
            codes[row, level] = ((residual - codebook) ** 2).sum(axis=1).argmin()
            residual = residual - codebook[codes[row, level]]
    return codes


def errors_of(latents, codes, codebooks):
    decoded = sum(codebook[codes[:, level].astype(int)] for level, codebook in enumerate(codebooks))
    return ((latents - decoded) ** 2).sum(axis=1, dtype=np.float64)


def make(seed, sizes, n, spread=4):
    """Latents, raw codes and codebooks; a third of the items copy another."""
    rng = np.random.default_rng(seed)
    latents = rng.integers(-spread, spread + 1, size=(n, DIMS)).astype(np.float32)
    if n:
        copies = rng.random(n) < 1 / 3
        latents[copies] = latents[rng.integers(n, size=copies.sum())]
    codebooks = [(rng.integers(-8, 9, size=(k, DIMS)) / 2).astype(np.float32) for k in sizes]
    return latents, greedy(latents, codebooks), codebooks


def all_ids(sizes):
    return np.array(list(itertools.product(*map(range, sizes))), np.int64).reshape(-1, len(sizes))


def n_distinct(codes):
    return len(np.unique(codes, axis=0)) if len(codes) else 0


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
seeds = st.integers(0, 2**32 - 1)
problems = st.builds(
    lambda seed, sizes, share: (seed, sizes, round(share * math.prod(sizes))), seeds, shapes, st.floats(0, 1)
)


@given(problems)
def test_every_item_gets_an_id_of_its_own(problem):
    seed, sizes, n = problem
    latents, codes, codebooks = make(seed, sizes, n)
    found = assign_unique(latents, codes, codebooks).codes
    assert found.shape == codes.shape and found.dtype == np.uint16
    assert n_distinct(found) == n
    assert (found < np.array(sizes)).all()


@given(seeds, shapes)
def test_a_full_house_is_filled_to_the_last_id(seed, sizes):
    latents, codes, codebooks = make(seed, sizes, math.prod(sizes))
    found = assign_unique(latents, codes, codebooks).codes
    assert sorted(found.tolist()) == all_ids(sizes).tolist()


@given(seeds, st.sampled_from([[8, 8, 32], [30, 60], [2, 2, 2, 64]]), st.floats(0.02, 0.3))
@settings(max_examples=30)
def test_row_order_changes_nothing_where_nobody_ties_or_has_to_leave(seed, sizes, share):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(int(share * math.prod(sizes)), DIMS))
    codebooks = [rng.normal(size=(k, DIMS)) * 2.0**-level for level, k in enumerate(sizes)]
    codes, shuffle = greedy(latents, codebooks), rng.permutation(len(latents))
    for assign in (assign_unique, assign_global):
        one, other = assign(latents, codes, codebooks), assign(latents[shuffle], codes[shuffle], codebooks)
        assert one.certificate.distortion_before == other.certificate.distortion_before
        if not one.certificate.overfull_buckets:
            assert (one.codes[shuffle] == other.codes).all()
            assert one.certificate == other.certificate


@given(problems)
def test_prefixes_without_a_collision_are_left_alone(problem):
    seed, sizes, n = problem
    latents, codes, codebooks = make(seed, sizes, n)
    found = assign_unique(latents, codes, codebooks).codes
    for prefix in {tuple(row) for row in codes[:, :-1]}:
        members = (codes[:, :-1] == prefix).all(axis=1)
        if n_distinct(codes[members]) == members.sum():
            assert (found[members] == codes[members]).all()


@given(seeds, st.sampled_from([[4, 4], [3, 12], [9], [2, 2, 20]]), st.floats(0.1, 1))
def test_members_share_out_their_prefix_at_the_least_total_distance(seed, sizes, share):
    latents, codes, codebooks = make(seed, sizes, round(share * math.prod(sizes)), spread=9)
    found = assign_unique(latents, codes, codebooks).codes
    errors = errors_of(latents, found, codebooks)
    for prefix in {tuple(row) for row in codes[:, :-1]}:
        members = np.flatnonzero((codes[:, :-1] == prefix).all(axis=1))
        if len(members) > sizes[-1]:
            continue
        assert (found[members, :-1] == prefix).all()
        base = sum((codebooks[level][code] for level, code in enumerate(prefix)), np.zeros(DIMS))
        costs = ((latents[members] - base)[:, None, :] - codebooks[-1]) ** 2
        rows, columns = linear_sum_assignment(costs.sum(axis=2))
        assert errors[members].sum() == costs.sum(axis=2)[rows, columns].sum()


@given(problems, st.floats(0, 1))
def test_ids_of_others_are_never_given_out(problem, share):
    seed, sizes, room = problem
    n = round(share * room)
    latents, codes, codebooks = make(seed, sizes, n)
    rng = np.random.default_rng(seed)
    occupied = rng.permutation(all_ids(sizes))[: room - n]
    found = assign_unique(latents, codes, codebooks, occupied=occupied).codes
    assert n_distinct(np.concatenate((found, occupied))) == room


def test_a_new_item_takes_the_nearest_code_that_is_free():
    codebooks = [np.array([[0.0], [100.0]]), np.array([[0.0], [1.0], [3.0], [7.0]])]
    occupied = np.array([[0, 0], [0, 1]])
    found = assign_unique(np.array([[0.4]]), np.array([[0, 0]]), codebooks, occupied=occupied).codes
    assert found.tolist() == [[0, 2]]
    free = assign_unique(np.array([[7.4]]), np.array([[0, 3]]), codebooks, occupied=occupied).codes
    assert free.tolist() == [[0, 3]]


@given(seeds, st.sampled_from([[4, 4, 4], [3, 40]]))
def test_of_identical_items_the_first_gets_the_nearest_code(seed, sizes):
    latents, codes, codebooks = make(seed, sizes, math.prod(sizes) // 2, spread=1)
    found = assign_unique(latents, codes, codebooks)
    errors = errors_of(latents, found.codes, codebooks)
    groups = {}
    for row, latent in enumerate(latents.tolist()):
        groups.setdefault(tuple(latent), []).append(row)
    for rows in groups.values():
        assert errors[rows].tolist() == sorted(errors[rows])
    assert found.certificate.identical == len(latents) - len(groups)


def test_the_surplus_that_loses_least_leaves_for_the_nearest_prefix():
    # Three items want the two codes of prefix 0; the one at 4 is as good as at home under prefix 1.
    codebooks = [np.array([[0.0], [5.0], [50.0]]), np.array([[0.0], [1.0]])]
    latents = np.array([[0.0], [0.1], [2.4]])
    found = assign_unique(latents, greedy(latents, codebooks), codebooks)
    assert found.codes.tolist() == [[0, 0], [0, 1], [1, 0]]
    certificate = found.certificate
    assert (certificate.overfull_buckets, certificate.overflow_items, certificate.largest_bucket) == (1, 1, 3)
    assert (certificate.moved_items, certificate.moved_prefix) == (2, 1)


def test_of_two_who_spill_to_one_place_the_one_with_no_other_gets_it():
    # Prefix 0 is full and prefix 1 has one code left. The first item is nearer to it, the second needs it.
    codebooks = [np.array([[0.0, 0.0], [10.0, 0.0], [4.0, -7.0]]), np.array([[0.0, 0.0], [0.0, 0.5]])]
    latents = np.array([[4.0, 0.0], [4.0, 3.0]])
    occupied = np.array([[0, 0], [0, 1], [1, 1]])
    found = assign_unique(latents, np.array([[0, 0], [0, 1]]), codebooks, occupied=occupied)
    assert found.codes.tolist() == [[2, 1], [1, 0]]


def test_copies_spread_out_instead_of_fighting_for_one_code_a_round(monkeypatch):
    rng = np.random.default_rng(6)
    codebooks = [rng.normal(size=(32, DIMS)) * 2.0**-level for level in range(3)]
    latents = np.tile(rng.normal(size=(1, DIMS)), (4000, 1))
    rounds, plain = [], overflow._Placement._round
    monkeypatch.setattr(overflow._Placement, "_round", lambda *task: rounds.append(1) or plain(*task))
    assign_unique(latents, greedy(latents[:1], codebooks).repeat(4000, axis=0), codebooks)
    assert 0 < len(rounds) < 10  # a prefix a round would take 124


@given(seeds, st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_an_overfull_bucket_keeps_those_who_would_lose_most(seed, n, n_codes, some_taken):
    rng = np.random.default_rng(seed)
    latents = rng.integers(-4, 5, size=(n, DIMS)).astype(np.float64)
    codebooks = [np.zeros((1, DIMS)), rng.integers(-4, 5, size=(n_codes, DIMS)).astype(np.float64)]
    outside = rng.integers(-9, 9, size=n).astype(np.float64)
    taken = np.zeros((1, n_codes), bool)
    taken[0, 0] = some_taken
    free = np.flatnonzero(~taken[0])
    got = match_buckets(
        latents,
        np.arange(n),
        np.zeros((n, 1), np.int64),
        codebooks,
        np.array([0, n]),
        taken=taken,
        taken_rows=np.array([0]),
        outside=outside,
    )
    stay = np.flatnonzero(got >= 0)
    assert len(stay) == min(n, len(free)) and set(got[stay]) <= set(free) and len(set(got[stay])) == len(stay)
    costs = ((latents[:, None] - codebooks[1]) ** 2).sum(axis=2) - (latents**2).sum(axis=1)[:, None]
    costs -= outside[:, None]
    best = min(
        sum(costs[row, code] for row, code in zip(rows, chosen, strict=True))
        for rows in itertools.combinations(range(n), len(stay))
        for chosen in itertools.permutations(free, len(stay))
    )
    assert costs[stay, got[stay]].sum() == best


@given(seeds, st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_small_buckets_solved_together_equal_those_solved_alone(seed, counts):
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 6, size=(sum(counts), 7)).astype(np.float64)
    bounds = np.concatenate(([0], np.cumsum(counts)))
    got = solve_buckets(costs, bounds)
    for start, stop in itertools.pairwise(bounds):
        rows, columns = linear_sum_assignment(costs[start:stop])
        assert len(set(got[start:stop])) == stop - start
        assert costs[np.arange(start, stop), got[start:stop]].sum() == costs[start:stop][rows, columns].sum()


@given(seeds, st.integers(1, 12), st.integers(1, 12))
def test_smallest_takes_the_first_of_equals(seed, width, count):
    scores = np.random.default_rng(seed).integers(0, 4, size=(5, width)).astype(np.float64)
    for row, got in zip(scores, smallest(scores, count), strict=True):
        assert got.tolist() == sorted(sorted(range(width), key=lambda k: (row[k], k))[:count])


@given(seeds, shapes)
def test_a_beam_as_wide_as_all_prefixes_ranks_them_all(seed, sizes):
    latents, _, codebooks = make(seed, sizes, 3)
    books = [codebook.astype(np.float64) for codebook in codebooks]
    prefixes, scores = nearest_prefixes(latents, books, 10**6)
    for latent, got, score in zip(latents.astype(np.float64), prefixes, scores, strict=True):
        best = {}
        for full in all_ids(sizes).tolist():
            error = errors_of(latent[None], np.array([full]), books)[0] - (latent**2).sum()
            best[tuple(full[:-1])] = min(error, best.get(tuple(full[:-1]), np.inf))
        expected = sorted(best.items(), key=lambda pair: (pair[1], pair[0]))
        assert [tuple(row) for row in got.tolist()] == [prefix for prefix, _ in expected]
        assert score.tolist() == [error for _, error in expected]


@pytest.mark.parametrize("constants", [{}, {"MAX_SCORES": 0}, {"LIST_LENGTH": 1}, {"FIRST_WIDTH": 1}], ids=str)
def test_a_crowd_around_one_point_finds_homes(monkeypatch, constants):
    for name, value in constants.items():
        monkeypatch.setattr(overflow, name, value)
    rng = np.random.default_rng(1)
    sizes = [16, 16, 4]
    codebooks = [rng.normal(size=(k, DIMS)) * 2.0**-level for level, k in enumerate(sizes)]
    latents = 1e-3 * rng.normal(size=(1000, DIMS))
    latents[::3] = latents[0]
    found = assign_unique(latents, greedy(latents, codebooks), codebooks)
    assert n_distinct(found.codes) == 1000
    assert found.certificate.overflow_items > 900


def test_copies_go_to_the_nearest_ids_there_are():
    rng = np.random.default_rng(2)
    codebooks = [rng.normal(size=(k, DIMS)) * 2.0**-level for level, k in enumerate([6, 6, 8])]
    latents = np.tile(rng.normal(size=(1, DIMS)), (40, 1))
    found = assign_unique(latents, greedy(latents, codebooks), codebooks)
    every = np.sort(errors_of(latents[:1], all_ids([6, 6, 8]), codebooks))
    # Prefix by prefix, not ID by ID: a little worse than the 40 nearest of 288, far better than any 40.
    assert every[:40].mean() <= found.certificate.distortion_after < every[:120].mean()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_chunks_change_nothing(monkeypatch, threads):
    latents, codes, codebooks = make(5, [8, 8, 8], 400, spread=2)
    expected = assign_unique(latents, codes, codebooks)
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    monkeypatch.setattr(distances, "CHUNK_VALUES", 64)
    monkeypatch.setattr(matching, "CHUNK_VALUES", 64)
    again = assign_unique(latents, codes, codebooks)
    assert (again.codes == expected.codes).all() and again.certificate == expected.certificate


@given(problems)
def test_the_certificate_counts_what_happened(problem):
    seed, sizes, n = problem
    latents, codes, codebooks = make(seed, sizes, n)
    found = assign_unique(latents, codes, codebooks)
    certificate = found.certificate
    assert (certificate.n_items, certificate.n_unique) == (n, n)
    assert certificate.raw_collisions == n - n_distinct(codes)
    assert certificate.moved_items == (found.codes != codes).any(axis=1).sum()
    assert certificate.moved_prefix == (found.codes[:, :-1] != codes[:, :-1]).any(axis=1).sum()
    fanout = [0, *np.unique(codes[:, :-1], axis=0, return_counts=True)[1].tolist()] if n else [0]
    assert certificate.largest_bucket == max(fanout)
    assert certificate.overfull_buckets == sum(count > sizes[-1] for count in fanout)
    assert certificate.overflow_items == sum(max(0, count - sizes[-1]) for count in fanout)
    if n:
        assert certificate.distortion_before == errors_of(latents, codes, codebooks).mean()
        assert certificate.distortion_after == errors_of(latents, found.codes, codebooks).mean()
    assert certificate.to_dict()["n_items"] == n


def test_progress_ends_at_the_total(monkeypatch):
    seen, totals = [], []

    @contextmanager
    def bar(label, total):
        totals.append(total)
        yield seen.append

    monkeypatch.setattr(buckets, "bar", bar)
    latents, codes, codebooks = make(7, [4, 4, 4], 60, spread=1)
    found = assign_unique(latents, codes, codebooks)
    assert all(done >= 0 for done in seen) and totals == [found.certificate.overflow_items]
    assert sum(seen) == totals[0] > 0


@pytest.mark.parametrize("levels", [8, 9])
def test_ids_wider_than_a_machine_word_work_alike(levels):
    rng = np.random.default_rng(3)
    codebooks = [rng.normal(size=(256, DIMS)) * 2.0**-level for level in range(levels)]
    latents = rng.normal(size=(200, DIMS))
    latents[100:] = latents[:100]
    codes = greedy(latents, codebooks)
    found = assign_unique(latents, codes, codebooks, occupied=codes[:10])
    assert n_distinct(np.concatenate((found.codes, codes[:10]))) == 210
    assert (pack(codes, [256] * levels).dtype == np.uint64) == (levels == 8)
    assert (np.argsort(pack(codes, [256] * levels), kind="stable") == np.lexsort(codes.T[::-1])).all()


@given(seeds)
def test_occupancy_agrees_with_a_set(seed):
    rng = np.random.default_rng(seed)
    sizes = [3, 3, 4]
    ids = rng.permutation(all_ids(sizes))
    held = {tuple(row) for row in ids[:15].tolist()}
    occupancy = Occupancy([CodeList(ids[:7], sizes), CodeList(ids[7:15], sizes)], sizes)
    for new in ids[15:].tolist():
        prefixes = np.array([new[:-1], rng.integers(3, size=2).tolist()])
        rows = occupancy.rows(prefixes)
        for prefix, row, slot in zip(prefixes.tolist(), rows, occupancy.slots(rows), strict=True):
            taken = [(*prefix, code) in held for code in range(4)]
            assert occupancy.taken[slot].tolist() == taken and occupancy.free[row] == 4 - sum(taken)
        occupancy.take(rows[:1], np.array(new[-1:]))
        held.add(tuple(new))


@given(problems)
def test_the_global_choice_is_unique_too(problem):
    seed, sizes, n = problem
    latents, codes, codebooks = make(seed, sizes, n)
    occupied = all_ids(sizes)[: math.prod(sizes) - n]
    for found in (
        assign_global(latents, codes, codebooks, occupied=occupied),
        assign_optimal(latents, codes, codebooks, occupied=occupied, candidates=3),
    ):
        assert isinstance(found, Assignment)
        assert n_distinct(np.concatenate((found.codes, occupied))) == math.prod(sizes)


@given(seeds, st.sampled_from([[3, 3, 3], [5, 4], [6]]), st.floats(0.2, 1))
@settings(max_examples=30)
def test_the_sparse_matching_over_all_ids_is_the_optimum(seed, sizes, share):
    n = max(1, int(share * math.prod(sizes)))
    latents, codes, codebooks = make(seed, sizes, n)
    every = all_ids(sizes)
    costs = np.stack([errors_of(latents[row : row + 1], every, codebooks) for row in range(n)])
    rows, columns = linear_sum_assignment(costs)
    found = assign_optimal(latents, codes, codebooks, beam=1000, candidates=len(every))
    assert found.certificate.distortion_after == pytest.approx(costs[rows, columns].mean(), abs=1e-12)


def test_the_global_choice_lowers_distortion_below_the_raw_codes():
    rng = np.random.default_rng(4)
    latents = rng.normal(size=(2000, 8))
    codebooks = [rng.normal(size=(16, 8)) * 0.8**level for level in range(4)]
    codes = greedy(latents, codebooks)
    local, beam = assign_unique(latents, codes, codebooks), assign_global(latents, codes, codebooks)
    assert beam.certificate.distortion_before == local.certificate.distortion_before
    assert beam.certificate.distortion_after < beam.certificate.distortion_before
    assert local.certificate.distortion_after > local.certificate.distortion_before


@pytest.mark.parametrize(
    ("n", "sizes", "occupied", "message"),
    [
        (
            70_000,
            [256, 256],
            0,
            "n_items=70000 should be <= 65536 = 256 x 256, the room of 2 levels of 256 codes. Use --levels 3.",
        ),
        (5, [4], 0, "n_items=5 should be <= 4, the room of 1 level of 4 codes. Use --levels 2."),
        (
            7,
            [2, 3],
            0,
            "n_items=7 should be <= 6 = 2 x 3, the room of 2 levels of 2 and 3 codes. "
            "Use --levels 3 --codebook-size 2,3,3.",
        ),
        (
            3,
            [2, 2],
            2,
            "n_items=3 should be <= 2: 4 = 2 x 2, the room of 2 levels of 2 codes, "
            "less 2 IDs already given out. Use --levels 3.",
        ),
        (
            2,
            [1],
            0,
            "n_items=2 should be <= 1, the room of 1 level of 1 codes. Use --levels 1 --codebook-size 256.",
        ),
    ],
)
def test_too_many_items_names_sizes_that_would_do(n, sizes, occupied, message):
    with pytest.raises(CapacityError) as caught:
        check_capacity(n, sizes, occupied=occupied)
    assert str(caught.value) == message


def test_capacity_is_checked_before_any_work():
    latents, codes, codebooks = make(0, [2, 2], 5)
    with pytest.raises(CapacityError, match="n_items=5"):
        assign_unique(latents, codes, codebooks)
    with pytest.raises(CapacityError, match="less 1 IDs"):
        assign_unique(latents[:4], codes[:4], codebooks, occupied=np.array([[0, 0]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": np.full((4, DIMS), np.nan)}, r"latents\[0\] should be finite"),
        ({"latents": np.zeros(4)}, r"latents.ndim=1"),
        ({"codes": np.zeros((4, 3), int)}, r"codes is int64 \[4, 3\]; should be integers \[N, 2\]"),
        ({"codes": np.zeros((4, 2))}, r"codes is float64"),
        ({"codes": np.zeros((3, 2), int)}, r"len\(codes\)=3 should be 4"),
        ({"codes": np.array([[0, 0], [0, 9], [0, 0], [0, 0]])}, r"codes\[1, 1\]=9 should be between 0 and 2"),
        ({"occupied": np.array([[-1, 0]])}, r"occupied\[0, 0\]=-1"),
        ({"codebooks": [np.zeros((3, 1)), np.zeros((3, DIMS))]}, r"codebooks\[0\] is \[3, 1\]"),
        (
            {"codebooks": [np.zeros((3, DIMS)), np.full((3, DIMS), np.inf)]},
            r"codebooks\[1\]\[0\] should be finite",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message):
    latents, codes, codebooks = make(0, [3, 3], 4)
    arguments = {"latents": latents, "codes": codes, "codebooks": codebooks} | change
    with pytest.raises(InputError, match=message):
        assign_unique(**arguments)


def test_importing_the_room_does_not_import_scipy():
    code = "import sys, semid.assign.unique, semid.assign.global_search; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
