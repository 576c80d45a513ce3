"""SemanticIDTokenizer: one item, one ID, the same in every process, and looked up with NumPy alone."""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semid.artifact import store as artifact
from semid.config import SemanticIDConfig
from semid.errors import ArtifactError, CapacityError, ConfigError, InputError, UnknownIDError
from semid.tokenizer import SemanticIDTokenizer

WORDS = ["red", "blue", "green", "nail", "polish", "brush", "hair", "cream", "face", "night", "day", "lip", "soap"]
SMALL = {"method": "rqkmeans", "levels": 3, "codebook_size": 8}


def catalog(n_items: int, seed: int = 0) -> list[dict[str, str]]:
    """Items of four words and a brand; some texts come twice."""
    chance = random.Random(seed)
    return [
        {"id": f"i{i:03}", "title": " ".join(chance.choices(WORDS, k=4)), "brand": chance.choice(["OPI", "Dove"])}
        for i in range(n_items)
    ]


def run_python(code: str, *arguments: object, **environment: str) -> str:
    """Standard output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ids():
    return SemanticIDTokenizer.fit(catalog(60), **SMALL)


@pytest.fixture(scope="module")
def saved(ids, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids") / "sid"
    ids.save_pretrained(folder)
    return folder


# ---- one item, one ID


def test_every_item_decodes_to_itself(ids):
    names = list(ids.item_ids)
    assert names == [item["id"] for item in catalog(60)]
    assert ids.decode(ids.tokens(names)) == names
    assert ids.decode(ids.encode(names)) == names
    assert [found.item_id for found in ids.parse(" and ".join(ids.tokens(names)))] == names
    assert len(np.unique(ids.codes, axis=0)) == len(ids) == 60


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(
        st.text(max_size=8) | st.sampled_from(["red shoe", "blue shoe", "red hat"]), min_size=1, max_size=40
    ),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_every_catalog_that_fits_gets_distinct_ids(texts, sizes):
    items = [{"id": str(n), "title": text} for n, text in enumerate(["red lamp", *texts])]  # one has text at least
    choices = {"method": "rqkmeans", "codebook_size": sizes}
    if len(items) > np.prod(sizes):
        with pytest.raises(CapacityError):
            SemanticIDTokenizer.fit(items, **choices)
        return
    ids = SemanticIDTokenizer.fit(items, **choices)
    names = list(ids.item_ids)
    assert sorted(names) == sorted(item["id"] for item in items)
    assert len({tuple(row) for row in ids.codes.tolist()}) == len(items)
    assert ids.decode(ids.tokens(names)) == names


def test_identical_texts_get_distinct_ids_in_the_order_of_their_item_ids():
    items = [{"id": name, "title": "the same"} for name in "fcabed"]
    ids = SemanticIDTokenizer.fit(items, **SMALL)
    again = SemanticIDTokenizer.fit(sorted(items, key=lambda item: item["id"]), **SMALL)
    assert len(set(ids.tokens(list("abcdef")))) == 6
    assert (ids.encode(list("abcdef")) == again.encode(list("abcdef"))).all()


def test_one_string_gives_one_and_a_list_gives_a_list(ids):
    assert ids.encode("i001").shape == (3,)
    assert ids.encode(["i001"]).shape == (1, 3)
    assert ids.tokens(["i001"]) == [ids.tokens("i001")]
    assert ids.decode(ids.tokens("i001")) == "i001"
    assert ids.encode([]).shape == (0, 3)
    assert ids.tokens([]) == ids.decode([]) == []


def test_decode_gives_none_for_what_is_not_exactly_one_id(ids):
    token = ids.tokens("i001")
    wrong = [
        "",
        "garbage",
        "<s_a_1>",
        token + token,
        f"see {token}",
        "<s_a_99><s_b_0><s_c_0>",
        token.upper(),
    ]
    assert ids.decode(wrong) == [None] * len(wrong)
    assert ids.decode(f" {token}\n") == "i001"
    free = next(c for c in np.ndindex(8, 8, 8) if list(c) not in ids.codes.tolist())
    assert ids.decode(np.array([free])) == [None]


def test_an_unknown_item_names_near_ones(ids):
    with pytest.raises(UnknownIDError, match=r"'i0001' is not among the 60 items. Did you mean 'i001'"):
        ids.encode(["i001", "i0001"])


def test_it_prints_as_one_line_and_knows_its_items(ids):
    assert repr(ids) == f"SemanticIDTokenizer(60 items, 3x8, rqkmeans, {ids.fingerprint[:15]}…)"
    assert re.fullmatch(r"Codebooks\(8x8x8 codes, \d+ -> \d+ dims\)", repr(ids.codebooks))
    assert "i002" in ids and "i999" not in ids and 2 not in ids
    assert list(ids) == list(ids.item_ids) and len(ids) == 60


# ---- parse


def with_ledger(ids, ledger, provenance=None):
    return SemanticIDTokenizer(
        config=ids.config,
        vocabulary=ids.vocabulary,
        ledger=ledger,
        learned=ids.codebooks,
        encoder_state=ids.encoder_state,
        provenance=ids.provenance if provenance is None else provenance,
    )


def test_parse_reports_whole_partial_unknown_and_retired_ids(ids):
    retired = with_ledger(ids, ids.ledger.retire(["i002"]))
    free = next(c for c in np.ndindex(8, 8, 8) if list(c) not in ids.codes.tolist())
    unknown = ids.vocabulary.text(free)
    text = f"Take {ids.tokens('i001')}, {ids.tokens('i002')}; <s_a_1><s_b_2> or {unknown} or <s_a_9><s_b_0><s_c_0>."
    whole, gone, partial, unheard, outside = retired.parse(text)
    assert (whole.item_id, whole.retired, whole.problem) == ("i001", False, None)
    assert (gone.item_id, gone.retired, gone.problem) == ("i002", True, None)
    assert (partial.item_id, partial.codes, partial.problem) == (None, None, "has 2 of 3 codes")
    assert (unheard.item_id, unheard.codes, unheard.problem) == (None, free, "no item has this ID")
    assert outside.codes is None and "not among the codes" in outside.problem
    for found in (whole, gone, partial, unheard, outside):
        assert text[found.start : found.end] == found.text


@given(st.text(max_size=60))
def test_parse_takes_any_text(ids, text):
    for found in ids.parse(text):
        assert text[found.start : found.end] == found.text
        assert (found.item_id is None) == (found.problem is not None)


def test_parse_reads_token_ids_as_it_reads_their_text(ids):
    retired = with_ledger(ids, ids.ledger.retire(["i002"]))
    free = next(c for c in np.ndindex(8, 8, 8) if list(c) not in ids.codes.tolist())
    codes = np.array([*ids.encode(["i001", "i002"]).tolist(), free])
    whole, gone, unheard = ids.vocabulary.token_ids(codes, base=100).tolist()
    token_ids = [5, *whole, 6, *gone, 7, *unheard, 8, *whole[:2]]
    one, two, three, cut = retired.parse(token_ids, base=100)
    assert (one.start, one.end, one.text, one.item_id, one.retired) == (1, 4, ids.tokens("i001"), "i001", False)
    assert (two.start, two.end, two.item_id, two.retired, two.problem) == (5, 8, "i002", True, None)
    assert (three.codes, three.item_id, three.problem) == (free, None, "no item has this ID")
    assert (cut.start, cut.end, cut.codes, cut.problem) == (13, 15, None, "has 2 of 3 codes")
    text = "x".join(["", *(ids.vocabulary.text(row) for row in codes), ids.tokens("i001")[:-1]])
    assert [found.item_id for found in retired.parse(text)] == ["i001", "i002", None, None]


@pytest.mark.parametrize("kind", ["list", "tuple", "int32", "tensor", "int32 tensor"])
def test_parse_takes_token_ids_of_any_kind(ids, kind):
    import torch

    token_ids = [3, *ids.vocabulary.token_ids([ids.encode("i001")], base=100)[0].tolist()]
    kinds = {
        "list": token_ids,
        "tuple": tuple(token_ids),
        "int32": np.array(token_ids, np.int32),
        "tensor": torch.tensor(token_ids),
        "int32 tensor": torch.tensor(token_ids, dtype=torch.int32),
    }
    assert [found.item_id for found in ids.parse(kinds[kind], base=100)] == ["i001"]


def test_parse_takes_the_base_from_the_argument_the_tokenizer_or_the_artifact(ids):
    table = SimpleNamespace(
        convert_tokens_to_ids=lambda tokens: [100 + ids.vocabulary.tokens.index(token) for token in tokens],
        convert_ids_to_tokens=lambda places: [ids.vocabulary.tokens[place - 100] for place in places],
    )
    noted = with_ledger(ids, ids.ledger, provenance=ids.provenance | {"base": 50})
    token_ids = ids.vocabulary.token_ids([ids.encode("i001")], base=100)[0]
    assert ids.parse(token_ids, tokenizer=table)[0].item_id == "i001"
    assert noted.parse(token_ids, tokenizer=table)[0].item_id == "i001"
    assert noted.parse(token_ids - 50)[0].item_id == "i001"
    with pytest.raises(ConfigError, match=r"needs the token id of the first code\. Give tokenizer= .* or base="):
        ids.parse(token_ids)
    with pytest.raises(InputError, match=r"should be integers \[T\], one sequence"):
        ids.parse([token_ids, token_ids], base=100)


# ---- the same everywhere


def fingerprints(folder: Path) -> list[str]:
    from semid.tokenizer import SemanticIDTokenizer  # this function is run elsewhere, too

    found = []
    for method, epochs in (("rqkmeans", None), ("rqvae", 1)):
        for vectors in (None, folder / "vectors.npy"):
            ids = SemanticIDTokenizer.fit(
                folder / "items.jsonl", method=method, epochs=epochs, levels=3, codebook_size=8, embeddings=vectors
            )
            found.append(ids.save_pretrained(folder / f"{method}-{vectors is None}"))
    return found


ELSEWHERE = f"""
from __future__ import annotations
import sys
from pathlib import Path
{inspect.getsource(fingerprints)}
print(*fingerprints(Path(sys.argv[1])))
"""


def test_shuffled_rows_and_another_process_give_the_same_fingerprints(tmp_path):
    items = catalog(220)
    vectors = np.random.default_rng(0).normal(size=(220, 12)).astype(np.float32)
    vectors[7] = vectors[3]  # a tie that only the item ids can break
    for name, order in (("here", np.arange(220)), ("there", np.random.default_rng(1).permutation(220))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "items.jsonl").write_text("".join(json.dumps(items[row]) + "\n" for row in order))
        np.save(folder / "vectors.npy", vectors[order])
    here = fingerprints(tmp_path / "here")
    assert run_python(ELSEWHERE, tmp_path / "there", PYTHONHASHSEED="1").split() == here
    assert len(set(here)) == 4


def test_another_seed_gives_other_ids():
    vectors = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    one, two = (SemanticIDTokenizer.fit(catalog(60), embeddings=vectors, seed=seed, **SMALL) for seed in (0, 1))
    assert (one.codes != two.codes).any()


def test_saving_loading_and_saving_gives_the_same_fingerprint(ids, saved, tmp_path):
    loaded = SemanticIDTokenizer.from_pretrained(saved)
    assert loaded.save_pretrained(tmp_path / "again") == artifact.load(saved).fingerprint
    assert loaded.config == ids.config
    assert list(loaded.texts) == list(ids.texts)
    assert (loaded.codes == ids.codes).all()
    assert loaded.quality() == ids.quality()


def test_an_artifact_can_be_saved_over_itself(saved, tmp_path):
    mine = tmp_path / "mine"
    before = SemanticIDTokenizer.from_pretrained(saved).save_pretrained(mine)
    loaded = SemanticIDTokenizer.from_pretrained(mine)  # its arrays are mapped from the files that are replaced
    assert loaded.save_pretrained(mine, force=True) == before
    assert artifact.verify(mine) == []


def test_looking_up_needs_numpy_alone(saved):
    told = json.loads(
        run_python(
            """
