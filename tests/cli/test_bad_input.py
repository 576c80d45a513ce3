"""The main job against bad input and bad luck: an error that names the place, and never half an artifact."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semid.artifact import atomic
from semid.artifact import store as artifact
from semid.encoders.lexical import LexicalEncoder
from semid.ledger.ledger import Ledger
from semid.pipeline import fit as fitting
from semid.pipeline import learn, provenance
from semid.pipeline import read as reading
from semid.quantize.codebooks import Codebooks
from semid.tokenizer import SemanticIDTokenizer
from semid.train.residual_kmeans import ResidualKMeans

WORDS = ["red", "blue", "green", "nail", "polish", "brush", "hair", "cream", "face", "night", "day", "lip", "soap"]
KMEANS = ("--method", "rqkmeans", "--levels", "3", "--codebook-size", "8")
RQVAE = ("--epochs", "1", "--levels", "3", "--codebook-size", "8")
BOTH = pytest.mark.parametrize("learner", [KMEANS, RQVAE], ids=["rqkmeans", "rqvae"])
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def catalog(n_items: int) -> list[dict[str, str]]:
    chance = random.Random(0)
    return [{"id": f"i{i:03}", "title": " ".join(chance.choices(WORDS, k=4))} for i in range(n_items)]


def lines_of(records: list) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def write(records: list, name: str = "items.jsonl") -> Path:
    path = Path(name)
    path.write_bytes(lines_of(records))
    return path


def check_sound(semid, folder: str, n_items: int) -> SemanticIDTokenizer:
    """One item, one ID, in an artifact without a fault."""
    assert semid("verify", folder).code == 0
    ids = SemanticIDTokenizer.from_pretrained(folder)
    assert len(ids) == len(np.unique(ids.codes, axis=0)) == n_items
    assert ids.decode(ids.tokens(ids.item_ids)) == list(ids.item_ids)
    assert semid("doctor", folder).code == 0
    return ids


def check_refused(done, *words: str) -> None:
    """Exit code 1, one message with these words, and nothing written."""
    assert (done.code, done.out) == (1, ""), done
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("semid: "), done.err
    for word in words:
        assert word in done.err
    assert not Path("sid").exists()
    assert not [path for path in Path().iterdir() if path.name.startswith(".semid")]


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test if a fit goes on to read its input."""
    monkeypatch.setattr(reading, "read_items", lambda *a, **o: pytest.fail("the input was read"))


# ---- catalogs that are small, flat or strange


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(semid, content):
    Path("items.jsonl").write_bytes(content)
    check_refused(semid("fit", "items.jsonl", "-o", "sid"), "items.jsonl: no items")


@BOTH
@pytest.mark.parametrize("n_items", [1, 2, 7])
def test_fewer_items_than_codes_get_ids(semid, learner, n_items):
    assert semid("fit", write(catalog(n_items)), "-o", "sid", *learner).code == 0
    check_sound(semid, "sid", n_items)


@BOTH
def test_items_that_all_have_the_same_vector_get_distinct_ids(semid, learner):
    done = semid("fit", write([{"id": n, "title": "the same"} for n in range(210)]), "-o", "sid", *learner)
    assert done.code == 0
    ids = check_sound(semid, "sid", 210)
    assert ids.quality().raw_collision_rate == pytest.approx(209 / 210)


def test_a_catalog_without_any_text_is_refused_unless_vectors_are_given(semid):
    catalog = write([{"id": n, "price": n, "year": 1990} for n in range(30)])
    done = semid("fit", catalog, "-o", "sid", *KMEANS)
    assert done.code == 1 and "no text field; numeric fields: price, year. Name text fields with --text" in done.err
    assert not Path("sid").exists()
    np.save("v.npy", np.random.default_rng(0).normal(size=(30, 4)))
    assert semid("fit", catalog, "-o", "sid", "--embeddings", "v.npy", *KMEANS).code == 0
    check_sound(semid, "sid", 30)


