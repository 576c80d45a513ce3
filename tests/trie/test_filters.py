"""A filter admits the items it was told to, no matter how they are named, and no node without such an item."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.errors import ConfigError, InputError, UnknownIDError
from semid.ledger.ledger import Ledger
from semid.trie import Filter, Trie, filters
from tests.helpers.prefix_model import Model, catalogs

WAYS = ["ids", "rows", "list of rows", "bool"]


def named(rows: list[int], way: str, n_rows: int):
    """The same rows in one of the three notations, repeated ones too where the notation can say so."""
    if way == "ids":
        return [f"item {row}" for row in rows]
    if way == "bool":
        return np.isin(np.arange(n_rows), rows)
    return np.array(rows, np.int32) if way == "rows" else rows


@st.composite
def restricted(draw: st.DrawFn) -> tuple[Model, Trie, list[tuple[str, list[int] | None, list[int] | None]]]:
    """A trie over a ledger with retired items, and one to three restrictions (notation, only, without) in turn."""
    model = draw(catalogs())
    ledger = Ledger.create([f"item {row}" for row in range(len(model.items))], model.codes)
    row = st.integers(0, len(model.items) - 1)
    ledger = ledger.retire({f"item {gone}" for gone in draw(st.lists(row, max_size=len(model.items) // 2))})
    some = st.none() | st.lists(row, max_size=12)
    steps = draw(st.lists(st.tuples(st.sampled_from(WAYS), some, some), min_size=1, max_size=3))
    return model, Trie.from_ledger(ledger, model.sizes), steps


def apply(trie: Trie, steps: list) -> tuple[Filter | None, set[int]]:
    """The filter, None if one of them bans everything, and the rows it should admit."""
    made, admitted = None, set(trie.rows.tolist())
    for way, only, without in steps:
        admitted = admitted if only is None else admitted & set(only)
        admitted -= set(without or ())
        chosen = [rows if rows is None else named(rows, way, trie.n_rows) for rows in (only, without)]
        if not admitted:
            with pytest.raises(ConfigError, match=r"bans all \d+ items, so nothing could be generated\. Admit"):
                trie.filter(chosen[0], without=chosen[1], within=made)
            return None, admitted
        made = trie.filter(chosen[0], without=chosen[1], within=made)
    return made, admitted


@pytest.mark.parametrize("few", [0, 2, 4096])
@given(restricted())
def test_a_filter_admits_exactly_the_items_it_was_told_to(few, case):
    model, trie, steps = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "FEW", few)
        made, admitted = apply(trie, steps)
    if made is None:
        return
    assert set(trie.rows[made.mask()].tolist()) == admitted
    assert made.n_admitted == len(admitted)
    assert made.banned is None or len(made.banned) <= few
    order = sorted({item[:depth] for item in live(model, trie) for depth in range(trie.n_levels + 1)}, key=depth_first)
    start, stop = trie.ranks(np.arange(len(order)))
    below = [any(model.items[row][: len(prefix)] == prefix for row in admitted) for prefix in order]
    assert made.admits(start, stop).tolist() == below  # a node is open exactly if an admitted item lies below
    assert made.admits(start[:, None], stop[:, None]).shape == (len(order), 1)


def live(model: Model, trie: Trie) -> list[tuple[int, ...]]:
    return [model.items[row] for row in trie.rows.tolist()]


def depth_first(prefix: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(prefix), prefix


@given(restricted())
def test_all_notations_mean_the_same(case):
    _, trie, steps = case
    masks = []
    for way in WAYS:
        made, _ = apply(trie, [(way, only, without) for _, only, without in steps])
        masks.append(None if made is None else made.mask().tolist())
    assert all(mask == masks[0] for mask in masks)


@given(catalogs(), st.data())
def test_generation_under_a_filter_never_meets_a_dead_end(model, data):
    trie = model.trie()
    only = data.draw(st.lists(st.integers(0, len(model.items) - 1), min_size=1, max_size=3))
    made = trie.filter(only=only)
    reached, frontier = [], np.zeros(1, np.int64)
    for _ in range(trie.n_levels):
        _, child, valid = trie.children(frontier)
        open_ = valid & made.admits(*trie.ranks(child))
        assert open_.any(axis=1).all()  # every node that was entered leads on
        frontier = child[open_]
    reached = trie.rows_of(frontier)
    assert sorted(reached.tolist()) == sorted(set(only))


# ---- one by one


@pytest.fixture
def trie() -> Trie:
    ledger = Ledger.create([f"item {n}" for n in range(9)], [[n // 3, n % 3] for n in range(9)])
    return Trie.from_ledger(ledger.retire(["item 4"]), (3, 3))


def test_a_filter_that_admits_one_item_leads_to_it_alone(trie):
    made = trie.filter(only="item 5")
    assert (made.n_admitted, trie.rows[made.mask()].tolist()) == (1, [5])
    codes, child, valid = trie.children(np.array([0]))
    assert codes[valid & made.admits(*trie.ranks(child))].tolist() == [1]


def test_repeated_and_retired_items_are_banned_once_and_not_at_all(trie):
    made = trie.filter(without=["item 3", "item 3", "item 4"])
    assert made.n_admitted == 7
    start, stop = trie.ranks(trie.walk([[1]]))
    assert made.admits(start, stop).tolist() == [True]  # item 5 still lies below: each ban counts once
    assert trie.filter(without=["item 3"], within=trie.filter(only=[4, 5, 6])).n_admitted == 2


def test_nothing_but_retired_items_is_nothing(trie):
    with pytest.raises(ConfigError, match="bans all 8 items"):
        trie.filter(only=["item 4"])
    with pytest.raises(ConfigError, match="bans all 8 items"):
        trie.filter(only=[])
    with pytest.raises(ConfigError, match="bans all 8 items"):
        trie.filter(without=range(9))


def test_no_restriction_admits_everything(trie):
    for made in (trie.filter(), trie.filter(without=[]), trie.filter(only=range(9)), trie.filter(without=["item 4"])):
        assert made.mask().all() and made.n_admitted == 8


def test_few_bans_share_the_counts_and_many_do_not():
    trie = Trie.from_codes([[n // 100, n % 100] for n in range(10_000)], (100, 100))
    stock = trie.filter(only=range(0, 10_000, 2))
    for history in ([2, 4, 5], range(4000)):
        made = trie.filter(without=history, within=stock)
        assert made.counts is stock.counts
        assert made.n_admitted == 5000 - len([row for row in history if row % 2 == 0])
    many = trie.filter(without=range(1000, 10_000), within=stock)  # 4500 of them in stock
    added = trie.filter(without=range(1000, 9000), within=trie.filter(without=range(9000, 10_000), within=stock))
    for made in (many, added):
        assert made.banned is None and made.counts is not stock.counts
        assert trie.rows[made.mask()].tolist() == list(range(0, 1000, 2))


def test_a_filter_leaves_what_it_narrows_as_it_was(trie):
    stock = trie.filter(only=range(6))
    before = stock.mask()
    trie.filter(without=[0, 1], within=trie.filter(without=[2], within=stock))
    assert (stock.mask() == before).all() and stock.n_admitted == 5


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        (["item 1", "item 10"], UnknownIDError, r"'item 10' is not among the 9 items\. Did you mean"),
        ([0, 9], InputError, r"without: rows 0\.\.9 should be inside 0\.\.8"),
        ([-1], InputError, r"without: rows -1\.\.-1 should be inside"),
        (np.zeros(8, bool), InputError, r"without: shape=\(8,\) should be \[9\], one bool per item"),
        ([True] * 8, InputError, r"shape=\(8,\) should be \[9\]"),
        ([0.5], InputError, r"without: should be item ids, rows, or bool \[9\]"),
        (["item 1", 2], InputError, "should be item ids, rows"),
        ([[1, 2]], InputError, "should be item ids, rows"),
        (3, InputError, "without=3 should be item ids, rows"),
        (np.array(3), InputError, "should be item ids, rows"),
    ],
)
def test_items_that_are_none_of_the_three_notations_are_refused(trie, items, error, message):
    with pytest.raises(error, match=message):
        trie.filter(without=items)


def test_ids_need_a_trie_that_knows_them():
    with pytest.raises(ConfigError, match=r"only: this trie was made from codes and has no item ids\. Give rows"):
        Trie.from_codes([[0, 1]], (4, 4)).filter(only=["item 0"])


def test_a_filter_of_another_trie_is_refused(trie):
    with pytest.raises(ConfigError, match=r"within: made from another trie, of 1 items, this one has 8\. Make it"):
        trie.filter(within=Trie.from_codes([[0, 1]], (4, 4)).filter())


CODES = [[n // 3, n % 3] for n in range(8)]


def one_in_one_out() -> dict[str, Trie]:
    """Tries of a catalog after one item came and one went: as many items as before, and as many of each code."""
    ledger = Ledger.create([f"item {n}" for n in range(8)], CODES)
    gone = ledger.retire(["item 4"])
    return {
        "other codes": Trie.from_ledger(gone.append(["item 8"], [[2, 2]]), (3, 3)),
        "the codes of the one that went": Trie.from_ledger(
            gone.retire(["item 5"]).append(["item 8", "item 9"], [CODES[4], CODES[5]], reuse_after=1), (3, 3)
        ),
        "made anew, another id in the same row": Trie.from_ledger(
            Ledger.create([f"item {n if n != 4 else 8}" for n in range(8)], CODES), (3, 3)
        ),
        "codes alone": Trie.from_codes([*CODES[:4], [2, 2], *CODES[5:]], (3, 3)),
    }


@pytest.mark.parametrize("name", one_in_one_out())
def test_a_filter_of_yesterday_is_refused_though_there_are_as_many_items_today(name):
    today = one_in_one_out()[name]
    yesterday = Trie.from_ledger(Ledger.create([f"item {n}" for n in range(8)], CODES), (3, 3))
    assert len(today) == len(yesterday)
    for made in (yesterday.filter(), yesterday.filter(without=[4]), yesterday.filter(only=[3, 4])):
        with pytest.raises(ConfigError, match=r"from another trie, of 8 items too, but not the same\. Make it again"):
            today.filter(within=made)


def test_a_filter_that_does_not_say_where_it_is_from_is_refused(trie):
    """As those that an older semid pickled."""
    with pytest.raises(ConfigError, match="within: made from another trie"):
        trie.filter(within=Filter(8))


IN_ANOTHER_PROCESS = """
    import pickle, sys
    from semid.trie import Trie
    trie = Trie.load(sys.argv[1])
    found = trie.filter(without=[0], within=pickle.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(pickle.dumps((trie.rows[found.mask()].tolist(), found)))
"""


def test_a_filter_fits_the_same_trie_opened_again_and_in_another_process(trie, tmp_path):
    trie.save(tmp_path / "a.trie")
    made = pickle.loads(pickle.dumps(trie.filter(without=["item 3"])))
    assert Trie.load(tmp_path / "a.trie").filter(within=made).n_admitted == 7
    assert trie.with_base(1000).filter(within=made).n_admitted == 7
    code = [sys.executable, "-c", textwrap.dedent(IN_ANOTHER_PROCESS), str(tmp_path / "a.trie")]
    rows, back = pickle.loads(subprocess.run(code, input=pickle.dumps(made), capture_output=True, check=True).stdout)
    assert rows == [1, 2, 5, 6, 7, 8]
    assert trie.filter(within=back).n_admitted == 6


def test_the_cut_of_a_ledger_into_segments_and_items_that_came_and_went_do_not_matter():
    ids = [f"item {n}" for n in range(8)]
    whole = Ledger.create(ids, CODES)
    grown = Ledger.create(ids[:7], CODES[:7]).append(ids[7:], CODES[7:])
    gone = grown.append(["item 8"], [[2, 2]]).retire(["item 8"])
    assert len(grown.segments) > 1
    made = Trie.from_ledger(whole, (3, 3)).filter(without=["item 3"])
    for ledger in (grown, gone):
        assert Trie.from_ledger(ledger, (3, 3)).filter(within=made).n_admitted == 7


def test_the_file_of_a_trie_remembers_which_items_it_is_of(tmp_path):
    """A trie opened without its artifact has no ids at hand, and must refuse a filter of other ones all the same."""
    yesterday = Trie.from_ledger(Ledger.create([f"item {n}" for n in range(8)], CODES), (3, 3))
    today = one_in_one_out()["made anew, another id in the same row"]
    today.save(tmp_path / "a.trie")
    opened = Trie.load(tmp_path / "a.trie")
    assert opened.filter(within=today.filter(without=[4])).n_admitted == 7
    with pytest.raises(ConfigError, match="made from another trie"):
        opened.filter(within=yesterday.filter(without=[4]))


def test_a_trie_of_codes_alone_takes_the_filters_of_one_that_knows_ids():
    """Its rows are all that it knows, and they are the same."""
    ledger = Ledger.create([f"item {n}" for n in range(8)], CODES)
    known, unknown = Trie.from_ledger(ledger, (3, 3)), Trie.from_codes(CODES, (3, 3))
    assert unknown.filter(within=known.filter(without=[4])).n_admitted == 7
    assert known.filter(within=unknown.filter(without=[4])).n_admitted == 7
