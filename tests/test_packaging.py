"""What is shipped, what is public, and what an import costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import semid

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sklearn", "scipy", "faiss", "sentence_transformers", "pandas", "datasets", "pyarrow")
# A stand-in for Hugging Face's package: every public name is there, and does nothing.
FAKE_KERNELS = """
from unittest.mock import MagicMock

WHOSE = "Hugging Face"

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock(name=name)
"""


def run_python(code: str, *, cwd: Path, **environment: str) -> str:
    """Standard output of a fresh interpreter with `cwd` first on its path."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_public_names_are_pinned():
    assert semid.__all__ == [
        "AdaptConfig",
        "ClusterTokens",
        "SemanticIDConfig",
        "SemanticIDTokenizer",
        "Signals",
        "Trie",
        "__version__",
        "adapt",
        "embed",
        "evaluate",
        "evaluate_recommendations",
        "export",
        "extend",
        "extend_folder",
        "fit_clusters",
        "generate_items",
        "import_index",
        "read_interactions",
        "read_items",
        "write_alignment",
    ]
    for name in semid.__all__:
        assert getattr(semid, name) is not None
        assert name in dir(semid)


AFTER_A_FIT = """
import torch, semid
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast
from tokenizers import Tokenizer, models

items = [{"id": str(n), "title": f"{c} {t}"} for n, (c, t) in enumerate(
    (c, t) for c in ("red", "blue", "green") for t in ("shoe", "shirt", "hat"))]
ids = semid.SemanticIDTokenizer.fit(items, levels=2, codebook_size=4)
ids.quality()
trie = semid.Trie.from_tokenizer(ids, base=8)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1))
semid.generate_items(model, torch.tensor([[1]]), trie, num_return=2)

from semid import *
histories = read_interactions([{"user": f"u{u}", "items": [str((u + k) % 9) for k in range(4)]} for u in range(9)])
assert len(read_items(items)) == 9 and embed(items).shape[0] == 9
assert evaluate(ids.codes, sizes=ids.sizes).n_items == 9 and Signals() is not None
assert isinstance(fit_clusters(histories), ClusterTokens)
assert SemanticIDTokenizer.fit(items, SemanticIDConfig(levels=2, codebook_size=4)).tokens("0")
assert len(Trie.from_tokenizer(ids)) == 9
assert generate_items(model, torch.tensor([[1]]), trie, num_return=2).rows.shape == (1, 2)
words = models.WordLevel({f"w{n}": n for n in range(16)}, unk_token="w0")
vocabulary = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
assert extend(vocabulary, model, ids).base == 16
assert export(ids, "index.json", to="lcrec") is not None and len(import_index("index.json")) == 9
ids.save_pretrained("sid")
vocabulary.save_pretrained("llm"), model.save_pretrained("llm")
assert write_alignment(ids, histories, "data") is not None and callable(extend_folder)
"""


def test_public_names_are_what_they_say_for_the_whole_life_of_a_process(tmp_path):
    """Importing a file must never put a module in the place of a function of the same name."""
    run_python(AFTER_A_FIT, cwd=tmp_path)


def test_an_unknown_name_lists_the_known_ones():
    known = "'semid' has no attribute 'tokenize'. It has: AdaptConfig, ClusterTokens, Semantic"
    with pytest.raises(AttributeError, match=known):
        _ = semid.tokenize


# ---- the clone


def test_kernels_is_no_package_at_the_root():
    """transformers probes for a package `kernels`, which is Hugging Face's name (see pyproject.toml)."""
    assert (ROOT / "kernels" / "ops" / "__init__.py").exists()
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_the_old_extra_for_parquet_still_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "pyarrow>=17" in project["dependencies"]
    assert project["optional-dependencies"]["parquet"] == []


def test_every_subpackage_is_named_in_pyproject():
    mapped = settings()["package-dir"]

    def folder(package: str) -> Path:
        above, _, name = package.rpartition(".")
        return ROOT / mapped[package] if package in mapped else (folder(above) if above else ROOT) / name

    folders = {folder(package) for package in settings()["packages"]}
    rooms = [ROOT / "semid", ROOT / "kernels", ROOT / "tokenizer_exports"]
    assert folders == {path.parent for room in rooms for path in room.rglob("*.py")}


IMPORT_TRANSFORMERS = """
import importlib.util, json, sys
spec = importlib.util.find_spec("kernels")
import transformers
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_kernels_available
import semid.kernels, semid.tokenizer_exports
print(json.dumps([sys.path[0], spec.origin, is_kernels_available()]))
"""


