"""`semid fit` with training signals besides the text: interactions and a language model."""

from __future__ import annotations

import dataclasses
import json
import shlex

import numpy as np
import pytest
import torch

from semid.cli import cli
from semid.cli.fit import signals_of
from semid.cli.refit import refit as refit_command
from semid.data import held_out_interactions, read_interactions, training_interactions
from semid.encoders.input_embeddings import mean_text_rows
from semid.errors import ConfigError, InputError
from semid.evaluation import number_prefixes, sequence_lift
from semid.pipeline.refit import refit
from semid.pipeline.signals import Signals, options_of
from semid.runtime.tables import Tables
from semid.tokenizer import SemanticIDTokenizer
from semid.train.fusion import from_text_alone, fuse
from semid.train.residual_kmeans import ResidualKMeans
from tests.helpers.communities import lines
from tests.helpers.tiny_models import ITEMS, new_model, new_tokenizer

GROUPS, EACH = 4, 10
IDS = [f"g{group}-i{item}" for group in range(GROUPS) for item in range(EACH)]
SHOP = [{"id": item_id, "title": f"thing {n * 7 % 40}"} for n, item_id in enumerate(IDS)]
VECTORS = np.random.default_rng(0).normal(size=(len(IDS), 6)).astype(np.float32)  # which say nothing of the groups
KMEANS = {"method": "rqkmeans", "levels": 2, "codebook_size": 8}


def fitted(signals: Signals | None = None, records: list[dict] | None = None, **choices: object):
    log = None if records is None else read_interactions(records)
    return SemanticIDTokenizer.fit(SHOP, embeddings=VECTORS, signals=signals, interactions=log, **{**KMEANS, **choices})


def same_first(ids: SemanticIDTokenizer) -> float:
    """How much oftener two items of a group share their first code than by chance."""
    first, group = ids.encode(IDS)[:, 0], np.repeat(np.arange(GROUPS), EACH)
    same, apart = first[:, None] == first, ~np.eye(len(IDS), dtype=bool)
    return same[(group[:, None] == group) & apart].mean() / same[apart].mean()


# ---- the fit


def test_behavior_brings_items_met_together_under_one_code():
    assert same_first(fitted()) < 1.5 < 2.0 < same_first(fitted(Signals(collaborative_fusion=2.0), lines()))


def test_all_off_is_the_plain_fit_to_the_last_byte(tmp_path):
    prints = [
        fitted(signals, records).save_pretrained(tmp_path / name)
        for name, signals, records in (("a", None, None), ("b", Signals(), None), ("c", Signals(), lines()))
    ]
    assert prints[0] == prints[1] == prints[2]
    assert "signals" not in fitted().provenance


def test_what_is_held_out_changes_nothing():
    """Each user's last two items are replaced by others: the IDs stay as they are."""
    other = [
        {**record, "items": record["items"][:-2] + [IDS[place % 40], IDS[(place + 20) % 40]]}
        for place, record in enumerate(lines())
    ]
    one, two = (fitted(Signals(collaborative_fusion=1.0), records) for records in (lines(), other))
    assert np.array_equal(one.encode(IDS), two.encode(IDS))
    third = fitted(Signals(collaborative_fusion=1.0, split="all"), other)
    assert not np.array_equal(one.encode(IDS), third.encode(IDS))


def test_the_choices_are_written_into_the_artifact(tmp_path):
    fitted(Signals(collaborative_fusion=0.5), lines()).save_pretrained(tmp_path / "sid")
    kept = json.loads((tmp_path / "sid" / "semid.json").read_text())
    assert kept["provenance"]["signals"]["collaborative_fusion"] == 0.5
    assert kept["provenance"]["signals"]["split"] == "leave-one-out"


def test_new_items_need_vectors_of_text_alone():
    ids = fitted(Signals(collaborative_fusion=1.0), lines())
    assert ids.codebooks.input_dim == VECTORS.shape[1]
    assert ids.codebooks.reconstruct(ids.encode(IDS)).shape == VECTORS.shape


# ---- fusing


def test_fused_vectors_are_text_and_behavior_of_equal_spread():
    draw = np.random.default_rng(1)
    text, behavior = draw.normal(size=(500, 8)).astype(np.float32) * 3, draw.normal(size=(500, 4)).astype(np.float32)
    with Tables(room=1 << 30) as tables:
        whole = np.asarray(fuse(text, behavior, np.full(500, 10**9), weight=2.0, tables=tables))
    assert np.array_equal(whole[:, :8], text)
    assert np.square(whole[:, 8:]).sum() / 500 == pytest.approx(4 * text.var(0).sum(), rel=1e-4)


