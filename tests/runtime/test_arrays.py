"""The order of rows by their bytes, against Python's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data.strings import PackedStrings, StringPacker
from semid.runtime.arrays import byte_order

# Many that begin each other, with ends before, at and after each eighth byte.
TEXTS = st.lists(
    st.text(st.sampled_from("ab\0é\U0001f600"), max_size=25)
    | st.integers(0, 26).map(lambda length: ("a\0" * 13)[:length]),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_strings_are_ordered_by_their_bytes_and_equal_ones_by_their_place(strings):
    packed = PackedStrings.pack(strings)
    assert packed.order.tolist() == sorted(range(len(strings)), key=lambda row: strings[row].encode())
    rows, firsts = packed.repeats()
    expected = [(row, strings.index(text)) for row, text in enumerate(strings) if text in strings[:row]]
    assert list(zip(rows.tolist(), firsts.tolist(), strict=True)) == expected


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 7))
def test_packed_strings_equal_the_list_whatever_the_block(strings, block):
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semid.data.strings.BLOCK", block)
        packed = PackedStrings.pack(strings)
        assert packed == strings and list(packed) == strings and packed == PackedStrings.pack(strings)
        assert packed[1:4] == strings[1:4] and packed[::-2] == strings[::-2]
        assert packed != [*strings, ""] and packed != [text + "x" for text in strings] + ["x"]
        rows = np.random.default_rng(0).integers(0, max(1, len(strings)), 9 if strings else 0)
        assert packed.take(rows) == [strings[row] for row in rows]


def test_a_packer_pads_with_empty_strings():
    packer = StringPacker()
    packer.pad(2)
    packer.append("x")
    packer.pad(1)  # already longer
    packer.pad(5)
    assert packer.finish() == ["", "", "x", "", ""]


def test_no_rows_have_an_order():
    order, repeats = byte_order(np.zeros(0, np.int64), lambda rows, place: np.zeros(0, np.uint64))
    assert len(order) == len(repeats) == 0
