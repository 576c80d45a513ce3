import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from semid.errors import ArtifactError, InputError, UnknownIDError
from semid.ledger import Ledger, lookup
from semid.ledger import ledger as ledger_module

untimed = settings(deadline=None)  # a slow machine decides nothing here
IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def tables(draw, max_items=30):
    n_levels = draw(st.integers(1, 6))
    ids = draw(st.lists(IDS, unique=True, max_size=max_items))
    row = st.tuples(*[st.sampled_from([0, 1, 255, 256, 65535])] * n_levels)
    codes = draw(st.lists(row, unique=True, max_size=len(ids)))
    ids = ids[: len(codes)]
    return ids, np.array(codes, np.int64).reshape(-1, n_levels)


@untimed
@given(tables())
def test_every_id_leads_to_its_codes_and_back(table):
    ids, codes = table
    ledger = Ledger.create(ids, codes)
    rows = ledger.rows_of(ids)
    assert rows.tolist() == list(range(len(ids)))
    assert ledger.rows_of_codes(ledger.codes[rows]).tolist() == rows.tolist()
    assert ledger.check() == []


@untimed
@given(tables(), st.lists(IDS), st.data())
def test_look_up_agrees_with_a_dictionary(table, asked_ids, data):
    ids, codes = table
    ledger = Ledger.create(ids, codes)
    row_of = {item_id: row for row, item_id in enumerate(ids)}
    assert ledger.find_rows(asked_ids).tolist() == [row_of.get(item_id, -1) for item_id in asked_ids]
    value = st.sampled_from([-1, 0, 1, 2, 255, 256, 65535, 65536])
    asked = data.draw(st.lists(st.tuples(*[value] * codes.shape[1]), min_size=1))
    row_of_codes = {tuple(row): i for i, row in enumerate(codes.tolist())}
    assert ledger.rows_of_codes(asked).tolist() == [row_of_codes.get(row, -1) for row in asked]


@untimed
@given(tables())
def test_arrays_carry_the_whole_ledger(table):
    ledger = Ledger.create(*table)
    again = Ledger.from_arrays(ledger.arrays())
    assert again.rows_of(table[0]).tolist() == list(range(len(ledger)))
    assert same_arrays(again, ledger)


def same_arrays(a, b):
    return all(np.array_equal(a.arrays()[name], b.arrays()[name]) for name in b.arrays())


