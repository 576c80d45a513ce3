"""Whatever happens while an artifact is written, the folder holds the old one or the new one, and no litter."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from semid import artifact
from semid.artifact import atomic
from semid.errors import ArtifactError
from tests.faults.crashes import kill_at_every_call


def variant(number, n_items=64):
    """Artifacts that differ in manifest and in arrays, and tell which one they are."""
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


# ---- readers beside a writer


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


def test_readers_see_one_whole_artifact_while_a_writer_replaces_it(tmp_path):
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


@pytest.mark.parametrize("before", ["old", "new"])
def test_kill_at_every_system_call_leaves_the_old_artifact_or_the_new_one(tmp_path, before):
    artifact.save(tmp_path / "old", *variant(1), tables={"ids.tsv": ["old"]})
    arguments = '{"number": 2}, {"values": np.full(64, 2)}, tables={"ids.tsv": ["new"]}, force=True'
    steps = kill_at_every_call(
        tmp_path,
        imports="import shutil\nimport numpy as np\nfrom semid.artifact import store as artifact",
        before='shutil.copytree(folder.parent / "old", folder)' if before == "old" else "",
        write=f"artifact.save(folder, {arguments})",
    )
    assert steps > 15
    outcomes = []
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        loadable = (folder / "semid.json").exists()
        outcomes.append(number_of(folder) if loadable else 0)
        # the next save needs no force where there is no artifact, and leaves no litter
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


def test_kill_at_random_moments_leaves_a_whole_artifact(tmp_path):
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
            artifact.save(folder, *variant(1), tables={"ids.tsv": ["old"]})
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
                artifact.save(folder, *variant(2), tables={"ids.tsv": ["new"]}, force=True)
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


def test_an_error_in_the_lines_for_people_is_passed_on_and_nothing_is_left(tmp_path):
    def lines():
        yield "first"
        raise FileNotFoundError("theirs")

    with pytest.raises(FileNotFoundError, match="theirs"):
        artifact.save(tmp_path / "ids", {}, {}, tables={"ids.tsv": lines()})
    assert list(tmp_path.iterdir()) == []
