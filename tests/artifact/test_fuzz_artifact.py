"""Whatever happens to the bytes of an artifact, semid gives the same artifact, or says what is wrong."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid import artifact
from semid.artifact import TensorFile, fingerprint
from semid.errors import ArtifactError
from semid.ledger.ledger import Ledger

untimed = settings(deadline=None, max_examples=300)
BYTES = st.binary(max_size=40)
LEDGER = Ledger.create(["B1", "B2", "crème"], [[1, 2], [1, 3], [0, 9]])
MANIFEST = {"config": {"levels": 2, "note": "crème"}, "provenance": {"numpy": np.__version__}}


def make():
    with tempfile.TemporaryDirectory() as folder:
        artifact.save(folder, MANIFEST, LEDGER.arrays(), tables={"ids.tsv": ["one", "two"]})
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


FILES = make()
NAMES = sorted(FILES)


@st.composite
def damaged(draw, content):
    """The content with one to three stretches replaced, removed or inserted, or its end cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["flip", "cut", "insert", "replace", "remove", "swap"])):
            case "flip" if start < len(content):
                content[start] ^= draw(st.integers(1, 255))
            case "cut":
                del content[start:]
            case "insert":
                content[start:start] = draw(BYTES)
            case "replace":
                new = draw(BYTES)
                content[start : start + len(new)] = new
            case "remove":
                del content[start : start + draw(st.integers(1, 40))]
            case "swap":
                middle, end = sorted(draw(st.tuples(st.integers(0, 99), st.integers(0, 99))))
                a, b = content[start : start + middle], content[start + middle : start + end]
                content[start : start + end] = b + a
    return bytes(content)


def judge(files):
    """Write the files and use them in every way; True if they pass for a sound artifact."""
    with tempfile.TemporaryDirectory() as name:
        for path, content in files.items():
            (Path(name) / path).write_bytes(content)
        problems = artifact.verify(name)
        assert all(isinstance(problem, str) and problem for problem in problems)
        try:
            loaded = artifact.load(name)
            ledger = Ledger.from_arrays(loaded.arrays)
        except ArtifactError as error:
            assert problems
            assert str(error).startswith(name)
            return False
        if problems:
            ledger.check([10, 10])  # must survive any content
            return False
        assert loaded.manifest["config"] == MANIFEST["config"]
        assert loaded.fingerprint == fingerprint(MANIFEST, LEDGER.arrays())
        assert all(np.array_equal(loaded.arrays[key], array) for key, array in LEDGER.arrays().items())
        return True


def test_an_undamaged_artifact_passes():
    assert judge(FILES)


@untimed
@given(st.data(), st.sampled_from(NAMES))
def test_damage_to_any_file_is_noticed_or_harmless(data, name):
    content = data.draw(damaged(FILES[name]))
    sound = judge(FILES | {name: content})
    if name != "semid.json":  # its blanks, its semid_version and its provenance mean nothing
        assert sound == (content == FILES[name])


@untimed
@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_missing_files_are_noticed(missing):
    assert not judge({name: content for name, content in FILES.items() if name not in missing})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@untimed
@given(st.data())
def test_a_manifest_with_any_json_in_any_place_is_noticed_or_harmless(data):
    manifest = json.loads(FILES["semid.json"])
    place = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else None
        if key is None:
            break
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]
    judge(FILES | {"semid.json": json.dumps(manifest).encode()})


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "U16", "BOOL", "F64", "BF16", "x"]) | json_values,
        "shape": st.lists(st.integers(0, 6), max_size=3) | json_values,
        "data_offsets": st.tuples(st.integers(0, 40), st.integers(0, 40)).map(list) | json_values,
    }
)


@untimed
@given(st.dictionaries(st.text(max_size=3), entries | json_values, max_size=3), st.binary(max_size=40))
def test_any_header_gives_arrays_inside_the_file_or_an_error(header, body):
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + body)
        try:
            arrays = TensorFile(path)
        except ArtifactError as error:
            assert str(error).startswith(str(path))
        else:
            assert sum(array.nbytes for array in arrays.values()) == len(body)


@untimed
@given(st.binary(max_size=200))
def test_any_bytes_as_a_data_file_are_refused_or_read(content):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.safetensors"
        path.write_bytes(content)
        try:
            list(TensorFile(path).values())
        except ArtifactError as error:
            assert str(error).startswith(str(path))


def test_an_unreadable_path_is_an_artifact_error(tmp_path):
    (tmp_path / "semid.json").mkdir()
    with pytest.raises(ArtifactError, match=r"semid\.json: cannot be read: Is a directory"):
        artifact.load(tmp_path)