class Living(RuleBasedStateMachine):
    """Random changes to a ledger beside a plain dictionary: id -> (codes, added, retired)."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger.create([], np.zeros((0, 2), np.uint16))
        self.model = {}
        self.generation = 0

    @rule(items=st.dictionaries(IDS, st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=5))
    def append(self, items):
        taken = {codes for codes, _, _ in self.model.values()}
        wrong = len(set(items.values())) < len(items) or any(
            item_id in self.model or codes in taken for item_id, codes in items.items()
        )
        if wrong:
            with pytest.raises(InputError):
                self.ledger.append(items, list(items.values()))
            return
        self.ledger = self.ledger.append(items, list(items.values()))
        self.generation += 1
        self.model |= {item_id: (codes, self.generation, 0) for item_id, codes in items.items()}

    @rule(data=st.data())
    def retire(self, data):
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True)) if self.model else []
        self.ledger = self.ledger.retire(chosen)
        live = [item_id for item_id in chosen if not self.model[item_id][2]]
        self.generation += bool(live)
        for item_id in live:
            self.model[item_id] = (*self.model[item_id][:2], self.generation)

    @rule()
    def reload(self):
        self.ledger = Ledger.from_arrays({k: v.copy() for k, v in self.ledger.arrays().items()})

    @invariant()
    def agrees(self):
        ledger = self.ledger
        assert ledger.check() == []
        assert list(ledger.item_ids) == list(self.model)
        assert [
            (tuple(codes), added, retired)
            for codes, added, retired in zip(
                ledger.codes.tolist(), ledger.generation.tolist(), ledger.retired_in.tolist(), strict=True
            )
        ] == list(self.model.values())
        assert ledger.last_generation == self.generation
        assert ledger.live.tolist() == [retired == 0 for _, _, retired in self.model.values()]


TestLiving = Living.TestCase
TestLiving.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_adding_and_retiring_leave_the_old_ledger_as_it_was():
    old = Ledger.create(["a", "b"], [[0, 0], [0, 1]])
    before = {name: array.copy() for name, array in old.arrays().items()}
    new = old.append(["c"], [[1, 0]]).retire(["a"])
    assert all(np.array_equal(old.arrays()[name], before[name]) for name in before)
    assert np.array_equal(new.codes[:2], old.codes)


def test_codes_and_ids_of_retired_items_are_not_given_out_again():
    ledger = Ledger.create(["a", "b"], [[0, 0], [0, 1]]).retire(["a"])
    with pytest.raises(InputError, match=r"item 'c': codes \[0, 0\] belong to 'a'"):
        ledger.append(["c"], [[0, 0]])
    with pytest.raises(InputError, match="item id 'a' exists"):
        ledger.append(["a"], [[5, 5]])


def test_changes_that_change_nothing_return_the_same_ledger():
    ledger = Ledger.create(["a", "b"], [[0, 0], [0, 1]]).retire(["a"])
    assert ledger.retire(["a"]) is ledger
    assert ledger.append([], []) is ledger


def test_repeated_ids_and_codes_are_refused_by_name():
    with pytest.raises(InputError, match="item id 'x' comes twice"):
        Ledger.create(["x", "y", "x"], [[0], [1], [2]])
    with pytest.raises(InputError, match=r"items 'x' and 'z' have the same codes \[4\]"):
        Ledger.create(["x", "y", "z"], [[4], [1], [4]])


@pytest.mark.parametrize("codes", [[[0], [65536]], [[0], [-1]], [[0.0], [1.0]], [[0]], [0, 1], [[], []]])
def test_codes_that_cannot_be_stored_are_refused(codes):
    with pytest.raises(InputError, match=r"^codes"):
        Ledger.create(["x", "y"], codes)


def test_a_single_string_is_not_a_list_of_ids():
    with pytest.raises(InputError, match=r"Write \['ab'\]"):
        Ledger.create("ab", [[0], [1]])
    with pytest.raises(InputError, match=r"Write \['ab'\]"):
        Ledger.create(["a", "b"], [[0], [1]]).rows_of("ab")


def test_unknown_ids_are_named_with_their_nearest_ids():
    ledger = Ledger.create([f"B{i:06d}" for i in range(5000)], np.arange(10000).reshape(-1, 2))
    with pytest.raises(UnknownIDError) as error:
        ledger.rows_of(["B000001", "b004711", "quite another", "\ud800", ""])
    assert str(error.value).splitlines() == [
        "item id 'b004711' is not among the 5000 items. Did you mean 'B004711'?",
        "item id 'quite another' is not among the 5000 items.",
        "item id '\\ud800' is not among the 5000 items.",
        "item id '' is not among the 5000 items.",
    ]


def test_many_unknown_ids_are_counted():
    with pytest.raises(UnknownIDError, match="and 90 more"):
        Ledger.create(["a"], [[0]]).rows_of([f"x{i}" for i in range(100)])


def test_long_ids_and_ids_that_look_like_tokens_are_ordinary():
    ids = ["x" * 1_000_000, "<s_a_1>", "a\tb\nc", "", "0", "00"]
    ledger = Ledger.create(ids, np.arange(6).reshape(-1, 1))
    assert ledger.rows_of(ids[::-1]).tolist() == [5, 4, 3, 2, 1, 0]


def test_ids_with_equal_hashes_are_told_apart(monkeypatch):
    def hash_by_length(encoded):  # nearly everything collides
        return np.array([len(piece) for piece in encoded], np.uint64)

    monkeypatch.setattr(lookup, "hashes_of", hash_by_length)
    monkeypatch.setattr(ledger_module, "hashes_of", hash_by_length)
    ids = [f"{i:02d}" for i in range(40)] + ["a", "b"]
    ledger = Ledger.create(ids[:20], np.arange(20).reshape(-1, 1))
    ledger = ledger.append(ids[20:], np.arange(20, 42).reshape(-1, 1))
    assert ledger.rows_of(ids).tolist() == list(range(42))
    assert ledger.find_rows(["xx", "c", "zzz"]).tolist() == [-1, -1, -1]
    assert ledger.check() == []
    with pytest.raises(InputError, match="item id '07' comes twice"):
        Ledger.create([*ids, "07"], np.arange(43).reshape(-1, 1))


def test_hashes_are_the_same_everywhere():
    packed = Ledger.create(["nail polish", "crème", ""], [[0], [1], [2]]).item_ids
    # written into artifacts, so they may never change
    assert [hex(value) for value in lookup.hash_ids(packed)] == [
        "0x55742ecb4beee65e",
        "0xe052401b07ff38ba",
        "0xb4b2797457a0a6e4",
    ]


@pytest.mark.parametrize("name", list(Ledger.create(["a"], [[1]], ["A"]).arrays()))
def test_missing_and_misshapen_arrays_are_named(name):
    arrays = Ledger.create(["a", "b"], [[1], [2]], ["A", "B"]).retire(["a"]).append([], [], revised={1: "b"}).arrays()
    for wrong in (None, arrays[name].astype(np.float32), arrays[name][None], arrays[name][:-1]):
        if name.endswith(".data") and wrong is not None and wrong.ndim == 1 and wrong.dtype == np.uint8:
            continue  # any length may be right: `check` knows
        if wrong is not None and np.array_equal(wrong, arrays[name]) and wrong.dtype == arrays[name].dtype:
            continue  # empty: nothing to cut off
        broken = {key: array for key, array in (arrays | {name: wrong}).items() if array is not None}
        with pytest.raises(ArtifactError, match="array "):
            Ledger.from_arrays(broken)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("item_ids.offsets", [0, 2, 1, 3], "item_ids.offsets"),
        ("item_ids.data", [0xFF, 98, 99], "is not UTF-8 at byte 0"),
        ("item_ids.data", [97, 0xC3, 0xA9], "cuts a character in two"),
        ("item_ids.data", [97, 97, 99], "id_hashes, id_order"),
        ("codes", [[1], [2], [2]], "codes: 'b' and 'c' have the same"),
        ("codes", [[1], [3], [2]], "code_order"),
        ("codes", [[1], [2], [9]], "codes: level 0 has code 9, expected below 8"),
        ("generation", [0, 1, 0], "generation"),
        ("generation", [-1, 0, 0], "generation"),
        ("retired.generation", [0], "retired.generation"),
        ("retired.rows", [3], "retired.rows"),
        ("newest", [0], "newest"),
        ("id_hashes", [1, 2, 3], "id_hashes, id_order"),
        ("id_order", [0, 0, 1], "id_hashes, id_order"),
        ("id_order", [0, 1, 7], "id_hashes, id_order"),
        ("code_order", [0, 1, -1], "code_order"),
    ],
)
def test_check_finds_each_broken_invariant(name, value, problem):
    arrays = Ledger.create(["a", "b", "c"], [[1], [2], [3]]).retire(["b"]).arrays()
    arrays[name] = np.array(value, arrays[name].dtype)
    assert any(problem in line for line in Ledger.from_arrays(arrays).check([8]))


@untimed
@given(st.data())
def test_check_survives_any_content(data):
    ledger = Ledger.create(["a", "bé", "c"], [[1, 2], [2, 2], [3, 0]])
    arrays = {name: array.copy() for name, array in ledger.arrays().items()}
    name = data.draw(st.sampled_from(sorted(arrays)))
    raw = arrays[name].reshape(-1).view(np.uint8)
    assume(len(raw))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    changed = Ledger.from_arrays(arrays)
    # a flipped byte is noticed, unless the result is another sound ledger
    if changed.check() == []:
        assert len(set(changed.item_ids)) == 3
        assert len({tuple(row) for row in changed.codes.tolist()}) == 3


def test_an_empty_ledger_answers():
    ledger = Ledger.create([], np.zeros((0, 3), np.uint16))
    assert ledger.find_rows(["a"]).tolist() == [-1]
    assert ledger.rows_of_codes([[0, 0, 0]]).tolist() == [-1]
    assert ledger.append(["a"], [[0, 0, 0]]).rows_of(["a"]).tolist() == [0]


def test_a_ledger_prints_as_one_line():
    ledger = Ledger.create(["B1", "B2"], [[0, 1], [0, 2]])
    assert repr(ledger) == "Ledger(2 items, 2 levels, generation 0)"
    later = ledger.append(["B3"], [[3, 0]]).retire(["B1"])
    assert repr(later) == "Ledger(3 items, 1 of them retired, 2 levels, generation 2)"
    assert repr(later.segments[0]) == "Segment(3 rows from 0, 1 retired, 0 revised)"
