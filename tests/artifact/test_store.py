"""An artifact comes back as it was saved, and a folder that is in use is never overwritten unasked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors.numpy

from semid import artifact
from semid.artifact import TensorFile, fingerprint
from semid.errors import ArtifactError, InputError, OutputExistsError

MANIFEST = {"config": {"levels": 3, "seed": 0}, "counts": {"items": 2}}
ARRAYS = {
    "codes": np.array([[1, 2, 3], [4, 5, 65535]], np.uint16),
    "id_hashes": np.array([2**64 - 1, 7], np.uint64),
    "retired": np.array([True, False]),
    "mean": np.array(0.25, np.float32),
    "none": np.zeros((0, 3), np.int64),
}
PEOPLE = ["item_id\ttokens\ttext", "B1\t<s_a_1>\tnail polish"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def data_file(folder):
    (path,) = folder.glob("semid-*.safetensors")
    return path


@pytest.fixture
def saved(tmp_path):
    artifact.save(tmp_path / "ids", MANIFEST, ARRAYS, tables={"ids.tsv": PEOPLE})
    return tmp_path / "ids"


# ---- what is saved is what is loaded


def test_a_saved_artifact_loads_as_it_was(saved):
    loaded = artifact.load(saved)
    assert loaded.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert np.array_equal(loaded.arrays[name], array)
    assert {key: loaded.manifest[key] for key in MANIFEST} == MANIFEST
    assert loaded.fingerprint == fingerprint(MANIFEST, ARRAYS)
    assert artifact.verify(saved) == []


def test_arrays_are_views_into_the_file_and_read_only(saved):
    codes = artifact.load(saved).arrays["codes"]
    assert not codes.flags.owndata
    assert codes.flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        codes[0, 0] = 9


def test_the_safetensors_package_reads_the_data_file(saved):
    theirs = safetensors.numpy.load_file(data_file(saved))
    assert theirs.keys() == ARRAYS.keys()
    assert all(np.array_equal(theirs[name], array) for name, array in ARRAYS.items())


def test_files_of_the_safetensors_package_can_be_read(tmp_path):
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, metadata={"format": "np"})
    ours = TensorFile(path)
    assert ours.keys() == ARRAYS.keys()
    assert all(np.array_equal(ours[name], array) for name, array in ARRAYS.items())


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3).T, np.arange(9)[::-2], np.arange(3, dtype=">i4"), np.float16([[1, 2]])],
    ids=["transposed", "strided", "big-endian", "float16"],
)
def test_any_layout_of_an_array_can_be_saved(tmp_path, array):
    artifact.save(tmp_path / "ids", {}, {"x": array})
    assert np.array_equal(artifact.load(tmp_path / "ids").arrays["x"], array)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array([1j])], ids=str)
def test_arrays_that_the_format_cannot_hold_are_refused(tmp_path, array):
    with pytest.raises(InputError, match=r"array x: dtype=.* Use astype"):
        artifact.save(tmp_path / "ids", {}, {"x": array})
    assert list(tmp_path.iterdir()) == []


def test_saving_twice_writes_the_same_bytes(tmp_path, saved):
    again = dict(reversed(ARRAYS.items()))
    artifact.save(tmp_path / "again", dict(reversed(MANIFEST.items())), again, tables={"ids.tsv": PEOPLE})
    assert contents(tmp_path / "again") == contents(saved)


def test_the_manifest_is_sorted_json_with_true_checksums(saved):
    text = (saved / "semid.json").read_text()
    manifest = json.loads(text)
    assert text == json.dumps(manifest, sort_keys=True, indent=2) + "\n"
    assert set(manifest) == {*MANIFEST, "format_version", "semid_version", "files", "arrays", "fingerprint"}
    for name, entry in manifest["files"].items():
        content = (saved / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_a_loaded_manifest_can_be_saved_again(tmp_path, saved):
    loaded = artifact.load(saved)
    mark = artifact.save(tmp_path / "copy", loaded.manifest, loaded.arrays, tables={"ids.tsv": PEOPLE})
    assert mark == loaded.fingerprint
    assert contents(tmp_path / "copy") == contents(saved)


def test_the_fingerprint_sees_every_change_but_provenance():
    marks = [
        fingerprint(MANIFEST, ARRAYS),
        fingerprint(MANIFEST | {"seed": 1}, ARRAYS),
        fingerprint(MANIFEST, ARRAYS | {"codes": ARRAYS["codes"].T}),
        fingerprint(MANIFEST, ARRAYS | {"codes": ARRAYS["codes"].view(np.int16)}),
        fingerprint(MANIFEST, ARRAYS | {"codes": ARRAYS["codes"][::-1]}),
        fingerprint(MANIFEST, {"kodes" if k == "codes" else k: v for k, v in ARRAYS.items()}),
    ]
    assert len(set(marks)) == len(marks)
    assert fingerprint(MANIFEST | {"provenance": {"torch": "2"}}, ARRAYS) == marks[0]
    assert fingerprint({2: "b", 10: "a"}, {}) == fingerprint({"10": "a", "2": "b"}, {})


def test_lines_for_people_stay_lines_whatever_the_text():
    texts = ["x\r\ny", "z" * 10_000_000]
    lines = list(artifact.tsv_rows(["a\tb", "c\\"], ["<s_a_1>", "<s_a_2>"], texts))
    assert lines == [
        "item_id\ttokens\ttext",
        "a\\tb\t<s_a_1>\tx\\r\\ny",
        "c\\\\\t<s_a_2>\t" + "z" * 199 + "…",
    ]


def test_people_get_their_file_only_if_asked(tmp_path, saved):
    assert (saved / "ids.tsv").read_text() == "\n".join(PEOPLE) + "\n"
    artifact.save(saved, MANIFEST, ARRAYS, force=True)
    assert not (saved / "ids.tsv").exists()
    artifact.save(tmp_path / "odd", {}, {}, tables={"ids.tsv": ["\ud800"]})
    assert (tmp_path / "odd" / "ids.tsv").read_text() == "\\ud800\n"


def test_loading_imports_nothing_heavy(saved):
    script = f"""
        import sys
        from semid import artifact
        assert artifact.load({str(saved)!r}).arrays["codes"].sum() > 0 and not artifact.verify({str(saved)!r})
        heavy = {{"torch", "transformers", "sklearn", "scipy", "faiss", "pandas", "click"}} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


# ---- existing folders


def test_a_folder_that_holds_something_is_refused_without_force(tmp_path, saved):
    before = contents(saved)
    with pytest.raises(OutputExistsError, match=r"ids: exists and holds ids\.tsv and more\. .*--force"):
        artifact.save(saved, {}, {})
    assert contents(saved) == before
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(OutputExistsError, match=r"holds config\.json\."):
        artifact.check_output(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    artifact.save(tmp_path / "empty", {}, {})


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "ids"):
        with pytest.raises(OutputExistsError, match=r"file: is a file, expected a folder\. Choose another"):
            artifact.save(folder, {}, {})
        with pytest.raises(OutputExistsError):
            artifact.check_output(folder, force=True)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_read_only_place_is_named_with_the_fix(tmp_path, monkeypatch, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ArtifactError, match=f"ids: cannot be written: {os.strerror(code)}. Choose another"):
        artifact.save(tmp_path / "ids", {}, {})
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ArtifactError, match="cannot be written. Choose another folder"):
        artifact.check_output(tmp_path / "ids")
    assert list(tmp_path.iterdir()) == []