def test_unknown_behavior_is_predicted_from_text():
    draw = np.random.default_rng(2)
    text = draw.normal(size=(600, 6)).astype(np.float32)
    behavior = text[:, :3] / np.linalg.norm(text[:, :3], axis=1, keepdims=True)
    met = np.where(np.arange(600) < 500, 20, 0)
    given = np.where(met[:, None] > 0, behavior, np.float32(9))  # rows that were not met do not count
    with Tables(room=1 << 30) as tables:
        found = np.asarray(fuse(text, given, met, weight=1.0, tables=tables))[500:, 6:]
    cosines = (found * behavior[500:]).sum(1) / np.linalg.norm(found, axis=1)
    assert cosines.mean() > 0.9


def test_the_less_an_item_was_met_the_more_it_is_what_its_text_says():
    draw = np.random.default_rng(4)
    text, behavior = draw.normal(size=(400, 6)).astype(np.float32), draw.normal(size=(400, 3)).astype(np.float32)
    with Tables(room=1 << 30) as tables:
        rare, common, never = (
            np.asarray(fuse(text, behavior, np.r_[np.full(390, 8), np.full(10, met)], weight=1.0, tables=tables))
            for met in (8, 1_000, 0)
        )
    # All three agree on the 390; text says nothing of behavior here, so what is predicted is short.
    lengths = [np.linalg.norm(part[390:, 6:], axis=1).mean() for part in (never, rare, common)]
    assert lengths[0] < lengths[1] < lengths[2]


def test_codebooks_for_text_alone_find_most_first_codes_again():
    draw = np.random.default_rng(3)
    text = (draw.normal(size=(20, 8))[draw.integers(0, 20, 1200)] * 3 + draw.normal(size=(1200, 8))).astype(np.float32)
    fused = np.concatenate([text, text[:, :2] + draw.normal(size=(1200, 2), scale=0.1)], axis=1).astype(np.float32)
    books = ResidualKMeans(levels=2, codebook_size=8, dim=10).fit(fused).codebooks_
    alone = from_text_alone(books, text, books.latents(fused).astype(np.float32))
    codes = books.encode(fused)
    assert (alone.encode(text)[:, 0] == codes[:, 0]).mean() > 0.9
    assert np.allclose(alone.reconstruct(codes), books.reconstruct(codes)[:, :8], atol=1e-5)


def test_histories_of_another_catalog_are_refused():
    with pytest.raises(InputError, match='none of its items is in the catalog: "w" here, for instance, and "g0-i0"'):
        fitted(Signals(collaborative_fusion=1.0), [{"user": "u", "items": ["x", "y", "z", "w"]}])
    with pytest.raises(InputError, match="no item of the catalog was met in the training interactions"):
        fitted(Signals(collaborative_fusion=1.0), [{"user": "u", "items": ["x", "y", "z", IDS[0]]}])


# ---- the language model's words


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    new_model("llama").save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return folder


def test_mean_rows_are_those_of_the_loaded_model(model_folder):
    texts = [item["title"] for item in ITEMS[:5]] + ["", "red " * 200]
    rows = new_model("llama").from_pretrained(model_folder).get_input_embeddings().weight.detach()
    tokenizer = new_tokenizer()
    found = mean_text_rows(model_folder, texts)
    for text, row in zip(texts, found, strict=True):
        tokens = tokenizer(text[:1024], add_special_tokens=False)["input_ids"][:64]
        wanted = rows[torch.tensor(tokens)].mean(0) if tokens else torch.zeros(rows.shape[1])
        assert np.allclose(row, wanted, atol=1e-6)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json there"):
        mean_text_rows(tmp_path, ["a"])
    with pytest.raises(InputError, match=r"llm_loss=.*no config\.json there"):
        fitted(Signals(llm_loss=str(tmp_path)), method="rqvae")


def test_a_fit_reads_the_model_s_words(model_folder):
    items = [{**item, "id": str(n)} for n, item in enumerate(ITEMS * 5)]  # enough for training
    plain, towards = (
        SemanticIDTokenizer.fit(items, levels=2, codebook_size=16, epochs=2, device="cpu", signals=signals)
        for signals in (None, Signals(llm_loss=str(model_folder), llm_loss_weight=1.0))
    )
    assert towards.provenance["training"]["kept_epoch"] == 2
    assert not np.array_equal(plain.codebooks.levels[0], towards.codebooks.levels[0])


# ---- choices that do not go together


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"collaborative_fusion": -1.0}, "collaborative_fusion=-1.0"),
        ({"collaborative_loss": float("nan")}, "collaborative_loss=nan"),
        ({"collaborative_fusion": "much"}, "collaborative_fusion='much'"),
        ({"collaborative_fusion": 1.0, "split": "half"}, "split='half'"),
        ({"llm_loss": 7}, "llm_loss=7"),
    ],
)
def test_impossible_choices_are_refused(choices, said):
    with pytest.raises(ConfigError, match=said):
        Signals(**choices)


