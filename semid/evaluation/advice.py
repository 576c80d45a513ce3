"""What is wrong with a set of semantic IDs and which option changes it, in sentences. A healthy set gets none.

Judges the figures of a `Quality`; measures nothing. Each sentence has the figure, what it means, and the option of
`semid fit` that changes it; an option that the IDs were made with already is not advised again. N items, L levels, K
codes per level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semid.evaluation.quality import LevelUse, Quality, percent

if TYPE_CHECKING:
    from semid.state import TokenizerState

__all__ = ["advise"]

# Where a figure stops being healthy. Figures quoted: eleven published ID sets and residual k-means (faiss,
# 4 x 256) on two Amazon catalogs (Beauty 2014, Office 2018), by tests/benchmarks/published.py.
MEGA_SHARE = 0.08  # one code's share of the items; healthy sets of 256 codes stay under 0.06
MEGA_TIMES_EVEN = 8  # ... and this often its even share 1/K, so that small codebooks are not blamed
DEAD_PERPLEXITY = 2.0  # less than one bit
LOW_PERPLEXITY = 1 / 3  # of the codes: below, a level loses more than log2(3) = 1.6 of its bits
FULL_PREFIX = 3 / 4  # of the last level's codes taken under one prefix: new items there soon have no place
FULL_SPACE = 1 / 50  # of all IDs taken: prefixes fill so unevenly that from there on many overflow
MOVED = 0.10  # share of items that colliding codes move; residual k-means collides at 0.04-0.08
ITEMS_PER_FIRST_CODE = 5  # below, the first code names items rather than groups
SAME_TEXT = 0.05  # share of items whose text another item has already
LOW_LIFT = 2.0  # times chance, first code; published sets reach 6-20, but for one with 2.3
LIFT_PAIRS = 1000  # fewer consecutive pairs say nothing
LOW_RECALL = 0.20  # of the nearest ten under the first code; sets learned from the same vectors keep 0.5-0.65
ROOM_FOR_TEN = 20  # items per (effective) first code, below which ten neighbors hardly fit


@dataclass(frozen=True)
class _Made:
    """How IDs were made, as far as it changes what can be advised."""

    by_rqvae: bool = False
    from_vectors: bool = False  # ready ones, of no encoder of semid
    fusion: float = 0.0  # weight of collaborative embeddings
    dims: tuple[int, int] | None = None  # of the latents and of the vectors

    @classmethod
    def of(cls, ids: TokenizerState | None) -> _Made:
        if ids is None or not ids.is_fitted or ids.config is None:
            return cls()
        signals = ids.provenance.get("signals")
        fusion = signals.get("collaborative_fusion") if isinstance(signals, dict) else None
        return cls(
            by_rqvae=ids.config.method != "rqkmeans",
            from_vectors=ids.encoder_kind == "vectors",
            fusion=float(fusion) if isinstance(fusion, (int, float)) else 0.0,
            dims=(ids.codebooks.latent_dim, ids.codebooks.input_dim),
        )


def advise(quality: Quality, ids: TokenizerState | None = None) -> list[str]:
    """Return sentences about unhealthy figures, gravest first; an empty list for a healthy set.

    Parameters
    ----------
    quality : Quality
        The figures.
    ids : TokenizerState, optional
        The artifact that they are of. Options that it was fitted with are not advised again. By default the IDs are
        those of another system.

    >>> import numpy as np
    >>> from semid.evaluation.metrics import evaluate
    >>> print(advise(evaluate(np.array([[0, 0], [0, 1], [1, 0], [1, 0]]), sizes=[2, 2]))[0])
    Repeated IDs: 1 of 4 items (25.0 %), 2 items in conflict, up to 2 with one ID, which no model can tell \
