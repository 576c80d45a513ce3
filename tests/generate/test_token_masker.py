"""The masker under every logits processor, against a plain oracle over Python sets of tuples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate import Constraints, FilterTensors, TokenMasker, TrieTensors, marker_ids
from semid.tokens.vocabulary import Vocabulary
from semid.trie import Trie

EOS = (1, 2)
TEXT = 3  # a token of the text; 0 is another


@dataclass(frozen=True)
class World:
    """A catalog, and token ids 0 ... 3 and a few after the block that are no codes."""

    sizes: tuple[int, ...]
    items: tuple[tuple[int, ...], ...]  # codes of each row
    base: int

    @property
    def trie(self) -> Trie:
        return Trie.from_codes(self.items, self.sizes, base=self.base)

    @property
    def end(self) -> int:
        return self.base + sum(self.sizes)

    @property
    def markers(self) -> tuple[int, int]:
        return self.end, self.end + 1

    @property
    def vocab_size(self) -> int:
        return self.end + 5  # two markers, three tokens of padding

    def tokens(self, codes: tuple[int, ...]) -> list[int]:
        return [self.base + sum(self.sizes[:level]) + code for level, code in enumerate(codes)]

    def codes(self, tokens: list[int]) -> tuple[int, ...] | None:
        """The codes that these tokens spell from level 0 on, None if they do not."""
        spelt = [token - first for token, first in zip(tokens, self.tokens((0,) * len(tokens)), strict=True)]
        good = all(0 <= code < size for code, size in zip(spelt, self.sizes, strict=False))
        return tuple(spelt) if good else None


def items_in(world: World, row: list[int], start: int) -> list[tuple[int, ...]]:
    """Items of the catalog whose last token stands at `start` or after it."""
    n_levels = len(world.sizes)
    spelt = [world.codes(row[end - n_levels : end]) for end in range(max(start + 1, n_levels), len(row) + 1)]
    return [codes for codes in spelt if codes in world.items]


def expected(
    world: World, row: list[int], start: int | None, constraints: Constraints, admitted: set[tuple[int, ...]]
) -> set[int]:
    """What may follow, written the slow and obvious way."""
    n_levels = len(world.sizes)
    if start is not None and set(row[start:]) & set(EOS):
        return set(EOS)
    made = [] if start is None else items_in(world, row, start)
    live = admitted if constraints.repeats else admitted - set(made)

    def following(prefix: tuple[int, ...]) -> set[int]:
        depth = len(prefix)
        return {world.tokens(item)[depth] for item in live if item[:depth] == prefix}

    for depth in range(1, n_levels):
        prefix = world.codes(row[-depth:]) if depth <= len(row) else None
        if prefix is not None and following(prefix):
            return following(prefix)
    if constraints.markers:
        begin, end = constraints.markers
        if row and row[-1] == begin and live:
            return following(())
        if len(row) > n_levels and row[-n_levels - 1] == begin and world.codes(row[-n_levels:]) is not None:
            return {end}
    room = constraints.max_items is None or len(made) < constraints.max_items
    allowed = set()
    if live and room:
        allowed |= {constraints.markers[0]} if constraints.markers else following(())
    if not live or (constraints.least is not None and len(made) >= constraints.least):
        allowed |= set(EOS)
    if constraints.text:
        block = set(range(world.base, world.end))
        allowed |= set(range(world.vocab_size)) - block - set(EOS) - set(constraints.markers or ())
    return allowed


@st.composite
def worlds(draw) -> World:
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    every = list(product(*map(range, sizes)))
    items = draw(st.lists(st.sampled_from(every), min_size=1, max_size=min(len(every), 12), unique=True))
    return World(sizes, tuple(items), base=draw(st.integers(4, 9)))


@st.composite
def constraints_for(draw, world: World) -> Constraints:
    least, most = draw(st.none() | st.integers(0, 2)), draw(st.none() | st.integers(2, 3))
    markers = draw(st.none() | st.just(world.markers))
    return Constraints(draw(st.booleans()), markers, least, most, draw(st.booleans()))


def rows_for(world: World, size: int) -> st.SearchStrategy[list[int]]:
    """Rows of text, items, cut-off items, strays, markers and ends, cut to one size from the left."""
    item = st.sampled_from(world.items)
    piece = st.one_of(
        item.map(world.tokens),
        item.map(world.tokens).map(lambda tokens: [world.markers[0], *tokens, world.markers[1]]),
        st.tuples(item, st.integers(1, len(world.sizes))).map(lambda pair: world.tokens(pair[0])[: pair[1]]),
        st.integers(-1, world.vocab_size - 1).map(lambda token: [token]),
        st.sampled_from([[TEXT], [EOS[0]], [world.markers[0]]]),
    )
    pieces = st.lists(piece, min_size=0, max_size=6)
    return pieces.map(lambda parts: ([-1] * size + [token for part in parts for token in part])[-size:] if size else [])


@settings(max_examples=100)
@given(st.data())
def test_exactly_the_tokens_of_the_oracle_remain(data):
    world = data.draw(worlds())
    constraints = data.draw(constraints_for(world))
    size = data.draw(st.integers(0, 14))
    n_requests, each = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    rows = [data.draw(rows_for(world, size)) for _ in range(n_requests * each)]
    start = data.draw(st.integers(0, size) if constraints.counts else st.none() | st.integers(0, size))
    chosen = data.draw(
        st.lists(
            st.none() | st.lists(st.integers(0, len(world.items) - 1), min_size=1),
            min_size=n_requests,
            max_size=n_requests,
        )
    )
    trie = world.trie
    filters = [None if rows_of is None else trie.filter(only=np.array(rows_of)) for rows_of in chosen]
    admitted = [{world.items[row] for row in (range(len(world.items)) if c is None else c)} for c in chosen]

    tensors = TrieTensors(trie)
    masker = TokenMasker(tensors, constraints, eos_ids=EOS)
    token_ids = torch.tensor(rows, dtype=torch.long).reshape(len(rows), size)
    options = {"filters": None if not any(filters) else FilterTensors(filters, tensors, n_requests)}
    options["prompt_lengths"] = start
    precision = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
    logits = torch.randn(len(rows), world.vocab_size).to(precision)
    masked = logits.clone()
    assert masker.mask_(masked, token_ids, **options) is masked

    wanted = [expected(world, row, start, constraints, admitted[i // each]) for i, row in enumerate(rows)]
    assert [set(row.isfinite().nonzero().flatten().tolist()) for row in masked] == wanted
    assert all(wanted), "a dead end"
    assert torch.equal(masked[masked.isfinite()], logits[masked.isfinite()])
    assert masker.allowed(token_ids, vocab_size=world.vocab_size, **options) == list(map(sorted, wanted))

    if start is not None:  # one number, or one for each row, in any order of the rows
        options["prompt_lengths"] = torch.full((len(rows),), start)
        again = masker.mask_(logits.clone(), token_ids, **options)
        assert torch.equal(again, masked)
        turned = torch.arange(len(rows)).flip(0)
        options["requests"] = turned // each
        options["prompt_lengths"] = options["prompt_lengths"][turned]
        assert torch.equal(masker.mask_(logits[turned], token_ids[turned], **options), masked[turned])


@settings(max_examples=100)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_a_random_walk_obeys_the_constraints(data, seed):
    """Draw tokens under the mask from a random prompt on, and judge the whole row by its items."""
    world = data.draw(worlds())
    constraints = data.draw(constraints_for(world))
    start = data.draw(st.integers(1, 6))
    prompt = data.draw(rows_for(world, start))
    banned = data.draw(st.sets(st.integers(0, len(world.items) - 1), max_size=len(world.items) - 1))
    tensors = TrieTensors(world.trie)
    filters = FilterTensors(world.trie.filter(without=sorted(banned)), tensors, 1)
    masker = TokenMasker(tensors, constraints, eos_ids=EOS)
    chance = torch.Generator().manual_seed(seed)
    token_ids = torch.tensor([prompt])
    while token_ids.shape[1] < 40 and not set(token_ids[0, start:].tolist()) & set(EOS):
        logits = masker.mask_(torch.zeros(1, world.vocab_size), token_ids, prompt_lengths=start, filters=filters)
        token = torch.multinomial(logits.softmax(dim=1), 1, generator=chance)
        token_ids = torch.cat([token_ids, token], dim=1)
    row = token_ids[0].tolist()
    made = items_in(world, row, start)
    ended = row[-1] in EOS
    admitted = {item for place, item in enumerate(world.items) if place not in banned}

    assert set(made) <= admitted
    assert constraints.max_items is None or len(made) <= constraints.max_items
    assert constraints.repeats or len(set(made)) == len(made)
    if ended:
        spent = not constraints.repeats and admitted <= set(made)
        assert spent or len(made) >= constraints.least
    n_levels = len(world.sizes)
    ends = [end for end in range(n_levels, len(row) + 1) if world.codes(row[end - n_levels : end]) in world.items]
    covered = {place for end in ends for place in range(end - n_levels, end)}
    strays = [
        place for place in range(start, len(row)) if world.base <= row[place] < world.end and place not in covered
    ]
    assert strays == list(range(len(row) - len(strays), len(row))), "only an item that is not finished yet"
    assert len(strays) < n_levels
    if constraints.markers:
        begin, end = constraints.markers
        generated = row[start:]
        opened = [place for place, token in enumerate(generated) if token == begin]
        for place in opened:
            after = generated[place + 1 : place + n_levels + 2]
            assert world.codes(after[:n_levels]) is not None
            assert after[n_levels:] in ([], [end])


def rows_of(world: World, *rows: list[int]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[-1] * (width - len(row)) + row for row in rows])


TOY = World((3, 2, 4), ((0, 0, 1), (0, 0, 3), (0, 1, 0), (2, 1, 2)), base=10)


def remaining(constraints: Constraints, rows: torch.Tensor, **options) -> list[list[int]]:
    return TokenMasker(TrieTensors(TOY.trie), constraints, eos_ids=EOS).allowed(
        rows, vocab_size=TOY.vocab_size, **options
    )


def test_rows_of_one_batch_may_be_at_different_depths():
    item = TOY.tokens((0, 0, 3))
    rows = rows_of(TOY, [TEXT], item[:1], item[:2], item, [*item, EOS[0]])
    assert remaining(Constraints(max_items=1), rows, prompt_lengths=0) == [[10, 12], [13, 14], [16, 18], [1, 2], [1, 2]]


def test_a_prompt_that_ends_in_the_end_token_is_not_finished():
    rows = rows_of(TOY, [TEXT, EOS[0]])
    assert remaining(Constraints(max_items=1), rows, prompt_lengths=2) == [[10, 12]]
    assert remaining(Constraints(max_items=1), rows, prompt_lengths=1) == [list(EOS)]


def test_items_of_the_prompt_are_neither_counted_nor_banned():
    item = TOY.tokens((2, 1, 2))
    constraints = Constraints(max_items=1, repeats=False)
    assert remaining(constraints, rows_of(TOY, item), prompt_lengths=3) == [[10, 12]]
    assert remaining(constraints, rows_of(TOY, item), prompt_lengths=2) == [list(EOS)], "completed after the prompt"


def test_a_prefix_that_the_filter_closes_is_not_gone_on_with():
    tensors = TrieTensors(TOY.trie)
    filters = FilterTensors(TOY.trie.filter(without=[3]), tensors, 1)
    assert TokenMasker(tensors).allowed(rows_of(TOY, TOY.tokens((2,))), filters=filters) == [[10]]


def test_when_every_item_was_made_the_row_ends():
    row = [token for item in TOY.items for token in TOY.tokens(item)]
    constraints = Constraints(min_items=9, repeats=False)
    assert remaining(constraints, rows_of(TOY, row), prompt_lengths=0) == [list(EOS)]
    assert remaining(constraints, rows_of(TOY, row + row[:3]), prompt_lengths=0) == [list(EOS)], "one was made twice"
    assert remaining(constraints, rows_of(TOY, row), prompt_lengths=4) == [[10]], "the first is the prompt's"


def test_a_repeat_that_the_filter_bans_too_is_subtracted_once():
    tensors = TrieTensors(TOY.trie)
    filters = FilterTensors(TOY.trie.filter(without=[0]), tensors, 1)
    row = TOY.tokens(TOY.items[0]) * 2 + TOY.tokens((0, 0))
    masker = TokenMasker(tensors, Constraints(repeats=False), eos_ids=EOS)
    assert masker.allowed(rows_of(TOY, row), prompt_lengths=0, filters=filters) == [[18]]


def test_only_a_whole_id_after_the_begin_marker_is_closed():
    begin, end = TOY.markers
    whole, stray = TOY.tokens((0, 0, 3)), [*TOY.tokens((0, 0)), TEXT]
    rows = rows_of(TOY, [begin], [begin, *whole], whole, [begin, *stray], [begin, *whole[::-1]], [begin, *whole, end])
    constraints = Constraints(markers=TOY.markers, min_items=0)
    free = [*EOS, begin]
    assert remaining(constraints, rows, prompt_lengths=rows.shape[1]) == [[10, 12], [end], free, free, [13, 14], free]


def test_no_rows_are_no_problem():
    masker = TokenMasker(TrieTensors(TOY.trie))
    assert masker.mask_(torch.zeros(0, 30), torch.zeros(0, 5, dtype=torch.long)).shape == (0, 30)


def test_other_integers_than_int64_are_token_ids_too():
    rows = rows_of(TOY, TOY.tokens((0, 0))).int()
    assert remaining(Constraints(max_items=1, repeats=False), rows, prompt_lengths=0) == [[16, 18]]


def test_the_catalog_of_all_codes_lets_every_code_through():
    sizes = (3, 1, 5)
    world = World(sizes, tuple(product(*map(range, sizes))), base=4)
    masker = TokenMasker(TrieTensors(world.trie))
    rows = rows_of(world, *(world.tokens((2, 0, 0)[:depth]) for depth in range(3)))
    assert masker.allowed(rows) == [[4, 5, 6], [7], [8, 9, 10, 11, 12]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_items": -1}, "min_items=-1 should be None or an integer of at least 0"),
        ({"max_items": 0}, "max_items=0 should be None or an integer of at least 1"),
        ({"max_items": True}, "max_items=True should be"),
        ({"min_items": 3, "max_items": 2}, "min_items=3 should be at most max_items=2"),
        ({"markers": True}, r"markers=True should be None or two token ids.*marker_ids"),
        ({"markers": (5, 5)}, r"markers=\(5, 5\) should be"),
    ],
)
def test_impossible_rules_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Constraints(**options)


def test_constraints_from_json_are_the_same_constraints():
    assert Constraints(markers=[5, 6]) == Constraints(markers=(5, 6))


def test_wrong_calls_say_what_to_give():
    trie = TrieTensors(TOY.trie)
    rows = torch.zeros(3, 4, dtype=torch.long)
    with pytest.raises(ConfigError, match="has no token ids"):
        TokenMasker(TrieTensors(Trie.from_codes(TOY.items, TOY.sizes)))
    with pytest.raises(ConfigError, match=r"eos_ids=\(\) but these constraints may end a sequence"):
        TokenMasker(trie, Constraints(max_items=1))
    with pytest.raises(ConfigError, match="token id 12 is a code of an item"):
        TokenMasker(trie, eos_ids=[12])
    with pytest.raises(ConfigError, match=r"eos_ids=\[5\] markers=\(5, 6\) should be distinct"):
        TokenMasker(trie, Constraints(markers=(5, 6)), eos_ids=[5])
    with pytest.raises(InputError, match=r"logits: vocabulary=18 should be at least 19.*semid\.extend"):
        TokenMasker(trie).mask_(torch.zeros(3, 18), rows)
    with pytest.raises(InputError, match="prompt_lengths=None but min_items, max_items and repeats=False"):
        TokenMasker(trie, Constraints(max_items=1), eos_ids=EOS).mask_(torch.zeros(3, 30), rows)
    with pytest.raises(InputError, match=r"prompt_lengths=5 should be inside 0\.\.4"):
        TokenMasker(trie).mask_(torch.zeros(3, 30), rows, prompt_lengths=5)
    with pytest.raises(InputError, match="2 filters for 3 rows"):
        TokenMasker(trie).mask_(torch.zeros(3, 30), rows, filters=FilterTensors([None, None], trie, 2))
    other = TrieTensors(Trie.from_codes([[0, 0, 1], [0, 0, 3], [0, 1, 0], [2, 1, 3]], (3, 2, 4)))
    with pytest.raises(ConfigError, match="filters: made from another trie"):
        TokenMasker(trie).mask_(torch.zeros(3, 30), rows, filters=FilterTensors([None] * 3, other, 3))
    with pytest.raises(ConfigError, match="vocab_size=None but free text"):
        TokenMasker(trie, Constraints(text=True), eos_ids=EOS).allowed(rows)


def test_markers_follow_the_codes():
    assert marker_ids(Vocabulary([3, 2, 4]), base=10) == TOY.markers
    with pytest.raises(ConfigError, match="lacks a marker"):
        marker_ids(Vocabulary([3], template="<a_{code}>"), base=0)
