"""New items get the nearest free IDs, known ones keep theirs, and the report says what was done."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from semid.errors import CapacityError, ConfigError, InputError, UnknownIDError
from semid.pipeline import add as adding
from semid.pipeline.add import Drift
from semid.tokenizer import SemanticIDTokenizer
from semid.trie import Trie
from tests.helpers.small_shop import DIM, learned, names, records, vectors

OLD, NEW, MANY = names(20), names(6, first=100), names(400)


@pytest.fixture(scope="module")
def ids():
    return learned(OLD)


def add(ids, item_ids, text="thing", **choices):
    return adding.add(ids, records(item_ids, text), embeddings=vectors(item_ids), **choices)


def table(ids):
    """Item id -> codes."""
    return dict(zip(ids.item_ids, map(tuple, ids.codes.tolist()), strict=True))


# ---- what is new, what is known


def test_new_items_get_ids_and_old_ones_keep_theirs(ids):
    later, report = add(ids, NEW)
    assert (report.added, report.generation, report.unchanged) == (6, 1, 0)
    assert table(later).items() >= table(ids).items()
    assert len(set(table(later).values())) == 26
    assert later.decode(later.tokens(NEW)) == NEW
    assert later.ledger.check(later.sizes) == []
    assert list(ids.item_ids) == OLD  # the one before is as it was


def test_adding_the_same_items_again_changes_nothing(ids):
    later, _ = add(ids, NEW)
    again, report = add(later, NEW)
    assert again is later
    assert (report.added, report.unchanged, report.generation) == (0, 6, 1)
    assert report.lines() == ["unchanged   no new items; 6 were there already"]
    assert report.warnings() == []


def test_known_items_among_new_ones_are_left_alone(ids):
    later, report = add(ids, [*OLD[:3], *NEW])
    assert (report.added, report.unchanged) == (6, 3)
    assert table(later) == table(add(ids, NEW)[0])


def test_another_text_is_told_and_kept(ids):
    later, report = add(ids, OLD[:2], text="other")
    assert later is ids
    assert report.differing == OLD[:2]
    (warning,) = report.warnings()
    assert "2 items are there with another text, which was kept: 'i0000', 'i0001'. Use --update" in warning


def test_update_stores_the_text_as_a_generation_and_no_new_id(ids):
    later, report = add(ids, [*OLD[:2], NEW[0]], text="other", update=True)
    assert (report.updated, report.added, report.differing, report.warnings()) == (2, 1, [], [])
    assert list(later.texts)[:3] == ["other i0000", "other i0001", "thing i0002"]
    assert later.texts[20] == "other i0100"
    assert table(later).items() >= table(ids).items()
    assert list(ids.texts)[:2] == ["thing i0000", "thing i0001"]
    again, report = add(later, OLD[:2], text="other", update=True)
    assert again is later
    assert report.unchanged == 2


def test_an_update_alone_needs_no_vectors_and_is_a_generation(ids):
    later, report = adding.add(ids, records(OLD[:1], "other"), update=True)
    assert (report.updated, report.generation, later.ledger.last_generation) == (1, 1, 1)
    assert later.history[-1] == {"generation": 1, "added": 0, "updated": 1}
    assert "updated     the text of 1 items; their IDs stand" in report.lines()


def test_a_retired_item_that_comes_again_stays_retired(ids):
    gone = ids.retire(OLD[:1])
    later, report = add(gone, [OLD[0], NEW[0]], text="other", update=True)
    assert (report.retired, report.added, report.updated) == (OLD[:1], 1, 0)
    assert "1 items were retired and stay so: 'i0000'." in report.warnings()
    assert not later.ledger.live[0]
    assert later.texts[0] == "thing i0000"
    assert later.parse(later.tokens(OLD[0]))[0].retired


def test_artifacts_without_texts_take_new_items():
    bare = SemanticIDTokenizer.fit(
        records(OLD), embeddings=vectors(OLD), method="rqkmeans", levels=3, codebook_size=4, store_text=False
    )
    later, report = add(bare, [OLD[0], *NEW], text="other", update=True)
    assert (report.added, report.unchanged, report.updated, later.texts) == (6, 1, 0, None)


def test_the_order_of_new_items_changes_nothing(ids):
    tables = [table(add(ids, list(order))[0]) for order in itertools.islice(itertools.permutations(NEW), 0, 720, 97)]
    assert all(one == tables[0] for one in tables)
    assert list(add(ids, NEW[::-1])[0].item_ids)[20:] == NEW


def test_items_added_one_by_one_keep_their_ids(ids):
    later = ids
    for item_id in NEW:
        before = table(later)
        later, _ = add(later, [item_id])
        assert table(later).items() > before.items()
    assert later.ledger.last_generation == len(NEW)
    assert later.ledger.check(later.sizes) == []


# ---- which ID


def test_a_free_first_choice_is_taken(ids):
    raw = ids.encode_vectors(vectors(NEW))
    free = ids.ledger.rows_of_codes(raw) < 0
    alone = np.array([(raw == row).all(axis=1).sum() == 1 for row in raw])
    later, report = add(ids, NEW)
    given = later.encode(NEW)
    assert (given[free & alone] == raw[free & alone]).all()
    assert report.first_choice == (given == raw).all(axis=1).sum()
    assert report.first_choice + report.moved + report.moved_prefix == len(NEW)
    assert report.moved_prefix == (given[:, :-1] != raw[:, :-1]).any(axis=1).sum()


def test_a_full_prefix_sends_an_item_to_the_nearest_other_one():
    ids = learned(names(4), levels=2, codebook_size=3)
    prefix = ids.encode_vectors(vectors(OLD[:1]))[0, 0]
    target = vectors(OLD[:1])[0]
    twins = [f"twin{number}" for number in range(5)]  # more than a prefix holds
    later, report = adding.add(ids, records(twins), embeddings=np.tile(target, (5, 1)))
    given = later.encode(twins)
    assert len({tuple(row) for row in later.codes.tolist()}) == 9 == len(later)
    assert (given[:, 0] == prefix).sum() == 3 - (ids.codes[:, 0] == prefix).sum()
    assert report.moved_prefix == (given[:, 0] != prefix).sum() > 0
    assert report.distortion > report.nearest_distortion
    assert report.fullest == 1.0


def test_without_a_free_id_for_each_nothing_is_added():
    ids = learned(names(6), levels=2, codebook_size=3)
    before = ids.manifest()
    with pytest.raises(CapacityError, match=r"n_items=4 should be <= 3: .*, less 6 IDs already given out"):
        add(ids, NEW[:4])
    assert ids.manifest() == before
    later, _ = add(ids, NEW[:3])
    assert len(later) == 9
    with pytest.raises(CapacityError):
        add(later, NEW[3:4])


# ---- IDs given out again


def full_and_one_retired():
    ids = learned(names(9), levels=2, codebook_size=3)
    return ids, ids.retire(names(1))


def test_retired_ids_are_not_given_out_again_by_default():
    _, gone = full_and_one_retired()
    with pytest.raises(CapacityError, match="n_items=1 should be <= 0"):
        add(gone, NEW[:1])


@pytest.mark.parametrize("generations", [1, 2, 3])
def test_an_id_is_given_out_again_after_so_many_generations(generations):
    ids, gone = full_and_one_retired()  # retired in generation 1
    for number in range(generations - 1):
        with pytest.raises(CapacityError):
            add(gone, NEW[:1], reuse_after=generations)
        gone, _ = add(gone, names(2)[1:], text=f"text {number}", update=True)  # a generation without new items
    later, report = add(gone, NEW[:1], reuse_after=generations)
    assert report.generation == 1 + generations
    assert later.tokens(NEW[0]) == ids.tokens(names(1)[0])
    assert later.decode(later.tokens(NEW[0])) == NEW[0]
    (parsed,) = later.parse(later.tokens(names(1)[0]))
    assert (parsed.item_id, parsed.retired) == (NEW[0], False)
    assert Trie.from_tokenizer(later).contains(later.encode(NEW[:1])).all()
    assert later.ledger.check(later.sizes) == []
    with pytest.raises(CapacityError):  # taken again
        add(later, NEW[1:2], reuse_after=1)


def test_an_id_goes_through_many_hands():
    _, ids = full_and_one_retired()
    for number in range(4):
        ids, _ = add(ids, NEW[number : number + 1], reuse_after=1)
        assert ids.decode(ids.tokens(NEW[number])) == NEW[number]
        assert ids.decode(ids.tokens(names(1)[0])) == NEW[number]
        ids = ids.retire(NEW[number : number + 1])
        assert ids.ledger.check(ids.sizes) == []
    assert ids.parse(ids.tokens(NEW[0]))[0].retired
    assert Trie.from_tokenizer(ids).contains(ids.encode(NEW[:1])).tolist() == [False]


def test_reuse_after_must_be_a_generation(ids):
    with pytest.raises(ConfigError, match="reuse_after=0 should be at least 1"):
        add(ids, NEW, reuse_after=0)


# ---- retiring


def test_retired_items_are_decoded_but_not_generated(ids):
    gone = ids.retire(OLD[:2])
    assert gone.decode(gone.tokens(OLD[:2])) == OLD[:2]
    assert [one.retired for one in gone.parse("".join(gone.tokens(OLD[1:3])))] == [True, False]
    assert Trie.from_tokenizer(gone).contains(gone.encode(OLD[:3])).tolist() == [False, False, True]
    assert gone.history[-1] == {"generation": 1, "retired": 2}
    assert gone.retire(OLD[:2]) is gone


def test_an_unknown_id_retires_nothing_and_is_named_with_near_ones(ids):
    with pytest.raises(UnknownIDError, match=r"item id 'i00001' is not among the 20 items. Did you mean .*'i0001'"):
        ids.retire([OLD[0], "i00001"])
    assert ids.ledger.n_live == 20


def test_dates_are_kept_and_no_part_of_the_fingerprint(ids):
    dated = add(ids, NEW, date="2026-11-21")[0].retire(OLD[:1], date="spring")
    plain = add(ids, NEW)[0].retire(OLD[:1])
    assert dated.provenance["dates"] == {"1": "2026-11-21", "2": "spring"}
    assert "dates" not in plain.provenance
    told = dated.manifest() | {"provenance": None}
    assert told == plain.manifest() | {"provenance": None}


# ---- what is refused


def test_artifacts_of_ready_vectors_need_vectors(ids):
    with pytest.raises(ConfigError, match=r"learned from ready vectors.*--embeddings"):
        adding.add(ids, records(NEW))


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.zeros((6, 3), np.float32), "embeddings: D=3 should be 4"),
        (np.zeros((5, DIM), np.float32), r"embeddings.shape=\(5, 4\) should be \(6, D\)"),
        (np.full((6, DIM), np.nan, np.float32), "holds NaN"),
    ],
)
def test_wrong_vectors_are_refused(ids, embeddings, message):
    with pytest.raises(InputError, match=message):
        adding.add(ids, records(NEW), embeddings=embeddings)


def test_items_without_any_text_field_of_the_fit_are_refused(ids):
    with pytest.raises(InputError, match=r"text fields are name; the IDs were learned from title\. Name those"):
        adding.add(ids, [{"id": "x", "name": "thing"}], embeddings=vectors(["x"]))


def test_text_fields_with_other_names_are_named_in_the_order_of_the_fit(ids):
    new = [{"id": "x", "name": "thing x", "title": "not this"}]
    grown, _ = adding.add(ids, new, embeddings=vectors(["x"]), text="name")
    assert grown.texts[grown.item_ids.index("x")] == "thing x"
    with pytest.raises(ConfigError, match="text=name,title: expected 1 fields, in the order of those .*: title"):
        adding.add(ids, new, embeddings=vectors(["x"]), text=["name", "title"])


def test_the_text_of_new_items_has_the_fields_of_the_fit_in_their_order():
    shop = [{"id": item_id, "title": f"thing {item_id}", "brand": "acme"} for item_id in OLD]
    ids = SemanticIDTokenizer.fit(shop, embeddings=vectors(OLD), method="rqkmeans", levels=3, codebook_size=4)
    new = [{"id": "x", "brand": "acme", "title": "hat", "color": "red"}, {"id": "y", "brand": "acme"}]
    later, _ = adding.add(ids, new, embeddings=vectors(["x", "y"]))
    assert later.texts[20:] == ["hat. acme", "acme"]


def test_imported_ids_say_why_nothing_can_be_added(tmp_path, semid):
    (tmp_path / "index.json").write_text('{"1": ["<a_0>", "<b_1>"], "2": ["<a_1>", "<b_0>"]}')
    assert semid("import", "index.json", "-o", "ids").code == 0
    ids = SemanticIDTokenizer.from_pretrained("ids")
    with pytest.raises(ConfigError, match=r"These IDs were imported from .*there is no encoder"):
        adding.add(ids, [{"id": "3", "title": "x"}])
    assert ids.retire(["1"]).ledger.n_live == 1  # that needs no encoder


# ---- drift


def with_statistics(ids, item_ids):
    """The same with the error figures of its fit, worked out here in the plainest way."""
    left = ids.codebooks.latents(vectors(item_ids))
    codes = ids.codebooks.encode_latents(left)
    for level, centroids in enumerate(ids.codebooks.levels):
        left = left - centroids[codes[:, level]]
    errors, first = (left.astype(np.float64) ** 2).sum(axis=1), codes[:, 0]
    counts = np.bincount(first, minlength=ids.sizes[0])
    statistics = {
        "fit.errors": (np.bincount(first, errors, ids.sizes[0]) / np.maximum(counts, 1)).astype(np.float32),
        "fit.counts": counts.astype(np.int64),
        "fit.quantiles": np.quantile(errors, np.linspace(0, 1, 101)).astype(np.float32),
    }
    return dataclasses.replace(ids, fit_statistics=statistics), errors


@pytest.fixture(scope="module")
def measured():
    return with_statistics(learned(MANY, levels=3, codebook_size=8), MANY)


def test_the_fit_leaves_the_figures_that_drift_is_told_from(measured):
    ids, _ = measured
    fitted = learned(MANY, levels=3, codebook_size=8).fit_statistics
    for name, wanted in ids.fit_statistics.items():
        assert np.allclose(np.nan_to_num(fitted[name]), wanted, rtol=1e-5)
        assert fitted[name].dtype == wanted.dtype


def test_similar_items_drift_little(measured):
    ids, errors = measured
    _, report = add(ids, names(100, first=5000))
    assert report.drift.fits
    assert report.drift.ratio == pytest.approx(1, abs=0.5)
    assert report.drift.fit_error == pytest.approx(errors.mean(), rel=1e-5)
    assert report.warnings() == []


def test_foreign_items_are_warned_of_with_figures(measured):
    ids, _ = measured
    new = names(100, first=5000)
    _, report = adding.add(ids, records(new), embeddings=vectors(new) * 4 + 3)
    assert not report.drift.fits
    assert report.drift.outlying > 0.5
    (warning,) = report.warnings()
    assert f"error {report.drift.ratio:.2f} times that of the fit" in warning
    assert "semid refit" in warning
    told = report.to_dict()["drift"]
    assert (told["fits"], told["ratio"]) == (False, report.drift.ratio)
    for one in report.drift.prefixes:
        assert one["items"] >= 30
        assert one["error"] >= 1.5 * one["fit_error"] > 0


def test_a_few_items_or_no_figures_tell_nothing_of_drift(measured, ids):
    assert add(measured[0], NEW)[1].drift is None
    assert "fit  " not in "".join(add(measured[0], NEW)[1].lines())


def test_a_fit_without_error_has_no_ratio_to_divide_by():
    assert Drift(0.0, 0.0, 1.0, 0.0, []).ratio == 1.0
    assert Drift(1.0, 0.0, 1.0, 1.0, []).ratio == float("inf")
