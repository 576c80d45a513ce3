"""A power cut or a full disk leaves the old artifact or the new one, and it can still be changed."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest

from semid import artifact
from semid.errors import ArtifactError
from semid.pipeline import update as changing
from semid.tokenizer import SemanticIDTokenizer
from tests.faults.power_cut import Disk
from tests.helpers.small_shop import contents, faults, learned, names, records, vectors

OLD, NEW = names(60), names(5, first=1000)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Save `few`; `many`, which has been changed so often that the next change merges files; and `other`."""
    root = tmp_path_factory.mktemp("made")
    learned(OLD, codebook_size=8).save_pretrained(root / "few")
    shutil.copytree(root / "few", root / "many")
    for step in range(4):
        add(root / "many", names(2, 2000 + 2 * step))
    learned(NEW).save_pretrained(root / "other")
    return root


def add(folder, item_ids, **choices):
    return changing.add(folder, records(item_ids), embeddings=vectors(item_ids), **choices)


def replaced(folder, made):
    SemanticIDTokenizer.from_pretrained(made / "other").save_pretrained(folder, force=True)


CHANGES = {  # name -> (artifact before the change, the change)
    "add": ("few", lambda folder, made: add(folder, NEW)),
    "add and merge": ("many", lambda folder, made: add(folder, NEW)),
    "add and merge all": ("many", lambda folder, made: add(folder, names(20, 3000))),
    "update": ("few", lambda folder, made: changing.add(folder, records(OLD[:2], "other"), update=True)),
    "retire": ("few", lambda folder, made: changing.retire(folder, OLD[:3])),
    "retire and merge": ("many", lambda folder, made: changing.retire(folder, OLD[:30])),
    "save over": ("many", replaced),
    "save": (None, replaced),
}

QUICK = ("add and merge", "retire", "save")
EVERY_CHANGE = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CHANGES]


def prepared(made, root, name):
    """Return the folder before the change, and the change as a function."""
    before, change = CHANGES[name]
    root.mkdir()
    if before:
        shutil.copytree(made / before, root / "ids")
    return root / "ids", lambda: change(root / "ids", made)


def generation(folder):
    """Return the fingerprint of the artifact, None if there is none; fail if it is damaged."""
    if not (folder / "semid.json").exists():
        with pytest.raises(ArtifactError):
            artifact.load(folder)
        return None
    assert faults(folder, tables=False) == []
    return artifact.load(folder).fingerprint


# ---- power cuts


def cuts(made, tmp_path, name, rng, tries, forgotten=None):
    """Return the generations before and after, and (steps done, all steps, folder) for several outcomes of each step.

    The last steps come first. Steps of the kind `forgotten` are left out, as if the writer did not make them.
    """
    folder, change = prepared(made, tmp_path / "root", name)
    before = generation(folder)
    disk = Disk(tmp_path / "root")
    with disk.recording():
        change()
    disk.steps = [step for step in disk.steps if step.kind != forgotten]
    after, left = generation(folder), tmp_path / "left"
    assert before != after

    def outcomes():
        for n_steps in reversed(range(len(disk.steps) + 1)):
            for _ in range(tries):
                disk.after_cut(n_steps, left, rng)
                yield n_steps, len(disk.steps), left / "ids"

    return before, after, outcomes()


@pytest.mark.parametrize("name", EVERY_CHANGE)
def test_a_power_cut_at_any_step_leaves_the_old_artifact_or_the_new_one(made, tmp_path, name):
    before, after, outcomes = cuts(made, tmp_path, name, np.random.default_rng(3), tries=3)
    seen = set()
    for n_steps, n_all, folder in outcomes:
        found = generation(folder)
        assert found in (before, after), f"after {n_steps} of {n_all} steps"
        assert found == after or n_steps < n_all  # a change that was reported as done is done
        seen.add(found)
    assert seen == {before, after}
    assert n_all > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_after_a_power_cut_the_next_change_works(made, tmp_path, name):
    before, after, outcomes = cuts(made, tmp_path, name, np.random.default_rng(4), tries=6)
    for _, _, folder in outcomes:
        found = generation(folder)
        assert found in (before, after)
        if found is None:
            replaced(folder, made)
        else:
            add(folder, names(1, 4000))
        assert faults(folder, tables=False) == []
        data = {entry for entry in artifact.load(folder).manifest["files"] if entry.endswith(".safetensors")}
        assert {file for file in contents(folder) if file.endswith(".safetensors")} == data
        assert not [file for file in contents(folder) if file.startswith(".")]


@pytest.mark.parametrize("forgotten", ["sync", "sync folder"])
def test_the_simulation_sees_a_sync_that_is_missing(made, tmp_path, forgotten):
    """Check that the tests above can fail."""
    before, _, outcomes = cuts(made, tmp_path, "add", np.random.default_rng(3), tries=10, forgotten=forgotten)

    def spoilt(n_steps, n_all, folder):
        try:
            return generation(folder) == before and n_steps == n_all
        except (ArtifactError, AssertionError):
            return True

    assert any(spoilt(*outcome) for outcome in outcomes)


# ---- full disks and other refusals


@pytest.mark.parametrize("name", EVERY_CHANGE)
def test_a_disk_that_fills_at_any_write_leaves_everything_as_it_was(made, tmp_path, monkeypatch, name):
    real, step = os.write, 0
    while True:
        step += 1
        folder, change = prepared(made, tmp_path / str(step), name)
        before, left = (contents(folder) if folder.exists() else None), [step]

        def filling(descriptor, block, left=left):
            left[0] -= 1
            if left[0] == 0:
                real(descriptor, memoryview(block)[: len(block) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, block)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", filling)
            if step > 1 and not left[0]:
                break
            try:
                change()
            except ArtifactError as error:
                assert str(error).startswith(f"{folder}: cannot be written: No space left on device. Make room there")
        if left[0] > 0:
            break
        assert (contents(folder) if folder.exists() else None) == before
    assert step > 3
    assert faults(folder) == []


@pytest.mark.parametrize("name", EVERY_CHANGE)
@pytest.mark.parametrize("kind", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()], ids=["refused", "interrupted"])
def test_a_refusal_at_any_call_leaves_the_old_artifact_or_the_new_one(made, tmp_path, monkeypatch, kind, name):
    calls = ("open", "write", "pwrite", "ftruncate", "fsync", "replace", "mkdir", "unlink")
    real = {call: getattr(os, call) for call in calls}
    for step in range(1, 200):
        folder, change = prepared(made, tmp_path / str(step), name)
        before, files, left = generation(folder), (contents(folder) if folder.exists() else None), [step]

        def refusing(call, left=left):
            def refuse(*args, **kwargs):
                left[0] -= 1
                if left[0] == 0:
                    raise kind
                return real[call](*args, **kwargs)

            return refuse

        with monkeypatch.context() as patch:
            for call in calls:
                patch.setattr(os, call, refusing(call))
            try:
                change()
            except ArtifactError as error:
                assert str(error).startswith(f"{folder}: ")
            except KeyboardInterrupt:
                assert isinstance(kind, KeyboardInterrupt)
        if left[0] > 0:
            break
        if generation(folder) == before:
            assert (contents(folder) if folder.exists() else None) in (files, None)
    assert step > 12
    assert generation(folder) != before
