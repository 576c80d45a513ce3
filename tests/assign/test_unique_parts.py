"""Settling collisions first code by first code, beside settling them all at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.assign import assign_by_first_code, assign_unique
from semid.errors import InputError
from semid.runtime.tables import Tables


def crowded(n_items: int, sizes: tuple[int, ...], seed: int, spread: float):
    """Latents and codes that collide the more the smaller the spread."""
    rng = np.random.default_rng(seed)
    books = [np.round(rng.normal(size=(size, 3)) / 2**level * 2**10) / 2**10 for level, size in enumerate(sizes)]
    codes = np.stack([np.minimum(size - 1, rng.gamma(1, size * spread, n_items)).astype(int) for size in sizes], axis=1)
    latents = sum(book[codes[:, level]] for level, book in enumerate(books))
    latents = np.round((latents + rng.normal(size=latents.shape) * 0.05) * 2**15) / 2**15
    latents[n_items // 2 :: 5] = latents[n_items // 2]
    return latents, codes, books


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60), st.sampled_from([(3, 4, 8), (4, 16), (2, 2, 2, 16), (1, 8, 8)]), st.integers(0, 99),
    st.sampled_from([0.2, 0.5]),
)  # fmt: skip
def test_parts_are_distinct_keep_their_first_code_and_equal_the_whole_where_nobody_must_leave(n, sizes, seed, spread):
    latents, codes, books = crowded(min(n, int(np.prod(sizes))), sizes, seed, spread)
    found = assign_by_first_code(latents, codes, books)
    assert len(np.unique(found.codes, axis=0)) == len(codes) == found.certificate.n_unique
    whole = assign_unique(latents, codes, books)
    fits = np.bincount(codes[:, 0]).max() <= np.prod(sizes[1:])
    if fits:
        assert np.array_equal(found.codes[:, 0], codes[:, 0])
    if not fits or not whole.certificate.overfull_buckets:
        assert np.array_equal(found.codes, whole.codes)
        close = {"distortion_before": 0.0, "distortion_after": 0.0}
        assert replace(found.certificate, **close) == replace(whole.certificate, **close)
        for name in close:
            assert np.isclose(getattr(found.certificate, name), getattr(whole.certificate, name), rtol=1e-12)


def test_latents_may_lie_in_a_file():
    latents, codes, books = crowded(200, (4, 8, 16), 0, 0.3)
    with Tables(room=0) as tables:
        table = tables.new(*latents.shape, np.float64)
        table.append(latents)
        assert np.array_equal(
            assign_by_first_code(table.finish(), codes, books).codes, assign_by_first_code(latents, codes, books).codes
        )


def test_what_is_wrong_is_said_as_ever():
    latents, codes, books = crowded(10, (4, 8), 0, 0.3)
    with pytest.raises(InputError, match=r"codes\[0, 0\]=4 should be between 0 and 3"):
        assign_by_first_code(latents, codes * 0 + 4, books)
    assert assign_by_first_code(latents[:0], codes[:0], books).codes.shape == (0, 2)


def test_a_fit_of_many_items_goes_by_parts(monkeypatch):
    from semid.config import SemanticIDConfig
    from semid.pipeline import fit as fitting

    items = [{"id": str(i), "title": f"nail polish shade {i % 40} of {i % 7}"} for i in range(150)]
    config = SemanticIDConfig.from_dict({"levels": 2, "codebook_size": 16, "method": "rqkmeans", "dim": 8})
    monkeypatch.setattr("semid.assign.choose.MANY_ITEMS", 100)
    made = fitting.fit(items, config)
    assert len(np.unique(made.ledger.codes, axis=0)) == 150
    assert made.provenance["certificate"]["moved_prefix"] == 0 or made.fit_statistics["fit.counts"].max() > 16
