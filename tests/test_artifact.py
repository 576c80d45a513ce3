import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import safetensors.numpy

from semid import artifact, atomic
from semid.errors import ArtifactError, InputError, OutputExistsError
from semid.tensors import TensorFile, tensor_blocks

MANIFEST = {"config": {"levels": 3, "seed": 0}, "counts": {"items": 2}}
ARRAYS = {
    "codes": np.array([[1, 2, 3], [4, 5, 65535]], np.uint16),
    "id_hashes": np.array([2**64 - 1, 7], np.uint64),
    "retired": np.array([True, False]),
    "mean": np.array(0.25, np.float32),
    "none": np.zeros((0, 3), np.int64),
}
PEOPLE = ["item_id\ttokens\ttext", "B1\t<s_a_1>\tnail polish"]


def variant(number, n_items=64):
    """Artefacts that differ in manifest and in arrays, and tell which one they are."""
    return {"number": number}, {"values": np.full(n_items, number, np.int64)}


def number_of(folder):
    """Which variant is in the folder; fails unless it is a whole one."""
    loaded = artifact.load(folder)
    number = loaded.manifest["number"]
    assert (loaded.arrays["values"] == number).all()
    assert [line for line in artifact.verify(folder) if "ids.tsv" not in line] == []
    return number


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def data_file(folder):
    (path,) = folder.glob("semid-*.safetensors")
    return path


@pytest.fixture
def saved(tmp_path):
    artifact.save(tmp_path / "ids", MANIFEST, ARRAYS, people=PEOPLE)
    return tmp_path / "ids"


# ---- what is saved is what is loaded


def test_a_saved_artefact_loads_as_it_was(saved):
    loaded = artifact.load(saved)
    assert loaded.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert np.array_equal(loaded.arrays[name], array)
    assert {key: loaded.manifest[key] for key in MANIFEST} == MANIFEST
    assert loaded.fingerprint == artifact.fingerprint(MANIFEST, ARRAYS)
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
    artifact.save(tmp_path / "again", dict(reversed(MANIFEST.items())), again, people=PEOPLE)
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
    mark = artifact.save(tmp_path / "copy", loaded.manifest, loaded.arrays, people=PEOPLE)
    assert mark == loaded.fingerprint
    assert contents(tmp_path / "copy") == contents(saved)


def test_the_fingerprint_sees_every_change_but_provenance():
    marks = [
        artifact.fingerprint(MANIFEST, ARRAYS),
        artifact.fingerprint(MANIFEST | {"seed": 1}, ARRAYS),
        artifact.fingerprint(MANIFEST, ARRAYS | {"codes": ARRAYS["codes"].T}),
        artifact.fingerprint(MANIFEST, ARRAYS | {"codes": ARRAYS["codes"].view(np.int16)}),
        artifact.fingerprint(MANIFEST, ARRAYS | {"codes": ARRAYS["codes"][::-1]}),
        artifact.fingerprint(MANIFEST, {"kodes" if k == "codes" else k: v for k, v in ARRAYS.items()}),
    ]
    assert len(set(marks)) == len(marks)
    assert artifact.fingerprint(MANIFEST | {"provenance": {"torch": "2"}}, ARRAYS) == marks[0]
    assert artifact.fingerprint({2: "b", 10: "a"}, {}) == artifact.fingerprint({"10": "a", "2": "b"}, {})


def test_lines_for_people_stay_lines_whatever_the_text():
    texts = ["x\r\ny", "z" * 10_000_000]
    lines = list(artifact.people_lines(["a\tb", "c\\"], ["<s_a_1>", "<s_a_2>"], texts))
    assert lines == [
        "item_id\ttokens\ttext",
        "a\\tb\t<s_a_1>\tx\\r\\ny",
        "c\\\\\t<s_a_2>\t" + "z" * 199 + "…",
    ]


def test_people_get_their_file_only_if_asked(tmp_path, saved):
    assert (saved / "ids.tsv").read_text() == "\n".join(PEOPLE) + "\n"
    artifact.save(saved, MANIFEST, ARRAYS, force=True)
    assert not (saved / "ids.tsv").exists()
    artifact.save(tmp_path / "odd", {}, {}, people=["\ud800"])
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