def test_vectors_with_ids_go_to_their_items_in_every_command(semid):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    names = [f"item{n:02}" for n in range(60)]
    first = write([{"sku": name, "title": "lamp"} for name in names[:40]])
    command = ("-o", "sid", "--id-field", "sku", *KMEANS)
    np.save("v.npy", vectors[:40])
    assert semid("fit", first, "--embeddings", "v.npy", *command).code == 0
    expected = SemanticIDTokenizer.from_pretrained("sid").codes

    np.save("all.npy", vectors)
    everything = write([{"sku": name, "title": "lamp"} for name in names], "all.jsonl")
    assert semid("add", "sid", everything, "--id-field", "sku", "--embeddings", "all.npy").code == 0
    grown = SemanticIDTokenizer.from_pretrained("sid").codes

    order = np.random.default_rng(1).permutation(60)
    pq.write_table(pa.table({"sku": [names[i] for i in order], "id": order, "v": vectors[order].tolist()}), "v.parquet")
    done = semid("fit", first, "--embeddings", "v.parquet", *command, "--force")
    assert done.code == 0 and "left out 20 vectors of items that" in done.err
    assert np.array_equal(SemanticIDTokenizer.from_pretrained("sid").codes, expected)
    assert semid("add", "sid", everything, "--id-field", "sku", "--embeddings", "v.parquet").code == 0
    assert np.array_equal(SemanticIDTokenizer.from_pretrained("sid").codes, grown)

    recall = []
    for_doctor = write([{"id": name, "title": "lamp"} for name in names], "doctor.jsonl")
    table = pa.table({"id": [names[i] for i in order], "v": vectors[order].tolist()})
    pq.write_table(table, "by_id.parquet")
    for file in ("all.npy", "by_id.parquet"):
        done = semid("doctor", "sid", "--items", for_doctor, "--embeddings", file, "--json")
        assert done.code == 0
        recall.append(json.loads(done.out)["neighbor_recall"])
    assert recall[0] == recall[1]

    pq.write_table(table.slice(5), "fewer.parquet")
    done = semid("doctor", "sid", "--items", for_doctor, "--embeddings", "fewer.parquet")
    assert done.code == 1 and "column 'id': no row for 5 items of doctor.jsonl" in done.err


@BOTH
def test_vectors_of_one_dimension_will_do(semid, learner):
    np.save("v.npy", np.random.default_rng(0).normal(size=(220, 1)))
    assert semid("fit", write(catalog(220)), "-o", "sid", *learner, "--embeddings", "v.npy").code == 0
    check_sound(semid, "sid", 220)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_vectors_of_any_scale_will_do(semid, scale):
    np.save("v.npy", np.random.default_rng(0).normal(size=(60, 4)) * scale)
    assert semid("fit", write(catalog(60)), "-o", "sid", *KMEANS, "--embeddings", "v.npy").code == 0
    check_sound(semid, "sid", 60)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_vector_that_is_no_number_is_named_by_its_item(semid, value):
    vectors = np.zeros((60, 4))
    vectors[7, 2] = value
    np.save("v.npy", vectors)
    done = semid("fit", write(catalog(60)), "-o", "sid", *KMEANS, "--embeddings", "v.npy")
    check_refused(done, "v.npy: 1 rows hold NaN", "'i007'")


def test_another_number_of_vectors_than_items_is_refused(semid):
    np.save("v.npy", np.zeros((59, 4)))
    done = semid("fit", write(catalog(60)), "-o", "sid", *KMEANS, "--embeddings", "v.npy")
    check_refused(done, "v.npy has 59 rows, items.jsonl has 60 items")


def test_one_field_may_hold_ten_megabytes(semid):
    items = catalog(40)
    items[3]["title"] = "soap " * 2_000_000
    assert semid("fit", write(items), "-o", "sid", *KMEANS).code == 0
    ids = check_sound(semid, "sid", 40)
    assert len(ids.texts[3]) == 9_999_999
    assert len(semid("show", "sid", "i003").out) < 2_000
    assert max(map(len, Path("sid/ids.tsv").read_text().splitlines())) < 300


