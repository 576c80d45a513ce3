"""Training a language model: resumed or not the same bits, merged LoRA, the best step, losses by the formulas."""

from __future__ import annotations

import math
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from semid.adaptation.attributes import AttributeViews
from semid.adaptation.config import AdaptConfig
from semid.adaptation.folder import sentence_folder
from semid.adaptation.language_model import train_language_model
from semid.adaptation.losses import infonce, soft_target_loss
from semid.adaptation.pairs import pairs_of_histories
from semid.adaptation.text_pairs import TextPairs
from semid.data.interactions import Histories
from semid.data.items import Items
from semid.encoders import NeuralEncoder
from semid.errors import ConfigError, DependencyError
from tests.helpers.tiny_models import COLORS, THINGS, new_model, new_tokenizer

pytest.importorskip("peft", reason="needs peft: pip install peft")
pytest.importorskip("accelerate", reason="needs accelerate: pip install accelerate")

ITEMS = Items(
    [f"{color}-{thing}" for color in COLORS for thing in THINGS],
    {"color": [color for color in COLORS for _ in THINGS], "thing": [thing for _ in COLORS for thing in THINGS]},
)
TEXTS = list(ITEMS.texts())
N, STEPS, SIZE = len(ITEMS), 6, 8


def histories():
    """Users of one color each."""
    rng = np.random.default_rng(0)
    of_users = [rng.permutation(len(THINGS))[:4] + len(THINGS) * (user % len(COLORS)) for user in range(120)]
    return Histories(np.arange(121) * 4, np.concatenate(of_users), 0)


PAIRS = TextPairs.drawn(TEXTS, SIZE, STEPS, 0, pairs=pairs_of_histories(histories(), N), views=AttributeViews(ITEMS))


def config(train="lora", **choices):
    return AdaptConfig(train=train, device="cpu", rate=5e-3, **choices)


def same_color(vectors):
    """The share of items whose nearest other item has their color."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -9)
    colors = np.repeat(np.arange(len(COLORS)), len(THINGS))
    return float((colors[likeness.argmax(axis=1)] == colors).mean())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A random causal model as transformers saves it."""
    return saved(tmp_path_factory.mktemp("plain"), "qwen3 tied")


@pytest.fixture(scope="module")
def base(plain, tmp_path_factory):
    return sentence_model(plain, tmp_path_factory.mktemp("base"))


def saved(folder, kind, dtype=torch.float32):
    new_model(kind, dtype=dtype).save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return folder


def sentence_model(plain, folder, pooling="auto"):
    folder.mkdir(exist_ok=True)
    sentence_folder(plain, folder, AdaptConfig(pooling=pooling))
    return folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "choices",
    [
        {"train": "lora"},
        pytest.param({"train": "all", "bfloat16": True}, marks=pytest.mark.slow),
        pytest.param({"train": "lora", "loss": "llmemb"}, marks=pytest.mark.slow),  # its temperature learns too
    ],
    ids=str,
)
def test_a_resumed_training_ends_with_the_bits_of_an_uninterrupted_one(base, tmp_path, choices):
    whole = train_language_model(base, TEXTS, PAIRS, config(**choices), tmp_path / "whole", judge=same_color)
    calls = []

    def interrupted(vectors):
        calls.append(0)
        if len(calls) == 5:  # the start is judged first
            raise KeyboardInterrupt
        return same_color(vectors)

    place = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        train_language_model(base, TEXTS, PAIRS, config(**choices), place, judge=interrupted)
    assert {path.name for path in place.glob("checkpoint-*")} >= {"checkpoint-3"} and not (place / "model").exists()
    again = train_language_model(base, TEXTS, PAIRS, config(**choices), place, judge=same_color, resume=True)
    np.testing.assert_array_equal(np.array(whole.scores), np.array(again.scores))
    assert len(whole.scores) == 1 + STEPS and whole.step == again.step > 0
    assert files(whole.folder) == files(again.folder)


