"""The trie in torch answers as the NumPy trie does, and reads off the end of a row of token ids where it stands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate import FilterTensors, TrieTensors
from semid.trie import Filter, Trie
from tests.helpers.prefix_model import Model, catalogs

BASE = 1000


def equal(tensor: torch.Tensor, array: np.ndarray) -> bool:
    return tuple(tensor.shape) == array.shape and bool((tensor.cpu().numpy() == array).all())


# ---- the same as NumPy


@given(catalogs(), st.data())
def test_children_are_those_of_the_numpy_trie_at_any_depths_at_once(model, data):
    trie = model.trie()
    tensors = TrieTensors(trie)
    nodes = np.array(data.draw(st.lists(st.integers(-1, trie.level_starts[-1] - 1), min_size=1, max_size=12)))
    codes, children, valid = trie.children(nodes)
    width = max(trie.fanout)
    ours = tensors.children(torch.from_numpy(nodes), width)
    narrow = codes.shape[1]
    assert not ours[2][:, narrow:].any()
    assert equal(ours[2][:, :narrow], valid)
    assert (ours[0][:, :narrow].numpy()[valid] == codes[valid]).all()
    assert (ours[1][:, :narrow].numpy()[valid] == children[valid]).all()
    assert [tensor.dtype for tensor in ours] == [torch.int64, torch.int64, torch.bool]
    folded = tensors.children(torch.from_numpy(nodes).view(1, -1, 1), width)  # any shape of nodes
    assert all((a.view(b.shape) == b).all() for a, b in zip(folded, ours, strict=True))


@given(catalogs(), st.data())
def test_walking_and_ranks_are_those_of_the_numpy_trie(model, data):
    trie = model.trie()
    tensors = TrieTensors(trie)
    nodes = np.array(data.draw(st.lists(st.integers(-1, trie.level_starts[-1] - 1), min_size=1, max_size=12)))
    codes = np.array(data.draw(st.lists(st.integers(-2, max(model.sizes)), min_size=len(nodes), max_size=len(nodes))))
    child = tensors.child(torch.from_numpy(nodes), torch.from_numpy(codes))
    assert equal(child, trie.walk(codes[:, None], nodes))
    assert equal(tensors.rows_of(child.view(-1, 1)), trie.rows_of(child.numpy())[:, None])
    real = nodes[nodes >= 0]
    for ours, theirs in zip(tensors.ranks(torch.from_numpy(real).view(1, -1)), trie.ranks(real), strict=True):
        assert equal(ours, theirs[None])


@st.composite
def requests(draw: st.DrawFn) -> tuple[Trie, list[Filter | None]]:
    """A trie, and per request no filter, a list of bans, counts, or both; some share their counts."""
    model = draw(catalogs())
    trie = model.trie()
    row = st.integers(0, len(model.items) - 1)
    stock = trie.filter(only=draw(st.lists(row, min_size=1)))
    filters: list[Filter | None] = []
    for _ in range(draw(st.integers(1, 4))):
        within = draw(st.sampled_from([None, stock]))
        banned = draw(st.lists(row, max_size=5))
        try:
            filters.append(trie.filter(without=banned, within=within))
        except ConfigError:
            filters.append(draw(st.sampled_from([None, stock])))
    return trie, filters


@given(requests(), st.data())
def test_each_request_has_its_own_filter_at_nodes_of_any_depth(case, data):
    trie, filters = case
    tensors = TrieTensors(trie)
    admitting = FilterTensors(filters, tensors, len(filters))
    n_nodes = trie.level_starts[-1]
    rows = data.draw(st.integers(1, 10))
    request = data.draw(st.lists(st.integers(0, len(filters) - 1), min_size=rows, max_size=rows))
    nodes = np.array(data.draw(st.lists(st.integers(0, n_nodes - 1), min_size=rows * 3, max_size=rows * 3)))
    nodes = nodes.reshape(rows, 3)
    start, stop = trie.ranks(nodes)
    whole = Filter(len(trie))
    expected = np.stack([(filters[r] or whole).admits(start[i], stop[i]) for i, r in enumerate(request)])
    ends = torch.from_numpy(start), torch.from_numpy(stop)
    assert equal(admitting.admits(*ends, torch.tensor(request)), expected)
    assert equal(admitting.admits(ends[0][:, 0], ends[1][:, 0], torch.tensor(request)), expected[:, 0])
    assert admitting.n_admitted == [(one or whole).n_admitted for one in filters]
    none = torch.zeros(0, dtype=torch.long)
    assert admitting.admits(none.view(0, 3), none.view(0, 3), none).shape == (0, 3)


def test_one_filter_serves_all_requests_and_shared_counts_are_stored_once():
    trie = Trie.from_codes([[n // 10, n % 10] for n in range(100)], (10, 10))
    tensors, stock = TrieTensors(trie), trie.filter(only=range(50))
    one = FilterTensors(stock, tensors, 3)
    users = [trie.filter(without=[n], within=stock) for n in range(20)]
    many = FilterTensors([*users, None], tensors, 21)
    assert one.n_admitted == [50] * 3 and many.n_admitted == [49] * 20 + [100]
    assert one.counts.numel() == 101 and many.counts.numel() == 202
    ends = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[1, 2], [1, 2]])
    assert many.admits(*ends, torch.tensor([0, 1])).tolist() == [[False, True], [True, False]]


def test_filters_of_a_wrong_number_or_another_trie_are_refused():
    tensors = TrieTensors(Trie.from_codes([[0, 1], [0, 2]], (4, 4)))
    other = Trie.from_codes([[0, 1]], (4, 4)).filter()
    with pytest.raises(InputError, match=r"2 filters for 3 requests\. Give one, or one for each"):
        FilterTensors([None, None], tensors, 3)
    with pytest.raises(ConfigError, match="filter: made from another trie, of 1 items, this one has 2"):
        FilterTensors(other, tensors, 1)
    as_many = Trie.from_codes([[0, 1], [0, 3]], (4, 4)).filter(only=[1])
    with pytest.raises(ConfigError, match="filter: made from another trie, of 2 items too, but not the same"):
        FilterTensors([None, as_many], tensors, 2)


# ---- the end of a row of token ids


def end_by_hand(model: Model, token_ids: list[int]) -> tuple[int, ...]:
    """The prefix that the last tokens are, tried at every length; () for none."""
    offsets = np.cumsum([0, *model.sizes])

    def place(token_id: int) -> tuple[int, int]:
        for level, size in enumerate(model.sizes):
            if 0 <= token_id - BASE - offsets[level] < size:
                return level, int(token_id - BASE - offsets[level])
        return -1, 0

    for depth in range(1, min(len(model.sizes) - 1, len(token_ids)) + 1):
        places = [place(token_id) for token_id in token_ids[-depth:]]
        if [level for level, _ in places] == list(range(depth)):
            codes = tuple(code for _, code in places)
            return codes if codes in model.prefixes else ()
    return ()


@given(catalogs(), st.data())
def test_the_node_at_the_end_is_the_prefix_that_the_last_tokens_are(model, data):
    trie = model.trie(BASE)
    offsets = np.cumsum([0, *model.sizes])
    token = st.integers(BASE - 2, BASE + int(offsets[-1]) + 1)
    item = st.sampled_from(model.items).map(lambda codes: [BASE + int(o) + c for o, c in zip(offsets, codes)])  # noqa: B905
    cut = st.tuples(item, st.integers(0, trie.n_levels)).map(lambda drawn: drawn[0][: drawn[1]])
    piece = item | cut | st.lists(token, max_size=3) | st.just([7])
    length = data.draw(st.integers(0, 3 * trie.n_levels))
    rows = []
    for _ in range(data.draw(st.integers(1, 5))):  # rows that end at different depths
        row = [token_id for drawn in data.draw(st.lists(piece, max_size=5)) for token_id in drawn]
        rows.append(([7] * length + row)[len(row) :])
    assert {len(row) for row in rows} == {length}
    nodes = TrieTensors(trie).nodes_at_end(torch.tensor(rows, dtype=torch.long).view(len(rows), length))
    prefixes = [end_by_hand(model, row) for row in rows]
    expected = [int(trie.walk(np.array([prefix], np.int64).reshape(1, -1))[0]) for prefix in prefixes]
    assert nodes.tolist() == expected


@pytest.fixture(scope="module")
def tensors() -> TrieTensors:
    """Items 0-0-0, 0-1-2, 3-0-1; tokens of level 0 are 10..13, of level 1 14..17, of level 2 18..21, else text."""
    return TrieTensors(Trie.from_codes([[0, 0, 0], [0, 1, 2], [3, 0, 1]], (4, 4, 4), base=10))


@pytest.mark.parametrize(
    ("token_ids", "prefix"),
    [
        ([1, 2, 3], []),  # text
        ([1, 10, 15, 20], []),  # a whole item
        ([10, 15, 20, 13], [3]),  # the next one begins
        ([1, 10, 15], [0, 1]),  # a cut item is continued
        ([1, 10, 15, 2], []),  # text after a cut item
        ([1, 18], []),  # level 2 after text
        ([10, 18], []),  # level 1 left out
        ([10, 10, 14], [0, 0]),  # level 0 twice: the second counts
        ([14, 10], [0]),
        ([13, 15], []),  # the beginning of no item
        ([12], []),  # nor this
        ([22, 23, 10], [0]),  # markers are text
        ([10], [0]),  # shorter than L - 1
        ([15], []),
        ([], []),
        ([9, -100, 10, 14], [0, 0]),
    ],
)
def test_where_a_row_of_tokens_stands(tensors, token_ids, prefix):
    rows = torch.tensor([token_ids], dtype=torch.long)
    expected = tensors.trie.walk(np.array([prefix], np.int64).reshape(1, -1)).tolist()
    assert tensors.nodes_at_end(rows).tolist() == expected
    assert tensors.nodes_at_end(rows.int()).tolist() == expected  # as some engines hold them


def test_items_of_one_level_are_never_half_written():
    tensors = TrieTensors(Trie.from_codes([[0], [2]], (4,), base=10))
    assert tensors.nodes_at_end(torch.tensor([[10], [12], [5]])).tolist() == [0, 0, 0]


def test_levels_of_token_ids_are_told_apart(tensors):
    token_ids = torch.tensor([[9, 10, 13, 14], [17, 18, 21, 22]])
    expected = [[-1, 0, 0, 1], [1, 2, 2, -1]]
    assert tensors.levels(token_ids).tolist() == expected
    assert tensors.levels(token_ids.int()).tolist() == expected


def test_token_ids_need_a_base():
    tensors = TrieTensors(Trie.from_codes([[0, 1]], (4, 4)))
    with pytest.raises(ConfigError, match=r"has no token ids\. Make it with Trie\.from_tokenizer"):
        tensors.nodes_at_end(torch.tensor([[1]]))


def test_a_trie_mapped_from_a_file_is_copied_to_the_device(tmp_path):
    trie = Trie.from_codes([[0, 1], [0, 2], [3, 0]], (4, 300), base=10)
    trie.save(tmp_path / "a.trie")
    tensors = TrieTensors(Trie.load(tmp_path / "a.trie"))
    assert equal(tensors.codes, trie.codes) and equal(tensors.ptr, trie.ptr)
    tensors.ptr.add_(0)  # writable, unlike the file