@pytest.mark.parametrize("method", ["rqkmeans", "lc-rec"])
def test_losses_need_the_training_they_are_part_of(method):
    with pytest.raises(ConfigError, match="losses of RQ-VAE training"):
        fitted(Signals(collaborative_loss=1.0), lines(), method=method)


def test_behavior_without_interactions_is_refused():
    with pytest.raises(ConfigError, match=r"collaborative_fusion=1\.0 needs interactions"):
        fitted(Signals(collaborative_fusion=1.0))


# ---- learned again


NOW = SHOP[2:] + [{"id": "new", "title": "thing 41"}]
NOW_VECTORS = np.concatenate([VECTORS[2:], np.random.default_rng(1).normal(size=(1, 6)).astype(np.float32)])


def refitted(old: SemanticIDTokenizer, **choices: object):
    return refit(old, NOW, embeddings=NOW_VECTORS, **choices)


def groups_of(ids: SemanticIDTokenizer) -> float:
    """As `same_first`, of the items that survive."""
    first, group = ids.encode(IDS[2:])[:, 0], np.repeat(np.arange(GROUPS), EACH)[2:]
    same, apart = first[:, None] == first, ~np.eye(len(first), dtype=bool)
    return same[(group[:, None] == group) & apart].mean() / same[apart].mean()


def warned(caplog) -> list[str]:
    """What was said as a warning; steps are told too where an earlier test ran a command."""
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_refit_keeps_behavior_if_it_is_given_again(caplog):
    old = fitted(Signals(collaborative_fusion=2.0), lines())
    wanted = Signals(collaborative_fusion=2.0, split="all")
    new, churn = refitted(old, init="scratch", signals=wanted, interactions=read_interactions(lines()))
    assert warned(caplog) == [
        "items: 16 of 336 events (4.8 %) are about 2 items that are not in the catalog; they get no ID"
    ]
    assert groups_of(new) > 2.0
    assert new.provenance["signals"] == wanted.to_dict()
    assert new.provenance["refit"]["dropped_signals"] is None
    assert new.codebooks.input_dim == VECTORS.shape[1]  # items to come have text alone
    plain, plainly = refitted(old, init="scratch")
    assert groups_of(plain) < 1.5
    assert churn.kept_prefix[0] > plainly.kept_prefix[0]
    same = new.encode(IDS[2:])[:, 0] == old.encode(IDS[2:])[:, 0]
    assert churn.kept_prefix[0] == same.mean()
    assert new.decode(new.tokens("new")) == "new" and len(np.unique(new.codes, axis=0)) == len(NOW)


def test_a_refit_with_signals_is_a_fit_with_signals_under_the_old_names():
    """Without tolerance, the same items share their codes as in a fit of the new catalog from nothing."""
    chosen = {"signals": Signals(collaborative_fusion=1.0), "interactions": read_interactions(lines())}
    new, _ = refitted(fitted(), init="scratch", keep_tolerance=0.0, **chosen)
    fresh = SemanticIDTokenizer.fit(NOW, embeddings=NOW_VECTORS, **chosen, **KMEANS)
    ids = [item["id"] for item in NOW]
    one, other = (codes.encode(ids)[:, 0] for codes in (new, fresh))
    assert np.array_equal(one[:, None] == one, other[:, None] == other)


@pytest.mark.parametrize("init", ["warm", "scratch"])
def test_a_refit_without_signals_says_what_is_lost(caplog, init):
    old = fitted(Signals(collaborative_fusion=2.0), lines())
    new, _ = refitted(old, init=init)
    [said] = warned(caplog)
    assert said.endswith("To keep them, add: --init scratch --interactions HISTORIES --collaborative-fusion 2.0")
    assert new.provenance["refit"]["dropped_signals"] == old.provenance["signals"]
    assert "signals" not in new.provenance
    caplog.clear()
    again, _ = refitted(new, init=init)
    assert not warned(caplog) and again.provenance["refit"]["dropped_signals"] is None