def test_a_checkpoint_that_is_not_complete_is_not_resumed_from(base, tmp_path):
    whole = train_language_model(base, TEXTS, PAIRS, config(), tmp_path / "whole")
    train_language_model(base, TEXTS, PAIRS, config(), tmp_path / "part")
    last = tmp_path / "part" / f"checkpoint-{STEPS}"
    (last / "semid.json").unlink()
    (last / "adapter_model.safetensors").write_bytes(b"cut short")
    again = train_language_model(base, TEXTS, PAIRS, config(), tmp_path / "part", resume=True)
    assert files(whole.folder) == files(again.folder)


def test_a_finished_training_is_resumed_to_what_it_gave(base, tmp_path):
    results = [
        train_language_model(base, TEXTS, PAIRS, config(), tmp_path, judge=same_color, resume=resume)
        for resume in (False, True)
    ]
    np.testing.assert_array_equal(*[np.array(result.scores) for result in results])
    assert results[0].step == results[1].step


def test_equal_seeds_give_equal_folders_without_a_path_or_a_date(base, tmp_path):
    folders = [
        train_language_model(base, TEXTS, PAIRS, config(seed=seed), tmp_path / str(number)).folder
        for number, seed in enumerate((0, 0, 1))
    ]
    assert files(folders[0]) == files(folders[1]) != files(folders[2])
    assert not any(b"/tmp" in content or bytes(base) in content for content in files(folders[0]).values())
    names = {name for name in files(folders[0]) if "/" not in name and not name.startswith(("tokenizer", "chat_"))}
    assert names - {"config_sentence_transformers.json", "generation_config.json"} == {
        "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json",
    }  # fmt: skip


@pytest.mark.parametrize("train", ["lora", "all"])
@pytest.mark.parametrize(
    ("kind", "pooling"), [("llama untied", "mean"), ("qwen3 untied", "eos"), ("qwen3 tied", "last")]
)
def test_the_folder_gives_the_vectors_of_the_best_step(tmp_path, train, kind, pooling):
    model = sentence_model(saved(tmp_path / "plain", kind), tmp_path / "base", pooling)
    judged = []

    def judge(vectors):
        judged.append(vectors)
        return [0, 1, 3, 2, 0, 0, 1][len(judged) - 1]

    result = train_language_model(model, TEXTS, PAIRS, config(train), tmp_path / "work", judge=judge)
    assert result.step == 2 and [score for _, _, score in result.scores] == [0, 1, 3, 2, 0, 0, 1]
    found = NeuralEncoder(result.folder).transform(ITEMS)
    np.testing.assert_allclose(found, judged[2], atol=2e-6)
    assert np.abs(judged[2] - judged[0]).max() > 1e-3 and np.abs(judged[2] - judged[-1]).max() > 1e-3


def test_the_start_is_kept_where_no_step_is_better(base, tmp_path):
    result = train_language_model(base, TEXTS, PAIRS, config(), tmp_path, judge=lambda vectors: 0.5)
    assert result.folder == base and result.step == 0 and not (tmp_path / "model").exists()


@pytest.mark.parametrize("train", ["lora", "all"])
def test_items_that_were_met_together_come_together(base, tmp_path, train):
    pairs = TextPairs.drawn(TEXTS, SIZE, 20, 0, pairs=pairs_of_histories(histories(), N))
    result = train_language_model(base, TEXTS, pairs, config(train), tmp_path, judge=same_color)
    before, after = result.scores[0][2], max(score for _, _, score in result.scores)
    assert before < 0.5 and after > 0.8


@pytest.mark.parametrize("train", ["lora", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "spared", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "gradient checkpointing"]
)
def test_the_first_loss_is_that_of_the_formula(plain, base, tmp_path, train, spared):
    sides = sides_of_the_first_batch(plain)
    items = torch.arange(2 * SIZE)
    for loss, expected in {
        "infonce": infonce(*sides, items[:SIZE], items[SIZE:], 0.2),
        "llmemb": soft_target_loss(*sides, torch.tensor(3.0)),
        "llmemb-detached": soft_target_loss(*sides, torch.tensor(3.0), detached=True),
    }.items():
        choices = config(train, loss=loss, temperature=0.2, gradient_checkpointing=spared)
        result = train_language_model(base, TEXTS, PAIRS, choices, tmp_path / loss)
        assert result.scores[1][0] == 1 and result.scores[1][1] == pytest.approx(float(expected), abs=2e-4)
        assert all(math.isnan(score) for _, _, score in result.scores) and result.step == STEPS


