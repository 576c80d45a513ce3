"""A model's folder becomes an extended one: ordinary, streamed, whole or not at all, and the base stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from semid.artifact.store import verify
from semid.errors import ArtifactError, ConfigError, InputError, OutputExistsError
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.models import extend, extend_folder
from semid.tokenizer_exports.models import on_disk as checkpoint
from tests.helpers.tiny_models import KINDS, ids_of, logits_of, new_model, new_tokenizer

PROMPTS = [[5, 9, 80, 3, 17], [200, 31, 44, 270, 8]]


def saved(folder: Path, kind: str = "qwen3 untied", *, shard: str = "50GB", **choices: object) -> Path:
    new_model(kind, **choices).save_pretrained(folder, max_shard_size=shard)
    new_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> torch.nn.Module:
    config = json.loads((folder / "config.json").read_text())
    auto = AutoModelForSeq2SeqLM if config.get("is_encoder_decoder") else AutoModelForCausalLM
    return auto.from_pretrained(folder).eval()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved(tmp_path / "base")


# ---- an ordinary folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shard", ["50GB", "20KB"], ids=["one file", "many files"])
def test_the_folder_holds_what_extending_the_loaded_model_gives(tmp_path, kind, shard):
    folder, out = saved(tmp_path / "base", kind, shard=shard), tmp_path / "out"
    before = digests(folder)
    extended = extend_folder(folder, ids_of(), out, init="text+codebook")
    assert digests(folder) == before, "the base was touched"
    model, tokenizer = loaded(folder), new_tokenizer()
    in_memory = extend(tokenizer, model, ids_of(), init="text+codebook")
    assert extended.to_dict() == in_memory.to_dict()
    reloaded = loaded(out)
    assert reloaded.config.vocab_size == 384
    there = reloaded.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(there[name], tensor), name
    old = logits_of(loaded(folder), PROMPTS)
    torch.testing.assert_close(logits_of(reloaded, PROMPTS)[..., :300], old, rtol=1e-5, atol=1e-5)


def test_it_loads_where_semid_is_not_installed_and_gives_the_old_logits(tmp_path, base):
    out = tmp_path / "out"
    extended = extend_folder(base, ids_of(), out)
    torch.save(logits_of(loaded(base), PROMPTS), tmp_path / "logits.pt")
    code = """if True:
        import sys, torch
        sys.modules["semid"] = None  # so that importing it fails
        from transformers import AutoModelForCausalLM, AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
        found = tokenizer("see<s_a_1><s_b_2><s_c_0>!", add_special_tokens=False)["input_ids"]
        print(*[i - int(sys.argv[2]) for i in found if i >= int(sys.argv[2])])
        print(tokenizer.decode(found, skip_special_tokens=True))
        print(tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False).strip())
        with torch.no_grad():
            now = model(torch.tensor([[5, 9, 80, 3, 17], [200, 31, 44, 270, 8]])).logits[..., : int(sys.argv[2])]
        print(torch.allclose(now, torch.load(sys.argv[3]), atol=1e-5), model.config.vocab_size)
    """
    given = [out, extended.base, tmp_path / "logits.pt"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, cwd=tmp_path, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 10 16", "see<s_a_1><s_b_2><s_c_0>!", "<|im_start|>user: hi", "True 384"]


def test_the_artifact_lies_beside_the_model_and_knows_its_base(tmp_path, base):
    ids = ids_of()
    extended = extend_folder(base, ids, tmp_path / "out")
    there = SemanticIDTokenizer.from_pretrained(tmp_path / "out")
    assert there.provenance["base"] == extended.base == 300
    assert "base" not in ids.provenance, "the caller's object was changed"
    assert there.tokens(list(there.item_ids)) == ids.tokens(list(ids.item_ids))
    assert verify(tmp_path / "out") == []


def test_all_other_files_are_kept_and_stale_ones_left_out(tmp_path, base):
    (base / "README.md").write_text("the base")
    (base / "extra" / "deep").mkdir(parents=True)
    (base / "extra" / "deep" / "note.txt").write_text("kept")
    stale = [
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "model.gguf",
        "model.fp16.safetensors",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "added_tokens.json",
        ".git/x",
    ]
    for name in stale:
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("{}")
    out = tmp_path / "out"
    extend_folder(base, ids_of(), out)
    names = set(digests(out))
    data = {name for name in names if name.startswith("semid-")}
    assert names == {
        "README.md", "extra/deep/note.txt", "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "semid.json",
        *data, "ids.tsv",
    }  # fmt: skip
    for name in ("README.md", "extra/deep/note.txt", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    configs = [json.loads((folder / "config.json").read_text()) for folder in (base, out)]
    assert configs[1] == configs[0] | {"vocab_size": 384}


@pytest.mark.parametrize("shard", ["50GB", "20KB"], ids=["one file", "many files"])
def test_an_index_always_says_which_files_are_the_model(tmp_path, shard):
    """Engines read every safetensors file of a folder without an index: the artifact's too."""
    folder = saved(tmp_path / "base", shard=shard)
    extend_folder(folder, ids_of(), tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = {name: load_file(tmp_path / "out" / name) for name in set(index["weight_map"].values())}
    assert not any(name.startswith("semid") for name in files)
    assert {tensor: name for name, held in files.items() for tensor in held} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(t.nbytes for held in files.values() for t in held.values())
    if "total_parameters" in index["metadata"]:
        assert index["metadata"]["total_parameters"] == sum(t.numel() for held in files.values() for t in held.values())


# ---- only what must change


def test_only_the_two_shards_with_the_matrices_differ(tmp_path):
    folder = saved(tmp_path / "base", "llama untied", shard="20KB")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) >= 5
    extend_folder(folder, ids_of(), tmp_path / "out")
    place = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    before, after = digests(folder), digests(tmp_path / "out")
    changed = {name for name in shards if before[name] != after[name]}
    assert changed == {place["model.embed_tokens.weight"], place["lm_head.weight"]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_old_rows_and_other_tensors_keep_every_byte(tmp_path, dtype):
    folder = saved(tmp_path / "base", "qwen3 untied", dtype=dtype, n_rows=340)
    # Copies: what was loaded may lie in the very file that is written next.
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    weights["model.extra_fp8"] = torch.arange(0, 40, dtype=torch.float32).to(torch.float8_e4m3fn).reshape(5, 8)
    weights["a.first"] = torch.arange(7, dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt", "note": "kept"})
    extend_folder(folder, ids_of(), tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert list(after) and set(after) == set(weights)
    for name, tensor in weights.items():
        now = after[name]
        assert now.dtype == tensor.dtype
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert now.shape == (384, 32)
            now, tensor = (torch.cat([one[:300], one[326:340]]) for one in (now, tensor))
        assert torch.equal(now.view(torch.uint8), tensor.view(torch.uint8)), name
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "kept"}


def many_shards(folder: Path, width: int, n_shards: int = 24) -> Path:
    """A sharded checkpoint whose other tensors are many times as large as its embedding."""
    saved(folder, "llama untied")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    place = {}
    names = list(weights)
    for number in range(n_shards):
        held = {name: weights[name] for name in names[number::n_shards]}
        held[f"filler.{number}"] = torch.zeros(width, 1024)
        name = f"model-{number + 1:05}-of-{n_shards:05}.safetensors"
        save_file(held, folder / name, metadata={"format": "pt"})
        place |= dict.fromkeys(held, name)
    index = {"metadata": {"total_size": 1}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


PEAK = """if True:
    import resource, sys
    from semid.tokenizer import SemanticIDTokenizer
    from semid.tokenizer_exports.models import extend_folder
    small, large, sid, out = sys.argv[1:]
    ids = SemanticIDTokenizer.from_pretrained(sid)
    extend_folder(small, ids, out + "-small")  # whatever is imported and built once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    extend_folder(large, ids, out + "-large")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path):
    ids_of().save_pretrained(tmp_path / "sid")
    small, large = many_shards(tmp_path / "small", 1), many_shards(tmp_path / "large", 2048)
    size = sum(path.stat().st_size for path in large.glob("*.safetensors"))
    assert size > 190e6
    given = [small, large, tmp_path / "sid", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, given)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout) * 1024
    assert grown < 24e6, f"{grown / 1e6:.0f} MB more for a model of {size / 1e6:.0f} MB"
    shutil.rmtree(tmp_path / "large")
    shutil.rmtree(tmp_path / "out-large")


def test_links_share_the_unchanged_files_only(tmp_path):
    folder, out = saved(tmp_path / "base", shard="20KB"), tmp_path / "out"
    extend_folder(folder, ids_of(), out, link=True)
    place = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    edited = {place["model.embed_tokens.weight"], place["lm_head.weight"]}
    for path in folder.iterdir():
        same = (out / path.name).exists() and os.path.samefile(path, out / path.name)
        assert same == (path.suffix == ".safetensors" and path.name not in edited), path.name


def test_copies_share_nothing_with_the_base(tmp_path):
    folder, out = saved(tmp_path / "base", shard="20KB"), tmp_path / "out"
    extend_folder(folder, ids_of(), out)
    before = digests(folder)
    loaded(out).save_pretrained(out)
    assert digests(folder) == before


# ---- names in files


def test_tied_copies_and_missing_prefixes_are_found(tmp_path):
    """Old T5 files hold the embedding three times; files of a base model lack its prefix."""
    folder = saved(tmp_path / "t5", "t5 tied")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()
    weights["decoder.embed_tokens.weight"] = weights["shared.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert len(extend_folder(folder, ids_of(), tmp_path / "t5-out").matrices) == 1
    after = load_file(tmp_path / "t5-out" / "model.safetensors")
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        assert torch.equal(after[name], after["shared.weight"]) and len(after[name]) == 384
    folder = saved(tmp_path / "qwen", "qwen3 tied")
    weights = load_file(folder / "model.safetensors")
    plain = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    extend_folder(folder, ids_of(), tmp_path / "qwen-out")
    assert len(load_file(tmp_path / "qwen-out" / "model.safetensors")["embed_tokens.weight"]) == 384


def test_the_vocabulary_size_is_written_where_it_stands(tmp_path):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16,
            "num_key_value_heads": 1, "intermediate_size": 32, "sliding_window": 8}  # fmt: skip
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=299)
    torch.manual_seed(0)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    new_tokenizer().save_pretrained(tmp_path / "base")
    extended = extend_folder(tmp_path / "base", ids_of(), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["text_config"]["vocab_size"] == 384 and "vocab_size" not in written
    model = Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert len(model.get_input_embeddings().weight) == extended.n_rows == 384
    memory = Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "base")
    extend(new_tokenizer(), memory, ids_of())
    assert torch.equal(memory.get_input_embeddings().weight, model.get_input_embeddings().weight)


# ---- again, and over an old one


def test_extending_an_extended_folder_changes_no_weight(tmp_path, base):
    first = extend_folder(base, ids_of(), tmp_path / "one")
    again = extend_folder(tmp_path / "one", ids_of(), tmp_path / "two", init="text", pad_to=1024)
    assert (again.base, again.n_rows, again.initialized) == (first.base, 384, False)
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert one == two


def test_other_ids_with_the_same_tokens_are_refused(tmp_path, base):
    extend_folder(base, ids_of(), tmp_path / "one")
    with pytest.raises(ConfigError, match="rows belong to other codes"):
        extend_folder(tmp_path / "one", other(), tmp_path / "two")


def other() -> SemanticIDTokenizer:
    items = [{"id": str(n), "title": f"pen {n % 7} ink {n % 5}"} for n in range(30)]
    return SemanticIDTokenizer.fit(items, levels=3, codebook_size=8, method="rqkmeans")


def test_transformers_4_finds_the_keys_it_knows_and_5_still_reads_them(tmp_path, base):
    path = base / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    assert settings["tokenizer_class"] == "TokenizersBackend"
    path.write_text(json.dumps(settings | {"extra_special_tokens": ["<|end|>"]}))
    extend_folder(base, ids_of(), tmp_path / "out", transformers_4=True)
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["additional_special_tokens"] == ["<|end|>"] and "extra_special_tokens" not in written
    extend_folder(base, ids_of(), tmp_path / "plain")
    text = "red<s_a_1><s_b_2> shoe<|end|>"
    both = [AutoTokenizer.from_pretrained(tmp_path / name)(text)["input_ids"] for name in ("out", "plain")]
    assert both[0] == both[1]


@pytest.mark.parametrize("legacy", [True, False, None])
def test_llamas_legacy_is_kept_as_it_was(tmp_path, base, legacy):
    path = base / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("legacy", None)
    path.write_text(json.dumps(settings | ({} if legacy is None else {"legacy": legacy})))
    extend_folder(base, ids_of(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()).get("legacy") == legacy


def test_the_output_is_replaced_only_if_asked_and_only_if_it_is_ours(tmp_path, base):
    out = tmp_path / "out"
    out.mkdir()
    extend_folder(base, ids_of(), out)  # an empty folder may be filled
    before = digests(out)
    with pytest.raises(OutputExistsError, match="use --force to replace it"):
        extend_folder(base, ids_of(), out, seed=3)
    assert digests(out) == before
    extend_folder(base, ids_of(), out, seed=3, force=True)
    assert digests(out) != before and set(digests(out)) == set(before)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match="--force does not replace"):
        extend_folder(base, ids_of(), foreign, force=True)
    with pytest.raises(OutputExistsError, match="is a file"):
        extend_folder(base, ids_of(), foreign / "thesis.tex", force=True)
    assert os.listdir(foreign) == ["thesis.tex"]


@pytest.mark.parametrize("inside", ["", "out", "../base/deep/out", ".."])
def test_base_and_output_must_be_apart(tmp_path, inside):
    folder = saved(tmp_path / "models" / "base")
    before = digests(tmp_path)
    with pytest.raises((ConfigError, OutputExistsError)):
        extend_folder(folder, ids_of(), folder / inside)
    assert digests(tmp_path) == before


# ---- whole or not at all


@pytest.mark.parametrize("step", ["copy_rest", "write_weights", "write_config", "save_in_model", "rename"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failure_at_any_step_leaves_nothing_and_the_old_folder_intact(tmp_path, base, monkeypatch, step, error):
    out = tmp_path / "out"
    extend_folder(base, ids_of(), out)
    before = digests(tmp_path)

    def fail(*_, **__):
        raise error("stopped")

    if step == "rename":
        real = os.rename
        monkeypatch.setattr(os, "rename", lambda a, b: fail() if b == out and ".semid-tmp-" in str(a) else real(a, b))
    else:
        monkeypatch.setattr(checkpoint, {"write_config": "_write_config"}.get(step, step), fail)
    with pytest.raises(error):
        extend_folder(base, ids_of(), out, seed=9, force=True)
    with pytest.raises(error):
        extend_folder(base, ids_of(), tmp_path / "fresh" if step != "rename" else out, seed=9, force=True)
    assert digests(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == ["base", "out"]


@pytest.mark.slow
def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path, base):
    ids_of().save_pretrained(tmp_path / "sid")
    code = """if True:
        import sys, time
        from semid.tokenizer import SemanticIDTokenizer
        from semid.tokenizer_exports.models import on_disk as checkpoint
        checkpoint._write_config = lambda *_: (print("now", flush=True), time.sleep(60))
        checkpoint.extend_folder(sys.argv[1], SemanticIDTokenizer.from_pretrained(sys.argv[2]), sys.argv[3])
    """
    given = [base, tmp_path / "sid", tmp_path / "out"]
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, given)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "now\n"
    extend_folder(base, ids_of(), tmp_path / "out")  # beside it: the other's draft is left alone
    assert len(list(tmp_path.glob(".out.semid-tmp-*"))) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    extend_folder(base, ids_of(), tmp_path / "out", force=True)
    assert not list(tmp_path.glob(".out*"))


# ---- errors


def test_wrong_inputs_are_named_with_the_fix(tmp_path, base):
    ids, out = ids_of(), tmp_path / "out"
    with pytest.raises(InputError, match="no such folder"):
        extend_folder(tmp_path / "nowhere", ids, out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no config.json"):
        extend_folder(tmp_path / "empty", ids, out)
    shutil.copytree(base, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(
        ConfigError, match="has pytorch_model.bin but no model.safetensors. Convert it: .*save_pretrained"
    ):
        extend_folder(tmp_path / "pickled", ids, out)
    (tmp_path / "pickled" / "pytorch_model.bin").unlink()
    with pytest.raises(ArtifactError, match="no model.safetensors and no"):
        extend_folder(tmp_path / "pickled", ids, out)
    shutil.copytree(base, tmp_path / "cut")
    content = (base / "model.safetensors").read_bytes()
    for wrong in (content[:-1], content[:5], b"\xff" * 100, b"\x02" + b"\0" * 7 + b"[]"):
        (tmp_path / "cut" / "model.safetensors").write_bytes(wrong)
        with pytest.raises(ArtifactError, match="not a safetensors file, or cut short"):
            extend_folder(tmp_path / "cut", ids, out)
    assert not out.exists()


def test_models_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    ids, out = ids_of(), tmp_path / "out"
    with pytest.raises(ConfigError, match="wrong tokenizer for this model: .* up to 299, .* 200 rows"):
        extend_folder(saved(tmp_path / "small", n_rows=200), ids, out)
    folder = saved(tmp_path / "packed")
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].to(torch.int8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="stored as I8, expected F64.* quantized. Extend the"):
        extend_folder(folder, ids, out)
    folder = saved(tmp_path / "mixed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 310}))
    with pytest.raises(ArtifactError, match=r"weight has 300 rows, .*config.json says 310\."):
        extend_folder(folder, ids, out)
    (folder / "config.json").write_text(json.dumps({"model_type": "nobody-knows"}))
    with pytest.raises(ConfigError, match="nobody-knows.*semid.extend"):
        extend_folder(folder, ids, out)
    assert sorted(os.listdir(tmp_path)) == ["mixed", "packed", "small"]


def test_a_tensor_that_grows_in_an_unknown_way_is_refused(tmp_path, base, monkeypatch):
    """As the second embedding of Gemma 3n does, one row per token and layer."""
    own = "model.layers.0.self_attn.q_proj.weight"
    monkeypatch.setattr("semid.encoders.checkpoint._growing", lambda *_: [own])
    with pytest.raises(ConfigError, match=f"{own} has shape .* that semid does not know. Load the model, use semid"):
        extend_folder(base, ids_of(), tmp_path / "out")
    assert os.listdir(tmp_path) == ["base"]


def test_links_across_disks_are_refused(tmp_path, base, monkeypatch):
    def fail(*_):
        raise OSError(18, "Invalid cross-device link")

    folder = saved(tmp_path / "many", shard="20KB")
    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(ConfigError, match="cross-device link. Use the same disk, or leave --link out"):
        extend_folder(folder, ids_of(), tmp_path / "out", link=True)
    assert sorted(os.listdir(tmp_path)) == ["base", "many"]


def test_a_full_disk_is_noticed_before_the_weights_are_written(tmp_path, base, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ArtifactError, match="0.0 GB free, the model needs .* Make room .*--link"):
        extend_folder(base, ids_of(), tmp_path / "out")
    assert os.listdir(tmp_path) == ["base"]


def test_extending_is_the_same_every_time(tmp_path, base):
    extend_folder(base, ids_of(), tmp_path / "one", init="text+codebook")
    extend_folder(base, ids_of(), tmp_path / "two", init="text+codebook")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    start = time.perf_counter()
    rows = load_file(tmp_path / "one" / "model.safetensors")["lm_head.weight"].numpy()
    assert np.isfinite(rows).all() and time.perf_counter() - start < 5