@pytest.mark.parametrize("fusion", ["behaviour", "behavior"])
def test_artifacts_with_the_old_names_of_signals_read_as_the_new_ones(tmp_path, caplog, fusion):
    """As earlier versions wrote them; the fingerprint stays, since provenance is no part of it."""
    signals = Signals(collaborative_fusion=2.0, split="all")
    mark = fitted(signals, lines()).save_pretrained(tmp_path / "sid")
    kept = json.loads((tmp_path / "sid" / "semid.json").read_text())
    rest = {"split": "all", "walks": signals.walks.to_dict()}
    old = {fusion: 2.0, "collaborative": 0.0, "llm": None, "llm_weight": 0.3} | rest
    del kept["provenance"]["signals"]
    kept["provenance"] |= {"guidance": old, "refit": {"of": mark, "dropped_guidance": old}}
    (tmp_path / "sid" / "semid.json").write_text(json.dumps(kept))
    ids = SemanticIDTokenizer.from_pretrained(tmp_path / "sid")
    assert ids.fingerprint == mark and "guidance" not in ids.provenance
    assert ids.provenance["signals"] == signals.to_dict()
    assert ids.provenance["refit"] == {"of": mark, "dropped_signals": signals.to_dict()}
    assert Signals(**ids.provenance["signals"] | {"walks": signals.walks}) == signals
    refitted(ids)
    assert warned(caplog)[0].endswith("--interactions HISTORIES --collaborative-fusion 2.0 --split all")


def test_codebooks_that_go_on_take_no_signals():
    with pytest.raises(ConfigError, match="Use init=.scratch."):
        refitted(fitted(), signals=Signals(collaborative_fusion=1.0), interactions=read_interactions(lines()))
    with pytest.raises(ConfigError, match=r"collaborative_fusion=1\.0 needs interactions"):
        refitted(fitted(), init="scratch", signals=Signals(collaborative_fusion=1.0))


@pytest.mark.parametrize(
    "signals",
    [
        Signals(collaborative_fusion=1.5, split="all"),
        Signals(collaborative_loss=10, llm_loss="a folder/it's", llm_loss_weight=0.5),
        Signals(llm_loss="x", split="own"),
    ],
)
def test_the_options_named_ask_for_the_same_again(signals):
    words = shlex.split(options_of(signals.to_dict()))
    context = refit_command.make_context("refit", ["d", "i", "-o", "o", *words], **cli.context_settings)
    given = signals_of(context.params)
    assert dataclasses.replace(given, split=signals.split) == signals
    assert given.split == signals.split or not signals.uses_interactions


# ---- the command


def write_shop(records: list[dict]) -> list[str]:
    with open("items.jsonl", "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in SHOP)
    with open("log.jsonl", "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    np.save("vectors.npy", VECTORS)
    return ["items.jsonl", "-o", "sid", "--embeddings", "vectors.npy", "--method", "rqkmeans", "--levels", "2",
            "--codebook-size", "8", "--json"]  # fmt: skip


def test_the_command_measures_with_what_it_did_not_learn_from(semid):
    done = semid("fit", *write_shop(lines()), "--interactions", "log.jsonl", "--collaborative-fusion", "1")
    assert done.code == 0, done.err
    log = read_interactions(lines())
    unseen = held_out_interactions(log, training_interactions(log)).map_to(IDS)
    assert np.diff(unseen.offsets).tolist() == [2] * len(log)
    codes = SemanticIDTokenizer.from_pretrained("sid").encode(IDS)
    lift, _ = sequence_lift(number_prefixes(codes)[:1], unseen.offsets, unseen.rows)
    assert json.loads(done.out)["sequence_lift"] == pytest.approx(lift)


def test_the_command_says_what_is_missing(semid):
    arguments = write_shop(lines())
    done = semid("fit", *arguments, "--collaborative-fusion", "1")
    assert done.code == 1 and "needs interactions" in done.err
    done = semid("fit", *arguments, "--llm-loss-weight", "1")
    assert done.code == 2 and "--llm-loss-weight requires --llm-loss MODEL." in done.err


def test_the_refit_command_says_what_is_lost_or_keeps_it(semid):
    arguments = write_shop(lines())
    done = semid("fit", *arguments, "--interactions", "log.jsonl", "--collaborative-fusion", "2")
    assert done.code == 0, done.err
    again = ("refit", "sid", "items.jsonl", "--embeddings", "vectors.npy", "--json")
    done = semid(*again, "-o", "warm")
    assert "--init scratch --interactions HISTORIES --collaborative-fusion 2.0" in done.err
    assert json.loads(done.out)["dropped_signals"]["collaborative_fusion"] == 2.0
    aligned = ("--init", "scratch", "--interactions", "log.jsonl", "--collaborative-fusion", "2")
    done = semid(*again, "-o", "fresh", *aligned)
    assert done.code == 0 and "To keep them" not in done.err and "signals     collaborative embeddings of " in done.err
    assert json.loads(done.out)["dropped_signals"] is None
    assert semid(*again, "-o", "other", *aligned[2:]).code == 1  # warm
    done = semid(*again, "-o", "other", "--interactions", "log.jsonl")
    assert done.code == 2 and "--interactions requires" in done.err