def test_more_items_than_ids_names_the_sizes_that_would_do(semid):
    items = write(catalog(70))
    done = semid("fit", items, "-o", "sid", "--levels", "2", "--codebook-size", "8")
    check_refused(done, "n_items=70 should be <= 64 = 8 x 8", "Use --levels 3")
    assert semid("fit", items, "-o", "sid", "--method", "rqkmeans", "--levels", "3", "--codebook-size", "8").code == 0


def test_as_many_items_as_ids_take_every_id(semid):
    done = semid(
        "fit", write(catalog(64)), "-o", "sid", "--method", "rqkmeans", "--levels", "2", "--codebook-size", "8"
    )
    assert done.code == 0
    check_sound(semid, "sid", 64)


# ---- ids


def test_an_empty_id_is_refused_with_its_line(semid):
    items = catalog(3)
    items[1]["id"] = ""
    check_refused(semid("fit", write(items), "-o", "sid"), "items.jsonl:2: id is empty")


def test_several_faults_are_listed_together(semid):
    Path("items.jsonl").write_bytes(lines_of([{"title": "x"}, {"id": None}, {"id": "a"}, {"id": "a"}]) + b"{\n\xff\n")
    done = semid("fit", "items.jsonl", "-o", "sid")
    assert done.code == 1 and not Path("sid").exists()
    assert [line.removeprefix("semid: ").split(": ")[0] for line in done.err.splitlines()] == [
        f"items.jsonl:{line}" for line in (1, 2, 4, 5, 6)
    ]


STRANGE = ["x" * 100_000, "日本", "e\u0301", "<s_a_1>", "<s_a_1><s_b_1><s_c_1>", "a\tb", "two\nlines", " ", "-",
           "--json", "../../etc", "\u2028", "\U0001f484", "\u202eabc", "007", "7", "NaN", "\\n"]  # fmt: skip


def test_strange_ids_are_kept_as_they_are(semid):
    items = [{"id": name, "title": text["title"]} for name, text in zip(STRANGE, catalog(60), strict=False)]
    assert semid("fit", write(items), "-o", "sid", *KMEANS).code == 0
    ids = check_sound(semid, "sid", len(STRANGE))
    assert sorted(ids.item_ids) == sorted(STRANGE)
    told = json.loads(semid("encode", "sid", "--json", "--", "-", *STRANGE[1:]).out)
    assert [one["item_id"] for one in told] == ["-", *STRANGE[1:]]
    for one in told:
        assert json.loads(semid("decode", "sid", "--json", one["tokens"]).out)[0]["item_id"] == one["item_id"]
    assert len(Path("sid/ids.tsv").read_text().split("\n")) == len(STRANGE) + 2
    assert semid("show", "sid", "<s_a_1>").code == 0


# ---- files


