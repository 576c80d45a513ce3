"""Whatever a stranger has put into a folder, semid writes into no file that was there before.

An archive or a repository may hold links under semid's own names, and others may put them into a shared folder: writing
through one would destroy any file that the user can write.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading

import numpy as np
import pytest

from semid import artifact
from semid.artifact import atomic, staging
from semid.errors import ArtifactError, SemidError
from semid.pipeline import update as changing
from semid.tokenizer_exports.formats.exporter import export
from semid.trie import Trie
from tests.helpers.small_shop import learned, names, records, vectors

PRECIOUS = "years of work\n"


@pytest.fixture(scope="module")
def shop():
    return learned(names(20))


@pytest.fixture
def precious(tmp_path):
    path = tmp_path / "precious.txt"
    path.write_text(PRECIOUS)
    return path


@pytest.fixture
def folder(shop, tmp_path):
    shop.save_pretrained(tmp_path / "sid")
    return tmp_path / "sid"


WRITERS = {  # what a user does with a folder that holds an artifact
    "retire": lambda folder, shop: changing.retire(folder, ["i0003"]),
    "add": lambda folder, shop: changing.add(folder, records(["new"]), embeddings=vectors(["new"])),
    "save": lambda folder, shop: shop.save_pretrained(folder, force=True),
    "export": lambda folder, shop: export(shop, folder / "shop.index.json", to="lcrec", force=True),
    "trie": lambda folder, shop: Trie.from_tokenizer(shop).save(folder / "shop.trie"),
}


# ---- the lock


def pipe(path, precious):
    os.mkfifo(path)


def listening(path, precious):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


PLANTED = {  # what lies there under the lock's name -> what the error says of it
    "link": (lambda path, precious: path.symlink_to(precious), "is a link"),
    "relative link": (lambda path, precious: path.symlink_to(f"../{precious.name}"), "is a link"),
    "link to nothing": (lambda path, precious: path.symlink_to(f"../{precious.name}.new"), "is a link"),
    "link to a folder": (lambda path, precious: path.symlink_to(precious.parent), "is a link"),
    "hard link": (lambda path, precious: path.hardlink_to(precious), "is the same file as another"),
    "pipe": (pipe, "is no ordinary file"),
    "socket": (listening, "is no ordinary file"),
    "folder": (lambda path, precious: path.mkdir(), "is no ordinary file"),
    "file": (lambda path, precious: path.write_text(PRECIOUS), "holds more than the number of a process"),
    "numbers": (lambda path, precious: path.write_text("1" * 21), "holds more than"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", PLANTED)
def test_what_cannot_be_a_lock_is_refused_by_name_and_left_as_it_is(folder, shop, precious, kind, writer):
    plant, message = PLANTED[kind]
    lock = folder / ".semid.lock"
    plant(lock, precious)
    before, names_before = lock.lstat(), sorted(os.listdir(folder))
    with pytest.raises(ArtifactError, match=rf"\.semid\.lock: {message}.*so it is not a lock.*remove it"):
        WRITERS[writer](folder, shop)
    assert precious.read_text() == PRECIOUS
    assert sorted(os.listdir(folder)) == names_before and not (folder.parent / "precious.txt.new").exists()
    after = lock.lstat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    lock.rmdir() if kind == "folder" else lock.unlink()
    WRITERS[writer](folder, shop)
    assert not os.path.lexists(lock)


@pytest.mark.parametrize("left", ["", "7", "999999999"])
def test_a_lock_that_a_dead_process_left_is_taken(folder, shop, left):
    (folder / ".semid.lock").write_text(left)
    changing.retire(folder, ["i0003"])
    assert not (folder / ".semid.lock").exists()


def test_a_lock_removed_between_opening_and_looking_is_opened_again(tmp_path, monkeypatch):
    """Its last owner has just finished: the file that was opened has no name any more, and that is no fault."""
    (tmp_path / ".semid.lock").write_text("7")
    real, times = atomic._opened, []

    def opened(path):
        lock = real(path)
        if not times:
            path.unlink()
        times.append(os.fstat(lock).st_nlink)
        return lock

    monkeypatch.setattr(atomic, "_opened", opened)
    with atomic.drafting(tmp_path):
        assert times == [0, 1]


def test_a_link_put_in_the_place_of_an_open_lock_is_noticed(tmp_path, monkeypatch, precious):
    """The link leads to the very file that is locked, so only its own name tells them apart."""
    real, times = atomic._opened, []

    def opened(path):
        lock = real(path)
        if not times:
            path.rename(tmp_path / "moved")
            path.symlink_to(tmp_path / "moved")
        times.append(lock)
        return lock

    monkeypatch.setattr(atomic, "_opened", opened)
    with pytest.raises(ArtifactError, match=r"\.semid\.lock: is a link"), atomic.drafting(tmp_path):
        pass
    assert len(times) == 1


# ---- final and temporary names


@pytest.mark.parametrize("link", ["symbolic", "hard", "to nothing"])
def test_links_under_final_names_are_replaced_and_not_written_through(folder, shop, precious, link):
    def plant(path):
        path.unlink(missing_ok=True)
        if link == "hard":
            path.hardlink_to(precious)
        else:
            path.symlink_to(precious if link == "symbolic" else folder.parent / "nothing")

    for path in (folder / "ids.tsv", *folder.glob("semid-*.safetensors")):
        plant(path)
    shop.save_pretrained(folder, force=True)
    plant(folder / "semid.json")
    shop.save_pretrained(folder, force=True)
    plant(folder / "shop.index.json")
    export(shop, folder / "shop.index.json", to="lcrec", force=True)
    plant(folder / "shop.trie")
    Trie.from_tokenizer(shop).save(folder / "shop.trie")
    assert precious.read_text() == PRECIOUS and precious.stat().st_nlink == 1
    assert not (folder.parent / "nothing").exists()
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert artifact.verify(folder) == [] and len(Trie.load(folder / "shop.trie")) == 20


def test_encoding_a_file_replaces_a_link_of_the_outputs_name(shop, folder, precious, tmp_path):
    pytest.importorskip("pyarrow")
    from semid.pipeline.batch_encoder import BatchEncoder
    from semid.pipeline.dataset_encoder import encode_file

    (tmp_path / "items.jsonl").write_text(json.dumps({"id": "i0003", "v": vectors(["i0003"])[0].tolist()}) + "\n")
    (tmp_path / "out.parquet").symlink_to(precious)
    encode_file(BatchEncoder(folder, vector_column="v"), tmp_path / "items.jsonl", tmp_path / "out.parquet", force=True)
    assert precious.read_text() == PRECIOUS
    assert not (tmp_path / "out.parquet").is_symlink()


def test_a_temporary_name_that_was_guessed_is_refused_and_swept_as_a_link(tmp_path, precious, monkeypatch):
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda n: "0" * 2 * n)
    guessed = tmp_path / f".semid-tmp-{os.getpid()}-00000000"
    with atomic.drafting(tmp_path) as draft:
        guessed.symlink_to(precious)
        with pytest.raises(SemidError) as told:
            draft.write([b"content"])
        assert str(tmp_path) in str(told.value)
    assert precious.read_text() == PRECIOUS and not guessed.is_symlink()


# ---- folders that appear whole


def test_names_with_the_signs_of_a_pattern_are_swept_and_no_others(tmp_path):
    mine, other = tmp_path / ".out[1].semid-tmp-0123456789ab", tmp_path / ".out1.semid-tmp-0123456789ab"
    for path in (mine, other):
        path.mkdir()
    with staging.staged_folder(tmp_path / "out[1]", force=False) as draft:
        (draft / "file").write_text("new")
    assert (tmp_path / "out[1]" / "file").read_text() == "new"
    assert not mine.exists() and other.is_dir()


def test_what_is_no_folder_is_neither_waited_for_nor_followed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text(PRECIOUS)
    os.mkfifo(tmp_path / ".out.semid-tmp-0123456789ab")
    (tmp_path / ".out.semid-tmp-ba9876543210").symlink_to(kept)

    def write():
        with staging.staged_folder(tmp_path / "out", force=False) as draft:
            (draft / "file").write_text("new")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(20)
    assert not writer.is_alive() and (tmp_path / "out" / "file").read_text() == "new"
    assert (kept / "file").read_text() == PRECIOUS


@pytest.mark.parametrize("content", ["empty", "a model"])
def test_an_output_that_is_a_link_is_replaced_and_not_what_it_points_to(tmp_path, folder, content):
    elsewhere = tmp_path / "elsewhere"
    if content == "a model":
        shutil.copytree(folder, elsewhere)
        (elsewhere / "config.json").write_text("{}")
    else:
        elsewhere.mkdir()
    before = sorted(os.listdir(elsewhere))
    (tmp_path / "out").symlink_to(elsewhere)
    with staging.staged_folder(tmp_path / "out", force=True) as draft:
        (draft / "file").write_text("new")
    assert not (tmp_path / "out").is_symlink() and os.listdir(tmp_path / "out") == ["file"]
    assert sorted(os.listdir(elsewhere)) == before
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out", "sid"]


# ---- a model's folder that names other files as its weights


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", ["../other/model.safetensors", "ABSOLUTE", "config.json", "./model.safetensors"])
def test_an_index_that_names_files_elsewhere_is_refused(tmp_path, shop, name, link):
    from safetensors.numpy import save_file

    from semid.tokenizer_exports.models.on_disk import extend_folder

    base, other = tmp_path / "base", tmp_path / "other"
    for path in (base, other):
        path.mkdir()
    (base / "config.json").write_text("{}")
    save_file({"w": np.zeros(3, np.float32)}, other / "model.safetensors")
    before = (other / "model.safetensors").read_bytes()
    name = name.replace("ABSOLUTE", str(other / "model.safetensors"))
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ArtifactError, match="names no weight file here"):
        extend_folder(base, shop, tmp_path / "out", link=link)
    assert (other / "model.safetensors").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["base", "other"]


def test_json_goes_into_a_new_file_where_a_link_has_its_name(tmp_path, precious):
    from semid.tokenizer_exports.models.copy_folder import write_json

    (tmp_path / "a.json").symlink_to(precious)
    (tmp_path / "b.json").hardlink_to(precious)
    for name in ("a.json", "b.json", "b.json"):
        write_json(tmp_path / name, {"a": 1})
    assert precious.read_text() == PRECIOUS
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "b.json").read_text()) == {"a": 1}
