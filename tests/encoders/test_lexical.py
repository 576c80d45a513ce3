"""LexicalEncoder: an outside oracle for the arithmetic, and the promises that later items rely on."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data.items import Items
from semid.encoders import LexicalEncoder, embed, encoder_from_state, make_encoder
from semid.encoders.tfidf import subwords_of, words_of
from semid.errors import ArtifactError, ConfigError, InputError
from tests.helpers.progress import shown_bars

COLORS = ["red", "blue", "green", "golden", "silver", "black"]
THINGS = ["nail polish", "hair brush", "face cream", "lip balm", "eye shadow palette"]


@pytest.fixture(scope="module")
def shop():
    titles = [f"{color} {thing} {i}" for i, color in enumerate(COLORS) for thing in THINGS]
    return Items(
        [f"i{i:02}" for i in range(len(titles))],
        {"title": titles, "brand": [("OPI", "Essie", "")[i % 3] for i in range(len(titles))]},
    )


def titled(*titles):
    return Items([f"{i:04}" for i in range(len(titles))], {"title": list(titles)})


def cosines(vectors):
    return vectors @ vectors.T


# ---- words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't STOP me_now!", ["dont", "stop", "me", "now"]),
        ("Amélie naïve Straße", ["amelie", "naive", "strasse"]),
        ("0.5-Fluid 1,000 12oz 3.5oz", ["0.5", "fluid", "1,000", "12oz", "3", "5oz"]),
        ("口紅", ["口", "紅", "口紅"]),
        ("マスク", ["マ", "ス", "ク", "マス", "スク"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("кот и ёж", ["кот", "и", "еж"]),
        ("한국 화장품", ["한국", "화장품"]),
        ("!!! 💅 --", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(text, words):
    assert words_of(text) == words


@given(st.text(max_size=60))
def test_words_are_folded_already(text):
    for word in words_of(text):
        assert word == word.casefold()
        assert not word.isspace()


def test_subwords_are_the_grams_of_the_marked_word():
    marked = "<polish>"
    expected = {marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)}
    assert set(subwords_of("polish")) == expected
    assert subwords_of("0.5") == subwords_of("a") == []


# ---- arithmetic -------------------------------------------------------------------------------------------


def test_equals_scikit_learn_where_it_can_do_the_same():
    """One field, words only, full rank, no scaling of the spectrum: cosines are those of TfidfVectorizer."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    items = titled("red nail polish", "red red kohl", "blue nail file for nail", "kohl pencil", "cream")
    oracle = TfidfVectorizer(sublinear_tf=True).fit_transform(items.fields["title"]).toarray()
    vectors = LexicalEncoder(subword_weight=0, spectrum=0).fit_transform(items)
    np.testing.assert_allclose(cosines(vectors), cosines(oracle), atol=2e-3)  # float16 components


def test_field_weights_weigh(shop):
    heavy = LexicalEncoder(field_weights={"brand": 10}).fit_transform(shop)
    none = LexicalEncoder(field_weights={"brand": 0}).fit_transform(shop)
    titles_only = LexicalEncoder().fit_transform(Items(shop.ids, {"title": shop.fields["title"]}))
    same_brand = cosines(heavy)[0, 3], cosines(none)[0, 3]  # OPI both, other things
    assert same_brand[0] > 0.9 > same_brand[1]
    np.testing.assert_allclose(cosines(none), cosines(titles_only), atol=2e-2)


def test_a_label_weighs_less_than_a_title(shop):
    weights = LexicalEncoder().fit(shop).field_weights_
    assert weights["brand"] < weights["title"]


def test_years_do_not_make_neighbors():
    names = ("The Godfather", "Solaris", "Chinatown")
    films = titled(*(f"{name} ({year})" for year in (1972, 1974) for name in names))
    similar = cosines(LexicalEncoder().fit_transform(films))
    by_year = cosines(LexicalEncoder(year_weight=1).fit_transform(films))
    assert similar[0].argsort()[::-1].tolist()[1] == 3  # the other Godfather, not another film of 1972
    assert similar[1, 2] < by_year[1, 2] / 4  # nothing but the year in common


# ---- invariants -------------------------------------------------------------------------------------------


