"""The trie accepts exactly the catalog: held against a set of tuples, in memory and from a file."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semid.artifact.tensors import TensorFile, tensor_blocks
from semid.errors import ArtifactError, CapacityError, ConfigError, InputError
from semid.ledger.ledger import Ledger
from semid.tokenizer import SemanticIDTokenizer
from semid.trie import Trie
from semid.trie import trie as trie_module
from tests.faults.crashes import kill_at_every_call
from tests.helpers.prefix_model import Model, catalogs, prefixes

EQUAL = ("codes", "ptr", "rows")


def same(one: Trie, other: Trie) -> bool:
    numbers = ("sizes", "level_starts", "n_rows", "base")
    return all(getattr(one, name) == getattr(other, name) for name in numbers) and all(
        (getattr(one, name) == getattr(other, name)).all() and getattr(one, name).dtype == getattr(other, name).dtype
        for name in EQUAL
    )


def test_a_trie_is_shown_in_one_line_that_counts_its_items():
    codes = np.stack(np.unravel_index(np.arange(3000), (256, 256, 256, 256)), axis=1)
    trie = Trie.from_codes(codes, [256] * 4, base=50257)
    assert repr(trie) == "Trie(3000 items, 4x256, base=50257)"
    assert len(trie) == 3000
    assert repr(Trie.from_codes([[0, 1]], (4, 256))) == "Trie(1 item, sizes=(4, 256))"


def test_a_copy_or_a_pickle_of_a_trie_holds_its_fields_alone():
    trie = Trie.from_codes([[0, 1], [3, 0]], (4, 4), base=7)
    assert trie.rank_of_row.tolist() == [0, 1]
    trie.device_copies["cuda:0"] = object()
    for copied in (pickle.loads(pickle.dumps(trie)), copy.copy(trie)):
        assert same(copied, trie)
        assert not copied.device_copies
        assert copied.filter(only=[1]).n_admitted == 1


# ---- against the model


@given(catalogs(), st.data())
def test_a_prefix_is_matched_as_far_as_some_item_goes_with_it(model, data):
    trie = model.trie()
    depth = data.draw(st.integers(0, len(model.sizes)))
    rows = data.draw(st.lists(prefixes(model, depth), min_size=1, max_size=12))
    array = np.array(rows, np.int64).reshape(len(rows), depth)
    nodes = trie.walk(array)
    assert (nodes >= 0).tolist() == [row in model.prefixes for row in rows]
    assert trie.matched(array).tolist() == [model.matched(row) for row in rows]
    for row, node in zip(rows, nodes.tolist(), strict=True):
        if node >= 0:
            start, stop = (int(end) for end in trie.ranks(np.array(node)))
            assert list(range(start, stop)) == model.ranks(row)
            assert trie.level_starts[depth] <= node < trie.level_starts[depth + 1]


@given(catalogs())
def test_exactly_the_items_are_accepted_and_each_leads_to_its_row(model):
    trie = model.trie()
    nodes = trie.walk(model.codes)
    assert trie.rows_of(nodes).tolist() == list(range(len(model.items)))
    assert trie.codes_of(np.arange(len(trie))).tolist() == [list(item) for item in model.ranked]
    assert trie.codes_of(trie.rank_of_row).tolist() == [list(item) for item in model.items]
    assert len(trie) == trie.n_rows == len(model.items)
    if math.prod(model.sizes) < 2000:
        everything = list(np.ndindex(*model.sizes))
        assert [code for code in everything if trie.contains([code])[0]] == model.ranked


@given(catalogs())
def test_children_are_exactly_the_codes_that_some_item_continues_with(model):
    trie = model.trie()
    order = sorted(model.prefixes, key=lambda prefix: (len(prefix), prefix))
    codes, children, valid = trie.children(np.arange(len(order)))  # nodes of all depths in one call
    for node, prefix in enumerate(order):
        allowed = codes[node][valid[node]].tolist()
        assert allowed == model.children(prefix)
        assert [order[child] for child in children[node][valid[node]]] == [(*prefix, code) for code in allowed]
        assert trie.walk([prefix] if prefix else np.zeros((1, 0), int)).tolist() == [node]
    widest = [max(len(model.children(prefix)) for prefix in order if len(prefix) == d) for d in range(trie.n_levels)]
    assert list(trie.fanout) == widest
    assert trie.is_item(np.arange(len(order))).tolist() == [len(prefix) == trie.n_levels for prefix in order]


@given(catalogs(), st.data())
def test_a_walk_can_be_cut_anywhere_and_continued(model, data):
    trie = model.trie()
    item = data.draw(prefixes(model, trie.n_levels))
    cut = data.draw(st.integers(0, trie.n_levels))
    array = np.array([item])
    assert trie.walk(array[:, cut:], trie.walk(array[:, :cut])).tolist() == trie.walk(array).tolist()


@given(catalogs(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing_but_the_rows(model, chance):
    order = list(range(len(model.items)))
    chance.shuffle(order)
    one, other = model.trie(), Model([model.items[row] for row in order], list(model.sizes)).trie()
    assert (one.codes == other.codes).all() and (one.ptr == other.ptr).all()
    assert one.rows.tolist() == [order[row] for row in other.rows.tolist()]


@given(catalogs())
def test_nothing_follows_an_item_or_no_node(model):
    trie = model.trie()
    ends = np.array([-1, *range(trie.level_starts[-2], trie.level_starts[-1])])
    assert not trie.children(ends)[2].any()
    assert (trie.walk(np.zeros((len(ends), 1), int), ends) == -1).all()
    assert trie.rows_of(np.arange(-1, trie.level_starts[-2])).tolist() == [-1] * (trie.level_starts[-2] + 1)


@given(catalogs(), st.data())
def test_a_trie_of_a_ledger_accepts_its_live_items_alone(model, data):
    names = [f"item {row}" for row in range(len(model.items))]
    gone = data.draw(st.lists(st.sampled_from(names), max_size=len(names) - 1, unique=True))
    ledger = Ledger.create(names, model.codes).retire(gone)
    trie = Trie.from_ledger(ledger, model.sizes)
    rows = trie.rows_of(trie.walk(model.codes)).tolist()
    assert [trie.item_ids([row]) for row in rows] == [[None if name in gone else name] for name in names]
    kept = [row for row, name in enumerate(names) if name not in gone]
    assert same(Trie.from_codes(model.codes[kept], model.sizes), renumbered(trie, kept))
    assert (trie.rank_of_row[[names.index(name) for name in gone]] == -1).all()


def renumbered(trie: Trie, kept: list[int]) -> Trie:
    """The same trie, over a table of the kept rows alone."""
    rows = np.searchsorted(kept, trie.rows).astype(np.int32)
    return Trie(trie.sizes, trie.level_starts, trie.codes, trie.ptr, rows, len(kept), trie.base)


def test_random_codes_are_refused_at_the_depth_where_they_leave_the_catalog():
    rng = np.random.default_rng(0)
    items = np.unique(rng.integers(0, 16, (20_000, 5)), axis=0)
    trie = Trie.from_codes(rng.permutation(items), [16] * 5)
    strangers = rng.integers(0, 16, (5000, 5))
    known = [{tuple(row[:depth]) for row in items.tolist()} for depth in range(6)]
    depths = [max(d for d in range(6) if tuple(row[:d]) in known[d]) for row in strangers.tolist()]
    assert trie.matched(strangers).tolist() == depths
    assert set(depths) == {2, 3, 4, 5}
    assert (trie.contains(strangers) == (np.array(depths) == 5)).all()


def test_a_million_items_take_at_most_ten_bytes_each():
    keys = np.random.default_rng(0).choice(2**24, 1_000_000, replace=False).astype(np.int64) * 255
    codes = np.stack([keys >> shift & 255 for shift in (24, 16, 8, 0)], axis=1)
    trie = Trie.from_codes(codes, [256] * 4)
    assert trie.nbytes / len(trie) < 10
    assert (trie.rows_of(trie.walk(codes[:1000])) == np.arange(1000)).all()


# ---- from an artifact


@pytest.fixture(scope="module")
def ids() -> SemanticIDTokenizer:
    words = ["red", "blue", "shoe", "hat", "green", "sock"]
    chance = random.Random(0)
    items = [{"id": f"i{n:02}", "title": " ".join(chance.choices(words, k=3))} for n in range(50)]
    return SemanticIDTokenizer.fit(items, method="rqkmeans", levels=3, codebook_size=[4, 5, 6])


def changed(ids: SemanticIDTokenizer, **fields: object) -> SemanticIDTokenizer:
    """The same artifact with another ledger or provenance."""
    kept = {name: getattr(ids, name) for name in ("config", "vocabulary", "ledger", "provenance")}
    return SemanticIDTokenizer(**kept | fields, learned=ids.codebooks, encoder_state=ids.encoder_state)


class Table:
    """A language model's tokenizer, as far as the trie looks at it."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int | None]:
        places = {token: place for place, token in enumerate(self.tokens)}
        return [places.get(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.tokens[i] for i in ids]


def test_the_base_comes_from_the_tokenizer_the_argument_or_the_artifact(ids):
    noted = changed(ids, provenance=ids.provenance | {"base": 9})
    table = Table(["a", "b", *ids.vocabulary.tokens])
    assert Trie.from_tokenizer(ids).base is None
    assert Trie.from_tokenizer(noted).base == 9
    assert Trie.from_tokenizer(noted, base=5).base == 5
    assert Trie.from_tokenizer(noted, table).base == 2
    assert Trie.from_tokenizer(ids).with_base(7).base == 7
    with pytest.raises(ConfigError, match="lacks 17 of the 17 tokens"):
        Trie.from_tokenizer(ids, Table(["a"]))


def test_the_trie_of_an_artifact_leaves_out_retired_items(ids):
    later = changed(ids, ledger=ids.ledger.retire(["i07", "i11"]))
    trie = Trie.from_tokenizer(later)
    rows = trie.rows_of(trie.walk(ids.encode(["i06", "i07", "i11", "i49"])))
    assert trie.item_ids(rows) == ["i06", None, None, "i49"]
    assert len(trie) == 48 and trie.n_rows == 50
    everything = changed(ids, ledger=ids.ledger.retire(ids.item_ids))
    with pytest.raises(ConfigError, match=r"no live item, so there is nothing to generate\. Add items first"):
        Trie.from_tokenizer(everything)


# ---- wrong input


@pytest.mark.parametrize(
    ("codes", "sizes", "error", "message"),
    [
        ([[0, 1], [2, 0], [0, 1]], (4, 4), InputError, r"rows 0 and 2 both have \[0, 1\]"),
        ([[3, 3], *[[0, 1]] * 5], (4, 4), InputError, "rows 1 and 2 both have"),
        ([[0, 4]], (4, 4), InputError, r"codes\[0, 1\]=4 should be below sizes=\[4, 4\]"),
        ([[0, -1]], (4, 4), InputError, r"codes\[0, 1\]=-1"),
        ([[0, 1, 2]], (4, 4), InputError, r"shape=\(1, 3\) dtype=int64 should be integers \[N, 2\]"),
        ([[0.0, 1.0]], (4, 4), InputError, "dtype=float64 should be integers"),
        ([], (4, 4), InputError, r"shape=\(0,\)"),
        (np.zeros((0, 2), int), (4, 4), ConfigError, "nothing to generate"),
        ([[0, 1]], (4, 65_537), ConfigError, "should be integers from 1 to 65536"),
        (np.zeros((1, 0), int), (), ConfigError, "should be a list"),
    ],
)
def test_codes_that_make_no_trie_are_refused(codes, sizes, error, message):
    with pytest.raises(error, match=message):
        Trie.from_codes(codes, sizes)


def test_more_nodes_than_a_pointer_can_name_are_refused(monkeypatch):
    monkeypatch.setattr(trie_module, "MAX_NODES", 5)
    Trie.from_codes([[0, 0], [1, 0]], (2, 2))
    with pytest.raises(CapacityError, match="n_nodes=6 should be at most 5"):
        Trie.from_codes([[0, 0], [1, 0], [1, 1]], (2, 2))


@pytest.mark.parametrize("codes", [[1, 2], [[0.5, 1.0]], [["a"]]])
def test_prefixes_that_are_no_rows_of_integers_are_refused(codes):
    with pytest.raises(InputError, match=r"should be integers \[R, d\]"):
        Trie.from_codes([[0, 1]], (4, 4)).walk(codes)


def test_a_trie_of_codes_alone_knows_no_item_ids():
    with pytest.raises(ConfigError, match=r"Use Trie\.from_tokenizer"):
        Trie.from_codes([[0, 1]], (4, 4)).item_ids([0])


# ---- files


@given(catalogs(), st.none() | st.integers(0, 200_000))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_loaded_trie_is_the_saved_one_and_is_mapped(tmp_path, model, base):
    trie = model.trie(base)
    trie.save(tmp_path / "a.trie")
    loaded = Trie.load(tmp_path / "a.trie")
    assert same(trie, loaded)
    assert not any(getattr(loaded, name).flags.owndata or getattr(loaded, name).flags.writeable for name in EQUAL)
    assert (loaded.rows_of(loaded.walk(model.codes)) == np.arange(len(model.items))).all()
    loaded.save(tmp_path / "a.trie")  # over the file that it is mapped from
    assert same(trie, Trie.load(tmp_path / "a.trie")) and same(trie, loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["a.trie"]


def test_equal_tries_give_equal_files(tmp_path, ids):
    for name in ("a", "b"):
        Trie.from_tokenizer(ids, base=3).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_trie_loaded_with_its_artifact_knows_item_ids(tmp_path, ids, caplog):
    Trie.from_tokenizer(ids).save(tmp_path / "a.trie")
    trie = Trie.load(tmp_path / "a.trie", ids)
    assert trie.item_ids(trie.rows_of(trie.walk(ids.encode(["i03", "i40"])))) == ["i03", "i40"]
    assert not caplog.records


def test_the_trie_of_another_artifact_is_refused(tmp_path, ids):
    path = tmp_path / "a.trie"
    others = {
        "other codes": Trie.from_codes(ids.codes[::-1].copy(), ids.sizes),
        "other sizes": Trie.from_codes(ids.codes, (4, 5, 7)),
        "other levels": Trie.from_codes([[0, 1]], (4, 5)),
        "more rows": Trie.from_codes([*ids.codes.tolist(), [3, 4, 5]], ids.sizes),
    }
    for name, other in others.items():
        other.save(path)
        with pytest.raises(ArtifactError, match=r"a\.trie: belongs to another artifact\. Write it again"):
            pytest.fail(f"{name}: {Trie.load(path, ids)}")


@pytest.mark.parametrize("change", ["retire", "append"])
def test_a_trie_older_than_its_artifact_opens_with_a_warning(tmp_path, ids, caplog, change):
    free = next(code for code in np.ndindex(ids.sizes) if list(code) not in ids.codes.tolist())
    ledger = ids.ledger.retire(["i00"]) if change == "retire" else ids.ledger.append(["new"], [free])
    Trie.from_tokenizer(ids).save(tmp_path / "a.trie")
    with caplog.at_level(logging.WARNING, "semid"):
        trie = Trie.load(tmp_path / "a.trie", changed(ids, ledger=ledger))
    assert trie.item_ids([0, 49]) == ["i00", "i49"]
    live = 49 if change == "retire" else 51
    assert f"the trie has 50 items, the artifact {live} live ones. Write it again" in caplog.text


def damaged(path: Path, edit: Callable[[dict[str, np.ndarray]], None], *, sealed: bool) -> None:
    """Change arrays of a saved trie; `sealed`: with a right checksum, as a foreign writer could."""
    from semid.trie.file import _checksum

    file = TensorFile(path)
    arrays = {name.removeprefix("trie."): np.array(file[name]) for name in file}
    edit(arrays)
    if sealed:
        arrays["checksum"] = np.array([_checksum(arrays)], np.uint32)
    path.write_bytes(b"".join(tensor_blocks({f"trie.{name}": array for name, array in arrays.items()})))


def put(name: str, place: int, value: int) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda arrays: arrays[name].__setitem__(place, value)


def cast(name: str, dtype: type) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda arrays: arrays.__setitem__(name, arrays[name].astype(dtype))


WRONG = {  # of a trie with header [1, 3, -1, 4, 4, 0, 1, 3, 6], ptr [1, 3, 5, 6], rows [0, 1, 2]
    "upgrade": (put("header", 0, 2), r"format=2, this semid reads 1\. Upgrade"),
    "sizes": (put("header", 3, 0), r"sizes=\[0, 4\] should be from 1"),
    "starts": (put("header", 7, 1), r"level_starts=\[0, 1, 1, 6\] should be ascending"),
    "root": (put("header", 6, 2), r"level_starts=\[0, 2, 3, 6\]"),
    "short": (lambda arrays: arrays.update(header=arrays["header"][:4]), r"header is int64\[4\]"),
    "float": (cast("header", np.float32), r"header is float32\[9\]"),
    "code dtype": (cast("codes", np.uint16), r"codes is uint16\[6\], expected uint8\[6\]"),
    "ptr dtype": (cast("ptr", np.int64), r"ptr is int64\[4\], expected int32\[4\]"),
    "fewer": (lambda arrays: arrays.update(rows=arrays["rows"][:2]), r"rows is int32\[2\], expected int32\[3\]"),
    "first": (put("ptr", 0, -(2**31)), "ptr should be ascending"),
    "inner": (put("ptr", 2, 2**31 - 1), "ptr should be ascending"),
    "back": (put("ptr", 2, 3), "ptr should be ascending"),
    "last": (put("ptr", 3, 7), "ptr should be ascending"),
    "code": (put("codes", 4, 4), r"codes should be below sizes=\[4, 4\]"),
    "row": (put("rows", 1, 3), r"rows 0\.\.3 should be inside 0\.\.2"),
    "negative": (put("rows", 1, -1), r"rows -1\.\.2 should be"),
    "ids": (lambda arrays: arrays.update(ids=np.zeros(15, np.uint8)), "ids is a digest of 15 bytes, expected 16"),
    "n_rows": (put("header", 1, 1), r"rows 0\.\.2 should be inside 0\.\.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_would_lead_a_walk_astray_are_refused(tmp_path, name):
    edit, message = WRONG[name]
    path = tmp_path / "a.trie"
    Trie.from_codes([[0, 1], [0, 2], [3, 0]], (4, 4)).save(path)
    damaged(path, edit, sealed=True)
    with pytest.raises(ArtifactError, match=re.escape(str(path)) + ": .*" + message):
        Trie.load(path)
    Trie.from_codes([[0, 1], [0, 2], [3, 0]], (4, 4)).save(path)
    damaged(path, edit, sealed=False)
    with pytest.raises(ArtifactError, match=r"damaged: the checksum does not match\. Write it again"):
        Trie.load(path)


@given(catalogs(max_items=8), st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_anywhere_is_noticed(tmp_path, model, data):
    path = tmp_path / "a.trie"
    trie = model.trie(base=1000)
    trie.save(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        loaded = Trie.load(path)
    except ArtifactError as error:
        assert str(path) in str(error)
    else:  # in the padding of the file's header, which means nothing
        assert same(trie, loaded)


@given(catalogs(max_items=4), st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_short_is_refused(tmp_path, model, data):
    path = tmp_path / "a.trie"
    model.trie().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ArtifactError, match=r"a\.trie: "):
        Trie.load(path)


def test_what_is_no_trie_is_refused_by_name(tmp_path, ids):
    with pytest.raises(ArtifactError, match=r"nowhere: no such file\. Write it with Trie\.from_tokenizer"):
        Trie.load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="no such file"):
        Trie.load(tmp_path)
    (tmp_path / "text").write_text("not a trie at all")
    with pytest.raises(ArtifactError, match="not a safetensors file, or damaged"):
        Trie.load(tmp_path / "text")
    ids.save_pretrained(tmp_path / "sid")
    foreign = next((tmp_path / "sid").glob("*.safetensors"))
    with pytest.raises(ArtifactError, match=r"array trie\.header is missing, so this is not a semid trie"):
        Trie.load(foreign)


def test_a_save_killed_at_any_system_call_leaves_the_old_trie_or_the_new_one(tmp_path):
    steps = kill_at_every_call(
        tmp_path,
        imports="from semid.trie.trie import Trie",
        before='Trie.from_codes([[1, 0]], (4, 4)).save(folder / "a.trie")',
        write='Trie.from_codes([[2, 0]], (4, 4)).save(folder / "a.trie")',
    )
    assert steps > 6
    found = [int(Trie.load(tmp_path / str(step) / "a.trie").codes[1]) for step in range(1, steps + 1)]
    assert found == sorted(found) and set(found) == {1, 2}