def test_a_truncated_gzip_is_refused(semid):
    packed = gzip.compress(lines_of(catalog(60)))
    Path("items.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    check_refused(semid("fit", "items.jsonl.gz", "-o", "sid"), "items.jsonl.gz", "cut short")


def test_a_byte_order_mark_changes_nothing(semid):
    plain = lines_of(catalog(30))
    Path("plain.jsonl").write_bytes(plain)
    Path("marked.jsonl").write_bytes(b"\xef\xbb\xbf" + plain)
    prints = [semid("fit", f"{name}.jsonl", "-o", name, *KMEANS).out.splitlines()[-1] for name in ("plain", "marked")]
    assert prints[0] == prints[1]


def test_standard_input_gives_what_the_file_gives(semid):
    file = write(catalog(30))
    from_file = semid("fit", file, "-o", "one", *KMEANS).out
    for n, stdin in enumerate((file.read_bytes(), gzip.compress(file.read_bytes()))):
        assert semid("fit", "-", "-o", f"two{n}", *KMEANS, stdin=stdin).out == from_file
    check_refused(semid("fit", "-", "-o", "sid", stdin=b""), "<stdin>: no items")


@pytest.mark.parametrize("name", ["nothing.jsonl", ".", "x" * 5000])
def test_an_input_that_cannot_be_opened_is_named(semid, name):
    check_refused(semid("fit", name, "-o", "sid"), name)


# ---- the output folder


def test_an_existing_folder_is_refused_before_any_work(semid, no_work):
    Path("sid").mkdir()
    Path("sid/thesis.txt").write_text("mine")
    done = semid("fit", write(catalog(30)), "-o", "sid")
    assert (done.code, done.out) == (1, "") and "sid: exists and holds thesis.txt" in done.err and "--force" in done.err
    assert [path.name for path in Path("sid").iterdir()] == ["thesis.txt"]


def test_force_replaces_the_artifact_and_nothing_else(semid):
    semid("fit", write(catalog(30)), "-o", "sid", *KMEANS)
    Path("sid/thesis.txt").write_text("mine")
    before = {path.name for path in Path("sid").iterdir()}
    assert semid("fit", "items.jsonl", "-o", "sid", *KMEANS).code == 1
    assert semid("fit", write(catalog(40)), "-o", "sid", *KMEANS, "--force").code == 0
    check_sound(semid, "sid", 40)
    after = {path.name for path in Path("sid").iterdir()}
    assert "thesis.txt" in after and len(after) == len(before) == 5


@pytest.mark.parametrize("output", ["items.jsonl", "items.jsonl/sid"])
def test_a_file_in_the_way_is_refused_before_any_work(semid, no_work, output):
    check_refused(semid("fit", write(catalog(3)), "-o", output), "items.jsonl: is a file")


def test_a_read_only_place_is_refused_before_any_work(semid, no_work, monkeypatch):
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: False)  # the tests may run as root
    check_refused(semid("fit", write(catalog(3)), "-o", "sid"), "cannot be written")


def test_a_disk_that_fills_up_leaves_nothing(semid, monkeypatch):
    def full(file, block):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "_write_all", full)
    check_refused(semid("fit", write(catalog(30)), "-o", "sid", *KMEANS), "No space left on device", "Make room there")


@pytest.mark.slow  # of the save alone: test_artifact_writers.py
def test_a_file_size_limit_leaves_nothing(tmp_path):
    (tmp_path / "items.jsonl").write_bytes(lines_of(catalog(60)))
    done = subprocess.run(
        [sys.executable, "-m", "semid", "fit", "items.jsonl", "-o", "sid", *KMEANS],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["items.jsonl"]


@pytest.mark.slow  # a fit beside any writer: the next test
def test_of_two_fits_into_one_folder_one_wins(tmp_path):
    (tmp_path / "items.jsonl").write_bytes(lines_of(catalog(60)))
    command = [sys.executable, "-m", "semid", "fit", "items.jsonl", "-o", "sid", *KMEANS]
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    loser = errors[0] if both[0].returncode else errors[1]
    assert b"Traceback" not in loser and (b"exists and holds" in loser or b"is writing here" in loser)
    assert artifact.verify(tmp_path / "sid") == []


def test_a_fit_beside_a_writer_is_told_who_writes(semid):
    with atomic.drafting("sid"):
        done = semid("fit", write(catalog(30)), "-o", "sid", *KMEANS)
    assert done.code == 1 and f"process {os.getpid()} is writing here" in done.err
    assert not Path("sid").exists()


# ---- interrupts and kills

STAGES = [
    (reading, "read_items"),
    (fitting, "check_capacity"),
    (LexicalEncoder, "fit"),
    (LexicalEncoder, "blocks"),
    (learn, "learner_for"),
    (ResidualKMeans, "fit"),
    (Codebooks, "latents"),
    (Codebooks, "encode_latents"),
    (fitting, "assign"),
    (Codebooks, "reconstruct"),
    (provenance, "evaluate"),
    (Ledger, "create"),
    (SemanticIDTokenizer, "quality"),
    (SemanticIDTokenizer, "save_pretrained"),
    (artifact, "tsv_rows"),
    (artifact, "describe"),
    (atomic.Draft, "write"),
    (atomic.Draft, "publish"),
]


@pytest.mark.parametrize(("where", "name"), STAGES, ids=lambda one: getattr(one, "__name__", one))
def test_ctrl_c_at_any_stage_leaves_nothing_or_the_old_artifact(semid, monkeypatch, where, name):
    write(catalog(20))

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, name, interrupted)
        done = semid("fit", "items.jsonl", "-o", "a/sid", *KMEANS)
    assert done.code == 130 and done.err.endswith("semid: interrupted; nothing was written.\n")
    assert [path.name for path in Path().iterdir()] == ["items.jsonl"]

    semid("fit", "items.jsonl", "-o", "sid", *KMEANS)
    before = {path.name: path.read_bytes() for path in Path("sid").iterdir()}
    write(catalog(25))
    with monkeypatch.context() as patch:
        patch.setattr(where, name, interrupted)
        assert semid("fit", "items.jsonl", "-o", "sid", *KMEANS, "--force").code == 130
    assert {path.name: path.read_bytes() for path in Path("sid").iterdir()} == before


