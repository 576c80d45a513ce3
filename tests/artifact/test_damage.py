"""A damaged, foreign or newer artifact is refused by name; nothing wrong with it gets by `verify`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from semid import artifact
from semid.artifact import TensorFile, tensor_blocks
from semid.errors import ArtifactError

ARRAYS = {"codes": np.array([[1, 2, 3], [4, 5, 65535]], np.uint16), "mean": np.array(0.25, np.float32)}


def data_file(folder):
    (path,) = folder.glob("semid-*.safetensors")
    return path


@pytest.fixture
def saved(tmp_path):
    artifact.save(tmp_path / "ids", {"config": {"levels": 3}}, ARRAYS, tables={"ids.tsv": ["B1"]})
    return tmp_path / "ids"


def edit(folder, **changes):
    path = folder / "semid.json"
    manifest = json.loads(path.read_text())
    for key, value in changes.items():
        manifest[key] = value
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def test_a_newer_format_says_to_upgrade(saved):
    edit(saved, format_version=3)
    with pytest.raises(ArtifactError) as error:
        artifact.load(saved)
    assert str(error.value) == (
        f"{saved}/semid.json: format_version=3 is newer than this semid 0.1.0 reads (2). Upgrade semid."
    )


def test_folders_that_are_no_artifacts_say_how_to_make_one(tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere: no such folder\. Make it with: semid fit"):
        artifact.load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"no semid\.json, so not a semid folder\. Make one with"):
        artifact.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match=r"file: no such folder"):
        artifact.load(tmp_path / "file")


@pytest.mark.parametrize(
    "changes",
    [{"format_version": None}, {"format_version": "1"}, {"format_version": 0}, {"format_version": True},
     {"files": None}, {"files": []}, {"files": {}}, {"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}},
     {"arrays": None}, {"arrays": {}}, {"arrays": {"codes": 1}}, {"fingerprint": None},
     {"fingerprint": "sha256:0"}, {"semid_version": 1}, {"config": {"levels": 4}}, {"config": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_manifest_with_wrong_keys_is_refused_by_name(saved, changes):
    edit(saved, **changes)
    with pytest.raises(ArtifactError, match=r"ids/semid\.json: .*\. Restore the folder from a copy, or run"):
        artifact.load(saved)
    assert len(artifact.verify(saved)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000])
def test_a_manifest_that_is_not_ours_is_refused(saved, content):
    (saved / "semid.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"ids/semid\.json: .*damaged\. Restore"):
        artifact.load(saved)


def test_a_missing_data_file_is_named(saved):
    data_file(saved).unlink()
    with pytest.raises(ArtifactError, match=r"semid-\w{16}\.safetensors: missing, though semid\.json names"):
        artifact.load(saved)


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_data_file_cut_short_is_refused_on_loading(saved, length):
    content = data_file(saved).read_bytes()
    data_file(saved).write_bytes(content[:length])
    with pytest.raises(ArtifactError, match=r"semid-\w{16}\.safetensors: .*damaged"):
        artifact.load(saved)


def with_header(header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(12)


@pytest.mark.parametrize(
    "header",
    [[], {"x": 1}, {"x": {"dtype": "U16", "shape": [2, 3]}},
     {"x": {"dtype": "F4", "shape": [2, 3], "data_offsets": [0, 12]}},
     {"x": {"dtype": ["U16"], "shape": [2, 3], "data_offsets": [0, 12]}},
     {"x": {"dtype": "U16", "shape": [2, -3], "data_offsets": [0, 12]}},
     {"x": {"dtype": "U16", "shape": [2, 4], "data_offsets": [0, 12]}},
     {"x": {"dtype": "U16", "shape": [2, 4], "data_offsets": [0, 16]}},
     {"x": {"dtype": "U16", "shape": [2, 2], "data_offsets": [4, 12]}},
     {"x": {"dtype": "U16", "shape": [2, 3], "data_offsets": [12, 0]}},
     {"x": {"dtype": "U16", "shape": [2**62, 4], "data_offsets": [0, 12]}},
     {"x": {"dtype": "U16", "shape": [1] * 40, "data_offsets": [0, 2]}},
     {"x": {"dtype": "U16", "shape": [True], "data_offsets": [0, 2]}},
     {"x": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
      "y": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]}}],
    ids=str,
)  # fmt: skip
def test_a_header_that_lies_is_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(header))
    with pytest.raises(ArtifactError, match=r"x\.safetensors: .*not a safetensors file, or damaged"):
        TensorFile(path)


@pytest.mark.parametrize(
    "arrays",
    [{"x": np.zeros((2, 3), "u2")}, {"x": np.zeros((3, 2), "i2")}, {"y": np.zeros((3, 2), "u2")}],
    ids=["shape", "dtype", "name"],
)
def test_a_sound_header_with_other_arrays_is_refused_on_loading(tmp_path, arrays):
    artifact.save(tmp_path, {}, {"x": np.zeros((3, 2), np.uint16)})
    same_size = b"".join(tensor_blocks(arrays))
    assert len(same_size) == data_file(tmp_path).stat().st_size
    data_file(tmp_path).write_bytes(same_size)
    with pytest.raises(ArtifactError, match=r"array x is .*, semid\.json says \['uint16', \[3, 2\]\]"):
        artifact.load(tmp_path)


def test_verify_names_the_damaged_array_and_loading_does_not_read_it(saved):
    content = bytearray(data_file(saved).read_bytes())
    content[content.index(ARRAYS["codes"].tobytes())] ^= 1
    data_file(saved).write_bytes(content)
    artifact.load(saved)
    whole, part = artifact.verify(saved)
    assert f"{data_file(saved)}: does not match its checksum in semid.json." in whole
    assert "ids: array codes does not match its checksum." in part


def test_a_stale_or_missing_file_for_people_does_no_harm_but_is_reported(saved):
    (saved / "ids.tsv").write_text("stale\n")
    assert artifact.load(saved).fingerprint
    assert artifact.verify(saved) == [
        f"{saved}/ids.tsv: does not match its checksum in semid.json. "
        "It is a table for people: save the artifact again."
    ]
    (saved / "ids.tsv").unlink()
    assert artifact.load(saved).fingerprint
    assert "ids.tsv: cannot be read: No such file" in artifact.verify(saved)[0]
