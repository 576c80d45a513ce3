"""LC-Rec's repair loop gives what its formulas give, failures included."""

from __future__ import annotations

import numpy as np
import pytest

from semid.quantize import reference
from semid.train.sinkhorn import lcrec_sinkhorn
from tests.benchmarks.lcrec_repair import lcrec_repair


def literal_repair(latents, codes, codebooks, rounds):
    """`generate_indices.py`, group after group."""
    codes = codes.copy()
    for _ in range(rounds):
        groups = {}
        for row, code in enumerate(codes.tolist()):
            groups.setdefault(tuple(code), []).append(row)
        colliding = [rows for rows in groups.values() if len(rows) > 1]
        if not colliding:
            break
        for rows in colliding:
            prefix = sum(codebooks[level][codes[rows, level]] for level in range(len(codebooks) - 1))
            left = latents[rows] - prefix
            distances = ((left[:, None] - codebooks[-1]) ** 2).sum(axis=2)
            codes[rows, -1] = reference.lcrec_sinkhorn(distances.tolist(), 0.003, 50).argmax(axis=1)
    return codes


def crowded_catalog(seed):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(60, 4))
    codebooks = [rng.normal(size=(3, 4)), rng.normal(size=(16, 4)) * 0.5]
    first = ((latents[:, None] - codebooks[0]) ** 2).sum(axis=2).argmin(axis=1)
    left = latents - codebooks[0][first]
    last = ((left[:, None] - codebooks[1]) ** 2).sum(axis=2).argmin(axis=1)
    return latents, np.column_stack((first, last)), codebooks


@pytest.mark.parametrize("epsilon", [0.003, 0.05])
@pytest.mark.parametrize("shape", [(2, 5), (7, 4), (5, 5), (1, 3)])
def test_the_plan_equals_the_literal_formula(shape, epsilon):
    distances = np.random.default_rng(0).random(shape) * 3
    expected = reference.lcrec_sinkhorn(distances.tolist(), epsilon, 50)
    np.testing.assert_allclose(lcrec_sinkhorn(distances, epsilon, 50), expected, rtol=1e-9, atol=1e-9)


def test_the_plan_ends_on_the_columns():
    plan = lcrec_sinkhorn(np.random.default_rng(1).random((6, 4)), 0.003, 3)
    np.testing.assert_allclose(plan.sum(axis=0), 6 / 4)


def test_stacked_problems_are_separate():
    distances = np.random.default_rng(2).random((3, 4, 5))
    stacked = lcrec_sinkhorn(distances)
    np.testing.assert_allclose(stacked, [lcrec_sinkhorn(matrix) for matrix in distances], rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rounds", [1, 3])
def test_the_loop_equals_the_literal_loop(seed, rounds):
    latents, codes, codebooks = crowded_catalog(seed)
    expected = literal_repair(latents, codes, codebooks, rounds)
    got = lcrec_repair(latents, codes, codebooks, rounds=rounds)
    assert (got == expected).all() and (got != codes).any()


def test_only_last_codes_of_colliding_items_change():
    latents, codes, codebooks = crowded_catalog(9)
    repaired = lcrec_repair(latents, codes, codebooks, rounds=1)
    _, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    alone = counts[inverse] == 1
    assert (repaired[:, 0] == codes[:, 0]).all()
    assert (repaired[alone] == codes[alone]).all() and alone.any()


def test_identical_items_never_part():
    latents, codes, codebooks = crowded_catalog(3)
    latents[1], codes[1] = latents[0], codes[0]
    repaired = lcrec_repair(latents, codes, codebooks)
    assert (repaired[0] == repaired[1]).all()