def sides_of_the_first_batch(plain):
    """The vectors of its texts, not normalized, as a model without training gives them."""
    texts = PAIRS({"pair": range(SIZE)})
    encoder = NeuralEncoder(plain, normalize=False)
    return [torch.from_numpy(encoder.transform(Items([*map(str, range(SIZE))], {"t": texts[side]}))) for side in texts]


def test_weights_stay_as_precise_as_they_were(tmp_path):
    model = sentence_model(saved(tmp_path / "plain", "llama untied", torch.float16), tmp_path / "base")
    for train in ("lora", "all"):
        folder = train_language_model(model, TEXTS, PAIRS, config(train), tmp_path / train).folder
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {np.dtype(np.float16)}


def test_a_loss_that_is_not_finite_stops_training_with_the_fix(base, tmp_path):
    damaged = shutil.copytree(base, tmp_path / "base")
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    (damaged / "model.safetensors").unlink()
    (damaged / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"the loss is nan at step 1\. Lower rate"):
        train_language_model(damaged, TEXTS, PAIRS, config(), tmp_path / "work")
    assert not (tmp_path / "work" / "model").exists()


def test_one_of_several_gpus_is_chosen_by_the_environment(base, tmp_path):
    with pytest.raises(ConfigError, match="device='cpu:0'.* CUDA_VISIBLE_DEVICES"):
        train_language_model(base, TEXTS, PAIRS, AdaptConfig(train="lora", device="cpu:0"), tmp_path)


@pytest.mark.parametrize("module", ["peft", "accelerate", "datasets", "sentence_transformers"])
def test_a_missing_extra_names_the_command(base, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=re.escape('pip install "semid[adapt]"')):
        train_language_model(base, TEXTS, PAIRS, config(), tmp_path)


# ---- The batches.


def test_batches_of_pairs_and_of_views_take_turns_and_repeat_no_text():
    assert len(PAIRS) == STEPS and PAIRS.ends.tolist() == [SIZE * n for n in range(1, STEPS + 1)]
    for number, start in enumerate(range(0, STEPS * SIZE, SIZE)):
        part = slice(start, start + SIZE)
        left, right, epochs = PAIRS.left[part], PAIRS.right[part], PAIRS.epochs[part].tolist()
        texts = PAIRS({"pair": list(range(start, start + SIZE))})
        if number % 2 == 0:
            assert epochs == [-1] * SIZE and len({*left.tolist(), *right.tolist()}) == 2 * SIZE
            assert texts == {"anchor": [TEXTS[row] for row in left], "positive": [TEXTS[row] for row in right]}
        else:
            assert (left == right).all() and len(set(left.tolist())) == SIZE and min(epochs) >= 0
            views = [AttributeViews(ITEMS).texts(left, epoch=epochs[0], side=side) for side in (0, 1)]
            assert list(texts.values()) == views


def test_two_items_with_one_text_are_not_in_one_batch():
    texts = ["same" if row < 20 else text for row, text in enumerate(TEXTS)]
    drawn = TextPairs.drawn(texts, SIZE, 30, 0, pairs=pairs_of_histories(histories(), N))
    starts = [0, *drawn.ends[:-1].tolist()]
    for start, end in zip(starts, drawn.ends.tolist(), strict=True):
        pairs = [{texts[a], texts[b]} for a, b in zip(drawn.left[start:end], drawn.right[start:end], strict=True)]
        assert len(set().union(*pairs)) == sum(map(len, pairs)) > 0


@pytest.mark.parametrize("n_processes", [1, 2, 3, 8])
def test_processes_share_each_batch_in_equal_parts(n_processes):
    shares = PAIRS.shares(n_processes)
    assert len(shares) == STEPS * n_processes
    for step in range(STEPS):
        taken = [number for share in shares[step * n_processes : (step + 1) * n_processes] for number in share]
        assert taken == list(range(SIZE * step, SIZE * step + SIZE // n_processes * n_processes))
    with pytest.raises(ConfigError, match="8 pairs cannot be shared by 9 processes"):
        PAIRS.shares(9)
