"""A ledger of segments is the ledger that one table would be, and answers for assignments as a plain set would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.assign.occupancy import CodeList
from semid.data.strings import PackedStrings
from semid.ledger import Ledger, Segment
from semid.ledger import ledger as ledger_module

SIZES = (3, 2, 4)
CODES = st.tuples(*(st.integers(0, size - 1) for size in SIZES))
PREFIXES = st.tuples(*(st.integers(0, size - 1) for size in SIZES[:-1]))
REUSE = st.sampled_from([None, 1, 2, 3])
ONE_TABLE = 10**9  # times smaller that no segment is


class History:
    """Random changes to a ledger, beside a plain list of [item, codes, added, retired, text] a row."""

    def __init__(self):
        self.ledger = Ledger.create([], np.zeros((0, len(SIZES)), np.uint16), [])
        self.rows: list[list] = []
        self.generation = 0

    def in_use(self, reuse_after):
        """The codes that the next generation may not give out."""
        last = {row[1]: row for row in self.rows}
        return {
            codes
            for codes, (*_, retired, _) in last.items()
            if not (retired and reuse_after and self.generation + 1 - retired >= reuse_after)
        }

    def append(self, wanted, revised, reuse_after):
        taken = self.in_use(reuse_after)
        new = [codes for codes in dict.fromkeys(wanted) if codes not in taken]
        ids = [f"é{len(self.rows) + place}" for place in range(len(new))]
        texts = {row: f"revised {self.generation}" for row in revised if row < len(self.rows)}
        before = self.ledger
        self.ledger = before.append(
            ids, np.array(new, np.int64).reshape(-1, len(SIZES)), ids, revised=texts, reuse_after=reuse_after
        )
        assert (self.ledger is before) == (not new and not texts)
        self.generation += self.ledger is not before
        self.rows += [[item, codes, self.generation, 0, item] for item, codes in zip(ids, new, strict=True)]
        for row, text in texts.items():
            self.rows[row][4] = text

    def retire(self, rows):
        chosen = [row for row in rows if row < len(self.rows)]
        self.ledger = self.ledger.retire([self.rows[row][0] for row in chosen])
        fresh = {row for row in chosen if not self.rows[row][3]}
        self.generation += bool(fresh)
        for row in fresh:
            self.rows[row][3] = self.generation


ROWS = st.lists(st.integers(0, 30), max_size=4)
APPENDING = st.tuples(st.just("append"), st.lists(CODES, max_size=6), ROWS, REUSE)
RETIRING = st.tuples(st.just("retire"), ROWS)
STEPS = st.lists(APPENDING | RETIRING, max_size=8)


def replayed(steps, grown=ledger_module.MERGE_RATIO):
    """The history of these changes, where segments are merged that are not `grown` times smaller."""
    history = History()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "MERGE_RATIO", grown)
        for name, *choices in steps:
            getattr(history, name)(*choices)
    return history


histories = STEPS.map(replayed)


# ---- codes in use


@given(histories, REUSE, st.lists(CODES, max_size=8), st.lists(PREFIXES, unique=True, max_size=6))
def test_codes_in_use_are_a_plain_set(history, reuse_after, asked, prefixes):
    wanted = history.in_use(reuse_after)
    found = history.ledger.in_use(reuse_after)
    assert len(found) == len(wanted)
    codes = np.array(asked, np.int32).reshape(-1, len(SIZES))
    assert found.contains(codes).tolist() == [one in wanted for one in asked]
    counts, last = found.last_codes(np.array(prefixes, np.int32).reshape(-1, len(SIZES) - 1))
    assert counts.tolist() == [sum(one[:-1] == prefix for one in wanted) for prefix in prefixes]
    assert last.tolist() == [one[-1] for prefix in prefixes for one in sorted(wanted) if one[:-1] == prefix]


@given(histories, REUSE, st.lists(PREFIXES, max_size=6))
def test_a_ledger_and_a_list_of_its_codes_agree(history, reuse_after, prefixes):
    """Prefixes may come twice here."""
    asked = np.array(prefixes, np.int32).reshape(-1, len(SIZES) - 1)
    listed = CodeList(np.array(sorted(history.in_use(reuse_after)), np.int64).reshape(-1, len(SIZES)), SIZES)
    found = history.ledger.in_use(reuse_after)
    assert len(found) == len(listed)
    for ours, theirs in zip(found.last_codes(asked), listed.last_codes(asked), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()


def test_codes_of_one_level_have_the_empty_prefix():
    ledger = Ledger.create(["a", "b"], [[4], [2]]).append(["c"], [[3]])
    counts, last = ledger.in_use().last_codes(np.zeros((1, 0), np.int32))
    assert (counts.tolist(), last.tolist()) == ([3], [2, 3, 4])


@given(st.sets(st.tuples(st.sampled_from([0, 1, 65534, 65535]), st.sampled_from([0, 1, 65534, 65535]))))
def test_the_highest_codes_are_under_their_own_prefix(codes):
    ledger = Ledger.create(map(str, range(len(codes))), np.array(list(codes), np.int64).reshape(-1, 2))
    for prefix in (0, 1, 65534, 65535):
        counts, last = ledger.in_use().last_codes(np.array([[prefix]]))
        assert last.tolist() == sorted(code for first, code in codes if first == prefix)


# ---- segments


@given(histories)
def test_a_chain_says_what_one_table_would(history):
    ledger, rows = history.ledger, history.rows
    assert ledger.check(SIZES) == []
    assert list(ledger.item_ids) == [row[0] for row in rows]
    assert [tuple(codes) for codes in ledger.codes.tolist()] == [row[1] for row in rows]
    assert ledger.generation.tolist() == [row[2] for row in rows]
    assert ledger.retired_in.tolist() == [row[3] for row in rows]
    assert list(ledger.texts) == [row[4] for row in rows]
    assert ledger.last_generation == history.generation
    assert ledger.n_live == sum(not row[3] for row in rows)
    last = {row[1]: place for place, row in enumerate(rows)}
    assert ledger.rows_of_codes(list(last)).tolist() == list(last.values())
    asked = np.arange(len(rows))[::-1]
    assert ledger.retired_generations(asked).tolist() == [row[3] for row in rows[::-1]]
    assert ledger.codes_of(asked).tolist() == ledger.codes[::-1].tolist()


@given(STEPS, st.sampled_from([0, 1, ONE_TABLE]))
def test_when_segments_are_merged_changes_nothing_but_their_number(steps, grown):
    usual, ledger = replayed(steps).ledger, replayed(steps, grown).ledger
    assert ledger.check(SIZES) == []
    assert len(ledger.segments) == 1 or grown < ONE_TABLE
    for name in ("codes", "generation", "retired_in", "code_order"):
        assert getattr(ledger, name).tolist() == getattr(usual, name).tolist()
    assert list(ledger.texts) == list(usual.texts)
    asked = [*usual.item_ids, "nobody"]
    assert ledger.find_rows(asked).tolist() == usual.find_rows(asked).tolist()
    again = Ledger.from_arrays({name: array.copy() for name, array in ledger.arrays().items()})
    assert len(again.segments) == len(ledger.segments)
    assert again.check(SIZES) == []
    assert list(again.texts) == list(ledger.texts)


@given(STEPS)
def test_one_merged_segment_is_what_would_be_built_of_all_rows(steps):
    history = replayed(steps, ONE_TABLE)
    (merged,), rows, pack = history.ledger.segments, history.rows, PackedStrings.pack
    codes = np.array([row[1] for row in rows], np.uint16).reshape(-1, len(SIZES))
    whole = Segment.of(0, 0, pack(row[0] for row in rows), codes, pack(row[4] for row in rows))
    ours, theirs = merged.arrays(), whole.arrays()
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"generation", "newest", "retired.rows", "retired.generation"}:
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].tolist() == theirs[name].tolist(), name


def test_a_ledger_has_few_segments_and_rows_are_seldom_copied():
    ledger = Ledger.create(map(str, range(1000)), np.arange(2000).reshape(-1, 2))
    base, copied = ledger.segments[0], 0
    for number in range(1000, 1200):
        ledger = ledger.append([str(number)], [[9999, number]])
        copied += len(ledger.segments[-1])
        assert len(ledger.segments) <= 6
        assert ledger.segments[0] is base
    assert copied < 200 * 10
    weights = [segment.weight for segment in ledger.segments]
    assert all(4 * small < big for big, small in zip(weights, weights[1:], strict=False))