import json, sys
from semid import SemanticIDTokenizer
ids = SemanticIDTokenizer.from_pretrained(sys.argv[1])
token = ids.tokens("i001")
found = [ids.decode(token), ids.parse("see " + token)[0].item_id, ids.encode(["i001"]).shape]
heavy = "torch transformers sklearn scipy faiss safetensors huggingface_hub tqdm pandas".split()
print(json.dumps([found, [name for name in heavy if name in sys.modules]]))
""",
            saved,
        )
    )
    assert told == [["i001", "i001", [1, 3]], []]


# ---- computing with what was kept


def test_a_loaded_tokenizer_embeds_and_quantizes_as_the_fit_did(saved):
    from semid.data.items import read_items

    loaded = SemanticIDTokenizer.from_pretrained(saved)
    vectors = loaded.embed(read_items(catalog(60)))
    nearest = loaded.encode_vectors(vectors)
    moved = int((nearest != loaded.codes).any(axis=1).sum())
    assert moved == loaded.provenance["certificate"]["moved_items"]
    assert loaded.quality(vectors=vectors).distortion.final == pytest.approx(loaded.quality().distortion.final)


def test_ready_vectors_are_in_the_order_of_the_items():
    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    items = catalog(60)[::-1]
    ids = SemanticIDTokenizer.fit(items, embeddings=vectors[::-1], **SMALL)
    assert ids.quality().moved_items == (ids.encode_vectors(vectors) != ids.codes).any(axis=1).sum()
    with pytest.raises(ConfigError, match="ready vectors"):
        ids.embed(items)


@pytest.mark.parametrize("shape", [(59, 4), (61, 4), (60,), (60, 0)])
def test_vectors_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(InputError, match="shape"):
        SemanticIDTokenizer.fit(catalog(60), embeddings=np.zeros(shape, np.float32), **SMALL)


def test_vectors_that_hold_nan_are_named_by_item():
    vectors = np.zeros((60, 3), np.float32)
    vectors[58, 1] = np.nan
    with pytest.raises(InputError, match="'i001'"):
        SemanticIDTokenizer.fit(catalog(60)[::-1], embeddings=vectors, **SMALL)


def test_a_config_and_single_choices_do_not_mix():
    with pytest.raises(ConfigError, match="Put the choices into the config"):
        SemanticIDTokenizer.fit(catalog(3), SemanticIDConfig(), levels=2)


# ---- damage


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocabulary", {}), ("vocabulary", 5), ("config", []), ("config", {"levels": "x"}), ("config", {"x": 1}),
        ("encoder", None), ("encoder", {}), ("kind", "model"),
        ("vocabulary", {"sizes": [8, 8], "template": "onerec", "begin": "", "end": ""}),
    ],
)  # fmt: skip
def test_a_manifest_of_another_make_is_refused(saved, tmp_path, key, value):
    loaded = artifact.load(saved)
    artifact.save(tmp_path / "other", loaded.manifest | {key: value}, loaded.arrays)
    with pytest.raises(ArtifactError, match="semid.json"):
        SemanticIDTokenizer.from_pretrained(tmp_path / "other")


@pytest.mark.parametrize("provenance", [None, [], 5, {"quality": 5}, {"quality": {"distortion": {"x": 1}}},
                                        {"quality": {"raw_collision_rate": "x"}}])  # fmt: skip
def test_provenance_that_was_edited_costs_only_its_figures(saved, tmp_path, provenance):
    loaded = artifact.load(saved)
    artifact.save(tmp_path / "other", loaded.manifest | {"provenance": provenance}, loaded.arrays)
    quality = SemanticIDTokenizer.from_pretrained(tmp_path / "other").quality()
    assert (quality.n_unique_ids, quality.raw_collision_rate) == (60, None)
    assert quality.summary()


# ---- the Hub


class FakeApi:
    """What huggingface_hub.HfApi is asked."""

    calls: list[dict] = []

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        return SimpleNamespace(repo_id=f"someone/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, **options):
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.calls.append({"repo_id": repo_id, "files": files, **options})
        return SimpleNamespace(commit_url="https://example.org/commit/1")


def test_a_push_uploads_the_artifact_with_a_card_and_removes_old_data(ids, saved, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "calls", [])
    assert ids.push_to_hub("sid", token="t") == "https://example.org/commit/1"
    (call,) = FakeApi.calls
    assert call["repo_id"] == "someone/sid"
    assert call["delete_patterns"] == "semid-*.safetensors"
    names = {path.name for path in saved.iterdir()}
    assert set(call["files"]) == names | {"README.md"}
    card = call["files"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: semid\n")
    assert 'from_pretrained("someone/sid")' in card
    assert ids.tokens("i000") in card and "60 items, 60 distinct IDs" in card
    assert "| method | `rqkmeans` |" in card
    assert "{{" not in card and "{%" not in card

    fetched = tmp_path / "snapshot"
    fetched.mkdir()
    for name, content in call["files"].items():
        (fetched / name).write_bytes(content)
    asked = {}

    def download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(fetched)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    there = SemanticIDTokenizer.from_pretrained("someone/sid", revision="v1")
    assert (asked["repo_id"], asked["revision"]) == ("someone/sid", "v1")
    assert (there.codes == ids.codes).all()


@pytest.mark.parametrize("text", ["", "401 Client Error.\nRepository Not Found"])
def test_an_unknown_repository_is_an_artifact_error(monkeypatch, text):
    def download(repo_id, **options):
        raise OSError(text)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ArtifactError, match="someone/nothing: no such folder here, and no such artifact on the Hub"):
        SemanticIDTokenizer.from_pretrained("someone/nothing")


def test_a_local_path_never_asks_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **o: pytest.fail("asked the Hub"))
    for path in (tmp_path / "nothing", "./nothing", "nothing", "a/b/c"):
        with pytest.raises(ArtifactError, match="no such folder"):
            SemanticIDTokenizer.from_pretrained(path)


def test_neither_the_vectors_file_name_nor_the_device_is_part_of_the_fingerprint(tmp_path):
    rows = [{"id": str(n), "title": f"thing {n}"} for n in range(40)]
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    marks = set()
    for name, device in (("a.npy", "auto"), ("b.npy", "cpu")):
        np.save(tmp_path / name, vectors)
        ids = SemanticIDTokenizer.fit(
            rows, embeddings=tmp_path / name, method="rqkmeans", levels=2, codebook_size=8, device=device
        )
        marks.add(ids.save_pretrained(tmp_path / name[0]))
    assert len(marks) == 1