def test_force_inside_a_model_folder_leaves_the_model_alone(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "semid-notes.txt"):
        (folder / name).write_text(name)
    for number in (1, 2, 3):
        artifact.save(folder, *variant(number), force=True)
    assert number_of(folder) == 3
    theirs = {"config.json", "model.safetensors", "semid-notes.txt"}
    assert set(contents(folder)) == {*theirs, data_file(folder).name, "semid.json"}
    assert (folder / "model.safetensors").read_text() == "model.safetensors"


def test_a_reader_keeps_what_it_opened_while_a_writer_replaces_it(tmp_path):
    artifact.save(tmp_path, *variant(1))
    arrays = artifact.load(tmp_path).arrays
    artifact.save(tmp_path, *variant(2), force=True)
    assert (arrays["values"] == 1).all()
    assert number_of(tmp_path) == 2


def test_readers_see_one_whole_artefact_while_a_writer_replaces_it(tmp_path):
    artifact.save(tmp_path, *variant(0))
    seen, done = set(), threading.Event()

    def write():
        for number in range(1, 60):
            artifact.save(tmp_path, *variant(number), force=True)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        loaded = artifact.load(tmp_path)
        assert (loaded.arrays["values"] == loaded.manifest["number"]).all()
        seen.add(loaded.manifest["number"])
    writer.join()
    assert number_of(tmp_path) == 59
    assert len(seen) > 1


# ---- several writers


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path):
    artifact.save(tmp_path, *variant(1))
    with atomic.drafting(tmp_path), pytest.raises(ArtifactError, match=f"process {os.getpid()} is writing"):
        artifact.save(tmp_path, *variant(2), force=True)
    assert number_of(tmp_path) == 1
    artifact.save(tmp_path, *variant(2), force=True)
    assert number_of(tmp_path) == 2