@pytest.mark.slow  # beside it there is more to go wrong: the next test
def test_transformers_imports_from_the_clone_without_hugging_face_kernels(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata\n"  # hide an installed one
        "found = importlib.metadata.version\n"
        "def version(name):\n"
        "    if name == 'kernels':\n"
        "        raise importlib.metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "importlib.metadata.version = version\n"
    )
    path, origin, available = json.loads(run_python(IMPORT_TRANSFORMERS, cwd=ROOT, PYTHONPATH=str(tmp_path)))
    assert path == "" and available is False
    assert origin is None or not origin.startswith(str(ROOT))


def test_transformers_imports_from_the_clone_beside_hugging_face_kernels(tmp_path):
    from transformers.dependency_versions_table import deps

    version = deps["kernels"].split(">=")[1].split(",")[0]  # the lowest that this transformers accepts
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text(FAKE_KERNELS)
    metadata = tmp_path / f"kernels-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    (metadata.parent / "top_level.txt").write_text("kernels\n")  # where older transformers look
    path, origin, available = json.loads(run_python(IMPORT_TRANSFORMERS, cwd=ROOT, PYTHONPATH=str(tmp_path)))
    assert path == "" and available is True
    assert origin == str(tmp_path / "kernels" / "__init__.py")


# ---- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the clone, without a network."""
    copy, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("semid", "kernels", "tokenizer_exports", "tests", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", out, copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_semid_and_nothing_else(wheel):
    assert {name.split("/")[0] for name in wheel.namelist()} == {"semid", f"semid-{semid.__version__}.dist-info"}


def test_the_wheel_holds_every_module(wheel):
    shipped = {name for name in wheel.namelist() if name.endswith(".py")}
    homes = {"semid": "semid", "kernels/ops": "semid/kernels", "tokenizer_exports": "semid/tokenizer_exports"}
    ours = {
        f"{home}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, home in homes.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert shipped == ours
    assert {"semid/kernels/__init__.py", "semid/tokenizer_exports/__init__.py"} <= shipped


def test_the_wheel_holds_the_type_marker_the_templates_and_the_licence(wheel):
    names = wheel.namelist()
    assert "semid/py.typed" in names
    templates = [f"semid/templates/{path.name}" for path in (ROOT / "semid" / "templates").iterdir()]
    assert templates and set(templates) <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_wheel_holds_the_sample_catalog_and_where_it_is_from(wheel):
    sample = ROOT / "semid" / "datasets" / "debian-3000.jsonl"
    assert wheel.read("semid/datasets/debian-3000.jsonl") == sample.read_bytes()
    assert b"Debian Free Software" in wheel.read("semid/datasets/debian-3000.md")


def test_the_wheel_runs_without_the_clone(wheel, tmp_path):
    """Unpacked elsewhere, it is imported from there, and the command works."""
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.meta_path[:] = "
        "[finder for finder in sys.meta_path if '__editable__' not in repr(finder)]\n"
        "import semid, semid.cli, semid.kernels, semid.tokenizer_exports\n"
        "print(semid.__file__, semid.kernels.__file__)\n"
        "sys.argv = ['semid', '--version']; semid.cli.main()"
    )
    lines = run_python(code, cwd=tmp_path.parent).split("\n")
    assert lines[0] == f"{tmp_path / 'semid/__init__.py'} {tmp_path / 'semid/kernels/__init__.py'}"
    assert semid.__version__ in lines[1]


# ---- what an import costs


def modules_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`."""
    ending = "import json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    return set(json.loads(run_python(f"{code}\n{ending}", cwd=ROOT).splitlines()[-1]))


def test_importing_semid_imports_nothing_heavy():
    loaded = modules_after("import semid")
    assert not loaded & {*HEAVY, "numpy", "click"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["fit", "--help"], ["doctor", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments):
    code = f"import semid.cli, sys\nsys.argv = ['semid', *{arguments}]\nsemid.cli.main()"
    assert not modules_after(code) & {*HEAVY}


def test_loading_and_decoding_needs_numpy_alone(tmp_path):
    """The artifact is data: no torch, no scipy between a saved folder and an item's tokens."""
    items = [{"id": f"item-{i}", "title": f"nail polish shade {i}"} for i in range(30)]
    config = semid.SemanticIDConfig(method="rqkmeans", levels=2, codebook_size=16)
    semid.SemanticIDTokenizer.fit(items, config).save_pretrained(tmp_path / "ids")
    code = (
        "import semid\n"
        f"ids = semid.SemanticIDTokenizer.from_pretrained({str(tmp_path / 'ids')!r})\n"
        "assert ids.decode(ids.encode(['item-7'])) == ['item-7']\n"
        "assert ids.tokens(['item-7'])"
    )
    assert not modules_after(code) & {*HEAVY}