apart. Every prefix has room for distinct last codes (2 of 2 at most): `semid fit` assigns them.
    """
    made = _Made.of(ids)
    rules = (_collisions, _levels, _too_few_codes, _too_many_codes, _texts, _meaning)
    return [sentence for rule in rules for sentence in rule(quality, made)]


def _collisions(quality: Quality, made: _Made) -> Iterator[str]:
    surplus = quality.n_items - quality.n_unique_ids
    if surplus == 0:
        return
    fanout, last = quality.max_prefix_fanout, quality.levels[-1].size
    cure = "`semid fit` gives every item its own ID"
    if fanout <= last:
        cure = (
            f"Every prefix has room for distinct last codes ({fanout:,} of {last:,} at most): `semid fit` assigns them"
        )
    yield (
        f"Repeated IDs: {surplus:,} of {quality.n_items:,} items ({percent(quality.collision_rate)}), "
        f"{quality.items_in_conflict:,} items in conflict, up to {quality.largest_group:,} with one ID, which no model "
        f"can tell apart. {cure}."
    )


def _levels(quality: Quality, made: _Made) -> Iterator[str]:
    dead, uneven = [], []
    for number, level in enumerate(quality.levels, 1):
        codes = min(level.size, quality.n_items)  # more codes than items cannot be used
        if level.perplexity < DEAD_PERPLEXITY and codes > 2 * DEAD_PERPLEXITY:
            dead.append(number)
        elif level.largest_share > max(MEGA_SHARE, MEGA_TIMES_EVEN / codes):
            yield (
                f"Mega-cluster: one code of level {number} holds {percent(level.largest_share)} of the items "
                f"(even: {percent(1 / level.size)}; perplexity {level.perplexity:.1f}), so that code says "
                f"little. {_against_crowds(made)}"
            )
        elif level.perplexity < LOW_PERPLEXITY * codes:
            uneven.append(number)
    if dead:
        yield (
            f"Dead level: {_use(quality, dead)}. Less than one bit each: the token carries almost no information. "
            f"Leave it out, --levels {max(len(quality.levels) - len(dead), 1)}: `semid fit` tells items "
            "apart without it."
        )
    if uneven:
        sizes = ",".join(
            str(_fitting(level) if number in uneven else level.size) for number, level in enumerate(quality.levels, 1)
        )
        yield (
            f"Uneven codes: {_use(quality, uneven)}. Less than a third of the codes are in effective use. "
            f"{'Set' if made.by_rqvae else 'Fit with --method rqvae, or set'} --codebook-size {sizes}."
        )


def _against_crowds(made: _Made) -> str:
    smaller = "in fewer dimensions with a smaller --dim"
    if made.by_rqvae:
        return f"Fit {smaller}, now {made.dims[0]}." if made.dims else f"Fit {smaller}."
    return f"Fit with --method rqvae, or {smaller}."


def _use(quality: Quality, numbers: list[int]) -> str:
    """Return the worst of some levels with its figures, and the numbers of the others."""
    worst = min(numbers, key=lambda number: quality.levels[number - 1].perplexity)
    level = quality.levels[worst - 1]
    others = ", ".join(str(number) for number in numbers if number != worst)
    also = f" (also level {others})" if others else ""
    return f"perplexity {level.perplexity:.1f} of {level.size:,} codes at level {worst}{also}"


def _fitting(level: LevelUse) -> int:
    """Return the smallest power of two that is not below the perplexity."""
    return 2 ** math.ceil(math.log2(max(level.perplexity, 2.0)))


def _too_few_codes(quality: Quality, made: _Made) -> Iterator[str]:
    if quality.sizes_observed:
        return  # the number of possible codes is unknown
    n_levels, last, fanout = len(quality.levels), quality.levels[-1].size, quality.max_prefix_fanout
    room = math.prod(level.size for level in quality.levels)
    more = f"--levels {n_levels + 1}"
    if quality.n_items > FULL_SPACE * room:
        yield (
            f"{quality.n_items:,} items take {percent(quality.n_items / room)} of the {room:,} possible IDs: "
            f"prefixes fill unevenly, so many items cannot keep their nearest codes. Add a level: {more}."
        )
    elif fanout > FULL_PREFIX * last and fanout > 1:
        yield (
            f"The fullest prefix holds {fanout:,} items and the last level has {last:,} codes: further items "
            f"like these must go under another prefix. Add a level, {more}, or codes, --codebook-size."
        )
    if quality.raw_collision_rate is not None:
        floor = max(quality.identical_text_floor or 0.0, quality.identical_vector_floor or 0.0)
        if quality.raw_collision_rate - floor > MOVED:
            yield (
                f"{percent(quality.raw_collision_rate)} of the items had the codes of another before they "
                f"were made unique, {percent(floor)} because their texts or vectors are identical: for the "
                f"rest the codes are too few. Add a level, {more}, or codes, --codebook-size."
            )


def _too_many_codes(quality: Quality, made: _Made) -> Iterator[str]:
    first, n_items = quality.levels[0], quality.n_items
    if n_items < ITEMS_PER_FIRST_CODE * first.size and first.size > 2:
        fitting = max(2, 2 ** math.floor(math.log2(max(n_items / ITEMS_PER_FIRST_CODE, 1))))
        yield (
            f"The first level has {first.size:,} codes for {n_items:,} items, {n_items / first.size:.2g} "
            "each: its codes name single items rather than groups, so a model learns little from it. Set "
            f"--codebook-size {fitting}."
        )
    telling = next((length for length, fanout in enumerate(quality.prefix_fanout, 1) if fanout == 1), None)
    if telling is not None and telling + 2 <= len(quality.levels):
        yield (
            f"The first {telling} of {len(quality.levels)} codes already tell all {n_items:,} items apart: the "
            f"later levels cost tokens and add nothing. Set --levels {telling + 1}, which leaves one for new items."
        )


def _texts(quality: Quality, made: _Made) -> Iterator[str]:
    texts, vectors = quality.identical_text_floor or 0.0, quality.identical_vector_floor or 0.0
    if texts > SAME_TEXT and not made.from_vectors:
        yield (
            f"{percent(texts)} of the items have the same text as another: their IDs "
            "differ only by chance. Give the encoder more fields with --text."
        )
    elif vectors > SAME_TEXT:
        cure = "Use another --encoder, or give it more fields with --text."
        yield (
            f"{percent(vectors)} of the items have the same vector as another: their "
            f"IDs differ only by chance. {'Give other vectors with --embeddings.' if made.from_vectors else cure}"
        )


def _meaning(quality: Quality, made: _Made) -> Iterator[str]:
    lift = quality.sequence_lift[0] if quality.sequence_lift else None
    if lift is not None and lift < LOW_LIFT and (quality.sequence_pairs or 0) >= LIFT_PAIRS:
        vectors = "Use another --encoder, other --text fields"
        vectors = "Give other vectors with --embeddings" if made.from_vectors else vectors
        behavior = f"a larger --collaborative-fusion, now {made.fusion:g}" if made.fusion else "--collaborative-fusion"
        yield (
            f"Consecutive items share their first code only {lift:.2g} times as often as by chance: "
            f"the IDs say little about the next item. {vectors}, or {behavior}."
        )
    groups = max(quality.levels[0].perplexity, 1.0)
    recall = quality.neighbor_recall[0] if quality.neighbor_recall else None
    if recall is not None and recall < LOW_RECALL and quality.n_items >= ROOM_FOR_TEN * groups:
        is_full = made.dims is not None and made.dims[0] >= made.dims[1]
        cure = "Lower the first" if is_full else "Raise --dim, or lower the first"
        yield (
            f"Only {percent(recall)} of an item's ten nearest vectors share its first code: the IDs were fitted to "
            f"other vectors, or the codes lost the neighborhoods. {cure} --codebook-size."
        )