def test_order_of_items_and_fields_changes_nothing(shop):
    vectors = LexicalEncoder().fit_transform(shop)
    order = np.random.default_rng(0).permutation(len(shop))
    shuffled = shop.take(order)
    shuffled = Items(shuffled.ids, dict(reversed(shuffled.fields.items())))
    assert np.array_equal(LexicalEncoder().fit_transform(shuffled), vectors[order])


def test_batches_change_nothing(shop, monkeypatch):
    encoder = LexicalEncoder().fit(shop)
    whole = encoder.transform(shop)
    alone = np.concatenate([encoder.transform(shop.take([i])) for i in range(len(shop))])
    assert np.array_equal(whole, alone)
    monkeypatch.setattr("semid.encoders.lexical.BATCH", 7)
    assert np.array_equal(whole, encoder.transform(shop))
    assert np.array_equal(whole, LexicalEncoder().fit_transform(shop))


def test_threads_change_nothing(shop):
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        one = LexicalEncoder().fit_transform(shop)
    with threadpool_limits(4):
        four = LexicalEncoder().fit_transform(shop)
    assert np.array_equal(one, four)


def test_hash_seed_changes_nothing():
    texts = [f"{a} {b} lamp" for a in ("red", "blue", "old") for b in ("desk", "floor", "wall")]
    script = (
        "import sys; from semid.data.items import Items; from semid.encoders import embed;"
        f"vectors = embed(Items([str(i) for i in range(9)], {{'title': {texts}}}));"
        "sys.stdout.buffer.write(vectors.tobytes())"
    )
    command = [sys.executable, "-c", script]
    there = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "1"}, capture_output=True, check=True).stdout
    assert there == embed(titled(*texts)).tobytes() != b""


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(alphabet="ab é口1.", max_size=12), min_size=1, max_size=12))
def test_rows_are_unit_or_zero_and_stored_encoders_give_equal_bits(titles):
    items = titled(*titles)
    encoder = LexicalEncoder()
    vectors = encoder.fit_transform(items)
    lengths = np.linalg.norm(vectors, axis=1)
    has_words = np.array([bool(words_of(title)) for title in titles])
    assert vectors.dtype == np.float32 and np.isfinite(vectors).all()
    np.testing.assert_allclose(lengths, has_words, atol=1e-5)
    for i, title in enumerate(titles):
        assert np.array_equal(vectors[i], vectors[titles.index(title)])
    again = LexicalEncoder.from_state(*encoder.state())
    assert np.array_equal(again.transform(items), vectors)


