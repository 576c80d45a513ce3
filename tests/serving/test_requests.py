"""What a request may ask for, the filters that answer it, and the page that says so."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from semid import SemanticIDTokenizer
from semid.errors import ArtifactError, ConfigError
from semid.ledger.ledger import Ledger
from semid.tokenizer_exports.generate import Constraints
from semid.tokenizer_exports.serving import Catalog, RequestOptions, batch_masks, open_catalog
from semid.tokenizer_exports.serving.batch_masks import BatchMasker, RequestConstraint
from semid.tokenizer_exports.serving.requests import PREFIX
from semid.tokens.vocabulary import Vocabulary
from tests.helpers.served_model import (
    BASE,
    EOS,
    ITEM_IDS,
    SALE,
    VOCABULARY,
    finite,
    other_catalog,
    save_artifact,
    save_model,
)

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    save_artifact(folder)
    return folder


@pytest.fixture
def catalog(artifact, tmp_path):
    ids = SemanticIDTokenizer.from_pretrained(artifact / "model")
    (tmp_path / "sale.txt").write_bytes((artifact / "filters" / "sale.txt").read_bytes())
    return Catalog(ids, base=BASE, filters=tmp_path)


def admitted(catalog, found) -> set[str]:
    return set(catalog.trie.item_ids(catalog.trie.rows[found.mask()]))


# ---- options


def test_options_are_those_of_the_prefix_and_others_are_not_looked_at():
    options = RequestOptions.of({"semid_only": "a", "kv_transfer_params": {}, "top_k": 3})
    assert options == RequestOptions(only=("a",))
    assert RequestOptions.of(None) == RequestOptions.of({}) == RequestOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"semid_mode": "item"}, "semid_mode='item' should be one of text, items, off."),
        ({"semid_mode": ["items"]}, r"semid_mode=\['items'\] should be one of"),
        ({"semid_witout": ["a"]}, "semid_witout is not an option. Did you mean semid_without?"),
        ({"semid_xyzzy": 1}, "semid_xyzzy is not an option. The options are semid_mode, semid_filter"),
        ({"semid_only": [1, 2]}, r"semid_only=\[1, 2\] should be a string or a list of strings."),
        ({"semid_max_items": 0}, "semid_max_items=0 should be an integer of at least 1."),
        ({"semid_max_items": 2.0}, "semid_max_items=2.0 should be an integer"),
        ({"semid_min_items": True}, "semid_min_items=True should be an integer"),
        ({"semid_repeats": "no"}, "semid_repeats='no' should be 0 or 1."),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(options, message):
    with pytest.raises(ConfigError, match=message):
        RequestOptions.of(options)


# ---- filters


def test_equal_requests_of_one_moment_share_one_filter(catalog):
    options = {"semid_only": SALE, "semid_without": [SALE[0]]}
    first, second = (catalog.filter(RequestOptions.of(options)) for _ in range(2))
    assert first is second
    assert admitted(catalog, first) == set(SALE[1:])


def test_requests_without_items_of_their_own_share_the_servers_filter(catalog):
    assert catalog.filter(RequestOptions()) is None
    sale = catalog.filter(RequestOptions(filter=("sale",)))
    assert catalog.filter(RequestOptions(filter=("sale",), max_items=3)) is sale
    fewer = catalog.filter(RequestOptions(filter=("sale",), without=(SALE[0], "unheard-of")))
    assert fewer.counts is sale.counts  # bans alone make no second sum over the catalog
    assert admitted(catalog, fewer) == set(SALE[1:])


def test_several_filters_admit_what_all_of_them_admit(catalog, tmp_path):
    (tmp_path / "even.txt").write_text("\r\n".join(ITEM_IDS[::2]))
    both = catalog.filter(RequestOptions(filter=("sale", "even"), only=tuple(ITEM_IDS[:30])))
    assert admitted(catalog, both) == set(SALE) & set(ITEM_IDS[::2]) & set(ITEM_IDS[:30])


def test_a_filter_that_is_replaced_counts_from_the_next_request_on(catalog, tmp_path):
    options = RequestOptions(filter=("fresh",), without=(ITEM_IDS[0],))
    (tmp_path / "fresh.txt").write_text(f"{ITEM_IDS[1]}\n")
    running = catalog.filter(options)
    (tmp_path / "fresh.txt").write_text(f"{ITEM_IDS[2]}\n{ITEM_IDS[3]}\n")
    assert admitted(catalog, catalog.filter(options)) == {ITEM_IDS[2], ITEM_IDS[3]}
    assert admitted(catalog, running) == {ITEM_IDS[1]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"semid_filter": "sail"}, "semid_filter='sail' is not a filter of this server. It has: latin, sale."),
        ({"semid_filter": "../model/ids"}, "semid_filter='../model/ids' is not a filter of this server"),
        ({"semid_filter": "latin"}, r"latin.txt: cannot be read.* Write one item id per line, in UTF-8."),
        ({"semid_only": ["nobody"]}, "the filter bans all 42 items"),
        ({"semid_only": []}, "the filter bans all 42 items"),
        ({"semid_filter": "sale", "semid_without": SALE}, "the filter bans all 42 items"),
    ],
)
def test_a_filter_that_cannot_be_made_is_refused_and_ends_what_slips_through(
    catalog, tmp_path, options, message, caplog
):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path.parent / "model").mkdir(exist_ok=True)
    (tmp_path.parent / "model" / "ids.txt").write_text(ITEM_IDS[0])
    with pytest.raises(ConfigError, match=message):
        catalog.check(RequestOptions.of(options))
    catalog.check(RequestOptions.of(options | {"semid_mode": "off"}))

    masker = BatchMasker(catalog, eos_ids=EOS)
    constraint = masker.request_constraint(RequestOptions.of(options))
    logits = masker.mask_(torch.zeros(1, VOCABULARY), [constraint], [([5, 6], [])])
    assert finite(logits[0]) == EOS
    assert re.search(f"a request ends without items: .*{message}", caplog.text)


def test_a_server_without_filters_says_how_to_give_it_some(artifact):
    catalog = Catalog(SemanticIDTokenizer.from_pretrained(artifact / "model"))
    with pytest.raises(ConfigError, match="this server has no filters. Start it with SEMID_FILTERS=FOLDER."):
        catalog.check(RequestOptions(filter=("sale",)))


def test_filters_stay_on_the_device_while_rows_move_and_leave(catalog):
    masker = BatchMasker(catalog, eos_ids=EOS)
    one, other, third = (masker.request_constraint(RequestOptions(only=(item,))) for item in ITEM_IDS[:3])
    everything = masker.request_constraint(RequestOptions())

    def groups(*row_constraints):
        (group,) = masker.groups(row_constraints)
        return group

    first = groups(one, everything, other)
    for row_constraints in ([other, one, everything], [other], [None, everything, other, other]):
        group = groups(*row_constraints)
        assert group.filters is first.filters
        admitted = [first.filters.n_admitted[place] for place in group.places]
        assert admitted == [len(catalog.trie) if each is everything else 1 for each in row_constraints if each]
    assert groups(one, third).filters is not first.filters
    assert groups(everything).filters is None


def test_only_the_maskers_used_last_are_kept(catalog, monkeypatch):
    """A client may ask for any number of items, and each number is another masker."""
    monkeypatch.setattr(batch_masks, "MAX_MASKERS", 2)
    masker = BatchMasker(catalog, eos_ids=EOS)
    first, second = (masker._token_masker(Constraints(max_items=most)) for most in (1, 2))
    for most in (1, 3):
        masker._token_masker(Constraints(max_items=most))
    assert len(masker._maskers) == 2
    assert masker._token_masker(Constraints(max_items=1)) is first
    assert masker._token_masker(Constraints(max_items=2)) is not second


def test_a_filter_of_another_catalog_is_refused_though_it_has_as_many_items(catalog):
    masker, today = BatchMasker(catalog, eos_ids=EOS), other_catalog(catalog)
    options = RequestOptions(without=(ITEM_IDS[-1], "new today"))
    for filter in (today.filter(options), today.nothing):
        foreign = RequestConstraint(Constraints(), filter)
        with pytest.raises(ConfigError, match="made from another trie, of 42 items too, but not the same"):
            masker.mask_(torch.zeros(1, VOCABULARY), [foreign], [([5], [])])
    opened_again = Catalog(catalog.ids, base=BASE).filter(options)
    masker.mask_(torch.zeros(1, VOCABULARY), [RequestConstraint(Constraints(), opened_again)], [([5], [])])


def test_a_file_of_item_ids_is_cut_at_line_ends_alone_and_may_begin_with_a_mark(tmp_path):
    """Windows' editors put a byte order mark first; an id may hold what Python, too, takes for the end of a line."""
    item_ids = ["first", "a\x0bb", "a\x85b", "a\u2028b", "last"]
    ids = SemanticIDTokenizer(
        config=None,
        vocabulary=Vocabulary([8, 8]),
        ledger=Ledger.create(item_ids, [[0, n] for n in range(5)]),
        learned=None,
        encoder_state=({}, {"kind": "none"}),
        provenance={},
    )
    catalog = Catalog(ids, filters=tmp_path)
    for name, end in (("unix", "\n"), ("windows", "\r\n")):
        (tmp_path / f"{name}.txt").write_bytes(end.join(item_ids[:4]).encode("utf-8-sig"))
        assert admitted(catalog, catalog.filter(RequestOptions(filter=(name,)))) == set(item_ids[:4])