def test_of_many_writers_at_once_each_wins_or_is_refused(tmp_path):
    folder, outcomes = tmp_path / "ids", {}
    start = threading.Barrier(8)

    def write(number):
        start.wait()
        try:
            artifact.save(folder, *variant(number, 100_000), force=True)
            outcomes[number] = "saved"
        except ArtifactError as error:
            outcomes[number] = str(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = {number for number, outcome in outcomes.items() if outcome == "saved"}
    assert number_of(folder) in won
    assert all("writing here" in outcome for number, outcome in outcomes.items() if number not in won)
    assert sorted(path.name for path in folder.iterdir()) == [data_file(folder).name, "semid.json"]


def test_what_a_dead_writer_left_is_swept_by_the_next(tmp_path):
    folder = tmp_path / "ids"
    folder.mkdir()
    (folder / ".semid.lock").write_text("999999999")
    (folder / ".semid-tmp-999999999-abcd").write_text("half a file")
    (folder / f"semid-{'0' * 16}.safetensors").write_text("published, but never named")
    with pytest.raises(ArtifactError, match="a save was interrupted here"):
        artifact.load(folder)
    artifact.save(folder, *variant(1))
    assert number_of(folder) == 1
    assert sorted(path.name for path in folder.iterdir()) == [data_file(folder).name, "semid.json"]


# ---- crashes and refusals at every step

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir")
CRASHER = """
    import os, shutil, signal, sys
    from pathlib import Path
    import numpy as np
    from semid import artifact

    def dying(real, fatal):
        def call(*args, **kwargs):
            fatal[0] -= 1
            if fatal[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call

    root, old = Path(sys.argv[1]), sys.argv[2] == "old"
    for step in range(1, 200):
        folder = root / str(step)
        if old:
            shutil.copytree(root / "old", folder)
        child = os.fork()
        if child == 0:
            fatal = [step]
            for name in {calls}:
                setattr(os, name, dying(getattr(os, name), fatal))
            artifact.save(folder, {{"number": 2}}, {{"values": np.full(64, 2)}}, people=["new"], force=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
    print(step)
"""


@pytest.mark.parametrize("before", ["old", "new"])
def test_kill_at_every_system_call_leaves_the_old_artefact_or_the_new_one(tmp_path, before):
    artifact.save(tmp_path / "old", *variant(1), people=["old"])
    script = textwrap.dedent(CRASHER).format(calls=CALLS)
    command = [sys.executable, "-c", script, str(tmp_path), before]
    steps = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert steps > 15
    outcomes = []
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        loadable = (folder / "semid.json").exists()
        outcomes.append(number_of(folder) if loadable else 0)
        # the next save needs no force where there is no artefact, and leaves no litter
        artifact.save(folder, *variant(3), force=loadable)
        assert number_of(folder) == 3
        assert artifact.verify(folder) == []
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    first = 1 if before == "old" else 0
    assert outcomes == sorted(outcomes)  # the old one, then, from one instant on, the new one
    assert {outcomes[0], outcomes[-1]} == {first, 2}


KILLED = """
    import sys
    import numpy as np
    from semid import artifact
    print("ready", flush=True)
    number = 1
    while True:
        number += 1
        artifact.save(sys.argv[1], {"number": number}, {"values": np.full(500_000, number)}, force=True)
"""


def test_kill_at_random_moments_leaves_a_whole_artefact(tmp_path):
    rng = np.random.default_rng(0)
    artifact.save(tmp_path, *variant(1, 500_000))
    for _ in range(12):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            threading.Event().wait(rng.uniform(0, 0.1))
            process.kill()
        assert number_of(tmp_path) >= 1


@pytest.mark.parametrize("before", ["old", "new"])
@pytest.mark.parametrize("kind", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()], ids=repr)
def test_a_failure_at_any_step_leaves_old_or_new_and_no_litter(tmp_path, monkeypatch, kind, before):
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "mkdir")}
    for step in range(1, 200):
        folder = tmp_path / str(step) / "ids"
        if before == "old":
            artifact.save(folder, *variant(1), people=["old"])
            old = contents(folder)
        left = [step]

        def failing(name, left=left):
            def call(*args, **kwargs):
                left[0] -= 1
                if left[0] == 0:
                    raise kind
                return real[name](*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, failing(name))
            try:
                artifact.save(folder, *variant(2), people=["new"], force=True)
            except ArtifactError as error:
                assert str(error).startswith(f"{folder}: cannot be written: No space left. Make room there")
            except KeyboardInterrupt:
                assert kind.__class__ is KeyboardInterrupt
        if left[0] > 0:
            break
        if (folder / "semid.json").exists() and number_of(folder) == 2:
            assert not [name for name in contents(folder) if name.startswith(".")]
        elif before == "old":
            assert contents(folder) == old
        else:
            assert not (tmp_path / str(step)).exists()
    assert step > 12
    assert number_of(folder) == 2


def test_a_file_size_limit_is_reported_and_nothing_is_left(tmp_path):
    script = f"""
        import resource
        import numpy as np
        from semid import artifact
        from semid.errors import ArtifactError
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            artifact.save({str(tmp_path / "a" / "ids")!r}, {{}}, {{"x": np.zeros(10_000)}})
        except ArtifactError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == (
        f"{tmp_path}/a/ids: cannot be written: File too large. Make room there, or choose another folder.\n"
    )
    assert list(tmp_path.iterdir()) == []


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


def test_an_error_in_the_lines_for_people_is_passed_on_and_nothing_is_left(tmp_path):
    def lines():
        yield "first"
        raise FileNotFoundError("theirs")

    with pytest.raises(FileNotFoundError, match="theirs"):
        artifact.save(tmp_path / "ids", {}, {}, people=lines())
    assert list(tmp_path.iterdir()) == []


# ---- damage


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
        f"{saved}/semid.json: format_version=3 is newer than this semid 0.1.0 reads (1). Upgrade semid."
    )


def test_folders_that_are_no_artefacts_say_how_to_make_one(tmp_path):
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
        "It is a copy for people: save the artefact again."
    ]
    (saved / "ids.tsv").unlink()
    assert artifact.load(saved).fingerprint
    assert "ids.tsv: cannot be read: No such file" in artifact.verify(saved)[0]