def test_state_survives_files_and_needs_no_torch(shop, tmp_path):
    import json

    from safetensors.numpy import save_file

    encoder = make_encoder("lexical", dim=8).fit(shop)
    arrays, meta = encoder.state()
    save_file(arrays, tmp_path / "a.safetensors")
    (tmp_path / "m.json").write_text(json.dumps(meta))
    np.save(tmp_path / "v.npy", encoder.transform(shop))
    script = (
        "import json, sys, numpy as np; from safetensors.numpy import load_file;"
        "from semid.data.items import Items; from semid.encoders import encoder_from_state;"
        f"e = encoder_from_state(load_file({str(tmp_path / 'a.safetensors')!r}),"
        f" json.load(open({str(tmp_path / 'm.json')!r})));"
        f"items = Items({list(shop.ids)!r}, {dict(shop.fields)!r});"
        f"assert np.array_equal(e.transform(items), np.load({str(tmp_path / 'v.npy')!r}));"
        "assert not {'torch', 'sklearn', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# ---- text it has not seen ---------------------------------------------------------------------------------


def test_an_unseen_word_lands_near_its_relatives(shop):
    encoder = LexicalEncoder().fit(shop)
    known = encoder.transform(shop)
    new = encoder.transform(titled("brushes"))[0]
    titles = [shop.fields["title"][i] for i in np.argsort(-(known @ new))[:6]]
    assert all("brush" in title for title in titles)


def test_unknown_fields_are_left_out_with_a_warning(shop, caplog):
    encoder = LexicalEncoder().fit(shop)
    wider = Items(shop.ids, {**shop.fields, "color": ["red"] * len(shop)})
    assert np.array_equal(encoder.transform(wider), encoder.transform(shop))
    assert "color" in caplog.text
    with pytest.raises(InputError, match=r"have the fields name; expected brand, title"):
        encoder.transform(Items(["a"], {"name": ["red"]}))
    missing = encoder.transform(Items(["a"], {"title": ["red nail polish"]}))
    assert np.isclose(np.linalg.norm(missing), 1, atol=1e-5)


# ---- unusual catalogs -----------------------------------------------------------------------------------


def test_one_item_identical_items_and_no_text():
    assert LexicalEncoder().fit_transform(titled("red polish")).shape == (1, 1)
    same = LexicalEncoder().fit_transform(titled(*["red polish"] * 5))
    assert same.shape == (5, 1) and np.array_equal(same, np.repeat(same[:1], 5, axis=0)) and same.any()
    assert not LexicalEncoder().fit_transform(titled("", "!!!")).any()
    assert LexicalEncoder().fit_transform(Items(["a"], {})).shape == (1, 1)


def test_dims_shrink_with_the_catalog(shop):
    assert LexicalEncoder(dim=384).fit(shop).dim_ <= len(shop)
    assert LexicalEncoder(dim=5).fit_transform(shop).shape == (len(shop), 5)


def test_chinese_and_japanese_titles_find_their_relatives():
    titles = ["红色口红", "粉色口红", "洗发水", "护发洗发水", "日焼け止めクリーム", "美容クリーム"]
    nearest = (cosines(LexicalEncoder().fit_transform(titled(*titles))) - 2 * np.eye(6)).argmax(1)
    assert nearest.tolist() == [1, 0, 3, 2, 5, 4]


def test_ten_megabytes_in_one_field_are_one_item():
    long = " ".join(f"word{i % 5000}" for i in range(1_100_000))
    assert len(long) > 9_000_000
    vectors = LexicalEncoder().fit_transform(titled(long, "red polish", "x" * 10_000_000))
    assert vectors.shape == (3, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_limits_keep_the_most_frequent_features(shop):
    encoder = LexicalEncoder(max_words=4, max_subwords=3).fit(shop)
    assert len(encoder.subwords_) == 3
    count = {word: sum(word in words_of(t) for t in shop.fields["title"]) for word in encoder.words_}
    assert set(count) <= {"opi", "essie"} | set(words_of(" ".join(shop.fields["title"])))
    assert min(count[word] for word in count if word not in ("opi", "essie")) >= len(THINGS)


# ---- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dim": 0}, r"dim=0 should be a whole number, at least 1"),
        ({"dim": 2.5}, r"dim=2\.5 should be a whole number"),
        ({"year_weight": -1}, r"year_weight=-1 should be a number, at least 0"),
        ({"spectrum": float("nan")}, r"spectrum=nan should be a number"),
        ({"field_weights": {"titel": 1}}, r"no field 'titel'\. Fields of these items: brand, title"),
        ({"field_weights": {"title": -2}}, r"field_weights\['title'\]=-2 should be"),
    ],
)
def test_impossible_parameters_are_refused(shop, parameters, message):
    with pytest.raises(ConfigError, match=message):
        LexicalEncoder(**parameters).fit(shop)


def test_unfitted_and_empty_and_damaged_are_refused(shop):
    with pytest.raises(ConfigError, match="not fitted"):
        LexicalEncoder().transform(shop)
    with pytest.raises(InputError, match="items=0"):
        LexicalEncoder().fit(Items([], {"title": []}))
    arrays, meta = LexicalEncoder().fit(shop).state()
    with pytest.raises(ArtifactError, match=r"features, but feature_weights"):
        LexicalEncoder.from_state({**arrays, "components": arrays["components"][1:]}, meta)
    with pytest.raises(ArtifactError, match="components"):
        LexicalEncoder.from_state({k: v for k, v in arrays.items() if k != "components"}, meta)
    with pytest.raises(ArtifactError, match="kind='quantum'"):
        encoder_from_state(arrays, {**meta, "kind": "quantum"})


def test_progress_goes_to_standard_error_only_when_asked(shop, capfd):
    encoder = LexicalEncoder().fit(shop)
    encoder.transform(shop)
    assert capfd.readouterr() == ("", "")
    with shown_bars():
        encoder.transform(shop)
    shown = capfd.readouterr()
    assert shown.out == "" and "embed" in shown.err