KILLS = """
import os, signal, sys
from pathlib import Path
from semid.artifact import store as artifact
from semid.tokenizer import SemanticIDTokenizer

ids = SemanticIDTokenizer.from_pretrained("first")
print(artifact.load("first").fingerprint)

def save_and_die(after):
    calls = 0
    def counted(call):
        def run(*arguments):
            nonlocal calls
            calls += 1
            if calls > after:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)
        return run
    for name in ("write", "fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    ids.save_pretrained("sid")
    os._exit(0)

for after in range(100):
    child = os.fork()
    if not child:
        save_and_die(after)
    status = os.waitpid(child, 0)[1]
    there = Path("sid/semid.json").exists()
    print(after, status, artifact.load("sid").fingerprint if there else "absent", len(artifact.verify("sid")))
    if status == 0:
        break
    again = ids.save_pretrained("sid", force=there)  # litter is no obstacle
    print(after, "again", again, len(artifact.verify("sid")))
    for path in Path("sid").iterdir():
        path.unlink()
    Path("sid").rmdir()
"""


def test_a_kill_during_the_save_leaves_no_artifact_or_a_whole_one(semid, tmp_path):
    semid("fit", write(catalog(30)), "-o", "first", *KMEANS)
    done = subprocess.run(
        [sys.executable, "-c", KILLS], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    fingerprint, *lines = done.stdout.split("\n")[:-1]
    outcomes = [line.split() for line in lines]
    assert outcomes[-1][1:] == ["0", fingerprint, "0"]
    killed = [one for one in outcomes[:-1] if one[1] != "again"]
    assert len(killed) > 8 and {one[1] for one in killed} == {"9"}
    for _, _, found, n_problems in killed:
        assert found == "absent" or (found == fingerprint and int(n_problems) <= 1)  # ids.tsv may be missing yet
    assert {one[2] for one in killed} == {"absent", fingerprint}
    assert all(one[2:] == [fingerprint, "0"] for one in outcomes if one[1] == "again")


# ---- damaged artifacts


def test_a_damaged_newer_or_foreign_folder_is_named_by_every_command(semid):
    semid("fit", write(catalog(30)), "-o", "whole", *KMEANS)
    manifest = json.loads(Path("whole/semid.json").read_text())
    data = {path.name: path.read_bytes() for path in Path("whole").glob("*.safetensors")}
    newer = json.dumps(manifest | {"format_version": 99})
    cut = {name: content[:-10] for name, content in data.items()}
    sound = Path("whole/semid.json").read_bytes()
    cases = {
        "newer than this semid": {"semid.json": newer.encode(), **data},
        "semid.json": {"semid.json": b"{", **data},
        "fingerprint": {"semid.json": json.dumps(manifest | {"config": {}}).encode(), **data},
        "bytes": {"semid.json": sound, **cut},
        "missing": {"semid.json": sound},
        "not a semid folder": {"model.safetensors": b""},
    }
    for n, (words, files) in enumerate(cases.items()):
        folder = Path(f"case{n}")
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        for command in (["encode", folder, "i001"], ["decode", folder, "x"], ["show", folder, "i001"], ["info", folder],
                        ["doctor", folder], ["verify", folder]):  # fmt: skip
            done = semid(*command)
            assert (done.code, done.out) == (1, ""), command
            assert words in done.err and f"case{n}" in done.err and "Traceback" not in done.err, done.err