def test_a_filter_replaced_by_one_of_the_same_size_and_time_is_read_again(catalog, tmp_path):
    path, options = tmp_path / "fresh.txt", RequestOptions(filter=("fresh",))
    path.write_text(ITEM_IDS[1])
    assert admitted(catalog, catalog.filter(options)) == {ITEM_IDS[1]}
    before = path.stat()
    (tmp_path / "copy").write_text(next(one for one in ITEM_IDS[2:] if len(one) == len(ITEM_IDS[1])))
    os.utime(tmp_path / "copy", ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p and rsync -t do
    (tmp_path / "copy").rename(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert admitted(catalog, catalog.filter(options)) == {path.read_text()}


# ---- where the artifact is


def test_the_artifact_is_the_one_that_is_named_or_else_the_models(artifact, monkeypatch, tmp_path):
    monkeypatch.delenv("SEMID_ARTIFACT", raising=False)
    monkeypatch.delenv("SEMID_FILTERS", raising=False)
    with pytest.raises(ConfigError, match="SEMID_ARTIFACT is not set."):
        open_catalog()
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        open_catalog(str(tmp_path))
    assert open_catalog(str(artifact / "model")).trie.base == BASE
    monkeypatch.setenv("SEMID_ARTIFACT", str(artifact / "model"))
    assert open_catalog(str(tmp_path)) is open_catalog()


# ---- docs/serving.md


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    save_model(folder)
    return folder


def test_an_artifact_beside_the_model_has_its_tokens_found_in_the_tokenizer(shop, tmp_path, monkeypatch):
    from tests.helpers.tiny_models import ids_of

    ids_of().save_pretrained(tmp_path / "alone")
    monkeypatch.setenv("SEMID_ARTIFACT", str(tmp_path / "alone"))
    found = open_catalog(tokenizer=str(shop / "shop-llm"))
    assert found.trie.base == SemanticIDTokenizer.from_pretrained(shop / "shop-llm").base


def test_the_pages_python_runs_and_gives_what_it_says(shop):
    spec = importlib.util.spec_from_file_location("run_blocks", PAGE.with_name("run_blocks.py"))
    run_blocks = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = run_blocks
    spec.loader.exec_module(run_blocks)
    names: dict[str, object] = {}
    bodies = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(bodies) == 3
    for body in bodies:
        assert run_blocks._run_python(body, shop, names) == body


def test_the_page_names_every_option_with_its_values():
    table = re.findall(r"^\| `(semid_\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert table == [PREFIX + field.name for field in fields(RequestOptions)]
